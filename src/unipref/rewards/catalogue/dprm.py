"""A reward that predicts how a population's votes spread over ordered categories."""

import itertools
import re
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.cards import Citation
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.objectives import Objective, as_objective, class_entropy, column, head, pointwise, reach, transport
from unipref.objectives import bt as bradley_terry
from unipref.objectives.parts import Part
from unipref.rewards.models import (
    Adaptation,
    Encoder,
    Head,
    Mixing,
    Output,
    PreferenceModel,
    Rows,
    Sizes,
    descent,
    preference_model,
)
from unipref.rewards.models.data import Data
from unipref.rewards.models.net import Net
from unipref.rewards.models.steps import in_steps
from unipref.rewards.table import PreferenceTable

__all__ = ["category_shares", "dirichlet_mean", "dprm", "votes_of"]

LOSSES = ("transport", "cross_entropy")
SHAPES = ("free", "normal")
_VOTES = re.compile(r"votes\.(\d+)")


def votes_of(attributes: np.ndarray, names: Sequence[str], levels: int) -> np.ndarray:
    """(M, levels) votes per category of ratings by attribute; NaN for responses that nobody voted on.

    Read are the attributes `votes.1` ... `votes.L`, counts or shares; or where there is one attribute alone, a rating
    that is a whole number from 1 to `levels` and one vote.

    Raises:
        DataError: neither is there, a vote is negative, or a rating is no category.
    """
    values = np.asarray(attributes, dtype=np.float64)
    found = {int(match[1]): k for k, name in enumerate(names) if (match := _VOTES.fullmatch(name))}
    if sorted(found) == list(range(1, levels + 1)):
        votes = values[:, [found[level] for level in range(1, levels + 1)]]
        if (votes < 0).any():
            raise DataError("votes are counts or shares, at least 0")
        return np.where((np.isnan(votes).any(axis=1) | (np.nansum(votes, axis=1) == 0))[:, None], np.nan, votes)
    if len(names) == 1 and not found:
        rating = values[:, 0]
        known = rating[~np.isnan(rating)]
        wrong = known[(known != np.round(known)) | (known < 1) | (known > levels)]
        if len(wrong):
            raise DataError(
                f"the attribute {names[0]!r} has the value {wrong[0]:g}, and its categories are 1 to {levels}; set "
                "`levels`, or give `votes.1` ... `votes.L`"
            )
        one_hot = (rating[:, None] == np.arange(1, levels + 1)).astype(np.float64)
        return np.where(np.isnan(rating)[:, None], np.nan, one_hot)
    raise DataError(
        f"dprm reads votes per category, the attributes votes.1 to votes.{levels}, or one rating from 1 to {levels}; "
        f"the data have {', '.join(names)}"
    )


def dirichlet_mean(prior: np.ndarray, votes: np.ndarray, strength: float) -> np.ndarray:
    """(L,) shares after `votes`, (L,) counts, where `prior`, (L,) shares, stood for `strength` votes.

    Example:
        >>> dirichlet_mean(np.array([0.5, 0.5]), np.array([3.0, 7.0]), 2.0).round(4).tolist()  # Beta(1, 1): 8 of 12
        [0.3333, 0.6667]
    """
    votes = np.asarray(votes, dtype=np.float64)
    total = votes.sum()
    return np.array(prior) if not total else (strength * np.asarray(prior) + votes) / (strength + total)


# ---- parts ----


@dataclass(frozen=True, repr=False)
class category_head(Head):
    """A number per category, whose softmax is the share of votes.

    Attributes:
        shape: "free", a weighted sum per category; "normal", a bell over the categories whose middle is a weighted sum
            of the features and whose width all responses share.
    """

    levels: int = 5
    shape: str = "free"

    def width(self, sizes: Sizes) -> int:
        return self.levels

    def build(self, sizes: Sizes) -> nn.Module:
        if self.shape == "normal":
            return _Normal(sizes.features, self.levels)
        layer = nn.Linear(sizes.features, self.levels)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer


class _Normal(nn.Module):
    def __init__(self, features: int, levels: int) -> None:
        super().__init__()
        self.register_buffer("at", torch.arange(1.0, levels + 1))
        self.middle = nn.Linear(features, 1)
        nn.init.zeros_(self.middle.weight)
        nn.init.constant_(self.middle.bias, (levels + 1) / 2)
        self.log_width_bias = nn.Parameter(torch.zeros(()))  # "bias": a ridge leaves it alone

    def forward(self, features: Tensor) -> Tensor:
        return -((self.at - self.middle(features)) ** 2) / (2 * torch.exp(2 * self.log_width_bias))


