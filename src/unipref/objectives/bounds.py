"""Scores and references that are held at bounds. Shapes: I items, P pairs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.parts import Part, wide
from unipref.objectives.units import pair

__all__ = ["WEIGHT_ON", "frozen", "harmonic_mixture", "kinked"]

WEIGHT_ON = ("other", "own")


@dataclass(frozen=True, repr=False)
class kinked(Part):
    """A score that counts `below` times where it is negative: 0 cuts it off there, more than 1 makes losses heavy.

    At 0, where every response stands while the policy is the reference, the gradient is that of the positive side.
    """

    of: Part
    below: float

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        values = self.of(batch)
        return torch.where(values >= 0, values, self.below * values)


@dataclass(frozen=True, repr=False)
class frozen(Part):
    """The sum of weight * reference over frozen policies, in nats times the weights, without gradient.

    Attributes:
        references: (column, weight) pairs; weights that add up to 0 make a log-ratio of policies.
    """

    references: tuple[tuple[str, float], ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.references)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        return sum(weight * wide(batch.item(name).detach()) for name, weight in self.references)  # type: ignore[return-value]


@dataclass(frozen=True, repr=False)
class harmonic_mixture(Part):
    """-scale * contrast of log mix - log base: exchanges the reference "ref_logp" for a harmonic mixture with others.

    1 / mix = sum_k w_k / pi_k, so the smallest probability rules. Each further reference is first held near the base:
    between (1 + e) and (1 - e) times its log-probability, e = radius on both sides of the pair together.

    Attributes:
        scale: beta of the score.
        extra: columns of the further references.
        radius: e, divided over the two responses by the size of their mean log-probabilities; below 0 it is |e| on
            either; None holds nothing.
        confidence: share of the further references together; None for shares by how far each parts the pair.
        weight_on: "own": a reference's confidence weighs its own 1 / pi_k; "other": of two, that of the other one.
    """

    scale: float
    extra: tuple[str, ...] = ("ref_logp.1",)
    radius: float | None = 0.1
    confidence: float | None = None
    weight_on: str = "other"

    flips = True

    def __post_init__(self) -> None:
        if self.weight_on not in WEIGHT_ON:
            raise ConfigError(f"weight_on={self.weight_on!r}{nearest(str(self.weight_on), WEIGHT_ON)}")
        if not self.extra:
            raise ConfigError("a mixture of references needs a further one beside ref_logp, such as 'ref_logp.1'")
        if self.weight_on == "other" and len(self.extra) > 1:
            raise ConfigError(f"weight_on='other' speaks of two references, not {1 + len(self.extra)}; take 'own'")
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ConfigError(f"alpha is a share, in [0, 1], or None for adaptive ones: {self.confidence}")

    @property
    def reads(self) -> tuple[str, ...]:
        return ("ref_logp", *self.extra)

    def __call__(self, batch: Batch, unit: pair) -> Tensor:
        """(P,)"""
        up, down = unit.sides(batch)
        columns = torch.stack([wide(batch.item(name).detach()) for name in (*self.extra, "ref_logp")])
        chosen, rejected = columns[:, up], columns[:, down]
        share = self._shares(chosen - rejected)
        if self.weight_on == "other":
            share = share.flip(0)
        radius = self._radii(chosen.mean(0).abs(), rejected.mean(0).abs())
        lifts = [_lift(side, e, share) for side, e in zip((chosen, rejected), radius, strict=True)]
        return -self.scale * (lifts[0] - lifts[1])

    def _shares(self, gaps: Tensor) -> Tensor:
        """(K, P) confidences that add up to 1; the base, which is last, has what the others leave."""
        if self.confidence is None:
            others = gaps[:-1].abs() / (gaps.abs().sum(0) + 1e-6)
        else:
            others = torch.full_like(gaps[:-1], self.confidence / len(self.extra))
        return torch.cat([others, (1 - others.sum(0, keepdim=True)).clamp(min=0)])

    def _radii(self, chosen: Tensor, rejected: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(P,) for each side; None where nothing is held."""
        if self.radius is None:
            return None, None
        if self.radius < 0:
            both = torch.full_like(chosen, -self.radius)
            return both, both
        total = chosen + rejected
        share = torch.where(total > 0, chosen / torch.where(total > 0, total, 1.0), 0.5)
        return self.radius * share, self.radius * (1 - share)


def _lift(logps: Tensor, radius: Tensor | None, share: Tensor) -> Tensor:
    """(P,) log mix - log base of (K, P) log-probabilities, the base last."""
    base = logps[-1]
    others = logps[:-1] if radius is None else logps[:-1].clamp((1 + radius) * base, (1 - radius) * base)
    away = torch.cat([others - base, torch.zeros_like(base)[None]])
    log_share = torch.where(share > 0, share.clamp(min=torch.finfo(share.dtype).tiny).log(), -math.inf)
    return -torch.logsumexp(log_share - away, 0)
