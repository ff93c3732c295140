"""Targets: what a contrast should be. Shapes: N rows of the term."""

from dataclasses import dataclass

from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part
from unipref.objectives.units import pair, point

__all__ = ["denoised", "labels", "reach", "smoothed"]


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


def _check(flip: float) -> None:
    if not 0 <= flip < 0.5:
        raise ConfigError(f"flip must be in [0, 0.5): {flip} would reward the rejected side as often as the chosen one")


@dataclass(frozen=True, repr=False)
class reach(Part):
    """An external number per response that the score should reach, without gradient."""

    of: Part

    def __call__(self, batch: Batch, unit: pair | point) -> Tensor:
        """(N,); 0 where nobody measured, in rows that do not count."""
        return unit.contrast(self.of(batch).detach(), batch).nan_to_num()
