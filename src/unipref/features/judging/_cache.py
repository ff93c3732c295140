"""Answers that were paid for once, in a file of whole JSON lines that several processes may add to."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipref.core.errors import DataError

try:
    import fcntl
except ImportError:  # Windows: appending is all there is
    fcntl = None  # type: ignore[assignment]

__all__ = ["AnswerCache", "answer_key"]

SYNC_EVERY = 1.0  # seconds


def answer_key(question: Mapping[str, Any]) -> str:
    """The address of `question`, a JSON object; equal questions have equal keys everywhere."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class AnswerCache:
    """Answers by the key of their question; one object a line, `{"key", "answer", ...}`.

    A line is whole in the file before `put` returns. One that a killed process left cut off is passed over and counted
    in `damaged`, and the next writer begins a new line. What other processes add is seen when a key is looked for.

    Args:
        path: made with its folder when the first answer comes; None: answers are kept in memory alone.

    Raises:
        DataError: there is such a file, and no line of it is an answer.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.damaged = 0
        self._answers: dict[str, dict[str, Any]] = {}
        self._offset = 0
        self._synced = -SYNC_EVERY
        self._lock = threading.Lock()
        self._read()
        if self.damaged and not self._answers and self.damaged > 1:
            raise DataError(
                f"{self.path} holds {self.damaged} lines and none is a kept answer; name another file for the cache"
            )

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> dict[str, Any] | None:
        """The kept row of `key`, or None."""
        with self._lock:
            if key not in self._answers:
                self._read()
            return self._answers.get(key)

    def put(self, key: str, answer: str, **more: Any) -> None:
        """Keep `answer`, and `more` for people who read the file."""
        row = {"key": key, "answer": answer, **more}
        with self._lock:
            if self.path is not None:
                self._append(json.dumps(row).encode("ascii") + b"\n")
            self._answers[key] = row

    def _append(self, line: bytes) -> None:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            if file.seek(0, os.SEEK_END) > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a process died in the middle of its line
                    line = b"\n" + line
            rest = memoryview(line)
            while rest:  # a write to a disk that is nearly full may be short
                rest = rest[file.write(rest) :]
            # what the system was given survives us; for a power cut, once a second is enough and does not slow answers
            if time.monotonic() - self._synced > SYNC_EVERY:
                os.fsync(file.fileno())
                self._synced = time.monotonic()

    def _read(self) -> None:
        """Take in the whole lines that stand behind those known."""
        if self.path is None or not self.path.exists() or self.path.stat().st_size <= self._offset:
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            try:
                row = json.loads(line)
                self._answers[row["key"]] = {"answer": str(row["answer"]), **row}
            except (ValueError, TypeError, KeyError):
                self.damaged += bool(line)
