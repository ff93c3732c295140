"""Attention on CUDA, as far as a CPU can run it: FlexAttention's unfused form, and the law of its blocks."""

import warnings
from collections.abc import Callable

import pytest
import torch
from attention_twins import bushy_row, plain_attention, seen, some_heads
from torch import Tensor
from torch.nn.attention import flex_attention as flex_module
from torch.nn.attention.flex_attention import BlockMask

from unipref.core.tries import TrieBatch
from unipref.engine import _flex


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """FlexAttention as it runs without a compiler, which it warns of.

    On a CPU torch refuses gradients because its fused kernels there have none. The unfused form has them.
    """
    monkeypatch.setattr(flex_module, "_validate_device", lambda *_: None)

    def run(*args: Tensor, **options: object) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return flex_module.flex_attention(*args, **options)

    return run


def rows_of(n_blocks: int, seed: int, window: int | None) -> tuple[TrieBatch, BlockMask]:
    """A row of tries of that many blocks, the last of them not full."""
    batch = bushy_row(seed, longest=60 * n_blocks)
    mask = _flex.make_mask(batch.depth, batch.end, window)
    assert len(batch.depth) % _flex.SIZE != 0
    return batch, mask


def dense(mask: BlockMask) -> tuple[Tensor, Tensor]:
    """(C, C) bool of the blocks that are masked pair by pair, and of those that are seen whole."""
    found = []
    pairs = ((mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices))
    for count, place in pairs:
        blocks = torch.zeros(place.shape[-2:], dtype=torch.bool)
        for q, n in enumerate(count[0, 0].tolist()):
            blocks[q, place[0, 0, q, :n].long()] = True
        found.append(blocks)
    return found[0], found[1]


@pytest.mark.parametrize("window", [None, 40, 300])
def test_blocks_without_a_pair_are_empty_and_blocks_seen_whole_are_full(window) -> None:
    n_full = n_empty = 0
    for seed in range(3):
        batch, mask = rows_of(4, seed, window)
        n, m = len(batch.depth), mask.seq_lengths[0]
        law = torch.eye(m, dtype=torch.bool)  # what fills the last block sees itself
        law[:n, :n] = seen(batch, window)
        squares = law.unflatten(1, (-1, _flex.SIZE)).unflatten(0, (-1, _flex.SIZE)).transpose(1, 2)
        holds_some, holds_all = squares.any(-1).any(-1), squares.all(-1).all(-1)
        cut, full = dense(mask)
        assert not (cut & full).any()
        assert torch.equal(full, holds_all) if window is None else not (full & ~holds_all).any()
        assert not (holds_some & ~(cut | full)).any()  # no pair is lost
        if window is None:
            assert torch.equal(cut, holds_some & ~holds_all)  # and nothing is computed in vain
        n_full, n_empty = n_full + int(full.sum()), n_empty + int((~cut & ~full).tril().sum())
    assert n_empty > 0
    assert n_full > 0 or window == 40  # no block of 128 lies within a window of 40


@pytest.mark.parametrize("window", [None, 40])
def test_pairs_follow_the_law_also_after_filling_the_last_block(window) -> None:
    batch, mask = rows_of(2, 1, window)
    n, m = len(batch.depth), mask.seq_lengths[0]
    index = torch.arange(m)
    found = mask.mask_mod(torch.tensor(0), torch.tensor(0), index[:, None], index[None])
    assert torch.equal(found[:n, :n], seen(batch, window))
    assert torch.equal(found[n:], torch.eye(m, dtype=torch.bool)[n:])
    assert not found[:n, n:].any()


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("shape", [(2, 2), (4, 2)])
def test_values_and_gradients_are_those_of_the_plainest_attention(unfused, shape, window, softcap) -> None:
    batch, mask = rows_of(1, 3, window)
    heads = some_heads(len(batch.depth), shape, (8, 8), torch.float64)
    q, k, v = (x.transpose(0, 1)[None] for x in heads[:3])
    fast = _flex.attend(q, k, v, mask, 0.5, softcap, function=unfused)[0].transpose(0, 1)
    slow = plain_attention(*heads[:3], seen(batch, window), 0.5, softcap)
    torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
    ours, theirs = (torch.autograd.grad(x, heads[:3], heads[3]) for x in (fast, slow))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_a_row_of_whole_blocks_is_not_filled_up() -> None:
    depth, end = torch.arange(256), torch.full((256,), 256)
    assert _flex.make_mask(depth, end, None).seq_lengths == (256, 256)
    assert _flex.make_mask(depth[:255], end[:255] - 1, None).seq_lengths == (256, 256)


def test_a_cpu_is_not_offered_the_fused_kernels() -> None:
    assert not _flex.available(torch.zeros(1, 2, 3, 64))
