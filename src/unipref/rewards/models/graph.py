"""Users and responses as a signed graph: vectors of users by collaborative filtering, and newcomers from neighbours.

A response stands in the graph as what its features are: two rows with the same numbers are one response, in whatever
table they are. Shapes: U users, I responses, Z numbers of a vector, n rows.
"""

import hashlib
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError
from unipref.objectives import bt as bradley_terry
from unipref.objectives import logistic
from unipref.rewards.models.data import Data
from unipref.rewards.models.descent import Problem, descent
from unipref.rewards.models.net import Net
from unipref.rewards.models.parts import Adaptation, Encoder, Mixing, Output, Rows, Sizes
from unipref.rewards.models.users import newcomers
from unipref.rewards.table import PreferenceTable

if TYPE_CHECKING:
    from unipref.rewards.models.model import PreferenceModel

__all__ = ["Edges", "Propagation", "graph_users", "keys_of", "neighbour_weights", "neighbours", "on_graph", "shared"]


def keys_of(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(n,) int64 names of responses by their features, as float32: equal numbers, equal name."""
    found = np.empty(len(rows), dtype=np.int64)
    for k, row in enumerate(rows):
        values = np.ascontiguousarray(features[row], dtype=np.float32) + np.float32(0.0)  # -0 is 0
        found[k] = int.from_bytes(hashlib.blake2b(values.tobytes(), digest_size=8).digest(), "little", signed=True)
    return found


@dataclass(frozen=True, eq=False)
class Edges:
    """The comparisons as edges: (n,) user, chosen and rejected response by number, and how much each counts."""

    user: Tensor
    chosen: Tensor
    rejected: Tensor
    weight: Tensor
    users: int
    items: int

    @classmethod
    def of(cls, data: Data, users: int) -> tuple["Edges", np.ndarray]:
        """The edges of known users' comparisons, ties and weights of 0 left out; and (I,) sorted keys of responses."""
        table = data.table
        counts = ((data.user >= 0) & (data.p != 0.5) & (data.weight > 0)).numpy()
        first, second = table.first[counts], table.second[counts]
        rows, where = np.unique(np.concatenate([first, second]), return_inverse=True)
        keys, number = np.unique(keys_of(table.features, rows), return_inverse=True)
        ends = torch.from_numpy(number[where]).reshape(2, -1)
        mask = torch.from_numpy(counts)
        wins = data.p[mask] > 0.5
        weight = data.weight[mask] * (2 * data.p[mask] - 1).abs()
        chosen, rejected = torch.where(wins, ends[0], ends[1]), torch.where(wins, ends[1], ends[0])
        return cls(data.user[mask], chosen, rejected, weight, users, len(keys)), keys

    def adjacency(self, side: str) -> Tensor:
        """(U, I) sparse: the weights of the chosen (rejected) edges over the roots of both ends' sums of weights."""
        item = getattr(self, side)
        of_user = self.weight.new_zeros(self.users).index_add(0, self.user, self.weight)
        of_item = self.weight.new_zeros(self.items).index_add(0, item, self.weight)
        values = self.weight / (of_user[self.user] * of_item[item]).sqrt()
        where = torch.stack([self.user, item])
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            return torch.sparse_coo_tensor(where, values, (self.users, self.items)).coalesce()


class Propagation(nn.Module):
    """Vectors of users and responses after `layers` rounds of looking at what is joined to them.

    A round is e_u <- LeakyReLU(m+ + W_1 (m+ * e_u) - m- - W_2 (m- * e_u) + W_0 e_u), where m+ and m- are what the
    chosen and rejected responses of u add up to; responses likewise, with matrices of their own. Without rounds this
    is matrix factorisation.
    """

    def __init__(self, edges: Edges, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.users = nn.Parameter(size**-0.5 * torch.randn(edges.users, size))
        self.items = nn.Parameter(size**-0.5 * torch.randn(edges.items, size))
        self.rounds = nn.ModuleList(
            nn.ModuleList(nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(3)) for _ in range(2))
            for _ in range(layers)
        )
        for matrix in (m for each in self.rounds for side in each for m in side):
            nn.init.xavier_uniform_(matrix.weight)
        self.dropout = nn.Dropout(dropout)
        self.edges = edges
        self.own = nn.ModuleDict()  # as a `Net` has it for add-ons
        if layers:
            self.joined = [edges.adjacency(side).to(self.users.dtype) for side in ("chosen", "rejected")]

    def vectors(self) -> tuple[Tensor, Tensor]:
        """(U, Z) and (I, Z)"""
        user, item = self.users, self.items
        for of_user, of_item in self.rounds:
            to_user = [torch.sparse.mm(a, item) for a in self.joined]
            to_item = [torch.sparse.mm(a.t(), user) for a in self.joined]
            user, item = self._round(of_user, user, *to_user), self._round(of_item, item, *to_item)
        return user, item

    def _round(self, matrices: nn.ModuleList, own: Tensor, liked: Tensor, disliked: Tensor) -> Tensor:
        by_liked, by_disliked, by_itself = matrices
        total = liked + by_liked(liked * own) - disliked - by_disliked(disliked * own) + by_itself(own)
        return self.dropout(nn.functional.leaky_relu(total, 0.2))

    def forward(self, rows: Rows) -> Output:
        """e_u . (e_chosen - e_rejected) of the graph's own comparisons."""
        user, item = self.vectors()
        own = user[self.edges.user]
        rewards = torch.stack([(own * item[each]).sum(dim=1) for each in (self.edges.chosen, self.edges.rejected)])
        return Output(rewards[0] - rewards[1], rewards)

    def penalised(self) -> list[nn.Parameter]:
        """All vectors."""
        return [self.users, self.items]


@dataclass(frozen=True, repr=False)
class graph_users(Encoder):
    """Shares of experts that a gate makes of a user's vector of length 1; somebody unknown has the mean vector.

    Attributes:
        size: of the vectors. hidden: of the gate. top: experts that a user has at most, the others' shares are 0; 0 for
            all.
    """

    size: int = 32
    hidden: int = 64
    top: int = 0

    reads_users = True
    fallback = "the mean of the known users' vectors"

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        """Rows to (n, experts): the head's first output is no expert."""
        return _Gate(sizes.users, self.size, self.hidden, outputs - 1, self.top)


class _Gate(nn.Module):
    """`vectors` of users by number, `mean` of those in the graph; what the graph was, for newcomers."""

    def __init__(self, users: int, size: int, hidden: int, experts: int, top: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(users, size))
        self.register_buffer("mean", torch.zeros(1, size))
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))  # of responses, sorted
        self.register_buffer("items", torch.zeros(0, size))
        self.register_buffer("liked", torch.zeros(2, 0, dtype=torch.int64))  # (user, response) numbers
        self.gate = nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, experts))
        self.top = top

    def forward(self, rows: Rows) -> Tensor:
        vectors = nn.functional.normalize(torch.cat([self.vectors, self.mean]), dim=1)
        shares = torch.softmax(self.gate(vectors), dim=1)
        if 0 < self.top < shares.shape[1]:
            least = shares.topk(self.top, dim=1).values[:, -1:]
            shares = torch.where(shares >= least, shares, 0.0)
        return shares[rows.user]

    def extended(self, vectors: Tensor) -> "_Gate":
        """The same encoder with newcomers' vectors behind the others; they are nobody's neighbours."""
        longer = deepcopy(self)
        longer.vectors = torch.cat([self.vectors, vectors.to(self.vectors.dtype)])
        return longer

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        for name in ("keys", "items", "liked"):  # as large as the graph was
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *rest)


