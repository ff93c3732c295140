"""Offsets: what is added to a contrast before it meets its discrepancy. Shapes: N rows of the term."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part, wide
from unipref.objectives.scores import column
from unipref.objectives.states import moving
from unipref.objectives.statistics import kl_baseline
from unipref.objectives.units import pair, point

__all__ = [
    "agreement_margin",
    "centre",
    "difference",
    "length_gap",
    "margin",
    "normalised",
    "required_lead",
    "required_leads",
    "shift",
    "strength_margin",
]


@dataclass(frozen=True, repr=False)
class margin(Part):
    """-amount: the preferred side has to lead by `amount` more, whichever side of a soft label that is."""

    amount: float

    flips = False

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        return -self.amount


@dataclass(frozen=True, repr=False)
class strength_margin(Part):
    """-scale * the pair's own `margin`: how much more the preferred side has to lead; 0 where a pair has none.

    As with `margin` it is asked of whichever side of a soft label is meant. Without such a column it is 0 throughout.
    """

    scale: float = 1.0

    flips = False

    def __call__(self, batch: Batch, unit: pair) -> Tensor | float:
        """(P,)"""
        given = batch.pairs.get("margin")
        return 0.0 if given is None else -self.scale * wide(given.detach()).nan_to_num()


@dataclass(frozen=True, repr=False)
class agreement_margin(Part):
    """-scale * |2 p - 1|: a lead that grows with how far the pair's voters agree; none where they are split."""

    scale: float = 1.0

    flips = False

    def __call__(self, batch: Batch, unit: pair) -> Tensor | float:
        """(P,), or a number where every row is hard."""
        p = unit.preferred(batch)
        return -self.scale if p is None else -self.scale * (2 * p - 1).abs()


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
        values = self.of(batch).detach()
        # lengths are integers, float32 where they are widened; the scale is applied in the precision of the scores
        values = values.to(torch.promote_types(values.dtype, wide(batch.item("logp")).dtype))
        return self.scale * unit.contrast(values, batch).nan_to_num()


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


@dataclass(frozen=True, repr=False)
class required_lead(Part):
    """Half of -scale * log(a - b), by which the preferred response has to lead: `of` says a of it, b of the other.

    Only a response with a > b has to lead: elsewhere, and where a number is missing, nothing is asked. So the orders of
    a pair ask for different leads; half their difference flips with the pair, half their sum does not, and a term takes
    both (see `required_leads`). No gradient.

    Attributes:
        ratio: log(a / b), of positive numbers, in place of log(a - b).
    """

    of: Part
    scale: float = 1.0
    ratio: bool = False
    flips: bool = True

    def __call__(self, batch: Batch, unit: pair) -> Tensor:
        """(P,)"""
        value = self.of(batch).detach()
        sides = [unit.across(value, torch.zeros_like(value), batch, swapped=swapped) for swapped in (False, True)]
        ahead, behind = self._lead(*sides), self._lead(*sides[::-1])
        return -self.scale / 2 * (ahead - behind if self.flips else ahead + behind)

    def _lead(self, preferred: Tensor, other: Tensor) -> Tensor:
        counts = (preferred > other) & (other > 0) if self.ratio else preferred > other  # never true of NaN
        gap = preferred / other if self.ratio else preferred - other
        return torch.where(counts, gap, 1.0).log()


def required_leads(of: Part, scale: float = 1.0, *, ratio: bool = False) -> tuple[required_lead, required_lead]:
    """-scale * log(of(preferred) - of(other)), or of their ratio: the two halves of `required_lead`."""
    return required_lead(of, float(scale), ratio, True), required_lead(of, float(scale), ratio, False)


@dataclass(frozen=True, repr=False)
class normalised(Part):
    """scale * contrast of what `by` watches, in its running deviations; 0 while they are 0. No gradient.

    With `centre(by, -scale)` it is the distance from the running mean.
    """

    by: moving
    scale: float = 1.0

    flips = True

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor:
        """(N,)"""
        values = unit.contrast(self.by.of(batch).detach(), batch)
        return self.scale * values * self.by.precision(batch).to(values.dtype)


@dataclass(frozen=True, repr=False)
class centre(Part):
    """scale * the running mean of what `by` watches, in its running deviations; 0 while they are 0. No gradient."""

    by: moving
    scale: float = 1.0

    flips = False

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor:
        """0-d"""
        return self.scale * wide(self.by.read(batch, "mean")) * wide(self.by.precision(batch))
