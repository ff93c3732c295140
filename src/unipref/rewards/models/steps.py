"""Models that are fitted in two steps: the head to what people said of single responses, then the rest to comparisons.

Shapes: n comparisons, K outputs of a head, A rated attributes, M responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.objectives import Objective, as_objective, column, expectile, head, pointwise, reach
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, descent
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import Fitting, Head, Mixing, Output, Part, Rows, Sizes

if TYPE_CHECKING:
    from unipref.rewards.models.model import PreferenceModel

__all__ = ["attribute_heads", "in_steps", "predicted_attributes", "ratings", "weighted_sum"]

_CHUNK = 16_384


# ---- heads ----


@dataclass(frozen=True, repr=False)
class attribute_heads(Head):
    """A weighted sum of the features for every attribute that the data rate, in spreads of its rating.

    Attributes:
        free: how many there are where nothing is rated; these mean what the comparisons make of them.
        without: an attribute, such as verbosity, that the others must not follow: each loses so much of it that both no
            longer rise together over the training responses.
    """

    free: int = 4
    without: str | None = None

    def width(self, sizes: Sizes) -> int:
        return sizes.attributes or self.free

    def build(self, sizes: Sizes) -> nn.Module:
        return _Attributes(sizes.features, self.width(sizes), bool(sizes.attributes), self.without)


class _Attributes(nn.Module):
    """`centre`, `spread`: (K,) of the ratings. `carried`: (K, K) what an output gets of each head."""

    def __init__(self, features: int, k: int, rated: bool, without: str | None) -> None:
        super().__init__()
        self.rated, self.without = rated, without
        self.weight = nn.Parameter(torch.zeros(k, features) if rated or k == 1 else 0.1 * torch.randn(k, features))
        self.register_buffer("centre", torch.zeros(k))
        self.register_buffer("spread", torch.ones(k))
        self.register_buffer("carried", torch.eye(k))

    def forward(self, features: Tensor) -> Tensor:
        return self.predicted(features) @ self.carried.T

    def predicted(self, features: Tensor) -> Tensor:
        """(n, K) ratings in their spreads, before one is carried off."""
        return features @ self.weight.T

    def begin(self, data: Data) -> None:
        """Take the ratings' means and spreads over the training responses."""
        if not self.rated:
            return
        table = data.table
        given = table.attributes[np.unique(np.concatenate([table.first, table.second]))].astype(np.float64)
        for k, name in enumerate(table.attribute_names):
            known = given[:, k][~np.isnan(given[:, k])]
            if len(known) < 2 or not np.ptp(known):
                said = "rated for fewer than 2 responses" if len(known) < 2 else "the same in every rating"
                raise DataError(f"the attribute {name!r} is {said}, so nothing can be learned of it; leave it out")
            self.centre[k], self.spread[k] = float(known.mean()), float(known.std())
        if self.without is not None and self.without not in table.attribute_names:
            raise ConfigError(f"without={self.without!r}{nearest(self.without, table.attribute_names)}")

    def settle(self, data: Data) -> None:
        """After the heads are fitted: carry off the attribute that the others must not follow."""
        if self.without is None or not self.rated:
            return
        table = data.table
        used = np.unique(np.concatenate([table.first, table.second]))
        held = [
            self.predicted(data.scaling(table.features[used[i : i + _CHUNK]], data.dtype))
            for i in range(0, len(used), _CHUNK)
        ]
        values = torch.cat(held)
        values = values - values.mean(dim=0)
        j = table.attribute_names.index(self.without)
        slope = (values * values[:, [j]]).sum(dim=0) / (values[:, j] ** 2).sum().clamp(min=1e-30)
        slope[j] = 0.0
        self.carried[:, j] -= slope.clamp(min=0)


def predicted_attributes(model: "PreferenceModel", features: np.ndarray) -> np.ndarray:
    """(M, A) ratings that a fitted model expects of responses, in the ratings' own units, by `model.attribute_names_`.

    Raises:
        ConfigError: the model has no heads that are fitted to ratings.
    """
    if not model.attribute_names_ or not isinstance(model.net_.head, _Attributes):
        raise ConfigError(f"{model.key or 'the model'} was fitted to no ratings by attribute")
    own = model.net_.head
    with torch.no_grad():
        values = own.predicted(model.scaling_(np.asarray(features), model.dtype_))
        return (own.centre + own.spread * values).double().numpy()


