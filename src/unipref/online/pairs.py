"""Preference pairs from answers with scores, with an account of every pair that is not made."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Comparison, Item, Record, as_written
from unipref.data import DataReport
from unipref.data.encode import CONTINUES

__all__ = ["PAIRS", "PREFERENCES", "SCORE", "Pairing", "pair_rows_of", "paired"]

PAIRS = ("best_worst", "all", "first_two")
PREFERENCES = ("hard", "bradley_terry")
SCORE = "label_score"  # the column in which a response keeps the score that labelled it


@dataclass(frozen=True)
class Pairing:
    """How scored answers to one prompt become pairs.

    Attributes:
        pairs: "best_worst": the highest against the lowest score; "all": each two; "first_two": the first two answers,
            chosen by chance alone, as a study of two samples per prompt has them.
        preference: "hard": the higher score is preferred; "bradley_terry": with probability
            sigmoid((r1 - r2) / scale), as a soft label.
        scale: difference of scores at which that probability is 1 / (1 + e^-1) = 0.73.
        min_gap: least difference of scores of a pair that is made.
    """

    pairs: str = "best_worst"
    preference: str = "hard"
    scale: float = 1.0
    min_gap: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("pairs", PAIRS), ("preference", PREFERENCES)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"{name} is one of {', '.join(known)}, not {value!r}{nearest(str(value), known)}")
        if not self.scale > 0:
            raise ConfigError(f"scale is a number above 0, not {self.scale!r}")
        if not self.min_gap >= 0:
            raise ConfigError(f"min_gap is 0 or more, not {self.min_gap!r}")

    def probability(self, gap: float) -> float:
        """P(the first is preferred) where its score is `gap` above the second's."""
        if self.preference == "hard":
            return 1.0 if gap > 0 else 0.0 if gap < 0 else 0.5
        return 0.5 * (1.0 + math.tanh(0.5 * gap / self.scale))  # the logistic function without overflow

    def candidates(self, scores: np.ndarray) -> Iterator[tuple[int, int]]:
        """Pairs of answers that are looked at; of equal scores the earlier answer."""
        if self.pairs == "first_two":
            yield 0, 1
        elif self.pairs == "all":
            yield from combinations(range(len(scores)), 2)
        else:
            known = np.flatnonzero(~np.isnan(scores))
            if len(known) < 2:
                yield 0, 1  # counted as without a score
                return
            best = int(known[np.argmax(scores[known])])
            worst = int(known[np.argmin(scores[known])])
            yield (best, worst) if best != worst else (int(known[0]), int(known[1]))


def paired(
    records: Sequence[Record], scores: Sequence[np.ndarray], pairing: Pairing
) -> tuple[list[Record], DataReport]:
    """A record for every pair, the preferred answer first, and the account of those that are not made.

    Pairs whose answers are the same text, or have the same score, say nothing of what is preferred and are left out.

    Args:
        scores: per record a score for each of its items; NaN where there is none.
    """
    report = DataReport(n_read=len(records))
    found: list[Record] = []
    for record, values in zip(records, scores, strict=True):
        pairs = list(pairing.candidates(values))
        report.add("further pairs of a prompt", len(pairs) - 1)
        for number, (first, second) in enumerate(pairs):
            gap = float(values[first] - values[second])
            items = [replace(record.items[i], columns=_with_score(record.items[i], values[i])) for i in (first, second)]
            why = _why_not(items, gap, pairing)
            if why:
                report.leave_out(why)
                continue
            if gap < 0:
                items.reverse()
            comparison = Comparison(0, 1, pairing.probability(abs(gap)), margin=abs(gap))
            name = record.id if pairing.pairs != "all" else f"{record.id}/{number}"
            found.append(replace(record, id=name, items=tuple(items), comparisons=(comparison,)))
    report.n_kept = len(found)
    return found, report


def _with_score(item: Item, score: float) -> dict[str, float]:
    return {**item.columns, SCORE: float(score)}


def _why_not(items: Sequence[Item], gap: float, pairing: Pairing) -> str:
    if math.isnan(gap):
        return "pair with an answer that has no score"
    if items[0].response == items[1].response:
        return "pair of identical answers"
    if gap == 0:
        return "pair with equal scores (a tie)"
    return f"pair with scores less than {pairing.min_gap:g} apart" if abs(gap) < pairing.min_gap else ""


def pair_rows_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """`records` of `paired` as rows of a data file, in the format "preference".

    The texts stand there and no token ids, which would be another model's words; an answer that was cut off at the
    limit says so in `chosen_continues` or `rejected_continues`.
    """
    rows = []
    for record in records:
        comparison = record.comparisons[0]
        chosen, rejected = record.items[comparison.winner], record.items[comparison.loser]
        row: dict[str, Any] = {
            "id": record.id,
            "prompt": as_written(chosen.context),
            "chosen": as_written(chosen.response),
            "rejected": as_written(rejected.response),
            "preference": comparison.preference,
            "margin": comparison.margin,
        }
        for side, item in (("chosen", chosen), ("rejected", rejected)):
            row[f"{side}_{SCORE}"] = item.columns[SCORE]
            row[f"{side}_{CONTINUES}"] = item.columns.get(CONTINUES, 0.0)
        if record.domain is not None:
            row["domain"] = record.domain
        rows.append(row)
    return rows
