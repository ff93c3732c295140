"""Names that stand once in a data set, however many there are."""

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["UniqueNames"]


class UniqueNames:
    """The names given out so far, 8 bytes each: a name that stands again gets a number, `name#2`.

    What is kept is a hash of each name, in sorted arrays of which an older one is never shorter than the next. Two
    names of one hash (a chance of 1 in 160,000 among 15 million) are taken for the same, so that one of them gets a
    number without need; a name is never given out twice. One that is asked for again costs a place in a dict besides.
    """

    def __init__(self) -> None:
        self._sorted: list[np.ndarray] = []
        self._pending: set[int] = set()
        self._counts: dict[int, int] = {}  # how often it was asked for, of names that were more than once

    def unused(self, names: Sequence[str]) -> list[str]:
        """`names` in order, each as it is or as the first of name#2, name#3, ... that was not given out before."""
        keys = np.array([_key(name) for name in names], dtype=np.uint64)
        known = self._known(keys)
        if not known.any() and len(np.unique(keys)) == len(keys):
            self._add(np.sort(keys))
            return list(names)
        given = [self._unused(name, before) for name, before in zip(names, known.tolist(), strict=True)]
        self._add(np.sort(np.array(list(self._pending), dtype=np.uint64)))
        self._pending = set()
        return given

    def _unused(self, name: str, known: bool) -> str:
        key = _key(name)
        count = self._counts.get(key, 0) or int(known or key in self._pending)
        if not count:
            self._pending.add(key)
            return name
        self._counts[key] = count + 1
        again = f"{name}#{count + 1}"
        return self._unused(again, bool(self._known(np.array([_key(again)], dtype=np.uint64))[0]))

    def _known(self, keys: np.ndarray) -> np.ndarray:
        """Which of `keys` were given out in earlier calls."""
        found = np.zeros(len(keys), bool)
        for part in self._sorted:
            found |= part[np.minimum(np.searchsorted(part, keys), len(part) - 1)] == keys
        return found

    def _add(self, keys: np.ndarray) -> None:
        if not len(keys):
            return
        self._sorted.append(keys)
        while len(self._sorted) > 1 and len(self._sorted[-1]) >= len(self._sorted[-2]):
            later = self._sorted.pop()
            self._sorted[-1] = np.sort(np.concatenate([self._sorted[-1], later]), kind="stable")


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
