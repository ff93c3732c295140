"""Intervals of the weights that a penalised fit chose, and of sums of weights where only a sum can be told."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipref.data.pairs import Pairs
from unipref.explain.refit import refit
from unipref.features.concepts import Concept

__all__ = ["ALIKE", "MIXED", "RARE", "Intervals", "alike_groups", "intervals", "mixtures", "number", "one_way"]

ALIKE = 0.9  # concepts whose values correlate more are told as one
MIXED = 0.95  # a concept that others together give with a larger multiple correlation (variance inflated tenfold)
N_NAMED, LITTLE = 3, 0.2  # concepts of such a mixture that are named: the largest, and none below this share of them
RARE = 20  # held-out pairs that differ in a concept, fewer say nothing of it
PER_WEIGHT = 10  # prompts, so that a refit has room for a weight


@dataclass(frozen=True, eq=False)
class Intervals:
    """Of C weights.

    Attributes:
        low, high: (C,) NaN where there is none. why: (C,) the reason where there is none, else "".
        together: of a concept that goes with others beyond `ALIKE`, what is told of their sum, in its own direction.
        caution: of one that is nearly a mixture of several others, which these are: its interval is of what is left of
            it beside them, and says little of itself.
    """

    low: np.ndarray
    high: np.ndarray
    why: list[str]
    together: dict[int, dict[str, Any]]
    caution: dict[int, str]


def intervals(
    pairs: Pairs, x: np.ndarray, concepts: Sequence[Concept], chosen: np.ndarray, rows: np.ndarray
) -> Intervals:
    """Of the weights `chosen` (C,) != 0, from a refit to `rows`, in which each domain counts the same.

    The refit holds at most a concept for every ten prompts, the largest first, and none that hardly ever differs there.
    Concepts that go together in these rows (|r| > `ALIKE`, one through another) would get weights of opposite signs and
    intervals that contradict each other, as only their sum is known. They stand in the refit as their mean, whose
    weight is that sum; where r is negative, the difference.
    """
    n = len(chosen)
    low, high, why = np.full(n, math.nan), np.full(n, math.nan), [""] * n
    even = pairs.weight.copy()
    for name in set(pairs.domain[rows].tolist()):
        mine = rows & (pairs.domain == name)
        even[mine] /= max(even[mine].sum(), 1e-300)
    here = np.nan_to_num(x[rows])
    differs, endless = (here != 0).sum(axis=0), one_way(x[rows], pairs.p[rows])
    usable: list[int] = []
    for j in np.argsort(-np.abs(chosen), kind="stable"):
        if chosen[j] == 0:
            continue
        if differs[j] < RARE:
            why[j] = f"only {differs[j]} held-out pairs differ in it"
        elif endless[j]:
            why[j] = "all held-out pairs that differ in it went the same way"
        else:
            usable.append(int(j))
    groups, r = alike_groups(here[:, usable])
    members = [[usable[i] for i in group] for group in groups]
    room = len(set(pairs.group[rows].tolist())) // PER_WEIGHT
    for group in members[room:]:
        for j in group:
            why[j] = "too few held-out prompts for so many concepts"
    signs = [np.sign(r[group[0], group]) for group in groups[:room]]
    columns = [here[:, js] @ sign / len(js) for js, sign in zip(members, signs, strict=False)]
    again = refit(
        np.stack(columns, axis=1) if columns else np.zeros((int(rows.sum()), 0)),
        pairs.p[rows],
        sample_weight=even[rows],
        groups=pairs.group[rows],
    )
    together: dict[int, dict[str, Any]] = {}
    caution = {
        members[i][0]: mixed([concepts[members[k][0]].name for k in others], strength)
        for i, (strength, others) in mixtures(columns).items()
    }
    for i, (js, sign) in enumerate(zip(members, signs, strict=False)):
        if len(js) == 1:
            low[js[0]], high[js[0]], why[js[0]] = again.low[i], again.high[i], again.why_not
            continue
        within = np.abs(r[np.ix_(groups[i], groups[i])])
        total = float(sign @ chosen[js])
        for j, s in zip(js, sign, strict=True):
            others = [(int(k), int(s * t)) for k, t in zip(js, sign, strict=True) if k != j]
            ends = sorted((s * again.low[i], s * again.high[i]))
            together[j] = {
                "with": [[concepts[k].key, t] for k, t in others],
                "r": float(within[js.index(j)][[js.index(k) for k, _ in others]].max()),
                "weight": s * total,
                "low": number(ends[0]),
                "high": number(ends[1]),
            }
            named = " and ".join(("" if t > 0 else "the opposite of ") + concepts[k].name for k, t in others)
            why[j] = f"on these held-out pairs it goes together with {named} (|r| up to {together[j]['r']:.2f})"
            why[j] += f"; of their sum: {again.why_not}" if again.why_not else ""
    return Intervals(low, high, why, together, caution)


def mixtures(columns: Sequence[np.ndarray]) -> dict[int, tuple[float, list[int]]]:
    """Of the columns that the others together give with a multiple correlation above `MIXED`: that correlation, and the
    few others that give most of it. Columns of pairs are signed, so that correlations are around 0.
    """
    if len(columns) < 2:
        return {}
    x = np.stack(columns, axis=1)
    unit = x / np.maximum(np.linalg.norm(x, axis=0), 1e-300)
    inverse = np.linalg.pinv(unit.T @ unit)
    found = {}
    for j, inflation in enumerate(np.diag(inverse)):
        strength = float(np.sqrt(max(0.0, 1 - 1 / max(inflation, 1.0))))
        if strength > MIXED:
            parts = np.abs(inverse[j])
            parts[j] = 0.0
            most = np.argsort(-parts, kind="stable")[:N_NAMED]
            found[j] = strength, [int(k) for k in most if parts[k] > LITTLE * parts.max()]
    return found


def mixed(names: Sequence[str], strength: float) -> str:
    """What is said of a concept that is nearly a mixture of others."""
    return f"nearly a mixture of {', '.join(names)} (R = {strength:.2f}): read their weights together"


def alike_groups(x: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
    """Columns of `x` in groups, each linked by |r| > `ALIKE` to another of its group, in the order of their first
    members; and the (C, C) correlations.

    Pairs are signed, so that correlations are of the values around 0. A column of zeros is like no other.
    """
    length = np.linalg.norm(x, axis=0)
    unit = np.divide(x, length, out=np.zeros_like(x, dtype=float), where=length > 0)
    r = unit.T @ unit
    left, groups = list(range(x.shape[1])), []
    while left:
        group = [left.pop(0)]
        for i in group:  # grows while it is walked
            near = [j for j in left if abs(r[i, j]) > ALIKE]
            group += near
            left = [j for j in left if j not in near]
        groups.append(group)
    return groups, r


def one_way(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(C,) whether every pair that differs in the concept went the same way, so that a plain fit to it has no end."""
    more, less, first, second = x > 0, x < 0, (p > 0)[:, None], (p < 1)[:, None]
    up, down = (more & first) | (less & second), (more & second) | (less & first)
    return ~(up.any(axis=0) & down.any(axis=0))


def number(value: float) -> float | None:
    """`value` as JSON has it: None where it is NaN."""
    return None if math.isnan(value) else float(value)
