import numpy as np
import pytest
from planted import planted
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.explain import HierarchicalPairRegressor, as_probabilities, largest_penalties, penalty_grid
from unipref.explain._problem import Domain, Problem
from unipref.explain._solvers import fista

PENALTIES = {"lambda_shared": 0.06, "lambda_specific": 0.04}


def fitted(world, **settings):
    return HierarchicalPairRegressor(**{**PENALTIES, **settings}).fit(world.X, world.y, world.domains)


def written_out(X, y, domains, b, s, alpha, lambda_b, lambda_s):
    """The objective, term by term."""
    total = lambda_b * np.abs(b).sum() + lambda_s * np.abs(s).sum()
    for d, name in enumerate(np.unique(domains)):
        rows = domains == name
        sign = 2 * y[rows] - 1
        total += np.mean(np.log1p(np.exp(-sign * (X[rows] @ (b + s[d])))))
        total += alpha * np.mean(np.log1p(np.exp(-sign * (X[rows] @ b))))
    return total


def test_the_objective_is_the_papers_with_the_mean_over_each_domain():
    world = planted(0, n_domains=3, n_concepts=6, n_rows=40, shared=2, specific=1)
    model = fitted(world)
    by_hand = written_out(world.X, world.y, world.domains, model.shared_, model.specific_, 1 / 3, 0.06, 0.04)
    assert model.objective_ == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("alpha", [0.0, None])
def test_no_neighbour_of_the_optimum_is_better_and_its_gap_says_so(seed, alpha):
    world = planted(seed, n_domains=4, n_concepts=12, n_rows=60)
    model = fitted(world, alpha=alpha)
    assert 0 <= model.gap_ <= 1e-7
    rng = np.random.default_rng(seed)
    for scale in (1e-1, 1e-3):
        b = model.shared_ + scale * rng.normal(size=model.shared_.shape)
        s = model.specific_ + scale * rng.normal(size=model.specific_.shape)
        a = 0.25 if alpha is None else alpha
        assert written_out(world.X, world.y, world.domains, b, s, a, 0.06, 0.04) > model.objective_


@pytest.mark.parametrize(("lambda_b", "lambda_s"), [(0.2, 0.03), (0.06, 0.04), (0.01, 0.01)])
def test_newton_on_a_working_set_ends_where_plain_fista_on_all_weights_does(lambda_b, lambda_s):
    world = planted(1, n_domains=3, n_concepts=120, n_rows=80)
    model = fitted(world, lambda_shared=lambda_b, lambda_specific=lambda_s)
    rows = [world.domains == d for d in range(3)]
    parts = [Domain(world.X[r], world.y[r], np.full(80, 1 / 80)) for r in rows]
    everything = np.ones(120, bool), np.ones((3, 120), bool)
    slow = fista(Problem(parts, 1 / 3, lambda_b, lambda_s, *everything), tolerance=1e-13, max_iter=20000)
    assert model.objective_ == pytest.approx(slow.objective, abs=1e-8)
    assert model.objective_ <= slow.objective + 1e-12


def test_with_one_domain_it_is_scikit_learns_lasso_logistic_regression():
    world = planted(2, n_domains=1, n_concepts=30, n_rows=400)
    model = HierarchicalPairRegressor(lambda_shared=0.05, alpha=1.0).fit(world.X, world.y)
    # (1 + alpha) L(b) + lambda |b| is proportional to L(b) + lambda / (1 + alpha) |b|
    oracle = LogisticRegression(
        l1_ratio=1.0, C=1 / (400 * 0.05 / 2), solver="saga", fit_intercept=False, tol=1e-12, max_iter=100_000
    ).fit(world.X, world.y)
    theirs = written_out(world.X, world.y, np.zeros(400), oracle.coef_[0], np.zeros((1, 30)), 1.0, 0.05, 0.0)
    assert model.objective_ <= theirs + 1e-8
    assert np.allclose(model.shared_, oracle.coef_[0], atol=1e-5)


def test_with_many_domains_and_no_specific_weights_it_is_the_same_regression_on_all_rows():
    world = planted(3, n_domains=4, n_concepts=20, n_rows=100)
    model = fitted(world, lambda_specific=10.0, lambda_shared=0.2)
    assert not model.specific_.any()
    # four domains, each of weight 1 + 1/4, pooled: 5 L(b) + 0.2 |b|
    pooled = HierarchicalPairRegressor(lambda_shared=0.2 / 5, alpha=0.0).fit(world.X, world.y)
    assert np.allclose(model.shared_, pooled.shared_, atol=1e-7)


def test_without_shared_weights_and_alpha_domains_do_not_know_of_each_other():
    world = planted(4, n_domains=3, n_concepts=15, n_rows=80)
    together = fitted(world, lambda_shared=10.0, alpha=0.0)
    for d in range(3):
        rows = world.domains == d
        alone = HierarchicalPairRegressor(lambda_shared=0.04, alpha=0.0).fit(world.X[rows], world.y[rows])
        assert np.allclose(together.weights(d), alone.weights(d), atol=1e-7)


