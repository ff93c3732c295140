"""One SQLite file that any number of processes read and write, and the keys under which things lie in it."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, UniprefError
from unipref.core.records import Text

__all__ = ["KEYS_PER_QUERY", "Database", "StoreError", "canonical", "digest_of", "text_key", "tokens_key"]

WAIT = 60.0  # seconds to wait for another process's write
KEYS_PER_QUERY = 500  # SQLite's oldest limit on parameters is 999
KEY_BYTES = 20


class StoreError(UniprefError, OSError):
    """A store cannot be read or written."""


def tokens_key(context_ids: Sequence[int], response_ids: Sequence[int]) -> bytes:
    """The key of values of `response_ids` after `context_ids`: the token ids and where the scored span begins.

    Truncation, a template or another tokenizer change the ids and with them the key.

    Example:
        >>> tokens_key([1, 2], [3]) == tokens_key([1], [2, 3])
        False
    """
    context, response = (np.asarray(ids, dtype="<i8") for ids in (context_ids, response_ids))
    digest = hashlib.blake2b(b"tokens", digest_size=KEY_BYTES)
    digest.update(np.asarray([context.size, response.size], dtype="<i8").tobytes())
    digest.update(context.tobytes())
    digest.update(response.tobytes())
    return digest.digest()


def text_key(*texts: Text) -> bytes:
    """The key of values of `texts` (context, response, ...); a string and a message of the same words differ.

    Example:
        >>> text_key("ab", "c") == text_key("a", "bc")
        False
    """
    parts = [text if isinstance(text, str) else [[turn.role, turn.content] for turn in text] for text in texts]
    return hashlib.blake2b(b"text" + json.dumps(parts).encode(), digest_size=KEY_BYTES).digest()


def canonical(space: Mapping[str, Any], *, layout: int) -> str:
    """`space` and the layout's version as JSON in which equal spaces are equal strings.

    Raises:
        ConfigError: `space` is not made of JSON values.
    """
    try:
        return json.dumps({"layout": layout, "space": dict(space)}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"a store's space is made of JSON values: {dict(space)!r} is not ({err})") from err


def digest_of(space: Mapping[str, Any], *, layout: int) -> bytes:
    """The key of a space."""
    return hashlib.blake2b(canonical(space, layout=layout).encode(), digest_size=KEY_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Database:
    """A SQLite file with a table `spaces` among others; every block opens and closes it.

    Attributes:
        what: what the file is, in errors ("score store").
        tables: the SQL that makes its tables where they are missing.
    """

    path: Path
    what: str
    tables: str

    def make(self) -> None:
        """The folder and the file, where they do not exist.

        Raises:
            StoreError: they cannot be made.
        """
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise StoreError(f"the {self.what}'s folder {folder} cannot be made: {err}; choose another") from err
        if not self._is_made():
            with self.writing():
                pass  # opening it for writing makes the tables

    def _is_made(self) -> bool:
        """Whether the file has its tables: another process may have made the one and not yet the others."""
        if not self.path.exists():
            return False
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                return bool(
                    connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'spaces'").fetchone()[0]
                )
        except sqlite3.Error:
            return True  # what is wrong with it is told when it is read

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection to read with.

        Raises:
            StoreError: the file cannot be read.
        """
        try:
            with closing(self._open_for_reading()) as connection:
                yield connection
        except sqlite3.Error as err:
            raise StoreError(
                f"the {self.what} {self.path} cannot be read ({err}); if it is damaged, delete it: "
                "everything in it can be computed again"
            ) from err

    def _open_for_reading(self) -> sqlite3.Connection:
        uri = self.path.absolute().as_uri()
        try:
            connection = sqlite3.connect(f"{uri}?mode=rw", uri=True, timeout=WAIT)
            connection.execute("SELECT COUNT(*) FROM spaces").fetchone()
        except sqlite3.OperationalError:
            # A write-ahead log needs a folder that can be written; without one the file is read as it stands.
            connection = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True)
        return connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection inside one transaction, alone among all processes; an error leaves the file as it was.

        Raises:
            StoreError: the file cannot be written.
        """
        try:
            with closing(sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)) as connection:
                self._make_tables(connection)
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:  # some errors, a full disk among them, have rolled back already
                        connection.execute("ROLLBACK")
                    raise
        except sqlite3.Error as err:
            raise self.unwritable(err) from err

    def unwritable(self, err: Exception) -> StoreError:
        """The error for a file of this store that cannot be written."""
        return StoreError(
            f"the {self.what} {self.path} cannot be written ({err}); free space on its disk, make the folder "
            "writable, or choose another folder. What it held before is kept"
        )

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        """Set the write-ahead log and make the tables where they are missing."""
        if connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'spaces'").fetchone()[0]:
            return
        deadline = time.monotonic() + WAIT
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as err:  # this pragma does not wait for another process's lock by itself
                if "locked" not in str(err) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        connection.executescript(f"BEGIN IMMEDIATE; {self.tables} COMMIT;")
