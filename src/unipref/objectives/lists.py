"""Discrepancies of whole lists: what the scores of a record's responses should be together.

A target is a number per response, higher for better ones, or a share of 1 where the loss says so. Two responses of
equal target are tied: no loss of orders says anything of the two.

Shapes: G groups, K places of the longest group.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import Link, Regression
from unipref.objectives.parts import Part, wide
from unipref.objectives.units import Lists, group, pair

__all__ = [
    "ListLoss",
    "best_likelihood",
    "compared",
    "contested",
    "cross_entropy",
    "each",
    "kl_bwd",
    "kl_fwd",
    "ndcg_gap",
    "noise_contrast",
    "pair_logistic",
    "plackett_luce",
    "ranked_likelihood",
    "set_contrast",
    "squared_gaps",
]

REDUCTIONS = ("sum", "mean")
BONUSES = ("absolute", "signed")
ACCEPTED = ("above-mean", "best")


class ListLoss(Part):
    """Base: `losses` of every group from its scores and what they should be."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """(G,) of (G, K) scores and targets, both 0 in empty places, where `mask` is False; nothing there may enter."""
        raise TypeError(f"{type(self).__name__} is no loss of lists")

    def between(self, z: Lists, target: Lists, extra: float, weight: tuple[Tensor | float, Tensor | float]) -> Tensor:
        """(G,) losses with objective weights. A constant offset moves no list, so `extra` does not enter."""
        if not z.mask.numel():
            return z.values.sum(1)
        scores, goal = (part.values.masked_fill(~z.mask, 0.0) for part in (z, target))
        return weight[0] * self.losses(scores, goal, z.mask)


class Matching(ListLoss):
    """Base of the losses that bring the gaps between scores to the gaps between targets.

    They see differences only, so they take pairs too: a pair is a list of two.
    """

    def between(
        self,
        z: Lists | Tensor,
        target: Lists | Tensor | float,
        extra: Tensor | float,
        weight: tuple[Tensor | float, Tensor | float],
    ) -> Tensor:
        """(G,) losses with objective weights, or (N,) of pairs' contrasts and what these should be."""
        if isinstance(z, Lists):
            return super().between(z, target, extra, weight)
        none = torch.zeros_like(z)
        scores, goal = torch.stack([z + extra, none], 1), torch.stack([none + target, none], 1)
        return weight[0] * self.losses(scores, goal, torch.ones_like(scores, dtype=torch.bool))


def log_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """(G, K) log-probabilities over the members; 0, without gradient, in empty places."""
    return torch.log_softmax(scores.masked_fill(~mask, float("-inf")), 1).masked_fill(~mask, 0.0)


def better(target: Tensor, mask: Tensor) -> Tensor:
    """(G, K, K) True where the first member has a higher target than the second."""
    return (target[:, :, None] > target[:, None, :]) & mask[:, :, None] & mask[:, None, :]


@dataclass(frozen=True, repr=False)
class cross_entropy(ListLoss):
    """-sum_i q_i log softmax(z)_i of a target q that sums to 1."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return -(target * log_softmax(scores, mask)).sum(1)


@dataclass(frozen=True, repr=False)
class kl_bwd(Matching):
    """KL(softmax(b) || softmax(z)) of the target numbers b: the target stands first, so the policy covers its mass."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        policy, goal = log_softmax(scores, mask), log_softmax(target, mask)
        return (goal.exp() * (goal - policy)).sum(1)


@dataclass(frozen=True, repr=False)
class kl_fwd(Matching):
    """KL(softmax(z) || softmax(b)) of the target numbers b: the policy stands first, so it seeks the target's mode."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        policy, goal = log_softmax(scores, mask), log_softmax(target, mask)
        return (policy.exp() * (policy - goal)).sum(1)


@dataclass(frozen=True, repr=False)
class squared_gaps(Matching):
    """Mean over the list's pairs of ((z_i - z_j) - (b_i - b_j))^2: 2 K / (K - 1) times the variance of z - b."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        n = mask.sum(1)
        residual = (scores - target).masked_fill(~mask, 0.0)
        centred = (residual - (residual.sum(1) / n)[:, None]).masked_fill(~mask, 0.0)
        return 2 * (centred**2).sum(1) / (n - 1).clamp(min=1)


