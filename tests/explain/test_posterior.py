import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.explain.posterior import (
    length_label,
    mechanism_similarity,
    most_probable,
    posterior,
    posteriors,
    similarity,
)

BRIEF = {"draws": 400, "warm_up": 200}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def answers(rng, X, a):
    return (rng.random(len(X)) < sigmoid(X @ a)).astype(float)


def votes(rng, n, n_concepts):
    return rng.choice([-1.0, 0.0, 1.0], (n, n_concepts))


def on_a_grid(X, y, scale, *, width=1.5, n=401):
    """The slow twin: the posterior of two weights, summed over a grid. Mean, sd and 95 % interval of each."""
    axis = np.linspace(-width, width, n)
    a = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    log = -np.abs(a).sum(-1) / scale
    for row, p in zip(X, y, strict=True):
        z = a @ row
        log += p * z - np.logaddexp(0, z)
    density = np.exp(log - log.max())
    found = []
    for other in (1, 0):
        marginal = density.sum(axis=other) / density.sum()
        mean = marginal @ axis
        low, high = np.interp([0.025, 0.975], np.cumsum(marginal), axis)
        found.append((mean, math.sqrt(marginal @ (axis - mean) ** 2), low, high))
    return np.array(found)


@pytest.mark.parametrize("scale", [0.1, 0.5])
def test_the_draws_agree_with_the_posterior_summed_over_a_grid(scale):
    rng = np.random.default_rng(0)
    X = votes(rng, 60, 2)
    X[:, 1] = np.where(rng.random(60) < 0.6, X[:, 0], X[:, 1])  # the two go together
    y = answers(rng, X, np.array([1.0, 0.0]))
    y[:5] = 0.5
    found, exact = posterior(X, y, scale=scale, draws=5000), on_a_grid(X, y, scale)
    noise = found.sd / np.sqrt(found.ess)
    assert np.all(np.abs(found.mean - exact[:, 0]) < 4 * noise)  # false alarm once in 4000 seeds
    np.testing.assert_allclose(found.sd, exact[:, 1], rtol=0.05)
    np.testing.assert_allclose(found.interval(0.95), exact[:, 2:], atol=0.1 * found.sd.max())


def test_ninety_per_cent_intervals_hold_ninety_per_cent_of_weights_drawn_from_the_prior():
    # 100 weights, so 90 +- 3; below 80 or above 98 about once in 500 seeds
    rng = np.random.default_rng(1)
    inside = []
    for k in range(10):
        a = rng.laplace(0, 0.1, 10)
        X = votes(rng, 80, 10)
        interval = posterior(X, answers(rng, X, a), seed=k, **BRIEF).interval(0.9)
        inside += ((interval[:, 0] <= a) & (a <= interval[:, 1])).tolist()
    assert 80 <= sum(inside) <= 98


def test_three_planted_effects_come_first_and_the_mode_ranks_them_as_the_mean_does():
    rng = np.random.default_rng(2)
    planted = np.zeros(29)
    planted[[3, 10, 20]] = 1.0, -1.0, 1.0
    X = votes(rng, 400, 29)
    y = answers(rng, X, planted)
    found, mode = posterior(X, y, **BRIEF), most_probable(X, y).shared_
    assert found.converged
    assert found.ess.min() > 100
    first = set(np.argsort(-np.abs(found.mean))[:3].tolist())
    assert first == set(np.argsort(-np.abs(mode))[:3].tolist()) == {3, 10, 20}
    assert np.array_equal(np.sign(found.mean[[3, 10, 20]]), np.sign(planted[[3, 10, 20]]))
    interval = found.interval(0.9)
    nothing = planted == 0
    assert ((interval[:, 0] <= 0) & (interval[:, 1] >= 0))[nothing].mean() >= 0.9
    assert not ((interval[:, 0] <= 0) & (interval[:, 1] >= 0))[~nothing].any()
    # the prior pulls an effect of ten scales towards 0, so that its interval lies short of it
    assert np.all(np.abs(found.mean[~nothing]) < 1)
    # a mean is never a selection, and the mode is one
    assert (found.mean != 0).all()
    assert (mode == 0).any()


def test_without_a_signal_every_preference_is_within_two_points_of_fifty():
    rng = np.random.default_rng(3)
    X = votes(rng, 300, 8)
    found = posterior(np.concatenate([X, X]), np.repeat([0.0, 1.0], 300), **BRIEF)
    assert np.all(np.abs(found.preference - 50) < 2)