def test_swapping_any_pairs_and_their_labels_changes_no_weight():
    world = planted(5)
    flip = np.random.default_rng(0).random(len(world.y)) < 0.5
    X, y = np.where(flip[:, None], -world.X, world.X), np.where(flip, 1 - world.y, world.y)
    model, swapped = fitted(world), HierarchicalPairRegressor(**PENALTIES).fit(X, y, world.domains)
    assert np.allclose(model.shared_, swapped.shared_, atol=1e-12)
    assert np.allclose(model.specific_, swapped.specific_, atol=1e-12)


def test_the_two_orders_of_a_pair_have_probabilities_that_add_up_to_one():
    world = planted(6)
    model = fitted(world)
    there, back = (model.predict_proba(x, world.domains)[:, 1] for x in (world.X, -world.X))
    assert np.allclose(there + back, 1.0, atol=1e-15)


def test_all_weights_are_zero_exactly_from_the_largest_penalties_on():
    world = planted(7, n_domains=3, n_concepts=10, n_rows=50)
    b, s = largest_penalties(world.X, world.y, world.domains)
    # half the largest mean of y x, y in {-1, 1}; the shared one counts every domain, and again with alpha = 1/3
    means = np.stack([((2 * world.y - 1)[:, None] * world.X)[world.domains == d].mean(axis=0) for d in range(3)])
    assert b == pytest.approx(0.5 * (1 + 1 / 3) * np.abs(means.sum(axis=0)).max())
    assert s == pytest.approx(0.5 * np.abs(means).max())
    at = fitted(world, lambda_shared=b, lambda_specific=s)
    assert not at.shared_.any()
    assert not at.specific_.any()
    assert fitted(world, lambda_shared=0.98 * b, lambda_specific=s).shared_.any()
    assert fitted(world, lambda_shared=b, lambda_specific=0.98 * s).specific_.any()


def test_planted_concepts_are_found():
    """The figures of six domains of 200 pairs, means over ten worlds."""
    found_shared, found_specific, alike = [], [], []
    for seed in range(10):
        world = planted(seed)
        model = fitted(world)
        top = set(np.argsort(-np.abs(model.shared_))[:5])
        found_shared.append(len(top & set(np.flatnonzero(world.b))) / 5)
        alike.append(np.corrcoef(model.shared_, world.b)[0, 1])
        for d in range(6):
            top = set(np.argsort(-np.abs(model.specific_[d]))[:3])
            found_specific.append(len(top & set(np.flatnonzero(world.s[d]))) / 3)
    assert np.mean(found_shared) >= 0.9
    assert np.mean(alike) > 0.9
    assert np.mean(found_specific) >= 0.65


def test_alpha_puts_common_effects_into_the_shared_weights_where_deviations_are_cheaper():
    for seed in range(5):
        world = planted(seed, shared=4, specific=0)
        penalties = {"lambda_shared": 0.22, "lambda_specific": 1 / 36}  # one shared weight costs more than six own
        dirty, ours = fitted(world, alpha=0.0, **penalties), fitted(world, alpha=None, **penalties)
        assert not dirty.shared_.any()
        assert set(np.flatnonzero(ours.shared_)) == set(np.flatnonzero(world.b))
        elsewhere = planted(seed, shared=4, specific=0, n_rows=2000)  # the same b, as it is drawn first
        assert np.array_equal(elsewhere.b, world.b)
        unknown = np.full(len(elsewhere.y), 99)
        assert dirty.score(elsewhere.X, elsewhere.y, unknown) == 0.5
        assert ours.score(elsewhere.X, elsewhere.y, unknown) > 0.65


def test_weight_two_is_a_row_that_stands_twice_and_a_vote_is_its_two_rows():
    world = planted(8, n_domains=2, n_concepts=8, n_rows=60)
    twice = np.arange(len(world.y)) % 3 == 0
    weighted = HierarchicalPairRegressor(**PENALTIES).fit(world.X, world.y, world.domains, sample_weight=1.0 + twice)
    X, y, domains = (np.concatenate([a, a[twice]]) for a in (world.X, world.y, world.domains))
    repeated = HierarchicalPairRegressor(**PENALTIES).fit(X, y, domains)
    assert np.allclose(weighted.shared_, repeated.shared_, atol=1e-7)
    votes = np.where(twice, 0.75, world.y)
    soft = HierarchicalPairRegressor(**PENALTIES).fit(world.X, votes, world.domains)
    X, domains = np.repeat(world.X, 4, axis=0), np.repeat(world.domains, 4)
    y = np.concatenate([[1, 1, 1, 0] if two else [label] * 4 for two, label in zip(twice, world.y, strict=True)])
    assert np.allclose(soft.shared_, HierarchicalPairRegressor(**PENALTIES).fit(X, y, domains).shared_, atol=1e-7)


