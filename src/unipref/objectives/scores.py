"""Scores: one number per response. Shapes: I items (responses)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import ROLES
from unipref.objectives.parts import Part, wide

__all__ = [
    "advantage",
    "affine",
    "beside",
    "clipped",
    "column",
    "detached",
    "group_mean",
    "head",
    "log1mexp",
    "log_odds",
    "log_ratio",
    "logp",
    "mean_logp",
    "plus",
    "scaled",
    "sequence",
    "shortfall",
    "sides",
    "value_head",
]

_REFERENCE = (("ref_logp", 1.0),)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x <= 0, without cancellation at either end; finite, with finite gradient, at x = 0 too.

    x is held at most one machine epsilon below 0, where the gradient is 0.
    """
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    # expm1 keeps the digits near 0, log1p those far from it (Maechler 2012)
    return torch.where(x > -math.log(2), torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def _per_token(values: Tensor, batch: Batch, eta: float) -> Tensor:
    if eta == 0:
        return values
    length = batch.item("len").detach().to(values.dtype).clamp(min=1)  # an empty response has log-probability 0: 0 / 1
    return values / (length if eta == 1 else length**eta)


@dataclass(frozen=True, repr=False)
class sequence(Part):
    """scale * (logp - sum of weight * reference) / len^eta, in nats times `scale`.

    Made by `log_ratio`, `logp` and `mean_logp`. No gradient reaches a reference.

    Attributes:
        references: (column, weight) pairs; the columns are "ref_logp" or "ref_logp.NAME".
        eta: length exponent, 0 for sums and 1 for means over tokens.
    """

    scale: float = 1.0
    references: tuple[tuple[str, float], ...] = ()
    eta: float = 0.0

    reads_logp = True

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.references) + (("len",) if self.eta != 0 else ())

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        total = wide(batch.item("logp"))
        for name, weight in self.references:
            total = total - weight * wide(batch.item(name).detach())
        return self.scale * _per_token(total, batch, self.eta)

    def __repr__(self) -> str:
        scale = "" if self.scale == 1 else repr(self.scale)
        if not self.references and self.eta == 1:
            return f"mean_logp({scale})"
        arguments = [scale] if scale else []
        if self.references and self.references != _REFERENCE:
            arguments.append(f"references={dict(self.references)!r}")
        if self.eta != 0:
            arguments.append(f"eta={self.eta!r}")
        return f"{'log_ratio' if self.references else 'logp'}({', '.join(arguments)})"


def log_ratio(beta: float = 1.0, *, references: Mapping[str, float] | None = None, eta: float = 0.0) -> sequence:
    """beta * log(policy / reference), the implicit reward of a response.

    Args:
        references: column -> weight; several are one geometric mixture. Default: {"ref_logp": 1.0}.
        eta: length exponent; 1 divides by the response's tokens.
    """
    pairs = _REFERENCE if references is None else tuple((k, float(v)) for k, v in sorted(references.items()))
    if not pairs:
        raise ConfigError("log_ratio needs a reference; a score without one is logp() or mean_logp()")
    return sequence(float(beta), pairs, float(eta))


def logp(scale: float = 1.0, *, eta: float = 0.0) -> sequence:
    """scale * logp / len^eta."""
    return sequence(float(scale), (), float(eta))


def mean_logp(scale: float = 1.0) -> sequence:
    """scale * logp / len: the same as `logp(scale, eta=1)`."""
    return sequence(float(scale), (), 1.0)


@dataclass(frozen=True, repr=False)
class log_odds(Part):
    """log(p / (1 - p)) of p = exp(mean_logp), the geometric mean of the response's token probabilities."""

    reads_logp = True

    @property
    def reads(self) -> tuple[str, ...]:
        return ("len",)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        mean = _per_token(wide(batch.item("logp")), batch, 1.0)
        return mean - log1mexp(mean)


@dataclass(frozen=True, repr=False)
class sides(Part):
    """Two scores for a pair that treats its sides apart: `chosen` of the preferred, `rejected` of the other response.

    What is logged as a response's implicit reward is `chosen`.
    """

    chosen: Part
    rejected: Part

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return self.chosen(batch)


@dataclass(frozen=True, repr=False)
class plus(Part):
    """The sum of two scores."""

    first: Part
    second: Part

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return self.first(batch) + self.second(batch)


