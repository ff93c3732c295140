"""The wrapped module: which path it takes and why, its heads, its adapters, and what it refuses."""

import pytest
import torch
from engine_twins import doubled, gradients, plain_states, plain_values, relative, some_tries, tiny, weights_like
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from unipref.core.errors import ConfigError
from unipref.core.tries import build_trie, pack
from unipref.engine import Head, Policy, value_head


def with_lora(model: nn.Module, **options) -> nn.Module:
    """`model` under an adapter that already says something."""
    config = LoraConfig(task_type="CAUSAL_LM", **{"r": 2, "target_modules": "all-linear", **options})
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter) / 5
    return adapted


def count_calls(monkeypatch, policy: Policy, name: str) -> list[int]:
    calls = []
    original = getattr(policy, name)
    monkeypatch.setattr(policy, name, lambda *a, **k: (calls.append(1), original(*a, **k))[1])
    return calls


# ---- paths ----


def test_the_path_that_is_asked_for_is_taken_and_the_reason_says_so() -> None:
    policy = Policy(tiny(), path="rows")
    assert (policy.path, policy.path_reason) == ("rows", "asked for")
    policy = Policy(tiny())
    assert (policy.path, policy.path_reason) == ("tries", "tries equal rows on the probe")


def test_an_unknown_path_and_tries_where_they_are_not_exact_are_errors_that_name_the_remedy() -> None:
    with pytest.raises(ConfigError, match="path is 'auto', 'tries' or 'rows', not 'fast'"):
        Policy(tiny(), path="fast")
    with pytest.raises(ConfigError, match=r"not exact for MambaForCausalLM.*use path='auto'"):
        Policy(tiny("mamba", state_size=4), path="tries")


def test_an_encoder_decoder_is_refused() -> None:
    config = AutoConfig.for_model("t5", d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2, vocab_size=20)
    with pytest.raises(ConfigError, match="T5ForConditionalGeneration is an encoder-decoder"):
        Policy(AutoModelForSeq2SeqLM.from_config(config))


def test_a_model_that_does_more_than_its_head_to_the_logits_is_read_from_its_own_logits() -> None:
    model = doubled(tiny())
    policy = Policy(model, heads={"value": Head(nn.Linear(16, 1).double())})
    assert policy.path == "rows"
    assert "the head alone does not give the model's logits" in policy.path_reason
    tries = some_tries()
    values = policy(pack(tries), want=("logp", "entropy", "value"))
    logp, entropy = plain_values(model, tries)
    assert relative(values.logp, logp) < 1e-12
    assert relative(values.entropy, entropy) < 1e-12
    first = plain_states(model, tries[1], 1)[-1, 4]  # the second item's context has five tokens
    assert values.heads["value"][3].item() == pytest.approx(policy.heads["value"].module(first).item(), rel=1e-12)


