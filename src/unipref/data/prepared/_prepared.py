"""Prepared data as they are read: a record's trie and facts at a time, from mapped files."""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unipref.core.errors import DataError, ShapeError
from unipref.core.records import Record
from unipref.core.tries import Segments, Trie
from unipref.data.encode import EncodedRecord
from unipref.data.prepared._keys import canonical, file_hash
from unipref.data.prepared._layout import (
    BOUNDARIES,
    ITEM,
    LAYOUT,
    OFFSETS,
    dtypes,
    read_facts,
    read_texts,
    token_file,
)
from unipref.data.report import DataReport

__all__ = ["META", "REPORT", "Cuts", "Prepared", "open_prepared", "sealed"]

META = "meta.json"
REPORT = "report.json"


class Cuts(NamedTuple):
    """What truncation did to the items of a record, and where their contexts end: as of `EncodedRecord`."""

    n_cut_context: tuple[int, ...]
    n_cut_response: tuple[int, ...]
    n_response: tuple[int, ...]
    boundary: tuple[str, ...]


class Prepared:
    """Records that were tokenised, in mapped files: opening them reads next to nothing, a record some kilobytes.

    Made by `prepare` and `open_prepared`. It can be pickled and used from several processes; what is pickled is the
    folder's name.

    Attributes:
        folder: where the files lie.
        key: what they were made from.
        token_columns: names of the numbers per scored token that are kept beside.
        sizes: (n,) int32 nodes of each record's trie.
        costs: (n,) int64 pairs of nodes of which one sees the other, what attention computes.
        prompt: (n,) int64 that rows of one conversation or prompt share (`unipref.core.tries.prompt_key`).
        n_scored: (n,) int32 scored tokens of each record's items together.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        meta = read_meta(self.folder)
        if isinstance(meta, str):
            raise DataError(f"{self.folder}: {meta}; delete the folder and prepare the data again")
        self.key: dict[str, Any] = meta["key"]
        self.token_columns: tuple[str, ...] = tuple(meta["token_columns"])
        self._meta = meta
        kinds = dtypes(meta["token"], self.token_columns)
        arrays = {
            # a plain array of the mapped bytes: a view of it costs a third of what one of np.memmap does
            name: np.asarray(np.memmap(self.folder / f"{name}.bin", dtype=kind, mode="r"))
            for name, kind in kinds.items()
        }
        self._arrays = arrays
        self._offsets = arrays["offsets"].reshape(-1, len(OFFSETS))
        self._segments = arrays["segments"].reshape(-1, 2)
        self._items = arrays["items"].reshape(-1, len(ITEM))
        self.sizes, self.costs = arrays["sizes"], arrays["costs"]
        self.prompt, self.n_scored = arrays["prompt"], arrays["n_scored"]

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.folder,)

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r}: {len(self):,} records)"

    def __len__(self) -> int:
        return self._meta["n"]

    @property
    def n_tokens(self) -> int:
        """Nodes of all tries."""
        return int(self._offsets[-1, OFFSETS.index("tokens")])

    @property
    def n_items(self) -> int:
        """Items of all records."""
        return len(self._items)

    @property
    def digest(self) -> str:
        """The hash of what a model sees: tokens and the shape of every trie, whatever the records say besides."""
        files = self._meta["files"]
        seen = [files[f"{name}.bin"] for name in ("tokens", "segments", "items", "sizes")]
        return hashlib.sha256(json.dumps([self._meta["token"], seen]).encode()).hexdigest()

    @property
    def scored_start(self) -> np.ndarray:
        """(n + 1,) int64 number of scored tokens before each record, and of all."""
        return self._offsets[:, OFFSETS.index("scored")]

    @property
    def report(self) -> DataReport:
        """What happened to every row, from the source to the tokens."""
        return DataReport.from_dict(json.loads((self.folder / REPORT).read_text(encoding="utf-8")))

    def trie(self, i: int) -> Trie:
        """The tokens of record `i`."""
        start, end = self._bounds(i)
        items = self._items[start[2] : end[2]]
        segments = self._segments[start[1] : end[1]]
        tokens = self._arrays["tokens"][start[0] : end[0]]
        return Segments(tokens, segments[:, 0], segments[:, 1], items[:, 0], items[:, 1]).trie()

    def facts(self, i: int) -> Record:
        """Record `i` with an empty string for every text, and without response ids."""
        start, end = self._bounds(i)
        return read_facts(self._arrays["facts"][start[4] : end[4]].tobytes())

    def record(self, i: int) -> Record:
        """Record `i` as it came."""
        start, end = self._bounds(i)
        texts = read_texts(self._arrays["texts"][start[5] : end[5]].tobytes())
        return read_facts(self._arrays["facts"][start[4] : end[4]].tobytes(), texts)

    def cuts(self, i: int) -> Cuts:
        """What truncation did to the items of record `i`."""
        start, end = self._bounds(i)
        *counts, boundaries = self._items[start[2] : end[2], 2:].T.tolist()
        return Cuts(*map(tuple, counts), tuple(BOUNDARIES[number] for number in boundaries))

    def encoded(self, i: int) -> EncodedRecord:
        """Record `i`, with texts, as `encode_records` gave it."""
        return EncodedRecord(self.record(i), self.trie(i), *self.cuts(i))

    def tokens(self, i: int, name: str) -> np.ndarray:
        """(n_scored,) float32 of the token column `name`, the scored tokens of record `i`'s items one after another.

        Raises:
            ShapeError: the column was not prepared.
        """
        if name not in self.token_columns:
            raise ShapeError(f"{self.folder} has no token column {name!r}, only {self.token_columns}; prepare it")
        start, end = self._bounds(i)
        return self._arrays[token_file(name)][start[3] : end[3]].copy()

    def verify(self) -> None:
        """Read every file and compare it with its hash.

        Raises:
            DataError: one is not what was written.
        """
        for name, (_, sha256) in self._meta["files"].items():
            if file_hash(self.folder / name) != sha256:
                raise DataError(
                    f"{self.folder / name} is not what was written (its hash differs); delete the folder and prepare "
                    "the data again"
                )

    def _bounds(self, i: int) -> tuple[list[int], list[int]]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"there are {len(self)} records, and no number {i}")
        i = int(i) % len(self)
        return tuple(self._offsets[i : i + 2].tolist())


def open_prepared(
    folder: Path | str, key: Mapping[str, Any], *, say: Callable[[str], None] | None = None
) -> Prepared | None:
    """What `prepare` left in `folder` for `key`; None where there is nothing, or what was made of another key.

    Files that are damaged count as nothing: a description that does not fit its checksum, a file that is missing or
    of another length. That bytes within a file were changed only `Prepared.verify` finds, which reads all of it.

    Args:
        say: is told, in a sentence, why files that are there cannot be used.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    if isinstance(meta, str):
        if say is not None and folder.exists():
            say(f"What was prepared in {folder} cannot be used and is made again: {meta}.")
        return None
    if meta["key"] != json.loads(canonical(key)):
        return None
    return Prepared(folder)


def sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """`meta`, as JSON gives it back, with the checksum of all it says."""
    meta = json.loads(json.dumps(meta))
    return {**meta, "crc": zlib.crc32(json.dumps(meta, sort_keys=True).encode())}


def read_meta(folder: Path) -> dict[str, Any] | str:
    """What meta.json of `folder` says, or why the folder cannot be used."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        crc = meta.pop("crc")
        if meta["layout"] != LAYOUT:
            return f"its files are of layout {meta['layout']}, and layout {LAYOUT} is read"
        if crc != sealed(meta)["crc"]:
            return f"{META} does not fit its checksum"
        for name, (size, _) in meta["files"].items():
            found = (folder / name).stat().st_size
            if found != size:
                return f"{name} has {found:,} bytes of {size:,}"
    except FileNotFoundError as err:
        return f"{Path(err.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        return f"{META} cannot be read ({err})"
    return meta
