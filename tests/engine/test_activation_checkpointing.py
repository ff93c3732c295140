"""Recomputed activations: the same numbers, less memory, blocks twice and the head once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from engine_twins import gradients, relative, some_tries, tiny, weights_like
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from unipref.core.tries import TrieBatch, pack
from unipref.engine import Policy, value_head

REENTRANT = {"use_reentrant": True}


def with_lora(model: nn.Module, **options) -> nn.Module:
    """`model` frozen, under an adapter that already says something."""
    adapted = get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", **{"r": 2, "target_modules": "all-linear", **options})
    )
    generator = torch.Generator().manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter) / 5
    return adapted


def outcome(policy: Policy, batch: TrieBatch) -> tuple[Tensor, Tensor]:
    """Log-probabilities, and the gradients of a sum of them with random weights."""
    logp = policy(batch).logp
    return logp.detach(), gradients(policy.model, (weights_like(batch, logp.dtype) * logp).sum())


@contextmanager
def kept_bytes(policy: Policy) -> Iterator[Callable[[], int]]:
    """What forwards inside keep for their backward: every storage once, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, int] = {}
    alive = []  # a storage that is freed gives its address to another

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(kept.values())


def calls_of(modules: list[nn.Module]) -> list[int]:
    """Counts, one per module, that grow as they are called; a block's own hooks stay outside of what is repeated."""
    counts = [0] * len(modules)
    for i, module in enumerate(modules):

        def count(*_: object, i: int = i) -> None:
            counts[i] += 1

        module.register_forward_pre_hook(count)
    return counts


# ---- the same numbers ----

