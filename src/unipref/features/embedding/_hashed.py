"""Words and letters counted into a vector of fixed size: no model, no training, any script."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from unipref.core.errors import ConfigError
from unipref.features.surface import RECIPE as TOKENS_RECIPE
from unipref.features.surface import tokens

__all__ = ["Hashed", "bag_of_words"]

RECIPE = 1  # version of everything here that decides a number


@dataclass(frozen=True)
class Hashed:
    """Runs of words and of letters, each counted as log(1 + n) in the entry that its hash names.

    With signs, half of the terms count negatively, so that the product of two texts' vectors is right on average over
    hashes, and terms that share an entry cancel as often as they add up. Deterministic on every machine.

    Source: feature hashing, arXiv:0902.2206. Sizes are ours, chosen on the bundled pairs (docs/features.md).

    Args:
        dimension: entries; more of them, fewer terms that share one.
        words: runs of 1 to this many words (letters where a script writes without spaces); 0 for none.
        letters: the shortest and the longest run of letters, spaces between words among them; None for none.
        signed: see above.
        unit: divide by the Euclidean length, so that a product is a cosine; an empty text stays zero.

    Raises:
        ConfigError: a size is none.
    """

    dimension: int = 1024
    words: int = 2
    letters: tuple[int, int] | None = (3, 4)
    signed: bool = True
    unit: bool = True
    name: str = "hashed"

    def __post_init__(self) -> None:
        if isinstance(self.letters, list):  # as a recipe gives it
            object.__setattr__(self, "letters", tuple(self.letters))
        if not _whole(self.dimension, 1):
            raise ConfigError(f"{self.name}: dimension is a whole number of 1 or more, not {self.dimension!r}")
        if not _whole(self.words, 0):
            raise ConfigError(f"{self.name}: words is the longest run of words, 0 or more, not {self.words!r}")
        letters = self.letters
        if letters is not None and not (
            isinstance(letters, tuple) and len(letters) == 2 and all(_whole(n, 1) for n in letters)
            and letters[0] <= letters[1]
        ):  # fmt: skip
            raise ConfigError(f"{self.name}: letters are the shortest and the longest run, [3, 4], not {letters!r}")
        if not self.words and letters is None:
            raise ConfigError(f"{self.name} counts nothing: give words, letters or both")

    @property
    def identity(self) -> dict[str, object]:
        """The options and the recipe."""
        options = {key: getattr(self, key) for key in ("dimension", "words", "letters", "signed", "unit")}
        return {"embedder": "hashed", "recipe": [RECIPE, TOKENS_RECIPE], **options}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32."""
        values = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(values, texts, strict=True):
            counts = Counter(self._terms(text))
            if not counts:
                continue
            hashes = np.array([_hash(term) for term in counts], dtype=np.uint64)
            level = np.log1p(np.array(list(counts.values()), dtype=np.float64))
            if self.signed:
                level = np.where(hashes >> np.uint64(63), -level, level)
            entry = (hashes & np.uint64((1 << 63) - 1)) % np.uint64(self.dimension)
            found = np.bincount(entry.astype(np.int64), weights=level, minlength=self.dimension)
            length = np.linalg.norm(found)
            row[:] = found / length if self.unit and length else found
        return values

    def _terms(self, text: str) -> Iterator[str]:
        if self.words:
            found = tokens(text)
            for n in range(1, self.words + 1):
                for i in range(len(found) - n + 1):
                    yield "w" + " ".join(found[i : i + n])
        if self.letters is not None:
            plain = f" {' '.join(unicodedata.normalize('NFKC', text).casefold().split())} "
            for n in range(self.letters[0], self.letters[1] + 1):
                for i in range(len(plain) - n + 1):
                    yield "c" + plain[i : i + n]


def bag_of_words(*, dimension: int = 2048) -> Hashed:
    """Single words, log(1 + n) each, neither signed nor scaled: longer texts have longer vectors."""
    return Hashed(dimension, words=1, letters=None, signed=False, unit=False, name="bag_of_words")


@lru_cache(maxsize=1 << 18)
def _hash(term: str) -> int:
    # `hash` of a string differs between processes; a lone surrogate is no UTF-8
    return int.from_bytes(hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
