"""Amortised users: a few choices of somebody go through an encoder in one pass, which is trained on such episodes.

Shapes: n rows, m pairs of a context, S people, D features, H hidden units, Z numbers of a code.
"""

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.batch import Clock
from unipref.core.errors import ConfigError, UniprefError
from unipref.objectives import logistic
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, folds_of
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import UNSEEN, Adaptation, Encoder, Fitting, Mixing, Output, Rows, Sizes
from unipref.rewards.models.users import newcomers
from unipref.rewards.table import PreferenceTable

if TYPE_CHECKING:
    from unipref.rewards.models.model import PreferenceModel

__all__ = ["amortised", "concatenated", "episodes", "set_encoder"]

_AT_ONCE = 16_384  # pairs that are encoded at a time where no single user has more


@dataclass(frozen=True, repr=False)
class set_encoder(Encoder):
    """A person's choices, whichever way they are ordered, to Z numbers; no choices give one constant code.

    Each pair [chosen; rejected] goes through a small perceptron; where `heads` is above 0 the pairs of one person then
    see each other by self-attention; their mean goes through a linear map. The mean, not the sum, so that the code does
    not grow with the number of choices. A choice counts by its weight and by how far its label is from a tie.
    """

    size: int = 16
    hidden: int = 64
    heads: int = 0

    fallback = "the code of somebody who has made no choice yet"

    def __post_init__(self) -> None:
        if self.size < 1 or self.hidden < 1 or self.heads < 0 or (self.heads and self.hidden % self.heads):
            raise ConfigError(
                f"set_encoder(size={self.size}, hidden={self.hidden}, heads={self.heads}): sizes are at least 1, and "
                "the heads divide the hidden units"
            )

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, Z)."""
        return _Sets(sizes.features, self.size, self.hidden, self.heads, sizes.users)


class _Sets(nn.Module):
    """`codes` holds what is known of each user by number; while episodes are trained it holds theirs."""

    def __init__(self, features: int, size: int, hidden: int, heads: int, users: int) -> None:
        super().__init__()
        self.pairs = nn.Sequential(nn.Linear(2 * features, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True) if heads else None
        self.code = nn.Linear(hidden, size)
        self.register_buffer("codes", torch.zeros(users, size))

    def forward(self, rows: Rows) -> Tensor:
        nothing = self.code(self.code.weight.new_zeros(1, self.code.in_features))
        return torch.cat([self.codes, nothing])[rows.user]  # UNSEEN = -1 reads the last

    def encode(self, rows: Rows, person: Tensor, people: int) -> Tensor:
        """(S, Z) codes of people, from all the choices of each; `person` is (m,), in 0 ... S - 1."""
        first = (rows.p >= 0.5)[:, None]
        chosen, rejected = torch.where(first, rows.first, rows.second), torch.where(first, rows.second, rows.first)
        seen = self.pairs(torch.cat([chosen, rejected], dim=1))
        weight = rows.weight * (2 * rows.p - 1).abs()
        if self.attention is not None:
            seen = self._attended(seen, weight, person, people)
        sums = seen.new_zeros(people, seen.shape[1]).index_add(0, person, weight[:, None] * seen)
        counts = seen.new_zeros(people).index_add(0, person, weight)
        # counts of 0 have sums of 0, and weights may be tiny
        return self.code(sums / torch.where(counts > 0, counts, 1.0)[:, None])

    def _attended(self, seen: Tensor, weight: Tensor, person: Tensor, people: int) -> Tensor:
        """(m, H): what each pair makes of the others of its person, added to what it was; ties are not looked at."""
        order = torch.argsort(person, stable=True)
        counts = torch.bincount(person, minlength=people)
        place = torch.arange(len(person)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        padded = seen.new_zeros(people, max(int(counts.max()), 1), seen.shape[1]).index_put(
            (person[order], place), seen[order]
        )
        hidden = torch.ones(padded.shape[:2], dtype=torch.bool).index_put((person[order], place), weight[order] == 0)
        some = ~hidden.all(dim=1)
        if not some.any():
            return seen
        attended = padded.clone()
        queries = padded[some]
        attended[some] = (
            queries + self.attention(queries, queries, queries, key_padding_mask=hidden[some], need_weights=False)[0]
        )
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        return attended[person[order], place][back]

    def extended(self, codes: Tensor) -> "_Sets":
        """The same encoder with newcomers' (n, Z) codes behind the others."""
        longer = deepcopy(self)
        longer.codes = torch.cat([self.codes, codes.to(self.codes.dtype)])
        return longer


