from itertools import combinations

import numpy as np
import pytest

from unipref.explain.local import fewest_changes, local_lift


def by_search(weights, x, low, high):
    """The least number of concepts that turn the verdict, by trying all sets."""
    z = weights @ x
    sign = -1 if z > 0 else 1
    best = np.where(sign * weights > 0, np.maximum(high, x), np.minimum(low, x))
    for size in range(1, len(x) + 1):
        for chosen in combinations(range(len(x)), size):
            moved = x.copy()
            moved[list(chosen)] = best[list(chosen)]
            if sign * (weights @ moved) > 1e-9:
                return size
    return None


def test_no_smaller_set_of_changes_turns_the_verdict():
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights, x = rng.normal(size=6), rng.integers(-1, 2, 6).astype(float)
        low, high = -np.ones(6), np.ones(6)
        found = fewest_changes(weights, x, low, high)
        assert (len(found.changes) if found.found else None) == by_search(weights, x, low, high)


def test_the_changes_do_what_they_say_and_stay_inside_the_bounds():
    rng = np.random.default_rng(1)
    for _ in range(100):
        weights, x = rng.normal(size=5), rng.normal(size=5)
        found = fewest_changes(weights, x, np.full(5, -2.0), np.full(5, 2.0))
        moved = x.copy()
        for j, old, new in found.changes:
            assert old == x[j]
            assert min(-2, old) <= new <= max(2, old)
            moved[j] = new
        assert weights @ moved == pytest.approx(found.logit, abs=1e-9)
        if found.found:
            assert np.sign(found.logit) == -np.sign(weights @ x)
            # the last change is no larger than it must be
            assert abs(found.logit) < 1e-6 * max(1, abs(weights @ x))


def test_a_fixed_concept_does_not_move_and_where_nothing_suffices_that_is_said():
    weights, x = np.array([5.0, 0.1]), np.array([1.0, 0.0])
    bounds = -np.ones(2), np.ones(2)
    assert fewest_changes(weights, x, *bounds).changes[0][0] == 0
    stuck = fewest_changes(weights, x, *bounds, fixed=np.array([True, False]))
    assert (stuck.found, stuck.changes, stuck.logit) == (False, (), 5.0)


@pytest.mark.parametrize("z", [-3.0, 0.0, 2.0, 700.0])
def test_the_local_lift_is_the_change_of_the_probability(z):
    weights = np.array([-0.5, 0.0, 1.0])
    before, after = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(-z - weights))
    assert local_lift(weights, z) == pytest.approx(100 * (after - before) / before, abs=1e-9)
