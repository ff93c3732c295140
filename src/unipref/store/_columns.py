"""A number per scored token of a data set, computed once, kept in one flat file that is mapped into memory.

The score store has an entry for every text; a data set that does not fit in memory has too many. Here its numbers lie
one after another in the order of its rows, so that finding one is arithmetic. A *column* is named by its space (what
was computed: kind, fingerprint of the weights, precision, path) and by the data it was computed of: the digest of their
tokens, and how many of them each row scores. Neither β nor a learning rate nor a folder takes part.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from json import loads
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from unipref.core.errors import ShapeError
from unipref.store._database import Database, StoreError, canonical, digest_of

__all__ = ["Column", "ColumnStore"]

LAYOUT = 1  # version of files and tables; another number makes every older column a miss
BLOCK = 1024  # rows that share a checksum, and that a fault costs
DTYPE = np.dtype("<f4")
TABLES = """
    CREATE TABLE IF NOT EXISTS spaces (
        id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL, space TEXT NOT NULL, rows INTEGER NOT NULL,
        length INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS blocks (
        space INTEGER NOT NULL REFERENCES spaces (id), block INTEGER NOT NULL, done BLOB NOT NULL, crc INTEGER NOT NULL,
        PRIMARY KEY (space, block)
    ) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, init=False)
class ColumnStore:
    """Columns of data sets in the files of `folder`, which any number of processes fill and read at once.

    `columns.sqlite` says of every block of rows which are done, and their checksum; it says so after their numbers are
    on the disk, so a killed process leaves each row done or to do, and another goes on there. A block that does not fit
    its checksum counts as not done. A folder that cannot be written can still be read.

    Args:
        folder: made if it does not exist; it may be a score store's.

    Raises:
        StoreError: the folder cannot be made, or what lies in it is not a store.
    """

    folder: Path

    def __init__(self, folder: Path | str) -> None:
        object.__setattr__(self, "folder", Path(folder))
        self._database.make()

    @property
    def path(self) -> Path:
        """The file that says what is done."""
        return self.folder / "columns.sqlite"

    def column(self, space: Mapping[str, Any], *, data: str, lengths: np.ndarray) -> "Column":
        """The column `space` of the data set `data`, whatever of it is done; nothing is written before the first `put`.

        Args:
            space: what is computed, of JSON values.
            data: digest of the data's tokens; other tokens have another.
            lengths: (n,) numbers that each row has.

        Raises:
            ConfigError: `space` is not made of JSON values.
        """
        lengths = np.ascontiguousarray(lengths, dtype="<i8")
        shape = blake2b(lengths.tobytes(), digest_size=16).hexdigest()
        name = {"column": dict(space), "data": data, "lengths": shape}
        start = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=start[1:])
        return Column(self, canonical(name, layout=LAYOUT), digest_of(name, layout=LAYOUT), start)

    def stats(self) -> dict[str, Any]:
        """What lies in the store: {path, bytes (of all files), columns: [{space, data, rows, done, bytes}]}."""
        columns = []
        with self._database.reading() as connection:
            for number, text, rows, length in connection.execute(
                "SELECT id, space, rows, length FROM spaces ORDER BY id"
            ).fetchall():
                name = loads(text)["space"]
                found = connection.execute("SELECT done FROM blocks WHERE space = ?", (number,))
                done = sum(int(np.unpackbits(np.frombuffer(bits, np.uint8)).sum()) for (bits,) in found)
                columns.append(
                    {
                        "space": name["column"],
                        "data": name["data"],
                        "rows": rows,
                        "done": done,
                        "bytes": length * DTYPE.itemsize,
                    }
                )
        files = [self.path, *self.folder.glob("column-*.f32")]
        return {
            "path": str(self.folder),
            "bytes": sum(path.stat().st_size for path in files if path.is_file()),
            "columns": columns,
        }

    @property
    def _database(self) -> Database:
        return Database(self.path, "column store", TABLES)


