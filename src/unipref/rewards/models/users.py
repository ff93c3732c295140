"""Who is asked: tables of codes, how codes mix a head's outputs, and how a newcomer's code is found.

Shapes: n rows, U users, K outputs of a head.
"""

from copy import copy, deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.errors import DataError
from unipref.rewards.models.descent import Problem
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import Adaptation, Encoder, Mixing, Output, Rows, Sizes
from unipref.rewards.table import PreferenceTable

if TYPE_CHECKING:
    from unipref.rewards.models.model import PreferenceModel

__all__ = ["fit_codes", "newcomers", "simplex", "user_table", "weighted"]


@dataclass(frozen=True, repr=False)
class user_table(Encoder):
    """K free numbers per user. Somebody unknown has the mean of the known users' shares."""

    spread: float = 0.01  # of the numbers before the fit

    fallback = "the mean of the known users' shares"

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, K) shares that add up to 1."""
        return Table(sizes.users, outputs, self.spread)


class Table(nn.Module):
    """Softmax of a row per user.

    `trained` is how many of the users the fit has seen: newcomers behind them leave the fallback as it is. Where
    `alive` is False, nobody has a share.
    """

    def __init__(self, users: int, outputs: int, spread: float) -> None:
        super().__init__()
        self.codes = nn.Parameter(spread * torch.randn(users, outputs))
        self.register_buffer("trained", torch.tensor(users))
        self.register_buffer("alive", torch.ones(outputs, dtype=torch.bool))

    def forward(self, rows: Rows) -> Tensor:
        return self.of(rows.user)

    def of(self, user: Tensor) -> Tensor:
        """(n, K) shares of users by number."""
        known = torch.softmax(self.codes.masked_fill(~self.alive, -torch.inf), dim=1)
        # the last row is what the number UNSEEN = -1 reads
        return torch.cat([known, self._mean(known)])[user]

    def _mean(self, known: Tensor) -> Tensor:
        if len(known):
            return known[: int(self.trained)].mean(dim=0, keepdim=True)
        alive = self.alive.to(known.dtype)
        return (alive / alive.sum())[None]

    def extended(self, n: int) -> "Table":
        """The same table with n newcomers behind it, who begin where the users' shares are on average."""
        with torch.no_grad():
            mean = self.of(torch.tensor([-1])).clamp(min=1e-12).log()  # a share of 0 has no logarithm
        longer = deepcopy(self)
        longer.codes = nn.Parameter(torch.cat([self.codes.detach(), mean.expand(n, -1)]))
        return longer


@dataclass(frozen=True, repr=False)
class weighted(Mixing):
    """r(y) = sum_k c_k r_k(y), the numbers c from the encoder; a comparison is the difference of two such rewards."""

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        return _Weighted()


@dataclass(frozen=True, repr=False)
class simplex(weighted):
    """`weighted` by shares that are at least 0 and add up to 1."""


class _Weighted(nn.Module):
    def forward(self, first: Tensor, second: Tensor, code: Tensor | None, rows: Rows) -> Output:
        rewards = torch.stack([(code * first).sum(dim=1), (code * second).sum(dim=1)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor | None) -> Tensor:
        return (code * values).sum(dim=1)


def newcomers(model: "PreferenceModel", table: PreferenceTable) -> tuple[list[str], PreferenceTable, "PreferenceModel"]:
    """Names that the model does not know, their comparisons, and the model with these names behind its own.

    Raises:
        DataError: there is nobody new.
    """
    known = set(model.users_)
    new = [name for name in table.users if name not in known]
    if not new:
        raise DataError("the comparisons name no user that the model does not know already; give the column `user`")
    grown = copy(model)
    grown.users_ = (*model.users_, *new)
    return new, table.take(np.isin(table.user.astype(str), new)), grown


@dataclass(frozen=True, repr=False)
class fit_codes(Adaptation):
    """A newcomer's code is fitted by gradient steps on the model's own loss; nothing else moves.

    Attributes:
        lr, steps: of Adam on all newcomers' comparisons at once.
        pull: ridge towards where newcomers begin, per comparison of theirs.
    """

    lr: float = 0.1
    steps: int = 500
    pull: float = 0.0

    def adapt(self, model: "PreferenceModel", table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with newcomers' codes, and all users and domains by number.

        Raises:
            DataError: the table names nobody that the model does not know already.
        """
        new, own, grown = newcomers(model, table)
        old = len(model.users_)
        net = deepcopy(model.net_)
        net.encoder = net.encoder.extended(len(new))
        begin = net.encoder.codes.detach()[old:].clone()
        free = begin.clone().requires_grad_()
        known = net.encoder.codes.detach()[:old]
        del net.encoder.codes  # a parameter; while newcomers are fitted, a tensor that holds theirs
        data = grown._data(own)
        problem = Problem(model._net, model.objective)
        rows = data.rows(np.arange(len(data)))
        optimizer = torch.optim.Adam([free], lr=self.lr)
        for _ in range(self.steps):
            optimizer.zero_grad()
            net.encoder.codes = torch.cat([known, free])
            loss = problem.loss(net, rows) + self.pull / 2 * ((free - begin) ** 2).sum() / len(data)
            loss.backward()
            optimizer.step()
        net.encoder.codes = torch.nn.Parameter(torch.cat([known, free.detach()]))
        return net, grown.users_, model.domains_
