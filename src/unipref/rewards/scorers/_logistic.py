"""Logistic regression on sparse rows, fitted to its optimum, with the strength of its penalty chosen inside the data.

The problem is convex and has one solution, so what comes back does not depend on where the fit starts or on its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unipref.core.errors import ConfigError
from unipref.features.terms import Rows
from unipref.rewards._threads import one_thread

__all__ = ["Fit", "calibration", "choose_penalty", "fit"]

_STEPS = 500
_TOLERANCE = 1e-5  # largest gradient entry, of a loss summed over texts, at which the fit ends
_ROUGH = 1e-2  # the same where only penalties are compared


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear score: `weights` per column and a `bias`; positive speaks for the positive label."""

    weights: np.ndarray
    bias: float

    def logits(self, rows: Rows) -> np.ndarray:
        """(n,) log odds of the positive label."""
        return rows.times(self.weights) + self.bias


def fit(
    rows: Rows,
    labels: np.ndarray,
    *,
    size: int,
    penalty: float,
    counts: np.ndarray | None = None,
    start: Fit | None = None,
    tolerance: float = _TOLERANCE,
) -> Fit:
    """The minimiser of sum_i counts_i log(1 + exp(-s_i z_i)) + penalty / 2 |w|^2, s_i = +-1; the bias is free.

    Args:
        labels: (n,) True for the positive label.
        size: columns.
        counts: (n,) how often a row counts; all once where not given.
        start: from where, for speed alone.
        tolerance: largest entry of the gradient at which it ends.

    Raises:
        ConfigError: the fit did not come to rest.
    """
    sign = torch.from_numpy(np.where(labels, 1.0, -1.0))
    weight = torch.from_numpy(np.ones(rows.n) if counts is None else counts.astype(np.float64))
    first = np.zeros(size + 1) if start is None else np.append(start.weights, start.bias)
    found = torch.from_numpy(first).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [found],
        max_iter=_STEPS,
        max_eval=2 * _STEPS,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        values = found.detach().numpy()
        logits = torch.from_numpy(rows.times(values[:-1]) + values[-1])
        loss = (weight * torch.nn.functional.softplus(-sign * logits)).sum() + penalty / 2 * float(
            values[:-1] @ values[:-1]
        )
        slope = (-weight * sign * torch.sigmoid(-sign * logits)).numpy()
        gradient = np.append(rows.transposed_times(slope, size) + penalty * values[:-1], slope.sum())
        found.grad = torch.from_numpy(gradient)
        return loss

    with one_thread(), torch.enable_grad():
        optimizer.step(closure)
        closure()
    rest = float(found.grad.abs().max())
    if not rest < 100 * tolerance:
        raise ConfigError(f"the classifier's fit did not come to rest (gradient {rest:.2g}); give a larger penalty")
    values = found.detach().numpy()
    return Fit(values[:-1].copy(), float(values[-1]))


def choose_penalty(
    rows: Rows, labels: np.ndarray, fold: np.ndarray, *, size: int, penalties: Sequence[float]
) -> tuple[float, np.ndarray]:
    """The penalty with the least log loss on rows that a fit has not seen, and these rows' log odds under it.

    Args:
        fold: (n,) number of the part that a row is in; each part is held out once.
        penalties: largest first, so that a fit starts near its solution.
    """
    logits = {penalty: np.zeros(rows.n) for penalty in penalties}
    for part in np.unique(fold):
        inside = (fold != part).astype(np.float64)
        found = None
        for penalty in penalties:
            found = fit(rows, labels, size=size, penalty=penalty, counts=inside, start=found, tolerance=_ROUGH)
            logits[penalty][fold == part] = found.logits(rows)[fold == part]
    sign = np.where(labels, 1.0, -1.0)
    losses = {penalty: float(np.logaddexp(0.0, -sign * value).mean()) for penalty, value in logits.items()}
    best = min(penalties, key=lambda penalty: losses[penalty])
    return best, logits[best]


def calibration(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(slope, shift) that make slope * logit + shift the log odds that `labels` show; Platt's, on unseen rows.

    Raises:
        ConfigError: the logits say nothing of the labels, or the opposite.
    """
    rows = Rows(np.arange(len(logits)), np.zeros(len(logits), np.int64), logits, len(logits))
    found = fit(rows, labels, size=1, penalty=1e-6)
    if not found.weights[0] > 0:
        raise ConfigError(
            "the classifier does no better than chance on texts it has not seen; give more labelled texts, "
            "other terms (unit, order), or check the labels"
        )
    return float(found.weights[0]), found.bias
