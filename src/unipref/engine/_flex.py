"""Attention of a row of tries on CUDA: torch's FlexAttention over the blocks of the score matrix that hold a pair.

Shapes: N nodes, M >= N nodes filled up to whole blocks, C = M / 128 blocks, A heads, G heads of keys and values, D head
width.

Which blocks are empty, full or cut by the edge of visibility follows from the smallest and largest `end` and depth in
each: a few operations on (C, C) tensors, on the device, without a (N, N) mask and without asking the host. Blocks that
are cut are masked pair by pair by the same law.

What was run: on CPUs, values and gradients of FlexAttention's unfused form with these masks against the plainest
attention, and the law of the blocks against the dense mask. What was not: the fused kernels that torch compiles for a
GPU. They are compared with separate rows when a model is loaded (`Policy`), as every way to attention is.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["attend", "available", "make_mask"]

SIZE = 128  # FlexAttention's own size of a block
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_NARROWEST = 16  # columns that the fused kernels multiply at least


def available(query: Tensor) -> bool:
    """Whether FlexAttention's fused kernels can take heads like those of `query`, (1, A, N, D)."""
    return query.is_cuda and query.dtype in _DTYPES and query.shape[-1] >= _NARROWEST and _compiler()


@functools.cache
def _compiler() -> bool:
    """Whether this torch has FlexAttention and what compiles its kernels."""
    return all(_found(name) for name in ("torch.nn.attention.flex_attention", "triton"))


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@functools.cache
def _fused() -> Callable[..., Tensor]:
    """FlexAttention compiled once, for rows of every length."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def make_mask(depth: Tensor, end: Tensor, window: int | None) -> Any:
    """The `BlockMask` of a row of tries, on the device of its (N,) depths and ends; its length is M.

    Nodes that fill the last block see themselves, so that no softmax is over nothing, and are seen by no other.
    """
    from torch.nn.attention.flex_attention import BlockMask

    n = len(depth)
    m = -(-n // SIZE) * SIZE
    index = torch.arange(m, dtype=end.dtype, device=end.device)
    end = torch.cat((end, index[n:] + 1))
    depth = pad(depth, (0, m - n))

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        visible = (k <= q) & (q < end[k])
        return visible if window is None else visible & (depth[q] - depth[k] < window)

    first = index[::SIZE]  # of the queries of a block, and of its keys
    lowest, highest = end.view(-1, SIZE).aminmax(dim=1)
    q, k = first[:, None], first[None]
    some = (k <= q) & (highest > q)  # the first query of a block is the one that most keys before it reach
    whole = (k < q) & (lowest >= q + SIZE)
    if window is not None:
        shallow, deep = depth.view(-1, SIZE).aminmax(dim=1)
        some &= shallow[:, None] - deep < window
        whole &= deep[:, None] - shallow < window
    counts_and_places = (*_ordered(some & ~whole), *_ordered(whole))
    return BlockMask.from_kv_blocks(*counts_and_places, BLOCK_SIZE=SIZE, mask_mod=seen)


def _ordered(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(1, 1, C) how many blocks of keys each block of queries has, and (1, 1, C, C) which, these first."""
    place = blocks.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    return blocks.sum(1, dtype=torch.int32)[None, None], place.to(torch.int32)[None, None]


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    scale: float,
    softcap: float | None = None,
    *,
    function: Callable[..., Tensor] | None = None,
) -> Tensor:
    """(1, A, N, D) attention of (1, A, N, D) queries over (1, G, N, D) keys and values, in the dtype of `value`.

    Args:
        softcap: scores are bent to `softcap * tanh(score / softcap)` before visibility is applied.
        function: FlexAttention itself; None: compiled.
    """
    n, filling = query.shape[2], mask.seq_lengths[0] - query.shape[2]
    q, k, v = (x.to(value.dtype) for x in (query, key, value))
    if filling:
        q, k, v = (pad(x, (0, 0, 0, filling)) for x in (q, k, v))

    def bent(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    run = function or _fused()
    out = run(
        q,
        k,
        v,
        score_mod=None if softcap is None else bent,
        block_mask=mask,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[:, :, :n]
