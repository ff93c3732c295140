"""Rows of files, hub data sets and Python objects, each with its line. What a row means is not known here."""

import csv
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import IO, Any

from unipref.core.errors import DataError, import_extra, nearest
from unipref.data.corpora import review_openings
from unipref.data.report import RowFault

__all__ = ["Row", "Rows", "Source", "bundled_file", "open_source", "stream_source"]

Row = tuple[int, dict[str, Any] | RowFault]  # 1-based line or row number, fields by name or why they cannot be read

BUNDLED = {"hh-harmless": ("hh_harmless", "harmless_base_test.jsonl.gz")}
MADE = {"review-openings": review_openings}  # bundled, too: rows that are made from the bundled corpora
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(:[\w.\[\]%:+-]+)?")
_EMPTY = "{}: the file is empty; expected one row or more"
_BATCH = 1024  # rows of a Parquet file that are in memory at a time
_PIECE = 1 << 20  # bytes of a file that are in memory at a time


@dataclass
class Source:
    """Rows that were read from one place.

    Attributes:
        name: what messages call the place.
        rows: (1-based line or row number, fields by name or the fault that kept them from being read).
        typed: False where every value is a string (CSV), so that numbers and messages must be read from text.
        sha256: of the file's bytes, None where there is no file.
    """

    name: str
    rows: list[Row]
    typed: bool = True
    sha256: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Rows:
    """Rows of one place that are read as they are asked for, once.

    Attributes:
        name, typed, notes: as of `Source`.
        rows: what is wrong with the place as a whole (a broken file, no rows) is raised on the way, where it is found.
        sha256: of the file's bytes; to be asked after the last row.
    """

    name: str
    rows: Iterator[Row]
    typed: bool = True
    sha256: Callable[[], str | None] = lambda: None
    notes: list[str] = field(default_factory=list)


def open_source(source: Any) -> Source:
    """All rows of `source`.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file (each also .gz); "bundled:hh-harmless", or
            "bundled:review-openings" (prompts alone); a folder that `datasets` saved; a hub id with an optional split
            ("org/name:test"); a sequence of mappings; or a `datasets.Dataset`.

    Raises:
        DataError: it is missing, empty, not UTF-8, or not the kind of file that its name says.
        MissingExtraError: a hub id or a saved folder needs `datasets`.
    """
    found = _rows_of(source, from_hub_as_stream=False)
    rows = list(found.rows)
    return Source(found.name, rows, found.typed, found.sha256(), found.notes)


def stream_source(source: Any) -> Rows:
    """The rows of `source`, of which few are in memory at a time.

    What `open_source` takes, and any iterable of mappings, a `datasets.IterableDataset` too. A hub id is read as a
    stream without being downloaded first, unless it asks for a slice of a split. A .json file, whose rows stand in one
    list, and a .parquet.gz file are read whole; so is each row group's compressed part of a Parquet file.

    Raises:
        DataError: it is missing, or not a kind of source; the rest when the rows are read.
        MissingExtraError: a hub id or a saved folder needs `datasets`.
    """
    return _rows_of(source, from_hub_as_stream=True)


def _rows_of(source: Any, *, from_hub_as_stream: bool) -> Rows:
    if isinstance(source, str | Path):
        return _named(str(source), from_hub_as_stream)
    if hasattr(source, "column_names"):  # datasets.Dataset, IterableDataset
        return _from_dataset(source, "data set in memory")
    if isinstance(source, Iterable):
        rows = ((i, _as_object(row)) for i, row in enumerate(source, 1))
        return Rows("rows in memory", _some(rows, "rows in memory: there are none; expected one or more"))
    raise DataError(f"a data source is a path, a hub id, a data set or a list of rows, not a {type(source).__name__}")


def _named(name: str, as_stream: bool) -> Rows:
    if name.startswith("bundled:"):
        key = name.removeprefix("bundled:")
        if key in MADE:
            rows, sha256 = MADE[key]()
            return Rows(name, iter(enumerate(rows, 1)), sha256=lambda: sha256)
        file = bundled_file(name)
        if file is None:
            raise DataError(f"no bundled data named {key!r}{nearest(key, [*BUNDLED, *MADE])}")
        return _from_file(name, file.name, file)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_hub(name, path, as_stream)
    if path.is_file():
        return _from_file(name, path.name, path)
    looks_like_a_file = path.is_absolute() or name.startswith((".", "~")) or name.endswith((*_SUFFIXES, ".gz"))
    if looks_like_a_file or not _HUB_ID.fullmatch(name):
        raise DataError(
            f"there is no data file {name!r}; give the path of a {', '.join(_SUFFIXES)} file (or .gz of one), "
            "a Hugging Face data set id, or bundled:hh-harmless"
        )
    return _from_hub(name, None, as_stream)