@dataclass(frozen=True, repr=False)
class scaled(Part):
    """A score times a schedule's number at the step the run has reached."""

    of: Part
    by: Part

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return self.by(batch.clock) * self.of(batch)


@dataclass(frozen=True, repr=False)
class affine(Part):
    """scale * (of + plus)."""

    of: Part
    scale: float = 1.0
    plus: float = 0.0

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return self.scale * (self.of(batch) + self.plus)


@dataclass(frozen=True, repr=False)
class clipped(Part):
    """A score held within `limit` of 0; beyond it there is no gradient. At the limit itself there still is."""

    of: Part
    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ConfigError(f"a score is clipped to -limit ... limit, and limit must be above 0: {self.limit}")

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return self.of(batch).clamp(-self.limit, self.limit)


@dataclass(frozen=True, repr=False)
class detached(Part):
    """A score as a number: it counts, and has no gradient."""

    of: Part

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return self.of(batch).detach()


@dataclass(frozen=True, repr=False)
class beside(Part):
    """For every item, the mean of `of` over the texts of one role in its record, all alike; 0 where it has none.

    The gradient goes to those texts.
    """

    of: Part
    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES[1:]:
            raise ConfigError(f"beside(role={self.role!r}){nearest(self.role, ROLES[1:])}")

    @property
    def reads(self) -> tuple[str, ...]:
        return ("group",)

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles besides "response" that the data must have."""
        return (self.role,)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)

        Raises:
            ConfigError: no text of the batch has a role.
        """
        if "role" not in batch.items:
            raise ConfigError(
                f"the objective needs a {self.role!r} text beside the responses, and the batch has none; "
                f"give the data a column {self.role!r} (in flat fields: NAME_{self.role})"
            )
        group = torch.unique(batch.item("group"), return_inverse=True)[1]
        values = self.of(batch)
        rows = (batch.items["role"] == ROLES.index(self.role)).nonzero()[:, 0]
        empty = values.new_zeros(len(values))
        sums = empty.index_add(0, group[rows], values[rows])
        counts = empty.index_add(0, group[rows], torch.ones_like(values[rows]))
        return (sums / counts.clamp(min=1))[group]


@dataclass(frozen=True, repr=False)
class shortfall(Part):
    """max(0, -of): how far a score is below 0. At 0 itself there is no gradient."""

    of: Part

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return torch.relu(-self.of(batch))


@dataclass(frozen=True, repr=False)
class column(Part):
    """An external number per response, such as a reward; no gradient, and NaN where nobody measured."""

    name: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def observed(self) -> tuple[str, ...]:
        return (self.name,)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return wide(batch.item(self.name).detach())

    def __repr__(self) -> str:
        return f"column({self.name!r})"


@dataclass(frozen=True, repr=False)
class value_head(Part):
    """V(x): what the value head says of the response's context. The gradient flows."""

    @property
    def reads(self) -> tuple[str, ...]:
        return ("value",)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return wide(batch.item("value"))


@dataclass(frozen=True, repr=False)
class head(Part):
    """What the head `name` says of each item, such as "step_value". The gradient flows."""

    name: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.name,)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,), or (I, C) for a head of C numbers."""
        return wide(batch.item(self.name))

    def __repr__(self) -> str:
        return f"head({self.name!r})"


@dataclass(frozen=True, repr=False)
class group_mean(Part):
    """The mean of `of` over the batch's responses of one record, by example weight; NaN ones do not count."""

    of: Part = column("reward")

    @property
    def reads(self) -> tuple[str, ...]:
        return ("group",)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        values = self.of(batch)
        group = torch.unique(batch.item("group"), return_inverse=True)[1]
        weight = wide(batch.items["weight"]) if "weight" in batch.items else torch.ones_like(values)
        weight = weight * ~values.isnan()
        sums = values.new_zeros(len(values))
        totals = sums.index_add(0, group, weight.to(values.dtype) * values.nan_to_num())
        counts = sums.index_add(0, group, weight.to(values.dtype))
        return (totals / counts)[group]


@dataclass(frozen=True, repr=False)
class advantage(Part):
    """A = R - sg[V(x)]: a reward over its baseline, without gradient; NaN where the reward is.

    Attributes:
        reward: the reward R.
        baseline: V; `value_head()`, `group_mean()`, or None for 0.
    """

    reward: Part = column("reward")
    baseline: Part | None = value_head()

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        reward = self.reward(batch)
        return reward if self.baseline is None else reward - self.baseline(batch).detach()