@dataclass(frozen=True, eq=False)
class Column:
    """One column: n rows, of which each has as many numbers as the data have scored tokens in it.

    It may be pickled, and used in several processes; `start` is (n + 1,) where the rows begin in the file.
    """

    store: ColumnStore
    name: str
    digest: bytes
    start: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def path(self) -> Path:
        """The file of its numbers, float32."""
        return self.store.folder / f"column-{self.digest.hex()}.f32"

    def missing(self) -> np.ndarray:
        """Rows that are still to be computed, in order: never put, or in a block that is damaged.

        All that is done is read once and held against its checksums, a block at a time.

        Raises:
            StoreError: the files cannot be read.
        """
        with self.store._database.reading() as connection:
            space = self._space(connection)
            known = {} if space is None else self._known(connection, space, 0, self._n_blocks)
        todo = []
        with self._opened() as file:
            for block in range(self._n_blocks):
                first, last = self._rows(block)
                done = np.zeros(last - first, bool)
                if block in known:
                    done, _ = self._sound(block, self._read(file, block), *known[block])
                todo.append(first + np.flatnonzero(~done))
        return np.concatenate(todo) if todo else np.zeros(0, np.int64)

    def put(self, rows: Sequence[int] | np.ndarray, values: Sequence[np.ndarray]) -> None:
        """Keep the numbers of `rows`, all of them or none; rows that are there and sound stay as they are.

        Args:
            rows: in any order.
            values: per row its (length,) numbers.

        Raises:
            ShapeError: a row has another length, or there are not as many values as rows.
            StoreError: the folder cannot be written or the disk is full; nothing of this call counts as done.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) != len(values):
            raise ShapeError(f"one array per row was expected: {len(rows)} rows, {len(values)} arrays")
        if not len(rows):
            return
        if rows.min() < 0 or rows.max() >= len(self):
            raise ShapeError(f"rows are 0 to {len(self) - 1}: {rows.min()} to {rows.max()} arrived")
        for row, value in zip(rows, values, strict=True):
            length = int(self.start[row + 1] - self.start[row])
            if np.shape(value) != (length,):
                raise ShapeError(f"row {row} has {length} numbers, and an array of shape {np.shape(value)} arrived")
        order = np.argsort(rows, kind="stable")
        parts = np.split(order, 1 + np.flatnonzero(np.diff(rows[order] // BLOCK)))
        database = self.store._database
        try:
            with database.writing() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO spaces (digest, space, rows, length) VALUES (?, ?, ?, ?)",
                    (self.digest, self.name, len(self), int(self.start[-1])),
                )
                space = self._space(connection)
                self._make_file()
                entries = []
                with open(self.path, "r+b") as file:
                    for part in parts:
                        block = int(rows[part[0]]) // BLOCK
                        numbers = self._read(file, block)
                        known = self._known(connection, space, block, block + 1).get(block)
                        first, last = self._rows(block)
                        done = np.zeros(last - first, bool)
                        if known is not None:
                            done, numbers = self._sound(block, numbers, *known)
                        base = self.start[first]
                        for i in part.tolist():
                            row = int(rows[i])
                            if not done[row - first]:
                                numbers[self.start[row] - base : self.start[row + 1] - base] = values[i]
                                done[row - first] = True
                        file.seek(int(base) * DTYPE.itemsize)
                        file.write(numbers.tobytes())
                        entries.append((space, block, np.packbits(done).tobytes(), self._crc(block, numbers, done)))
                    file.flush()
                    os.fsync(file.fileno())
                connection.executemany(
                    "INSERT OR REPLACE INTO blocks (space, block, done, crc) VALUES (?, ?, ?, ?)", entries
                )
        except StoreError:
            raise
        except OSError as err:
            raise database.unwritable(err) from err

    def values(self, row: int) -> np.ndarray:
        """(length,) float32, the caller's own. What a row holds that is `missing` means nothing."""
        return np.array(self._mapped[self.start[row] : self.start[row + 1]], dtype=np.float32)

    @cached_property
    def _mapped(self) -> np.ndarray:
        length = int(self.start[-1])
        if not length:  # nothing can be mapped to nothing
            return np.zeros(0, DTYPE)
        try:
            return np.memmap(self.path, dtype=DTYPE, mode="r", shape=(length,))
        except (OSError, ValueError) as err:
            raise StoreError(
                f"the column in {self.path} cannot be read ({err}); delete the file: its numbers can be computed again"
            ) from err

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_mapped"}  # a map is no file's content

    @property
    def _n_blocks(self) -> int:
        return -(-len(self) // BLOCK)

    def _rows(self, block: int) -> tuple[int, int]:
        return block * BLOCK, min((block + 1) * BLOCK, len(self))

    def _space(self, connection: Any) -> int | None:
        found = connection.execute("SELECT id FROM spaces WHERE digest = ?", (self.digest,)).fetchone()
        return None if found is None else found[0]

    def _known(self, connection: Any, space: int, first: int, last: int) -> dict[int, tuple[bytes, int]]:
        """Of the blocks `first` to `last` - 1 what is said to be done, and the checksum."""
        rows = connection.execute(
            "SELECT block, done, crc FROM blocks WHERE space = ? AND block >= ? AND block < ?", (space, first, last)
        )
        return {block: (done, crc) for block, done, crc in rows}

    def _opened(self) -> Any:
        return open(self.path if self.path.is_file() else os.devnull, "rb")

    def _read(self, file: Any, block: int) -> np.ndarray:
        """The numbers of a block, the caller's own; zeros where the file ends before them."""
        first, last = self._rows(block)
        begin, end = int(self.start[first]), int(self.start[last])
        numbers = np.zeros(end - begin, DTYPE)
        file.seek(begin * DTYPE.itemsize)
        found = np.frombuffer(file.read((end - begin) * DTYPE.itemsize)[: numbers.nbytes], np.uint8)
        numbers.view(np.uint8)[: len(found)] = found
        return numbers

    def _sound(self, block: int, numbers: np.ndarray, bits: bytes, crc: int) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of a block are done, none where it does not fit its checksum; and its numbers."""
        first, last = self._rows(block)
        done = np.unpackbits(np.frombuffer(bits, np.uint8), count=last - first).astype(bool)
        sound = self._crc(block, numbers, done) == crc
        return (done if sound else np.zeros(last - first, bool)), numbers

    def _crc(self, block: int, numbers: np.ndarray, done: np.ndarray) -> int:
        """Checksum of the numbers of the rows that are done, of where they lie, and of which they are."""
        first, last = self._rows(block)
        crc = crc32(np.packbits(done).tobytes(), crc32(self.digest + block.to_bytes(8, "little")))
        start = self.start[first : last + 1] - self.start[first]
        for begin, end in _runs(done):
            crc = crc32(numbers[start[begin] : start[end]].data, crc)
        return crc

    def _make_file(self) -> None:
        """The file at its full size; what was never written takes no room on most disks, and reads as zeros."""
        size = int(self.start[-1]) * DTYPE.itemsize
        if not self.path.exists() or self.path.stat().st_size != size:
            with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
                file.truncate(size)


def _runs(done: np.ndarray) -> Iterator[tuple[int, int]]:
    """(begin, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], done, [False]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
