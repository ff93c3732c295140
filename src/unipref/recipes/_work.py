"""What a model has to compute for given tries, and how long that takes where some of it was timed.

Shapes: K blocks, A attention heads, D head width, H hidden width, V vocabulary; L tokens of one trie.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from unipref.core.tries import Trie
from unipref.engine import Policy
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
    "work_of",
]

FEATURES = 3


@dataclass(frozen=True)
class ModelShape:
    """What decides a model's arithmetic.

    Attributes:
        matrix: weights that a token meets in matrix products, embedding and head left out; of experts, those of the
            ones that a token is sent to.
        attention: K * A * D, the width of all heads of all blocks.
        head: H * V.
        weights: all weights, a tied one once. trained: those with a gradient, heads of the objective included.
        blocks: K.
    """

    matrix: int
    attention: int
    head: int
    weights: int
    trained: int
    blocks: int

    @classmethod
    def of(cls, policy: Policy) -> "ModelShape":
        """The shape of `policy`, read from its modules and its configuration."""
        text = policy.config.get_text_config()
        inner = policy.model.get_base_model() if hasattr(policy.model, "get_base_model") else policy.model
        apart = {id(m.weight) for m in (inner.get_input_embeddings(), inner.get_output_embeddings()) if m is not None}
        apart |= {id(m.weight) for m in inner.modules() if isinstance(m, nn.Embedding)}
        n_experts = getattr(text, "num_local_experts", None) or getattr(text, "num_experts", None) or 1
        share = min(1.0, (getattr(text, "num_experts_per_tok", None) or n_experts) / n_experts)
        matrix = sum(
            p.numel() * (share if "expert" in name and "shared" not in name else 1.0)
            for name, p in inner.named_parameters()
            if p.dim() > 1 and id(p) not in apart
        )
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            matrix=round(matrix),
            attention=text.num_hidden_layers * text.num_attention_heads * width,
            head=text.hidden_size * inner.get_input_embeddings().weight.shape[0],
            weights=sum(p.numel() for p in policy.model.parameters()),
            trained=sum(p.numel() for p in policy.parameters() if p.requires_grad),
            blocks=text.num_hidden_layers,
        )


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
    """Of one trie: its nodes, the nodes that a scored token is read from, and the tokens of each item's whole row."""

    nodes: int
    sources: int
    rows: tuple[int, ...]

    @classmethod
    def of(cls, trie: Trie) -> "TrieSize":
        scored = np.concatenate([np.asarray(nodes) for nodes in trie.scored]) if trie.scored else np.zeros(0, int)
        rows = tuple(int(d) + 1 for d in trie.depth[trie.last])
        return cls(trie.n_nodes, len(np.unique(trie.parent[scored])), rows)


def work_of(shape: ModelShape, forwards: Iterable[Sequence[TrieSize]], passes: Passes, *, path: str) -> Work:
    """The work of `forwards`, each some tries side by side.

    Per pass: 2 * matrix * tokens + 4 * attention * sum of L^2 + 2 * head * positions that are read. A product of a
    weight and a token is a multiplication and an addition; attention has two products of L x L per head, and computes
    the whole square, of which a mask hides the upper half.

    Args:
        path: "tries", where L is the nodes of a trie, or "rows", where every item is a row as long as the longest.
    """
    total = Work()
    for sizes in forwards:
        if path == "tries":
            tokens, squares = sum(s.nodes for s in sizes), sum(s.nodes**2 for s in sizes)
        else:
            rows = [n for s in sizes for n in s.rows]
            tokens, squares = len(rows) * max(rows), len(rows) * max(rows) ** 2
        total += Work(
            1,
            tokens,
            passes.matrix * 2 * shape.matrix * tokens,
            passes.attention * 4 * shape.attention * squares,
            passes.head * 2 * shape.head * sum(s.sources for s in sizes),
        )
    return total


def groups_of(sizes: Sequence[TrieSize], max_tokens: int) -> list[list[TrieSize]]:
    """`sizes` in the forwards that `unipref.training.split_by_tokens` makes of their examples."""
    found: list[list[TrieSize]] = []
    used = 0
    for one in sorted(sizes, key=lambda size: size.nodes):
        if not found or used + one.nodes > max_tokens:
            found.append([])
            used = 0
        found[-1].append(one)
        used += one.nodes
    return found


def plan_of_steps(
    sizes: Sequence[int], *, batch_size: int, seed: int, total: int, by_length: bool
) -> Iterator[list[int]]:
    """The rows of each of the `total` optimiser steps that the trainer's sampler will make, on one process."""
    sampler = StepSampler(sizes, batch_size, seed=seed, rank=0, world=1, by_length=by_length)

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
