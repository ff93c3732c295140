"""Texts as rows of weighted terms: words, pairs of words or pieces of words."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["UNITS", "Rows", "Vocabulary", "terms_of"]

UNITS = ("words", "characters")
_WORD = re.compile(r"\w+")
_LEAST_TEXTS = 2  # a term of one text says nothing of any other


@dataclass(frozen=True, eq=False)
class Rows:
    """Sparse rows: entry e stands in row `row[e]`, column `column[e]` and holds `value[e]`; there are `n` rows."""

    row: np.ndarray
    column: np.ndarray
    value: np.ndarray
    n: int

    def times(self, weights: np.ndarray) -> np.ndarray:
        """(n,) the product with a vector of a weight per column."""
        return np.bincount(self.row, weights=self.value * weights[self.column], minlength=self.n)

    def transposed_times(self, values: np.ndarray, size: int) -> np.ndarray:
        """(size,) the product of the transpose with a vector of a value per row."""
        return np.bincount(self.column, weights=self.value * values[self.row], minlength=size)


def terms_of(text: str, *, unit: str = "words", order: int = 2) -> set[str]:
    """The distinct terms of `text`, whatever their case.

    Args:
        unit: "words": runs of 1 to `order` words; "characters": pieces of 2 to `order` characters of words, for
            languages that inflect much or write without spaces. A word's ends are marked, so "_un" is a beginning.

    Example:
        >>> sorted(terms_of("Not good"))
        ['good', 'not', 'not good']
    """
    words = _WORD.findall(text.casefold())
    if unit == "words":
        return {" ".join(words[i : i + n]) for n in range(1, order + 1) for i in range(len(words) - n + 1)}
    marked = [f"_{word}_" for word in words]
    return {word[i : i + n] for word in marked for n in range(2, order + 1) for i in range(len(word) - n + 1)}


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Terms that stand in two texts or more, and how much each counts.

    A text's row holds, for each of its terms, 1 + ln((1 + texts) / (1 + texts with the term)), the whole scaled to
    length 1 (a row without a known term is empty). How often a term stands in the text does not count.
    """

    index: dict[str, int]
    rarity: np.ndarray
    unit: str
    order: int

    @classmethod
    def of(cls, texts: Sequence[str], *, unit: str = "words", order: int = 2) -> "Vocabulary":
        """The vocabulary of `texts`; their order does not matter."""
        counts = Counter(itertools.chain.from_iterable(terms_of(text, unit=unit, order=order) for text in texts))
        kept = sorted(term for term, count in counts.items() if count >= _LEAST_TEXTS)
        found = np.array([counts[term] for term in kept], dtype=np.float64)
        return cls({t: i for i, t in enumerate(kept)}, 1 + np.log((1 + len(texts)) / (1 + found)), unit, order)

    def rows(self, texts: Iterable[str]) -> Rows:
        """The texts as sparse rows."""
        row, column, value, n = [], [], [], 0
        for text in texts:
            known = sorted(
                self.index[term] for term in terms_of(text, unit=self.unit, order=self.order) if term in self.index
            )
            weights = self.rarity[known]
            row.append(np.full(len(known), n))
            column.append(np.array(known, dtype=np.int64))
            value.append(weights / np.linalg.norm(weights) if known else weights)
            n += 1
        if not n:
            return Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 0)
        return Rows(np.concatenate(row), np.concatenate(column), np.concatenate(value), n)
