"""Attention over token tries, for every transformers model that takes its attention function by name.

Shapes: N nodes in one row, L nodes of the longest tree in a block, B trees in a block, A heads, D head width.

A row of tries is given to the model as one sequence of N tokens whose position ids are depths. In the place of the
attention mask goes the *layout*: a (1, 1, 2, N) int64 tensor of depth and end. Four-dimensional masks pass through
transformers' own mask creation untouched, and a tensor argument survives activation checkpointing. Node k is seen
from node q exactly where ``k <= q < end[k]`` and, in a layer with a window, ``depth[q] - depth[k] < window``.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from unipref.core.errors import ConfigError

__all__ = ["NAME", "install", "layout_of"]

NAME = "unipref_tries"  # what the attention function is called in transformers' registry

# Arguments of attention functions that change nothing for us: the layout already says who sees whom and where.
_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "is_causal", "position_embeddings", "output_hidden_states"}
)
_PADDING_SHARE = 0.05  # trees go into one block while this share of it, at most, is padding


def layout_of(depth: Tensor, end: Tensor) -> Tensor:
    """(1, 1, 2, N) int64: the layout of one row of tries, to be passed as a model's `attention_mask`."""
    return torch.stack((depth, end))[None, None]


@dataclass(eq=False)
class _Block:
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
class _Plan:
    """Blocks of a row, their places laid end to end.

    Attributes:
        nodes: (M,) the node that each place is read from; padding reads node 0.
        place: (N,) where each node stands.
    """

    blocks: list[_Block]
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


def _plan(layout: Tensor) -> _Plan:
    """The plan of a layout, made once: it rides on the layout tensor, which every layer receives."""
    plan = getattr(layout, "unipref_plan", None)
    if plan is None:
        plan = layout.unipref_plan = _make_plan(layout[0, 0, 0], layout[0, 0, 1])
    return plan


def _make_plan(depth: Tensor, end: Tensor) -> _Plan:
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
        blocks.append(_Block(len(group), seen[:, None], depth[nodes]))
        read_from.append(nodes.flatten())
        offset += real.numel()
    return _Plan(blocks, torch.cat(read_from), place)


def tries_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """(1, N, A, D) attention output of a row of tries; with an ordinary mask, transformers' own SDPA attention.

    Raises:
        ConfigError: the model passes an argument that changes attention in a way unknown here (a soft cap,
            sinks, a bias, dropout). `Policy` takes its rows path then.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    unknown = sorted(n for n, x in options.items() if n not in _HARMLESS and x is not None and x is not False)
    if dropout:
        unknown.append(f"dropout={dropout}")
    if unknown:
        raise ConfigError(f"attention over tries does not know {', '.join(unknown)}; use path='rows'")
    plan = _plan(attention_mask)
    with torch.autocast(query.device.type, enabled=False):
        # On a CPU the half-precision attention kernel of torch 2.13 takes twice the time of the float32 one.
        dtype = torch.promote_types(value.dtype, torch.float32) if query.device.type == "cpu" else value.dtype
        places = (_Select.apply(x[0].transpose(0, 1), plan.nodes, plan.place) for x in (query, key, value))
        sizes = [block.seen.shape[0] * block.seen.shape[-1] for block in plan.blocks]
        parts = zip(plan.blocks, *(x.to(dtype).split(sizes) for x in places), strict=True)
        outputs = []
        for block, *qkv in parts:
            q, k, v = (x.unflatten(0, (block.n_trees, -1)).transpose(1, 2) for x in qkv)  # (B, A, L, D)
            mask = block.mask(sliding_window, dtype)
            gqa = q.shape[1] != k.shape[1]
            out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=gqa)
            outputs.append(out.transpose(1, 2).flatten(0, 1))  # (B * L, A, D)
        out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return _Select.apply(out, plan.place, plan.nodes)[None].to(value.dtype), None


def install() -> None:
    """Make `NAME` known to transformers, as an attention function and, for ordinary masks, as SDPA's mask."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, tries_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
