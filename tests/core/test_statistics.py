"""Facts about `unipref.core.statistics`."""

import math

import numpy as np
import pytest
from scipy import stats

from unipref.core.errors import ShapeError
from unipref.core.statistics import (
    agreements,
    effective_sample_size,
    holm,
    interval_of,
    joint_means,
    mean,
    mean_difference,
    swap_test,
    wins,
)


def test_mean_is_the_ratio_of_weighted_sums():
    assert mean([1.0, 2.0, 6.0], weights=[1, 2, 1]).value == (1 + 4 + 6) / 4


def test_missing_values_leave_the_row_out_and_are_not_zeros():
    interval = mean([1.0, float("nan"), None, 3.0])
    assert interval.value == 2.0
    assert interval.n == 2


def test_weight_two_equals_the_row_twice():
    twice = mean([1.0, 1.0, 0.0, 4.0], clusters=["a", "a", "b", "c"])
    weighted = mean([1.0, 0.0, 4.0], weights=[2, 1, 1], clusters=["a", "b", "c"])
    assert twice.as_list() == weighted.as_list()


def test_row_order_changes_no_digit():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=50), rng.uniform(0.1, 2, size=50)
    clusters = [f"c{i % 13}" for i in range(50)]
    order = rng.permutation(50)
    there = mean(values, weights=weights, clusters=clusters)
    back = mean(values[order], weights=weights[order], clusters=[clusters[i] for i in order])
    assert there == back


def test_repeating_every_row_of_a_cluster_does_not_narrow_the_interval():
    values = np.random.default_rng(1).normal(size=20)
    once = mean(values, clusters=range(20))
    often = mean(np.repeat(values, 10), clusters=np.repeat(np.arange(20), 10))
    assert often.as_list() == pytest.approx(once.as_list(), rel=1e-12)
    assert (often.n, often.clusters) == (200, 20)


def test_interval_over_more_clusters_than_one_part_holds_has_the_textbook_width():
    values = np.random.default_rng(2).normal(size=1500)  # 1333 resamples of 1500 clusters fit in one part
    interval = mean(values, resamples=3000)
    error = values.std() / math.sqrt(1500)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_plain_percentile_interval_equals_scipy():
    values = np.random.default_rng(3).exponential(size=80)
    ours = mean(values, expand=False, resamples=20_000, seed=5)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=7).confidence_interval
    # Two bootstraps of 20,000 draws: a 2.5 % quantile has a Monte-Carlo error of about 0.02 standard errors.
    tolerance = 0.1 * values.std() / math.sqrt(80)
    assert abs(ours.low - theirs.low) < tolerance
    assert abs(ours.high - theirs.high) < tolerance


def test_paired_percentile_interval_equals_scipy():
    rng = np.random.default_rng(4)
    a = rng.normal(size=60)
    b = a + rng.normal(0.2, 0.3, size=60)
    names = range(60)
    ours = mean_difference(a, b, clusters=(names, names), expand=False, resamples=20_000)
    theirs = stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, vectorized=True, method="percentile",
        n_resamples=20_000, rng=1,
    ).confidence_interval  # fmt: skip
    tolerance = 0.1 * (a - b).std() / math.sqrt(60)
    assert abs(ours.low - theirs.low) < tolerance
    assert abs(ours.high - theirs.high) < tolerance


@pytest.mark.parametrize("n", [8, 40])
def test_interval_covers_the_truth_about_as_often_as_it_says(n):
    # 400 intervals; true coverage 95 %: fewer than 365 hits has probability 0.0006 (binomial); seeds are fixed.
    rng = np.random.default_rng(10 + n)
    hits = sum(
        interval.low <= 0.0 <= interval.high
        for interval in (mean(rng.normal(size=n), seed=i, resamples=500) for i in range(400))
    )
    assert hits >= 365


def test_interval_over_clusters_covers_where_one_over_rows_does_not():
    # 200 worlds of 25 prompts with 8 rows each that mostly share the prompt's effect; fewer than 177 hits of 200
    # at 95 % has probability 0.0002.
    rng = np.random.default_rng(20)
    by_cluster = by_row = 0
    for i in range(200):
        values = (rng.normal(size=(25, 1)) + 0.3 * rng.normal(size=(25, 8))).ravel()
        clustered = mean(values, clusters=np.repeat(np.arange(25), 8), seed=i, resamples=500)
        naive = mean(values, seed=i, resamples=500)
        by_cluster += clustered.low <= 0 <= clustered.high
        by_row += naive.low <= 0 <= naive.high
    assert by_cluster >= 177
    assert by_row < 150


def test_nothing_counts_gives_nothing():
    interval = mean([float("nan")])
    assert interval.as_list() == [None, None, None]
    assert (interval.n, interval.clusters) == (0, 0)
    assert mean([]).as_list() == [None, None, None]
    assert mean([1.0], weights=[0.0]).as_list() == [None, None, None]


