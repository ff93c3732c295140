"""Attention of a row of tries on a CPU, at the cost of the (ancestor, descendant) pairs in it.

Shapes: N nodes, A heads, G heads of keys and values (A = G r), D head width (values may have their own), and within a
block w rows, L keys.

A *run* is a maximal line of nodes each of which is the first child of the one before: a prompt with its first response,
then every further response from where it leaves the others. Depth-first order puts the nodes of a run side by side. A
*part* is one run, or a few short ones side by side; the keys of its rows are the ancestors of its first node and the
part itself. Rows of a part are worked off in *blocks*: a block reads the keys up to its own last row, so what lies
right of the diagonal is computed for half a block at most, and a mask is needed only at the few columns that some rows
of the block see and others do not.

Whether two runs share a part, and how many rows a block has, weighs pairs computed for nothing against calls: `_CALL`
and its like below say how. A block is two matrix products with a softmax between them, and five for its gradient, four
where the weights were kept. Torch's own flash kernel for CPUs (2.13) is not used: up to 512 keys it computes the hidden
half of a causal square too, on blocks of under 130 rows these products were up to 1.8 times as fast on the two cores
where this was written, and its parts would have to be merged by their log-sum-exp.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Block", "Part", "Plan", "attend", "make_plan"]

# Costs in (query, key) pairs, forward and backward together; those of calls times A D, as a wide pair costs more. They
# are right for two cores. Times hardly change for _CALL from 0.6e6 to 2.4e6 and _ROW from 4 to 32 (HH-like pairs, lists
# and step trees; widths of 384 and 1024), so they need no tuning; with many more cores larger blocks would pay.
_CALL = 1.2e6  # a block's calls: about 120 microseconds
_COPY = 24  # copying a key and a value and adding back their gradients, in pairs
_RANGE = 0.2 * _CALL  # one more range of keys to copy
_ROW = 16  # matrix products of few rows are slow: w rows lose a share of 16 / w
_LONGEST_SHARED = 512  # rows of a part of several runs, at most
_KEPT = 4  # attention weights are kept up to four times the memory of the queries: 4 D keys a row
_SCRATCH = 2**19  # scores computed at a time, per thread: 2 MiB of float32, about what a core's cache holds


@dataclass(frozen=True, eq=False)
class Block:
    """Rows `first` to `last` - 1 of the whole, against the keys `low` to `high` - 1 of their part.

    Attributes:
        hidden: to be added to the scores of the last columns, as many as it has: 0, or minus infinity where the row
            does not see the key; None where all of the block is seen.
    """

    first: int
    last: int
    low: int
    high: int
    hidden: Tensor | None

    @property
    def n_pairs(self) -> int:
        return (self.last - self.first) * (self.high - self.low)


@dataclass(frozen=True, eq=False)
class Part:
    """Blocks that share their keys.

    Attributes:
        ranges: (first, last) of the nodes that are keys, in order, without overlap.
    """

    ranges: tuple[tuple[int, int], ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is computed for a row of tries; blocks cover every node exactly once as a row."""

    parts: tuple[Part, ...]

    @property
    def n_pairs(self) -> int:
        """(query, key) pairs that are computed, seen or not."""
        return sum(block.n_pairs for part in self.parts for block in part.blocks)


def make_plan(depth: Tensor, end: Tensor, *, width: int, window: int | None, dtype: torch.dtype) -> Plan:
    """The plan of a row of tries for layers whose heads are `width` = A D wide in all.

    Args:
        depth, end: (N,) int64, on the CPU.
        window: a node sees ancestors less than `window` above it only; None: all of them.
        dtype: what scores are computed in.
    """
    if window is not None and int(depth.max()) < window:
        window = None
    return _Planner(depth.numpy(), end.numpy(), width, window, dtype).plan()


