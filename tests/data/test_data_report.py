"""The account of rows adds up, merges and reads as a paragraph."""

import json

import pytest

from unipref.core.errors import DataError
from unipref.data import DataReport, SetAside, read_records
from unipref.data.report import RowFault


def report(n_read: int, *reasons: str) -> DataReport:
    made = DataReport(n_read=n_read, n_kept=n_read - len(reasons))
    for line, reason in enumerate(reasons, 1):
        made.drop(RowFault(reason, "here"), source="f", line=line, strict=False)
    return made


def test_sources_side_by_side_add_up():
    both = DataReport.merged([report(5, "empty", "same"), report(7, "same")])
    assert (both.n_read, both.n_kept) == (12, 9)
    assert list(both.counts.items()) == [("same", 2), ("empty", 1)]


def test_a_later_step_starts_from_what_the_earlier_kept():
    both = report(5, "empty").then(report(4, "long"))
    assert (both.n_read, both.n_kept, both.counts) == (5, 3, {"empty": 1, "long": 1})
    with pytest.raises(ValueError, match="read 5 rows, but the earlier one kept 4"):
        report(5, "empty").then(report(5))


def test_changes_and_notes_of_both_steps_are_kept_once():
    first, second = report(2), report(2)
    first.change("cut", 2)
    second.change("cut")
    second.change("never", 0)
    first.notes, second.notes = ["a"], ["a", "b"]
    both = first.then(second)
    assert both.changed == {"cut": 3}
    assert both.notes == ["a", "b"]


def test_records_that_a_step_adds_are_counted_and_the_sum_holds_over_steps():
    first, second = report(3, "empty"), report(4)
    first.add("swapped", 2)
    first.n_kept += 2
    first.leave_out("never", 0)
    both = first.then(second)
    assert both.added == {"swapped": 2}
    assert both.n_read + sum(both.added.values()) == both.n_kept + len(both.set_aside)
    assert "Added: 2 x swapped." in both.describe()
    assert both.to_dict()["added"] == {"swapped": 2}


def test_the_paragraph_names_counts_reasons_and_the_first_line():
    assert report(1200).describe() == "Read 1,200 rows, kept 1,200."
    made = report(3, "empty response")
    made.left_out["limit"] = 1
    made.change("cut", 2)
    made.notes.append("That is all.")
    assert made.describe() == (
        "Read 3 rows, kept 2. Set aside 1 row: 1 x empty response. The first is f, line 1: empty response "
        "(here). Left out 1 row (limit). Changed: 2 x cut. That is all."
    )


def test_the_dictionary_is_json_and_complete():
    _, made = read_records([{"text": "a"}, {"text": ""}])
    found = json.loads(json.dumps(made.to_dict()))
    assert (found["n_read"], found["n_kept"], found["n_set_aside"]) == (2, 1, 1)
    assert found["set_aside"] == [
        {"source": "rows in memory", "line": 2, "reason": "empty response", "detail": "field 'text'"}
    ]
    assert found["sources"] == {"rows in memory": {"rows": 2, "format": "text", "sha256": None}}


def test_strict_names_the_place_and_the_next_step():
    with pytest.raises(DataError, match=r"f, line 4: empty \(here\); mend or remove the row, or leave strict off"):
        DataReport().drop(RowFault("empty", "here"), source="f", line=4, strict=True)
    assert str(SetAside("f", None, "empty")) == "f: empty"
