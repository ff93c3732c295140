"""Why one pair went the way it did, and what would have turned it round: exact, as the models are linear."""

from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ShapeError

__all__ = ["Flip", "fewest_changes", "local_lift"]


@dataclass(frozen=True)
class Flip:
    """Changes of concepts after which the other response is predicted to win.

    Attributes:
        changes: (concept index, old value, new value) in the order in which they help; empty where none was needed or
            none suffices.
        logit: after them.
        found: whether the verdict is turned.
    """

    changes: tuple[tuple[int, float, float], ...]
    logit: float
    found: bool


def fewest_changes(
    weights: np.ndarray, x: np.ndarray, low: np.ndarray, high: np.ndarray, *, fixed: np.ndarray | None = None
) -> Flip:
    """The fewest concepts that have to move, each within [low, high], for the verdict on `x` to turn.

    Exact for a linear model: the concepts are taken in the order of what each can move the logit at most, and the last
    one moves only as far as it must. A logit of exactly 0 is no verdict, and is turned towards the first response.

    Args:
        weights, x, low, high: (C,); what is in the data is a good [low, high].
        fixed: (C,) bool, concepts that cannot change.
    """
    weights, x, low, high = (np.asarray(a, dtype=float) for a in (weights, x, low, high))
    if not weights.shape == x.shape == low.shape == high.shape:
        raise ShapeError(f"weights, x, low and high are of the shapes {weights.shape, x.shape, low.shape, high.shape}")
    z = float(weights @ x)
    towards = -1.0 if z > 0 else 1.0
    best = np.where(towards * weights > 0, np.maximum(high, x), np.minimum(low, x))
    gain = towards * weights * (best - x)
    if fixed is not None:
        gain = np.where(fixed, 0.0, gain)
    changes: list[tuple[int, float, float]] = []
    goal = 1e-9 * max(1.0, abs(z))  # just beyond 0
    for j in np.argsort(-gain, kind="stable"):
        if gain[j] <= 0:
            break
        missing = goal - towards * z
        new = float(best[j]) if gain[j] <= missing else float(x[j] + towards * missing / weights[j])
        changes.append((int(j), float(x[j]), new))
        z += float(weights[j]) * (new - float(x[j]))
        if towards * z > 0:
            return Flip(tuple(changes), z, True)
    return Flip((), float(weights @ x), False)


def local_lift(weights: np.ndarray, z: float) -> np.ndarray:
    """(C,) by how many per cent one more unit of each concept would raise the first response's chance at the logit `z`.

    100 (sigmoid(z + weight) - sigmoid(z)) / sigmoid(z). It does not depend on the pair's own values; what the pair's
    values did are the contributions weight * value. Source: arXiv:2505.20088 section 3.3.
    """
    weights = np.asarray(weights, dtype=float)
    return 100.0 * np.expm1(weights) * np.exp(-np.logaddexp(0.0, z + weights))
