"""Rows of files, hub data sets and Python objects, each with its line. What a row means is not known here."""

import csv
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from unipref.core.errors import DataError, import_extra, nearest
from unipref.data.corpora import review_openings
from unipref.data.report import RowFault

__all__ = ["Source", "open_source"]

BUNDLED = {"hh-harmless": ("hh_harmless", "harmless_base_test.jsonl.gz")}
MADE = {"review-openings": review_openings}  # bundled, too: rows that are made from the bundled corpora
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(:[\w.\[\]%-]+)?")


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
    rows: list[tuple[int, dict[str, Any] | RowFault]]
    typed: bool = True
    sha256: str | None = None
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
    if isinstance(source, str | Path):
        return _open_named(str(source))
    if hasattr(source, "column_names"):  # datasets.Dataset
        return _from_dataset(source, "data set in memory")
    if isinstance(source, Iterable):
        rows = [
            (
                i,
                dict(row)
                if isinstance(row, Mapping)
                else RowFault("not an object", f"the row is a {type(row).__name__}"),
            )
            for i, row in enumerate(source, 1)
        ]
        return Source("rows in memory", rows)
    raise DataError(f"a data source is a path, a hub id, a data set or a list of rows, not a {type(source).__name__}")


def _open_named(name: str) -> Source:
    if name.startswith("bundled:"):
        key = name.removeprefix("bundled:")
        if key in MADE:
            rows, sha256 = MADE[key]()
            return Source(name, list(enumerate(rows, 1)), sha256=sha256)
        if key not in BUNDLED:
            raise DataError(f"no bundled data named {key!r}{nearest(key, [*BUNDLED, *MADE])}")
        folder, file = BUNDLED[key]
        return _parse(name, file, resources.files("unipref").joinpath("assets", folder, file).read_bytes())
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_hub(name, path)
    if path.is_file():
        return _parse(name, path.name, path.read_bytes())
    looks_like_a_file = path.is_absolute() or name.startswith((".", "~")) or name.endswith((*_SUFFIXES, ".gz"))
    if looks_like_a_file or not _HUB_ID.fullmatch(name):
        raise DataError(
            f"there is no data file {name!r}; give the path of a {', '.join(_SUFFIXES)} file (or .gz of one), "
            "a Hugging Face data set id, or bundled:hh-harmless"
        )
    return _from_hub(name, None)


def _parse(name: str, file: str, raw: bytes) -> Source:
    sha256 = hashlib.sha256(raw).hexdigest()
    if file.endswith(".gz"):
        file = file.removesuffix(".gz")
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as err:
            raise DataError(f"{name}: not a whole gzip file ({err}); copy or download it again") from err
    suffix = Path(file).suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(f"{name}: unknown kind of file {suffix!r}; known: {', '.join(_SUFFIXES)}, each also with .gz")
    if not raw.strip():
        raise DataError(f"{name}: the file is empty; expected one row or more")
    if suffix == ".parquet":
        source = _parquet(name, raw)
    else:
        text = _decode(name, raw)
        source = {".csv": _csv, ".json": _json}.get(suffix, _json_lines)(name, text)
    if not source.rows:
        raise DataError(f"{name}: the file has no rows; expected one or more")
    source.sha256 = sha256
    return source


def _decode(name: str, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        hint = " (it looks like UTF-16)" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise DataError(
            f"{name}, line {line}: byte 0x{raw[err.start]:02x} is not UTF-8{hint}; save the file as UTF-8 and try again"
        ) from err


def _json_lines(name: str, text: str) -> Source:
    source = Source(name, [])
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines(): U+2028 may stand inside a JSON string
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as err:
            row = RowFault("broken JSON", f"{err.msg} at column {err.colno}")
        source.rows.append((number, _as_object(row)))
    if all(isinstance(row, RowFault) for _, row in source.rows):
        number, fault = source.rows[0]
        raise DataError(f"{name}, line {number}: {fault}; expected one JSON object a line")
    return source


def _as_object(row: Any) -> dict[str, Any] | RowFault:
    return row if isinstance(row, dict | RowFault) else RowFault("not an object", f"the row is a {type(row).__name__}")


def _json(name: str, text: str) -> Source:
    start = len(text) - len(text.lstrip())
    decoder = json.JSONDecoder()
    if text[start] == "{":  # one object that holds the rows, or JSON lines under another name
        try:
            whole, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as err:
            if "\n" in text[start:].strip():
                return _json_lines(name, text)
            raise _broken(name, err) from err
        lists = [value for value in whole.values() if isinstance(value, list)] if not text[end:].strip() else []
        if len(lists) != 1 or not all(isinstance(row, dict) for row in lists[0]):
            return _json_lines(name, text)
        return Source(name, list(enumerate(lists[0], 1)))
    if text[start] != "[":
        raise DataError(f"{name}, line 1: expected a JSON list of objects, found {text[start : start + 20]!r}")
    source, at, line = Source(name, []), start + 1, 1 + text.count("\n", 0, start + 1)
    try:
        while True:
            skip = _blank(text, at)
            line += text.count("\n", at, skip)
            at = skip
            if text[at : at + 1] == "]":
                break
            row, end = decoder.raw_decode(text, at)
            source.rows.append((line, _as_object(row)))
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
    return source


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _broken(name: str, err: json.JSONDecodeError) -> DataError:
    return DataError(f"{name}, line {err.lineno}, column {err.colno}: broken JSON ({err.msg}); mend the file there")


def _csv(name: str, text: str) -> Source:
    old_limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # responses may be longer than csv's 128 kB
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    source, line = Source(name, [], typed=False), 1
    try:
        header = next(reader)
        repeated = sorted({column for column in header if header.count(column) > 1})
        if repeated:
            raise DataError(f"{name}, line 1: the column {repeated[0]!r} stands twice; rename one of them")
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                source.rows.append(
                    (
                        line,
                        dict(zip(header, cells, strict=True))
                        if len(cells) == len(header)
                        else RowFault("wrong number of fields", f"{len(cells)} instead of {len(header)}"),
                    )
                )
            line = reader.line_num + 1
    except csv.Error as err:
        raise DataError(f"{name}, line {line}: broken CSV ({err}); quote the field that starts there") from err
    finally:
        csv.field_size_limit(old_limit)
    return source


def _parquet(name: str, raw: bytes) -> Source:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(io.BytesIO(raw)).to_pylist()
    except (pyarrow.ArrowException, OSError) as err:
        raise DataError(f"{name}: not a whole Parquet file ({err}); write or download it again") from err
    return Source(name, list(enumerate(rows, 1)))


def _from_hub(name: str, folder: Path | None) -> Source:
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
        found = datasets.load_dataset(hub_id, split=split or None)
    except (OSError, ValueError) as err:
        raise DataError(
            f"the data set {name!r} is neither a file here nor could it be loaded from the hub: {err}"
        ) from err
    return _from_dataset(found, name)


def _from_dataset(found: Any, name: str) -> Source:
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
    rows = [(i, dict(row)) for i, row in enumerate(found, 1)]
    if not rows:
        raise DataError(f"{name}: the data set has no rows; expected one or more")
    return Source(name, rows)
