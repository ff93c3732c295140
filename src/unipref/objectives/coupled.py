"""Parts and terms that tie the rows of a step together, so that a step must come as one batch.

Shapes: I items, P pairs, N rows of the term.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.discrepancies import Link
from unipref.objectives.parts import Part, exact, wide
from unipref.objectives.randomness import uniform
from unipref.objectives.states import moving, oriented
from unipref.objectives.targets import labels
from unipref.objectives.terms import Term
from unipref.objectives.units import pair, point
from unipref.objectives.weights import one

__all__ = ["across_prompts", "contrast_matrix", "dynamic", "log_mean_exp", "outlier_filter", "robust"]


@dataclass(frozen=True, repr=False)
class outlier_filter(Part):
    """A weight that keeps a random share of the step's pairs, rather those near the running mean; 0 for the others.

    Pairs are drawn without replacement with weights exp(-((gap - mean) / std)^2 / 2), alike while std is 0. The kept
    ones share the weight of all, so that the term is their mean. At least one is kept.

    Attributes:
        by: the gap's running mean and deviation.
        drop: share that is left out.
        seed: of the draw, which also depends on the step and on the pair.
    """

    by: moving
    drop: float = 0.2
    seed: int = 0

    couples = True

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise ConfigError(f"the share of pairs that is left out must be in [0, 1), got {self.drop}")

    @property
    def reads(self) -> tuple[str, ...]:
        return ("uid",) if self.drop > 0 else ()

    @torch.no_grad()
    def __call__(self, batch: Batch, unit: pair) -> tuple[Tensor, Tensor]:
        """(P,) twice."""
        rows, kept = exact(unit.weight(batch)), self.kept(batch, unit)
        share = rows.sum() / (rows * kept).sum().clamp(min=torch.finfo(rows.dtype).tiny)
        weight = (kept * share).to(wide(batch.item("logp")).dtype)
        return weight, weight

    @torch.no_grad()
    def kept(self, batch: Batch, unit: pair) -> Tensor:
        """(P,) True for the pairs that are kept; none whose example weight is 0."""
        some = unit.weight(batch) > 0
        if self.drop == 0:
            return some
        gap = oriented(unit.contrast(exact(self.by.of(batch)), batch), batch, unit)
        far = (gap - exact(self.by.read(batch, "mean"))) * self.by.precision(batch)
        # whichever side is called chosen, a pair draws the same number
        sides = torch.stack([batch.item("uid").long()[side] for side in unit.sides(batch)])
        noise = uniform(self.seed, batch.clock.step, sides.min(0).values, sides.max(0).values).to(gap.dtype)
        # the largest of log-weight + Gumbel noise are a draw without replacement (Efraimidis and Spirakis 2006)
        key = (-(far**2) / 2 - torch.log(-torch.log(noise))).masked_fill(~some, -math.inf)
        n = math.floor(int(some.sum()) * (1 - self.drop) + 1e-9)  # 10 * (1 - 0.2) is 8, whatever floats say
        place = torch.argsort(torch.argsort(key, descending=True))
        return some & (place < max(n, 1))


@dataclass(frozen=True, repr=False)
class dynamic(Part):
    """max(least, beta * (1 + slope * (mean gap of the step - running mean))) times a score; no gradient in the factor.

    Attributes:
        of: the score, in nats.
        by: the gap's running mean.
        among: which pairs the step's mean counts.
    """

    of: Part
    by: moving
    among: outlier_filter
    beta: float = 0.1
    slope: float = 0.6
    least: float = 1e-3

    couples = True

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        values = self.of(batch)
        return self.factor(batch).to(values.dtype) * values

    @torch.no_grad()
    def factor(self, batch: Batch) -> Tensor:
        """0-d float64: the step's beta."""
        unit = pair()
        gap = oriented(unit.contrast(exact(self.by.of(batch)), batch), batch, unit)
        weight = exact(unit.weight(batch)) * self.among.kept(batch, unit)
        mean = (weight * gap).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
        some = (weight.sum() > 0).to(mean.dtype)
        return (self.beta * (1 + some * self.slope * (mean - exact(self.by.read(batch, "mean"))))).clamp(min=self.least)


@dataclass(frozen=True, repr=False)
class Coupled(Term):
    """Base of terms whose rows have one loss together: `values` gives it to every row, so that their mean is it."""

    couples = True

    def together(self, batch: Batch) -> Tensor:
        """0-d: the loss of all rows; finite where no row counts."""
        raise TypeError(f"{type(self).__name__} has no loss of all rows")

    def values(self, batch: Batch) -> Tensor:
        return self.together(batch).expand(len(self.rows(batch)))


def _as_term(term: Coupled) -> Term:
    return Term(**{f.name: getattr(term, f.name) for f in fields(Term)})


@dataclass(frozen=True, repr=False)
class log_mean_exp(Coupled):
    """-temperature * log mean e^(-loss / temperature) of a term's rows: rows of high loss count less; see `robust`."""

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ConfigError(f"the temperature must be above 0, got {self.temperature}")

    def together(self, batch: Batch) -> Tensor:
        loss = _as_term(self).values(batch)
        rows = self.rows(batch).to(loss.dtype)
        rows = torch.where(rows.sum() > 0, rows, torch.ones_like(rows))
        if not len(rows):
            return loss.sum()
        spread = torch.logsumexp(rows.log() - loss / self.temperature, 0) - rows.sum().log()
        return -self.temperature * spread

    def __repr__(self) -> str:
        return f"robust({_as_term(self)!r}, {self.temperature!r})"