@dataclass(frozen=True, repr=False)
class weighted_sum(Mixing):
    """The reward is a sum of the head's outputs by weights of either sign, all 0 before the fit."""

    convex = True

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Sum(outputs)


class _Sum(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs))

    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        rewards = torch.stack([self.alone(first, code), self.alone(second, code)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return values @ self.weight


# ---- what is said of single responses ----


@dataclass(frozen=True, repr=False)
class ratings(Part):
    """Every head meets its attribute: half the squared distance in spreads of the ratings, the mean over attributes.

    A missing rating leaves out that attribute of that response alone. A response counts by the weight of each
    comparison that it stands in.
    """

    convex = True

    def prepared(self, data: Data) -> Data:
        """The data as `items` reads them."""
        return data

    def objective(self, sizes: Sizes) -> Objective:
        """Of `sizes.attributes` terms, which read what `items` gives."""
        terms = [
            pointwise(
                f"attribute {k}",
                score=head(f"attribute_head.{k}"),
                target=reach(column(f"attribute.{k}")),
                link=expectile(0.5),
                role="auxiliary",
            )
            for k in range(sizes.attributes)
        ]
        return 1.0 / len(terms) * Objective(tuple(terms))

    def items(self, net: Net, features: Tensor, attributes: Tensor) -> Mapping[str, Tensor]:
        """Columns per response: what the heads say, and what people said."""
        said, given = net.head.predicted(features), (attributes - net.head.centre) / net.head.spread
        columns = {f"attribute_head.{k}": said[:, k] for k in range(said.shape[1])}
        return columns | {f"attribute.{k}": given[:, k] for k in range(given.shape[1])}


@dataclass(frozen=True, eq=False)
class _OfResponses(Problem):
    """The head's own problem: what `of` says of single responses."""

    of: Part = ratings()

    def loss(self, net: Net, rows: Rows, ridge: float = 0.0, clock: Clock | None = None) -> Tensor:
        items = self.of.items(net, torch.cat([rows.first, rows.second]), torch.cat(rows.attributes))
        batch = Batch(items={**items, "weight": rows.weight.repeat(2)}, clock=clock or Clock())
        total = self.objective.loss(batch).total
        return total + ridge / 2 * self.distance(net) if ridge else total

    def judged(self, net: Net, data: Data, index: np.ndarray) -> float:
        with torch.no_grad():
            parts = [index[i : i + _CHUNK] for i in range(0, len(index), _CHUNK)]
            losses = [float(self.loss(net, data.rows(part))) for part in parts]
        return float(np.average(losses, weights=[len(part) for part in parts]))


# ---- the fit ----


@dataclass(frozen=True, repr=False)
class in_steps(Fitting):
    """First the head, on single responses; then, the head as it is, the rest on comparisons.

    Where the data say nothing of single responses, all is fitted to comparisons at once.

    Attributes:
        first, then: the two fits.
        of: what the head is fitted to.
        then_convex: with the head fixed, the second has one optimum.
    """

    first: descent
    then: descent
    of: Part = ratings()
    then_convex: bool = False

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """The net, and what is said of the second fit; of the first under "first"."""
        if data.table.attributes is None:
            return self.then.fit(problem, data)
        prepared = self.of.prepared(data)
        sizes = Sizes(data.table.width, attributes=len(prepared.table.attribute_names))
        own = _OfResponses(
            lambda seed: _only(problem.build(seed), head=True),
            as_objective(self.of.objective(sizes)),
            convex=self.of.convex,
            of=self.of,
        )
        begun, told = self.first.fit(own, prepared)
        with torch.no_grad():
            if hasattr(begun.head, "settle"):
                begun.head.settle(data)
        state = begun.head.state_dict()

        def build(seed: int) -> Net:
            net = problem.build(seed)
            net.head.load_state_dict(state)
            return _only(net, head=False)

        # a gate alone leaves a ridge nothing to pull
        then = self.then if build(0).penalised() else replace(self.then, ridge=0.0)
        net, said = then.fit(replace(problem, build=build, convex=self.then_convex), data)
        return net, {**said, "first": told}


def _only(net: Net, *, head: bool) -> Net:
    """The net with its head alone, or with all else, to be trained."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name.startswith("head.") == head)
    return net
