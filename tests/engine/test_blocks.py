"""Attention by masked squares, the way of devices without another: the plainest attention's numbers."""

import numpy as np
import pytest
import torch
from attention_twins import bushy_row, plain_attention, seen, some_heads
from engine_twins import some_tries

from unipref.core.tries import build_trie, pack
from unipref.engine import _blocks


@pytest.mark.parametrize("window", [None, 5])
def test_values_and_gradients_are_those_of_the_plainest_attention(window) -> None:
    for seed in range(4):
        batch = bushy_row(seed, longest=20)
        heads = some_heads(len(batch.depth), (4, 2), (8, 8), torch.float64, seed)
        fast = _blocks.attend(*heads[:3], _blocks.make_plan(batch.depth, batch.end), 0.3, window)
        slow = plain_attention(*heads[:3], seen(batch, window), 0.3)
        torch.testing.assert_close(fast, slow, rtol=1e-11, atol=1e-11)
        ours, theirs = (torch.autograd.grad(x, heads[:3], heads[3]) for x in (fast, slow))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_a_node_is_seen_from_its_descendants_and_itself_and_by_nobody_else() -> None:
    #          0 - 1 - 2   and   4 - 5, of which 3 is the second child of 1
    batch = pack([build_trie([([7, 8], [9]), ([7, 8], [6])]), build_trie([([5], [4])])])
    plan = _blocks.make_plan(batch.depth, batch.end)
    found, offset = np.zeros((6, 6), dtype=int), 0
    for block in plan.blocks:
        for tree, _, q, k in block.seen.nonzero().tolist():
            place = offset + tree * block.seen.shape[-1]
            if plan.place[plan.nodes[place + q]] == place + q:  # no padding
                found[plan.nodes[place + q], plan.nodes[place + k]] = 1
        offset += block.seen.shape[0] * block.seen.shape[-1]
    assert found.tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


def test_work_follows_the_trees_not_the_square_of_the_row() -> None:
    one = some_tries(longest=40)[:1]
    places = [
        sum(block.seen.numel() for block in _blocks.make_plan(b.depth, b.end).blocks)
        for b in (pack(one), pack(one * 10))
    ]
    assert places[1] == 10 * places[0]


def test_trees_of_different_lengths_share_a_block_only_where_padding_is_a_twentieth_at_most() -> None:
    batch = pack([build_trie([(range(10, 10 + n), [3])]) for n in (99, 98, 95, 60, 20)])
    blocks = _blocks.make_plan(batch.depth, batch.end).blocks
    assert [(block.n_trees, block.seen.shape[-1]) for block in blocks] == [(3, 100), (1, 61), (1, 21)]