def robust(term: Term, temperature: float) -> log_mean_exp:
    """`term` with -temperature * log mean e^(-loss / temperature) for the mean; its coefficient stays outside."""
    return log_mean_exp(**{f.name: getattr(term, f.name) for f in fields(Term)}, temperature=float(temperature))


@dataclass(frozen=True, repr=False)
class across_prompts(Coupled):
    """The mean over every preferred response i and every other response j of the step; see `contrast_matrix`."""

    similarity: float | None = None
    own: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.discrepancy, Link):
            raise ConfigError(f"a contrast across prompts needs a link, not {self.discrepancy!r}")
        for slot, plain in (("offset", ()), ("target", labels()), ("weight", one())):
            if getattr(self, slot) != plain:
                raise ConfigError(f"a contrast across prompts has no {slot} per pair; it got {getattr(self, slot)!r}")
        if self.similarity is not None and not self.similarity > 0:
            raise ConfigError(f"the temperature of the similarity must be above 0, got {self.similarity}")

    @property
    def reads(self) -> tuple[str, ...]:
        return () if self.similarity is None else ("embedding",)

    def together(self, batch: Batch) -> Tensor:
        score = self.score(batch)
        preferred, other, both = self._masses(batch, score.dtype)
        contrast = score[:, None] - score[None, :]
        if self.similarity is not None:
            contrast = self._nearness(batch, other).to(score.dtype) * contrast
        loss = (both * self.discrepancy(contrast)).sum(1)
        count = both.sum(1)  # of each preferred response: the responses it is compared with
        rows = torch.where(count > 0, preferred / torch.where(count > 0, count, 1.0), 0.0)
        total = preferred.sum()
        return (rows * loss).sum() / torch.where(total > 0, total, 1.0)

    def _masses(self, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """(I,) weight as the preferred and as the other response, and (I, I) weight of j beside the preferred i."""
        weight, p = self.rows(batch).to(dtype), self.unit.preferred(batch)
        p = torch.ones_like(weight) if p is None else p.to(dtype)
        if isinstance(self.unit, point):
            preferred, other = weight * p, weight * (1 - p)
            return (
                preferred,
                other,
                other.expand(len(other), -1) * ~torch.eye(len(other), dtype=torch.bool, device=other.device),
            )
        nothing, (up, down) = weight.new_zeros(len(batch.item("logp"))), self.unit.sides(batch)
        preferred = nothing.index_add(0, up, weight * p).index_add(0, down, weight * (1 - p))
        other = nothing.index_add(0, down, weight * p).index_add(0, up, weight * (1 - p))
        record = torch.zeros_like(nothing, dtype=torch.long).index_add(0, up, torch.arange(len(up), device=up.device))
        record = record.index_add(0, down, torch.arange(len(up), device=up.device))
        same = record[:, None] == record[None, :]
        # in its own pair a preferred response meets the other one, whose weight is then the whole pair's
        own = (preferred + other)[None, :] * (same & ~torch.eye(len(same), dtype=torch.bool, device=same.device))
        both = torch.where(same, own if self.own else 0.0, other[None, :].expand(len(other), -1))
        return preferred, other, both

    def _nearness(self, batch: Batch, other: Tensor) -> Tensor:
        """(I, I) softmax over the other responses j of -(1 - cos(i, j)) / similarity, by their weight."""
        direction = F.normalize(wide(batch.item("embedding").detach()), dim=1)
        near = (direction @ direction.T - 1) / self.similarity
        some = (other > 0) | ~(other > 0).any()
        log_weight = torch.where(some, other, 1.0).clamp(min=torch.finfo(other.dtype).tiny).log()
        total = torch.logsumexp((near + log_weight).masked_fill(~some, -math.inf), 1, keepdim=True)
        return torch.exp((near - total).masked_fill(~some, -math.inf))

    def __repr__(self) -> str:
        shown: dict[str, Any] = {"score": self.score, "link": self.discrepancy}
        shown |= {"of": "labelled"} if isinstance(self.unit, point) else {}
        shown |= {} if self.similarity is None else {"similarity": self.similarity}
        shown |= {} if self.own else {"own": False}
        prefix = "" if self.coefficient == 1 else f"{self.coefficient!r} * "
        return f"{prefix}contrast_matrix({self.name!r}, {', '.join(f'{k}={v!r}' for k, v in shown.items())})"


def contrast_matrix(
    name: str, *, score: Part, link: Link, of: str = "pairs", similarity: float | None = None, own: bool = True
) -> across_prompts:
    """The mean of link(w_ij * (score_i - score_j)) over the preferred responses i and the other responses j of a step.

    Args:
        of: "pairs": preferred and other sides of pairs; "labelled": desirable and undesirable single responses, 0 where
            the step lacks either.
        similarity: temperature of w_ij, the softmax over j of -(1 - cos) of the responses' "embedding"; None for 1.
        own: a preferred response meets the other one of its own pair too.
    """
    unit = {"pairs": pair(), "labelled": point("labelled")}.get(of)
    if unit is None:
        raise ConfigError(f"contrast_matrix(of={of!r}) knows 'pairs' and 'labelled'")
    return across_prompts(name, score, unit, link, similarity=similarity, own=own)
