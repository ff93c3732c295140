"""What was computed before, found again by what it was computed from.

A value is stored under a *space* (what was computed: kind, fingerprint of the weights or scorer, precision, recipe
version) and a *key* (what it was computed of: token ids and scored span, or text). Nothing else takes part, so a value
is found again when only beta, the learning rate or the output folder change, and is never served for anything else.
"""

import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError
from unipref.store._database import KEYS_PER_QUERY, Database, canonical, digest_of

__all__ = ["ScoreStore"]

LAYOUT = 1  # version of keys, hashing and tables; another number makes every older value a miss
DTYPES = ("float32", "float64")
TABLES = """
    CREATE TABLE IF NOT EXISTS spaces (id INTEGER PRIMARY KEY, digest BLOB UNIQUE NOT NULL, space TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS scores (
        space INTEGER NOT NULL REFERENCES spaces (id), key BLOB NOT NULL, dtype TEXT NOT NULL, shape TEXT NOT NULL,
        crc INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (space, key)
    ) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, init=False)
class ScoreStore:
    """Arrays by what they were computed from, in one SQLite file of `folder`, shared by any number of processes.

    Every call opens and closes the file itself, so a store may be pickled, forked and used from threads. A call's
    values are written in one transaction: a killed process leaves all of them or none, and the file readable.
    A folder that cannot be written can still be read.

    Args:
        folder: made if it does not exist; the file in it is `scores.sqlite`.

    Raises:
        StoreError: the folder cannot be made, or the file is not a store.
    """

    folder: Path

    def __init__(self, folder: Path | str) -> None:
        object.__setattr__(self, "folder", Path(folder))
        self._database.make()

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / "scores.sqlite"

    def get_many(self, space: Mapping[str, Any], keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """The values of `keys` in `space`, in order; None for a miss.

        A value whose checksum does not fit is a miss, too: computed and put again, it is overwritten.

        Returns:
            Arrays of the dtype and shape that were put, the caller's own to change.

        Raises:
            ConfigError: `space` is not made of JSON values.
            StoreError: the file cannot be read.
        """
        digest = digest_of(space, layout=LAYOUT)
        found: dict[bytes, np.ndarray] = {}
        wanted = list(dict.fromkeys(keys))
        with self._reading() as connection:
            for start in range(0, len(wanted), KEYS_PER_QUERY):
                some = wanted[start : start + KEYS_PER_QUERY]
                rows = connection.execute(
                    "SELECT key, dtype, shape, crc, data FROM scores JOIN spaces ON spaces.id = scores.space "
                    f"WHERE spaces.digest = ? AND key IN ({','.join('?' * len(some))})",
                    (digest, *some),
                )
                for key, dtype, shape, crc, data in rows:
                    value = _unpack(digest, key, dtype, shape, crc, data)
                    if value is not None:
                        found[key] = value
        seen: set[bytes] = set()
        values = []
        for key in keys:
            value = found.get(key)
            values.append(value.copy() if value is not None and key in seen else value)
            seen.add(key)
        return values

    def put_many(self, space: Mapping[str, Any], keys: Sequence[bytes], values: Sequence[np.ndarray]) -> None:
        """Keep `values` under `keys` in `space`, all in one transaction; a key that is there is overwritten.

        Args:
            values: float32 or float64 arrays of any shape. NaN is a value ("no opinion"), not a miss.

        Raises:
            ConfigError: as many keys as values were expected, float arrays, or JSON values in `space`.
            StoreError: the folder cannot be written or the disk is full; nothing of this call is kept.
        """
        if len(keys) != len(values):
            raise ConfigError(f"put_many needs one value per key: {len(keys)} keys, {len(values)} values")
        if not keys:
            return
        digest = digest_of(space, layout=LAYOUT)
        rows = [(key, *_pack(digest, key, value)) for key, value in zip(keys, values, strict=True)]
        with self._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO spaces (digest, space) VALUES (?, ?)", (digest, canonical(space, layout=LAYOUT))
            )
            (number,) = connection.execute("SELECT id FROM spaces WHERE digest = ?", (digest,)).fetchone()
            connection.executemany(
                "INSERT OR REPLACE INTO scores (space, key, dtype, shape, crc, data) VALUES (?, ?, ?, ?, ?, ?)",
                ((number, *row) for row in rows),
            )

    def stats(self) -> dict[str, Any]:
        """What lies in the store: {path, bytes, values, spaces: [{space, values, bytes}]}, spaces' bytes being data."""
        with self._reading() as connection:
            spaces = [
                {"space": json.loads(text)["space"], "values": values, "bytes": size}
                for text, values, size in connection.execute(
                    "SELECT space_text, COUNT(key), COALESCE(SUM(LENGTH(data)), 0) FROM "
                    "(SELECT spaces.id AS id, spaces.space AS space_text, key, data FROM spaces "
                    "LEFT JOIN scores ON scores.space = spaces.id) GROUP BY id ORDER BY id"
                )
            ]
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "values": sum(row["values"] for row in spaces),
            "spaces": spaces,
        }

    @property
    def _database(self) -> Database:
        return Database(self.path, "score store", TABLES)

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._database.reading()

    def _writing(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._database.writing()


def _checksum(digest: bytes, key: bytes, dtype: str, shape: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(b"|".join((digest, key, dtype.encode(), shape.encode()))))


def _pack(digest: bytes, key: bytes, value: np.ndarray) -> tuple[str, str, int, bytes]:
    value = np.asarray(value)
    if value.dtype.name not in DTYPES:
        raise ConfigError(f"a score store keeps float32 or float64 arrays, not {value.dtype.name}; convert it first")
    dtype, shape = value.dtype.name, ",".join(map(str, value.shape))
    data = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes()
    return dtype, shape, _checksum(digest, key, dtype, shape, data), data


def _unpack(digest: bytes, key: bytes, dtype: str, shape: str, crc: int, data: bytes) -> np.ndarray | None:
    """The array, or None where the checksum says that something of it changed."""
    if _checksum(digest, key, dtype, shape, data) != crc:
        return None
    sizes = [int(size) for size in shape.split(",") if size]
    return np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(sizes)
