"""What a model has to compute for given tries, and how long that takes where some of it was timed.

Shapes: K blocks, A attention heads, D head width, H hidden width, V vocabulary; L tokens of one trie.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unipref.core.tries import Trie
from unipref.engine.shape import ModelShape
from unipref.training.balance import cut
from unipref.training.sampler import StepSampler

__all__ = [
    "FORWARD",
    "CostModel",
    "ModelShape",
    "Passes",
    "TrieSize",
    "Work",
    "groups_of",
    "plan_of_steps",
    "saved_bytes",
    "scoring_work",
    "work_of",
]

FEATURES = 3


@dataclass(frozen=True)
class Passes:
    """How often the products of one forward are made in all, so that a forward and its backward count as three.

    A backward makes two products for each of the forward: one for the gradient of what came in, one for that of the
    weight. Where weights are frozen the second falls away. Activation checkpointing repeats the blocks' forward.
    """

    matrix: float
    attention: float
    head: float

    @classmethod
    def of_training(cls, *, frozen: bool, checkpointing: bool) -> "Passes":
        """Of one forward and backward.

        Args:
            frozen: the weights are frozen under adapters. The head's gradient is then taken along in its forward.
        """
        again = 1 if checkpointing else 0
        return cls(matrix=(2 if frozen else 3) + again, attention=3 + again, head=2 if frozen else 3)


FORWARD = Passes(1, 1, 1)


@dataclass(frozen=True)
class Work:
    """What some forwards compute; works add up.

    Attributes:
        forwards: how many.
        tokens: positions that the model computes.
        matrix, attention, head: floating-point operations.
    """

    forwards: int = 0
    tokens: int = 0
    matrix: float = 0.0
    attention: float = 0.0
    head: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(a + b for a, b in zip(self.parts(), other.parts(), strict=True)))

    def times(self, number: float) -> "Work":
        """This work `number` times."""
        return Work(round(self.forwards * number), round(self.tokens * number), *(x * number for x in self.parts()[2:]))

    def parts(self) -> tuple[float, ...]:
        return self.forwards, self.tokens, self.matrix, self.attention, self.head

    @property
    def flops(self) -> float:
        return self.matrix + self.attention + self.head

    @property
    def features(self) -> np.ndarray:
        """(3,) forwards, floating-point operations of weights, and of attention: what its time is made of."""
        return np.array([self.forwards, self.matrix + self.head, self.attention], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class TrieSize:
    """What one trie makes a model compute.

    Attributes:
        nodes: of the trie. sources: those that a scored token is read from.
        pairs: of a node and one that it sees, itself included.
        rows: the tokens of each item's whole row.
    """

    nodes: int
    sources: int
    pairs: int
    rows: tuple[int, ...]

    @classmethod
    def of(cls, trie: Trie) -> "TrieSize":
        scored = np.concatenate([np.asarray(nodes) for nodes in trie.scored]) if trie.scored else np.zeros(0, int)
        rows = tuple(int(d) + 1 for d in trie.depth[trie.last])
        return cls(trie.n_nodes, len(np.unique(trie.parent[scored])), trie.n_visible, rows)


def work_of(shape: ModelShape, forwards: Iterable[Sequence[TrieSize]], passes: Passes, *, path: str) -> Work:
    """The work of `forwards`, each some tries side by side.

    Per pass: 2 * matrix * tokens + 4 * attention * pairs + 2 * head * positions that are read. A product of a weight
    and a token is a multiplication and an addition; attention has two products per head for each pair of a token and
    one that it attends to.

    Args:
        path: "tries", where a token attends to its ancestors in the trie and itself, or "rows", where every item is a
            row as long as the longest and a token attends to all before it.
    """
    total = Work()
    for sizes in forwards:
        if path == "tries":
            tokens, pairs = sum(s.nodes for s in sizes), sum(s.pairs for s in sizes)
        else:
            rows = [n for s in sizes for n in s.rows]
            longest = max(rows)
            tokens, pairs = len(rows) * longest, len(rows) * longest * (longest + 1) // 2
        total += Work(
            1,
            tokens,
            passes.matrix * 2 * shape.matrix * tokens,
            passes.attention * 4 * shape.attention * pairs,
            passes.head * 2 * shape.head * sum(s.sources for s in sizes),
        )
    return total


def groups_of(
    sizes: Sequence[TrieSize], max_tokens: int, *, pair_cost: float = 0.0, alike: bool = False
) -> list[list[int]]:
    """Which of `sizes` share a forward, as `unipref.training.split_by_tokens` has it for examples that share no prompt.

    Those that do take less: what they begin with alike is computed once.
    """
    nodes = np.array([size.nodes for size in sizes], dtype=np.int64)
    pairs = np.array([size.pairs for size in sizes], dtype=np.int64)
    return cut(nodes, nodes + pair_cost * pairs, max_tokens, alike=alike)


def scoring_work(shape: ModelShape, sizes: Sequence[TrieSize], max_tokens: int, *, path: str) -> Work:
    """The work of scoring `sizes` without gradient, in forwards of at most `max_tokens` nodes."""
    groups = groups_of(sizes, max_tokens, alike=True)
    return work_of(shape, [[sizes[i] for i in group] for group in groups], FORWARD, path=path)


def plan_of_steps(
    sizes: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    total: int,
    by_length: bool,
    prompts: Sequence[int] | None = None,
) -> Iterator[list[int]]:
    """The rows of each of the `total` optimiser steps that the trainer's sampler will make, on one process."""
    sampler = StepSampler(sizes, batch_size, seed=seed, rank=0, world=1, by_length=by_length, prompts=prompts)

    def epochs() -> Iterator[list[int]]:
        for epoch in itertools.count():
            sampler.set_epoch(epoch)
            yield from sampler

    return itertools.islice(epochs(), total)