MODELS = {
    "llama": ("llama", {}),
    "tied head": ("llama", {"tie_word_embeddings": True}),
    "windows": ("gemma3_text", {"head_dim": 4, "sliding_window": 6, "layer_types": ["sliding_attention"] * 2}),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("trained", ["all", "adapters"])
@pytest.mark.parametrize("path", ["tries", "rows"])
@pytest.mark.parametrize("how", [None, REENTRANT], ids=["", "reentrant"])
def test_values_and_gradients_are_those_without_it(model, trained, path, how) -> None:
    kind, options = MODELS[model]
    policy = Policy(with_lora(tiny(kind, **options)) if trained == "adapters" else tiny(kind, **options), path=path)
    policy.train()
    batch = pack(some_tries())
    plain = outcome(policy, batch)
    policy.activation_checkpointing_enable(how)
    logp, slopes = outcome(policy, batch)
    assert policy.path == path
    assert torch.equal(logp, plain[0])
    assert relative(slopes, plain[1]) < 1e-13
    policy.activation_checkpointing_disable()
    assert torch.equal(outcome(policy, batch)[1], plain[1])


@pytest.mark.parametrize("trained", ["all", "adapters"])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_what_is_recomputed_is_rounded_as_before_in_float32_and_under_autocast(trained, fused, half) -> None:
    model = tiny("llama", torch.float32, hidden_size=64, tie_word_embeddings=trained == "all")
    policy = Policy(with_lora(model) if trained == "adapters" else model, fused=fused).train()
    batch = pack(some_tries())
    found = []
    for recomputed in (False, True):
        if recomputed:
            policy.activation_checkpointing_enable()
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            logp = policy(batch).logp
        # The trainer's backward is outside of autocast, too: blocks are recomputed with what their forward had.
        found.append((logp.detach(), gradients(policy.model, (weights_like(batch, torch.float32) * logp).sum())))
    assert torch.equal(found[1][0], found[0][0])
    assert torch.equal(found[1][1], found[0][1])


@pytest.mark.parametrize("how", [None, REENTRANT], ids=["", "reentrant"])
def test_frozen_embeddings_cut_no_adapter_off_also_in_the_first_block(how) -> None:
    policy = Policy(with_lora(tiny())).train()
    policy.activation_checkpointing_enable(how)
    batch = pack(some_tries())
    (weights_like(batch, torch.float64) * policy(batch).logp).sum().backward()
    slopes = {name: p.grad for name, p in policy.model.named_parameters() if p.requires_grad}
    assert len(slopes) == 2 * 2 * 7  # A and B, of seven matrices in each of two blocks
    assert all(slope is not None and float(slope.abs().max()) > 0 for slope in slopes.values())


def test_no_hook_on_the_embeddings_is_needed_unless_recomputing_is_reentrant() -> None:
    policy = Policy(with_lora(tiny())).train()
    batch = pack(some_tries())
    plain = outcome(policy, batch)
    policy.activation_checkpointing_enable()
    policy.model.get_input_embeddings()._forward_hooks.clear()
    without = outcome(policy, batch)
    assert relative(without[1], plain[1]) < 1e-13


def test_heads_on_hidden_states_get_the_same_gradient() -> None:
    torch.manual_seed(0)
    value = value_head(16).double()
    for parameter in value.parameters():
        nn.init.normal_(parameter)
    policy = Policy(with_lora(tiny()), heads={"value": value}).train()
    batch = pack(some_tries())
    found = []
    for recomputed in (False, True):
        if recomputed:
            policy.activation_checkpointing_enable()
        values = policy(batch, want=("logp", "entropy", "value"))
        total = values.logp.sum() + values.entropy.sum() + values.heads["value"].square().sum()
        found.append(gradients(policy, total))
    assert relative(found[1], found[0]) < 1e-13


def test_a_policy_that_only_evaluates_recomputes_nothing() -> None:
    policy = Policy(tiny()).eval()
    policy.activation_checkpointing_enable()
    counts = calls_of([layer.mlp for layer in policy.model.model.layers])
    policy(pack(some_tries())).logp.sum().backward()
    assert counts == [1, 1]


# ---- what it costs ----


@pytest.mark.parametrize("trained", ["all", "adapters"])
@pytest.mark.parametrize("path", ["tries", "rows"])
def test_a_block_keeps_its_input_and_nothing_else(trained, path) -> None:
    batch = pack(some_tries())
    lengths = (batch.depth[batch.last] + 1).tolist()
    positions = len(batch.token) if path == "tries" else len(lengths) * max(lengths)
    kept: dict[tuple[int, bool], int] = {}
    for n_blocks in (2, 5):
        model = tiny(num_hidden_layers=n_blocks)
        policy = Policy(with_lora(model) if trained == "adapters" else model, path=path).train()
        for recomputed in (False, True):
            if recomputed:
                policy.activation_checkpointing_enable()
            with kept_bytes(policy) as n_bytes:
                policy(batch)
            kept[n_blocks, recomputed] = n_bytes()
    one_state = positions * 16 * 8  # of 16 float64 numbers
    assert kept[5, True] - kept[2, True] == 3 * one_state
    # Without it at least: the two sums of the residual stream, what q, k and v are, and gate and up of 24 numbers each.
    assert kept[5, False] - kept[2, False] > 3 * (2 * 16 + 16 + 8 + 8 + 2 * 24) * positions * 8


@pytest.mark.parametrize("path", ["tries", "rows"])
@pytest.mark.parametrize("how", [None, REENTRANT], ids=["", "reentrant"])
def test_each_block_is_run_twice_and_what_is_not_a_block_once(path, how) -> None:
    policy = Policy(tiny(num_hidden_layers=3), path=path).train()
    policy.activation_checkpointing_enable(how)
    inner = policy.model.model
    blocks = calls_of([part for layer in inner.layers for part in (layer.self_attn, layer.mlp)])
    others = calls_of([inner.embed_tokens, inner.norm])
    logp = policy(pack(some_tries())).logp
    assert blocks == [1] * 6
    logp.sum().backward()
    assert blocks == [2] * 6
    assert others == [1, 1]


def test_of_every_second_block_only_those_are_run_again() -> None:
    policy = Policy(tiny(num_hidden_layers=4)).train()
    policy.activation_checkpointing_enable(every_n_layers=2)
    counts = calls_of([layer.mlp for layer in policy.model.model.layers])
    policy(pack(some_tries())).logp.sum().backward()
    assert counts == [2, 1, 2, 1]
