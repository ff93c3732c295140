"""Intervals of weights: the chosen concepts fitted again without penalty, on prompts that did not choose them."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ShapeError
from unipref.core.statistics import sigmoid
from unipref.explain.regression import as_probabilities

__all__ = ["Refit", "refit"]

_NORMAL = 1.959964  # of a 95 % interval
_FEW = 5  # prompts per weight, fewer give no interval
_STEPS = 60
_SEPARATED = 15.0  # a logit that large for rows that were seen grows without end


@dataclass(frozen=True)
class Refit:
    """Weights with 95 % intervals.

    Attributes:
        weight, low, high: (C,); all NaN where `why_not` says why.
    """

    weight: np.ndarray
    low: np.ndarray
    high: np.ndarray
    why_not: str = ""


def refit(
    X: np.ndarray,
    y: Sequence[float],
    *,
    sample_weight: Sequence[float] | None = None,
    groups: Sequence[Hashable] | None = None,
) -> Refit:
    """Plain logistic regression without intercept, with a sandwich variance over prompts.

    A penalised fit shrinks its weights and chose which to keep by looking, so it has no interval of its own; on other
    prompts this fit has. Source: the variance is Liang and Zeger 1986, Biometrika 73(1), clusters being prompts, times
    G / (G - 1).

    Args:
        X: (N, C); y, as for `HierarchicalPairRegressor.fit`.
        groups: (N,) prompts.
    """
    x, p = np.asarray(X, dtype=float), as_probabilities(y)
    if x.ndim != 2 or len(x) != len(p):
        raise ShapeError(f"X has the shape {x.shape}, and there are {len(p)} labels")
    x = np.nan_to_num(x, nan=0.0)
    weight = np.ones(len(p)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    names, place = np.unique(
        np.arange(len(p)) if groups is None else np.asarray(groups, dtype=str), return_inverse=True
    )
    n_groups, n = len(names), x.shape[1]
    if n == 0:
        return Refit(np.zeros(0), np.zeros(0), np.zeros(0))
    if n_groups < max(_FEW * n, 10):
        return _none(n, f"{n_groups} held-out prompts are too few for {n} weights")
    beta = np.zeros(n)
    for _ in range(_STEPS):
        q = sigmoid(x @ beta)
        gradient = x.T @ (weight * (q - p))
        hessian = x.T @ (x * (weight * q * (1 - q))[:, None])
        if np.linalg.cond(hessian) > 1e12:
            return _none(n, "on the held-out prompts some concepts cannot be told from each other")
        step = np.linalg.solve(hessian, gradient)
        beta = beta - step * min(1.0, 5.0 / max(np.abs(x @ step).max(), 1e-300))
        if np.abs(x @ beta).max() > _SEPARATED:
            return _none(n, "the concepts separate the held-out pairs, so no finite weights are best")
        if np.abs(step).max() < 1e-10:
            break
    q = sigmoid(x @ beta)
    scores = np.zeros((n_groups, n))
    np.add.at(scores, place, x * (weight * (q - p))[:, None])
    bread = np.linalg.inv(x.T @ (x * (weight * q * (1 - q))[:, None]))
    covariance = bread @ (scores.T @ scores) @ bread * n_groups / (n_groups - 1)
    half = _NORMAL * np.sqrt(np.diag(covariance))
    return Refit(beta, beta - half, beta + half)


def _none(n: int, why: str) -> Refit:
    nothing = np.full(n, math.nan)
    return Refit(nothing, nothing, nothing, why)
