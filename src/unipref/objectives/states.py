"""States: numbers that live longer than a step. They are renewed once per optimiser step, never in evaluation.

Shapes: N rows of the unit that is watched.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part, exact, wide
from unipref.objectives.units import pair, point

__all__ = ["State", "moving", "oriented", "reading"]

_PAIR = pair()
_NO_SPREAD = 1e-6  # float32 log-ratios of a policy that is its reference differ by less


class State(Part):
    """Base of the states: sums over a step's batches, a vector that they renew, and the numbers a loss reads of it.

    A state reads the policy's own values, so a step whose loss has one is scored before it is trained on.
    """

    name: str
    n_sums: int = 0  # K

    def sums(self, batch: Batch) -> Tensor:
        """(K,) float64 sums that add up over the batches of a step; without gradient."""
        raise TypeError(f"{type(self).__name__} is a state without sums")

    def renewed(self, state: Tensor | None, sums: Tensor) -> Tensor:
        """The state after a step with `sums`; `state` is None before the first."""
        raise TypeError(f"{type(self).__name__} is a state that is never renewed")

    def values(self, state: Tensor | None) -> Mapping[str, Tensor]:
        """0-d numbers by name, as the batch's statistics hold them."""
        raise TypeError(f"{type(self).__name__} is a state without values")

    def read(self, batch: Batch, value: str) -> Tensor:
        """0-d: the number `value` of this state.

        Raises:
            ConfigError: the batch does not have it.
        """
        try:
            return batch.statistics[f"{self.name}_{value}"].detach()
        except KeyError:
            raise ConfigError(
                f"the objective needs the running {value} {self.name}_{value!s}: PreferenceTrainer keeps it; in a loop "
                f"of your own renew `objective.states` and pass their values as 0-dimensional fields"
            ) from None


@dataclass(frozen=True, repr=False)
class moving(State):
    """Moving mean and deviation over steps of a number's contrast, by example weight: NAME_mean and NAME_std.

    Of a pair with a soft label it is the contrast's mean over both orders, by their probability.

    Attributes:
        of: a number per item.
        unit: over which rows it is taken.
        momentum: share of the past.
        corrected: divide by the share of the past that has been seen, so that the first step already counts in full;
            without it the moving values start at 0 and are too small for some ten steps, as in much released code.
    """

    name: str
    of: Part
    unit: pair | point = _PAIR
    momentum: float = 0.9
    corrected: bool = True

    n_sums = 4

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is the share of the past, in [0, 1): {self.momentum}")

    @torch.no_grad()
    def sums(self, batch: Batch) -> Tensor:
        """(4,): rows, weights, weighted values, weighted squares."""
        values, weight = exact(self.unit.contrast(self.of(batch), batch)), exact(self.unit.weight(batch))
        first, second = (weight * oriented(values, batch, self.unit)).sum(), (weight * values**2).sum()
        return torch.stack([exact(weight > 0).sum(), weight.sum(), first, second])

    def renewed(self, state: Tensor | None, sums: Tensor) -> Tensor:
        """(3,): moving mean, moving deviation (unbiased; 0 where a step has one row), share seen."""
        rows, weight, first, second = sums.unbind()
        state = sums.new_zeros(3) if state is None else state
        if weight <= 0:
            return state
        mean = first / weight
        spread = (second / weight - mean**2).clamp(min=0) * (rows / (rows - 1) if rows > 1 else 0.0)
        step = torch.stack([mean, spread.sqrt(), torch.ones_like(mean)])
        return self.momentum * state + (1 - self.momentum) * step

    def values(self, state: Tensor | None) -> Mapping[str, Tensor]:
        """NAME_mean and NAME_std; 0 before the first step."""
        if state is None:
            state = torch.zeros(3, dtype=torch.float64)
        seen = state[2] if self.corrected and state[2] > 0 else torch.ones_like(state[2])
        return {f"{self.name}_mean": state[0] / seen, f"{self.name}_std": state[1] / seen}

    def precision(self, batch: Batch) -> Tensor:
        """0-d float64: 1 / NAME_std; 0 where that is rounding, as while policy and reference agree."""
        spread = exact(self.read(batch, "std"))
        some = spread > _NO_SPREAD
        return torch.where(some, 1 / torch.where(some, spread, 1.0), 0.0)


@dataclass(frozen=True, repr=False)
class reading(Part):
    """What a state holds, the same number for every response; no gradient."""

    of: State
    value: str = "mean"

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        logp = wide(batch.item("logp"))
        return wide(self.of.read(batch, self.value)).to(logp.dtype).expand(len(logp))


def oriented(values: Tensor, batch: Batch, unit: pair | point) -> Tensor:
    """(N,) contrasts, in pairs the mean over both orders by their probability: the contrast itself of a hard label."""
    p = unit.preferred(batch) if isinstance(unit, pair) else None
    return values if p is None else (2 * p - 1).to(values.dtype) * values
