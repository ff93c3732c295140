"""Domains: a head for each, relations between them, steering among them, and heads for new ones.

Shapes: n rows, D features, T domains that the fit has seen, A that were adapted to since, which stand behind them.

What was there before an adaptation is computed as it was, by the same operations on arrays of the same shapes: adding
zeros, or a row to a matrix product, may round the rest in another way.
"""

from collections.abc import Mapping
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.data.pairs import UNNAMED
from unipref.objectives import Objective
from unipref.rewards.models.balance import balanced
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, descent, folds_of
from unipref.rewards.models.mixtures import log_shares, mixed_logit
from unipref.rewards.models.net import Net, batch_of
from unipref.rewards.models.parts import Adaptation, AddOn, Encoder, Head, Mixing, Output, Rows, Sizes
from unipref.rewards.table import PreferenceTable

if TYPE_CHECKING:
    from unipref.rewards.models.model import PreferenceModel

__all__ = [
    "consistency",
    "context_router",
    "domain_heads",
    "entropy_steered",
    "in_context",
    "named_domain",
    "new_heads",
    "relate",
    "related",
    "relations",
    "routing",
    "tempered",
    "whole",
]

DESCRIPTIONS = ("responses", "prompts")
_TINY = 1e-12


@dataclass(frozen=True, repr=False)
class domain_heads(Head):
    """A weighted sum of the features for every domain, all 0 before the fit.

    Attributes:
        pooled: one further sum, the first of all, for everybody.
    """

    pooled: bool = False

    convex = True

    def width(self, sizes: Sizes) -> int:
        """T, and one more where `pooled`."""
        return sizes.domains + self.pooled

    def build(self, sizes: Sizes) -> nn.Module:
        """(n, D) to (n, T), or (n, 1 + T)."""
        return _Heads(sizes.features, self.width(sizes))


class _Heads(nn.Module):
    """A linear map without bias; heads that were adapted to, behind the first `trained`, are computed one by one."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(heads, features))
        self.register_buffer("trained", torch.tensor(heads))

    def forward(self, features: Tensor) -> Tensor:
        t = int(self.trained)
        parts = [self.weight[:t], *(self.weight[k : k + 1] for k in range(t, len(self.weight)))]
        return torch.cat([nn.functional.linear(features, part) for part in parts], dim=1)

    def extended(self, rows: Tensor) -> "_Heads":
        """The same with (A, D) further weights."""
        longer = deepcopy(self)
        longer.weight = nn.Parameter(torch.cat([self.weight.detach(), rows]))
        return longer


def _summed(code: Tensor, values: Tensor, trained: int) -> Tensor:
    """(n,) sum over domains of code * values."""
    total = (code[:, :trained] * values[:, :trained]).sum(dim=1)
    for k in range(trained, values.shape[1]):
        total = total + code[:, k] * values[:, k]
    return total


class _Domains(nn.Module):
    """A code of T + A numbers, 1 at a row's own domain where the model knows it."""

    def __init__(self, domains: int) -> None:
        super().__init__()
        self.domains = domains
        self.register_buffer("trained", torch.tensor(domains))

    def own(self, rows: Rows) -> Tensor:
        """(n, T + A) of 0 and 1; all 0 where the domain is not known."""
        like = rows.first
        table = torch.cat([torch.eye(self.domains, dtype=like.dtype), like.new_zeros(1, self.domains)])
        return table[rows.domain]  # the last row is what the number UNSEEN = -1 reads

    def padded(self, shares: Tensor) -> Tensor:
        """(n, T) with zeros for the domains that were adapted to."""
        return nn.functional.pad(shares, (0, self.domains - shares.shape[1]))

    def forward(self, rows: Rows) -> Tensor:
        return self.own(rows)

    def extended(self, n: int) -> "_Domains":
        """The same with n domains behind it."""
        longer = deepcopy(self)
        longer.domains = self.domains + n
        return longer


