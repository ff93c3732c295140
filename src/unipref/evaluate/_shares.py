"""Accuracy of groups: each with an interval, how far they differ beyond chance, and the worst of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from unipref.core.errors import DataError
from unipref.core.statistics import effective_sample_size

__all__ = ["Share", "between", "personalisation_bias", "share_interval", "shares", "worst"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Share:
    """The weighted share of right verdicts in one group.

    Attributes:
        value: the share.
        n: rows that count.
        conversations: of these rows.
        units: how many conversations of equal weight tell as much (Kish).
        spread: per conversation sum of weight * (right - value), squared and added up; for `between`.
        weights: per conversation its squared weight, added up.
    """

    value: float
    n: int
    conversations: int
    units: float
    spread: float
    weights: float


def shares(right: np.ndarray, weight: np.ndarray, conversation: np.ndarray, label: np.ndarray) -> dict[str, Share]:
    """Per label, in sorted order, its `Share`; a row whose `right` is NaN or whose weight is 0 does not count."""
    counted = ~np.isnan(right) & (weight > 0)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, group, r, w in zip(label[counted], conversation[counted], right[counted], weight[counted], strict=True):
        found.setdefault(str(name), {}).setdefault(str(group), []).append((float(r), float(w)))
    return {name: _share(list(found[name].values())) for name in sorted(found)}


def _share(conversations: Sequence[Sequence[tuple[float, float]]]) -> Share:
    mass = [math.fsum(w for _, w in rows) for rows in conversations]
    value = math.fsum(w * r for rows in conversations for r, w in rows) / math.fsum(mass)
    return Share(
        value=value,
        n=sum(map(len, conversations)),
        conversations=len(conversations),
        units=effective_sample_size(sorted(mass)),
        spread=math.fsum(math.fsum(w * (r - value) for r, w in rows) ** 2 for rows in conversations),
        weights=math.fsum(m * m for m in mass),
    )


def share_interval(value: float, units: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share that `units` independent conversations of equal weight have.

    It is right for few conversations, and where all are right or all are wrong, as a bootstrap is not. A conversation
    counts as one however many pairs it has: too careful where its pairs differ, never too bold.

    Source: Wilson 1927, Journal of the American Statistical Association 22(158).

    Example:
        >>> low, high = share_interval(1.0, 10)
        >>> round(low, 3), high
        (0.722, 1.0)
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = value + z * z / (2 * units)
    half = z * math.sqrt(max(0.0, value * (1 - value)) / units + z * z / (4 * units * units))
    scale = 1 + z * z / units
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def between(found: Sequence[Share]) -> tuple[float, float, list[float]]:
    """(mean, standard deviation, shrunk values) of groups' true accuracies; NaN for the first two without a group.

    What groups differ by chance alone is taken away first, with the variance between conversations that all groups
    share; the standard deviation is 0 where nothing is left. A shrunk value lies between its group's own and the mean,
    the nearer to the mean the less the group has.

    Source: DerSimonian and Laird 1986, Controlled Clinical Trials 7(3), the moment estimator of random effects.
    """
    if not found:
        return math.nan, math.nan, []
    # E[spread] is variance * weights * (1 - 1/units) where each conversation's own share has that variance
    freedom = math.fsum(s.weights * (1 - 1 / s.units) for s in found)
    variance = math.fsum(s.spread for s in found) / freedom if freedom > 0 else math.nan
    if not variance > 0:  # 0: every conversation is as its group is; NaN: every group is one, and chance is not known
        plain = math.fsum(s.value for s in found) / len(found)
        if math.isnan(variance):
            return plain, math.nan, [plain] * len(found)
        spread = math.fsum((s.value - plain) ** 2 for s in found) / max(1, len(found) - 1)
        return plain, math.sqrt(spread), [s.value for s in found]
    own = [variance / s.units for s in found]
    mass = [1 / v for v in own]
    total = math.fsum(mass)
    fixed = math.fsum(m * s.value for m, s in zip(mass, found, strict=True)) / total
    excess = math.fsum(m * (s.value - fixed) ** 2 for m, s in zip(mass, found, strict=True)) - (len(found) - 1)
    room = total - math.fsum(m * m for m in mass) / total
    true = max(0.0, excess / room) if room > 0 else 0.0
    mass = [1 / (true + v) for v in own]
    mean = math.fsum(m * s.value for m, s in zip(mass, found, strict=True)) / math.fsum(mass)
    shrunk = [mean + true / (true + v) * (s.value - mean) for s, v in zip(found, own, strict=True)]
    return mean, math.sqrt(true), shrunk


def personalisation_bias(
    values: np.ndarray, identity: Sequence[Any], *, seed: int = 0, permutations: int = 999
) -> dict[str, float]:
    """How far what an identity gets spreads over identities: sqrt(mean |f(u) - mean f|^2), f(u) the mean of its rows.

    It is above 0 by chance wherever identities have few rows, so it stands beside what chance makes of it.

    Source: arXiv:2406.11107, with values in per cent, safety and utility; the comparison with chance is ours.

    Args:
        values: (N,) or (N, coordinates), one row an answer.
        identity: (N,) whose answer it is.

    Returns:
        value; by_chance and by_chance_95, mean and 95th percentile where identities are dealt out again at random; p,
        how often that gives as much.

    Raises:
        DataError: the lengths differ, there is no row, or a value is not finite.

    Example:
        >>> told = personalisation_bias(np.array([[80.0, 60.0], [70.0, 60.0], [90.0, 60.0]]), ["a", "b", "c"])
        >>> round(told["value"], 5)
        8.16497
    """
    points = np.asarray(values, dtype=np.float64)
    points = points[:, None] if points.ndim == 1 else points
    names, at = np.unique(np.array([str(name) for name in identity]), return_inverse=True)
    if len(points) != len(at) or not len(points) or not np.isfinite(points).all():
        raise DataError(
            f"personalisation bias needs a finite row of values for each identity; it got {len(points)} rows of values "
            f"and {len(at)} identities. Leave out answers without a value"
        )
    counts = np.bincount(at)[:, None]

    def spread(order: np.ndarray) -> float:
        sums = np.zeros((len(names), points.shape[1]))
        np.add.at(sums, at, points[order])
        means = sums / counts
        return float(np.sqrt(((means - means.mean(axis=0)) ** 2).sum(axis=1).mean()))

    generator = np.random.default_rng(seed)
    value = spread(np.arange(len(points)))
    drawn = np.array([spread(generator.permutation(len(points))) for _ in range(permutations)])
    return {
        "value": value,
        "by_chance": float(drawn.mean()),
        "by_chance_95": float(np.quantile(drawn, 0.95)),
        "p": float((1 + (drawn >= value * (1 - 1e-9)).sum()) / (1 + permutations)),
    }


def worst(found: dict[str, Share]) -> dict[str, Any] | None:
    """The least true accuracy of any group; None for fewer than two groups.

    The least of several noisy shares is too low, and the interval of the group that happened to be last is too low with
    it. So the interval holds the least *true* accuracy with 95 %: intervals of all groups hold together (Bonferroni),
    and the least true accuracy lies between the least of their lower ends and the least of their upper ends. The value
    is the least share after shrinking (`between`).

    Returns:
        accuracy [value, low, high], name (the group of the least share), observed (that share), n (its rows) and
        groups (how many).
    """
    if len(found) < 2:
        return None
    names = list(found)
    every = list(found.values())
    low, high = zip(*(share_interval(s.value, s.units, 1 - (1 - CONFIDENCE) / len(every)) for s in every), strict=True)
    least = min(range(len(every)), key=lambda i: (every[i].value, names[i]))
    value = min(between(every)[2])
    return {
        "accuracy": [min(max(value, min(low)), min(high)), min(low), min(high)],
        "name": names[least],
        "observed": every[least].value,
        "n": every[least].n,
        "groups": len(every),
    }
