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
_HARMLESS = frozenset({"position_ids", "cache_position", "use_cache", "is_causal", "position_embeddings"})
_PADDING_SHARE = 0.05  # trees go into one block while this share of it, at most, is padding


def layout_of(depth: Tensor, end: Tensor) -> Tensor:
    """(1, 1, 2, N) int64: the layout of one row of tries, to be passed as a model's `attention_mask`."""
    return torch.stack((depth, end))[None, None]


@dataclass(eq=False)
class _Block:
    """Trees of about one length, padded to the longest.

    Attributes:
        nodes: (B * L,) where each place of the block is read from; padding reads node 0.
        seen: (B, 1, L, L) bool; a padding query sees itself, so that no softmax is over nothing.
        distance: (B, 1, L, L) int32 depth[q] - depth[k], for windows.
        masks: what a window leaves of `seen`, per window and dtype, kept while the layout lives.
    """

    nodes: Tensor
    n_trees: int
    seen: Tensor
    distance: Tensor
    masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict)

    def gather(self, row: Tensor) -> Tensor:
        """(B, A, L, D) of this block from the (1, A, N, D) of the row."""
        return row[0].index_select(1, self.nodes).unflatten(1, (self.n_trees, -1)).transpose(0, 1)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """(B, 1, L, L) additive mask in `dtype`."""
        if (window, dtype) not in self.masks:
            seen = self.seen if window is None else self.seen & (self.distance < window)
            self.masks[window, dtype] = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
                ~seen, float("-inf")
            )
        return self.masks[window, dtype]


@dataclass(eq=False)
class _Plan:
    """Blocks of a row, and for every node its place in their concatenation."""

    blocks: list[_Block]
    place: Tensor


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
    blocks, offset = [], 0
    for group in groups:
        longest = group[0][1] - group[0][0]
        start = torch.tensor([a for a, _ in group], device=device)
        length = torch.tensor([b - a for a, b in group], device=device)
        column = torch.arange(longest, device=device)
        real = column < length[:, None]
        nodes = torch.where(real, start[:, None] + column, 0)
        depth_BL = depth[nodes].to(torch.int32)
        end_BL = torch.where(real, end[nodes] - start[:, None], 0)  # a padding key is seen by nobody
        # q < end[k], with k <= q by the depth-first order
        seen = (column[None, :, None] < end_BL[:, None, :]) & (column[:, None] >= column)
        seen |= (column[:, None] == column) & ~real[:, :, None]
        distance = depth_BL[:, :, None] - depth_BL[:, None, :]
        distance.masked_fill_(~real[:, :, None], 0)
        place[nodes[real]] = offset + real.flatten().nonzero().squeeze(1)
        blocks.append(_Block(nodes.flatten(), len(group), seen[:, None], distance[:, None]))
        offset += real.numel()
    return _Plan(blocks, place)


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
    outputs = []
    for block in plan.blocks:
        q, k, v = (block.gather(x) for x in (query, key, value))
        mask = block.mask(sliding_window, q.dtype)
        gqa = q.shape[1] != k.shape[1]
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling, enable_gqa=gqa)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (B * L, A, D)
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return out.index_select(0, plan.place)[None], None


def install() -> None:
    """Make `NAME` known to transformers, as an attention function and, for ordinary masks, as SDPA's mask."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, tries_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