@dataclass(frozen=True, repr=False)
class named_domain(Encoder):
    """1 at the domain of a comparison, 0 elsewhere."""

    convex = True
    fallback = "in a comparison the heads that are surest of it, for a single response the head for all"

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, T + A)."""
        return _Domains(sizes.domains)


# ---- relations ----


@dataclass(frozen=True, repr=False)
class relations(Encoder):
    """A known domain has its own head; others have the heads of the domains that they are related to.

    The relation of two domains is blend * given + (1 - blend) * learned. The learned one is the mean over `looks` of
    the cosine between both domains' descriptions, each time with other learned weights on their numbers; a negative
    one is 0. A description is the mean of the domain's scaled vectors, and that of a comparison whose domain is not
    known is the mean of its own two.

    Attributes:
        given: domain -> (other domain -> relation, at least 0). What is said in one direction holds in both.
        blend: share of what is given; without anything given it is 0.
        looks: sets of learned weights.
        by: whose vectors describe: "responses" or "prompts".
    """

    given: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    blend: float = 0.5
    looks: int = 4
    by: str = "responses"

    fallback = "the heads of the domains that their own description is related to"

    def __post_init__(self) -> None:
        if self.by not in DESCRIPTIONS:
            raise ConfigError(f"describe={self.by!r}{nearest(str(self.by), DESCRIPTIONS)}")
        if not 0 <= self.blend <= 1 or self.looks < 1:
            raise ConfigError(f"blend={self.blend!r}, looks={self.looks!r}: a share of 1, and at least 1")
        odd = [(a, b, r) for a, row in self.given for b, r in row if not (np.isfinite(r) and r >= 0)]
        if odd:
            raise ConfigError(f"the relation of {odd[0][0]!r} to {odd[0][1]!r} is {odd[0][2]}; it is at least 0")

    @classmethod
    def of(cls, given: Mapping[str, Mapping[str, float]] | None, **options: Any) -> "relations":
        """With `given` as mappings."""
        rows = tuple((str(a), tuple((str(b), float(r)) for b, r in row.items())) for a, row in (given or {}).items())
        return cls(given=rows, **options)

    @property
    def convex(self) -> bool:  # type: ignore[override]
        """Nothing is learned where all is given."""
        return bool(self.given) and self.blend == 1

    @property
    def reads_prompts(self) -> bool:  # type: ignore[override]
        """Whether prompts describe."""
        return self.by == "prompts"

    def between(self, name: str, others: tuple[str, ...]) -> list[float]:
        """What is given of the relation of `name` to each of `others`; 0 where nothing is."""
        known = {(a, b): r for a, row in self.given for b, r in row}
        return [known.get((name, other), known.get((other, name), 0.0)) for other in others]

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, T) shares that add up to 1."""
        return _Relations(self, sizes)