@dataclass(frozen=True, repr=False)
class shared(Mixing):
    """r(y) = r_0(y) + sum_k g_k r_k(y): one reward for all and experts by a user's shares g of them."""

    def build(self, sizes: Sizes, outputs: int) -> nn.Module:
        if outputs < 2:
            raise ConfigError(f"a shared reward and experts are at least 2 outputs of a head; it has {outputs}")
        return _Shared()


class _Shared(nn.Module):
    def forward(self, first: Tensor, second: Tensor, code: Tensor, rows: Rows) -> Output:
        rewards = torch.stack([self.alone(first, code), self.alone(second, code)])
        return Output(rewards[0] - rewards[1], rewards)

    def alone(self, values: Tensor, code: Tensor) -> Tensor:
        return values[:, 0] + (code * values[:, 1:]).sum(dim=1)


@dataclass(frozen=True, repr=False)
class on_graph(descent):
    """Vectors of users from the graph first; then head and gate by descent, with the vectors as they are.

    Attributes:
        size, layers, dropout: of the graph's vectors. graph_lr, graph_steps: Adam on all comparisons at once.
        graph_ridge: pull of the vectors to 0.
    """

    size: int = 32
    layers: int = 2
    dropout: float = 0.1
    graph_lr: float = 0.01
    graph_steps: int = 200
    graph_ridge: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1 or self.layers < 0 or self.graph_steps < 1 or not 0 <= self.dropout < 1:
            raise ConfigError(
                f"size={self.size}, layers={self.layers}, graph_steps={self.graph_steps}, dropout={self.dropout}: at "
                "least 1, 0 and 1, and a share below 1"
            )

    def fit(self, problem: Problem, data: Data) -> tuple[Net, dict[str, Any]]:
        """As `descent`, and of the graph "users", "responses", "shared_responses", "graph_loss", "graph_accuracy"."""
        users = len(problem.build(self.seed).encoder.vectors)
        edges, keys = Edges.of(data, users)
        graph = self.graph(edges)
        with torch.no_grad():
            vectors, items = (value.to(data.dtype) for value in graph.vectors())
        joined = torch.zeros(users, dtype=torch.bool).index_fill(0, edges.user, True)
        mean = vectors[joined].mean(dim=0, keepdim=True) if joined.any() else vectors.new_zeros(1, self.size)
        liked = torch.unique(torch.stack([edges.user, edges.chosen]), dim=1)

        def build(seed: int) -> Net:
            net = problem.build(seed)
            encoder = net.encoder
            encoder.vectors = torch.where(joined[:, None], vectors, mean)
            encoder.mean, encoder.items, encoder.liked = mean, items, liked
            encoder.keys = torch.from_numpy(keys)
            return net

        net, told = super().fit(replace(problem, build=build), data)
        return net, {**told, "graph": self._told(edges, graph)}

    def graph(self, edges: Edges) -> Propagation:
        """Fitted to the comparisons: BPR, the logistic loss of e_u . (e_chosen - e_rejected)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            graph = Propagation(edges, self.size, self.layers, self.dropout)
            n = len(edges.user)
            if not n:
                return graph.eval()
            nothing = torch.zeros(n, 0)
            ones = torch.ones(n)
            number = torch.arange(n)
            weight = edges.weight.float()
            rows = Rows(nothing, nothing, edges.user, number, ones, weight, torch.full((n,), torch.nan), number)
            problem = Problem(lambda seed: graph, bradley_terry())
            optimizer = torch.optim.Adam(graph.parameters(), lr=self.graph_lr)
            for _ in range(self.graph_steps):
                optimizer.zero_grad()
                problem.loss(graph, rows, self.graph_ridge).backward()
                optimizer.step()
        return graph.eval()

    @staticmethod
    @torch.no_grad()
    def _told(edges: Edges, graph: Propagation) -> dict[str, Any]:
        pairs = torch.unique(torch.stack([edges.user.repeat(2), torch.cat([edges.chosen, edges.rejected])]), dim=1)
        seen_by = torch.bincount(pairs[1], minlength=edges.items)
        logit = graph(None).logit if len(edges.user) else torch.zeros(0)
        return {
            "users": int(torch.unique(edges.user).numel()),
            "responses": edges.items,
            "shared_responses": int((seen_by > 1).sum()),
            "accuracy": float((logit > 0).double().mean()) if len(logit) else None,
        }


def neighbour_weights(
    vectors: Tensor, items: Tensor, liked: Tensor, chosen: Tensor, rejected: Tensor, temperature: float
) -> Tensor:
    """(U,) shares of known users in somebody's vector; all 0 where nobody liked what this one did.

    Users who chose a response that the newcomer chose have softmax(mean log sigmoid(e_v . (e_chosen - e_rejected)) /
    temperature), over the newcomer's comparisons; the others have 0.

    Args:
        liked: (2, E) user and response of each chosen edge. chosen, rejected: (n,) the newcomer's, by number.
    """
    near = torch.zeros(len(vectors), dtype=torch.bool)
    near[liked[0][torch.isin(liked[1], chosen)]] = True
    shares = vectors.new_zeros(len(vectors))
    if near.any():
        fit = -logistic()(vectors[near] @ (items[chosen] - items[rejected]).T).mean(dim=1)
        shares[near] = torch.softmax(fit / temperature, dim=0)
    return shares


@dataclass(frozen=True, repr=False)
class neighbours(Adaptation):
    """A newcomer's vector is the mean of those of users who chose what they chose, by how well these predict the rest.

    Only comparisons of two responses that the graph holds count; without any, or without a neighbour, a newcomer has
    the mean user's vector.
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"neighbour_temperature={self.temperature!r}: it is above 0")

    def adapt(self, model: "PreferenceModel", table: PreferenceTable) -> tuple[Net, tuple[str, ...], tuple[str, ...]]:
        """The net with newcomers' vectors, and all users and domains by number.

        Raises:
            DataError: the table names nobody that the model does not know already.
        """
        new, own, grown = newcomers(model, table)
        gate, old = model.net_.encoder, len(model.users_)
        edges, keys = Edges.of(grown._data(own), len(grown.users_))
        known = gate.keys.numpy()
        place = np.searchsorted(known, keys)
        place = np.where((place < len(known)) & (known[np.minimum(place, len(known) - 1)] == keys), place, -1)
        number = torch.from_numpy(place)
        chosen, rejected = number[edges.chosen], number[edges.rejected]
        there = (chosen >= 0) & (rejected >= 0)
        vectors = gate.mean.repeat(len(new), 1)
        trained = gate.vectors[: int(gate.liked[0].max()) + 1 if gate.liked.numel() else 0]
        for k in range(len(new)):
            mine = there & (edges.user == old + k)
            if mine.any():
                shares = neighbour_weights(
                    trained, gate.items, gate.liked, chosen[mine], rejected[mine], self.temperature
                )
                if shares.any():
                    vectors[k] = shares @ trained
        net = deepcopy(model.net_)
        net.encoder = gate.extended(vectors)
        return net, grown.users_, model.domains_
