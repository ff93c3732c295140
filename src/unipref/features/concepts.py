"""Concepts: named, readable properties of a response, and tables of their values for pairs."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ShapeError
from unipref.features.surface import SURFACE, surface, tokens

__all__ = [
    "KINDS",
    "Concept",
    "PairValues",
    "discriminative_ngrams",
    "ngram_values",
    "ngrams_of",
    "pair_differences",
    "surface_values",
]

KINDS = {
    "rule": "counted in the text",
    "ngram": "a word or run of words, in the text or not",
    "judge": "scored or compared by a language model",
    "table": "given by the user",
}

# every other surface feature is a count or a length: ten times as much of it is not ten times as much of a reason
_SHARES = frozenset(
    {
        "type_token_ratio",
        "repeated_trigrams",
        "digits",
        "prompt_recall",
        "prompt_precision",
        "novel_tokens",
        "reading_ease",
        "long_words",
        "other_script",
    }
)


@dataclass(frozen=True, slots=True)
class Concept:
    """One property of a response.

    Attributes:
        key: unique in a study. name: for people.
        high, low: what a high and a low value mean; `low` may be "".
        kind: a key of KINDS.
        domains: where it may have a weight of its own and no shared one; empty: shared by all domains.
        source: where it comes from, such as "arXiv:2402.11296".
    """

    key: str
    name: str
    high: str
    low: str = ""
    kind: str = "rule"
    domains: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.key}: a concept is of a kind {', '.join(KINDS)}, not {self.kind!r}")


@dataclass(frozen=True, eq=False)
class PairValues:
    """Values of C concepts for N pairs; NaN where nobody judged.

    Attributes:
        first, second: (N, C) of each response; None where only differences are known.
        difference: (N, C) first minus second.
    """

    concepts: tuple[Concept, ...]
    difference: np.ndarray
    first: np.ndarray | None = None
    second: np.ndarray | None = None

    def __post_init__(self) -> None:
        for values in (self.difference, self.first, self.second):
            if values is not None and (values.ndim != 2 or values.shape[1] != len(self.concepts)):
                raise ShapeError(f"{len(self.concepts)} concepts, and a table of the shape {values.shape}")


def surface_values(prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> PairValues:
    """The rule features of both responses (`unipref.features.surface`), counts as log(1 + count)."""
    counts = np.array([name not in _SHARES for name in SURFACE])
    values = [surface(texts, prompts) for texts in (first, second)]
    a, b = (np.where(counts, np.log1p(np.where(counts, v, 0.0)), v) for v in values)
    concepts = tuple(
        Concept(name, name.replace("_", " "), meaning, kind="rule", source="surface-v1")
        for name, meaning in SURFACE.items()
    )
    return PairValues(concepts, a - b, a, b)


def pair_differences(values: PairValues, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) differences in units of each concept's spread over responses, and the (C,) spreads.

    The spread is the standard deviation of the values of both responses pooled, over the pairs `rows` alone (those a
    model is fitted to); of differences scaling by their own would make a concept that hardly ever differs look large.
    Where only differences are known they stay as they are, and the spread is 1. A constant concept has the spread 0,
    and its differences are 0.

    Source: pooled standardisation as in the authors' code of arXiv:2310.13011.
    """
    if values.first is None or values.second is None:
        return values.difference, np.ones(len(values.concepts))
    pooled = np.concatenate([values.first[rows], values.second[rows]])
    known = ~np.isnan(pooled)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, pooled, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (pooled - centre) ** 2, 0.0).sum(axis=0) / count)
    spread = np.where(spread > 1e-12 * np.maximum(np.abs(centre), 1.0), spread, 0.0)
    scaled = np.divide(values.difference, spread, out=np.zeros_like(values.difference), where=spread > 0)
    return np.where(np.isnan(values.difference), np.nan, scaled), spread


def ngrams_of(text: str, order: int = 2) -> set[str]:
    """The distinct runs of 1 to `order` tokens of `text`, joined by spaces."""
    found = tokens(text)
    return {" ".join(found[i : i + n]) for n in range(1, order + 1) for i in range(len(found) - n + 1)}


def discriminative_ngrams(
    winners: Sequence[str], losers: Sequence[str], *, order: int = 2, most: int = 50, least_texts: int = 5
) -> list[tuple[str, float]]:
    """The n-grams that winners have and losers lack, or the reverse, with their z-scores, the clearest first.

    Log-odds with an informative Dirichlet prior: the prior of an n-gram is its count in all texts, so that rare ones
    need more evidence. What both responses of a pair have is no evidence, and is not counted.

    Source: Monroe, Colaresi and Quinn 2008, Political Analysis 16(4), Eqs. 15, 16 and 22.

    Args:
        winners, losers: the two responses of each pair.
        most: at most so many. least_texts: n-grams of fewer texts are left out.
    """
    up, down = Counter[str](), Counter[str]()
    for winner, loser in zip(winners, losers, strict=True):
        a, b = ngrams_of(winner, order), ngrams_of(loser, order)
        up.update(a - b)
        down.update(b - a)
    names = sorted(name for name in {*up, *down} if up[name] + down[name] >= least_texts)
    n_up, n_down = sum(up[name] for name in names), sum(down[name] for name in names)
    prior_total = n_up + n_down
    found = []
    for name in names:
        prior = up[name] + down[name]
        a, b = up[name] + prior, down[name] + prior
        rest_a, rest_b = n_up + prior_total - a, n_down + prior_total - b
        if rest_a <= 0 or rest_b <= 0:  # it is the only one
            continue
        z = (math.log(a / rest_a) - math.log(b / rest_b)) / math.sqrt(1 / a + 1 / b)
        found.append((name, z))
    return sorted(found, key=lambda pair: (-abs(pair[1]), pair[0]))[:most]


def ngram_values(
    names: Sequence[str], first: Sequence[str], second: Sequence[str], *, domains: Sequence[str] = ()
) -> PairValues:
    """Which of the two responses has each n-gram: 1, 0 or -1.

    Args:
        domains: where these concepts may have weights; empty: everywhere.
    """
    order = max((name.count(" ") + 1 for name in names), default=1)
    columns = [[ngrams_of(text, order) for text in texts] for texts in (first, second)]
    a, b = (np.array([[name in found for name in names] for found in texts], dtype=float) for texts in columns)
    a, b = (values.reshape(len(columns[0]), len(names)) for values in (a, b))
    concepts = tuple(
        Concept(f"says:{name}", f"says “{name}”", f"the response has “{name}”", kind="ngram", domains=tuple(domains))
        for name in names
    )
    return PairValues(concepts, a - b)