def test_what_is_held_at_zero_stays_there_and_an_empty_concept_changes_nothing():
    world = planted(9, n_domains=2, n_concepts=8)
    shared = np.arange(8) < 4
    model = fitted(world, shared=shared, specific={1: ~shared})
    assert not model.shared_[4:].any()
    assert not model.specific_[0].any()
    assert not model.specific_[1, :4].any()
    assert model.shared_[:4].any()
    assert model.specific_[1, 4:].any()
    wider = HierarchicalPairRegressor(**PENALTIES).fit(
        np.hstack([world.X, np.zeros((len(world.X), 1))]), world.y, world.domains
    )
    assert np.allclose(wider.shared_[:-1], fitted(world).shared_, atol=1e-8)
    assert wider.shared_[-1] == 0


def test_of_a_concept_that_stands_twice_only_the_sum_is_known():
    world = planted(10, n_domains=2, n_concepts=6)
    twin = HierarchicalPairRegressor(**PENALTIES).fit(np.hstack([world.X, world.X[:, :1]]), world.y, world.domains)
    assert twin.shared_[0] + twin.shared_[-1] == pytest.approx(fitted(world).shared_[0], abs=1e-7)


def test_contributions_add_up_to_the_logit_and_a_zero_logit_is_a_tie():
    world = planted(11)
    model = fitted(world)
    parts = model.contributions(world.X, world.domains)
    assert np.allclose(parts.sum(axis=1), model.decision_function(world.X, world.domains), atol=1e-12)
    nothing = np.zeros((1, world.X.shape[1]))
    assert model.predict(nothing, [0]) == 0.5
    assert model.score(nothing, [1.0], [0]) == 0.5
    assert np.isnan(model.score(nothing, [0.5], [0]))


@pytest.mark.parametrize(("step", "first_order", "exact"), [(0.05, 2.5, 2.51), (0.25, 12.5, 12.74), (0.5, 25.0, 25.82)])
def test_the_lift_is_the_mean_change_of_probability_to_first_order(step, first_order, exact):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)  # logits of N(0, 1)
    model = HierarchicalPairRegressor()
    model.shared_ = np.array([step])
    assert model.lift() == [pytest.approx(first_order)]
    ratio = (1 + np.exp(-nodes)) / (1 + np.exp(-nodes - step))  # of the probability after one more unit to that before
    assert 100 * (weights @ ratio / weights.sum() - 1) == pytest.approx(exact, abs=0.02)


def test_values_that_nobody_judged_count_as_no_difference_and_are_counted():
    world = planted(12, n_domains=2, n_concepts=5)
    X = world.X.copy()
    X[world.X == 0] = np.nan
    model = HierarchicalPairRegressor(**PENALTIES).fit(X, world.y, world.domains)
    assert model.n_missing_ == (world.X == 0).sum()
    assert np.array_equal(model.shared_, fitted(world).shared_)


def test_labels_are_probabilities_or_signs():
    assert as_probabilities([-1, 0, 1]).tolist() == [0.0, 0.5, 1.0]
    assert as_probabilities([0, 0.3, 1]).tolist() == [0.0, 0.3, 1.0]
    for wrong in ([-1, 0.5], [2.0], [np.nan]):
        with pytest.raises(DataError, match="probabilities"):
            as_probabilities(wrong)


def test_separable_pairs_have_an_optimum_with_a_penalty_and_an_error_without():
    X, y = np.array([[1.0], [2.0], [-1.0]]), [1, 1, 0]
    assert HierarchicalPairRegressor(lambda_shared=0.1).fit(X, y).gap_ < 1e-8
    with pytest.raises(ConfigError, match="separable"):
        HierarchicalPairRegressor(lambda_shared=0.0).fit(X, y)


def test_arguments_that_disagree_are_named():
    world = planted(0, n_domains=2, n_concepts=4, n_rows=10, shared=2, specific=1)
    model = fitted(world)
    with pytest.raises(ShapeError, match="knows 4 concepts"):
        model.predict(world.X[:, :3], world.domains)
    with pytest.raises(ShapeError, match="say which one"):
        model.predict(world.X)
    with pytest.raises(ShapeError, match="y has the shape"):
        model.fit(world.X, world.y[:-1], world.domains)
    with pytest.raises(ConfigError, match="at least 0"):
        fitted(world, lambda_shared=-1.0)
    with pytest.raises(ConfigError, match="specific names 'law'"):
        fitted(world, specific={"law": np.ones(4, bool)})
    with pytest.raises(DataError, match="infinite"):
        model.fit(np.where(world.X == 0, np.inf, world.X), world.y, world.domains)


def test_it_clones_as_scikit_learn_asks():
    copy = clone(HierarchicalPairRegressor(lambda_shared=0.3, alpha=0.5))
    assert copy.get_params() == {**HierarchicalPairRegressor().get_params(), "lambda_shared": 0.3, "alpha": 0.5}
    with pytest.raises(ConfigError, match="no parameter 'beta'"):
        copy.set_params(beta=1)


def test_eight_domains_have_the_papers_nine_settings():
    assert penalty_grid(8) == [
        (1 / 8, 1 / 8), (1 / 8, 1 / 16), (1 / 8, 1 / 32), (1 / 8, 1 / 64),
        (1 / 16, 1 / 16), (1 / 16, 1 / 32), (1 / 16, 1 / 64),
        (1 / 32, 1 / 32), (1 / 32, 1 / 64),
    ]  # fmt: skip