@dataclass(frozen=True, repr=False)
class noise_contrast(ListLoss):
    """-sum_i [q_i log sigmoid(z_i) + log sigmoid(-z_i) / K] of a target q that sums to 1; least at z_i = log(K q_i)."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        share = mask.to(scores.dtype) / mask.sum(1, keepdim=True)
        return (target * -F.logsigmoid(scores) + share * -F.logsigmoid(-scores)).sum(1)


@dataclass(frozen=True, repr=False)
class each(ListLoss):
    """The members one by one by `of`, a link (the target is then a probability) or a regression; their sum or mean."""

    of: Link | Regression
    reduction: str = "sum"

    def __post_init__(self) -> None:
        _known("each", "reduction", self.reduction, REDUCTIONS)

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        total = self.of.between(scores, target, 0.0, (1.0, 1.0)).masked_fill(~mask, 0.0).sum(1)
        return total / mask.sum(1) if self.reduction == "mean" else total


@dataclass(frozen=True, repr=False)
class plackett_luce(ListLoss):
    """-log P(the order of the targets) where members are drawn one after the other by softmax(z) of those left.

    Of tied members each is drawn against itself and the strictly worse ones.

    Attributes:
        top: stop after so many places, for lists whose lower end is noise; None goes to the end.
    """

    top: int | None = None

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise ConfigError(
                f"plackett_luce(top={self.top}) would read no place of the list; top is 1 or more, or None"
            )

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        ahead = better(target, mask)
        left = ahead | torch.eye(
            scores.shape[1], dtype=torch.bool, device=scores.device
        )  # a member is left with itself
        stage = scores[:, None, :].masked_fill(~left, float("-inf")).logsumexp(2) - scores
        if self.top is not None:
            stage = stage * (ahead.sum(1) < self.top)
        return stage.sum(1)


@dataclass(frozen=True, repr=False)
class ndcg_gap(Part):
    """|2^b_i - 2^b_j| * |1/log(1 + t_i) - 1/log(1 + t_j)|: what a swap of two members changes in DCG.

    b is the target, t the rank by the present scores, 1 for the highest, equal scores in the data's order; the
    logarithm is natural. No gradient. 2^b overflows for raw scores in the hundreds: targets belong in some [0, 4].

    Attributes:
        discount: False leaves the second factor out.
    """

    discount: bool = True

    def __call__(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """(G, K, K)"""
        gain = torch.exp2(target)
        weight = (gain[:, :, None] - gain[:, None, :]).abs()
        if not self.discount:
            return weight
        order = scores.detach().masked_fill(~mask, float("-inf")).argsort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
        )
        discount = 1 / torch.log(2.0 + rank.to(scores.dtype))
        return weight * (discount[:, :, None] - discount[:, None, :]).abs()


@dataclass(frozen=True, repr=False)
class pair_logistic(ListLoss):
    """-log sigmoid(z_i - z_j) of every two members with target b_i > b_j; 0 for a list of ties.

    Attributes:
        weight: a number per two members, such as `ndcg_gap()`; None for 1.
        reduction: over the pairs, "sum" or "mean".
    """

    weight: Part | None = None
    reduction: str = "sum"

    def __post_init__(self) -> None:
        _known("pair_logistic", "reduction", self.reduction, REDUCTIONS)

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        ahead = better(target, mask)
        values = -F.logsigmoid(scores[:, :, None] - scores[:, None, :])
        if self.weight is not None:
            values = values * self.weight(scores, target, mask)
        total = (values * ahead).sum((1, 2))
        return total / ahead.sum((1, 2)).clamp(min=1) if self.reduction == "mean" else total


@dataclass(frozen=True, repr=False)
class set_contrast(ListLoss):
    """-log [S+ / (S+ + gamma S-)], S the sums of e^(z + alpha * bonus) over accepted and other members.

    It orders no two members of one set.

    Attributes:
        alpha: inverse unit of the targets b.
        bonus: "absolute", |b - mean b|, which makes the worst members count most among the rejected ones, or "signed",
            b - mean b, which makes them count least.
        accepted: the members "above-mean", or the "best" one (all of them where several are best).
        gamma: how much the others count, above 0; where both sets have one member a margin of log gamma.
    """

    alpha: float
    bonus: str = "absolute"
    accepted: str = "above-mean"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ConfigError(
                f"set_contrast(gamma={self.gamma}): the members that are not accepted must count, above 0"
            )
        _known("set_contrast", "bonus", self.bonus, BONUSES)
        _known("set_contrast", "accepted", self.accepted, ACCEPTED)

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        gap = (target - (target.sum(1) / mask.sum(1))[:, None]).masked_fill(~mask, 0.0)
        # the best are above the mean whatever its rounding
        accepted = mask & ~better(target, mask).any(1)
        if self.accepted == "above-mean":
            accepted = accepted | (gap > 0)
        logits = scores + self.alpha * (gap.abs() if self.bonus == "absolute" else gap)
        counted = torch.where(accepted, logits, logits + math.log(self.gamma))
        whole = counted.masked_fill(~mask, float("-inf")).logsumexp(1)
        return whole - logits.masked_fill(~accepted, float("-inf")).logsumexp(1)


@dataclass(frozen=True, repr=False)
class ranked_likelihood(ListLoss):
    """1/(K-1) sum_i w_i [softplus(-z_i) + mean over the worse j of softplus(z_j)], w_i = (z_i - min z)/(max z - min z).

    i runs over all members that have a worse one; w carries no gradient, is 0 for the lowest score, and 0 for all where
    scores are equal. Scores are mean log-probabilities, so softplus(-z) is never below log 2.
    """

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        ahead = better(target, mask)
        n_worse = ahead.sum(2)
        held = scores.detach()
        low = held.masked_fill(~mask, float("inf")).amin(1, keepdim=True)
        spread = held.masked_fill(~mask, float("-inf")).amax(1, keepdim=True) - low
        share = torch.where(spread > 0, (held - low) / torch.where(spread > 0, spread, 1.0), 0.0)
        down = (ahead * -F.logsigmoid(-scores)[:, None, :]).sum(2) / n_worse.clamp(min=1)
        total = (share * (-F.logsigmoid(scores) + down) * (n_worse > 0)).sum(1)
        return total / (mask.sum(1) - 1).clamp(min=1)


@dataclass(frozen=True, repr=False)
class best_likelihood(ListLoss):
    """-z of the member with the highest target, the mean over several: likelihood, where z is a log-probability."""

    def losses(self, scores: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        best = mask & ~better(target, mask).any(1)
        return -(scores * best).sum(1) / best.sum(1)


@dataclass(frozen=True, repr=False)
class compared(group):
    """Records that have comparisons; what their responses should be is the share of comparisons that each wins.

    Two responses with one comparison have (p, 1 - p) of its label p.
    """

    compares = True

    def weight(self, batch: Batch) -> Tensor:
        """(G,) example weights, 0 where no two responses are compared."""
        return super().weight(batch) * (self.contrast(self._wins(batch)[1], batch).values > 0).any(1)

    def preferred(self, batch: Batch) -> Lists:
        """(G, K) shares, which add up to 1."""
        won, mask = self.contrast(self._wins(batch)[0], batch)
        n_comparisons = (won * mask).sum(1, keepdim=True)
        return Lists(won / n_comparisons.clamp(min=1), mask)

    def _wins(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(I,) comparisons won, soft labels in part, and comparisons taken part in."""
        chosen, rejected = pair().sides(batch)
        p = pair().preferred(batch)
        p = torch.ones(len(chosen), dtype=wide(batch.item("logp")).dtype, device=chosen.device) if p is None else p
        none = torch.zeros(len(batch.item("group")), dtype=p.dtype, device=p.device)
        wins = none.index_add(0, chosen, p).index_add(0, rejected, 1 - p)
        one = torch.ones_like(p)
        return wins, none.index_add(0, chosen, one).index_add(0, rejected, one)


@dataclass(frozen=True, repr=False)
class contested(group):
    """Records whose responses differ in a column; one where all are equal has no better and worse: it does not count.

    Attributes:
        by: the column.
    """

    by: str = "reward"

    @property
    def reads(self) -> tuple[str, ...]:
        return (*super().reads, self.by)

    def weight(self, batch: Batch) -> Tensor:
        """(G,) example weights, from data only; 0 where all are equal."""
        values, mask = self.contrast(batch.item(self.by).detach(), batch)
        return super().weight(batch) * ((values != values[:, :1]) & mask).any(1)


def _known(part: str, slot: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{part}({slot}={value!r}){nearest(str(value), known)}")