def test_a_narrower_prior_brings_all_weights_to_zero_and_without_information_the_prior_comes_back():
    rng = np.random.default_rng(4)
    X = votes(rng, 100, 3)
    y = answers(rng, X, np.ones(3))
    sizes = [np.abs(posterior(X, y, scale=scale, **BRIEF).mean).max() for scale in (1.0, 0.1, 0.01, 1e-4)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-4
    X[:, 2] = 0.0
    prior = posterior(X, y, scale=0.1, draws=4000)
    # standard deviation sqrt(2) scale, 90 % within scale * ln 10
    assert prior.sd[2] == pytest.approx(math.sqrt(2) * 0.1, rel=0.06)
    assert prior.interval(0.9)[2] == pytest.approx([-0.1 * math.log(10), 0.1 * math.log(10)], rel=0.1)


def test_swapping_the_responses_of_some_pairs_with_their_labels_leaves_the_posterior_as_it_is():
    rng = np.random.default_rng(5)
    X = votes(rng, 50, 4)
    y = answers(rng, X, np.ones(4))
    swap = rng.random(50) < 0.5
    one = posterior(X, y, **BRIEF)
    other = posterior(np.where(swap[:, None], -X, X), np.where(swap, 1 - y, y), **BRIEF)
    np.testing.assert_allclose(other.mean, one.mean, atol=0.2 * one.sd.max())
    assert posterior(X, y, **BRIEF).draws.tolist() == one.draws.tolist()


def test_chains_that_have_not_met_are_told_from_those_that_have():
    from unipref.explain.posterior import _diagnosed

    rng = np.random.default_rng(6)
    draws = rng.standard_normal((4, 1000, 3))
    draws[0, :, 1] += 2.0  # one chain elsewhere
    for t in range(1, 1000):  # an autoregression by 0.9: (1 - 0.9) / (1 + 0.9) of its draws count
        draws[:, t, 2] = 0.9 * draws[:, t - 1, 2] + math.sqrt(1 - 0.81) * draws[:, t, 2]
    rhat, ess = _diagnosed(draws)
    assert rhat[0] < 1.01 < 1.3 < rhat[1]
    assert ess[0] == pytest.approx(4000, rel=0.2)
    assert ess[2] == pytest.approx(4000 * 0.1 / 1.9, rel=0.35)
    assert ess[1] < 20


def test_domains_are_fitted_apart_and_missing_values_counted():
    rng = np.random.default_rng(7)
    X = votes(rng, 60, 2)
    y = answers(rng, X, np.ones(2))
    domains = np.repeat(["b", "a"], 30)
    found = posteriors(X, y, domains, **BRIEF)
    assert list(found) == ["a", "b"]
    assert found["a"].mean.tolist() == posterior(X[30:], y[30:], **BRIEF).mean.tolist()
    X[0, 0] = np.nan
    assert posterior(X, y, **BRIEF).n_missing == 1
    told = found["a"].told(["clear", "short"])
    assert set(told) == {"clear", "short"}
    value, low, high = told["clear"]["preference"]
    assert 0 < low < value < high < 100


def test_similarities_are_those_of_scipy_and_distances_are_negative():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=12).round(1), rng.normal(size=12).round(1)  # rounded, so that some tie
    assert similarity(a, b) == pytest.approx(pearsonr(a, b)[0])
    assert similarity(a, b, by="spearman") == pytest.approx(spearmanr(a, b)[0])
    assert similarity([1.0, 2.0], [0.0, 4.0], by="l1") == -3.0
    assert similarity([1.0, 2.0], [4.0, 6.0], by="l2") == -5.0
    assert math.isnan(similarity([1.0, 1.0], [0.0, 1.0]))
    with pytest.raises(ConfigError, match="pearson, spearman, l1, l2"):
        similarity(a, b, by="cosine")


def test_mechanisms_are_compared_in_the_domains_that_both_have_and_where_neither_is_constant():
    people = {"law": [1.0, 2.0, 3.0], "food": [1.0, 0.0, 0.0], "travel": [0.0, 1.0, 0.0], "art": [1.0, 1.0, 1.0]}
    judge = {"law": [2.0, 4.0, 6.0], "food": [0.0, 1.0, 1.0], "art": [1.0, 2.0, 3.0]}
    mean, each = mechanism_similarity(people, judge)
    assert each["law"] == pytest.approx(1.0)
    assert each["food"] == pytest.approx(-1.0)
    assert math.isnan(each["art"])
    assert mean == pytest.approx(0.0)
    with pytest.raises(DataError, match="share no domain"):
        mechanism_similarity({"law": [1.0]}, {"food": [1.0]})


@pytest.mark.parametrize(
    ("shorter", "longer", "clear"),
    [
        (10, 16, False), (10, 17, True),  # the table, below 12 words
        (0, 0, False), (0, 1, True), (1, 2, False), (1, 3, True), (11, 18, False), (11, 19, True),
        (12, 21, False), (12, 22, True),  # 10 behind, and 12 <= 0.7 * 22
        (35, 50, True), (36, 50, False),  # 0.7 * 50 = 35 itself is enough; 36 is 14 behind, and 20 are asked for
        (80, 100, True), (81, 100, False), (60, 75, False),  # 0.8, but 15 behind
        (360, 400, True), (361, 400, False), (351, 390, False),  # 0.9, but 39 behind
    ],
)  # fmt: skip
def test_a_response_is_longer_for_people_where_the_authors_rule_says_so(shorter, longer, clear):
    assert length_label(longer, shorter) == (1 if clear else 0)
    assert length_label(shorter, longer) == (-1 if clear else 0)


def test_what_cannot_be_fitted_says_what_is_wrong():
    with pytest.raises(ConfigError, match="scale, of the prior"):
        posterior(np.ones((2, 1)), [0, 1], scale=0.0)
    with pytest.raises(ShapeError, match="3 labels"):
        posterior(np.ones((2, 1)), [0, 1, 1])
    with pytest.raises(DataError, match="needs pairs and concepts"):
        posterior(np.ones((2, 0)), [0, 1])
    with pytest.raises(DataError, match="infinite"):
        posterior(np.full((2, 1), np.inf), [0, 1])
