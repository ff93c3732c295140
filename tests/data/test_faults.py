"""Planted faults: what stops, what is set aside, and the line each stands on."""

import gzip
import json
import math

import pyarrow
import pyarrow.parquet
import pytest

from unipref.core import errors
from unipref.core.errors import DataError, MissingExtraError
from unipref.data import read_records

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_reward": 1.0, "rejected_reward": 0.0}


def lines(path, *rows) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


FAULTS = [
    ({**GOOD, "chosen_reward": math.nan}, "field 'chosen_reward' is NaN or infinite"),
    ({**GOOD, "rejected_reward": math.inf}, "field 'rejected_reward' is NaN or infinite"),
    ({**GOOD, "chosen_reward": "high"}, "field 'chosen_reward' is not a number"),
    ({**GOOD, "chosen": " \n"}, "empty response"),
    ({**GOOD, "rejected": "a"}, "identical responses"),
    ({**GOOD, "rejected": 3}, "field 'rejected' is neither text nor messages"),
    ({**GOOD, "rejected": None}, "missing field 'rejected'"),
    ({"prompt": "p", "rejected": "b"}, "missing field 'chosen'"),
    ({"chosen": "a a", "rejected": "a b"}, "missing field 'prompt'"),
    ({**GOOD, "weight": -1}, "field 'weight' is negative"),
    ({**GOOD, "weight": math.nan}, "field 'weight' is NaN or infinite"),
    ({**GOOD, "preference": 1.5}, "field 'preference' is not a probability"),
    ({**GOOD, "votes_chosen": 0, "votes_rejected": 0}, "votes are not two counts, one of them above zero"),
    ({**GOOD, "chosen": [{"role": "assistant", "content": "a"}]}, "one of 'chosen' and 'rejected' is text"),
    ({**GOOD, "chosen": "\ud800"}, "field 'chosen' holds half a surrogate pair"),
    ('{"prompt": "p", "chosen"', "broken JSON"),
    ("[1, 2]", "not an object"),
]


@pytest.mark.parametrize(("row", "reason"), FAULTS)
def test_a_faulty_row_is_set_aside_with_its_line_and_reason_and_strict_makes_it_fatal(tmp_path, row, reason):
    path = lines(tmp_path / "d.jsonl", GOOD, "", row, {**GOOD, "weight": 1, "preference": 1})
    records, report = read_records(path)
    assert [record.line for record in records] == [1, 4]
    assert (report.n_read, report.n_kept, len(report.set_aside)) == (3, 2, 1)
    found = report.set_aside[0]
    assert (found.source, found.line) == (path, 3)
    assert found.reason.startswith(reason)
    with pytest.raises(DataError, match=r"d\.jsonl, line 3: ") as caught:
        read_records(path, strict=True)
    assert reason in str(caught.value)


MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "field 'messages' holds no message"),
        ("Hi", "field 'messages' is not a list of messages"),
        (["Hi"], "field 'messages' holds something that is not a message"),
        ([{"role": "robot", "content": "Hi"}], "field 'messages' holds a message with an unknown role"),
        ([{"role": "assistant", "content": None}], "field 'messages' holds a message whose content is not text"),
        (
            [{"role": "assistant", "content": "", "tool_calls": [{}]}],
            "field 'messages' holds a message with more than text",
        ),
        (MESSAGES[:1], "the conversation has no assistant turn"),
        ([*MESSAGES, {"role": "assistant", "content": " "}], "empty response"),
    ],
)
def test_a_faulty_conversation_is_set_aside(messages, reason):
    _, report = read_records([{"messages": MESSAGES}, {"messages": messages}])
    assert [(row.line, row.reason) for row in report.set_aside] == [(2, reason)]


RANKED = {"prompt": "p", "responses": ["a", "b"], "ranks": [1, 2]}
RATED = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}
LABELLED = {"prompt": "p", "completion": "a", "label": True}
STEPS = {"prompt": "p", "completions": ["a"], "labels": [1]}
JUDGED = {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1}


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (LABELLED, {"label": "yes"}, "field 'label' is not a true/false label"),
        (LABELLED, {"label": None}, "missing field 'label'"),
        (RANKED, {"ranks": [1]}, "field 'ranks' has not one entry per response"),
        (RANKED, {"ranks": [0, 1]}, "field 'ranks' holds something that is no rank"),
        (RANKED, {"responses": ["a", "a"]}, "identical responses"),
        (RANKED, {"responses": ["a"]}, "fewer than two responses"),
        (RATED, {"scores": [1, math.nan]}, "field 'scores' is NaN or infinite"),
        (RATED, {"scores": [None, None]}, "no response has a rating"),
        (STEPS, {"labels": [1, 0]}, "field 'labels' has not one entry per response"),
        (JUDGED, {"preference": 0}, "field 'preference' is not in [1, 2]"),
        (JUDGED, {"output_2": ""}, "empty response"),
        ({"text": "a"}, {"text": ["b"]}, "field 'text' is not text"),
        ({"prompt": "p"}, {"prompt": " "}, "empty prompt"),
    ],
)  # fmt: skip
def test_each_format_knows_its_own_faults(good, bad, reason):
    _, report = read_records([good, {**good, **bad}])
    assert [(row.line, row.reason) for row in report.set_aside] == [(2, reason)]


