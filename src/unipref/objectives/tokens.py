"""Token level: numbers per scored token, and scores that are weighted sums of them. Shapes: I items, T scored tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.objectives.parts import Part, wide

__all__ = ["token_column", "token_score"]


@dataclass(frozen=True, repr=False)
class token_column(Part):
    """What the data or the engine says of every scored token; no gradient unless `live`.

    Attributes:
        name: the column, such as "diff", "mask" or "kl".
        live: the gradient flows: the column is computed by the model.
    """

    name: str
    live: bool = False

    @property
    def token_reads(self) -> tuple[str, ...]:
        return (self.name,)

    def __call__(self, batch: Batch) -> Tensor:
        """(T,)"""
        values = wide(batch.token(self.name))
        return values if self.live else values.detach()


@dataclass(frozen=True, repr=False)
class token_score(Part):
    """scale * sum over tokens of weight * (logp - ref_logp), in nats times `scale`.

    With weights of 1 it is `log_ratio(scale)`; without a reference, `logp(scale)`. No gradient reaches the reference.

    Attributes:
        weights: a number per token; None for 1.
        reference: the reference's column, or None.
        reference_weights: weights of the reference where they are others than the policy's.
        mean: divide by the response's tokens.
    """

    scale: float = 1.0
    weights: Part | None = None
    reference: str | None = "ref_logp"
    reference_weights: Part | None = None
    mean: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return ("len",) if self.mean else ()

    @property
    def token_reads(self) -> tuple[str, ...]:
        return ("logp",) if self.reference is None else ("logp", self.reference)

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        logp = wide(batch.token("logp"))
        weights = 1.0 if self.weights is None else self.weights(batch)
        values = weights * logp
        if self.reference is not None:
            others = weights if self.reference_weights is None else self.reference_weights(batch)
            values = values - others * wide(batch.token(self.reference).detach())
        total = per_item(values, batch)
        return self.scale * (total / batch.item("len").detach().to(total.dtype).clamp(min=1) if self.mean else total)


def per_item(values: Tensor, batch: Batch) -> Tensor:
    """(I,) sums of (T,) `values` over each item's tokens."""
    n_items = len(batch.item("logp"))
    return torch.zeros(n_items, dtype=values.dtype, device=values.device).index_add(0, batch.token("item"), values)
