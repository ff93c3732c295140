"""Whatever the rows, every kind of file gives the same records."""

import csv
import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unipref.data import read_records

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=20)
WORDS = TEXT.filter(str.strip)
NUMBER = st.floats(-1e6, 1e6, allow_nan=False)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": TEXT})
TURNS = st.lists(TURN, min_size=1, max_size=3)


@st.composite
def pairs(draw):
    """Rows of one format: a pair of texts, a pair of conversations, or a labelled completion, with numbers."""
    kind = draw(st.sampled_from(["text", "conversation", "label"]))

    def row():
        extra = {"weight": draw(st.floats(0, 10)), "domain": draw(WORDS), "user": draw(WORDS)}
        if kind == "label":
            return {"prompt": draw(WORDS), "completion": draw(WORDS), "label": draw(st.booleans()), **extra}
        chosen = draw(WORDS)
        sides = {"chosen": chosen, "rejected": draw(WORDS.filter(lambda other: other != chosen))}
        extra |= {"score_chosen": draw(NUMBER), "score_rejected": draw(NUMBER), "preference": draw(st.floats(0, 1))}
        if kind == "text":
            return {"prompt": draw(WORDS), **sides, **extra}
        answers = {name: [{"role": "assistant", "content": text}] for name, text in sides.items()}
        return {"prompt": draw(TURNS), **answers, **extra}

    return [row() for _ in range(draw(st.integers(1, 4)))]


def as_jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows):
    return json.dumps(rows, indent=1).encode()


def as_csv(rows):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    for row in rows:
        writer.writerow({k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in row.items()})
    return file.getvalue().encode()


def as_parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


WRITERS = {"jsonl": as_jsonl, "json": as_json, "csv": as_csv, "parquet": as_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=pairs(), packed=st.booleans())
def test_a_round_trip_through_a_file_changes_nothing(tmp_path, suffix, rows, packed):
    name = f"d.{suffix}" + (".gz" if packed else "")
    content = WRITERS[suffix](rows)
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    records, report = read_records(tmp_path / name, strict=True)
    expected, _ = read_records(rows, strict=True)
    assert report.n_kept == len(rows)
    for record, twin, row in zip(records, expected, rows, strict=True):
        assert (record.items, record.comparisons, record.conversation) == (
            twin.items,
            twin.comparisons,
            twin.conversation,
        )
        assert (record.weight, record.domain, record.user) == (row["weight"], row["domain"], row["user"])
        if isinstance(row["prompt"], str):
            assert record.items[0].context == row["prompt"]
            assert record.items[0].response == row.get("chosen", row.get("completion"))
        else:
            assert [message.content for message in record.items[0].context] == [m["content"] for m in row["prompt"]]
            assert record.items[1].response[0].content == row["rejected"][0]["content"]
    assert len({record.id for record in records}) == len(records)


def test_json_lines_under_the_name_json_and_rows_under_a_key_are_read(tmp_path):
    rows = [{"text": "a"}, {"text": "b"}]
    contents = {
        "lines.json": as_jsonl(rows),
        "key.json": json.dumps({"version": 1, "data": rows}).encode(),
        "bom.jsonl": b"\xef\xbb\xbf" + as_jsonl(rows),
        "lines.ndjson": as_jsonl(rows).replace(b"\n", b"\r\n\r\n"),
        "one.json": as_jsonl(rows[:1]),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        found = [record.items[0].response for record in read_records(tmp_path / name)[0]]
        assert found == (["a"] if name == "one.json" else ["a", "b"])


def test_unicode_line_separators_inside_a_json_string_end_no_line(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "a\u2028b\x85c"}\n{"text": ""}\n')
    records, report = read_records(tmp_path / "d.jsonl")
    assert records[0].items[0].response == "a\u2028b\x85c"
    assert report.set_aside[0].line == 2


def test_csv_cells_longer_than_the_csv_modules_limit_are_read(tmp_path):
    limit = csv.field_size_limit()
    (tmp_path / "d.csv").write_text(f"text\n{'word ' * limit}\n")
    assert len(read_records(tmp_path / "d.csv")[0][0].items[0].response) == 5 * limit
    assert csv.field_size_limit() == limit


def test_the_hash_of_a_file_is_in_the_report(tmp_path):
    (tmp_path / "d.csv").write_bytes(b"text\na\n")
    facts = read_records(tmp_path / "d.csv")[1].sources[str(tmp_path / "d.csv")]
    assert facts == {
        "rows": 1,
        "format": "text",
        "sha256": "ef271522dd0a16c1b66bcbadc17474307a88dea874019dc4146b4789a09a8c2d",
    }