def test_prompt_tuning_takes_the_rows_path_and_says_why_and_tokens_stand_behind_the_learned_prompt() -> None:
    model = get_peft_model(tiny(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    policy = Policy(model)
    assert policy.path == "rows"
    assert policy.path_reason == "prompt-learning adapters change the input"
    tries = some_tries()
    model.eval()
    with torch.no_grad():
        logp = policy(pack(tries)).logp
        assert not torch.allclose(logp, plain_values(model.get_base_model(), tries)[0])
        assert relative(logp, plain_values(model, tries)[0]) < 1e-12  # the learned prompt stands before the tokens


def test_a_row_past_a_window_that_was_not_probed_goes_by_rows_and_is_exact(monkeypatch) -> None:
    model = tiny("mistral", sliding_window=30)
    policy = Policy(model, longest=20)
    assert policy.path == "tries"
    calls = count_calls(monkeypatch, policy, "_tries_hidden")
    for longest, n_tries_calls in ((25, 1), (48, 1)):  # the second is past the window: no further call
        tries = some_tries(longest=longest)
        logp = policy(pack(tries)).logp
        assert len(calls) == n_tries_calls
        assert relative(logp, plain_values(model, tries)[0]) < 1e-12


def test_rows_so_long_that_the_model_rescales_its_positions_are_evaluated_one_by_one() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 20}
    model = tiny(rope_parameters=rope, max_position_embeddings=20)
    policy = Policy(model)
    assert policy.path == "tries"
    tries = some_tries(longest=34)  # one row of 34 tokens among shorter ones
    assert relative(policy(pack(tries)).logp, plain_values(model, tries)[0]) < 1e-6  # they rotate in float32


@pytest.mark.parametrize("length", [14, 20, 25])  # below, at and above the length from which positions are rescaled
@pytest.mark.parametrize("path", ["tries", "rows"])
def test_a_row_has_the_same_values_whatever_was_evaluated_before_it(length: int, path: str) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 20}
    options = {"rope_parameters": rope, "max_position_embeddings": 20}
    policy = Policy(tiny(**options), path=path)
    trie = build_trie([([*range(3, 3 + length - 4)], [5, 6, 7, 8])])
    fresh = plain_values(tiny(**options), [trie])[0]
    policy(pack(some_tries(longest=34)[:1]))  # two long rows, whose frequencies the model keeps
    assert relative(policy(pack([trie])).logp, fresh) < 1e-6  # they rotate in float32


# ---- what is wanted ----


def test_an_unknown_wish_is_an_error_that_lists_what_there_is() -> None:
    policy = Policy(tiny(), heads={"value": value_head(16)})
    with pytest.raises(
        ConfigError, match="nothing called entrpy; it gives logp, entropy, kl, reverse_kl, distribution, layers, value"
    ):
        policy(pack(some_tries()), want=("logp", "entrpy"))


def test_only_what_is_wanted_comes() -> None:
    values = Policy(tiny(), heads={"value": value_head(16)})(pack(some_tries()))
    assert values.entropy is None
    assert values.heads == {}


# ---- heads ----


@pytest.mark.parametrize("path", ["tries", "rows"])
@pytest.mark.parametrize("at", ["context", "last"])
def test_a_head_reads_the_last_token_of_the_context_or_of_the_response(path: str, at: str) -> None:
    model = tiny()
    head = Head(nn.Linear(16, 1).double(), at=at)
    tries = some_tries()
    found = Policy(model, heads={"value": head}, path=path)(pack(tries), want=("value",)).heads["value"]
    expected = []
    for trie in tries:
        for item in range(trie.n_items):
            states = plain_states(model, trie, item)[-1]
            column = -1 if at == "last" else len(states) - len(trie.scored[item]) - 1
            expected.append(head.module(states[column])[0])
    assert relative(found, torch.stack(expected)) < 1e-12


def test_a_detached_head_leaves_the_model_alone_and_an_attached_one_trains_it() -> None:
    for detach in (True, False):
        model = tiny()
        policy = Policy(model, heads={"value": Head(nn.Linear(16, 1).double(), detach=detach)})
        policy(pack(some_tries()), want=("value",)).heads["value"].sum().backward()
        trained = any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        assert trained is not detach
        assert policy.heads["value"].module.weight.grad is not None


def test_a_value_head_says_zero_before_training_and_computes_in_float32_over_a_bfloat16_model() -> None:
    policy = Policy(tiny(dtype=torch.bfloat16), heads={"value": value_head(16)})
    value = policy(pack(some_tries()), want=("value",)).heads["value"]
    assert value.dtype == torch.float32
    assert value.tolist() == [0.0] * 8
    layers = [m for m in policy.heads["value"].module if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(16, 16), (16, 16), (16, 1)]


def test_a_head_elsewhere_than_context_or_last_is_an_error() -> None:
    with pytest.raises(ConfigError, match="not at 'first'"):
        Head(nn.Linear(2, 1), at="first")


