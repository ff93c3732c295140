"""Facts about what the best of n by a proxy reward is worth."""

import itertools
import math

import numpy as np
import pytest

from unipref.core.errors import DataError
from unipref.evaluate import best_of_n
from unipref.evaluate._best_of import chosen_of


def slow(proxy, gold, n):
    """The mean over every choice of n samples, ties decided by a fair coin."""
    values = []
    for chosen in itertools.combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in chosen)
        tied = [gold[i] for i in chosen if proxy[i] == top]
        values.append(sum(tied) / len(tied))
    return sum(values) / len(values)


def in_order(k, a):
    """Ranks of k uniform rewards u, and the expectation of u - a u^2 at each rank."""
    j = np.arange(1, k + 1)
    return j.astype(float), j / (k + 1) - a * j * (j + 1) / ((k + 1) * (k + 2))


@pytest.mark.parametrize("levels", [3, 100])
def test_the_estimate_is_the_mean_over_every_choice_of_samples(levels):
    rng = np.random.default_rng(levels)
    proxy, gold = rng.integers(0, levels, 8).astype(float), rng.normal(size=8)
    expected = [slow(proxy, gold, n) for n in range(1, 9)]
    assert chosen_of(proxy, gold, range(1, 9)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [6, 500])
def test_of_uniform_rewards_the_best_of_n_has_its_closed_form(k):
    # E max of n uniforms is n / (n + 1), of its square n / (n + 2)
    told = best_of_n([in_order(k, 0.75)[0]] * 2, [in_order(k, 0.75)[1]] * 2, resamples=10)
    gold = [n / (n + 1) - 0.75 * n / (n + 2) for n in told["n"]]
    assert [triple[0] for triple in told["gold"]] == pytest.approx(gold, abs=1e-12)
    assert told["peak"]["n"] in (3, 4)  # 3/4 - 9/20 = 4/5 - 1/2


def test_one_sample_is_the_mean_and_all_of_them_the_best():
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))
    told = best_of_n(proxy, gold, resamples=50)
    assert told["gold"][0][0] == pytest.approx(gold.mean())
    assert told["gold"][-1][0] == pytest.approx(gold[np.arange(30), proxy.argmax(axis=1)].mean())
    assert told["proxy"][-1][0] == pytest.approx(proxy.max(axis=1).mean())
    assert told["kl"] == pytest.approx([math.log(n) - (n - 1) / n for n in range(1, 6)])
    assert told["kl"][0] == 0
    assert told["kl"][1] == pytest.approx(0.193, abs=5e-4)  # arXiv:2210.10760


def test_a_proxy_that_is_gold_has_no_gap_and_never_falls():
    gold = np.random.default_rng(1).normal(size=(40, 32))
    told = best_of_n(gold, gold, resamples=200)
    assert np.array(told["gold"]) == pytest.approx(np.array(told["proxy"]), abs=1e-12)
    values = [triple[0] for triple in told["gold"]]
    assert values == sorted(values)
    assert (told["peak"]["n"], told["overoptimised"]) == (32, False)
    assert told["n"] == [*range(1, 17), 32]


def test_light_noise_in_the_proxy_does_not_turn_gold_over_and_heavy_noise_does():
    rng = np.random.default_rng(2)
    gold = rng.normal(size=(200, 128))
    light, heavy = gold + rng.normal(size=gold.shape), gold + rng.standard_cauchy(gold.shape)
    plain, turned = (best_of_n(proxy, gold, resamples=200) for proxy in (light, heavy))
    # correlation 1 / sqrt 2 with the proxy: the expected maximum of n normals times that
    assert plain["gold"][1][0] == pytest.approx(math.sqrt(0.5) / math.sqrt(math.pi), abs=0.02)
    assert plain["gold"][2][0] == pytest.approx(math.sqrt(0.5) * 1.5 / math.sqrt(math.pi), abs=0.02)
    assert (plain["overoptimised"], plain["peak"]["n"]) == (False, 128)
    assert turned["overoptimised"]
    assert 2 < turned["peak"]["n"] < 64
    assert turned["proxy"][-1][0] > turned["proxy"][-2][0]


def test_a_flat_gold_is_not_called_over_optimised_more_often_than_stated():
    # a proxy that knows nothing, 120 worlds: at most 5 % are called so; more than 15 has chance 0.0003
    rng = np.random.default_rng(3)
    called = [
        best_of_n(rng.normal(size=(40, 8)), rng.normal(size=(40, 8)), resamples=100, seed=i)["overoptimised"]
        for i in range(120)
    ]
    assert sum(called) <= 15


def test_the_published_curve_is_fitted_exactly_where_gold_follows_it():
    ns = list(range(1, 9))
    d = np.sqrt([math.log(n) - (n - 1) / n for n in ns])
    ranks = np.arange(8.0)
    weights = np.array([chosen_of(ranks, row, ns) for row in np.eye(8)]).T
    gold = np.linalg.solve(weights, 0.3 + d * (1.5 - 0.6 * d))
    told = best_of_n([ranks] * 3, [gold] * 3, resamples=10)
    assert told["fit"]["alpha"][0] == pytest.approx(1.5, abs=1e-8)
    assert told["fit"]["beta"][0] == pytest.approx(0.6, abs=1e-8)


def test_prompts_of_different_numbers_of_samples_are_told_up_to_the_fewest():
    told = best_of_n([[1.0, 2.0, 3.0], [1.0, 1.0]], [[1.0, 2.0, 3.0], [0.0, 2.0]], resamples=10)
    assert (told["k"], told["n"], told["prompts"]) == (2, [1, 2], 2)
    assert told["gold"][1][0] == pytest.approx(((2 + 3 + 3) / 3 + 1) / 2)
    assert told["ties"] == 2 / 5


@pytest.mark.parametrize(
    ("proxy", "gold", "words"),
    [
        ([], [], "needs prompts with samples"),
        ([[1.0, 2.0]], [[1.0]], "score the same samples"),
        ([[1.0, 2.0]], [[1.0, math.nan]], "the gold scores of prompt 0"),
        ([[]], [[]], "the proxy scores of prompt 0"),
    ],
)
def test_scores_that_do_not_fit_are_an_error(proxy, gold, words):
    with pytest.raises(DataError, match=words):
        best_of_n(proxy, gold)
