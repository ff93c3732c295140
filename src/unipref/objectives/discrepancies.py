"""Discrepancies: how far a contrast is from its target. Links take a probability, regressions a number.

Shapes: N rows of the term.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part

__all__ = ["expectile", "hinge", "linear", "linex", "logistic", "saturating", "square"]


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
        return F.softplus(-z)


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
        return torch.where(residual < 0, 1 - self.tau, self.tau) * residual**2


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
