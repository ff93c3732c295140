import math

import numpy as np
import pytest
from scipy.stats import chisquare

from unipref.core.errors import DataError
from unipref.explain import associations, factor_strengths


def test_share_influence_and_test_by_hand():
    # first minus second: three pairs differ and the one with more wins twice; one pair has the same on both sides
    found = associations(np.array([[2.0], [1.0], [-1.0], [0.0]]), [1, 0, 0, 1])[0]
    assert (found.n, found.coverage, found.share.value) == (3, 0.75, pytest.approx(2 / 3))
    assert found.influence == pytest.approx((2 - 1) / 4)
    assert found.chi2 == pytest.approx(chisquare([2, 1]).statistic)
    assert found.p == pytest.approx(chisquare([2, 1]).pvalue, rel=1e-12)


def test_the_true_utility_has_influence_one_and_a_constant_none():
    rng = np.random.default_rng(0)
    utility = rng.normal(size=100)
    true, constant, opposite = associations(np.stack([utility, np.zeros(100), -utility], axis=1), utility > 0)
    assert (true.influence, opposite.influence) == (1.0, -1.0)
    assert (constant.influence, constant.coverage, constant.n) == (0.0, 0.0, 0)
    assert math.isnan(constant.p)
    assert math.isnan(constant.p_holm)


def test_swapping_pairs_with_their_labels_changes_nothing_and_ties_do_not_count():
    rng = np.random.default_rng(1)
    X, y = rng.integers(-1, 2, size=(80, 3)).astype(float), rng.integers(0, 2, 80).astype(float)
    flip = rng.random(80) < 0.5
    swapped = associations(np.where(flip[:, None], -X, X), np.where(flip, 1 - y, y))
    with_ties = associations(np.concatenate([X, np.ones((5, 3))]), [*y, *[0.5] * 5])
    for a, b, c in zip(associations(X, y), swapped, with_ties, strict=True):
        assert (a.n, a.influence, a.chi2, a.share.value) == (b.n, b.influence, b.chi2, b.share.value)
        assert (a.n, a.influence, a.p_holm) == (c.n, c.influence, c.p_holm)
    with pytest.raises(DataError, match="every pair is a tie"):
        associations(X, np.full(80, 0.5))


def test_a_planted_habit_is_found_at_its_size_and_others_are_not_after_holm():
    rng = np.random.default_rng(2)
    n = 3000
    X = rng.choice([-1.0, 0.0, 1.0], size=(n, 6))
    first = np.where(X[:, 0] > 0, 0.7, np.where(X[:, 0] < 0, 0.3, 0.5))
    found = associations(X, rng.random(n) < first)
    assert found[0].share.value == pytest.approx(0.70, abs=0.03)
    assert found[0].share.low > 0.5
    # at the level 0.05 for all five together; fixed seed
    assert found[0].p_holm < 1e-6 < 0.05 < min(other.p_holm for other in found[1:])


def test_a_value_that_is_not_known_is_left_out():
    X = np.array([[1.0], [1.0], [np.nan], [np.nan]])
    assert associations(X, [1, 1, 0, 0])[0] == associations(X[:2], [1, 1])[0]


def test_strengths_of_two_factors_are_their_wins():
    # 3 : 1, and a tenth of a win each way
    found = factor_strengths([["clear"]] * 4, [["long"]] * 4, [1, 1, 1, 0])
    assert found.names == ["clear", "long"]
    assert found.strength.tolist() == pytest.approx([3.1 / 4.2, 1.1 / 4.2], abs=1e-7)
    assert found.wins.tolist() == [3.0, 1.0]


def test_strengths_follow_planted_utilities():
    rng = np.random.default_rng(0)
    utility = np.linspace(-1, 1, 8)
    sets = [[rng.choice(8, 4, replace=False) for _ in range(2000)] for _ in range(2)]
    gap = np.array([utility[a].sum() - utility[b].sum() for a, b in zip(*sets, strict=True)])
    y = rng.random(2000) < 1 / (1 + np.exp(-gap))
    named = [[[f"f{i}" for i in chosen] for chosen in side] for side in sets]
    found = factor_strengths(*named, y)
    assert np.corrcoef(np.argsort(np.argsort(found.strength)), np.arange(8))[0, 1] > 0.9


def test_what_both_have_decides_nothing_and_a_win_more_raises_its_factor():
    first, second = [["a", "x"], ["b"], ["a"]], [["b", "x"], ["c"], ["c"]]
    base = factor_strengths(first, second, [1, 1, 1])
    same = factor_strengths([*first, ["a", "b"]], [*second, ["b", "a"]], [1, 1, 1, 1])
    assert base.strength.tolist() == pytest.approx(same.strength.tolist(), nan_ok=True)
    assert math.isnan(base.strength[base.names.index("x")])
    more = factor_strengths([*first, ["c"]], [*second, ["b"]], [1, 1, 1, 1])
    assert more.strength[2] > base.strength[2]
    with pytest.raises(DataError, match="only the winner has"):
        factor_strengths([["a"]], [["a"]], [1])


def test_a_pair_of_long_lists_counts_as_one_vote():
    found = factor_strengths([["a", "b", "c"]], [["d", "e"]], [1])
    assert found.wins.sum() == pytest.approx(1.0)
    assert factor_strengths([["a", "b", "c"]], [["d", "e"]], [1], share_votes=False).wins.sum() == 6
