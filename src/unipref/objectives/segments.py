"""Segments: parts of a response with a judge's number each, matched across the sides of a pair.

Shapes: I items, P pairs, T scored tokens, S segments of the longest response.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.discrepancies import Link, logistic
from unipref.objectives.parts import Part, wide
from unipref.objectives.units import pair

__all__ = ["Matched", "by_segment", "denoised_segments", "flipped_segments", "matched", "segments", "worst_segments"]

_LOGISTIC = logistic()


class Matched(NamedTuple):
    """What the matched segments of every pair say.

    Attributes:
        values: (P, S) judge's number times score of the chosen side's segment, minus the same of the rejected side's.
        mask: (P, S) True where two segments are matched.
        chosen: (P, S) the score alone, of the chosen side's segment.
        rejected: (P, S) of the rejected side's.
    """

    values: Tensor
    mask: Tensor
    chosen: Tensor
    rejected: Tensor

    def __add__(self, offset: object) -> "Matched":  # type: ignore[override]
        raise _whole()


def _whole() -> ConfigError:
    return ConfigError(
        "the term compares segments, and got one number for a whole response: score with by_segment(), without offsets"
    )


def _cells(batch: Batch) -> tuple[Tensor, Tensor, int, int]:
    """(T,) the cell of an (I, S) table that each token falls into, (T,) whether it is in a segment, I and S."""
    segment = batch.token("segment").long()
    inside = segment >= 0
    n_segments = int(segment.max()) + 1 if len(segment) and inside.any() else 1
    n_items = len(next(iter(batch.items.values())))
    return batch.token("item") * n_segments + segment.clamp(min=0), inside, n_items, n_segments


@dataclass(frozen=True, repr=False)
class by_segment(Part):
    """scale * (logp - reference), summed over the tokens of each segment; 0 where a response has no such segment."""

    scale: float = 1.0
    reference: str = "ref_logp"

    @property
    def token_reads(self) -> tuple[str, ...]:
        return ("logp", self.reference, "segment")

    def __call__(self, batch: Batch) -> Tensor:
        """(I, S)"""
        cell, inside, n_items, n_segments = _cells(batch)
        ratio = wide(batch.token("logp")) - wide(batch.token(self.reference).detach())
        table = torch.zeros(n_items * n_segments, dtype=ratio.dtype, device=ratio.device)
        return self.scale * table.index_add(0, cell, ratio * inside).reshape(n_items, n_segments)


@dataclass(frozen=True, repr=False)
class matched(pair):
    """The chosen side's best segments against the rejected side's worst, rank by rank, as many as both sides have.

    A pair in which a side has no segment with a number does not count.
    """

    asymmetric = True

    @property
    def token_reads(self) -> tuple[str, ...]:
        return ("segment", "segment_score")

    def contrast(self, values: Tensor, batch: Batch) -> Matched:
        """(P, S) of the (I, S) `values`.

        Raises:
            ConfigError: there is one value per response.
        """
        if values.ndim != 2:
            raise _whole()
        return self._match(values, batch, *self.sides(batch))

    def reverse(self, values: Tensor, batch: Batch) -> Matched:
        """The same as if the sides of every pair changed places."""
        chosen, rejected = self.sides(batch)
        return self._match(values, batch, rejected, chosen)

    def weight(self, batch: Batch) -> Tensor:
        """(P,) example weights; 0 where nothing can be matched."""
        _, scored = self._judged(batch)
        some = scored.any(1)
        chosen, rejected = self.sides(batch)
        return super().weight(batch) * (some[chosen] & some[rejected])

    def _judged(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(I, S) the judge's number of every segment, and where there is one."""
        cell, inside, n_items, n_segments = _cells(batch)
        number = wide(batch.token("segment_score").detach())
        inside = inside & ~number.isnan()
        shape = (n_items, n_segments)
        table = torch.zeros(n_items * n_segments, dtype=number.dtype, device=number.device)
        table[cell[inside]] = number[inside]  # all tokens of a segment have its number
        present = torch.zeros(n_items * n_segments, dtype=torch.bool, device=number.device)
        present[cell[inside]] = True
        return table.reshape(shape), present.reshape(shape)

    def _match(self, values: Tensor, batch: Batch, up: Tensor, down: Tensor) -> Matched:
        number, present = self._judged(batch)
        number = number.to(values.dtype)
        last = torch.finfo(number.dtype).max
        best = torch.argsort(number[up].masked_fill(~present[up], -last), dim=1, descending=True, stable=True)
        worst = torch.argsort(number[down].masked_fill(~present[down], last), dim=1, stable=True)
        n_both = torch.minimum(present[up].sum(1), present[down].sum(1))
        mask = torch.arange(number.shape[1], device=number.device) < n_both[:, None]
        chosen, rejected = values[up].gather(1, best), values[down].gather(1, worst)
        lead = number[up].gather(1, best) * chosen - number[down].gather(1, worst) * rejected
        return Matched(lead, mask, chosen, rejected)