class _Relations(_Domains):
    def __init__(self, part: relations, sizes: Sizes) -> None:
        super().__init__(sizes.domains)
        self.part = part
        self.blend = part.blend if part.given else 0.0
        width = sizes.features if part.by == "responses" else sizes.contexts
        self.register_buffer("described", torch.zeros(sizes.domains, width))
        self.register_buffer("stated", torch.zeros(sizes.domains, sizes.domains))
        weights = 1 + 0.1 * torch.randn(part.looks, width)
        self.weights = nn.Parameter(weights, requires_grad=self.blend < 1)

    def begin(self, data: Data) -> None:
        """Take the domains' descriptions, and what is given, from the training data."""
        names = data.table.domains
        for first, row in self.part.given:
            for second, _ in row:
                if first not in names and second not in names:
                    raise DataError(
                        f"a relation is given of {first!r} to {second!r}, and no comparison is of either; domains: "
                        f"{', '.join(names)}"
                    )
        self.stated = torch.tensor([self.part.between(name, names) for name in names], dtype=data.dtype)
        self.described = torch.stack([self.describe(data, data.domain.numpy() == k) for k in range(len(names))])

    def describe(self, data: Data, where: np.ndarray) -> Tensor:
        """(D,) the mean of the scaled vectors of the comparisons that `where` marks."""
        index, total = np.flatnonzero(where), 0.0
        for start in range(0, len(index), 4096):
            total = total + self._vectors(data.rows(index[start : start + 4096])).sum(dim=0)
        return total / len(index)

    def _vectors(self, rows: Rows) -> Tensor:
        if self.part.by == "responses":
            return (rows.first + rows.second) / 2
        if rows.context is None:
            raise DataError("domains are described by their prompts, and the table has no contexts")
        return rows.context

    def learned(self, vectors: Tensor) -> Tensor:
        """(n, T) relations of (n, D) descriptions to the domains trained on."""
        unit = nn.functional.normalize
        here = unit(self.weights[:, None] * vectors, dim=2, eps=_TINY)
        there = unit(self.weights[:, None] * self.described[: self.trained], dim=2, eps=_TINY)
        return (here @ there.transpose(1, 2)).mean(dim=0).clamp(min=0.0)

    def related_to(self, vectors: Tensor, stated: Tensor | None) -> Tensor:
        """(n, T) shares that add up to 1, from (n, D) descriptions and (n, T) given relations, None where none is.

        Even shares where there is no relation at all, or where only what is given counts and nothing is.
        """
        learned = self.learned(vectors)
        if stated is not None:
            values = self.blend * stated + (1 - self.blend) * learned
        else:
            values = learned if self.blend < 1 else torch.zeros_like(learned)
        none = values.sum(dim=1, keepdim=True) <= _TINY
        values = torch.where(none, torch.ones_like(values), values)
        return values / values.sum(dim=1, keepdim=True)

    def others(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """(n, T) shares of the domains that a row's own is related to, without itself; and (n,) where there are any."""
        t = int(self.trained)
        values = self.blend * self.stated[:t, :t] + (1 - self.blend) * self.learned(self.described[:t])
        values = values * (1 - torch.eye(t, dtype=values.dtype))
        total = values.sum(dim=1, keepdim=True)
        there = (rows.domain >= 0) & (total[:, 0] > _TINY)[rows.domain]
        return (values / total.clamp(min=_TINY))[rows.domain], there

    def forward(self, rows: Rows) -> Tensor:
        code, unknown = self.own(rows), rows.domain < 0
        if unknown.any():
            some = rows.take(unknown)
            # a given relation is of names, which these rows have not
            shares = self.padded(self.related_to(self._vectors(some), None))
            code = code.masked_scatter(unknown[:, None].expand_as(code), shares)
        return code

    def extended(self, n: int) -> "_Relations":
        longer = super().extended(n)
        longer.described = torch.cat([self.described, self.described.new_zeros(n, self.described.shape[1])])
        wide = self.stated.new_zeros(len(self.stated) + n, len(self.stated) + n)
        wide[: len(self.stated), : len(self.stated)] = self.stated
        longer.stated = wide
        return longer


@dataclass(frozen=True, repr=False)
class related(Mixing):
    """r(y) = sum_d c_d r_d(y), the code c from the encoder.

    Attributes:
        even: where several heads are put together, each is first brought to the spread that heads have on average.
    """

    even: bool = True

    convex = True

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Related(outputs, self.even)


class _Related(nn.Module):
    def __init__(self, heads: int, even: bool) -> None:
        super().__init__()
        self.even = even
        self.register_buffer("spread", torch.ones(heads))
        self.register_buffer("trained", torch.tensor(heads))

    def factors(self, code: Tensor) -> Tensor:
        """(n, T) what each head counts: the code, and where it is not one domain alone, heads of even spread."""
        return torch.where(code.amax(dim=1, keepdim=True) == 1, code, code / self.spread)

    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        factors, t = self.factors(code), int(self.trained)
        rewards = torch.stack([_summed(factors, first, t), _summed(factors, second, t)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return _summed(self.factors(code), values, int(self.trained))

    def end(self, net: Net, data: Data) -> None:
        """Take the heads' spreads over the training responses, relative to their mean."""
        if not self.even:
            return
        n, total, squares = 0, 0.0, 0.0
        for rows in data.batches(4096):
            values = net.head(torch.cat([rows.first, rows.second]))
            n, total, squares = n + len(values), total + values.sum(dim=0), squares + (values**2).sum(dim=0)
        spread = (squares / n - (total / n) ** 2).clamp(min=0.0).sqrt()
        some = spread > _TINY  # a head that says nothing stays as it is
        if some.any():
            self.spread = torch.where(some, spread / spread[some].mean(), 1.0)

    def extended(self, n: int) -> "_Related":
        longer = deepcopy(self)
        longer.spread = torch.cat([self.spread, self.spread.new_ones(n)])
        return longer


@dataclass(frozen=True, repr=False)
class consistency(AddOn):
    """factor * the loss of the comparisons as the other domains' heads see them, weighed by relation.

    A comparison whose domain is related to no other takes no part.
    """

    objective: Objective
    factor: float = 0.5

    convex = True  # where the relations are given

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise ConfigError(f"consistency={self.factor!r}: it is at least 0")

    def __call__(self, net: nn.Module, rows: Rows, output: Output, own: nn.Module | None) -> Tensor:
        """0-d"""
        code, there = net.encoder.others(rows)
        weight = rows.weight[there].sum()
        if not self.factor or not weight > 0:
            return output.logit.sum() * 0.0
        some = rows.take(there)
        seen = net.mixing(net.head(some.first), net.head(some.second), code[there], some)
        return self.factor * weight / rows.weight.sum() * self.objective.loss(batch_of(some, seen)).total


# ---- steering ----


@dataclass(frozen=True, repr=False)
class entropy_steered(Mixing):
    """A known domain has its own head; elsewhere each comparison has the heads that are surest of it.

    P(a > b) = sum_d w_d p_d with w_d proportional to H(p_d)^-gamma, H the entropy of the head's own probability. Being
    sure is not being right, so logits are first divided by their head's temperature.

    The first head is for all. It is trained beside the others, and a single response of no known domain has its reward.
    """

    gamma: float = 2.0

    convex = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.gamma) and self.gamma >= 0):
            raise ConfigError(f"gamma={self.gamma!r}: it is finite and at least 0; 0 weighs all heads alike")

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Steered(self.gamma, outputs)


class _Steered(nn.Module):
    def __init__(self, gamma: float, heads: int) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("temperature", torch.ones(heads))
        self.register_buffer("trained", torch.tensor(heads - 1))

    def weights(self, delta: Tensor) -> Tensor:
        """(n, T) logarithms of the weights of heads whose logits are (n, T)."""
        delta = delta.detach()
        surprise = nn.functional.softplus(-delta.abs())  # -log of the likelier side
        entropy = surprise + delta.abs() * torch.exp(-delta.abs() - surprise)
        # a head without any doubt has entropy 0
        raw = -self.gamma * entropy.clamp(min=torch.finfo(delta.dtype).tiny).log()
        return torch.log_softmax(raw, dim=1)

    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        first, second = first / self.temperature, second / self.temperature
        pooled = torch.stack([first[:, 0], second[:, 0]])
        delta = first[:, 1:] - second[:, 1:]
        known, t = rows.domain >= 0, int(self.trained)
        rewards = torch.stack([_summed(code, first[:, 1:], t), _summed(code, second[:, 1:], t)])
        if known.all():
            return Output(rewards[0] - rewards[1], rewards, {"pooled_head": pooled})
        steered = mixed_logit(self.weights(delta[~known, :t]), delta[~known, :t])
        logit = (rewards[0] - rewards[1]).masked_scatter(~known, steered)
        return Output(logit, None, {"pooled_head": pooled})

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        values = values / self.temperature
        known = code.sum(dim=1) > 0
        return torch.where(known, _summed(code, values[:, 1:], int(self.trained)), values[:, 0])

    def extended(self, n: int) -> "_Steered":
        longer = deepcopy(self)
        longer.temperature = torch.cat([self.temperature, self.temperature.new_ones(n)])
        return longer


@dataclass(frozen=True, repr=False)
class whole(descent):
    """`descent` that takes L-BFGS wherever all comparisons fit into memory, also from no more than a good beginning.

    For problems that are convex but for a few parameters.
    """

    def _whole(self, problem: Problem, data: Data, n: int) -> bool:
        return super()._whole(replace(problem, convex=True), data, n)


@dataclass(frozen=True, repr=False)
class tempered(descent):
    """`descent`, after which every head gets the temperature that suits comparisons it was not fitted to.

    Attributes:
        balance: every domain counts alike, however many comparisons it has.
        temper: whether temperatures are fitted; otherwise they are 1.
        folds: fits that a temperature takes.
    """

    balance: bool = True
    temper: bool = True
    folds: int = 3

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """As `descent.fit`; besides, "temperatures" by domain."""
        build = problem.build
        data = balanced(data) if self.balance else data
        centre = None if problem.centre is None else _untempered(problem.centre)
        problem = replace(problem, build=lambda seed: _untempered(build(seed)), centre=centre)
        net, told = super().fit(problem, data)
        if self.temper:
            net.mixing.temperature = self._temperatures(problem, data, told["ridge"])
            names = ("(pooled)", *data.table.domains)
            told["temperatures"] = dict(zip(names, net.mixing.temperature.tolist(), strict=True))
        return net, told

    def _temperatures(self, problem: Problem, data: Data, ridge: float) -> Tensor:
        """(1 + T,)"""
        fold = folds_of(data.table.group, self.folds, self.seed)
        domain = data.domain.numpy()
        delta = torch.full((len(data), 1 + len(data.table.domains)), torch.nan, dtype=torch.float64)
        for k in range(self.folds):
            inside, outside = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            if not len(outside) or not len(inside):
                continue
            net, _, _ = self._run(problem, data, inside, ridge, self.seed, rough=True)
            with torch.no_grad():
                for start in range(0, len(outside), 16_384):
                    index = outside[start : start + 16_384]
                    rows = data.rows(index)
                    delta[index] = (net.head(rows.first) - net.head(rows.second)).double()
        found = [_temperature(delta[:, 0], data, np.ones(len(data), dtype=bool))]
        found += [_temperature(delta[:, 1 + k], data, domain == k) for k in range(delta.shape[1] - 1)]
        return torch.tensor(found, dtype=data.dtype)


def _untempered(net: Net) -> Net:
    """The same model with temperatures of 1: another's, which a fit begins at, may have been tempered."""
    with torch.no_grad():
        net.head.weight /= net.mixing.temperature[:, None]
        net.mixing.temperature = torch.ones_like(net.mixing.temperature)
    return net


_TEMPERATURES = torch.logspace(-1, 1, 81, base=4, dtype=torch.float64)


def _temperature(delta: Tensor, data: Data, where: np.ndarray) -> float:
    """The temperature, a quarter to 4, at which the logits have the least log loss; 1 where nothing says so."""
    some = torch.from_numpy(where) & ~delta.isnan()
    weight, p = data.weight[some].double(), data.p[some].double()
    if not weight.sum() > 0 or not delta[some].abs().max() > _TINY:
        return 1.0
    logits = delta[some][:, None] / _TEMPERATURES
    losses = nn.functional.softplus(-logits) + (1 - p)[:, None] * logits
    return float(_TEMPERATURES[(weight[:, None] * losses).sum(dim=0).argmin()])


# ---- the context of a comparison, named or guessed from its prompt ----


@dataclass(frozen=True, repr=False)
class context_router(Encoder):
    """P(z | x): 1 for the context that a comparison names; otherwise what its prompt says.

    Without vectors of prompts a context has the share of the training comparisons that named it.
    """

    convex = True
    reads_prompts = True
    fallback = "the mean over contexts, as likely as the prompt makes each"

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, T) shares that add up to 1."""
        return _Contexts(sizes)


class _Contexts(_Domains):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes.domains)
        self.register_buffer("shares", torch.zeros(sizes.domains))  # logarithms, of the training comparisons
        self.weight, self.bias = None, None
        if sizes.contexts:
            self.weight = nn.Parameter(torch.zeros(sizes.domains, sizes.contexts))
            self.bias = nn.Parameter(torch.zeros(sizes.domains))

    def begin(self, data: Data) -> None:
        """Take the contexts' shares from the training data."""
        there = data.domain >= 0
        counts = torch.bincount(data.domain[there], weights=data.weight[there].double(), minlength=self.domains)
        self.shares = (counts.clamp(min=_TINY) / counts.sum()).log().to(data.dtype)

    def scores(self, rows: Rows) -> Tensor:
        """(n, T) logarithms of P(z | x), up to a constant."""
        t = int(self.trained)
        if self.weight is None:
            return self.shares[:t].expand(len(rows), -1)
        return self.shares[:t] + nn.functional.linear(rows.context, self.weight[:t], self.bias[:t])

    def forward(self, rows: Rows) -> Tensor:
        guessed = self.padded(torch.softmax(self.scores(rows), dim=1))
        return torch.where((rows.domain >= 0)[:, None], self.own(rows), guessed)

    def extended(self, n: int) -> "_Contexts":
        longer = super().extended(n)
        longer.shares = torch.cat([self.shares, self.shares.new_zeros(n)])
        if self.weight is not None:
            weight, bias = self.weight.detach(), self.bias.detach()
            longer.weight = nn.Parameter(torch.cat([weight, weight.new_zeros(n, weight.shape[1])]))
            longer.bias = nn.Parameter(torch.cat([bias, bias.new_zeros(n)]))
        return longer


