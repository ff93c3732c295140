"""Offsets: what is added to a contrast before it meets its discrepancy. Shapes: N rows of the term."""

from dataclasses import dataclass

from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part, wide
from unipref.objectives.scores import column
from unipref.objectives.statistics import kl_baseline
from unipref.objectives.units import pair, point

__all__ = ["difference", "length_gap", "margin", "shift"]


@dataclass(frozen=True, repr=False)
class margin(Part):
    """-amount: the preferred side has to lead by `amount` more, whichever side of a soft label that is."""

    amount: float

    flips = False

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        return -self.amount


@dataclass(frozen=True, repr=False)
class difference(Part):
    """scale * contrast(of): an external number, compared as the score is, without gradient.

    Where it is missing (NaN on a side) the offset is 0 and the row keeps its plain loss.
    """

    of: Part
    scale: float = 1.0

    flips = True

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor:
        """(N,)"""
        return self.scale * unit.contrast(self.of(batch).detach(), batch).nan_to_num()


def length_gap(alpha: float) -> difference:
    """alpha * (tokens of the chosen response - tokens of the rejected one)."""
    return difference(column("len"), float(alpha))


@dataclass(frozen=True, repr=False)
class shift(Part):
    """scale * a statistic of the step, without gradient."""

    by: kl_baseline
    scale: float = 1.0

    flips = True

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor:
        """0-d"""
        try:
            return self.scale * wide(batch.statistics[self.by.name].detach())
        except KeyError:
            raise ConfigError(
                f"the objective needs the statistic {self.by.name!r}; take it from `objective.statistics` over "
                f"mismatched responses, or give {self.by.name} as a 0-dimensional field"
            ) from None
