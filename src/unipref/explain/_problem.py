"""The hierarchical pair regression as a convex problem: objective, gradient, curvature, and a certificate.

    min over b, s_1..s_D   sum_d [ L_d(b + s_d) + alpha L_d(b) ] + lambda_b |b|_1 + lambda_s sum_d |s_d|_1
    L_d(v) = sum_i w_i [ log(1 + e^(x_i v)) - p_i x_i v ],   sum of w_i over domain d = 1

p_i is the probability that the first response is preferred, so that votes and ties are rows as they are.

Source: arXiv:2505.20088 Eq. 1. The paper prints L_d as a sum; with its penalties only the mean over a domain's rows is
sparse, and the mean is what is here.

Shapes: D domains, N_d rows, C concepts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.statistics import sigmoid

__all__ = ["Domain", "Point", "Problem"]

_ROWS = 1 << 15  # of a chunk: what is weighted or converted is never a copy of all rows


@dataclass(frozen=True, eq=False)
class Domain:
    """The rows of one domain.

    Attributes:
        x: (N_d, C) first response's concept values minus the second's, of any float type.
        p: (N_d,) probability that the first is preferred.
        w: (N_d,) weights that add up to 1.
    """

    x: np.ndarray
    p: np.ndarray
    w: np.ndarray

    def logits(self, weights_CK: np.ndarray) -> np.ndarray:
        """(N_d, K) float64."""
        out = np.empty((len(self.x), weights_CK.shape[1]))
        for rows in self._chunks():
            out[rows] = self.x[rows].astype(np.float64, copy=False) @ weights_CK
        return out

    def back(self, residual_NK: np.ndarray) -> np.ndarray:
        """(C, K): the rows' concept values weighted by `residual_NK` and added up."""
        out = np.zeros((self.x.shape[1], residual_NK.shape[1]))
        for rows in self._chunks():
            out += self.x[rows].astype(np.float64, copy=False).T @ residual_NK[rows]
        return out

    def curvature(self, weights_N: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(c, c): sum_i weights_i x_i x_i^T over `columns`."""
        out = np.zeros((len(columns), len(columns)))
        for rows in self._chunks():
            part = self.x[rows][:, columns].astype(np.float64, copy=False)
            out += part.T @ (part * weights_N[rows, None])
        return out

    def _chunks(self) -> list[slice]:
        return [slice(start, start + _ROWS) for start in range(0, len(self.x), _ROWS)]

    def loss(self, z: np.ndarray) -> float:
        """L_d of rows with logits `z`."""
        return float(self.w @ (np.logaddexp(0.0, z) - self.p * z))

    def conjugate(self, q: np.ndarray) -> float:
        """sum_i w_i (q log q + (1 - q) log(1 - q)): L_d's convex conjugate where residuals are w (q - p)."""
        inner = np.zeros_like(q)
        for part in (q, 1.0 - q):
            inner += part * np.log(part, out=np.zeros_like(part), where=part > 0)
        return float(self.w @ inner)


@dataclass(frozen=True, eq=False)
class Point:
    """Weights and all that the objective says of them.

    Attributes:
        b: (C,) shared; s: (D, C) specific to a domain.
        both, shared: per domain, probabilities under b + s_d and under b; `shared` is empty where alpha is 0.
        smooth: the objective without its penalties; objective: with them.
        grad_b, grad_s: of `smooth`, (C,) and (D, C).
    """

    b: np.ndarray
    s: np.ndarray
    both: list[np.ndarray]
    shared: list[np.ndarray]
    smooth: float
    objective: float
    grad_b: np.ndarray
    grad_s: np.ndarray


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows, penalties, and which weights may differ from 0.

    Attributes:
        may_b: (C,) bool, concepts with a shared weight; may_s: (D, C) bool, with a weight of the domain's own.
    """

    domains: Sequence[Domain]
    alpha: float
    lambda_b: float
    lambda_s: float
    may_b: np.ndarray
    may_s: np.ndarray

    def at(self, b: np.ndarray, s: np.ndarray) -> Point:
        """The objective and its gradient."""
        both, shared, smooth, grad_b, grad_s = [], [], 0.0, np.zeros_like(b), np.zeros_like(s)
        for d, domain in enumerate(self.domains):
            columns = [b + s[d], b] if self.alpha > 0 else [b + s[d]]
            z = domain.logits(np.stack(columns, axis=1))
            q = sigmoid(z)
            smooth += domain.loss(z[:, 0]) + (self.alpha * domain.loss(z[:, 1]) if self.alpha > 0 else 0.0)
            back = domain.back(domain.w[:, None] * (q - domain.p[:, None]))
            grad_s[d] = back[:, 0]
            grad_b += back[:, 0] + (self.alpha * back[:, 1] if self.alpha > 0 else 0.0)
            both.append(q[:, 0])
            if self.alpha > 0:
                shared.append(q[:, 1])
        penalty = self.lambda_b * np.abs(b).sum() + self.lambda_s * np.abs(s).sum()
        return Point(b, s, both, shared, smooth, smooth + float(penalty), grad_b, grad_s)

    def gap(self, point: Point) -> float:
        """Objective minus a lower bound of the optimum, at least 0 up to rounding: by how much `point` can be off.

        The bound is the dual at the residuals w (q - p), scaled down until they satisfy its constraints.
        """
        over = [np.abs(point.grad_b[self.may_b]).max(initial=0.0) / self.lambda_b if self.lambda_b else np.inf]
        over += [np.abs(point.grad_s[self.may_s]).max(initial=0.0) / self.lambda_s if self.lambda_s else np.inf]
        unpenalised = (not self.lambda_b and self.may_b.any()) or (not self.lambda_s and self.may_s.any())
        if unpenalised:
            return np.inf  # the dual has equality constraints there, which scaling cannot meet
        scale = 1.0 / max(1.0, *(value for value in over if np.isfinite(value)))
        bound = 0.0
        for d, domain in enumerate(self.domains):
            bound -= domain.conjugate(domain.p + scale * (point.both[d] - domain.p))
            if self.alpha > 0:
                bound -= self.alpha * domain.conjugate(domain.p + scale * (point.shared[d] - domain.p))
        return point.objective - bound

    def violation(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """How far each weight is from its optimality condition, (C,) and (D, C); 0 for weights that are held at 0."""
        b = _distance(point.grad_b, point.b, self.lambda_b) * self.may_b
        return b, _distance(point.grad_s, point.s, self.lambda_s) * self.may_s


def _distance(gradient: np.ndarray, weight: np.ndarray, penalty: float) -> np.ndarray:
    """From -gradient to the subdifferential of penalty * |weight|."""
    at_zero = np.maximum(np.abs(gradient) - penalty, 0.0)
    return np.where(weight == 0, at_zero, np.abs(gradient + penalty * np.sign(weight)))
