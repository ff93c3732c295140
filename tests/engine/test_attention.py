"""The attention function in transformers' registry: what it must not change, and what it must not miss."""

import numpy as np
import pytest
import torch
from engine_twins import gradients, relative, some_tries, tiny, weights_like

from unipref.core.tries import build_trie, pack
from unipref.engine import Policy, attention


def test_a_node_is_seen_from_its_descendants_and_itself_and_by_nobody_else() -> None:
    #          0 - 1 - 2   and   4 - 5, of which 3 is the second child of 1
    batch = pack([build_trie([([7, 8], [9]), ([7, 8], [6])]), build_trie([([5], [4])])])
    plan = attention._plan(attention.layout_of(batch.depth, batch.end))
    seen, offset = np.zeros((6, 6), dtype=int), 0
    for block in plan.blocks:
        for tree, _, q, k in block.seen.nonzero().tolist():
            place = offset + tree * block.seen.shape[-1]
            if plan.place[plan.nodes[place + q]] == place + q:  # no padding
                seen[plan.nodes[place + q], plan.nodes[place + k]] = 1
        offset += block.seen.shape[0] * block.seen.shape[-1]
    assert seen.tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]


def test_work_follows_the_tries_not_the_square_of_the_row() -> None:
    one = some_tries(longest=40)[:1]
    places = [
        sum(block.seen.numel() for block in attention._plan(attention.layout_of(b.depth, b.end)).blocks)
        for b in (pack(one), pack(one * 10))
    ]
    assert places[1] == 10 * places[0]


def test_trees_of_different_lengths_share_a_block_only_where_padding_is_a_twentieth_at_most() -> None:
    tries = [build_trie([(range(10, 10 + n), [3])]) for n in (99, 98, 95, 60, 20)]
    batch = pack(tries)
    blocks = attention._plan(attention.layout_of(batch.depth, batch.end)).blocks
    assert [(block.n_trees, block.seen.shape[-1]) for block in blocks] == [(3, 100), (1, 61), (1, 21)]


def test_masks_are_made_once_per_forward_not_once_per_layer(monkeypatch) -> None:
    policy = Policy(tiny(num_hidden_layers=4))
    made = []
    real = attention._make_plan
    monkeypatch.setattr(attention, "_make_plan", lambda *args: made.append(1) or real(*args))
    policy(pack(some_tries()))
    assert len(made) == 1


def test_generation_and_saving_are_those_of_the_model_that_was_handed_in(tmp_path) -> None:
    model, twin = tiny().eval(), tiny().eval()
    assert Policy(model).eval().path == "tries"
    prompt = torch.tensor([[5, 6, 7], [8, 9, 10]])
    options = {"attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]]), "max_new_tokens": 5, "do_sample": False}
    assert model.generate(prompt, **options).tolist() == twin.generate(prompt, **options).tolist()
    model.save_pretrained(tmp_path / "ours")
    twin.save_pretrained(tmp_path / "twin")
    assert (tmp_path / "ours/config.json").read_text() == (tmp_path / "twin/config.json").read_text()


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_the_layout_survives_reentrant_checkpointing_which_hands_layers_other_tensors(kind: str) -> None:
    model = tiny(kind, **({"head_dim": 4, "sliding_window": 6} if kind == "gemma3_text" else {}))
    policy = Policy(model).train()
    batch = pack(some_tries())
    weight = weights_like(batch, torch.float64)
    plain = gradients(model, (weight * policy(batch).logp).sum())
    policy.activation_checkpointing_enable({"use_reentrant": True})
    model.enable_input_require_grads()
    calls = []
    model.model.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    checkpointed = gradients(model, (weight * policy(batch).logp).sum())
    assert len(calls) == 2  # once forward, once again in the backward pass
    assert relative(checkpointed, plain) < 1e-12


def test_a_model_that_hides_its_window_from_its_attention_function_is_caught_by_the_probe(monkeypatch) -> None:
    real = attention.tries_attention
    monkeypatch.setattr(attention, "tries_attention", lambda *args, sliding_window=None, **kw: real(*args, **kw))
    policy = Policy(tiny("mistral", sliding_window=7))
    assert policy.path == "rows"
    assert "nats at" in policy.path_reason
    monkeypatch.undo()
    assert Policy(tiny("mistral", sliding_window=7)).path == "tries"
