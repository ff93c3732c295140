"""Targets: what a contrast should be. Shapes: N rows of the term."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.lists import log_softmax
from unipref.objectives.parts import Part, wide
from unipref.objectives.units import Lists, group, pair, point

__all__ = [
    "boltzmann",
    "denoised",
    "labels",
    "log_ratio_of",
    "logit",
    "majority",
    "reach",
    "smoothed",
    "undoubted",
    "win_rate",
]


@dataclass(frozen=True, repr=False)
class labels(Part):
    """p as the data has it: 1 for a hard pair, the column "preference" where there is one, a response's label."""

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        """(N,), or 1.0 where every row is hard."""
        preferred = unit.preferred(batch)
        return 1.0 if preferred is None else preferred


@dataclass(frozen=True, repr=False)
class smoothed(Part):
    """p (1 - flip) + (1 - p) flip: as if every label were wrong with probability `flip`."""

    flip: float

    def __post_init__(self) -> None:
        _check(self.flip)

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        """(N,), or a number where every row is hard."""
        p = labels()(batch, unit)
        return p * (1 - self.flip) + (1 - p) * self.flip


@dataclass(frozen=True, repr=False)
class denoised(Part):
    """(p - flip) / (1 - 2 flip): undoes, on average, labels that are wrong with probability `flip`.

    It lies outside [0, 1] for hard labels: the swapped pair gets a negative weight.
    """

    flip: float

    def __post_init__(self) -> None:
        _check(self.flip)

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        """(N,), or a number where every row is hard."""
        return (labels()(batch, unit) - self.flip) / (1 - 2 * self.flip)


@dataclass(frozen=True, repr=False)
class undoubted(Part):
    """p / (2 p - 1): `denoised` where each label says itself how often it is wrong, 1 - p; 1/2 at p = 1/2.

    It lies outside [0, 1] and grows without bound towards p = 1/2, where a label says nothing.
    """

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        """(N,), or 1.0 where every row is hard."""
        p = labels()(batch, unit)
        if not isinstance(p, Tensor):
            return p
        says = p != 0.5
        return torch.where(says, p / torch.where(says, 2 * p - 1, 1.0), 0.5)


def _check(flip: float) -> None:
    if not 0 <= flip < 0.5:
        raise ConfigError(f"flip must be in [0, 0.5): {flip} would reward the rejected side as often as the chosen one")


@dataclass(frozen=True, repr=False)
class majority(Part):
    """1 where p is above one half, 0 below, 1/2 at a split: a vote's winner, without by how much."""

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        """(N,), or 1.0 where every row is hard."""
        p = labels()(batch, unit)
        return 0.5 * (1 + torch.sign(2 * p - 1)) if isinstance(p, Tensor) else p


@dataclass(frozen=True, repr=False)
class logit(Part):
    """log(p / (1 - p)) of another target's probability p, which must lie inside (0, 1): smooth a hard label first."""

    of: Part

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor | float:
        """(N,), or a number where every row is hard."""
        p = self.of(batch, unit)
        return torch.logit(p) if isinstance(p, Tensor) else math.log(p) - math.log1p(-p)


@dataclass(frozen=True, repr=False)
class reach(Part):
    """scale * an external number per response that the score should reach, without gradient."""

    of: Part
    scale: float = 1.0

    def __call__(self, batch: Batch, unit: pair | point | group) -> Tensor | Lists:
        """(N,), of groups (G, K); 0 where nobody measured, in rows that do not count."""
        return unit.contrast(self.scale * self.of(batch).detach(), batch).nan_to_num()


@dataclass(frozen=True, repr=False)
class log_ratio_of(Part):
    """Log-probability under another model minus that under the reference, in nats, without gradient: what it rewards.

    Attributes:
        model: the other model's column, "ref_logp.NAME".
        mean: divide by the response's tokens.
    """

    model: str
    mean: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.model, "ref_logp", *(("len",) if self.mean else ()))

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        ratio = wide(batch.item(self.model).detach()) - wide(batch.item("ref_logp").detach())
        return ratio / batch.item("len").detach().to(ratio.dtype).clamp(min=1) if self.mean else ratio


@dataclass(frozen=True, repr=False)
class boltzmann(Part):
    """softmax(of / temperature) over the record's responses: nearly the best one alone for a small temperature."""

    of: Part
    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(
                f"temperature must be above 0, got {self.temperature}; a small one is almost the best alone"
            )

    def __call__(self, batch: Batch, unit: group) -> Lists:
        """(G, K) shares that add up to 1."""
        values, mask = reach(self.of, 1 / self.temperature)(batch, unit)
        return Lists(log_softmax(values, mask).exp() * mask, mask)


@dataclass(frozen=True, repr=False)
class win_rate(Part):
    """The share of the record's other responses that a response beats, ties by half; the mean over several judges."""

    of: tuple[Part, ...]

    def __call__(self, batch: Batch, unit: group) -> Lists:
        """(G, K) in [0, 1]."""
        rates = [self._rate(*unit.contrast(judge(batch).detach(), batch)) for judge in self.of]
        return Lists(sum(values for values, _ in rates) / len(rates), rates[0][1])

    @staticmethod
    def _rate(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        here, there = values[:, :, None], values[:, None, :]
        beaten = ((here > there).to(values.dtype) + (here == there).to(values.dtype) / 2) * mask[:, None, :]
        # a response ties with itself, which is no comparison
        return (beaten.sum(2) - 0.5) / (mask.sum(1, keepdim=True) - 1).clamp(min=1), mask
