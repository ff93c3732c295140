from dataclasses import replace

import numpy as np
import pytest
from worlds_of_text import records

from unipref.data.pairs import Pairs
from unipref.explain._order import both_orders, follows_the_place


def both_ways(n: int) -> Pairs:
    """`n` pairs, and the same with the two responses exchanged; whoever says more decides, whichever stands first."""
    pairs = Pairs.of(records(n, own={"law": "lex"}))
    back = replace(pairs.swapped(np.ones(n, bool)), ids=pairs.ids + "-back")
    return Pairs.joined([pairs, back])


def test_a_judge_that_takes_the_first_in_three_of_ten_pairs_changes_with_the_order_as_often():
    n, rng = 1000, np.random.default_rng(0)
    pairs = both_ways(n)
    by_place = np.tile(rng.random(n) < 0.3, 2)  # and a judge of the responses in the others
    found = both_orders(replace(pairs, p=np.where(by_place, 1.0, pairs.p)))
    share, low, high = found["changed"]
    assert found["n"] == n
    assert share == by_place[:n].mean()
    assert low < 0.3 < high
    assert (found["first"], found["second"]) == (by_place[:n].sum(), 0)


def test_a_verdict_on_the_responses_does_not_change_and_a_tie_against_a_verdict_is_a_change():
    pairs = both_ways(4)
    assert both_orders(pairs)["changed"][0] == 0.0
    p = np.array([1.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.5, 1.0])  # same response, second place twice, tie twice, tie and win
    found = both_orders(replace(pairs, p=p))
    assert found["changed"][0] == 2 / 4
    assert (found["first"], found["second"]) == (0, 1)
    assert follows_the_place(replace(pairs, p=p)).tolist() == [False, True, False, True] * 2


def test_pairs_in_one_order_and_files_of_chosen_and_rejected_say_nothing_of_the_order():
    once = Pairs.of(records(50, own={"law": "lex"}))
    assert both_orders(once) == {"n": 0, "changed": [None] * 3, "first": 0, "second": 0}
    # two people who disagree, in a file whose winner always stands first
    disagree = both_ways(50)
    assert both_orders(replace(disagree, p=np.ones(100)))["n"] == 0


def test_what_is_judged_several_times_is_matched_in_its_order():
    pairs = both_ways(2)
    three = Pairs.joined([pairs, pairs.take([0]), pairs.take([1])])
    assert both_orders(three)["n"] == 2
    with_answers = Pairs.joined([three, pairs.take([2])])
    assert both_orders(with_answers)["n"] == 3
    assert both_orders(with_answers)["changed"] == pytest.approx([0.0, 0.0, 1 - 0.05 ** (1 / 2)])  # of two prompts
