"""Operators account for every record, and what they choose depends on texts, not on the order of a file."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.data import as_pairs, chosen_only, limit_records, mismatch, one_pair_each, read_records, split_records
from unipref.data.operators import strangers


def balanced(report) -> bool:
    gone = len(report.set_aside) + sum(report.left_out.values())
    return report.n_read + sum(report.added.values()) == report.n_kept + gone


def texts(n: int) -> list[Record]:
    return read_records([{"text": f"text {i}"} for i in range(n)])[0]


def labelled(*rows: tuple[str, str, bool]) -> list[Record]:
    return read_records([{"prompt": p, "completion": c, "label": label} for p, c, label in rows])[0]


# ------------------------------------------------------------------------------------------------- split and limit


def test_a_conversation_and_its_continuation_are_on_one_side_of_every_split():
    def turns(i, n):
        return [{"role": "user", "content": f"Question {i}"}, {"role": "assistant", "content": "Yes."}][:n]

    rows = []
    for i in range(300):
        answer = [{"role": "assistant", "content": "Good."}], [{"role": "assistant", "content": "Bad."}]
        rows.append({"prompt": turns(i, 1), "chosen": answer[0], "rejected": answer[1]})
        more = [*turns(i, 2), {"role": "user", "content": "More?"}]
        rows.append({"prompt": more, "chosen": answer[0], "rejected": answer[1]})
    records, _ = read_records(rows)
    train, heldout = split_records(records, share=0.2)
    assert len(train) + len(heldout) == 600
    assert not {r.conversation for r in train} & {r.conversation for r in heldout}
    assert 0.1 < len(heldout) / 600 < 0.3  # 300 conversations: outside with a chance below 1e-4
    assert split_records(records, share=0.0) == (records, [])
    larger = split_records(records, share=0.5)[1]
    assert {r.id for r in heldout} <= {r.id for r in larger}


def test_a_larger_limit_contains_the_smaller_whatever_the_order_of_the_file():
    records = texts(50)
    small, report = limit_records(records, 10)
    large, _ = limit_records(records, 25)
    assert len(small) == 10
    assert set(r.id for r in small) < set(r.id for r in large)
    assert [r.line for r in small] == sorted(r.line for r in small)
    assert report.left_out == {"limit": 40}
    assert balanced(report)
    shuffled = random.Random(0).sample(records, 50)
    assert {r.id for r in limit_records(shuffled, 10)[0]} == {r.id for r in small}
    assert {r.id for r in limit_records(records, 10, seed=1)[0]} != {r.id for r in small}
    assert limit_records(records, 99)[0] == records
    with pytest.raises(ConfigError, match="limit of 0"):
        limit_records(records, 0)


# --------------------------------------------------------------------------------------------------- chosen_only


def test_the_responses_worth_imitating_are_the_preferred_the_liked_the_best_and_the_unjudged():
    pair = Record("p", (Item("c", "a"), Item("c", "b")), (Comparison(0, 1),))
    against = Record("v", (Item("c", "a"), Item("c", "b")), (Comparison(0, 1, preference=0.3),))
    liked, hated = labelled(("p", "good", True), ("p", "bad", False))
    ranked = Record("r", tuple(Item("c", t, rank=k) for t, k in (("x", 2), ("y", 1), ("z", 1))))
    rated = Record("s", tuple(Item("c", t, columns={"score": k}) for t, k in (("x", 0.5), ("y", 0.25))))
    plain = Record("t", (Item("c", "m"), Item("d", "n")))
    kept, report = chosen_only([pair, against, liked, hated, ranked, rated, plain])
    assert [[item.response for item in r.items] for r in kept] == [["a"], ["b"], ["good"], ["y"], ["x"], ["m", "n"]]
    assert all(r.comparisons == () for r in kept)
    assert report.left_out == {"no response with thumbs up": 1}
    assert report.changed == {"only preferred responses kept": 4}
    assert balanced(report)


# ------------------------------------------------------------------------------------------------------ as_pairs


def test_a_ranked_list_of_three_with_a_tie_has_two_pairs_and_best_worst_has_one():
    ranked = Record("r", tuple(Item("c", t, rank=k) for t, k in (("x", 2), ("y", 1), ("z", 2))))
    paired, report = as_pairs([ranked])
    assert paired[0].items == ranked.items
    assert paired[0].comparisons == (Comparison(1, 0), Comparison(1, 2))
    assert report.changed == {"list compared in pairs": 1}
    best, _ = as_pairs([ranked], which="best_worst")
    assert [item.response for item in best[0].items] == ["y", "z"]
    assert best[0].comparisons == (Comparison(0, 1),)


def test_the_margin_of_a_rated_pair_is_the_difference_of_the_ratings():
    rated = Record("s", tuple(Item("c", t, columns={"score": k, "help": -k}) for t, k in (("x", 1.0), ("y", 4.0))))
    assert as_pairs([rated])[0][0].comparisons == (Comparison(1, 0, margin=3.0),)
    assert as_pairs([rated], by="help")[0][0].comparisons == (Comparison(0, 1, margin=3.0),)


def test_lists_without_a_difference_are_set_aside_with_the_reason():
    tied = Record("t", (Item("c", "x", rank=1), Item("c", "y", rank=1)), source="f", line=3)
    same = Record("s", (Item("c", "x", rank=1), Item("c", "x", rank=2)), source="f", line=4)
    bare = Record("b", (Item("c", "x"), Item("c", "y")), source="f", line=5)
    pair = Record("p", (Item("c", "a"), Item("c", "b")), (Comparison(0, 1),))
    paired, report = as_pairs([tied, same, bare, pair])
    assert paired == [pair]
    assert [row.line for row in report.set_aside] == [3, 4, 5]
    assert balanced(report)
    with pytest.raises(DataError, match="no pair can be made of 1 records"):
        as_pairs([tied])
    with pytest.raises(ConfigError, match="'some'"):
        as_pairs([pair], which="some")


def test_every_pair_of_a_list_becomes_a_record_with_the_lists_weight_and_further_texts():
    row = {"prompt": "q", "responses": [" a", " b", " c"], "scores": [3, 1, 2], "gold": " g", "weight": 2.0}
    listed, _ = as_pairs(read_records([row])[0])
    apart, report = one_pair_each(listed)
    assert balanced(report)
    assert [[item.response for item in record.items] for record in apart] == [
        [" a", " c", " g"],
        [" a", " b", " g"],
        [" c", " b", " g"],
    ]
    assert [record.comparisons for record in apart] == [(Comparison(0, 1, margin=m),) for m in (1.0, 2.0, 1.0)]
    assert {record.weight for record in apart} == {2.0}
    assert len({record.id for record in apart}) == 3
    again, report = one_pair_each(apart)
    assert again == apart
    assert not report.changed


def test_every_thumbs_up_is_compared_with_every_thumbs_down_to_the_same_prompt():
    records = labelled(("p", "a", True), ("q", "x", True), ("p", "b", False), ("p", "c", True), ("p", "a", False))
    paired, report = as_pairs(records)
    assert [item.response for item in paired[0].items] == ["a", "c", "b", "a"]
    assert [(c.winner, c.loser) for c in paired[0].comparisons] == [(0, 2), (1, 2), (1, 3)]
    assert all(item.label is None for item in paired[0].items)
    assert report.left_out == {"joined with another response to its prompt": 3}
    assert [row.line for row in report.set_aside] == [2]
    assert balanced(report)
    assert len(as_pairs(records, which="best_worst")[0][0].items) == 2


# ------------------------------------------------------------------------------------------------------ mismatch


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=12).filter(lambda p: len(set(p)) > 1), st.integers(0, 9))
def test_no_prompt_meets_a_response_to_itself_and_all_are_used_once_where_that_is_possible(prompts, seed):
    records = labelled(*[(f"p{p}", f"p{p} r{i}", True) for i, p in enumerate(prompts)])
    mixed = mismatch(records, seed=seed, epoch=0)
    assert [r.items[0].context for r in mixed] == [r.items[0].context for r in records]
    for record in mixed:
        item = record.items[0]
        assert item.response.split(" ")[0] != item.context
        assert item.label is None
    if 2 * max(prompts.count(p) for p in prompts) <= len(prompts):
        assert sorted(r.items[0].response for r in mixed) == sorted(r.items[0].response for r in records)


def test_mismatched_pairs_are_fixed_by_seed_and_epoch():
    records = labelled(*[(f"p{i}", f"r{i}", True) for i in range(30)])
    first = mismatch(records, seed=0, epoch=0)
    assert mismatch(records, seed=0, epoch=0) == first
    assert mismatch(records, seed=0, epoch=1) != first
    assert mismatch(records, seed=1, epoch=0) != first
    assert len({r.id for r in first}) == 30


def test_strangers_do_not_depend_on_what_prompts_are_called():
    names = ["b", "a", "b", "c", "a", "b", "d", "b"]
    numbers = np.array([9, 10**18, 9, -4, 10**18, 9, 5, 9])
    for seed in range(20):
        assert strangers(names, seed=seed).tolist() == strangers(numbers, seed=seed).tolist()
        assert strangers(["x"] * 9 + names[:2], seed=seed).tolist() == strangers([1] * 9 + [2, 3], seed=seed).tolist()


def test_beside_a_prompt_of_nearly_all_rows_every_other_row_is_drawn_as_often_as_any():
    # 6,000 places of one prompt draw among three others: binomial, so +-5 deviations have a false alarm of 1 in 10^6
    donor = strangers(["x"] * 6000 + ["y", "z", "z"], seed=0)
    counts = np.bincount(donor[:6000], minlength=6003)[6000:]
    assert (abs(counts - 2000) < 5 * math.sqrt(6000 * (1 / 3) * (2 / 3))).all()
    assert donor[6000] != 6000
    assert (donor[6001:] <= 6000).all()


def test_both_sides_of_pairs_are_mismatched_and_sampled_ids_go_with_their_words():
    one = Record("1", (Item("p", "a", response_ids=(1,)), Item("p", "b")), (Comparison(0, 1),))
    two = Record("2", (Item("q", "c"), Item("q", "d")), (Comparison(0, 1),))
    mixed = mismatch([one, two], seed=0, epoch=0)
    assert [r.id for r in mixed] == ["1~0", "1~1", "2~0", "2~1"]
    assert sorted(r.items[0].response for r in mixed[:2]) == ["c", "d"]
    assert {(r.items[0].response, r.items[0].response_ids) for r in mixed[2:]} == {("a", (1,)), ("b", None)}
    assert all(r.comparisons == () for r in mixed)


def test_conversations_and_texts_do_not_exchange_responses():
    user = [(Message("user", f"u{i}"),) for i in range(2)]
    talk = [Record(f"m{i}", (Item(user[i], (Message("assistant", f"a{i}"),)),)) for i in range(2)]
    mixed = mismatch([*talk, *labelled(("p", "c", True), ("q", "d", True))], seed=0, epoch=0)
    assert [r.items[0].response for r in mixed] == [talk[1].items[0].response, talk[0].items[0].response, "d", "c"]


def test_one_prompt_alone_has_no_stranger():
    with pytest.raises(DataError, match="two different prompts"):
        mismatch(labelled(("p", "a", True), ("p", "b", False)), seed=0, epoch=0)