def test_every_parameter_of_model_and_heads_is_registered_once() -> None:
    model, head = tiny(), value_head(16)
    names = [name for name, _ in Policy(model, heads={"value": head}).named_parameters()]
    assert len(names) == len({*names}) == len([*model.parameters(), *head.parameters()])
    assert all(name.startswith(("model.", "heads.value.")) for name in names)


# ---- adapters ----


# "all-linear" leaves the head out; an adapter on it makes it more than its weight.
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "lm_head"]])
def test_tries_under_an_adapter_equal_rows_of_one_in_values_and_gradients(targets) -> None:
    model = with_lora(tiny(), target_modules=targets)
    policy = Policy(model)
    assert policy.path == "tries", policy.path_reason
    tries = some_tries()
    batch = pack(tries)
    weight = weights_like(batch, torch.float64)
    values = policy(batch)
    ours = gradients(model, (weight * values.logp).sum())
    logp, _ = plain_values(model, tries)
    assert relative(values.logp, logp) < 1e-12
    assert relative(ours, gradients(model, (weight * logp).sum())) < 1e-12


def test_reference_mode_is_the_model_without_its_adapter_and_ends_with_the_block() -> None:
    tries = some_tries()
    base = plain_values(tiny(), tries)[0]
    policy = Policy(with_lora(tiny()))
    batch = pack(tries)
    before = policy(batch).logp
    assert relative(before, base) > 1e-3
    with policy.reference_mode():
        assert relative(policy(batch).logp, base) < 1e-12
    assert torch.equal(policy(batch).logp, before)


def test_a_model_without_adapter_has_no_reference_mode() -> None:
    with pytest.raises(ConfigError, match="no adapter to switch off"), Policy(tiny()).reference_mode():
        pass


# ---- training ----


def test_dropout_is_off_unless_asked_for_and_the_saved_configuration_keeps_it() -> None:
    options = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 128}
    batch = pack(some_tries())
    gpt2 = tiny("gpt2", attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5, **options)
    model = with_lora(gpt2, lora_dropout=0.5, fan_in_fan_out=True)
    policy = Policy(model).train()
    assert policy.path == "tries"
    assert torch.equal(policy(batch).logp, policy(batch).logp)
    assert model.get_base_model().config.attn_pdrop == 0.5

    policy = Policy(tiny("gpt2", attn_pdrop=0.5, **options), dropout=True).train()
    assert (policy.path, policy.path_reason) == ("rows", "dropout is on")
    assert not torch.equal(policy(batch).logp, policy(batch).logp)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_gradient_checkpointing_changes_no_value_and_no_gradient(kind: str) -> None:
    model = tiny(kind, **({"sliding_window": 7} if kind == "mistral" else {}))
    policy = Policy(model).train()
    batch = pack(some_tries())
    weight = weights_like(batch, torch.float64)
    plain = policy(batch).logp
    twin = gradients(model, (weight * plain).sum())
    policy.gradient_checkpointing_enable()
    values = policy(batch).logp
    assert torch.equal(values, plain)
    assert relative(gradients(model, (weight * values).sum()), twin) < 1e-14


def test_items_of_a_batch_do_not_see_each_other() -> None:
    policy = Policy(tiny())
    tries = some_tries()
    together = policy(pack(tries)).logp
    alone = torch.cat([policy(pack([trie])).logp for trie in tries])
    assert relative(together, alone) < 1e-13


def test_two_equal_responses_have_equal_values_and_twice_the_gradient() -> None:
    model = tiny()
    policy = Policy(model)
    once, twice = pack([build_trie([([3, 4], [5, 6])])]), pack([build_trie([([3, 4], [5, 6]), ([3, 4], [5, 6])])])
    one, two = policy(once).logp, policy(twice).logp
    assert torch.equal(two, torch.cat([one, one]))
    assert relative(gradients(model, two.sum()), 2 * gradients(model, one.sum())) < 1e-14