def test_many_faults_are_counted_by_reason(tmp_path):
    path = lines(tmp_path / "d.jsonl", GOOD, *[row for row, _ in FAULTS])
    _, report = read_records(path)
    assert report.n_read == 1 + len(FAULTS) == report.n_kept + len(report.set_aside)
    assert [row.line for row in report.set_aside] == list(range(2, 2 + len(FAULTS)))
    assert report.counts["field 'rejected_reward' is NaN or infinite"] == 1
    assert sum(report.counts.values()) == len(FAULTS)


def test_broken_lines_of_csv_and_rows_of_parquet_have_their_numbers(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text('prompt,completion\np,"two\nlines"\np\np,\n')
    records, report = read_records(path)
    assert [(record.line, record.items[0].response) for record in records] == [(2, "two\nlines")]
    assert [(row.line, row.reason) for row in report.set_aside] == [
        (4, "wrong number of fields"),
        (5, "empty response"),
    ]
    path = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["p", "p"], "completion": ["c", None]}), path)
    assert [(row.line, row.reason) for row in read_records(path)[1].set_aside] == [(2, "missing field 'completion'")]


def test_rows_of_a_json_list_have_the_line_they_start_on(tmp_path):
    path = tmp_path / "d.json"
    path.write_text('[\n {"text": "a"},\n\n {"text":\n  ""}, {"text": 3}\n]\n')
    _, report = read_records(path)
    assert [(row.line, row.reason) for row in report.set_aside] == [
        (4, "empty response"),
        (5, "field 'text' is not text"),
    ]


# ------------------------------------------------------------------------------------------------ what stops a run


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b"", "the file is empty"),
        ("d.csv", b" \n", "the file is empty"),
        ("d.csv", b"prompt,completion\n", "the file has no rows"),
        ("d.json", b"[]", "the file has no rows"),
        ("d.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "line 2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("d.jsonl", '{"text": "a"}'.encode("utf-16"), "looks like UTF-16"),
        ("d.json", b'[\n{"text": "a"},\n{"text" "b"}]', "line 3, column 9: broken JSON"),
        ("d.json", b'[{"text": "a"}', "line 1, column 15: broken JSON"),
        ("d.json", b'[{"text": "a"}] x', "broken JSON"),
        ("d.json", b'"text"', "expected a JSON list of objects"),
        ("d.json", b'{"text"', "broken JSON"),
        ("d.jsonl", b"text\nmore\n", "line 1: broken JSON"),
        ("d.csv", b'text\n"a\n', "line 2: broken CSV"),
        ("d.csv", b"text,text\na,b\n", "the column 'text' stands twice"),
        ("d.parquet", b"PAR1 not really", "not a whole Parquet file"),
        ("d.jsonl.gz", b"text", "not a whole gzip file"),
        ("d.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:40], "not a whole gzip file"),
        ("d.txt", b"text", "unknown kind of file '.txt'"),
        ("d.jsonl", b'{"prompt": "p", "chosen": ""}', "Found: chosen, prompt. Nearest: preference, which"),
        ("d.jsonl", b'{"a": 1, "b": 2}\n', "Found: a, b."),
        ("d.jsonl", b'{"text": 1}\n{"text": 2}\n', "none of the 2 rows can be read as text (text). 2 x field"),
    ],
)  # fmt: skip
def test_a_fault_of_the_file_stops_and_names_it(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_records(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_column_of_a_named_format_is_named_beside_what_was_found():
    with pytest.raises(DataError, match="'preference' needs the column 'rejected'; found: chosen, prompt"):
        read_records([{"prompt": "p", "chosen": "a"}], format="preference")


def test_a_missing_file_a_strange_folder_and_no_source_at_all_are_said_so(tmp_path):
    with pytest.raises(DataError, match="there is no data file"):
        read_records(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="there is no data file 'no such file'"):
        read_records("no such file")
    with pytest.raises(DataError, match=r"has no state\.json"):
        read_records(tmp_path)
    with pytest.raises(DataError, match="list of data sources is empty"):
        read_records([])
    with pytest.raises(DataError, match="not a int"):
        read_records(3)


def test_a_hub_name_without_datasets_names_the_extra(monkeypatch):
    real = errors.importlib.import_module

    def absent(name):
        if name == "datasets":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(errors.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"unipref\[hub\]"):
        read_records("some/dataset")
