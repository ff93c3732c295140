"""From a judge's answers to the values of concepts for pairs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ConfigError, ShapeError
from unipref.features.concepts import Concept, PairValues
from unipref.features.judging._account import Account
from unipref.features.judging._port import Judge, in_parallel

__all__ = ["REPRESENTATIONS", "Judged", "judged_values"]

REPRESENTATIONS = {
    "comp": "which response has more of it: 1, 0 or -1, asked in both orders",
    "score": "the difference of two scores, each response scored alone",
}


@dataclass(frozen=True, eq=False)
class Judged:
    """What a judge said of pairs.

    Attributes:
        values: NaN where there is no answer; 0 where the concept does not matter for the prompt.
        account: of these questions alone.
        missing: how many values are NaN. irrelevant: how many are 0 because the concept does not matter there.
    """

    values: PairValues
    account: Account
    missing: int
    irrelevant: int

    @property
    def told(self) -> dict[str, object]:
        """For a report: the account, with the counts of values."""
        return {
            "values": int(self.values.difference.size),
            "missing_values": self.missing,
            "irrelevant_values": self.irrelevant,
            **self.account.to_dict(),
        }


def judged_values(
    prompts: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    concepts: Sequence[Concept],
    judge: Judge,
    *,
    representation: str = "comp",
    relevance: bool = True,
    domains: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Judged:
    """Values of `concepts` for N pairs by `judge`.

    A concept is not asked about where it does not matter: in a domain that it cannot have a weight in, for a prompt
    that the judge calls irrelevant for it, and for two equal responses. Its difference is 0 there.

    Args:
        representation: a key of REPRESENTATIONS. The values of each response are kept for "score" alone.
        relevance: whether the judge is asked first, once for every prompt, which concepts matter for it.
        domains: (N,) of the pairs, for concepts with domains of their own.
        progress: told how many pairs are done, and of how many.

    Source: arXiv:2505.20088 §3.2 and App. C.1.4. There a score of 0 is subtracted like any other; here a property that
    does not apply to one of the two responses makes no difference.
    """
    if representation not in REPRESENTATIONS:
        raise ConfigError(f"a representation is {' or '.join(REPRESENTATIONS)}, not {representation!r}")
    sizes = {len(column) for column in (prompts, first, second, prompts if domains is None else domains)}
    if len(sizes) != 1:
        raise ShapeError(f"prompts, responses and domains are of one length, not {sorted(sizes)}")
    if not concepts:
        raise ConfigError("there is no concept to judge; name a set of concepts or a file of your own")
    before = judge.account.copy()
    own = [frozenset(concept.domains) for concept in concepts]

    def of(pair: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        difference = np.zeros(len(concepts))
        a, b = np.full((2, len(concepts)), math.nan)
        here = [j for j, at in enumerate(own) if not at or domains is None or domains[pair] in at]
        if first[pair] == second[pair]:
            return difference, a, b, 0
        asked = here
        if relevance:
            matters = judge.relevant(prompts[pair], [concepts[j] for j in here])
            difference[[j for j, yes in zip(here, matters, strict=True) if yes is None]] = math.nan
            asked = [j for j, yes in zip(here, matters, strict=True) if yes]
        chosen = [concepts[j] for j in asked]
        irrelevant = len(here) - len(asked) - int(np.isnan(difference).sum())
        if not chosen:
            return difference, a, b, irrelevant
        if representation == "comp":
            verdicts = judge.compare_on(prompts[pair], first[pair], second[pair], chosen)
            difference[asked] = [math.nan if verdict is None else verdict for verdict in verdicts]
            return difference, a, b, irrelevant
        sides = [judge.score_on(prompts[pair], text, chosen) for text in (first[pair], second[pair])]
        for j, x, y in zip(asked, *sides, strict=True):
            if x == 0 or y == 0:
                irrelevant += 1
            else:
                a[j], b[j] = (math.nan if value is None else float(value) for value in (x, y))
                difference[j] = a[j] - b[j]
        return difference, a, b, irrelevant

    rows = in_parallel(of, range(len(prompts)), judge=judge, progress=progress)
    shape = (len(prompts), len(concepts))
    difference, a, b = (np.array([row[k] for row in rows]).reshape(shape) for k in range(3))
    sides = (a, b) if representation == "score" else (None, None)
    return Judged(
        PairValues(tuple(concepts), difference, *sides),
        judge.account.since(before),
        int(np.isnan(difference).sum()),
        sum(row[3] for row in rows),
    )