@dataclass(frozen=True, repr=False)
class population(Encoder):
    """What votes of a population that was not trained on have made of each category's share: log factors, else 0."""

    levels: int = 5

    fallback = "the population that was trained on"

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Population(sizes.domains, self.levels)


class _Population(nn.Module):
    def __init__(self, domains: int, levels: int) -> None:
        super().__init__()
        self.register_buffer("factors", torch.zeros(domains, levels))

    def forward(self, rows: Rows) -> Tensor:
        unseen = self.factors.new_zeros(1, self.factors.shape[1])
        return torch.cat([self.factors, unseen])[rows.domain]  # the last is what the number UNSEEN = -1 reads


@dataclass(frozen=True, repr=False)
class expected_utility(Mixing):
    """r = e^c sum_k u_k p_k of the shares p; how many log odds a step of utility is, e^c, comparisons decide."""

    utilities: tuple[float, ...]

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Utility(self.utilities)


class _Utility(nn.Module):
    def __init__(self, utilities: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("utilities", torch.tensor(utilities, dtype=torch.float64))
        self.log_scale_bias = nn.Parameter(torch.zeros(()))

    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        rewards = torch.stack([self.alone(first, code), self.alone(second, code)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return self.log_scale_bias.exp() * (shares_of(values, code) @ self.utilities.to(values.dtype))


def shares_of(values: Tensor, code: Tensor | None) -> Tensor:
    """(n, L)"""
    return torch.softmax(values if code is None else values + code, dim=1)


@dataclass(frozen=True, repr=False)
class vote_shares(Part):
    """The shares of votes that the head has to meet, by `loss`; `prior` votes are spread evenly beforehand."""

    levels: int
    loss: str = "transport"
    prior: float = 0.0

    convex = False  # the distance is flat in places, and bends at every equality: no line search

    def prepared(self, data: Data) -> Data:
        """The data with votes per category as their attributes."""
        table, read = data.table, copy(data)
        votes = votes_of(table.attributes, table.attribute_names, self.levels)
        if np.isnan(votes).all():
            raise DataError("no response has a vote, so dprm has nothing to learn from; bt reads comparisons alone")
        names = tuple(f"votes.{level}" for level in range(1, self.levels + 1))
        read.table = table.with_columns(attributes=votes, attribute_names=names)
        return read

    def objective(self, sizes: Sizes) -> Objective:
        return as_objective(
            pointwise(
                "categories",
                score=head("category_head"),
                target=reach(column("category_shares")),
                link=transport() if self.loss == "transport" else class_entropy(),
                role="auxiliary",
            )
        )

    def items(self, net: Net, features: Tensor, attributes: Tensor) -> Mapping[str, Tensor]:
        votes = attributes + self.prior / self.levels
        return {"category_head": net.head(features), "category_shares": votes / votes.sum(dim=1, keepdim=True)}


@dataclass(frozen=True, repr=False)
class bayes_update(Adaptation):
    """A new population's votes move each category's share from what the model expected of the same responses.

    The expected shares stand for `strength` votes of a Dirichlet prior; the posterior mean over them is a factor per
    category, which multiplies all shares of that population (and they are made to add up to 1 again).
    """

    levels: int = 5
    strength: float = 5.0

    def adapt(self, model: PreferenceModel, table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with the new domains' factors, and all users and domains by number.

        Raises:
            DataError: the table names no new domain, or says nothing of single responses.
        """
        new = [name for name in table.domains if name not in set(model.domains_)]
        if not new:
            raise DataError(
                "the comparisons name no domain that the model does not know already; a population that votes in its "
                "own way is named in the column `domain`"
            )
        if table.attributes is None:
            raise DataError("dprm learns of a population from its votes on responses, and the data have none")
        votes = votes_of(table.attributes, table.attribute_names, self.levels)
        rows = []
        for name in new:
            own = table.domain == name
            used = np.unique(np.concatenate([table.first[own], table.second[own]]))
            used = used[~np.isnan(votes[used]).any(axis=1)]
            expected = category_shares(model, table.features[used]).mean(axis=0) if len(used) else np.ones(self.levels)
            posterior = dirichlet_mean(expected, votes[used].sum(axis=0), self.strength)
            rows.append(np.log(posterior) - np.log(expected))
        net = deepcopy(model.net_)
        added = torch.as_tensor(np.array(rows)).to(net.encoder.factors.dtype)
        net.encoder.factors = torch.cat([net.encoder.factors, added])
        return net, model.users_, (*model.domains_, *new)


def category_shares(model: PreferenceModel, features: np.ndarray) -> np.ndarray:
    """(M, L) shares of votes that a fitted `dprm` expects of responses, in the population that it was trained on."""
    if not isinstance(model.mixing, expected_utility):
        raise ConfigError(f"{model.key or 'the model'} predicts no votes; dprm does")
    with torch.no_grad():
        return shares_of(model.net_.head(model.scaling_(np.asarray(features), model.dtype_)), None).double().numpy()


@preference_model(
    "dprm",
    source="arXiv:2402.09764, its abstracts",
    status="reconstructed",
    formula="W1(softmax(V phi(y) + b), shares of votes), r(y) = sum_k u_k softmax(V phi(y) + b)_k",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Aligning Crowd Feedback via Distributional Preference Reward Modeling",
        ("Dexun Li", "Cong Zhang", "Kuicai Dong", "Derrick Goh Xin Deik", "Ruiming Tang", "Yong Liu"),
        2024,
        "2402.09764",
    ),
)
def dprm(
    *,
    levels: int = 5,
    utilities: tuple[float, ...] = (),
    loss: str = "transport",
    shape: str = "free",
    prior: float = 0.0,
    strength: float | None = None,
    ridge: float | None = None,
    scale: str = "each",
    lr: float = 0.03,
    epochs: int = 60,
    seed: int = 0,
) -> PreferenceModel:
    """The shares of a population's votes over ordered categories; the reward is the expected utility of a vote.

    The data rate single responses: attributes `votes.1` ... `votes.L` with counts or shares of votes per category, or
    one attribute that is a rating from 1 to `levels`. Comparisons decide one number alone, how many log odds a step of
    utility is. A population that votes differently is learned by `adapt` from a handful of votes of its own, under the
    name of a new domain.

    Reconstructed: a categorical distribution, its calibration by optimal transport, expected utility as the reward and
    a Bayesian updater are read in the abstracts; that the cost is the distance in categories (Wasserstein's W1), that
    utilities are evenly spaced, that the update is Dirichlet's and acts by a factor per category, and how comparisons
    enter, is inferred.

    Args:
        levels: categories, L.
        utilities: of each category, growing; none: 1 to L.
        loss: "transport"; or "cross_entropy", which does not see how far a category is from the right one.
        shape: "free", or "normal": a bell over the categories, for data too few for a weight per category.
        prior: votes that are spread evenly before a response's own are counted.
        strength: votes that the model's expectation stands for where a new population votes; None: L.
        ridge: pull of the weights to 0; None: chosen on votes that a fit has not seen.
        scale: of the features: "each" by its own spread, "all" by one, "none".
        lr, epochs, seed: of the fit.
    """
    utilities = tuple(float(u) for u in utilities) or tuple(float(k) for k in range(1, levels + 1))
    for name, value, known in (("loss", loss, LOSSES), ("shape", shape, SHAPES)):
        if value not in known:
            raise ConfigError(f"dprm({name}={value!r}){nearest(str(value), known)}")
    if levels < 2 or len(utilities) != levels or any(b <= a for a, b in itertools.pairwise(utilities)):
        raise ConfigError(f"dprm: {levels} categories need as many utilities, each above the last: {list(utilities)}")
    if not prior >= 0 or not (strength is None or strength > 0):
        raise ConfigError(f"dprm(prior={prior!r}, strength={strength!r}): at least 0, and above 0")
    return PreferenceModel(
        category_head(levels, shape),
        bradley_terry(),
        encoder=population(levels),
        mixing=expected_utility(utilities),
        fitting=in_steps(
            of=vote_shares(levels, loss, prior),
            first=descent(optimizer="adam", ridge=ridge, lr=lr, epochs=epochs, seed=seed),
            then=descent(optimizer="lbfgs", ridge=0.0, seed=seed),
        ),
        adaptation=bayes_update(levels, float(levels if strength is None else strength)),
        scale=scale,
        needs=("attributes",),
    )
