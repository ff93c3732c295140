"""Low-rank reward modelling."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError, nearest
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import (
    Head,
    PreferenceModel,
    Sizes,
    descent,
    difference,
    fit_codes,
    linear_head,
    preference_model,
    simplex,
    user_table,
)
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem
from unipref.rewards.models.net import Net

TOWARDS = ("pooled", "nothing")


@dataclass(frozen=True, repr=False)
class anchored_head(Head):
    """K weighted sums of the features around one that is given: what a ridge pulls to 0 is the departure from it."""

    outputs: int = 1
    spread: float = 0.1

    def build(self, sizes: Sizes) -> nn.Module:
        """(n, D) to (n, K)"""
        return _Anchored(sizes.features, self.outputs, self.spread)


class _Anchored(nn.Module):
    def __init__(self, features: int, outputs: int, spread: float) -> None:
        super().__init__()
        self.departure = nn.Parameter(spread * torch.randn(outputs, features))
        self.register_buffer("anchor", torch.zeros(1, features))

    def forward(self, values: Tensor) -> Tensor:
        return values @ (self.anchor + self.departure).T


@dataclass(frozen=True, repr=False)
class low_rank(descent):
    """Descent with users of equal say, from a pooled fit on, and without rewards that nobody has in the end.

    Attributes:
        equal_users: every user's comparisons together count as much as any other user's.
        pooled: the anchor of the head is the fit of one reward to everybody.
        prune: a reward of which no user has so great a share is taken from all.
    """

    equal_users: bool = True
    pooled: bool = True
    prune: float = 0.01

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """As `descent`, and "pooled_ridge", "pruned" and "largest_shares"."""
        if self.equal_users:
            data = of_equal_say(data)
        told: dict[str, Any] = {}
        if self.pooled:
            anchor, told["pooled_ridge"] = self._pooled(problem, data)
            problem = replace(problem, build=_anchoring(problem.build, anchor))
        net, more = super().fit(problem, data)
        with torch.no_grad():
            shares = torch.softmax(net.encoder.codes, dim=1).amax(dim=0)
            alive = shares >= min(self.prune, float(shares.max()))
            net.encoder.alive.copy_(alive)
        more["largest_shares"] = [round(float(share), 4) for share in shares]
        return net, {**told, **more, "pruned": int((~alive).sum())}

    def _pooled(self, problem: Problem, data: Data) -> tuple[Tensor, float]:
        sizes = Sizes(data.table.width)

        def build(seed: int) -> Net:
            return Net(linear_head(), None, difference(), (), sizes).to(data.dtype)

        one = descent(epochs=self.epochs, batch_size=self.batch_size, seed=self.seed)  # its ridge is its own
        net, told = one.fit(Problem(build, problem.objective, convex=True), data)
        return net.head.weight.detach(), told["ridge"]


def _anchoring(build: Any, anchor: Tensor) -> Any:
    def anchored(seed: int) -> Net:
        net = build(seed)
        net.head.anchor.copy_(anchor)
        return net

    return anchored


def of_equal_say(data: Data) -> Data:
    """The same comparisons with weights by which all users count alike; comparisons of nobody keep theirs."""
    known = data.user >= 0
    if not known.any():
        return data
    totals = torch.zeros(int(data.user.max()) + 1, dtype=data.dtype).index_add(0, data.user[known], data.weight[known])
    mean = totals.sum() / (totals > 0).sum()
    factors = torch.where(totals > 0, mean / totals.clamp(min=torch.finfo(data.dtype).tiny), 0.0)
    even = copy(data)
    even.weight = torch.where(known, data.weight * factors[data.user], data.weight)
    return even


@preference_model(
    "lore",
    source="arXiv:2504.14439, as in github.com/facebookresearch/LoRe",
    formula="P_u(a > b) = sigmoid(sum_k w_uk (V_k . phi(a) - V_k . phi(b))), w_u = softmax(a_u)",
    needs=("chosen", "rejected", "user"),
    citation=Citation(
        "LoRe: Personalizing LLMs via Low-Rank Reward Modeling",
        ("Avinandan Bose", "Zhihan Xiong", "Yuejie Chi", "Simon Shaolei Du", "Lin Xiao", "Maryam Fazel"),
        2025,
        "2504.14439",
    ),
)
def lore(
    *,
    rank: int = 5,
    towards: str = "pooled",
    ridge: float | None = None,
    prune: float = 0.01,
    equal_users: bool = True,
    scale: str = "each",
    lr: float = 0.03,
    epochs: int = 100,
    restarts: int = 1,
    adapt_lr: float = 0.1,
    adapt_steps: int = 500,
    adapt_pull: float = 0.0,
    seed: int = 0,
) -> PreferenceModel:
    """Every user weighs a few rewards that all share; a newcomer's weights are fitted to a handful of choices.

    The authors pull every shared reward towards the one that their backbone came with. Frozen features come with none;
    the reward that is fitted to everybody takes its place, so that a strong ridge gives Bradley-Terry's model. Their
    code divides logits by 100 and takes rates to match; here the unit is the logit's own. A user's weights add up to 1:
    how decided somebody is, is not free.

    Args:
        rank: rewards that users share. With 1 it is Bradley-Terry's model.
        towards: what a ridge pulls the shared rewards to: "pooled", the fit to everybody, or "nothing".
        ridge: strength of that pull; None: chosen on comparisons that a fit has not seen.
        prune: after the fit, a shared reward of which nobody has this share is taken from all; 0 keeps every one.
        equal_users: each user counts the same, as in the paper; otherwise each comparison does.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, restarts, seed: of the fit.
        adapt_lr, adapt_steps: gradient steps for newcomers.
        adapt_pull: ridge that holds a newcomer's logits of shares near the mean user's, over their number of choices.
    """
    if towards not in TOWARDS:
        raise ConfigError(f"lore(towards={towards!r}){nearest(str(towards), TOWARDS)}")
    if rank < 1 or not 0 <= prune < 1:
        raise ConfigError(f"lore(rank={rank}, prune={prune}): the first is at least 1, the second a share below 1")
    pooled = towards == "pooled" and rank > 1  # one reward for everybody is itself the pooled fit
    return PreferenceModel(
        anchored_head(rank),
        bradley_terry(),
        encoder=user_table(),
        mixing=simplex(),
        fitting=low_rank(
            ridge=ridge, lr=lr, epochs=epochs, restarts=restarts, seed=seed,
            equal_users=equal_users, pooled=pooled, prune=prune,
        ),
        adaptation=fit_codes(lr=adapt_lr, steps=adapt_steps, pull=adapt_pull),
        scale=scale,
        needs=("user",),
    )  # fmt: skip
