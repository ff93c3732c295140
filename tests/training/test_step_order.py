"""The order of rows: which share a step, which rank takes them, and that chance decides what the options leave open."""

import numpy as np
import pytest

from unipref.training.balance import cut, deal
from unipref.training.sampler import StepSampler


def sampler(n, step, *, seed=0, rank=0, world=1, by_length=False, **options):
    sizes = options.pop("sizes", np.arange(n) % 7 + 1)
    return StepSampler(sizes, step, seed=seed, rank=rank, world=world, by_length=by_length, **options)


def epochs(sampler, count):
    for epoch in range(count):
        sampler.set_epoch(epoch)
        yield list(sampler)


def prompts(rng, n, most):
    """(n,) prompts of 1 to `most` rows each, the rows in any order."""
    return rng.permutation(np.repeat(np.arange(n), rng.integers(1, most + 1, n))[:n])


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("most", [1, 3, 8, 50])
def test_with_prompts_every_row_comes_once_an_epoch_and_no_step_is_empty(most, by_length):
    rng = np.random.default_rng(most)
    for n, step in [(1, 4), (3, 8), (17, 16), (64, 16), (100, 7), (201, 8)]:
        rows = sampler(n, step, by_length=by_length, prompts=prompts(rng, n, most))
        for steps in epochs(rows, 4):
            assert sorted(row for some in steps for row in some) == list(range(n))
            assert len(steps) == len(rows) == -(-n // step)
            assert all(steps)


@pytest.mark.parametrize("by_length", [False, True])
def test_rows_of_one_prompt_share_a_step_and_a_step_is_half_a_prompt_off_its_size_at_most(by_length):
    rng = np.random.default_rng(0)
    n, step = 480, 16
    prompt = prompts(rng, n, 6)
    for steps in epochs(sampler(n, step, by_length=by_length, prompts=prompt), 5):
        assert len(np.unique(prompt)) == sum(len(np.unique(prompt[rows])) for rows in steps)
        lengths = np.array([len(rows) for rows in steps])
        assert abs(lengths - step).max() <= 6
        if not by_length:
            assert abs(np.cumsum(lengths) - step * np.arange(1, 31)).max() <= 3


def test_a_prompt_with_more_rows_than_a_step_is_cut_and_its_rows_meet_others_each_epoch():
    prompt = np.array([0] * 40 + list(range(1, 41)))
    seen = [next(set(rows) for rows in steps if 0 in rows) for steps in epochs(sampler(80, 8, prompts=prompt), 20)]
    assert len(set().union(*seen) & set(range(40))) > 30
    assert all(len(rows) <= 16 for rows in seen)


def test_which_prompts_share_a_step_is_drawn_anew_and_what_they_are_called_does_not_matter():
    rng = np.random.default_rng(1)
    prompt = prompts(rng, 60, 4)
    first, second = epochs(sampler(60, 6, prompts=prompt), 2)
    assert len({frozenset(rows) for rows in first} & {frozenset(rows) for rows in second}) <= 2
    renamed = rng.permutation(1000)[prompt] - 500
    assert list(epochs(sampler(60, 6, prompts=renamed), 2)) == [first, second]


@pytest.mark.parametrize(("n", "by_prompt"), [(24, False), (26, False), (24, True)])
def test_by_length_every_row_comes_at_any_step_of_an_epoch_equally_often(n, by_prompt):
    """Over 600 epochs and per row: chi-square, as if drawn at random. All rows together err once in about 10,000."""
    step, count = 4, 600
    options = {"prompts": np.arange(n) // 2} if by_prompt else {}
    rows = sampler(n, step, sizes=np.arange(n) ** 2, by_length=True, **options)
    found = np.zeros((n, len(rows)))
    for steps in epochs(rows, count):
        for i, some in enumerate(steps):
            found[some, i] += 1
    expected = count / len(rows)
    chi = ((found - expected) ** 2 / expected).sum(1)
    # 99.9996th percentiles of chi-square with 5 and 6 degrees of freedom
    assert chi.max() < {5: 33.7, 6: 35.9}[len(rows) - 1]


def test_by_length_the_short_step_is_not_always_that_of_the_longest_rows():
    short = set()
    for steps in epochs(sampler(10, 4, sizes=np.arange(10), by_length=True), 40):
        assert sorted(len(rows) for rows in steps) == [2, 4, 4]
        short.add(frozenset(next(rows for rows in steps if len(rows) == 2)))
    assert short == {frozenset({0, 1}), frozenset({4, 5}), frozenset({8, 9})}


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("grouped", [False, True])
def test_ranks_share_every_step_of_the_one_order_and_each_takes_its_part_of_the_cost(world, grouped):
    rng = np.random.default_rng(world)
    n, step = 103, 16
    costs = rng.integers(1, 1000, n)
    options = {"costs": costs, "prompts": prompts(rng, n, 3) if grouped else None}
    alone = list(epochs(sampler(n, step, seed=4, **options), 2))
    ranks = [list(epochs(sampler(n, step, seed=4, rank=r, world=world, **options), 2)) for r in range(world)]
    again = [list(epochs(sampler(n, step, seed=4, rank=r, world=world, **options), 2)) for r in range(world)]
    assert ranks == again
    for epoch, steps in enumerate(alone):
        for i, rows in enumerate(steps):
            shares = [rank[epoch][i] for rank in ranks]
            assert sorted(row for share in shares for row in share) == sorted(rows)
            loads = np.array([costs[share].sum() for share in shares])
            unit = options["prompts"][rows] if grouped else np.array(rows)
            parts = [costs[rows][unit == one].sum() for one in set(unit)]
            largest = max(part for part in parts if part <= costs[rows].sum() / world)
            assert loads.max() <= max(costs[rows].sum() / world + largest, costs[rows].max())


def test_a_prompt_goes_to_one_rank_unless_it_is_more_than_a_ranks_part_of_the_step():
    prompt = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    two = [sampler(8, 8, rank=r, world=2, sizes=np.ones(8), prompts=prompt) for r in range(2)]
    shares = [set(prompt[next(iter(rank))]) for rank in two]
    assert not shares[0] & shares[1]
    one_prompt = [sampler(8, 8, rank=r, world=2, sizes=np.ones(8), prompts=np.zeros(8)) for r in range(2)]
    assert [len(next(iter(rank))) for rank in one_prompt] == [4, 4]


def test_dealing_by_hand():
    # 7 to the first, 6 and 5 to the second and third, 4 on top of 5, 3 of 6, 2 of 7
    assert deal([2, 3, 4, 5, 6, 7], 3) == [[5, 0], [4, 1], [3, 2]]
    assert deal([1.0], 3) == [[0], [], []]


def test_cutting_by_hand():
    assert cut([9, 4, 3, 2], [9, 4, 3, 2], 6) == [[0], [1], [2, 3]]  # the first is too large for any company
    assert cut([5, 5, 1, 1], [5, 5, 1, 1], 6) == [[0, 2], [1, 3]]  # by size in order it would be [1 1], [5], [5]
    assert cut([3, 3, 3, 3], [1, 1, 9, 9], 6) == [[2, 0], [3, 1]]  # the dear ones apart
    assert cut([5, 1, 5, 1], [1, 1, 1, 1], 6, alike=True) == [[1, 3], [0], [2]]
    assert cut([], [], 6) == []


def test_cutting_takes_few_groups_within_the_budget_and_balances_what_they_cost():
    rng = np.random.default_rng(3)
    for most in (300, 1000, 8192):
        sizes = rng.integers(20, 600, 200)
        costs = sizes + 0.01 * sizes**2
        groups = cut(sizes, costs, most)
        assert sorted(row for rows in groups for row in rows) == list(range(200))
        assert all(sizes[rows].sum() <= most or len(rows) == 1 for rows in groups)
        large = int((sizes >= most).sum())
        floor = large + -(-int(sizes[sizes < most].sum()) // most)
        assert len(groups) <= large + np.ceil(11 / 9 * (floor - large)) + 1  # first fit's bound (Johnson 1973)
        if most == 8192:
            assert len(groups) == floor
            loads = [costs[rows].sum() for rows in groups]
            assert max(loads) <= 1.02 * min(loads)