@dataclass(frozen=True, repr=False)
class segments(Part):
    """A link on every matched pair of segments, summed over a pair of responses."""

    link: Link = _LOGISTIC

    def between(
        self,
        z: Matched,
        target: Tensor | float,
        extra: Tensor | float,
        weight: tuple[Tensor | float, Tensor | float],
        back: Matched,
    ) -> Tensor:
        """(P,) losses; with a soft target those of both orders, by their probability.

        Raises:
            ConfigError: there is an offset, `extra`.
        """
        if isinstance(extra, Tensor) or extra:
            raise _whole()
        loss = weight[0] * target * self._sum(z)
        if isinstance(target, float) and target == 1:
            return loss
        return loss + weight[1] * (1 - target) * self._sum(back)

    def _sum(self, z: Matched) -> Tensor:
        return (self.losses(z) * z.mask).sum(1)

    def losses(self, z: Matched) -> Tensor:
        """(P, S), also where nothing is matched: there it does not count."""
        return self.link(z.values)


@dataclass(frozen=True, repr=False)
class denoised_segments(segments):
    """The logistic link without what Gaussian noise in the judge's numbers adds to it, to second order.

    With numbers r + e, e of mean 0 and deviation `noise`, the expected loss is the clean one plus
    1/2 sigmoid' (u) noise^2 (l_w^2 + l_l^2), l the segments' scores. That is taken away; `conservative` adds it.

    Attributes:
        noise: standard deviation of the judge's numbers.
        bound: largest noise * |l| that enters, since the expansion fails for more.
    """

    noise: float = 0.5
    conservative: bool = False
    bound: float = 1.0

    def __post_init__(self) -> None:
        if self.noise < 0:
            raise ConfigError(f"noise is a standard deviation, at least 0: {self.noise}")
        if not isinstance(self.link, logistic):
            raise ConfigError(f"denoised_segments expands the logistic link, not {self.link!r}; leave the link out")

    def losses(self, z: Matched) -> Tensor:
        u = z.values
        reach = [(self.noise * side).clamp(-self.bound, self.bound) ** 2 for side in (z.chosen, z.rejected)]
        penalty = 0.5 * torch.sigmoid(u) * torch.sigmoid(-u) * (reach[0] + reach[1])
        return self.link(u) + (penalty if self.conservative else -penalty)


@dataclass(frozen=True, repr=False)
class flipped_segments(segments):
    """((1 - flip) link(u) - flip link(-u)) / (1 - 2 flip): unbiased where matched segments are swapped at that rate."""

    flip: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.flip < 0.5:
            raise ConfigError(f"flip must be in [0, 0.5): {self.flip} would reward the worse segment as often")

    def losses(self, z: Matched) -> Tensor:
        u = z.values
        return ((1 - self.flip) * self.link(u) - self.flip * self.link(-u)) / (1 - 2 * self.flip)


@dataclass(frozen=True, repr=False)
class worst_segments(segments):
    """The link at u - radius (|l_w| + |l_l|): the worst that judge's numbers off by up to `radius` can make of it."""

    radius: float = 0.5

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ConfigError(f"radius is a largest error, at least 0: {self.radius}")

    def losses(self, z: Matched) -> Tensor:
        return self.link(z.values - self.radius * (z.chosen.abs() + z.rejected.abs()))
