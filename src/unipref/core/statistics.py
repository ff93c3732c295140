"""Statistics of evaluation: weighted means with intervals that respect which rows belong together.

Every number here is a ratio of sums, sum(weight * value) / sum(weight), so it does not depend on batch size, on row
order, or on whether weight 2 stands for a row that occurs twice. Rows of one conversation are not independent: the
bootstrap draws whole clusters.

Source: Efron 1979 (bootstrap); Hesterberg 2014, arXiv:1411.5279 §5.3.2 (expanded percentiles for small samples).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from unipref.core.errors import ShapeError

__all__ = [
    "Interval", "Joint", "agreements", "both_sides", "effective_sample_size", "holm", "interval_of", "joint_means",
    "mean", "mean_difference", "pair_accuracy", "sigmoid", "swap_test", "wins",
]  # fmt: skip

RESAMPLES = 2000
SWAPS = 9999
AT_ONCE = 2_000_000  # numbers that are drawn in one piece


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        value: the estimate; NaN where no row counts.
        low, high: the interval; NaN where the data cannot say (too few clusters, or no spread, and no bounds).
        n: rows that count (a value that is not NaN and a weight above 0).
        clusters: clusters among them; what the interval's width depends on.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int

    def as_list(self) -> list[float | None]:
        """[value, low, high] with None for NaN, as in `summary.json`."""
        return [None if math.isnan(x) else x for x in (self.value, self.low, self.high)]


@dataclass(frozen=True)
class _Sums:
    """Per cluster: sum of weight * value, sum of weight, rows that count; in sorted order of the cluster names."""

    names: np.ndarray
    numerators: np.ndarray
    denominators: np.ndarray
    rows: np.ndarray


def mean(
    values: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    clusters: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    expand: bool = True,
) -> Interval:
    """Weighted mean with a percentile bootstrap interval over clusters.

    Args:
        values: NaN (or None) is missing: the row is left out, never counted as zero.
        weights: example weights, at least 0; 1 where not given.
        clusters: which rows belong together; every row alone where not given.
        bounds: the least and greatest value a row can have, (0, 1) for shares. Where the data show no spread, or
            are fewer clusters than can prove anything (six for 95 %), a bootstrap claims too much. With bounds the
            interval then says what n equal clusters do prove (at most a share 1 - (1 - confidence)^(1/n) of all
            clusters differs) and holds all resamples; without bounds it is NaN.
        expand: widen the percentiles to those of Student's t with clusters - 1 degrees of freedom; the plain
            percentile interval is too narrow for few clusters. False gives the plain one.

    Raises:
        ShapeError: the arguments differ in length.
        ValueError: a weight is negative or not finite, or a value is infinite.

    Example:
        >>> mean([1.0, 0.0, 1.0, float("nan")], weights=[2, 1, 1, 5]).value
        0.75
    """
    sums = _cluster_sums(values, weights, clusters)
    drawn = _ratio(*_resampled(sums.numerators, sums.denominators, resamples=resamples, seed=seed))
    value = float(_ratio(np.array(_sum(sums.numerators)), np.array(_sum(sums.denominators))))
    low, high = interval_of(value, drawn, len(sums.names), bounds, confidence, expand)
    return Interval(value, low, high, int(sums.rows.sum()), len(sums.names))


def mean_difference(
    a: Sequence[float],
    b: Sequence[float],
    *,
    weights: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
    clusters: tuple[Sequence[Hashable], Sequence[Hashable]],
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    expand: bool = True,
) -> Interval:
    """Mean of `a` minus mean of `b`, with a bootstrap that draws the same clusters for both.

    What both sides share of a prompt (easy or hard) cancels, so the interval is narrower than for two samples of
    different prompts. A cluster that only one side has (the other side's scores are missing) is left out: otherwise
    sides that are scored on different prompts would differ because of the prompts. Where nothing is missing, the
    difference is that of the two means.

    Args:
        bounds: the least and greatest difference of a cluster, (-1, 1) for shares; see `mean`.

    Returns:
        `n` is the number of rows of the smaller side in the clusters that both have.
    """
    left, right = (_cluster_sums(v, w, c) for v, w, c in zip((a, b), weights, clusters, strict=True))
    names, at_left, at_right = np.intersect1d(left.names, right.names, assume_unique=True, return_indices=True)
    num_a, den_a = left.numerators[at_left], left.denominators[at_left]
    num_b, den_b = right.numerators[at_right], right.denominators[at_right]
    sums = _resampled(num_a, den_a, num_b, den_b, resamples=resamples, seed=seed)
    drawn = _ratio(*sums[:2]) - _ratio(*sums[2:])
    totals = [np.array(_sum(x)) for x in (num_a, den_a, num_b, den_b)]
    value = float(_ratio(totals[0], totals[1]) - _ratio(totals[2], totals[3]))
    low, high = interval_of(value, drawn, len(names), bounds, confidence, expand)
    n = min(left.rows[at_left].sum(), right.rows[at_right].sum())
    return Interval(value, low, high, int(n), len(names))


@dataclass(frozen=True)
class Joint:
    """Several means and what the bootstrap made of them together.

    Attributes:
        values: (k,) the means; NaN where no row of a column counts.
        drawn: (resamples, k) the same of each resample; NaN where a column has no row in it.
        clusters: of the column that has fewest.
    """

    values: np.ndarray
    drawn: np.ndarray
    clusters: int


def joint_means(
    columns: Sequence[tuple[Sequence[float], Sequence[float] | None, Sequence[Hashable]]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Joint:
    """Weighted means of several columns, and their resamples, each of which draws the same clusters for all.

    For numbers that are made of many means at once, such as which of them is the largest.

    Args:
        columns: (values, weights, clusters) of each, as `mean` takes them. A column that lacks a cluster takes no part
            where that one is drawn.
    """
    sums = [_cluster_sums(*column) for column in columns]
    names = np.unique(np.concatenate([part.names for part in sums])) if sums else np.zeros(0, dtype=str)
    table = np.zeros((2 * len(sums), len(names)))
    for i, part in enumerate(sums):
        at = np.searchsorted(names, part.names)
        table[2 * i, at], table[2 * i + 1, at] = part.numerators, part.denominators
    drawn = _resampled(*table, resamples=resamples, seed=seed) if sums else []
    totals = [np.array(_sum(row)) for row in table]
    return Joint(
        values=np.array([float(_ratio(*totals[i : i + 2])) for i in range(0, len(table), 2)]),
        drawn=np.stack([_ratio(*drawn[i : i + 2]) for i in range(0, len(table), 2)], axis=1)
        if sums
        else np.zeros((resamples, 0)),
        clusters=min((len(part.names) for part in sums), default=0),
    )


def swap_test(
    a: Sequence[float],
    b: Sequence[float],
    *,
    weights: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
    clusters: tuple[Sequence[Hashable], Sequence[Hashable]],
    swaps: int = SWAPS,
    seed: int = 0,
) -> float:
    """Two-sided p-value of `mean_difference`: how often chance alone makes the two means differ as much.

    If the sides do not differ, their names may be exchanged within any cluster. That is done at random `swaps` times,
    whole clusters at once, and the share of differences at least as large as the one observed is counted, the observed
    one included: exact at any number of clusters, never 0, and at least 1 / (swaps + 1). As in `mean_difference`, a
    cluster that only one side has is left out. NaN where no cluster is left.

    Source: Fisher's randomisation test for pairs; the count that includes the observation is Phipson and Smyth 2010,
    arXiv:1603.05766.

    Example:
        >>> swap_test([1.0, 1.0], [0.0, 0.0], clusters=("xy", "xy"))  # of 4 exchanges 2 are as extreme
        0.5
    """
    left, right = (_cluster_sums(v, w, c) for v, w, c in zip((a, b), weights, clusters, strict=True))
    names, at_left, at_right = np.intersect1d(left.names, right.names, assume_unique=True, return_indices=True)
    n = len(names)
    if n == 0:
        return math.nan
    num = np.stack([left.numerators[at_left], right.numerators[at_right]])
    den = np.stack([left.denominators[at_left], right.denominators[at_right]])
    observed = abs(_sum(num[0]) / _sum(den[0]) - _sum(num[1]) / _sum(den[1]))
    as_extreme = observed * (1 - 1e-9) - 1e-12  # sums in another order are the same difference
    every = n < 63 and 2**n <= swaps + 1
    generator = np.random.default_rng(seed)
    count, total = 0, 2**n if every else swaps
    at_once = max(1, AT_ONCE // n)
    for start in range(0, total, at_once):
        size = min(at_once, total - start)
        if every:
            exchanged = ((np.arange(start, start + size)[:, None] >> np.arange(n)) & 1).astype(np.float64)
        else:
            exchanged = generator.integers(0, 2, size=(size, n)).astype(np.float64)
        # a sum after exchanges is the old one plus what the exchanged clusters bring and take
        sums = [(column[0].sum() + exchanged @ (column[1] - column[0]), column.sum()) for column in (num, den)]
        (num_a, num_all), (den_a, den_all) = sums
        drawn = np.abs(_ratio(num_a, den_a) - _ratio(num_all - num_a, den_all - den_a))
        count += int((drawn >= as_extreme).sum())
    return count / total if every else (count + 1) / (total + 1)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """(n,) p-values adjusted for their number by Holm's step-down method, in the order they came.

    Rejecting where the adjusted value is at most alpha makes one false claim or more with probability alpha at most,
    however the tests depend on each other. NaN is no test: it stays NaN and does not count.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = _floats(p_values)
    adjusted = np.full(len(values), np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted


def wins(margins: Sequence[float]) -> np.ndarray:
    """(n,) 1 where the margin is above 0, 0.5 where it is exactly 0 (a tie), 0 below; NaN stays NaN.

    The mean of it is an accuracy that an undecided scorer gets as 0.5, not as 0.

    Example:
        >>> wins([2.0, 0.0, -1.0]).tolist()
        [1.0, 0.5, 0.0]
    """
    margins = _floats(margins)
    return np.where(np.isnan(margins), np.nan, (np.sign(margins) + 1) / 2)


def agreements(margins: Sequence[float], gaps: Sequence[float]) -> np.ndarray:
    """(n,) 1 where margin and gap point the same way, 0.5 where the margin is 0, 0 where they point apart.

    NaN where the gap is 0 or missing: such a pair says nothing about agreement. The mean of it is the concordance.

    Example:
        >>> agreements([1.0, -1.0, 0.0, 3.0], [0.2, 0.2, -0.1, 0.0]).tolist()
        [1.0, 0.0, 0.5, nan]
    """
    gaps = _floats(gaps)
    directions = np.where(gaps == 0, np.nan, np.sign(gaps))
    return wins(_floats(margins) * directions)


def sigmoid(z: np.ndarray | float) -> np.ndarray:
    """1 / (1 + e^-z), without overflow, and exactly one half at 0."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(z)))


def both_sides(logits: np.ndarray) -> np.ndarray:
    """(n, 2) probabilities of the second and of the first side, from (n,) log-odds of the first; NaN stays NaN."""
    first = sigmoid(logits)
    return np.stack([1.0 - first, first], axis=1)


def pair_accuracy(logits: Sequence[float], p: np.ndarray, weights: np.ndarray) -> float:
    """Share of pairs whose preferred side has the greater log-odds, by weight; an even verdict is half right.

    Ties (p is one half), pairs without a verdict (NaN) and those of weight 0 do not count; NaN where nothing does.
    """
    right = agreements(logits, p - 0.5)
    counts = (p != 0.5) & ~np.isnan(right) & (weights > 0)
    return float(np.average(right[counts], weights=weights[counts])) if counts.any() else math.nan


def effective_sample_size(weights: Sequence[float]) -> float:
    """(sum w)^2 / sum w^2: how many equally weighted rows carry as much information. 0 for none.

    Example:
        >>> effective_sample_size([1.0, 1.0, 0.0])
        2.0
    """
    weights = _floats(weights)
    peak = weights.max(initial=0.0)
    if peak == 0:
        return 0.0
    scaled = weights / peak  # weights may be e^{700}
    return float(scaled.sum() ** 2 / (scaled**2).sum())


def _floats(values: Sequence[float]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _sum(values: np.ndarray) -> float:
    return math.fsum(values)  # exact, hence the same in any order


def _cluster_sums(
    values: Sequence[float], weights: Sequence[float] | None, clusters: Sequence[Hashable] | None
) -> _Sums:
    numbers = _floats(values)
    size = len(numbers)
    mass = np.ones(size) if weights is None else _floats(weights)
    labels = [str(i) for i in range(size)] if clusters is None else [str(cluster) for cluster in clusters]
    if not len(mass) == len(labels) == size:
        raise ShapeError(f"values, weights and clusters differ in length: {size}, {len(mass)}, {len(labels)}")
    if not (np.isfinite(mass).all() and (mass >= 0).all()):
        raise ValueError("example weights must be finite and at least 0")
    if np.isinf(numbers).any():
        raise ValueError("a value is infinite; give NaN where it is missing")
    groups: dict[str, list[int]] = {}
    for i in np.flatnonzero(~np.isnan(numbers) & (mass > 0)):
        groups.setdefault(labels[i], []).append(i)
    names = sorted(groups)
    return _Sums(
        names=np.array(names, dtype=str),
        numerators=np.array([_sum(mass[groups[name]] * numbers[groups[name]]) for name in names]),
        denominators=np.array([_sum(mass[groups[name]]) for name in names]),
        rows=np.array([len(groups[name]) for name in names], dtype=np.int64),
    )


def _resampled(*columns: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """For each (n,) column, its (resamples,) sums over clusters drawn with replacement, the same draws for all."""
    n = len(columns[0])
    if n == 0:
        return [np.zeros(resamples) for _ in columns]
    at_once = max(1, AT_ONCE // n)
    if resamples <= at_once:
        return list((_drawn_once(n, resamples, seed) @ np.stack(columns, axis=1)).T)
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn.append(_counts(generator, n, size) @ np.stack(columns, axis=1))
    return list(np.concatenate(drawn).T)


@lru_cache(maxsize=4)  # a summary asks a hundred times for the same draws, and drawing is most of the work
def _drawn_once(n: int, resamples: int, seed: int) -> np.ndarray:
    return _counts(np.random.default_rng(seed), n, resamples)


def _counts(generator: np.random.Generator, n: int, size: int) -> np.ndarray:
    """(size, n) how often each of n clusters was drawn; not to be written to."""
    counts = generator.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)
    counts.flags.writeable = False
    return counts


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def interval_of(
    value: float,
    drawn: np.ndarray,
    n: int,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
    expand: bool = True,
) -> tuple[float, float]:
    """The percentile interval of `value`, of which the resamples of `n` clusters made `drawn`; see `mean`."""
    if n == 0:
        return math.nan, math.nan
    spread = n > 1 and np.ptp(drawn) > 1e-12 * max(1.0, abs(value))
    # even from the least to the greatest of n values covers a middle one with probability 1 - 2^(1 - n) at most
    enough = 1 - 2.0 ** (1 - n) >= confidence
    if not (spread and enough):
        if bounds is None:
            return math.nan, math.nan
        other = 1 - (1 - confidence) ** (1 / n)  # the greatest share of differing clusters that n equal ones leave open
        low, high = value - other * (value - bounds[0]), value + other * (bounds[1] - value)
        return min(low, float(drawn.min())), max(high, float(drawn.max()))
    tail = (1 - confidence) / 2
    if expand:
        tail = NormalDist().cdf(math.sqrt(n / (n - 1)) * _student_quantile(tail, n - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def _student_quantile(p: float, degrees: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees, the Cornish-Fisher series (error below 1 %) above."""
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))