@dataclass(frozen=True, repr=False)
class concatenated(Mixing):
    """r(y) = MLP([h(y); z]) of the head's numbers and the code; a comparison is the difference of two such rewards.

    The head is the part of the first layer that reads the response.
    """

    hidden: int = 64
    size: int = 16

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Concatenated(outputs, self.hidden, self.size)


class _Concatenated(nn.Module):
    def __init__(self, width: int, hidden: int, size: int) -> None:
        super().__init__()
        self.of_code = nn.Linear(size, width)
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1, bias=False))

    def forward(self, first: Tensor, second: Tensor, code: Tensor, rows: Rows) -> Output:
        rewards = torch.stack([self.alone(first, code), self.alone(second, code)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor) -> Tensor:
        return self.layers(values + self.of_code(code))[:, 0]


@dataclass(frozen=True, repr=False)
class episodes(Fitting):
    """Adam on episodes: of a person some choices are the context, from 0 to `context`, and others are predicted.

    No choice is in both. What is predicted after a pass now and then is left out of training: people where there are
    20 or more, else a tenth of the choices; the fit ends where that gets no better.

    Attributes:
        steps: at most. people: in one step. targets: choices of each that are predicted.
        context: choices of a person that the encoder sees at most, in training.
        patience: looks, one every 50 steps, without a lower log loss; the best net stays. 0: all steps are taken.
    """

    steps: int = 2000
    people: int = 32
    context: int = 10
    targets: int = 20
    lr: float = 0.003
    ridge: float = 0.0001
    patience: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "people", "context", "targets", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: it is above 0")
        if not self.ridge >= 0:
            raise ConfigError(f"ridge={self.ridge!r}: it is at least 0")

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """The net, with a code for every user from all of the user's choices; "steps", "log_loss" on what was left out.

        Raises:
            UniprefError: the parameters are not finite.
        """
        net = problem.build(self.seed)
        users = len(net.encoder.codes)
        generator = np.random.default_rng(self.seed)
        people, nobody = _people(data)
        people, looked = self._left_out(people, data, generator)
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
        best, best_state, waited, step = math.inf, None, 0, 0
        for step in range(1, self.steps + 1):
            some = generator.choice(len(people), min(self.people, len(people)), replace=False) if people else []
            episode = self._episode([people[k] for k in some], nobody, generator)
            optimizer.zero_grad()
            rows = episode.shown(net, data)
            problem.loss(net, rows, self.ridge, Clock(step, self.steps)).backward()
            optimizer.step()
            if step % _LOOK == 0 and looked is not None and self.patience:
                with torch.no_grad():
                    rows = looked.shown(net, data)
                    now = float(_likelihood(net(rows).logit, rows))
                if now < best - 1e-5:
                    best, waited = now, 0
                    best_state = {name: value.clone() for name, value in net.state_dict().items() if name != _CODES}
                else:
                    waited += 1
                if waited >= self.patience:
                    break
        if best_state is not None:
            net.load_state_dict(best_state, strict=False)
        if not all(torch.isfinite(parameter).all() for parameter in net.parameters()):
            raise UniprefError("the fit left finite numbers; take a lower lr, or a larger ridge")
        net.encoder.codes = codes_of(net, data, users)
        return net, {"steps": step, "log_loss": None if best_state is None else best}

    def _left_out(
        self, people: list[np.ndarray], data: Data, generator: np.random.Generator
    ) -> tuple[list[np.ndarray], "_Episode | None"]:
        """The rows of each person that are trained on, and the episode that a fit is judged by."""
        if not self.patience:
            return people, None
        if len(people) >= 20:
            order = generator.permutation(len(people))
            n = max(2, len(people) // 10)
            # each of them three times, with contexts of different sizes
            judged = self._episode([people[k] for k in np.tile(order[:n], 3)], np.arange(0), generator)
            return [people[k] for k in order[n:]], judged
        fold = folds_of(data.table.group, 10, self.seed)
        parted = [(own[fold[own] != 0], own[fold[own] == 0]) for own in people]
        if not all(len(inside) for inside, _ in parted) or sum(len(outside) for _, outside in parted) < 5:
            return people, None
        contexts = [generator.permutation(inside)[: self.context] for inside, _ in parted]
        judged = _Episode.of(contexts, [outside for _, outside in parted], np.arange(0))
        return [inside for inside, _ in parted], judged

    def _episode(self, people: list[np.ndarray], nobody: np.ndarray, generator: np.random.Generator) -> "_Episode":
        """Of each person a context of a random size and at least one choice that is predicted."""
        contexts, targets = [], []
        for own in people:
            order = own[generator.permutation(len(own))]
            n = int(generator.integers(0, min(self.context, len(own) - 1) + 1))
            contexts.append(order[:n])
            targets.append(order[n : n + self.targets])
        if len(nobody):
            nobody = generator.choice(nobody, min(self.targets * max(1, len(people) // 4), len(nobody)), replace=False)
        return _Episode.of(contexts, targets, nobody)


_LOOK = 50  # steps
_CODES = "encoder.codes"


@dataclass(frozen=True, eq=False)
class _Episode:
    """Comparisons that are seen, (m,) rows and whose they are, 0 ... S - 1; and those that are predicted, likewise."""

    context: np.ndarray
    owner: np.ndarray
    target: np.ndarray
    asked: np.ndarray
    people: int

    @classmethod
    def of(cls, contexts: list[np.ndarray], targets: list[np.ndarray], nobody: np.ndarray) -> "_Episode":
        none = [np.arange(0)]
        owner = np.repeat(np.arange(len(contexts)), [len(own) for own in contexts])
        asked = np.repeat(np.arange(len(targets)), [len(own) for own in targets])
        asked = np.concatenate([asked, np.full(len(nobody), UNSEEN)])
        return cls(np.concatenate([*contexts, *none]), owner, np.concatenate([*targets, nobody]), asked, len(contexts))

    def shown(self, net: Net, data: Data) -> Rows:
        """What is predicted, its users numbered as the codes that the net now holds, with gradient."""
        owner = torch.from_numpy(self.owner)
        net.encoder.codes = net.encoder.encode(data.rows(self.context), owner, self.people)
        return replace(data.rows(self.target), user=torch.from_numpy(self.asked))


def _people(data: Data) -> tuple[list[np.ndarray], np.ndarray]:
    """The rows of each user who has some that count, and those of nobody."""
    counts = np.flatnonzero((data.weight > 0).numpy())
    user = data.user.numpy()[counts]
    order = np.argsort(user, kind="stable")
    names, begin = np.unique(user[order], return_index=True)
    parts = dict(zip(names.tolist(), np.split(counts[order], begin[1:]), strict=True))
    nobody = parts.pop(UNSEEN, np.arange(0))
    return list(parts.values()), nobody


def _likelihood(logit: Tensor, rows: Rows) -> Tensor:
    """0-d: mean negative log-likelihood of soft labels, nats, by weight."""
    return (rows.weight * logistic().between(logit, rows.p, 0.0, (1.0, 1.0))).sum() / rows.weight.sum()


@torch.no_grad()
def codes_of(net: Net, data: Data, users: int, first: int = 0) -> Tensor:
    """(users, Z) codes of the users from number `first` on, each from all of their comparisons in `data`."""
    user = data.user.numpy()
    order = np.argsort(user, kind="stable")
    bounds = np.searchsorted(user[order], np.arange(first, first + users + 1))
    codes = [net.encoder.code.weight.new_zeros(0, net.encoder.code.out_features)]
    begin = 0
    while begin < users:
        end = begin + 1
        while end < users and bounds[end + 1] - bounds[begin] <= _AT_ONCE:
            end += 1
        index = order[bounds[begin] : bounds[end]]
        codes.append(net.encoder.encode(data.rows(index), data.user[index] - first - begin, end - begin))
        begin = end
    return torch.cat(codes)


@dataclass(frozen=True, repr=False)
class amortised(Adaptation):
    """A newcomer's code is what the encoder makes of their choices: one forward pass, and no parameter moves."""

    def adapt(self, model: "PreferenceModel", table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with newcomers' codes, and all users and domains by number.

        Raises:
            DataError: the table names nobody that the model does not know already.
        """
        new, own, grown = newcomers(model, table)
        net = deepcopy(model.net_)
        net.encoder = net.encoder.extended(codes_of(net, grown._data(own), len(new), first=len(model.users_)))
        return net, grown.users_, model.domains_
