"""Ranks and the correlations made of them."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["pearson", "ranks", "spearman"]


def ranks(values: Sequence[float]) -> np.ndarray:
    """(N,) from 1 for the smallest; equal values share the mean of their places."""
    _, place, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def pearson(a: Sequence[float], b: Sequence[float]) -> float:
    """Correlation; NaN where one of the two is constant."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    # the mean of equal numbers may miss them by a rounding, so their deviations are no zeros
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Correlation of the ranks; NaN where one of the two is constant."""
    return pearson(ranks(a), ranks(b))
