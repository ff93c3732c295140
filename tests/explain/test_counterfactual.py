import numpy as np
import pytest
from planted import planted

from unipref.core.errors import ConfigError
from unipref.explain.counterfactual import CONDITIONS, counterfactual, refits_of
from unipref.explain.local import fewest_changes
from unipref.explain.regression import HierarchicalPairRegressor


def votes(rng, n, n_concepts):
    return rng.choice([-1.0, 0.0, 1.0], (n, n_concepts))


def moved(x, found):
    after = x.copy()
    for j, old, new in found.changes:
        assert old == x[j] != new
        after[j] = new
    return after


def curved(x):
    """A model in which the first two concepts count only together."""
    return 2.0 * x[:, 0] * x[:, 1] + 0.7 * x[:, 2] - 0.2


def test_on_a_linear_model_it_never_beats_the_exact_answer_and_comes_within_one_change_of_it_nine_times_in_ten():
    near = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        weights, data = rng.normal(size=12), votes(rng, 300, 12)
        for x in votes(rng, 25, 12):
            found = counterfactual(lambda v, w=weights: v @ w, x, data)
            exact = fewest_changes(weights, x, -np.ones(12), np.ones(12))
            assert found.found
            assert found.n_changes >= len(exact.changes)
            near.append(found.n_changes <= len(exact.changes) + 1)
    assert np.mean(near) >= 0.9


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_condition_holds_after_the_changes_and_no_longer_where_one_of_them_is_taken_back(condition):
    rng = np.random.default_rng(1)
    data = votes(rng, 200, 5)
    refits = [lambda v, s=s: curved(v) - s for s in (0.1, -0.1, 0.3)]
    goal = np.log(3.0)  # a probability of 0.75
    won = data[curved(data) > 0]
    away = lambda v: np.linalg.norm((v - won.mean(0)) / data.std(0), axis=1)  # noqa: E731
    holds = {
        "nearest": lambda v: curved(v) > 0,
        "confident": lambda v: curved(v) >= goal,
        "dense": lambda v: (curved(v) > 0) & (away(v) <= np.quantile(away(won), 0.9)),
        "robust": lambda v: np.all([curved(v) > 0, *(refit(v) > 0 for refit in refits)], axis=0),
    }[condition]
    for x in votes(rng, 30, 5):
        found = counterfactual(curved, x, data, condition=condition, towards=1, refits=refits)
        after = moved(x, found)
        assert found.found
        assert holds(after[None])[0]
        assert found.logit == curved(after[None])[0]
        for j, old, _ in found.changes:
            back = after.copy()
            back[j] = old
            assert not holds(back[None])[0]


def test_a_pair_that_has_the_verdict_is_left_as_it_is():
    data = votes(np.random.default_rng(2), 50, 3)
    found = counterfactual(curved, np.array([1.0, 1.0, 0.0]), data, towards=1)
    assert (found.changes, found.found, found.distance) == ((), True, 0.0)


def test_fixed_concepts_and_bounds_are_kept_and_where_no_way_is_left_that_is_said():
    rng = np.random.default_rng(3)
    weights, data = np.array([3.0, 1.0, 0.5, 0.4]), votes(rng, 200, 4)
    decide = lambda v: v @ weights  # noqa: E731
    x = np.array([0.0, -1.0, 0.0, 0.0])
    fixed = np.array([True, False, False, False])
    free = counterfactual(decide, x, data)
    kept = counterfactual(decide, x, data, fixed=fixed)
    # the first concept alone would do; without it the second must change, and to more than 0 or with help
    assert [j for j, _, _ in free.changes] == [0] or free.n_changes == 1
    assert kept.found
    assert all(j != 0 for j, _, _ in kept.changes)
    bounded = counterfactual(decide, x, data, fixed=fixed, low=-np.ones(4), high=np.zeros(4))
    assert all(new <= 0 for _, _, new in bounded.changes)
    assert not bounded.found  # all at 0 is a logit of 0, and no verdict
    assert bounded.changes == ()
    one_sided = data[data @ weights < 0]
    assert not counterfactual(decide, x, one_sided).found


def test_robust_changes_stay_valid_under_refits_that_they_were_not_made_for():
    world = planted(0, n_domains=1, n_concepts=10, n_rows=250)
    model = HierarchicalPairRegressor(lambda_shared=0.01).fit(world.X, world.y)
    mine = refits_of(model, world.X, world.y, n=10, seed=1)
    others = refits_of(model, world.X, world.y, n=20, seed=2)
    stays = {}
    for condition in ("nearest", "robust"):
        share = []
        for x in world.X[:40]:
            found = counterfactual(model.decision_function, x, world.X, condition=condition, refits=mine)
            assert found.found
            goal = -np.sign(model.decision_function(x[None])[0]) or 1.0
            share.append(np.mean([np.sign(other(moved(x, found)[None])[0]) == goal for other in others]))
        stays[condition] = np.mean(share)
    assert stays["robust"] > stays["nearest"] + 0.1
    assert stays["robust"] > 0.9


def test_robustness_is_the_share_of_refits_that_give_the_new_verdict():
    data = votes(np.random.default_rng(4), 50, 3)
    refits = [lambda v: v @ np.ones(3), lambda v: -v @ np.ones(3)]
    found = counterfactual(lambda v: v @ np.array([1.0, 0.1, 0.1]), -np.ones(3), data, refits=refits)
    votes_for = [float(refit(moved(-np.ones(3), found)[None])[0] > 0) for refit in refits]
    assert found.robustness == np.mean(votes_for)
    assert np.isnan(counterfactual(curved, np.zeros(3), data).robustness)


def test_a_request_that_cannot_be_met_says_what_it_needs():
    data = votes(np.random.default_rng(5), 20, 3)
    with pytest.raises(ConfigError, match=r"no condition 'robustt'.*'robust'"):
        counterfactual(curved, data[0], data, condition="robustt")
    with pytest.raises(ConfigError, match="refits_of"):
        counterfactual(curved, data[0], data, condition="robust")
    with pytest.raises(ConfigError, match="low is above high for concept 1"):
        counterfactual(curved, data[0], data, low=np.array([0.0, 2.0, 0.0]), high=np.ones(3))
