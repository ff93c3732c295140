"""Step level: scores of responses that are made of steps. Shapes: I items, T scored tokens, S steps of all items."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.objectives.parts import Part, wide

__all__ = ["step_score"]


@dataclass(frozen=True, repr=False)
class step_score(Part):
    """scale * the weighted mean over steps of each step's mean token log-ratio, in nats per token times `scale`.

    Steps are the "segment"s of a response; tokens in none (below 0) do not count. Steps beyond the number that the
    record's shortest response has are one with that response's last step. A response whose weights add up to 0, or
    that has no step, scores 0.

    Attributes:
        weight: column per token with its step's weight; of merged steps the mean over their tokens counts.
    """

    scale: float = 1.0
    weight: str = "step_weight"

    @property
    def reads(self) -> tuple[str, ...]:
        return ("group",)

    @property
    def token_reads(self) -> tuple[str, ...]:
        return ("logp", "ref_logp", "segment", self.weight)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        ratio = wide(batch.token("logp")) - wide(batch.token("ref_logp").detach())
        weight = wide(batch.token(self.weight).detach()).to(ratio.dtype)
        item, step, inside = self._steps(batch)
        n_items, n_steps = len(batch.item("group")), int(step.max()) + 1 if step.numel() else 0

        def sums(values: Tensor) -> Tensor:
            return values.new_zeros(n_steps).index_add(0, step, values)

        size = sums(torch.ones_like(ratio[inside])).clamp(min=1)
        share, mean = sums(weight[inside]) / size, sums(ratio[inside]) / size
        owner = item.new_zeros(n_steps).index_copy(0, step, item)
        none = ratio.new_zeros(n_items)
        total = none.index_add(0, owner, share)
        some = total > 0
        return self.scale * torch.where(
            some, none.index_add(0, owner, share * mean) / torch.where(some, total, 1.0), 0.0
        )

    @staticmethod
    def _steps(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of the tokens that are in a step: their item, and their step's number over all items; (T,) where they are."""
        segment = batch.token("segment")
        inside = segment >= 0
        item = batch.token("item")[inside]
        n_items = len(batch.item("group"))
        steps, index = _numbered(item, segment[inside].long())
        n_own = torch.bincount(steps, minlength=n_items)
        place = index - (n_own.cumsum(0) - n_own)[item]  # 0, 1, ... within the item
        group = torch.unique(batch.item("group"), return_inverse=True)[1]
        least = n_own.new_full((n_items,), torch.iinfo(torch.int64).max)
        least = least.scatter_reduce(0, group, torch.where(n_own > 0, n_own, least), "amin")[group]
        place = torch.minimum(place, least[item] - 1)
        return item, _numbered(item, place)[1], inside


def _numbered(item: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """The item of every different (item, number), in order, and which of them each token has."""
    many = int(number.max()) + 1 if number.numel() else 1
    found, index = torch.unique(item * many + number, return_inverse=True)
    return found // many, index