def test_one_cluster_has_no_interval_without_bounds_and_a_wide_one_with_them():
    assert mean([3.0, 5.0], clusters=["a", "a"]).as_list() == [4.0, None, None]
    interval = mean([1.0], bounds=(0, 1))
    assert interval.value == interval.high == 1.0
    assert interval.low == pytest.approx(0.05)  # one success proves a share of at least 5 % with 95 % confidence


def test_all_equal_shares_prove_what_the_exact_binomial_bound_says():
    interval = mean([1.0] * 40, bounds=(0, 1))
    assert interval.low == pytest.approx(0.05 ** (1 / 40))
    assert interval.high == 1.0
    assert mean([0.7] * 40).as_list()[1:] == [None, None]


def test_identical_runs_differ_by_zero_within_what_n_prompts_prove():
    a, names = [1.0, 0.0, 1.0], ["p", "q", "r"]
    difference = mean_difference(a, a, clusters=(names, names), bounds=(-1, 1))
    assert difference.value == 0.0
    assert difference.low == pytest.approx(-(1 - 0.05 ** (1 / 3)))
    assert difference.high == -difference.low
    assert mean_difference(a, a, clusters=(names, names)).as_list() == [0.0, None, None]


def test_paired_difference_is_narrow_where_prompts_vary_more_than_runs():
    rng = np.random.default_rng(5)
    prompt = rng.normal(0, 10, size=50)
    a, b = prompt + 1 + 0.1 * rng.normal(size=50), prompt + 0.1 * rng.normal(size=50)
    paired = mean_difference(a, b, clusters=(range(50), range(50)))
    assert 0.9 < paired.low < paired.high < 1.1
    assert mean(a).high - mean(a).low > 4


def test_difference_is_taken_over_what_both_sides_have():
    a, b = [1.0, None, 3.0, 4.0], [0.0, 50.0, 1.0, None]
    difference = mean_difference(a, b, clusters=("wxyz", "wxyz"))
    assert difference.value == (1 + 3) / 2 - (0 + 1) / 2
    assert (difference.n, difference.clusters) == (2, 2)
    assert mean_difference([1.0], [2.0], clusters=("a", "b")).as_list() == [None, None, None]


def test_difference_is_that_of_the_two_means_where_nothing_is_missing():
    a, b, weights = [1.0, 2.0, 3.0], [0.0, 5.0, 1.0], [1.0, 2.0, 3.0]
    difference = mean_difference(a, b, weights=(weights, weights), clusters=("xyz", "xyz"))
    assert difference.value == pytest.approx(mean(a, weights=weights).value - mean(b, weights=weights).value)


def test_a_few_clusters_prove_nothing_about_numbers_and_little_about_shares():
    # all of 5 values on one side of the truth happens in 2 of 32 worlds: no interval of theirs covers 95 %
    assert mean([1.0, 2.0, 3.0, 4.0, 5.0]).as_list() == [3.0, None, None]
    assert None not in mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).as_list()
    assert mean([1.0, 0.0, 0.0], bounds=(0, 1)).as_list() == [1 / 3, 0.0, 1.0]


def test_difference_changes_sign_when_the_sides_change():
    rng = np.random.default_rng(6)
    a, b, names = rng.normal(size=30), rng.normal(size=30), range(30)
    there, back = mean_difference(a, b, clusters=(names, names)), mean_difference(b, a, clusters=(names, names))
    assert there.value == -back.value
    assert there.low == pytest.approx(-back.high, abs=1e-12)


def test_ties_count_half():
    assert wins([0.5, 0.0, -0.5]).tolist() == [1.0, 0.5, 0.0]
    assert np.isnan(wins([float("nan")])).all()


def test_agreement_says_nothing_where_the_scores_are_equal_or_missing():
    result = agreements([1.0, 1.0, -1.0, 0.0, 1.0, 1.0], [2.0, -2.0, -2.0, 1.0, 0.0, None])
    assert result[:4].tolist() == [1.0, 0.0, 1.0, 0.5]
    assert np.isnan(result[4:]).all()


def test_effective_sample_size_by_hand_and_at_the_edges():
    assert effective_sample_size([3.0, 1.0]) == pytest.approx(16 / 10)
    assert effective_sample_size([1e300, 1e300]) == 2.0
    assert effective_sample_size([]) == effective_sample_size([0.0, 0.0]) == 0.0


def test_arguments_that_do_not_fit_are_named():
    with pytest.raises(ShapeError, match="2, 1, 2"):
        mean([1.0, 2.0], weights=[1.0])
    with pytest.raises(ValueError, match="at least 0"):
        mean([1.0], weights=[-1.0])
    with pytest.raises(ValueError, match="infinite"):
        mean([float("inf")])


def test_holm_by_hand():
    # smallest first: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, none below the one before it
    assert holm([0.03, 0.005, 0.04, 0.01]).tolist() == pytest.approx([0.06, 0.02, 0.06, 0.03])


