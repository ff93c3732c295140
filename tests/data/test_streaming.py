"""Rows that are read in chunks become the records, and the account, that they become when all are read at once."""

import csv
import gzip
import io
import json
import random
import tracemalloc

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Record
from unipref.data import FORMATS, DataReport, read_records, stream_records
from unipref.data._names import UniqueNames
from unipref.data.operators import unused_id


def turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


PAIR = {"prompt": "p {n}", "chosen": "a {n}", "rejected": "b {n}"}
REVIEWED = {
    "reviews": ["Good {n}.", "Bad."],
    "summary-pairs": {
        "summary-one": {"summary-text": "one {n}", "summary-score": {"fluency": 3}},
        "summary-two": {"summary-text": "two {n}", "summary-score": {"fluency": 4}},
    },
    "preference-data": 2,
}
NODES = [
    {"id": 0, "parent": None, "text": "step {n}", "reward": 0.5},
    {"id": 1, "parent": 0, "text": "end {n}", "reward": 1.0},
]
ROWS = {  # per format a sound row, in which {n} is the row's number, and what makes it faulty
    "alpaca": (
        {"instruction": "i {n}", "output_1": "a {n}", "output_2": "b {n}", "preference": 1},
        {"output_2": " "},
    ),
    "preference": ({**PAIR, "score_chosen": 2.5, "gold": "g {n}", "domain": "d", "user": "u{n}"}, {"chosen": ""}),
    "joint": (
        {"prompt_chosen": "p {n}", "response_chosen": "a", "prompt_rejected": "q {n}", "response_rejected": "b"},
        {"response_chosen": "\n"},
    ),
    "hh": (
        {
            "chosen": "\n\nHuman: Hi {n}\n\nAssistant: Hello",
            "rejected": "\n\nHuman: Hi {n}\n\nAssistant: Go",
            "extra": "unread",
        },
        {"chosen": "\n\nHuman: Hi"},
    ),
    "votes": ({"prompt": "p {n}", "response_a": "a", "response_b": "b", "n_a": 3, "n_b": 1}, {"n_a": -1}),
    "summaries": (REVIEWED, {"preference-data": 3}),
    "ranked": ({"prompt": "p {n}", "responses": ["a", "b {n}"], "ranks": [2, 1]}, {"ranks": [0, 1]}),
    "rated": ({"prompt": "p {n}", "responses": ["a", "b {n}"], "scores": [0.5, 1.5]}, {"responses": ["a", "a"]}),
    "stepwise": ({"prompt": "p {n}", "completions": ["s", "t {n}"], "labels": [True, False]}, {"labels": [True]}),
    "unpaired": ({"prompt": "p {n}", "completion": "c {n}", "label": True}, {"label": "maybe"}),
    "prompt_completion": ({"prompt": "p {n}", "completion": "c", "reward": 0.25}, {"completion": " "}),
    "unpaired_messages": (
        {"messages": [turn("user", "Hi {n}"), turn("assistant", "Hello")], "label": False},
        {"messages": [turn("user", "Hi")]},
    ),
    "messages": (
        {"messages": [turn("user", "Hi {n}"), turn("assistant", "Hello")]},
        {"messages": [turn("user", "Hi")]},
    ),
    "tree": ({"prompt": "p {n}", "nodes": NODES}, {"nodes": "[]"}),
    "text": ({"text": "words {n}"}, {"text": " "}),
    "prompt_only": ({"prompt": "p {n}"}, {"prompt": " "}),
}


def numbered(value, n):
    if isinstance(value, str):
        return value.replace("{n}", str(n))
    if isinstance(value, list):
        return [numbered(part, n) for part in value]
    return {key: numbered(part, n) for key, part in value.items()} if isinstance(value, dict) else value


def rows_of(name: str) -> list[dict]:
    """Seven rows of a format, the fourth and the last of them faulty."""
    sound, fault = ROWS[name]
    return [{**numbered(sound, n), **(fault if n in (3, 6) else {})} for n in range(7)]


