"""Attention on a CPU: the plainest attention's numbers, at the cost of the pairs that a trie has."""

import re

import numpy as np
import pytest
import torch
from attention_twins import bushy_row, plain_attention, seen, some_heads

from unipref.core.tries import Trie, TrieBatch, build_trie, pack
from unipref.engine import _tiles

CALLS = {"few large blocks": 1.2e6, "blocks of every size": 2e4, "blocks of few rows": 1e3}


def plan_of(batch: TrieBatch, width: int, window: int | None = None, dtype: torch.dtype = torch.float64) -> _tiles.Plan:
    return _tiles.make_plan(batch.depth, batch.end, width=width, window=window, dtype=dtype)


def cut_into(monkeypatch: pytest.MonkeyPatch, call: float) -> None:
    """Blocks as small as if a call cost `call`, whatever the width of the heads."""
    monkeypatch.setattr(_tiles, "_CALL", call)
    monkeypatch.setattr(_tiles, "_RANGE", 0.2 * call)


def tree(prompt: int, *responses: int) -> Trie:
    draw = np.random.default_rng(prompt)
    context = draw.integers(0, 50_000, prompt).tolist()
    return build_trie([(context, draw.integers(0, 50_000, n).tolist()) for n in responses])


def n_exact(batch: TrieBatch) -> int:
    """Pairs of a node and itself or a node above it."""
    return int((batch.depth + 1).sum())


