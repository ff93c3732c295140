"""Objective weights: how much a row counts in the numerator. None carries a gradient, and none enters a denominator.

(Example weights are columns of the batch and enter both.) Shapes: N rows of the term.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part, exact, wide
from unipref.objectives.scores import advantage, log_ratio
from unipref.objectives.tokens import clipped_ratio
from unipref.objectives.units import pair, point

__all__ = [
    "class_weights",
    "density_ratio",
    "exp_advantage",
    "importance",
    "one",
    "positive",
    "preferred_mix",
    "product",
    "signed",
    "strength_weight",
]

_ADVANTAGE, _LOG_RATIO = advantage(), log_ratio()


@dataclass(frozen=True, repr=False)
class one(Part):
    """Every row counts once."""

    def __call__(self, batch: Batch, unit: pair | point) -> tuple[float, float]:
        return 1.0, 1.0


@dataclass(frozen=True, repr=False)
class class_weights(Part):
    """One weight for desirable responses and one for undesirable ones."""

    desirable: float = 1.0
    undesirable: float = 1.0

    def __call__(self, batch: Batch, unit: pair | point) -> tuple[float, float]:
        return self.desirable, self.undesirable


@dataclass(frozen=True, repr=False)
class density_ratio(Part):
    """1 for desirable responses, and for undesirable ones a ratio of densities p(x | desirable) / p(x | undesirable).

    Attributes:
        of: the ratio, a column.
        least, most: it is held between these.
    """

    of: Part
    least: float = 0.5
    most: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ConfigError(f"a density ratio lies between 0 <= least <= most: {self.least}, {self.most}")

    def __call__(self, batch: Batch, unit: pair | point) -> tuple[float, Tensor]:
        """1, and (N,)."""
        ratio = unit.contrast(self.of(batch).detach().nan_to_num(), batch)
        return 1.0, ratio.clamp(self.least, self.most)


@dataclass(frozen=True, repr=False)
class positive(Part):
    """max(0, of): what is below 0 does not count."""

    of: Part = _ADVANTAGE

    def __call__(self, batch: Batch, unit: pair | point) -> tuple[Tensor, Tensor]:
        """(N,) twice."""
        weight = unit.contrast(self.of(batch).detach().nan_to_num(), batch).clamp(min=0)
        return weight, weight


@dataclass(frozen=True, repr=False)
class importance(Part):
    """Policy over reference of a whole response, held within `clip` of 1; None lets it be."""

    clip: float | None
    of: Part = _LOG_RATIO

    def __call__(self, batch: Batch, unit: pair | point) -> tuple[Tensor, Tensor]:
        """(N,) twice."""
        ratio = clipped_ratio(unit.contrast(self.of(batch).detach(), batch), self.clip)
        return ratio, ratio


@dataclass(frozen=True, repr=False)
class preferred_mix(Part):
    """sum_i by_i * of_i of the preferred response, at least 0.

    With a soft label each side of the pair is weighed by its own numbers. A row counts where both sides have them.
    """

    of: tuple[Part, ...]
    by: tuple[float, ...]

    def __call__(self, batch: Batch, unit: pair) -> tuple[Tensor, Tensor]:
        """(P,) of the chosen response, and (P,) of the rejected one."""
        total = sum(w * part(batch).detach().nan_to_num() for part, w in zip(self.of, self.by, strict=True))
        chosen, rejected = unit.sides(batch)
        return total[chosen].clamp(min=0), total[rejected].clamp(min=0)


@dataclass(frozen=True, repr=False)
class signed(Part):
    """A pair's difference in `of`, below 0 where the preferred side has the smaller number: that turns the row's loss.

    The swapped pair weighs the opposite. A row counts where both sides have the number.
    """

    of: Part

    def __call__(self, batch: Batch, unit: pair) -> tuple[Tensor, Tensor]:
        """(P,), and its negative."""
        difference = unit.contrast(self.of(batch).detach().nan_to_num(), batch)
        return difference, -difference


@dataclass(frozen=True, repr=False)
class strength_weight(Part):
    """scale * |the pair's own `margin`|: a pair that people felt strongly about counts more; 1 where it has none."""

    scale: float = 1.0

    def __call__(self, batch: Batch, unit: pair) -> tuple[Tensor | float, Tensor | float]:
        """(P,) twice: both sides of a soft label are meant as strongly."""
        given = batch.pairs.get("margin")
        if given is None:
            return 1.0, 1.0
        weight = self.scale * wide(given.detach()).abs()
        weight = torch.where(weight.isnan(), 1.0, weight)
        return weight, weight


@dataclass(frozen=True, repr=False)
class product(Part):
    """Weights multiplied."""

    of: tuple[Part, ...]

    def __call__(self, batch: Batch, unit: pair | point) -> tuple[Tensor | float, Tensor | float]:
        """(N,) of the event, and of its opposite."""
        for_it, against_it = zip(*(part(batch, unit) for part in self.of), strict=True)
        return math.prod(for_it), math.prod(against_it)


@dataclass(frozen=True, repr=False)
class exp_advantage(Part):
    """e^(lam A): how strongly a logged response is imitated. Always positive, so nothing is pushed down.

    Attributes:
        lam: inverse temperature; 0 makes every weight 1.
        advantage: A.
        cap: largest log-weight lam A; None, the paper's form, lets it grow.
        positive_only: responses with A <= 0 get weight 0.
    """

    lam: float
    advantage: Part = _ADVANTAGE
    cap: float | None = None
    positive_only: bool = False

    def __post_init__(self) -> None:
        if self.lam < 0:
            raise ConfigError(f"lam must not be negative: {self.lam} would imitate the worst responses most")

    def __call__(self, batch: Batch, unit: pair | point) -> tuple[Tensor, Tensor]:
        """(N,) twice."""
        value = self._advantage(batch, unit)
        exponent = self.lam * value
        weight = torch.exp(exponent if self.cap is None else exponent.clamp(max=self.cap))
        if self.positive_only:
            weight = weight * (value > 0)
        return weight, weight

    def summary(self, batch: Batch, unit: pair | point, rows: Tensor) -> dict[str, Tensor]:
        """0-d numbers over `rows`, the (N,) example weights; NaN where no row counts.

        "ess": effective sample size as a share, 1 where all weights are equal; "advantage": its mean; "capped": the
        share of rows whose weight the cap holds down.
        """
        value = exact(self._advantage(batch, unit))
        weight, rows = exact(self(batch, unit)[0]), exact(rows)
        capped = torch.zeros_like(value) if self.cap is None else exact(self.lam * value > self.cap)
        total = rows.sum()
        return {
            "ess": (rows * weight).sum() ** 2 / (total * (rows * weight**2).sum()),
            "advantage": (rows * value).sum() / total,
            "capped": (rows * capped).sum() / total,
        }

    def _advantage(self, batch: Batch, unit: pair | point) -> Tensor:
        return unit.contrast(self.advantage(batch).detach().nan_to_num(), batch)
