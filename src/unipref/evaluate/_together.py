"""Numbers that are made of several means, with intervals from resamples that draw the same conversations for all."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unipref.core.statistics import interval_of, joint_means

__all__ = ["Together", "triple_of"]

RARE = 0.05  # resamples in which a number does not exist, above which it has no interval


class Together:
    """Weighted means of columns; NaN in a column is a row that does not count there.

    Attributes:
        values: (k,) the means.
        drawn: (resamples, k) the same of each resample, for whatever is made of several of them.
        conversations: of each column.
    """

    def __init__(self, columns: Sequence[np.ndarray], weight: np.ndarray, group: np.ndarray, draws: Any) -> None:
        joint = joint_means([(column, weight, group) for column in columns], **draws)
        self.values, self.drawn = joint.values, joint.drawn
        names = np.array([str(name) for name in group])
        self.conversations = [len(np.unique(names[~np.isnan(column) & (weight > 0)])) for column in columns]

    def triple(self, i: int, bounds: tuple[float, float] | None) -> list[float | None]:
        """[value, low, high] of column `i`."""
        return triple_of(float(self.values[i]), self.drawn[:, i], self.conversations[i], bounds)

    def gap(self, i: int, j: int, bounds: tuple[float, float] | None) -> list[float | None]:
        """[value, low, high] of column `i` minus column `j`, paired."""
        fewest = min(self.conversations[i], self.conversations[j])
        return triple_of(float(self.values[i] - self.values[j]), self.drawn[:, i] - self.drawn[:, j], fewest, bounds)


def triple_of(
    value: float, drawn: np.ndarray, conversations: int, bounds: tuple[float, float] | None
) -> list[float | None]:
    """[value, low, high] of a number, given its resamples, with None for what is not known; see `interval_of`."""
    missing = np.isnan(drawn)
    if missing.any():  # a rare kind of pair is in not every resample
        drawn = drawn[~missing] if missing.mean() <= RARE else drawn[:0]
    low, high = interval_of(value, drawn, conversations, bounds) if len(drawn) else (np.nan, np.nan)
    return [None if np.isnan(x) else float(x) for x in (value, low, high)]