def as_csv(rows):
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows({k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows)
    return file.getvalue().encode()


def as_parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


WRITERS = {
    ".jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".csv": as_csv,
    ".parquet": as_parquet,
}


def streamed(source, **options) -> tuple[list[Record], DataReport]:
    chunks = list(stream_records(source, **options))
    assert all(report.n_kept == len(records) for records, report in chunks)
    return [record for records, _ in chunks for record in records], DataReport.merged(report for _, report in chunks)


def test_every_format_has_a_row_here():
    assert set(ROWS) == set(FORMATS)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("name", ROWS)
def test_a_file_in_chunks_of_two_gives_the_records_and_the_report_of_the_whole_file(tmp_path, name, suffix, packed):
    try:
        content = WRITERS[suffix](rows_of(name))
    except pyarrow.ArrowException:
        assert suffix == ".parquet"  # the faulty row is of another type, which a table cannot hold
        content = WRITERS[suffix]([row for n, row in enumerate(rows_of(name)) if n not in (3, 6)])
    path = tmp_path / f"d{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content) if packed else content)
    if name == "summaries" and suffix == ".csv":  # whose reviews are a list, and a cell is text
        for read in (read_records, streamed):
            with pytest.raises(DataError, match="none of the 7 rows can be read as summaries"):
                read(path)
        return
    records, report = read_records(path)
    assert report.sources[str(path)]["format"] == name
    assert len(records) == 5
    assert streamed(path, chunk=2) == (records, report)


BROKEN = '{"prompt": "p", "cho'


def test_broken_lines_and_strange_rows_are_set_aside_on_the_same_lines(tmp_path):
    path = tmp_path / "d.jsonl"
    sound = [json.dumps(row) for row in rows_of("preference")]
    path.write_text("\n".join([sound[0], BROKEN, "", sound[1], "[1]", BROKEN, BROKEN, sound[2]]))
    found = streamed(path, chunk=2)
    assert found == read_records(path)
    assert [row.line for row in found[1].set_aside] == [2, 5, 6, 7]
    with pytest.raises(DataError, match=r"d\.jsonl, line 2: broken JSON"):
        list(stream_records(path, chunk=2, strict=True))


def test_columns_are_told_from_the_first_chunk_that_has_a_sound_row(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join([BROKEN] * 5 + [json.dumps(row) for row in rows_of("text")]))
    assert streamed(path, chunk=2) == read_records(path)
    path.write_text("\n".join([BROKEN] * 5))
    with pytest.raises(DataError, match=r"line 1: broken JSON.*expected one JSON object a line"):
        list(stream_records(path, chunk=2))


def test_bundled_rows_saved_folders_data_sets_and_python_iterables_are_streamed(tmp_path):
    assert streamed("bundled:review-openings", chunk=5) == read_records("bundled:review-openings")
    data = datasets.Dataset.from_list(rows_of("unpaired")[:3])
    assert streamed(data, chunk=2) == read_records(data)
    data.save_to_disk(str(tmp_path / "saved"))
    assert streamed(str(tmp_path / "saved"), chunk=2) == read_records(str(tmp_path / "saved"))
    expected = read_records(rows_of("preference"))
    assert streamed((row for row in rows_of("preference")), chunk=2) == expected
    assert streamed(rows_of("preference"), chunk=2) == expected
    found, report = streamed(data.to_iterable_dataset(), chunk=2)
    assert [record.items for record in found] == [record.items for record in read_records(data)[0]]
    assert report.n_read == 3


def test_a_hub_id_is_streamed_unless_it_names_a_slice(monkeypatch):
    asked = []

    def load_dataset(name, *, split, streaming):
        asked.append((name, split, streaming))
        return datasets.Dataset.from_list([{"text": "a"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("org/name", "org/name:test", "org/name:train[:1%]"):
        assert len(streamed(name)[0]) == 1
    read_records("org/name")
    assert asked == [
        ("org/name", None, True),
        ("org/name", "test", True),
        ("org/name", "train[:1%]", False),
        ("org/name", None, False),
    ]


def test_ids_are_unique_over_chunks_and_sources_as_they_are_over_whole_files(tmp_path):
    rows = [{"id": name, "text": "w"} for name in ("x", "y", "x", "x#2", "x", None, "d.jsonl:6")]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [tmp_path / "a" / "d.jsonl", tmp_path / "b" / "d.jsonl"]
    found = streamed(sources, chunk=2)
    assert found == read_records(sources)
    ids = [record.id for record in found[0]]
    assert ids[:7] == ["x", "y", "x#2", "x#2#2", "x#3", "d.jsonl:6", "d.jsonl:6#2"]
    assert len(set(ids)) == 14


@pytest.mark.parametrize("size", [1, 3, 50])
def test_names_in_eight_bytes_are_the_names_of_a_dict(size):
    rng = random.Random(7)
    names = [f"{rng.choice('abcdefgh')}{'#2' * rng.randrange(3)}{rng.randrange(4) or ''}" for _ in range(300)]
    compact, seen = UniqueNames(), {}
    found = [name for at in range(0, 300, size) for name in compact.unused(names[at : at + size])]
    assert found == [unused_id(name, seen) for name in names]
    assert len(set(found)) == 300


def test_memory_does_not_grow_with_the_file(tmp_path):
    def peak(n: int) -> int:
        path = tmp_path / f"{n}.jsonl"
        path.write_text("".join(json.dumps({**PAIR, "chosen": f"{k} " * 100}) + "\n" for k in range(n)))
        tracemalloc.start()
        try:
            assert sum(len(records) for records, _ in stream_records(path, chunk=50)) == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what the first call imports and compiles stays
    small, large = peak(500), peak(2500)
    assert (tmp_path / "2500.jsonl").stat().st_size > 4 * (tmp_path / "500.jsonl").stat().st_size
    assert large < small + 100_000  # ids: 8 bytes each, twice over while two arrays are joined


# -------------------------------------------------------------------------------------------- what comes up later


def test_a_number_or_further_text_that_the_first_rows_lack_is_read_from_where_it_appears():
    rows = [numbered(PAIR, n) for n in range(6)]
    rows[4] |= {"score_chosen": 2.0, "gold": "g"}
    found = streamed(iter(rows), chunk=2)
    assert found == read_records(rows)
    assert found[0][4].items[0].columns == {"score": 2.0}
    assert [item.role for item in found[0][4].items] == ["response", "response", "gold"]


@pytest.mark.parametrize(
    ("first", "later", "column"),
    [
        ({"chosen": "a a", "rejected": "a b"}, {"prompt": "p", "chosen": " c", "rejected": " d"}, "prompt"),
        ({"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c", "label": True}, "label"),
        ({**PAIR, "reference": "r"}, {**PAIR, "gold": "g"}, "gold"),
    ],
)
def test_a_column_with_which_earlier_rows_would_be_read_otherwise_stops_with_its_line(first, later, column):
    stream = stream_records(iter([first] * 4 + [later]), chunk=2)
    assert [len(next(stream)[0]) for _ in range(2)] == [2, 2]
    with pytest.raises(DataError, match=f"line 5: the column '{column}' stands here for the first time"):
        next(stream)


def test_a_column_that_turns_from_numbers_to_words_is_read_as_it_began_and_the_report_says_so():
    rows = [{**numbered(PAIR, n), "score_chosen": n if n < 2 else "high"} for n in range(8)]
    found, report = streamed(iter(rows), chunk=2)
    assert len(found) == 2
    assert report.counts == {"field 'score_chosen' is not a number": 6}
    assert report.notes == [
        "rows in memory: the first rows of the column 'score_chosen' hold numbers, and all are read so; most of the 2 "
        "rows from 3 on do not."
    ]


# ------------------------------------------------------------------------------------------------ what stops a stream


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.jsonl.gz", gzip.compress(WRITERS[".jsonl"](rows_of("text")) * 99)[:-8], "not a whole gzip file"),
        ("bytes.jsonl", WRITERS[".jsonl"](rows_of("text")) + b"\xff\n", "line 8: byte 0xff is not UTF-8"),
        ("wide.csv", b"text\n" + b"a\n" * 7 + "é\n".encode("latin-1"), "line 9: byte 0xe9 is not UTF-8"),
        ("open.csv", b'text\na\nb\nc\nd\n"e', "line 6: broken CSV"),
        ("cut.parquet", as_parquet(rows_of("text"))[:-5], "not a whole Parquet file"),
        ("none.jsonl", b"\n \n", "the file is empty"),
        ("mark.jsonl", b"\xef\xbb\xbf", "the file is empty"),
        ("none.csv", b"text\n", "the file has no rows"),
        ("bad.jsonl", b'{"text": ""}\n' * 9, "none of the 9 rows can be read as text"),
        ("other.txt", b"a", "unknown kind of file '.txt'"),
    ],
)
def test_a_fault_of_the_file_stops_where_it_stands(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(stream_records(tmp_path / name, chunk=2))
    with pytest.raises(DataError, match=message):
        read_records(tmp_path / name)


def test_what_a_stream_cannot_do_is_said():
    with pytest.raises(DataError, match="rows in memory: there are none"):
        list(stream_records(iter([])))
    with pytest.raises(DataError, match="the list of data sources is empty"):
        list(stream_records([]))
    with pytest.raises(ConfigError, match="a chunk holds one row or more: 0"):
        list(stream_records(iter([PAIR]), chunk=0))
    with pytest.raises(DataError, match="not a int"):
        list(stream_records(3))
