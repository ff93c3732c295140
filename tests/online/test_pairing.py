"""Facts about pairs made of scored answers: who wins, how surely, and what becomes of the others."""

import math

import numpy as np
import pytest

from unipref.core.errors import ConfigError
from unipref.core.records import Item, Record
from unipref.data import read_records
from unipref.online import Pairing, pair_rows_of, paired

NAN = math.nan


def record(*texts, name="r"):
    items = tuple(Item("A film", text, columns={"continues": 0.0}, response_ids=(i,)) for i, text in enumerate(texts))
    return Record(id=name, items=items, conversation=name)


def made(texts, scores, **options):
    found, report = paired([record(*texts)], [np.array(scores)], Pairing(**options))
    assert report.n_read + sum(report.added.values()) == report.n_kept + sum(report.left_out.values())
    return [[item.response for item in pair.items] for pair in found], found, report


def test_best_and_worst_are_the_highest_and_lowest_score_and_the_missing_one_is_passed_over():
    pairs, found, _ = made(["a", "b", "c", "d"], [0.5, NAN, 3.0, -1.0])
    assert pairs == [["c", "d"]]
    assert found[0].comparisons[0].margin == 4.0
    assert [item.columns["label_score"] for item in found[0].items] == [3.0, -1.0]
    assert [item.response_ids for item in found[0].items] == [(2,), (3,)]


def test_the_first_two_are_the_first_two_whatever_the_others_score():
    assert made(["a", "b", "c"], [0.0, 1.0, 9.0], pairs="first_two")[0] == [["b", "a"]]


def test_all_pairs_are_each_two_answers_with_the_better_one_first():
    pairs, found, report = made(["a", "b", "c"], [2.0, 3.0, 1.0], pairs="all")
    assert pairs == [["b", "a"], ["a", "c"], ["b", "c"]]
    assert [pair.id for pair in found] == ["r/0", "r/1", "r/2"]
    assert {pair.conversation for pair in found} == {"r"}
    assert report.added == {"further pairs of a prompt": 2}


def test_a_soft_label_is_the_logistic_of_the_gap_and_the_two_orders_add_up_to_one():
    pairing = Pairing(preference="bradley_terry", scale=2.0)
    for gap in (0.0, 0.3, 4.0, 900.0):
        assert pairing.probability(gap) == pytest.approx(1 / (1 + math.exp(-gap / 2)), rel=1e-12)
        assert pairing.probability(gap) + pairing.probability(-gap) == pytest.approx(1.0, abs=1e-15)
    for scores in ([1.0, 3.0], [3.0, 1.0]):  # whichever answer came first
        _, found, _ = made(["a", "b"], scores, preference="bradley_terry", scale=2.0)
        assert found[0].comparisons[0].preference == pytest.approx(1 / (1 + math.exp(-1)), rel=1e-12)
    assert [Pairing().probability(gap) for gap in (-1.0, 0.0, 1.0)] == [0.0, 0.5, 1.0]


def test_adding_a_constant_to_all_scores_changes_no_pair():
    scores = np.array([0.25, -1.0, 2.0])
    for options in ({}, {"pairs": "all", "preference": "bradley_terry"}):
        first, shifted = (made(["a", "b", "c"], scores + k, **options)[1] for k in (0.0, 8.0))
        assert [pair.comparisons for pair in first] == [pair.comparisons for pair in shifted]


@pytest.mark.parametrize(
    ("texts", "scores", "options", "why"),
    [
        (["a", "b"], [1.0, 1.0], {}, "pair with equal scores (a tie)"),
        (["a", "a"], [1.0, 1.0], {}, "pair of identical answers"),
        (["a", "b", "c"], [NAN, 1.0, NAN], {}, "pair with an answer that has no score"),
        (["a", "b"], [1.0, 1.2], {"min_gap": 0.5}, "pair with scores less than 0.5 apart"),
        (["a", "b"], [NAN, 1.0], {"pairs": "first_two"}, "pair with an answer that has no score"),
    ],
)
def test_every_pair_that_is_not_made_is_counted_with_its_reason(texts, scores, options, why):
    pairs, _, report = made(texts, scores, **options)
    assert pairs == []
    assert report.left_out == {why: 1}


def test_the_rows_written_are_read_back_as_the_same_pairs():
    pairs = [record("up", "down", name="one"), record("left", "right", name="two")]
    found, _ = paired(pairs, [np.array([1.0, -1.0]), np.array([0.0, 0.25])], Pairing(preference="bradley_terry"))
    again, report = read_records(pair_rows_of(found), strict=True)
    assert report.n_kept == 2
    for before, after in zip(found, again, strict=True):
        assert [i.response for i in before.items] == [i.response for i in after.items]
        assert before.comparisons == after.comparisons
        for one, other in zip(before.items, after.items, strict=True):
            assert dict(one.columns) == dict(other.columns)
            assert other.response_ids is None  # token ids belong to one model and are not in the file


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs": "best"}, "pairs is one of"),
        ({"preference": "soft"}, "preference is one of"),
        ({"scale": 0.0}, "scale is a number above 0"),
        ({"min_gap": -1.0}, "min_gap is 0 or more"),
    ],
)
def test_a_pairing_that_means_nothing_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Pairing(**options)
