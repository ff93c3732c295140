"""Attention of a row of tries by masks: the way of devices that have neither the tiles of a CPU nor FlexAttention.

Shapes: N nodes in one row, L nodes of the longest tree in a block, B trees in a block, A heads, G heads of keys and
values, D head width.

That is Apple's GPUs, CUDA with a torch whose FlexAttention cannot be compiled, and further accelerators. Every tree is
a square of scores, what its nodes do not see is masked, and trees of about one length share a padded block: a row costs
the sum of the squares of its trees, not the square of their sum.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["Block", "Plan", "attend", "make_plan"]

_PADDING_SHARE = 0.05  # trees go into one block while this share of it, at most, is padding


@dataclass(eq=False)
class Block:
    """Trees of about one length, padded to the longest.

    Attributes:
        n_trees: B.
        seen: (B, 1, L, L) bool; a padding query sees itself and nothing else, and nothing else sees it.
        depth: (B, L) of the nodes, for windows.
        masks: what a window leaves of `seen`, per window and dtype, kept while the layout lives.
    """

    n_trees: int
    seen: Tensor
    depth: Tensor
    masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """(B, 1, L, L) additive mask in `dtype`."""
        if (window, dtype) not in self.masks:
            seen = self.seen
            if window is not None:
                seen = seen & (self.depth[:, None, :, None] - self.depth[:, None, None, :] < window)
            empty = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self.masks[window, dtype] = empty.masked_fill_(~seen, float("-inf"))
        return self.masks[window, dtype]


@dataclass(eq=False)
class Plan:
    """Blocks of a row, their places laid end to end.

    Attributes:
        nodes: (M,) the node that each place is read from; padding reads node 0.
        place: (N,) where each node stands.
    """

    blocks: list[Block]
    nodes: Tensor
    place: Tensor


class _Select(torch.autograd.Function):
    """x[index] along the first dimension, with the gradient read back by `inverse` instead of summed by `index`.

    That is the same where every entry that `inverse` does not name has a gradient of zero or feeds only such entries,
    as padding does: it is read from a node, but only padding sees it, and its output is dropped.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grad.index_select(0, inverse), None, None


def make_plan(depth: Tensor, end: Tensor) -> Plan:
    """The blocks of a row of tries; depth, end: (N,) int64."""
    device = depth.device
    n = len(depth)
    roots = (depth == 0).nonzero().squeeze(1).tolist()
    trees = sorted(zip(roots, [*roots[1:], n], strict=True), key=lambda tree: tree[0] - tree[1])  # longest first
    groups: list[list[tuple[int, int]]] = []
    used = 0
    for tree in trees:
        length = tree[1] - tree[0]
        if groups:
            longest = groups[-1][0][1] - groups[-1][0][0]
            if used + length >= (1 - _PADDING_SHARE) * longest * (len(groups[-1]) + 1):
                groups[-1].append(tree)
                used += length
                continue
        groups.append([tree])
        used = length

    place = torch.empty(n, dtype=torch.int64, device=device)
    blocks, read_from, offset = [], [], 0
    for group in groups:
        longest = group[0][1] - group[0][0]
        start = torch.tensor([a for a, _ in group], device=device)
        length = torch.tensor([b - a for a, b in group], device=device)
        column = torch.arange(longest, device=device)
        real = column < length[:, None]
        nodes = torch.where(real, start[:, None] + column, 0)
        end_BL = torch.where(real, end[nodes] - start[:, None], 0)  # a padding key is seen by nobody
        # q < end[k], with k <= q by the depth-first order
        seen = (column[None, :, None] < end_BL[:, None, :]) & (column[:, None] >= column)
        seen |= (column[:, None] == column) & ~real[:, :, None]  # no softmax is over nothing
        place[nodes[real]] = offset + real.flatten().nonzero().squeeze(1)
        blocks.append(Block(len(group), seen[:, None], depth[nodes]))
        read_from.append(nodes.flatten())
        offset += real.numel()
    return Plan(blocks, torch.cat(read_from), place)


def attend(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float, window: int | None) -> Tensor:
    """(N, A, Dv) attention of (N, A, D) queries over (N, G, D) keys and (N, G, Dv) values."""
    places = (_Select.apply(x.to(value.dtype), plan.nodes, plan.place) for x in (query, key, value))
    sizes = [block.seen.shape[0] * block.seen.shape[-1] for block in plan.blocks]
    outputs = []
    for block, *qkv in zip(plan.blocks, *(x.split(sizes) for x in places), strict=True):
        q, k, v = (x.unflatten(0, (block.n_trees, -1)).transpose(1, 2) for x in qkv)  # (B, A, L, D)
        mask = block.mask(window, value.dtype)
        gqa = q.shape[1] != k.shape[1]
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=gqa)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (B * L, A, D)
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return _Select.apply(out, plan.place, plan.nodes)
