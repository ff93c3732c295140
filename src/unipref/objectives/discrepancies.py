"""Discrepancies: how far a contrast is from its target. Links take a probability, regressions a number.

Shapes: N rows of the term.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part

__all__ = [
    "class_entropy",
    "expectile",
    "held",
    "hinge",
    "linear",
    "linex",
    "logistic",
    "saturating",
    "square",
    "tempered",
    "transport",
]


class Link(Part):
    """A function of the contrast that falls while the preferred side gains.

    With target p it is p * link(z) + (1 - p) * link(-z), so a swapped pair with target 1 - p is the same row.
    """

    def between(
        self,
        z: Tensor,
        target: Tensor | float,
        extra: Tensor | float,
        weight: tuple[Tensor | float, Tensor | float],
        back: Tensor | None = None,
    ) -> Tensor:
        """(N,) losses.

        Args:
            extra: added on both sides.
            weight: of the event and of its opposite.
            back: the contrast of the swapped pair; -z where it is None.
        """
        for_it, against_it = weight
        loss = for_it * target * self(z + extra)
        if isinstance(target, float) and target == 1:
            return loss
        return loss + against_it * (1 - target) * self(extra + (-z if back is None else back))


class Regression(Part):
    """A function of target minus contrast that is least at 0."""

    def between(
        self, z: Tensor, target: Tensor | float, extra: Tensor | float, weight: tuple[Tensor | float, Tensor | float]
    ) -> Tensor:
        """(N,) losses."""
        return weight[0] * self(target - (z + extra))


@dataclass(frozen=True, repr=False)
class logistic(Link):
    """-log sigmoid(z) = log(1 + e^-z)."""

    def __call__(self, z: Tensor) -> Tensor:
        return -F.logsigmoid(z)  # softplus(-z) is a straight line below z = -20, which costs digits in float64


@dataclass(frozen=True, repr=False)
class hinge(Link):
    """max(0, at - z)."""

    at: float = 1.0

    def __call__(self, z: Tensor) -> Tensor:
        return torch.relu(self.at - z)


@dataclass(frozen=True, repr=False)
class square(Link):
    """(z - at)^2."""

    at: float = 1.0

    def __call__(self, z: Tensor) -> Tensor:
        return (z - self.at) ** 2


@dataclass(frozen=True, repr=False)
class held(Link):
    """A link of the contrast held within `limit` of 0; beyond it there is no gradient. At the limit there still is."""

    of: Link
    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ConfigError(f"a contrast is held within -limit ... limit, and limit must be above 0: {self.limit}")

    def __call__(self, z: Tensor) -> Tensor:
        return self.of(z.clamp(-self.limit, self.limit))


@dataclass(frozen=True, repr=False)
class saturating(Link):
    """1 - sigmoid(z): flat at both ends, so extreme rows have no pull."""

    def __call__(self, z: Tensor) -> Tensor:
        return torch.sigmoid(-z)


@dataclass(frozen=True, repr=False)
class linear(Link):
    """-z: likelihood, where the score is a log-probability."""

    def __call__(self, z: Tensor) -> Tensor:
        return -z


@dataclass(frozen=True, repr=False)
class expectile(Regression):
    """|tau - 1(u < 0)| u^2 of the residual u; tau = 1/2 fits the mean, tau towards 1 the maximum."""

    tau: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.tau < 1:
            raise ConfigError(f"tau must be between 0 and 1, got {self.tau}")

    def __call__(self, residual: Tensor) -> Tensor:
        square = residual**2
        return torch.where(residual < 0, (1 - self.tau) * square, self.tau * square)  # two numbers would be float32


@dataclass(frozen=True, repr=False)
class linex(Regression):
    """(e^(lam u) - lam u - 1) / lam^2 of the residual u; its minimiser is the soft value (1/lam) log E e^(lam R).

    At lam = 0 it is u^2 / 2, the same as `expectile(0.5)`. Past lam u = 20 it goes on as its tangent, so that one
    outlier does not overflow.
    """

    lam: float

    _LAST = 20.0

    def __call__(self, residual: Tensor) -> Tensor:
        u = self.lam * residual
        if abs(self.lam) < 1e-6:
            return residual**2 / 2
        inside = u.clamp(max=self._LAST)
        # expm1(u) - u loses its digits near 0: u^2 (1/2 + u/6 + u^2/24) is exact to float64 there
        near = inside**2 * (0.5 + inside / 6 + inside**2 / 24)
        far = torch.expm1(inside) - inside
        beyond = (u - inside) * torch.expm1(inside)
        return (torch.where(inside.abs() < 1e-3, near, far) + beyond) / self.lam**2


@dataclass(frozen=True, repr=False)
class class_entropy(Part):
    """-log softmax(z)[k] of a row of class scores z and the class k in 0 ... C - 1 that the target names.

    Where the target has a share per class, the mean of this by their shares.
    """

    def between(self, z: Tensor, target: Tensor, extra: float, weight: tuple[Tensor | float, Tensor | float]) -> Tensor:
        """(N,) losses of (N, C) scores and of (N,) classes, or (N, C) shares that add up to 1.

        An offset moves all classes alike: `extra` does not enter.
        """
        goal = target.long() if target.ndim == 1 else target.to(z.dtype)
        return weight[0] * F.cross_entropy(z, goal, reduction="none")


@dataclass(frozen=True, repr=False)
class transport(Part):
    """How far the shares softmax(z) of ordered classes have to be carried to become the target's: Wasserstein's W1.

    sum_j |F_j - G_j| of the two cumulated shares, in steps from one class to the next: a wrong class costs by how far
    it is from the right one, which cross-entropy does not see. Where both agree the gradient is 0.
    """

    def between(self, z: Tensor, target: Tensor, extra: float, weight: tuple[Tensor | float, Tensor | float]) -> Tensor:
        """(N,) losses of (N, C) scores and (N, C) shares that add up to 1. `extra` does not enter."""
        ahead = (torch.softmax(z, dim=1) - target.to(z.dtype)).cumsum(dim=1)
        return weight[0] * ahead[:, :-1].abs().sum(dim=1)  # the last is 1 - 1


@dataclass(frozen=True, repr=False)
class tempered(Link):
    """tau * -log sigmoid(z / tau) at the row's own tau, which takes no gradient.

    tau minimises tau * -log sigmoid(z / tau) - tau log 2 + rho * tau, or rho * tau^2 where `quadratic`, in [low, high].
    It solves H(sigmoid(z / tau)) = log 2 - rho, H the entropy in nats: tau = |z| / c in closed form, and by bisection
    where quadratic. It grows with |z|; between the bounds the loss is linear in z.

    Attributes:
        low, high: bounds of tau; `high` None for none.
    """

    rho: float = 0.1
    low: float = 0.1
    high: float | None = 5.0
    quadratic: bool = False

    def __post_init__(self) -> None:
        if not self.rho > 0:
            raise ConfigError(f"rho must be above 0, got {self.rho}; small ones make every temperature the highest")
        if not 0 < self.low <= (math.inf if self.high is None else self.high):
            raise ConfigError(f"temperatures need 0 < tau_min <= tau_max, got {self.low} and {self.high}")

    def __call__(self, z: Tensor) -> Tensor:
        tau = self.temperature(z)
        return -tau * F.logsigmoid(z / tau)

    @torch.no_grad()
    def temperature(self, z: Tensor) -> Tensor:
        """(N,)"""
        size, high = z.abs(), math.inf if self.high is None else self.high
        if not self.quadratic:
            return (size / self.critical).clamp(self.low, high)
        top = min(high, max(self.low, math.log(2) / (2 * self.rho)))  # the entropy is at least 0
        below, above = torch.full_like(size, self.low), torch.full_like(size, top)
        for _ in range(60):
            tau = (below + above) / 2
            rising = _entropy(size / tau) > math.log(2) - 2 * self.rho * tau
            below, above = torch.where(rising, below, tau), torch.where(rising, tau, above)
        return (below + above) / 2

    @cached_property
    def critical(self) -> float:
        """c > 0 with H(sigmoid(c)) = log 2 - rho; infinite where rho is log 2 or more."""
        below, above = 0.0, 100.0
        if self.rho >= math.log(2):
            return math.inf
        for _ in range(200):
            middle = (below + above) / 2
            enough = float(_entropy(torch.tensor(middle, dtype=torch.float64))) <= math.log(2) - self.rho
            below, above = (below, middle) if enough else (middle, above)
        return above


def _entropy(u: Tensor) -> Tensor:
    """Entropy of sigmoid(u) in nats, for u >= 0: log(1 + e^-u) + u sigmoid(-u)."""
    return F.softplus(-u) + u * torch.sigmoid(-u)