class _Planner:
    def __init__(self, depth: np.ndarray, end: np.ndarray, width: int, window: int | None, dtype: torch.dtype) -> None:
        self.depth, self.end, self.window, self.dtype = depth, end, window, dtype
        self.call, self.range = _CALL / width, _RANGE / width  # in pairs
        self.triangles: dict[int, Tensor] = {}  # blocks of one size within a run are masked alike
        first_child = np.diff(depth, prepend=-1) == 1
        self.bound = np.append(np.flatnonzero(~first_child | (depth == 0)), len(depth))  # of the runs

    def plan(self) -> Plan:
        depth, bound = self.depth, self.bound.tolist()
        path = np.empty(int(depth.max()) + 1, dtype=np.int64)  # per depth the node on the way to the current run
        parts = []
        for i, j in self._shared():
            first, last = bound[i], bound[j]
            ancestors = path[: depth[first]].copy()
            for a, b in itertools.pairwise(bound[i : j + 1]):
                path[depth[a] : depth[a] + b - a] = np.arange(a, b)
            if self.window is not None:
                ancestors = ancestors[max(int(depth[first:last].min()) - self.window + 1, 0) :]
            ranges = self._ranges(ancestors, first, last)
            one_run = j == i + 1 and self.window is None
            exact = one_run and sum(b - a for a, b in ranges) == len(ancestors) + last - first
            parts.append(Part(tuple(ranges), tuple(self._blocks(ranges, first, last, exact=exact))))
        return Plan(tuple(parts))

    def _shared(self) -> list[tuple[int, int]]:
        """(first run, one past the last) of every part: the cheapest cut, by dynamic programming over the runs."""
        bound, depth = self.bound, self.depth[self.bound[:-1]]
        before = bound[:-1] - np.maximum.accumulate(np.where(depth == 0, bound[:-1], 0))  # nodes of the tree so far
        above = depth if self.window is None else np.minimum(depth, self.window - 1)
        best, back = np.zeros(len(bound)), np.zeros(len(bound), dtype=np.int64)
        for j in range(1, len(bound)):
            i = np.arange(min(int(np.searchsorted(bound, bound[j] - _LONGEST_SHARED)), j - 1), j)
            rows = bound[j] - bound[i]
            n_blocks = self._n_blocks(rows, above[i] + rows / 2)
            own = rows * rows / 2 * (1 + 1 / n_blocks) + self.call * n_blocks
            copied = rows * above[i] + (above[i] > 0) * (_COPY * (above[i] + rows) + self.range)
            cost = best[i] + own + np.minimum(copied, rows * before[i])
            least = cost.argmin()
            best[j], back[j] = cost[least], i[least]
        found, j = [], len(bound) - 1
        while j:
            found.append((int(back[j]), j))
            j = int(back[j])
        return found[::-1]

    def _n_blocks(self, rows: Any, mean_keys: Any) -> Any:
        """Where calls, half-empty triangles and slow small products balance: at rows^2 = 2 (call + _ROW keys)."""
        return np.maximum(np.round(rows / np.sqrt(2 * (self.call + _ROW * mean_keys))), 1)

    def _ranges(self, ancestors: np.ndarray, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges of nodes that hold `ancestors` and [first, last); where copies cost more, gaps are bridged, hidden."""
        rows, node = last - first, np.append(ancestors, first)
        cut = np.flatnonzero((np.diff(node) - 1) * rows > self.range) + 1
        ranges = [(int(x[0]), int(x[-1]) + 1) for x in np.split(node, cut)]
        ranges[-1] = (ranges[-1][0], last)
        n_keys, bridged = sum(b - a for a, b in ranges), last - ranges[0][0]
        copied = _COPY * n_keys + self.range * len(ranges)
        return [(ranges[0][0], last)] if rows * (bridged - n_keys) <= copied else ranges

    def _blocks(self, ranges: list[tuple[int, int]], first: int, last: int, *, exact: bool) -> Iterator[Block]:
        """The blocks of a part; `exact` if all its rows see all keys up to themselves."""
        key = np.concatenate([np.arange(a, b) for a, b in ranges])
        outside = len(key) - (last - first)
        mean = outside + (last - first) / 2
        n_blocks = int(self._n_blocks(last - first, mean if self.window is None else min(mean, self.window)))
        cuts = [first + (last - first) * i // n_blocks for i in range(n_blocks + 1)]
        for a, b in itertools.pairwise(cuts):
            if exact:
                yield Block(a, b, 0, outside + b - first, self._triangle(b - a) if b - a > 1 else None)
            else:
                yield self._cut(key, a, b)

    def _triangle(self, n: int) -> Tensor:
        """(n, n - 1): row i sees columns 0 to i - 1; the column of the first row, which all see, is left out."""
        if n not in self.triangles:
            self.triangles[n] = self._hidden(np.tri(n, n - 1, -1, dtype=bool))
        return self.triangles[n]

    def _hidden(self, seen: np.ndarray) -> Tensor:
        return torch.zeros(seen.shape, dtype=self.dtype).masked_fill_(~torch.from_numpy(seen), float("-inf"))

    def _cut(self, key: np.ndarray, first: int, last: int) -> Block:
        """A block whose rows are not one run, or do not see all keys."""
        end, depth = self.end[key], self.depth
        none, every = (key >= last) | (end <= first), (key <= first) & (end >= last)
        if self.window is not None:
            none |= depth[first:last].min() - depth[key] >= self.window
            every &= depth[first:last].max() - depth[key] < self.window
        some = np.flatnonzero(~none)
        low, high = int(some[0]), int(some[-1]) + 1
        partly = np.flatnonzero(~every[low:high])
        if len(partly) == 0:
            return Block(first, last, low, high, None)
        q, k = np.arange(first, last)[:, None], key[low + partly[0] : high]
        seen = (k <= q) & (q < self.end[k])
        if self.window is not None:
            seen &= depth[q] - depth[k] < self.window
        return Block(first, last, low, high, self._hidden(seen))


def attend(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float) -> Tensor:
    """(N, A, Dv) attention of (N, A, D) queries over (N, G, D) keys and (N, G, Dv) values, in the dtype of `value`.

    Half precision is computed in float32. Attention weights are kept for the backward pass where there are few of
    them, and computed again where there are many. There is no second derivative.
    """
    return _Attend.apply(query, key, value, plan, scale)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float) -> Tensor:
        q, k, v = (_plain(x, value.dtype) for x in (query, key, value))
        few = plan.n_pairs * q.element_size() <= _KEPT * q.shape[0] * query.shape[2] * query.element_size()
        blocks = _Weights(plan, q, k, scale, keep=few and any(ctx.needs_input_grad))
        out = q.new_empty(*q.shape[:2], v.shape[2])
        for part in plan.parts:
            k_part, v_part = _keys(k, part), _keys(v, part)
            for block in part.blocks:
                q_block = blocks.folded(q, block)
                for heads in blocks.heads(block):
                    here = heads, slice(block.low, block.high)
                    weights = blocks.weights(q_block[heads], k_part[here], block)
                    blocks.unfold(blocks.product(weights, v_part[here]), out, block, heads)
        ctx.save_for_backward(query, key, value, *([blocks.room] if blocks.keep else []))
        ctx.plan, ctx.scale = plan, scale
        return out.to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        plan, scale = ctx.plan, ctx.scale
        q, k, v, grad = (_plain(x, value.dtype) for x in (query, key, value, grad))
        blocks = _Weights(plan, q, k, scale, *kept)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for part in plan.parts:
            k_part, v_part = _keys(k, part), _keys(v, part)
            copied = len(part.ranges) > 1
            into_k = torch.zeros_like(k_part) if copied else _keys(grad_k, part)
            into_v = torch.zeros_like(v_part) if copied else _keys(grad_v, part)
            for block in part.blocks:
                q_block, g_block = blocks.folded(q, block), blocks.folded(grad, block)
                for heads in blocks.heads(block):
                    here = heads, slice(block.low, block.high)
                    q_h, g_h = q_block[heads], g_block[heads]
                    weights = blocks.weights(q_h, k_part[here], block)
                    into_v[here].add_(blocks.product(weights.transpose(1, 2), g_h))
                    slope = blocks.slope(g_h, v_part[here], weights)
                    into_k[here].add_(blocks.product(slope.transpose(1, 2), q_h, scale))
                    blocks.unfold(blocks.product(slope, k_part[here], scale), grad_q, block, heads)
            if copied:
                sizes = [b - a for a, b in part.ranges]
                for into, pieces in ((grad_k, into_k), (grad_v, into_v)):
                    for (a, b), piece in zip(part.ranges, pieces.transpose(0, 1).split(sizes), strict=True):
                        into[a:b].add_(piece)
        return grad_q.to(query.dtype), grad_k.to(key.dtype), grad_v.to(value.dtype), None, None


class _Weights:
    """Attention weights of one block after another, and the folding of heads that share their keys.

    Args:
        kept: what `room` was in the forward pass, if the weights were kept there.
        keep: every block's weights have a place of their own in `room`, not all of them the same.
    """

    def __init__(
        self, plan: Plan, q: Tensor, k: Tensor, scale: float, kept: Tensor | None = None, *, keep: bool = False
    ) -> None:
        self.scale = scale
        self.groups = k.shape[1]
        self.repeats = q.shape[1] // k.shape[1]
        self.limit = _SCRATCH * torch.get_num_threads()
        self.fewest = min(torch.get_num_threads(), self.groups)  # a product of one head is slow on several cores
        self.kept, self.keep = kept is not None, keep
        self.at = 0
        largest = self.repeats * max(block.n_pairs for part in plan.parts for block in part.blocks)
        self.n_scores = min(max(largest * self.fewest, self.limit), largest * self.groups)
        self.room = kept if kept is not None else q.new_empty(q.shape[1] * plan.n_pairs if keep else self.n_scores)
        self.rooms: dict[str, Tensor] = {}

    def place(self, name: str, *shape: int) -> Tensor:
        """A tensor of `shape` that is valid until the next call of the same name; fresh memory costs page faults."""
        size = math.prod(shape)
        room = self.rooms.get(name)
        if room is None or len(room) < size:
            room = self.rooms[name] = self.room.new_empty(max(size, self.n_scores if name == "slope" else 2 * size))
        return room[:size].view(shape)

    def product(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        """a @ b times `scale`, valid until the next call."""
        out = self.place("product", a.shape[0], a.shape[1], b.shape[2])
        return torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)

    def heads(self, block: Block) -> list[slice]:
        """The groups of heads, cut so that the scores of each slice fit a cache."""
        at_a_time = max(self.limit // (self.repeats * block.n_pairs), self.fewest)
        if at_a_time >= self.groups:
            return [slice(None)]
        n = -(-self.groups // at_a_time)
        cuts = [self.groups * i // n for i in range(n + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]

    def weights(self, q: Tensor, k: Tensor, block: Block) -> Tensor:
        """(g, r w, L) softmax of the scores of `q` on `k`; unless they are kept, valid until the next call."""
        shape = q.shape[0], q.shape[1], k.shape[1]
        scores = self.room[self.at : self.at + math.prod(shape)].view(shape)
        if self.keep or self.kept:
            self.at += math.prod(shape)
        if self.kept:
            return scores
        torch.baddbmm(scores, q, k.transpose(1, 2), beta=0, alpha=self.scale, out=scores)
        if block.hidden is not None:
            by_head = scores.unflatten(1, (self.repeats, -1)) if self.repeats > 1 else scores
            by_head[..., -block.hidden.shape[1] :].add_(block.hidden)
        return torch.softmax(scores, -1, out=scores)  # row by row, so in its own place

    def slope(self, grad: Tensor, v: Tensor, weights: Tensor) -> Tensor:
        """(g, r w, L) gradient of the scores from (g, r w, Dv), valid until the next call."""
        slope = self.place("slope", *weights.shape)
        torch.bmm(grad, v.transpose(1, 2), out=slope)
        # weights * (slope - its mean under the weights): one pass, row by row, so in its own place
        softmax_backward = torch.ops.aten._softmax_backward_data.out
        return softmax_backward(slope, weights, -1, slope.dtype, grad_input=slope)

    def folded(self, x: Tensor, block: Block) -> Tensor:
        """(G, r w, D) of the rows of (N, A, D): heads that share keys, one below the other."""
        rows = x[block.first : block.last]
        if self.repeats == 1:
            return rows.transpose(0, 1)
        return rows.unflatten(1, (self.groups, self.repeats)).permute(1, 2, 0, 3).flatten(1, 2)

    def unfold(self, x: Tensor, into: Tensor, block: Block, heads: slice) -> None:
        """Write (g, r w, D) to its rows and heads in (N, A, D)."""
        rows = into[block.first : block.last]
        if self.repeats == 1:
            rows[:, heads].copy_(x.transpose(0, 1))
        else:
            rows = rows.unflatten(1, (self.groups, self.repeats))[:, heads]
            rows.copy_(x.unflatten(1, (self.repeats, -1)).permute(2, 0, 1, 3))


def _plain(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` with its rows one after the other, in `dtype`, or in float32 where that is a half."""
    return x.to(torch.promote_types(dtype, torch.float32)).contiguous()


def _keys(x: Tensor, part: Part) -> Tensor:
    """(G, K, D) of the keys of `part`: a view where they lie in one range."""
    pieces = [x[a:b] for a, b in part.ranges]
    return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).transpose(0, 1)