def test_holm_never_exceeds_one_keeps_the_order_and_does_not_count_a_test_that_was_not_made():
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    without = holm([0.02, math.nan, 0.03])
    assert without[[0, 2]].tolist() == pytest.approx([0.04, 0.04])
    assert math.isnan(without[1])
    assert holm([]).tolist() == []


def test_a_swap_test_of_few_clusters_counts_every_exchange():
    # differences 3, 1, 2 in thirds: of the 8 signs, |sum| >= 6 for all plus and all minus
    a, b, clusters = [3.0, 1.0, 2.0], [0.0, 0.0, 0.0], ("abc", "abc")
    assert swap_test(a, b, clusters=clusters) == 2 / 8
    # sums of +-3 +-1 +-2 with |sum| >= 4: +6, +4, -4, -6
    assert swap_test([3.0, -1.0, 2.0], b, clusters=clusters) == 4 / 8


def test_sides_that_are_equal_have_a_p_value_of_one_and_sides_without_a_common_cluster_none():
    assert swap_test([1.0, 0.0], [1.0, 0.0], clusters=("ab", "ab")) == 1.0
    assert math.isnan(swap_test([1.0], [0.0], clusters=("a", "b")))


def test_a_swap_test_exchanges_whole_clusters():
    a, b = np.ones(40), np.zeros(40)
    two = np.repeat(["x", "y"], 20)
    assert swap_test(a, b, clusters=(two, two)) == 0.5
    alone = range(40)
    assert swap_test(a, b, clusters=(alone, alone)) == 1 / 10_000


def test_a_swap_test_agrees_with_scipys_permutation_test():
    rng = np.random.default_rng(8)
    a, b = rng.normal(0.3, 1, size=30), rng.normal(0, 1, size=30)
    theirs = stats.permutation_test(
        (a, b), lambda x, y: x.mean() - y.mean(), permutation_type="samples", n_resamples=20_000, rng=9
    ).pvalue
    # two Monte-Carlo estimates of one p: standard errors of about 0.005 and 0.0035; 4 of their root sum of squares
    assert swap_test(a, b, clusters=(range(30), range(30))) == pytest.approx(theirs, abs=0.025)


def test_a_swap_test_of_noise_is_below_five_per_cent_about_five_times_in_a_hundred():
    rng = np.random.default_rng(10)
    found = [
        swap_test(rng.normal(size=25), rng.normal(size=25), clusters=(range(25), range(25)), swaps=199)
        for _ in range(400)
    ]
    # 400 tests at 5 %: 20 expected, standard deviation 4.4; beyond 38 by chance less than once in 10,000
    assert sum(p <= 0.05 for p in found) <= 38


def test_means_drawn_together_are_those_drawn_alone_and_their_difference_the_paired_one():
    rng = np.random.default_rng(11)
    clusters = [f"c{i // 2}" for i in range(30)]
    a, b = rng.normal(size=30), rng.normal(size=30)
    joint = joint_means([(a, None, clusters), (b, None, clusters)], seed=3)
    alone, paired = mean(a, clusters=clusters, seed=3), mean_difference(a, b, clusters=(clusters, clusters), seed=3)
    assert joint.clusters == 15
    assert (joint.values[0], *interval_of(joint.values[0], joint.drawn[:, 0], 15)) == pytest.approx(
        (alone.value, alone.low, alone.high), abs=1e-12
    )
    gap = joint.values[0] - joint.values[1]
    assert (gap, *interval_of(gap, joint.drawn[:, 0] - joint.drawn[:, 1], 15)) == pytest.approx(
        (paired.value, paired.low, paired.high), abs=1e-12
    )


def test_a_column_that_lacks_a_cluster_is_not_counted_as_zero_where_that_one_is_drawn():
    joint = joint_means([([1.0, 1.0], None, "ab"), ([5.0], None, "a")], resamples=400)
    assert joint.values.tolist() == [1.0, 5.0]
    assert joint.clusters == 1
    drawn = joint.drawn[:, 1]
    # of two clusters, both draws miss "a" in a quarter of the resamples: 100 of 400, standard deviation 8.7
    assert 60 < np.isnan(drawn).sum() < 140
    assert set(drawn[~np.isnan(drawn)]) == {5.0}


def test_drawing_in_pieces_or_at_once_makes_an_interval_of_the_same_law():
    values = np.random.default_rng(12).normal(size=2100)
    pieces = mean(values, resamples=2000)  # 2,100 clusters by 2,000 resamples do not fit one piece
    at_once = mean(values, resamples=900)
    width = 2 * 1.96 * values.std() / math.sqrt(2100)
    # a percentile at 2.5 % of 900 draws is off by 0.06 of the half-width or so
    assert pieces.high - pieces.low == pytest.approx(width, rel=0.12)
    assert at_once.high - at_once.low == pytest.approx(width, rel=0.2)