@dataclass(frozen=True)
class CostModel:
    """Seconds as per_forward * forwards + per_flop * (weights' operations) + per_attention_flop * (attention's).

    No coefficient is negative. Between the works that were timed it is an interpolation and hardly wrong; which of
    the three pays for what it cannot tell where the timed works differ little.
    """

    per_forward: float
    per_flop: float
    per_attention_flop: float

    @classmethod
    def fit(cls, works: Sequence[Work], seconds: Sequence[float]) -> "CostModel":
        """The nonnegative coefficients with the least squares of relative errors.

        With three features the best of the eight sets of positive ones is simply tried out.

        Raises:
            ValueError: nothing was timed.
        """
        if not works:
            raise ValueError("a cost model needs at least one timed work")
        features = np.stack([work.features for work in works])
        scale = np.where(features.max(0) > 0, features.max(0), 1.0)
        rows = features / scale / np.asarray(seconds, dtype=np.float64)[:, None]
        best, error = np.zeros(FEATURES), math.inf
        for size in range(1, FEATURES + 1):
            for chosen in map(list, itertools.combinations(range(FEATURES), size)):
                found, _, rank, _ = np.linalg.lstsq(rows[:, chosen], np.ones(len(rows)), rcond=1e-9)
                if rank < size or (found < 0).any():
                    continue
                left = float(((rows[:, chosen] @ found - 1) ** 2).sum())
                if left < error - 1e-9:  # of sets that explain it equally well the smallest
                    best, error = np.zeros(FEATURES), left
                    best[chosen] = found
        return cls(*(best / scale).tolist())

    def seconds(self, work: Work) -> float:
        """What `work` takes."""
        return float(np.array([self.per_forward, self.per_flop, self.per_attention_flop]) @ work.features)


def saved_bytes(call: Callable[[], object], parameters: Iterable[torch.Tensor]) -> int:
    """Bytes that the forward `call` keeps for its backward, each storage once, those of `parameters` left out."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(kept.values())
