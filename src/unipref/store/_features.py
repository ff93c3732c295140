"""Vectors of texts, computed once, kept in files that are mapped into memory and never read as a whole.

A vector lies under a *space* (which embedder, of which weights and settings) and a *key* (of which text), as values of
the score store do. Each space has a file of float32 rows; `features.sqlite` says which key has which row, and the
row's checksum. A matrix put together of such vectors, in the order of a table, is a file too, under what it was made
of, so that the second run over the same data maps one file.
"""

import contextlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ShapeError
from unipref.store._database import KEYS_PER_QUERY, Database, StoreError, canonical, digest_of

__all__ = ["FeatureStore", "Found"]

LAYOUT = 1  # version of keys, files and tables; another number makes every older vector a miss
BLOCK = 4096  # rows that are in memory at a time
FORGOTTEN = 3600.0  # seconds after which a half-written matrix belongs to a process that was killed
DTYPE = np.dtype("<f4")
TABLES = """
    CREATE TABLE IF NOT EXISTS spaces (
        id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL, space TEXT NOT NULL, width INTEGER NOT NULL,
        length INTEGER NOT NULL
    );
    CREATE TABLE IF NOT EXISTS vectors (
        space INTEGER NOT NULL REFERENCES spaces (id), key BLOB NOT NULL, row INTEGER NOT NULL, crc INTEGER NOT NULL,
        cut INTEGER NOT NULL, PRIMARY KEY (space, key)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS matrices (digest BLOB PRIMARY KEY, space TEXT NOT NULL, crc INTEGER NOT NULL);
"""


@dataclass(frozen=True, eq=False)
class Found:
    """Where the vectors of some keys lie.

    Attributes:
        row: (n,) int64 rows of the space's file, -1 for a miss.
        cut: (n,) True where the text was longer than the embedder reads.
    """

    row: np.ndarray
    cut: np.ndarray


