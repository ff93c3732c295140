"""The attention function in transformers' registry: what it must not change, and what it must not miss."""

import pytest
import torch
from attention_twins import plain_attention, some_heads
from engine_twins import gradients, relative, some_tries, tiny, weights_like

from unipref.core.errors import ConfigError
from unipref.core.tries import pack
from unipref.engine import Policy, _tiles, attention


def test_plans_are_made_once_per_forward_not_once_per_layer(monkeypatch) -> None:
    policy = Policy(tiny(num_hidden_layers=4))
    made = []
    real = _tiles.make_plan
    monkeypatch.setattr(_tiles, "make_plan", lambda *args, **kw: made.append(1) or real(*args, **kw))
    policy(pack(some_tries()))
    assert len(made) == 1


def test_layers_with_and_without_a_window_have_plans_of_their_own(monkeypatch) -> None:
    policy = Policy(
        tiny(
            "gemma3_text",
            head_dim=4,
            sliding_window=6,
            layer_types=["sliding_attention"] * 2 + ["full_attention"] * 2,
            num_hidden_layers=4,
        )
    )
    windows = []
    real = _tiles.make_plan
    monkeypatch.setattr(_tiles, "make_plan", lambda *args, **kw: windows.append(kw["window"]) or real(*args, **kw))
    policy(pack(some_tries()))
    assert windows == [6, None]


@pytest.mark.parametrize("call", [1e3, 1e4])
def test_a_model_gives_the_same_whatever_its_blocks(monkeypatch, call) -> None:
    model = tiny(num_hidden_layers=3)
    policy, batch = Policy(model), pack(some_tries())
    weight = weights_like(batch, torch.float64)
    large = gradients(model, (weight * policy(batch).logp).sum())
    before = _tiles.make_plan(batch.depth, batch.end, width=16, window=None, dtype=torch.float64)
    monkeypatch.setattr(_tiles, "_CALL", call)
    after = _tiles.make_plan(batch.depth, batch.end, width=16, window=None, dtype=torch.float64)
    assert sum(len(part.blocks) for part in after.parts) > sum(len(part.blocks) for part in before.parts)
    small = gradients(model, (weight * policy(batch).logp).sum())
    assert relative(small, large) < 1e-12


@pytest.mark.parametrize("path", ["tries", "rows"])
def test_autocast_gives_what_its_half_precision_gives(path) -> None:
    model = tiny(dtype=torch.float32, hidden_size=64)
    policy, batch = Policy(model, path=path), pack(some_tries())
    exact = policy(batch).logp.detach()
    with torch.autocast("cpu", torch.bfloat16):
        half = policy(batch).logp.detach()
    assert 0 < float((half - exact).abs().max()) < 0.05 * float(exact.abs().max())


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


@pytest.mark.parametrize("mask", ["none", "bool", "additive"])
def test_a_soft_cap_under_an_ordinary_mask_is_that_of_the_model_itself(mask) -> None:
    """Gemma 2 refuses SDPA, so generation with tries installed needs a way of our own."""
    heads = some_heads(9, (4, 2), (8, 8), torch.float64)
    q, k, v = (x.detach().transpose(0, 1)[None] for x in heads[:3])
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    given = {"none": None, "bool": causal, "additive": torch.zeros(9, 9).masked_fill(~causal, float("-inf")).double()}
    out, _ = attention.tries_attention(None, q, k, v, given[mask], scaling=0.7, softcap=1.5)
    expected = plain_attention(*heads[:3], causal, 0.7, 1.5)
    torch.testing.assert_close(out[0], expected.detach(), rtol=1e-12, atol=1e-12)


def test_without_a_mask_new_tokens_see_all_that_came_before_under_a_soft_cap_too() -> None:
    heads = some_heads(9, (2, 2), (8, 8), torch.float64)
    q, k, v = (x.detach().transpose(0, 1)[None] for x in heads[:3])
    whole, _ = attention.tries_attention(None, q, k, v, None, softcap=1.5)
    last, _ = attention.tries_attention(None, q[:, :, -2:], k, v, None, softcap=1.5)
    torch.testing.assert_close(last, whole[:, -2:], rtol=1e-12, atol=1e-12)


def test_on_a_cpu_tries_refuse_a_soft_cap_by_name() -> None:
    batch = pack(some_tries())
    layout = attention.layout_of(batch.depth, batch.end)
    q = torch.zeros(1, 2, len(batch.depth), 8)
    with pytest.raises(ConfigError, match=r"does not know softcap=2\.0; use path='rows'"):
        attention.tries_attention(None, q, q, q, layout, softcap=2.0)
