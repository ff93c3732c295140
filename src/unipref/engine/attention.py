"""Attention over token tries, for every transformers model that takes its attention function by name.

Shapes: N nodes in one row, A heads, D head width.

A row of tries is given to the model as one sequence of N tokens whose position ids are depths. In the place of the
attention mask goes the *layout*: a (1, 1, 2, N) int64 tensor of depth and end. Four-dimensional masks pass through
transformers' own mask creation untouched, and a tensor argument survives activation checkpointing. Node k is seen
from node q exactly where ``k <= q < end[k]`` and, in a layer with a window, ``depth[q] - depth[k] < window``.

There are three ways to the same numbers. On a CPU `_tiles` computes the pairs of the tries and little else, on CUDA
`_flex` gives torch's FlexAttention the blocks that hold any, and elsewhere `_blocks` masks squares. What each derives
from a layout rides on the layout tensor, which every layer receives, so it is made once a forward and not once a layer.
"""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unipref.core.errors import ConfigError
from unipref.engine import _blocks, _flex, _tiles

__all__ = ["NAME", "install", "layout_of", "tries_attention"]

NAME = "unipref_tries"  # what the attention function is called in transformers' registry

# Arguments of attention functions that change nothing for us: the layout already says who sees whom and where.
_HARMLESS = frozenset(
    {"position_ids", "cache_position", "use_cache", "is_causal", "position_embeddings", "output_hidden_states"}
)

T = TypeVar("T")


def layout_of(depth: Tensor, end: Tensor) -> Tensor:
    """(1, 1, 2, N) int64: the layout of one row of tries, to be passed as a model's `attention_mask`."""
    return torch.stack((depth, end))[None, None]


def _riding(layout: Tensor, name: Hashable, make: Callable[[Tensor, Tensor], T]) -> T:
    """What `make` makes of the depths and ends of `layout`, made once per layout tensor and `name`."""
    plans = vars(layout).setdefault("unipref_plans", {})
    if name not in plans:
        plans[name] = make(layout[0, 0, 0], layout[0, 0, 1])
    return plans[name]


def tries_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """(1, N, A, D) attention output of a row of tries; with an ordinary mask, transformers' own SDPA attention.

    Raises:
        ConfigError: the model passes an argument that changes attention in a way unknown here (sinks, a bias, dropout;
            a soft cap of the scores, except where FlexAttention runs). `Policy` takes its rows path then.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        if softcap is not None:
            return _capped(query, key, value, attention_mask, scaling, softcap), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    flex = _flex.available(value)
    unknown = sorted(n for n, x in options.items() if n not in _HARMLESS and x is not None and x is not False)
    if dropout:
        unknown.append(f"dropout={dropout}")
    if softcap is not None and not flex:
        unknown.append(f"softcap={softcap}")
    if unknown:
        raise ConfigError(f"attention over tries does not know {', '.join(unknown)}; use path='rows'")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):
        if flex:
            mask = _riding(attention_mask, ("flex", sliding_window), lambda d, e: _flex.make_mask(d, e, sliding_window))
            return _flex.attend(query, key, value, mask, scale, softcap).transpose(1, 2), None
        rows = [x[0].transpose(0, 1) for x in (query, key, value)]
        if query.device.type == "cpu":
            given = {
                "width": query.shape[1] * query.shape[3],
                "window": sliding_window,
                "dtype": torch.promote_types(value.dtype, torch.float32),
            }
            plan = _riding(attention_mask, ("tiles", *given.values()), lambda d, e: _tiles.make_plan(d, e, **given))
            out = _tiles.attend(*rows, plan, scale)
        else:
            plan = _riding(attention_mask, "blocks", _blocks.make_plan)
            out = _blocks.attend(*rows, plan, scale, sliding_window)
        return out[None], None


def _capped(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """(1, L, A, D) attention with a soft cap under an ordinary mask, which SDPA does not have: rows, and generation.

    Args:
        mask: bool, True where seen, or additive; None: causal.
    """
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = softcap * torch.tanh(query @ key.transpose(2, 3) * (scale / softcap))
    if mask is None:
        n_queries, n_keys = scores.shape[2:]
        mask = torch.ones(n_queries, n_keys, dtype=torch.bool, device=scores.device).tril(n_keys - n_queries)
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    return (weights @ value).transpose(1, 2)


def install() -> None:
    """Make `NAME` known to transformers, as an attention function and, for ordinary masks, as SDPA's mask."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, tries_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
