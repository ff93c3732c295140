"""Facts about rows made from scores."""

import numpy as np
import pytest

from unipref.core.errors import ShapeError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.evaluate import generation_rows, pair_rows
from unipref.sampling import Sample


def record(**changes):
    items = (Item("Hi", "a b c", columns={"x": 0.5}), Item("Hi", "d", columns={"y": 1.0}))
    return Record(**{"id": "r1", "items": items, "comparisons": (Comparison(0, 1),), "conversation": "hi", **changes})


LOGPS = [[np.array([-1.0, -2.0], dtype=np.float32), np.array([-4.0], dtype=np.float32)]]
SAMPLE = Sample(ids=(5, 0), text="e", stopped=True)
REF = [[np.array([-1.5, -2.0]), np.array([-3.0])]]


def test_a_row_has_sums_lengths_words_and_scores_of_winner_and_loser():
    (row,) = pair_rows([record(weight=2.0, domain="d")], logp=LOGPS, ref_logp=REF, aux=["x"], seed=3)
    assert row == {
        "id": "r1", "conversation": "hi", "domain": "d", "weight": 2.0,
        "logp_chosen": -3.0, "logp_rejected": -4.0, "ref_logp_chosen": -3.5, "ref_logp_rejected": -3.0,
        "len_chosen": 2, "len_rejected": 1, "words": [3, 1], "aux": {"x": [0.5, None]}, "seed": 3,
    }  # fmt: skip


def test_a_comparison_below_one_half_changes_sides_and_one_at_one_half_has_no_row():
    twice = record(comparisons=(Comparison(0, 1, 0.2), Comparison(0, 1, 0.5)))
    (row,) = pair_rows([twice], logp=LOGPS, ref_logp=REF)
    assert row["id"] == "r1/0"
    assert (row["logp_chosen"], row["len_chosen"], row["words"]) == (-4.0, 1, [1, 3])


def test_scores_that_do_not_match_the_records_are_named():
    with pytest.raises(ShapeError, match="logp has 0 entries for 1 records"):
        pair_rows([record()], logp=[], ref_logp=REF)
    with pytest.raises(ShapeError, match="ref_logp has 1 values for the 2 items of 'r1'"):
        pair_rows([record()], logp=LOGPS, ref_logp=[REF[0][:1]])
    with pytest.raises(ShapeError, match="'x': 2"):
        generation_rows([record()], [SAMPLE], logp=LOGPS[0][:1], ref_logp=REF[0][:1], aux={"x": [1, 2]})


def test_a_generation_row_has_its_sums_and_its_missing_score_is_none():
    aux = {"x": [float("nan")]}
    rows = generation_rows([record()], [SAMPLE], logp=LOGPS[0][:1], ref_logp=REF[0][:1], aux=aux)
    assert rows == [
        {"id": "r1", "conversation": "hi", "prompt": "Hi", "text": "e", "n_tokens": 2, "stopped": True, "logp": -3.0,
         "ref_logp": -3.5, "aux": {"x": None}}
    ]  # fmt: skip


def test_a_prompt_of_messages_says_who_speaks():
    item = Item((Message("user", "Hi"), Message("assistant", "Yes?")), (Message("assistant", "x"),))
    talk = record(items=(item, item))
    (row,) = generation_rows([talk], [SAMPLE], logp=LOGPS[0][:1], ref_logp=REF[0][:1])
    assert row["prompt"] == "User: Hi\n\nAssistant: Yes?"
