"""Concepts: named, readable properties of a response, and tables of their values for pairs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ShapeError
from unipref.features.surface import SURFACE, is_unspaced, surface, tokens

__all__ = [
    "KINDS",
    "SHARES",
    "Concept",
    "PairValues",
    "discriminative_ngrams",
    "ngram_values",
    "ngrams_of",
    "pair_differences",
    "surface_levels",
    "surface_values",
]

KINDS = {
    "rule": "counted in the text",
    "ngram": "a word or run of words, in the text or not",
    "judge": "scored or compared by a language model",
    "table": "given by the user",
}

# every other surface feature is a count or a length: ten times as much of it is not ten times as much of a reason
SHARES = frozenset(
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


# what a surface feature is called where its own name says too little to a stranger
_NAMES = {
    "characters": "length in characters",
    "tokens": "length in words",
    "type_token_ratio": "share of distinct words",
    "repeated_trigrams": "repeated runs of words",
    "numbered": "numbered lines",
    "bold": "bold text",
    "digits": "share of digits",
    "questions": "question marks",
    "exclamations": "exclamation marks",
    "second_person": "“you” and “your”",
    "imperatives": "lines that instruct",
    "steps": "“first”, “then”, “finally”",
    "prompt_recall": "the prompt's words, repeated",
    "prompt_precision": "share of words from the prompt",
    "novel_tokens": "share of words not in the prompt",
    "long_words": "share of long words",
    "other_script": "another script than the prompt's",
}


@dataclass(frozen=True, slots=True)
class Concept:
    """One property of a response.

    Attributes:
        key: unique in a study. name: for people.
        high, low: what a high and a low value mean; `low` may be "".
        kind: a key of KINDS.
        domains: where it may have a weight of its own and no shared one; empty: shared by all domains.
        source: where it comes from, such as "arXiv:2402.11296".
        rule: of a "rule" that is not named by its key: how it is counted, in the words of `unipref.features.rules`.
    """

    key: str
    name: str
    high: str
    low: str = ""
    kind: str = "rule"
    domains: tuple[str, ...] = ()
    source: str = ""
    rule: str = ""

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

    def take(self, rows: np.ndarray | Sequence[int]) -> "PairValues":
        """The values of the pairs at `rows`, a mask or indices."""
        first, second = (None if side is None else side[rows] for side in (self.first, self.second))
        return PairValues(self.concepts, self.difference[rows], first, second)


def surface_levels(prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
    """(N, len(SURFACE)) the rule features of single responses, counts as log(1 + count)."""
    counts = np.array([name not in SHARES for name in SURFACE])
    values = surface(responses, prompts)
    return np.where(counts, np.log1p(np.where(counts, values, 0.0)), values)


def surface_values(prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> PairValues:
    """The rule features of both responses (`unipref.features.surface`), counts as log(1 + count)."""
    # a response to a prompt stands in many pairs, and judges share pairs
    sides = [list(zip(prompts, texts, strict=True)) for texts in (first, second)]
    place = {pair: i for i, pair in enumerate(dict.fromkeys([*sides[0], *sides[1]]))}
    levels = surface_levels([prompt for prompt, _ in place], [response for _, response in place])
    a, b = (levels[[place[pair] for pair in side]] for side in sides)
    concepts = tuple(
        Concept(name, _NAMES.get(name, name.replace("_", " ")), meaning, kind="rule", source="surface-v1")
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
    names: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    *,
    domains: Sequence[str] | Mapping[str, Sequence[str]] = (),
) -> PairValues:
    """Which of the two responses has each n-gram: 1, 0 or -1.

    Args:
        domains: where these concepts may have weights, of all or by n-gram; empty: everywhere.
    """
    wanted = {tuple(name.split(" ")): j for j, name in enumerate(names)}
    orders = sorted({len(ngram) for ngram in wanted})
    known: dict[str, list[int]] = {}  # texts stand in many pairs
    sides = []
    for texts in (first, second):
        values = np.zeros((len(texts), len(names)))
        for row, text in zip(values, texts, strict=True):
            if text not in known:
                found = tokens(text)
                runs = {run for n in orders for run in zip(*(found[i:] for i in range(n)), strict=False)}
                known[text] = [wanted[run] for run in runs & wanted.keys()]
            row[known[text]] = 1.0
        sides.append(values)
    concepts = tuple(
        Concept(
            f"says:{name}",
            f"says “{shown}”",
            f"the response has “{shown}”",
            kind="ngram",
            domains=tuple(domains[name] if isinstance(domains, Mapping) else domains),
        )
        for name, shown in ((name, _written(name)) for name in names)
    )
    return PairValues(concepts, sides[0] - sides[1])


def _written(ngram: str) -> str:
    """An n-gram as it is written: no spaces between tokens of a script that has none.

    Example:
        >>> _written("無 料"), _written("of 東 京")
        ('無料', 'of 東京')
    """
    shown = ""
    for token in ngram.split(" "):
        joined = shown and not (is_unspaced(shown[-1]) and is_unspaced(token[0]))
        shown += f" {token}" if joined else token
    return shown
