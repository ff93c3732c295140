"""Schedules: factors on a term's coefficient that change over a run."""

from dataclasses import dataclass

from unipref.core.batch import Clock
from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part

__all__ = ["gate", "ramp"]


@dataclass(frozen=True, repr=False)
class gate(Part):
    """0 until a share of the run, or a number of optimiser steps, is done; 1 from then on."""

    after_share: float | None = None
    after_steps: int | None = None

    def __post_init__(self) -> None:
        if (self.after_share is None) == (self.after_steps is None):
            raise ConfigError("a gate opens after_share of the run or after_steps: give one of the two")
        if self.after_share is not None and not 0 <= self.after_share <= 1:
            raise ConfigError(f"after_share is a share of the run, in [0, 1]: {self.after_share}")
        if self.after_steps is not None and self.after_steps < 0:
            raise ConfigError(f"after_steps counts optimiser steps: {self.after_steps}")

    def __call__(self, clock: Clock) -> float:
        done, needed = (clock.share, self.after_share) if self.after_steps is None else (clock.step, self.after_steps)
        return float(done >= needed)


@dataclass(frozen=True, repr=False)
class ramp(Part):
    """From `start` at the run's first step to `end` at its last, in a straight line."""

    start: float
    end: float

    def __call__(self, clock: Clock) -> float:
        return self.start + (self.end - self.start) * min(clock.share, 1.0)