def bundled_file(name: str) -> Any:
    """The file that holds the bundled data `name`, None where they have none; it can be opened as a path can."""
    folder, file = BUNDLED.get(name.removeprefix("bundled:"), (None, None))
    return None if file is None else resources.files("unipref").joinpath("assets", folder, file)


class _Hashed(io.RawIOBase):
    """A file that is read from start to end, and the hash of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self.file.read(len(buffer))
        self.hash.update(piece)
        buffer[: len(piece)] = piece
        return len(piece)


def _from_file(name: str, file: str, place: Any) -> Rows:
    """The rows of a file; `place` is its path, or what `importlib.resources` has instead of one."""
    packed = file.endswith(".gz")
    suffix = Path(file.removesuffix(".gz")).suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(f"{name}: unknown kind of file {suffix!r}; known: {', '.join(_SUFFIXES)}, each also with .gz")
    done: list[str] = []

    def rows() -> Iterator[Row]:
        with place.open("rb") as opened:
            hashed = _Hashed(opened)
            raw = io.BufferedReader(hashed, _PIECE)
            if suffix == ".parquet" and not packed:
                yield from _parquet(name, opened)
                opened.seek(0)
            else:
                with _whole_gzip(name, packed):
                    yield from _READERS[suffix](name, gzip.GzipFile(fileobj=raw) if packed else raw)
            while raw.read(_PIECE):  # a reader need not go up to the last byte
                pass
            done.append(hashed.hash.hexdigest())

    empty = f"{name}: the file has no rows; expected one or more"
    return Rows(name, _some(rows(), empty), typed=suffix != ".csv", sha256=lambda: done[0] if done else None)


@contextmanager
def _whole_gzip(name: str, packed: bool) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error) as err:
        if not packed:
            raise
        raise DataError(f"{name}: not a whole gzip file ({err}); copy or download it again") from err


def _some(rows: Iterable[Row], empty: str) -> Iterator[Row]:
    """`rows`, of which there must be one.

    Raises:
        DataError: there is none; `empty` is what it says.
    """
    none = True
    for row in rows:
        none = False
        yield row
    if none:
        raise DataError(empty)


def _lines(name: str, file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file, each with the line feed that ends it: a lone return ends none."""
    blank = True
    for number, raw in enumerate(file, 1):
        text = _decode(name, raw, number)
        blank = blank and not text.strip()
        yield number, text
    if blank:
        raise DataError(_EMPTY.format(name))


def _decode(name: str, raw: bytes, first: int = 1) -> str:
    """`raw` as text, of which line `first` is the first; a byte order mark opens a file and is no part of it."""
    try:
        return raw.decode("utf-8-sig" if first == 1 else "utf-8")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + first
        hint = " (it looks like UTF-16)" if first == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(
            f"{name}, line {line}: byte 0x{raw[err.start]:02x} is not UTF-8{hint}; save the file as UTF-8 and try again"
        ) from err


