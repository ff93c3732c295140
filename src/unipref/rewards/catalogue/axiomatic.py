"""The Bradley-Terry model on pairs that principles made."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.objectives import bt as bradley_terry
from unipref.rewards.models import PreferenceModel, linear_head, mlp_head, preference_model
from unipref.rewards.models.balance import balanced
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, descent
from unipref.rewards.models.net import Net


@preference_model(
    "axiomatic",
    status="reconstructed",
    source="arXiv:2312.02206, its abstract and summaries by others",
    formula="sum over axioms a of weight_a * mean over its pairs of -ln sigmoid(r(better) - r(worse))",
    needs=("chosen", "rejected", "domain"),
    citation=Citation(
        "Axiomatic Preference Modeling for Longform Question Answering",
        ("Corby Rosset", "Guoqing Zheng", "Victor Dibia", "Ahmed Awadallah", "Paul Bennett"),
        2023,
        "2312.02206",
    ),
)
def axiomatic(
    *,
    weights: Mapping[str, float] | None = None,
    balance: bool = True,
    hidden: tuple[int, ...] = (),
    ridge: float | None = None,
    scale: str = "each",
    epochs: int = 200,
    seed: int = 0,
) -> PreferenceModel:
    """One reward per response, learned from pairs of several principles that count as much as each is given.

    The operator `axiomatic` makes the pairs and writes the principle into the domain; any named domains will do. With
    all weight on one axiom it is the Bradley-Terry model of that axiom's pairs.

    Reconstructed: that one preference model is trained on the union of axiomatic pairs is the abstract's; how it weighs
    them is not said there, and that they count alike however many pairs each has is ours.

    Args:
        weights: axiom -> how much it counts; 1 for those left out, 0 leaves one out of the fit.
        balance: axioms of weight 1 count alike in all; otherwise each of their pairs counts alike.
        hidden: widths of a perceptron's layers; none: a weighted sum, whose fit has one optimum.
        ridge: pull of the weights to 0; None: chosen on comparisons that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        epochs: at most, where the fit runs batch by batch.
        seed: of beginnings and batches.
    """
    given = {} if weights is None else dict(weights)
    for axiom, weight in given.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ConfigError(f"axiomatic: the weight of {axiom!r} is a number from 0 up, not {weight!r}")
    return PreferenceModel(
        mlp_head(1, tuple(hidden)) if hidden else linear_head(),
        bradley_terry(),
        fitting=by_axiom(ridge=ridge, epochs=epochs, seed=seed, weights=tuple(given.items()), balance=balance),
        scale=scale,
        needs=("domain",),
    )


@dataclass(frozen=True, repr=False)
class by_axiom(descent):
    """`descent` on comparisons that are weighed by their domain first.

    Attributes:
        weights: (domain, factor); 1 for a domain that is not there.
        balance: make the domains count alike in all before.
    """

    weights: tuple[tuple[str, float], ...] = ()
    balance: bool = True

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        weighed = balanced(data) if self.balance else copy(data)
        known = data.table.domains
        for name, _ in self.weights:
            if name not in known:
                raise ConfigError(f"axiomatic: weights: the data have no axiom {name!r}{nearest(name, known)}")
        factor = np.ones(len(data))
        for name, weight in self.weights:
            factor[data.table.domain == name] = weight
        weighed.weight = weighed.weight * torch.from_numpy(factor).to(weighed.weight.dtype)
        if not weighed.weight.any():
            raise DataError("axiomatic: weights leave no comparison; give one axiom of the data a weight above 0")
        net, told = super().fit(problem, weighed)
        shares = {name: float(weighed.weight[torch.from_numpy(data.table.domain == name)].sum()) for name in known}
        return net, {**told, "shares": {name: share / sum(shares.values()) for name, share in shares.items()}}
