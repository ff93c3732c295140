"""Token level: numbers per scored token, and scores that are their weighted sums. Shapes: I items, T scored tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives.parts import Part, wide
from unipref.objectives.randomness import uniform
from unipref.objectives.units import pair

__all__ = [
    "capped_inverse",
    "random_subset",
    "token_column",
    "token_importance",
    "token_mean",
    "token_score",
    "token_sum",
]


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


@dataclass(frozen=True, repr=False)
class token_sum(Part):
    """scale * sum over a response's tokens of weight * what `of` says of each.

    Attributes:
        of: a number per token, such as the divergence to the reference.
        weights: a number per token; None for 1.
    """

    of: Part
    scale: float = 1.0
    weights: Part | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        values = self.of(batch)
        return self.scale * per_item(values if self.weights is None else self.weights(batch) * values, batch)


@dataclass(frozen=True, repr=False)
class capped_inverse(Part):
    """1 + mark * min(1 / p, cap) of each token's probability p, no gradient: rare tokens that are marked weigh more.

    Since 1 / p is at least 1, any cap up to 1 gives marked tokens the constant 1 + cap.

    Attributes:
        cap: largest inverse probability.
        of: whose probability, "logp" the policy's or a reference's column.
        mark: which tokens, a number per token.
    """

    cap: float
    of: str = "logp"
    mark: Part = token_column("diff")

    def __post_init__(self) -> None:
        if self.cap < 0:
            raise ConfigError(f"cap must not be negative: {self.cap} would turn tokens' weights around")

    @property
    def token_reads(self) -> tuple[str, ...]:
        return (self.of,)

    def __call__(self, batch: Batch) -> Tensor:
        """(T,)"""
        logp = wide(batch.token(self.of).detach())
        # a log-probability below -88 has an inverse past float32; the cap holds it anyway
        return 1 + self.mark(batch) * torch.exp(-logp.clamp(min=-60)).clamp(max=self.cap)


@dataclass(frozen=True, repr=False)
class token_mean(Part):
    """scale * sum of weight * (logp - ref_logp) / sum of weight over a response's tokens; 0 where no token has weight.

    No gradient reaches the reference or the denominator.
    """

    weights: Part
    scale: float = 1.0
    reference: str = "ref_logp"

    def __call__(self, batch: Batch) -> Tensor:
        """(I,)"""
        total = token_score(self.scale, self.weights, self.reference)(batch)
        size = per_item(self.weights(batch).detach(), batch)
        return torch.where(size > 0, total / torch.where(size > 0, size, 1.0), 0.0)

    @property
    def token_reads(self) -> tuple[str, ...]:
        return ("logp", self.reference)


@dataclass(frozen=True, repr=False)
class token_importance(Part):
    """Policy over reference of every token, held within `clip` of 1 (None lets it be); no gradient."""

    clip: float | None

    @property
    def token_reads(self) -> tuple[str, ...]:
        return ("logp", "ref_logp")

    def __call__(self, batch: Batch) -> Tensor:
        """(T,)"""
        return clipped_ratio(wide(batch.token("logp").detach()) - wide(batch.token("ref_logp").detach()), self.clip)


def clipped_ratio(log_ratio: Tensor, clip: float | None) -> Tensor:
    """e^log_ratio, held in [1 - clip, 1 + clip]; without `clip` at most e^60, so that products stay finite."""
    if clip is None:
        return torch.exp(log_ratio.clamp(max=60.0))  # e^60 times any log-probability is finite in float32
    return torch.exp(log_ratio).clamp(max(0.0, 1 - clip), 1 + clip)


def per_item(values: Tensor, batch: Batch) -> Tensor:
    """(I,) sums of (T,) `values` over each item's tokens."""
    n_items = len(batch.item("logp"))
    return torch.zeros(n_items, dtype=values.dtype, device=values.device).index_add(0, batch.token("item"), values)


@dataclass(frozen=True, repr=False)
class random_subset(Part):
    """1 on a random subset of each response's tokens, new at every step; 0 on the others.

    The shorter side of a pair sets the size on both: floor(share * its tokens), at least 1 where there is one to draw.
    A response in several comparisons has one subset in all of them, whose size the shortest response among them sets.
    Which tokens are drawn does not depend on the batch.
    """

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"the share of a response's tokens must be in [0, 1], got {self.share}")

    @property
    def reads(self) -> tuple[str, ...]:
        return ("uid",)

    def __call__(self, batch: Batch) -> Tensor:
        """(T,)"""
        item, n_items = batch.token("item"), len(batch.item("logp"))
        length = torch.bincount(item, minlength=n_items)
        sides = pair().sides(batch)
        shorter = torch.minimum(length[sides[0]], length[sides[1]])
        least = length
        for side in sides:
            least = least.scatter_reduce(0, side, shorter, "amin")
        start = length.cumsum(0) - length
        at = torch.arange(len(item), device=item.device) - start[item]
        draw = uniform(self.seed, batch.clock.step, batch.item("uid")[item], at)
        order = torch.argsort(draw, stable=True)
        order = order[torch.argsort(item[order], stable=True)]  # item after item, each in the order of its draws
        rank = torch.empty_like(at)
        rank[order] = at
        size = torch.floor(self.share * least.double() + 1e-9).clamp(min=1)  # 0.29 * 100 is 29, whatever floats say
        return wide(rank < size[item])