@dataclass(frozen=True, slots=True, init=False)
class FeatureStore:
    """Vectors by what they were computed from, in the files of `folder`, shared by any number of processes.

    Vectors are written before the transaction that says where they are ends: a killed process leaves all vectors of a
    call or none. A vector or a matrix whose checksum does not fit is a miss, and is written anew when it is put again.
    A folder that cannot be written can still be read.

    Args:
        folder: made if it does not exist.

    Raises:
        StoreError: the folder cannot be made, or what lies in it is not a store.
    """

    folder: Path

    def __init__(self, folder: Path | str) -> None:
        object.__setattr__(self, "folder", Path(folder))
        self._database.make()

    @property
    def path(self) -> Path:
        """The file that says where everything is."""
        return self.folder / "features.sqlite"

    def find(self, space: Mapping[str, Any], keys: Sequence[bytes]) -> Found:
        """Where the vectors of `keys` in `space` lie; every one that is found was read and fits its checksum.

        Raises:
            ConfigError: `space` is not made of JSON values.
            StoreError: the files cannot be read.
        """
        digest = digest_of(space, layout=LAYOUT)
        with self._database.reading() as connection:
            return self._find(connection, digest, keys)

    def put_many(
        self, space: Mapping[str, Any], keys: Sequence[bytes], values: np.ndarray, *, cut: np.ndarray | None = None
    ) -> None:
        """Keep the rows of `values` (n, D) under `keys` in `space`, all or none; a sound vector that is there stays.

        Raises:
            ConfigError: JSON values in `space` were expected.
            ShapeError: as many keys as rows were expected, or rows as wide as those that are there.
            StoreError: the folder cannot be written or the disk is full; nothing of this call is kept.
        """
        values = np.asarray(values)
        cut = np.zeros(len(keys), bool) if cut is None else np.asarray(cut, bool)
        if values.ndim != 2 or len(values) != len(keys) or cut.shape != (len(keys),):
            raise ShapeError(
                f"a vector and a mark per key were expected: {len(keys)} keys, values {values.shape}, cut {cut.shape}"
            )
        if not keys:
            return
        digest, width = digest_of(space, layout=LAYOUT), values.shape[1]
        path = self._vectors(digest)
        data = np.ascontiguousarray(values, dtype=DTYPE)
        try:
            with self._database.writing() as connection:
                connection.execute(
                    "INSERT OR IGNORE INTO spaces (digest, space, width, length) VALUES (?, ?, ?, 0)",
                    (digest, canonical(space, layout=LAYOUT), width),
                )
                number, known, length = connection.execute(
                    "SELECT id, width, length FROM spaces WHERE digest = ?", (digest,)
                ).fetchone()
                if known != width:
                    raise ShapeError(
                        f"the vectors of {dict(space)!r} have {known} numbers, and {width} arrived; an embedder whose "
                        "vectors change needs another identity"
                    )
                lies = self._find(connection, digest, keys, sound=False).row
                sound = self._find(connection, digest, keys).row >= 0
                entries = []
                with open(path, "r+b" if path.exists() else "w+b") as file:
                    for i in {key: i for i, key in enumerate(keys) if not sound[i]}.values():
                        row = int(lies[i])  # a damaged vector is written again where it lay
                        if row < 0:
                            row, length = length, length + 1
                        bytes_ = data[i].tobytes()
                        file.seek(row * width * DTYPE.itemsize)
                        file.write(bytes_)
                        entries.append((number, keys[i], row, _checksum(digest, keys[i], bytes_), int(cut[i])))
                    file.flush()
                    os.fsync(file.fileno())
                connection.executemany(
                    "INSERT OR REPLACE INTO vectors (space, key, row, crc, cut) VALUES (?, ?, ?, ?, ?)", entries
                )
                connection.execute("UPDATE spaces SET length = ? WHERE id = ?", (length, number))
        except StoreError:
            raise
        except OSError as err:
            raise self._database.unwritable(err) from err

    def vectors(self, space: Mapping[str, Any]) -> np.ndarray:
        """(R, D) float32, the rows of `space` that `find` points to, mapped read-only; (0, 0) where there are none."""
        digest = digest_of(space, layout=LAYOUT)
        with self._database.reading() as connection:
            found = connection.execute("SELECT length, width FROM spaces WHERE digest = ?", (digest,)).fetchone()
        length, width = found or (0, 0)
        return _mapped(self._vectors(digest), length, width)

    def matrix(
        self, space: Mapping[str, Any], shape: tuple[int, int], parts: Callable[[], Iterable[np.ndarray]]
    ) -> np.ndarray:
        """(n, width) float32, mapped read-only: the matrix that `space` describes, made of `parts()` if it is missing.

        Args:
            space: all that decides the numbers and their order.
            parts: gives the rows in order, some at a time.

        Raises:
            ShapeError: `parts` gave another shape.
            StoreError: the folder cannot be written.
        """
        name = {"matrix": dict(space), "shape": list(shape)}
        digest = digest_of(name, layout=LAYOUT)
        path = self.folder / f"matrix-{digest.hex()}.f32"
        with self._database.reading() as connection:
            found = connection.execute("SELECT crc FROM matrices WHERE digest = ?", (digest,)).fetchone()
        if found is None or _file_checksum(path, shape[0] * shape[1] * DTYPE.itemsize) != found[0]:
            try:
                self._make(path, digest, canonical(name, layout=LAYOUT), shape, parts())
            except StoreError:
                raise
            except OSError as err:
                raise self._database.unwritable(err) from err
        return _mapped(path, *shape)

    def stats(self) -> dict[str, Any]:
        """What lies in the store: {path, bytes (of all files), vectors, spaces: [{space, vectors, width, bytes}]}."""
        with self._database.reading() as connection:
            spaces = [
                {"space": json.loads(text)["space"], "vectors": n, "width": width, "bytes": length * width * 4}
                for text, n, width, length in connection.execute(
                    "SELECT spaces.space, COUNT(key), width, length FROM spaces LEFT JOIN vectors "
                    "ON vectors.space = spaces.id GROUP BY spaces.id ORDER BY spaces.id"
                )
            ]
        return {
            "path": str(self.folder),
            "bytes": sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file()),
            "vectors": sum(row["vectors"] for row in spaces),
            "spaces": spaces,
        }

    @property
    def _database(self) -> Database:
        return Database(self.path, "feature store", TABLES)

    def _vectors(self, digest: bytes) -> Path:
        return self.folder / f"vectors-{digest.hex()}.f32"

    def _find(self, connection: Any, digest: bytes, keys: Sequence[bytes], *, sound: bool = True) -> Found:
        """Rows and marks of `keys`; with `sound` a row that does not fit its checksum is a miss."""
        row, crc = np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.int64)
        cut = np.zeros(len(keys), bool)
        space = connection.execute("SELECT id, width FROM spaces WHERE digest = ?", (digest,)).fetchone()
        if space is None:
            return Found(row, cut)
        number, width = space
        for start in range(0, len(keys), KEYS_PER_QUERY):
            some = keys[start : start + KEYS_PER_QUERY]
            hits = {
                key: rest
                for key, *rest in connection.execute(
                    f"SELECT key, row, crc, cut FROM vectors WHERE space = ? AND key IN ({','.join('?' * len(some))})",
                    (number, *some),
                )
            }
            for i, key in enumerate(some, start):
                if key in hits:
                    row[i], crc[i], cut[i] = hits[key]
        if sound:
            self._without_damaged(digest, keys, row, crc, width)
        return Found(row, cut & (row >= 0))

    def _without_damaged(
        self, digest: bytes, keys: Sequence[bytes], row: np.ndarray, crc: np.ndarray, width: int
    ) -> None:
        """Write -1 in `row` where the file does not hold what was put there."""
        path, size = self._vectors(digest), width * DTYPE.itemsize
        order = np.argsort(row, kind="stable")
        order = order[row[order] >= 0]
        if not len(order):
            return
        if not path.exists():
            row[:] = -1
            return
        with open(path, "rb") as file:
            for some in np.split(order, 1 + np.flatnonzero(np.diff(row[order] // BLOCK))):
                first, last = int(row[some[0]]), int(row[some[-1]])
                file.seek(first * size)
                block = memoryview(file.read((last - first + 1) * size))
                for i in some.tolist():
                    start = (int(row[i]) - first) * size
                    if _checksum(digest, keys[i], block[start : start + size]) != crc[i]:
                        row[i] = -1

    def _make(self, path: Path, digest: bytes, text: str, shape: tuple[int, int], parts: Iterable[np.ndarray]) -> None:
        """Write a matrix, and put it in place together with its checksum."""
        for old in self.folder.glob(f".{path.name}.*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > FORGOTTEN:
                    old.unlink()
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f".{path.name}.")
        try:
            crc = n = 0
            with os.fdopen(handle, "wb") as file:
                for part in parts:
                    if part.ndim != 2 or part.shape[1] != shape[1]:
                        raise ShapeError(f"rows of {shape[1]} numbers were expected, and {part.shape} arrived")
                    data = np.ascontiguousarray(part, dtype=DTYPE).data
                    crc, n = zlib.crc32(data, crc), n + len(part)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if n != shape[0]:
                raise ShapeError(f"{shape[0]} rows were expected, and {n} arrived")
            os.chmod(name, 0o644)
            with self._database.writing() as connection:
                os.replace(name, path)
                connection.execute("INSERT OR REPLACE INTO matrices VALUES (?, ?, ?)", (digest, text, crc))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _checksum(digest: bytes, key: bytes, data: Any) -> int:
    return zlib.crc32(data, zlib.crc32(digest + key))


def _file_checksum(path: Path, size: int) -> int | None:
    """The checksum of a file of `size` bytes, read a piece at a time; None where it is missing or has another size."""
    if not path.exists() or path.stat().st_size != size:
        return None
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(1 << 22):
            crc = zlib.crc32(piece, crc)
    return crc


def _mapped(path: Path, length: int, width: int) -> np.ndarray:
    if not length * width:  # nothing can be mapped to nothing
        return np.zeros((length, width), np.float32)
    try:
        return np.memmap(path, dtype=DTYPE, mode="r", shape=(length, width))
    except (OSError, ValueError) as err:
        raise StoreError(
            f"the vectors in {path} cannot be read ({err}); delete the file: they can be computed again"
        ) from err
