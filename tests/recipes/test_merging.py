"""The search for the weights of a mean of models."""

import pytest

from unipref.recipes.merging import best_mixture


def bowl(*at):
    """The squared distance from `at`."""
    return lambda weights: sum((w - x) ** 2 for w, x in zip(weights, at, strict=True))


@pytest.mark.parametrize("at", [(0.25, 0.75), (0.5, 0.3, 0.2), (0.1, 0.2, 0.3, 0.4), (1.0, 0.0, 0.0), (0.0, 1.0)])
def test_the_weights_that_are_best_are_found_to_the_finest_move(at):
    found, tried = best_mixture(bowl(*at), len(at))
    assert sum(found) == pytest.approx(1.0, abs=1e-12)
    assert min(found) >= 0
    assert max(abs(w - x) for w, x in zip(found, at, strict=True)) <= 1 / 32
    assert dict(tried)[found] == min(value for _, value in tried)
    assert all(sum(w) == pytest.approx(1.0) and min(w) >= 0 for w, _ in tried)


def test_an_optimum_outside_the_simplex_gives_the_nearest_corner():
    found, _ = best_mixture(bowl(2.0, -1.0), 2)
    assert found == (1.0, 0.0)


def test_one_part_has_all_the_weight_and_equal_parts_stay_equal():
    assert best_mixture(lambda weights: 1.0, 1) == ((1.0,), [((1.0,), 1.0)])
    assert best_mixture(lambda weights: 1.0, 4)[0] == (0.25,) * 4


def test_a_finer_search_comes_nearer():
    at = (0.3, 0.7)
    errors = [abs(best_mixture(bowl(*at), 2, finest=finest)[0][0] - 0.3) for finest in (1 / 4, 1 / 16, 1 / 256)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1 / 256