def some_gradients(out: torch.Tensor, heads: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return (out.detach(), *torch.autograd.grad(out, heads[:3], heads[3]))


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
@pytest.mark.parametrize("window", [None, 1, 3, 17])
@pytest.mark.parametrize("kept", [0, 100])
def test_values_and_gradients_are_those_of_the_plainest_attention(monkeypatch, call, window, kept) -> None:
    cut_into(monkeypatch, call)
    monkeypatch.setattr(_tiles, "_KEPT", kept)
    for seed in range(4):
        batch = bushy_row(seed, longest=25)
        shape = [(4, 4), (4, 2), (6, 1)][seed % 3]
        monkeypatch.setattr(_tiles, "_SCRATCH", [2**19, 500][seed % 2])  # all heads at once, and one after the other
        monkeypatch.setattr(_tiles, "_COPY", [24, 1][seed % 2])
        heads = some_heads(len(batch.depth), shape, (8, 5), torch.float64, seed)
        plan = plan_of(batch, 8 * shape[0], window)
        fast = some_gradients(_tiles.attend(*heads[:3], plan, 0.3), heads)
        slow = some_gradients(plain_attention(*heads[:3], seen(batch, window), 0.3), heads)
        for a, b in zip(fast, slow, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("window", [None, 9])
def test_every_node_is_a_row_of_one_block_and_sees_its_keys_and_only_them(monkeypatch, window) -> None:
    cut_into(monkeypatch, 1e4)
    for seed in range(8):
        batch = bushy_row(seed)
        found = torch.zeros(len(batch.depth), len(batch.depth), dtype=torch.int64)
        for part in plan_of(batch, 8, window).parts:
            key = torch.cat([torch.arange(a, b) for a, b in part.ranges])
            for block in part.blocks:
                visible = torch.ones(block.last - block.first, block.high - block.low, dtype=torch.int64)
                if block.hidden is not None:
                    assert set(block.hidden.unique().tolist()) <= {0.0, float("-inf")}
                    visible[:, visible.shape[1] - block.hidden.shape[1] :] *= block.hidden == 0
                found[block.first : block.last, key[block.low : block.high]] += visible
        assert torch.equal(found, seen(batch, window).long())


def test_a_pair_costs_its_ancestors_not_its_square() -> None:
    prompt, chosen, rejected = 4000, 300, 300
    plan = plan_of(pack([tree(prompt, chosen, rejected)]), 384)
    exact = prompt * (prompt + 1) / 2 + sum(n * prompt + n * (n + 1) / 2 for n in (chosen, rejected))
    assert exact <= plan.n_pairs <= 1.08 * exact


@pytest.mark.parametrize(("prompt", "responses", "most"), [(1000, 4, 1.12), (1000, 8, 1.12), (4000, 4, 1.08)])
def test_lists_share_their_prompt_and_see_nothing_of_each_other(prompt, responses, most) -> None:
    batch = pack([tree(prompt, *[200] * responses)])
    assert n_exact(batch) <= plan_of(batch, 1024).n_pairs <= most * n_exact(batch)


def test_work_follows_the_tries_not_the_square_of_the_row() -> None:
    one = [tree(120, 60, 40)]
    assert plan_of(pack(one * 10), 384).n_pairs == 10 * plan_of(pack(one), 384).n_pairs


def test_a_window_bounds_the_keys_of_a_row() -> None:
    batch = pack([tree(4000, 10)])
    plan = plan_of(batch, 1024, window=256)
    rows = max(block.last - block.first for part in plan.parts for block in part.blocks)
    assert max(block.high - block.low for part in plan.parts for block in part.blocks) <= 256 + rows
    assert plan.n_pairs < (256 + rows) * 4010


def test_a_window_that_reaches_the_root_changes_nothing() -> None:
    batch = bushy_row(3)
    deepest = int(batch.depth.max())
    without, within = plan_of(batch, 8), plan_of(batch, 8, window=deepest + 1)
    assert without.n_pairs == within.n_pairs
    assert not torch.equal(seen(batch, deepest), seen(batch))  # one less would have


def test_five_hundred_short_steps_are_not_five_hundred_parts() -> None:
    draw = np.random.default_rng(0)
    items = [(list(range(100)), draw.integers(0, 50_000, 8).tolist())]
    for _ in range(500):
        context, response = items[draw.integers(len(items))]
        whole = context + response
        items.append((whole[: draw.integers(100, len(whole) + 1)], draw.integers(0, 50_000, 4).tolist()))
    batch = pack([build_trie(items)])
    plan = plan_of(batch, 384)
    assert sum(len(part.blocks) for part in plan.parts) < 40
    assert plan.n_pairs < 2 * n_exact(batch)


@pytest.mark.parametrize("kept", [0, 100])
def test_half_precision_is_computed_in_float32_and_rounded_once(monkeypatch, kept) -> None:
    monkeypatch.setattr(_tiles, "_KEPT", kept)
    batch = bushy_row(1)
    halves = some_heads(len(batch.depth), (4, 2), (8, 8), torch.bfloat16)
    wholes = [x.detach().float().requires_grad_() for x in halves]
    plan = plan_of(batch, 32, dtype=torch.float32)
    rounded = some_gradients(_tiles.attend(*halves[:3], plan, 0.3), halves)
    exact = some_gradients(_tiles.attend(*wholes[:3], plan, 0.3), wholes)
    assert all(torch.equal(a, b.to(torch.bfloat16)) for a, b in zip(rounded, exact, strict=True))


def test_rows_of_every_memory_layout_give_one_result() -> None:
    batch = bushy_row(2)
    heads = some_heads(len(batch.depth), (4, 2), (8, 8), torch.float64)
    plan = plan_of(batch, 32)
    expected = some_gradients(_tiles.attend(*heads[:3], plan, 0.3), heads)
    by_head = [x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for x in heads]
    assert not by_head[0].is_contiguous()
    for a, b in zip(some_gradients(_tiles.attend(*by_head[:3], plan, 0.3), by_head), expected, strict=True):
        assert torch.equal(a, b)


def test_weights_are_kept_where_they_are_few_and_a_gradient_will_come() -> None:
    def saved_by(batch: TrieBatch, *, grad: bool = True) -> list[tuple[int, ...]]:
        heads = some_heads(len(batch.depth), (2, 2), (8, 8), torch.float32)
        shapes: list[tuple[int, ...]] = []
        watch = torch.autograd.graph.saved_tensors_hooks(lambda x: shapes.append(tuple(x.shape)), lambda x: x)
        with watch, torch.set_grad_enabled(grad):
            _tiles.attend(*heads[:3], plan_of(batch, 16, dtype=torch.float32), 0.3)
        return shapes

    few, many = pack([tree(10, 8, 8)]), pack([tree(200, 8, 8)])  # 4 D = 32 keys a row
    assert saved_by(few) == [(26, 2, 8)] * 3 + [(2 * plan_of(few, 16).n_pairs,)]
    assert saved_by(many) == [(216, 2, 8)] * 3
    assert saved_by(few, grad=False) == []


def test_a_second_derivative_is_refused() -> None:
    batch = bushy_row(0)
    heads = some_heads(len(batch.depth), (2, 2), (4, 4), torch.float64)
    out = _tiles.attend(*heads[:3], plan_of(batch, 8), 0.3)
    (slope,) = torch.autograd.grad(out.square().sum(), heads[0], create_graph=True)
    with pytest.raises(RuntimeError, match=re.escape("once_differentiable")):
        slope.sum().backward()


def test_scores_of_ten_thousand_overflow_nothing() -> None:
    batch = bushy_row(4)
    heads = some_heads(len(batch.depth), (2, 2), (4, 4), torch.float32)
    plan = plan_of(batch, 8, dtype=torch.float32)
    found = some_gradients(_tiles.attend(*heads[:3], plan, 1e4), heads)
    assert all(x.isfinite().all() for x in found)
    slow = plain_attention(*(x.double() for x in heads[:3]), seen(batch), 1e4)
    # a float32 score of 1e4 is known to about 1e-3, so the weights are to about as much
    torch.testing.assert_close(found[0].double(), slow.detach(), rtol=0, atol=2e-2)
