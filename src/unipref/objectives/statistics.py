"""Statistics: numbers over a whole step, taken first and without gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.objectives.parts import Part, exact
from unipref.objectives.scores import log_ratio

__all__ = ["kl_baseline"]

_LOG_RATIO = log_ratio()


@dataclass(frozen=True, repr=False)
class kl_baseline(Part):
    """z0 = max(0, mean log-ratio of mismatched responses): KTO's estimate of how far the policy drifted, in nats.

    Source: arXiv:2402.01306, the estimate below Eq. 7.
    """

    score: Part = _LOG_RATIO
    name: str = "kl_baseline"

    @torch.no_grad()
    def sums(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(numerator, denominator), each 0-d float64, over a batch of mismatched responses, by example weight."""
        values = exact(self.score(batch))
        weight = exact(batch.items["weight"]) if "weight" in batch.items else torch.ones_like(values)
        return (weight * values).sum(), weight.sum()

    def value(self, numerator: Tensor, denominator: Tensor) -> Tensor:
        """0-d: the statistic from global sums; 0 where nothing was summed."""
        some = denominator > 0
        return torch.where(some, numerator / torch.where(some, denominator, 1.0), 0.0).clamp(min=0)