@dataclass(frozen=True, repr=False)
class in_context(Mixing):
    """P(a > b) = sum_z P(z | x) sigmoid(r_z(a) - r_z(b)); a single response has its expected reward."""

    convex = True  # where every comparison names its context; else nearly

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _InContext(outputs)


class _InContext(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("trained", torch.tensor(heads))

    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        t, known = int(self.trained), rows.domain >= 0
        rewards = torch.stack([_summed(code, first, t), _summed(code, second, t)])
        if known.all():
            return Output(rewards[0] - rewards[1], rewards)
        unknown = ~known
        mixed = mixed_logit(log_shares(code[unknown, :t]), (first - second)[unknown, :t])
        return Output((rewards[0] - rewards[1]).masked_scatter(unknown, mixed))

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return _summed(code, values, int(self.trained))


@dataclass(frozen=True, repr=False)
class routing(AddOn):
    """factor * cross-entropy of the context that a comparison names, given its prompt; with a ridge of its own."""

    factor: float = 1.0
    ridge: float = 0.01

    convex = True

    def __post_init__(self) -> None:
        if self.factor < 0 or self.ridge < 0:
            raise ConfigError(f"routing={self.factor!r}, routing_ridge={self.ridge!r}: both are at least 0")

    def __call__(self, net: nn.Module, rows: Rows, output: Output, own: nn.Module | None) -> Tensor:
        """0-d"""
        named = rows.domain >= 0
        if net.encoder.weight is None or not rows.weight[named].sum() > 0:
            return output.logit.sum() * 0.0
        some = rows.take(named)
        losses = nn.functional.cross_entropy(net.encoder.scores(some), some.domain, reduction="none")
        pull = self.ridge / 2 * (net.encoder.weight**2).sum()
        return self.factor * ((some.weight * losses).sum() / rows.weight.sum() + pull)


# ---- new domains ----


def _newcomers(model: "PreferenceModel", table: PreferenceTable) -> tuple[list[str], "PreferenceModel", Data]:
    """Names of domains that the model does not know, a model that numbers them, and their comparisons."""
    known = set(model.domains_)
    new = [name for name in table.domains if name not in known]
    if not new:
        raise DataError("the comparisons name no domain that the model does not know already; give the column `domain`")
    grown = copy(model)
    grown.domains_ = (*model.domains_, *new)
    return new, grown, grown._data(table.take(np.isin(table.domain.astype(str), new)))


def _extended(net: Net, rows: Tensor) -> Net:
    """The net with (A, D) further rows of its head's last layer, one per new domain."""
    longer = deepcopy(net)
    longer.head = net.head.extended(rows)
    longer.encoder = net.encoder.extended(len(rows))
    if hasattr(net.mixing, "extended"):
        longer.mixing = net.mixing.extended(len(rows))
    return longer


@dataclass(frozen=True, repr=False)
class relate(Adaptation):
    """A new domain's head is the sum of the heads that it is related to; its labels are not read."""

    reads_labels = False

    def adapt(self, model: "PreferenceModel", table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with new domains' heads, and all users and domains by number.

        Raises:
            DataError: the table names no domain that the model does not know already.
        """
        new, grown, data = _newcomers(model, table)
        net, encoder, old = model.net_, model.net_.encoder, len(model.domains_)
        t = int(encoder.trained)
        heads = []
        with torch.no_grad():
            for k, name in enumerate(new, old):
                stated = torch.tensor([encoder.part.between(name, model.domains_)], dtype=model.dtype_)
                described = encoder.describe(data, data.domain.numpy() == k)[None]
                share = encoder.related_to(described, stated[:, :t] if stated.any() else None)
                heads.append(net.mixing.factors(encoder.padded(share)) @ net.head.weight)
            return _extended(net, torch.cat(heads)), model.users_, grown.domains_


@dataclass(frozen=True, repr=False)
class new_heads(Adaptation):
    """A new domain gets a head of its own, fitted to its comparisons from where the model is without it.

    Attributes:
        objective: the loss.
        pull: ridge towards where the new head begins, worth so many comparisons: with few labels the head stays near.
        steps: of L-BFGS, at most.
        pooled: the new head begins at the one for all, the first; otherwise at the mean of the trained ones.
        confident: None: labels are read. A number: they are not; instead the comparisons of which the model, as it is,
            is at least so sure are labelled as it would label them, which confirms its errors along with the rest.
    """

    objective: Objective
    pull: float = 10.0
    steps: int = 100
    pooled: bool = False
    confident: float | None = None

    def __post_init__(self) -> None:
        if self.pull < 0 or self.steps < 1:
            raise ConfigError(f"adapt_pull={self.pull!r}, adapt_steps={self.steps!r}: at least 0, and at least 1")
        if self.confident is not None and not 0.5 <= self.confident < 1:
            raise ConfigError(f"confident={self.confident!r}: a probability of at least one half, below 1; or null")

    @property
    def reads_labels(self) -> bool:
        """Whether labels of the new domain count."""
        return self.confident is None

    def adapt(self, model: "PreferenceModel", table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with new domains' heads, and all users and domains by number.

        Raises:
            DataError: the table names no domain that the model does not know already.
        """
        new, grown, data = _newcomers(model, table)
        heads, old = model.net_.head.weight.detach(), len(model.domains_)
        begin = heads[0] if self.pooled else heads[: int(model.net_.encoder.trained)].mean(dim=0)
        if self.pooled and hasattr(model.net_.mixing, "temperature"):
            begin = begin / model.net_.mixing.temperature[0]
        rows = data.rows(np.arange(len(data)))
        if self.confident is not None:
            rows = self._labelled(model, table, rows)
        fitted = []
        for k in range(old, old + len(new)):
            some = rows.take((rows.domain == k) & (rows.weight > 0))
            fitted.append(self._fitted(begin, some) if len(some) else begin)
        return _extended(model.net_, torch.stack(fitted)), model.users_, grown.domains_

    def _labelled(self, model: "PreferenceModel", table: PreferenceTable, rows: Rows) -> Rows:
        """The comparisons with labels of the model's own; those of which it is not sure count nothing."""
        own = table.take(~np.isin(table.domain.astype(str), (*model.domains_, UNNAMED)))
        first = torch.from_numpy(model.predict_proba(own)[:, 1]).to(rows.p.dtype)
        sure = torch.maximum(first, 1 - first) >= self.confident
        return replace(rows, p=(first >= 0.5).to(rows.p.dtype), weight=sure.to(rows.weight.dtype))

    def _fitted(self, begin: Tensor, rows: Rows) -> Tensor:
        """(D,) the head at the least loss and pull together."""
        free = begin.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([free], max_iter=self.steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            rewards = torch.stack([rows.first @ free, rows.second @ free])
            loss = self.objective.loss(batch_of(rows, Output(rewards[0] - rewards[1], rewards))).total
            loss = loss + self.pull / 2 / len(rows) * ((free - begin) ** 2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return free.detach()
