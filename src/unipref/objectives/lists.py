"""Discrepancies of whole lists: what the scores of a record's responses should be together.

Shapes: G groups, K places of the longest group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.objectives.parts import Part
from unipref.objectives.units import Lists

__all__ = ["ListLoss", "cross_entropy"]


class ListLoss(Part):
    """Base: `losses` of every group from its scores and what they should be."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """(G,) of (G, K) scores and targets; where `mask` is False nothing may enter, not even through a gradient."""
        raise TypeError(f"{type(self).__name__} is no loss of lists")

    def between(self, z: Lists, target: Lists, extra: float, weight: tuple[Tensor | float, Tensor | float]) -> Tensor:
        """(G,) losses with objective weights. A constant offset moves no list, so `extra` does not enter."""
        return weight[0] * self.losses(z.values.masked_fill(~z.mask, 0.0), target.values, z.mask)


def log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """(G, K) log-probabilities over the members; 0, without gradient, in empty places."""
    return torch.log_softmax(scores.masked_fill(~mask, float("-inf")), 1).masked_fill(~mask, 0.0)


@dataclass(frozen=True, repr=False)
class cross_entropy(ListLoss):
    """-sum_i q_i log softmax(z)_i of a target q that sums to 1."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return -(target.masked_fill(~mask, 0.0) * log_softmax(scores, mask)).sum(1)