def _json_lines(name: str, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    faults: list[tuple[int, RowFault]] = []
    sound = False
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = _as_object(json.loads(line.removesuffix("\n")))
        except json.JSONDecodeError as err:
            row = RowFault("broken JSON", f"{err.msg} at column {err.colno}")
        if isinstance(row, RowFault):
            faults = faults or [(number, row)]
        else:
            sound = True
        yield number, row
    if faults and not sound:
        number, fault = faults[0]
        raise DataError(f"{name}, line {number}: {fault}; expected one JSON object a line")


def _split(text: str) -> Iterable[tuple[int, str]]:
    return enumerate(text.split("\n"), 1)  # not splitlines(): U+2028 may stand inside a JSON string


def _as_object(row: Any) -> dict[str, Any] | RowFault:
    if isinstance(row, Mapping):
        return dict(row)
    return row if isinstance(row, RowFault) else RowFault("not an object", f"the row is a {type(row).__name__}")


def _json(name: str, file: IO[bytes]) -> Iterable[Row]:
    text = _decode(name, file.read())
    if not text.strip():
        raise DataError(_EMPTY.format(name))
    start = len(text) - len(text.lstrip())
    decoder = json.JSONDecoder()
    if text[start] == "{":  # one object that holds the rows, or JSON lines under another name
        try:
            whole, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as err:
            if "\n" in text[start:].strip():
                return _json_lines(name, _split(text))
            raise _broken(name, err) from err
        lists = [value for value in whole.values() if isinstance(value, list)] if not text[end:].strip() else []
        if len(lists) != 1 or not all(isinstance(row, dict) for row in lists[0]):
            return _json_lines(name, _split(text))
        return enumerate(lists[0], 1)
    if text[start] != "[":
        raise DataError(f"{name}, line 1: expected a JSON list of objects, found {text[start : start + 20]!r}")
    rows: list[Row] = []
    at, line = start + 1, 1 + text.count("\n", 0, start + 1)
    try:
        while True:
            skip = _blank(text, at)
            line += text.count("\n", at, skip)
            at = skip
            if text[at : at + 1] == "]":
                break
            row, end = decoder.raw_decode(text, at)
            rows.append((line, _as_object(row)))
            line += text.count("\n", at, end)
            at = _blank(text, end)
            line += text.count("\n", end, at)
            if text[at : at + 1] == ",":
                at += 1
            elif text[at : at + 1] != "]":
                raise json.JSONDecodeError("Expecting ',' or ']'", text, at)
        if text[at + 1 :].strip():
            raise json.JSONDecodeError("Extra data after the list", text, at + 1)
    except json.JSONDecodeError as err:
        raise _broken(name, err) from err
    return rows


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _broken(name: str, err: json.JSONDecodeError) -> DataError:
    return DataError(f"{name}, line {err.lineno}, column {err.colno}: broken JSON ({err.msg}); mend the file there")


def _csv(name: str, file: IO[bytes]) -> Iterator[Row]:
    reader = csv.reader(_csv_lines(name, file), strict=True)
    line = 1
    try:
        header = _next_cells(reader)
        if header is None:
            return
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            raise DataError(f"{name}, line 1: the column {repeated[0]!r} stands twice; rename one of them")
        line = reader.line_num + 1
        while (cells := _next_cells(reader)) is not None:
            if cells:
                yield (
                    line,
                    dict(zip(header, cells, strict=True))
                    if len(cells) == len(header)
                    else RowFault("wrong number of fields", f"{len(cells)} instead of {len(header)}"),
                )
            line = reader.line_num + 1
    except csv.Error as err:
        raise DataError(f"{name}, line {line}: broken CSV ({err}); quote the field that starts there") from err


def _csv_lines(name: str, file: IO[bytes]) -> Iterator[str]:
    for _, line in _lines(name, file):
        if "\r" in line.removesuffix("\n").removesuffix("\r"):  # a lone return ends a line of CSV
            yield from io.StringIO(line, newline="")
        else:
            yield line


def _next_cells(reader: Any) -> list[str] | None:
    """The next row; None behind the last. The limit of a cell's length is the whole process's, so it is put back."""
    old_limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # responses may be longer than csv's 128 kB
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(old_limit)


def _parquet(name: str, file: IO[bytes]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        if not file.read(1):
            raise DataError(_EMPTY.format(name))
        file.seek(0)
        number = 0
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=_BATCH, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as err:
        raise DataError(f"{name}: not a whole Parquet file ({err}); write or download it again") from err


_READERS: dict[str, Callable[[str, IO[bytes]], Iterable[Row]]] = {
    ".jsonl": lambda name, file: _json_lines(name, _lines(name, file)),
    ".ndjson": lambda name, file: _json_lines(name, _lines(name, file)),
    ".json": _json,
    ".csv": _csv,
    ".parquet": lambda name, file: _parquet(name, io.BytesIO(file.read())),
}


def _from_hub(name: str, folder: Path | None, as_stream: bool) -> Rows:
    datasets = import_extra("datasets", extra="hub", use=f"read the data set {name!r}")
    if folder is not None:
        if not any((folder / file).is_file() for file in ("state.json", "dataset_dict.json")):
            raise DataError(
                f"{name}: the folder was not written by Dataset.save_to_disk (it has no state.json); "
                "give the path of one data file"
            )
        return _from_dataset(datasets.load_from_disk(str(folder)), name)
    hub_id, _, split = name.partition(":")
    try:
        found = datasets.load_dataset(hub_id, split=split or None, streaming=as_stream and "[" not in split)
    except (OSError, ValueError) as err:
        raise DataError(
            f"the data set {name!r} is neither a file here nor could it be loaded from the hub: {err}"
        ) from err
    return _from_dataset(found, name)


def _from_dataset(found: Any, name: str) -> Rows:
    if isinstance(found, Mapping):  # a DatasetDict: one data set per split
        splits: Sequence[str] = sorted(found)
        if "train" in found:
            chosen = "train"
        elif len(splits) == 1:
            chosen = splits[0]
        else:
            raise DataError(
                f"{name}: there is no split 'train'; name one of {', '.join(splits)}, as in {name}:{splits[0]}"
            )
        source = _from_dataset(found[chosen], name)
        if len(splits) > 1:
            source.notes.append(f"{name}: read the split {chosen!r} of {', '.join(splits)}.")
        return source
    rows = ((i, dict(row)) for i, row in enumerate(found, 1))
    return Rows(name, _some(rows, f"{name}: the data set has no rows; expected one or more"))
