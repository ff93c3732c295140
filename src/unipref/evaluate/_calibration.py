"""What an implicit reward's margins are worth as probabilities.

Methods put their margins on different scales (beta, length normalisation, how far they moved), and a scale is not a
merit. So one temperature per trained model is fitted on validation pairs first: P(chosen is preferred) =
sigmoid(margin / temperature).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import ShapeError
from unipref.core.statistics import mean, sigmoid
from unipref.evaluate._rows import conversations_of, margins_of, weights_of

__all__ = ["calibration", "equal_mass", "fit_temperature", "log_score", "log_sigmoid", "temperature_of"]

BINS = 10
Rows = Sequence[Mapping[str, Any]]


def fit_temperature(margins: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """The temperature above 0 under which sigmoid(margin / temperature) gives the pairs the greatest likelihood.

    Targets are (n + 1) / (n + 2) instead of 1, so that the optimum is above 0 where all margins are right. Infinite
    where the margins' mean is not above 0: the best probability is then 1/2 throughout.

    Source: temperature scaling, arXiv:1706.04599 §4.2; the targets are those of Platt 1999.

    Args:
        margins: of pairs whose first side was preferred, nats.
    """
    z = np.asarray(margins, dtype=np.float64)
    w = np.ones(len(z)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(z) != len(w):
        raise ShapeError(f"{len(z)} margins and {len(w)} weights")
    if not len(z) or w.sum() <= 0 or not np.abs(z).any():
        return math.inf
    target = (w.sum() + 1) / (w.sum() + 2)
    scale = float(np.abs(z).max())
    z = z / scale  # so that the slope searched for is of moderate size whatever the unit

    def gradient(slope: float) -> float:
        return float((w * z * (target - sigmoid(slope * z))).sum())

    if gradient(0.0) <= 0:
        return math.inf
    low, high = 0.0, 1.0
    while gradient(high) > 0:  # concave: the gradient falls, and below 0 at last because the target is below 1
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if gradient(middle) > 0 else (low, middle)
    return scale / ((low + high) / 2)


def temperature_of(pairs: Rows) -> float:
    """`fit_temperature` of the rows of one trained model."""
    return fit_temperature(margins_of(pairs), weights_of(pairs))


def log_score(margins: Sequence[float], temperature: float, weights: Sequence[float] | None = None) -> float:
    """Mean log-probability of the side that was preferred, nats; -log 2 is a coin's. NaN without a row."""
    if not len(margins):
        return math.nan
    return float(np.average(log_sigmoid(np.asarray(margins) / temperature), weights=weights))


def calibration(
    pairs: Rows, temperatures: Mapping[int, float], *, seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """How well the margins of held-out `pairs` serve as probabilities, at temperatures fitted on other pairs.

    Args:
        pairs: rows of `pair_rows` with their training seed.
        temperatures: per training seed.

    Returns:
        temperature: per seed. brier: mean of (1 - p)^2 with p the probability of the side that was preferred; a coin
        has 0.25. log_score: mean of log p, nats; a coin has -0.693. Both [value, low, high] over conversations. ece:
        expected calibration error over ten bins of equal weight, by confidence max(p, 1 - p) (arXiv:1706.04599 Eq. 3,
        there with bins of equal width); it has no interval, is above 0 by chance in a small sample, and 0 for a reward
        that knows nothing and says so.
    """
    margins = np.array(margins_of(pairs), dtype=np.float64)
    scaled = margins / np.array([temperatures[row.get("seed", 0)] for row in pairs], dtype=np.float64)
    more = {"weights": weights_of(pairs), "clusters": conversations_of(pairs), "seed": seed, "resamples": resamples}
    right = np.where(scaled == 0, 0.5, (scaled > 0).astype(np.float64))
    return {
        "temperature": {str(number): value for number, value in temperatures.items()},
        "brier": mean((1 - sigmoid(scaled)) ** 2, bounds=(0.0, 1.0), **more).as_list(),
        "log_score": mean(log_sigmoid(scaled), **more).as_list(),
        "ece": _calibration_error(sigmoid(np.abs(scaled)), right, np.array(more["weights"], dtype=np.float64)),
    }


def equal_mass(confidence: np.ndarray, weights: np.ndarray, bins: int) -> np.ndarray:
    """(n,) which of `bins` bins of equal weight each confidence falls into.

    Equal confidences share a bin, so that no order of rows decides; some bins may stay empty.
    """
    order = np.argsort(confidence, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])
    start = np.searchsorted(confidence[order], confidence[order], side="left")
    found = np.empty(len(confidence), dtype=int)
    found[order] = np.minimum((bins * before[start] / weights.sum()).astype(int), bins - 1)
    return found


def _calibration_error(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float | None:
    total = weights.sum()
    if not total > 0:
        return None
    gaps = np.bincount(equal_mass(confidence, weights, BINS), weights * (right - confidence), minlength=BINS)
    return float(np.abs(gaps).sum() / total)


def log_sigmoid(z: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0.0, -np.asarray(z, dtype=np.float64))
