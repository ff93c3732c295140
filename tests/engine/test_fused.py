"""Layers that go over memory less often compute what the model's own layers compute, values and gradients."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_twins import (
    FAMILIES,
    FLOAT32_INSIDE,
    ROWS_FAMILIES,
    VOCABULARY,
    gradients,
    relative,
    some_tries,
    tiny,
    weights_like,
)
from torch import Tensor, nn

from unipref.core.tries import pack
from unipref.engine import Policy
from unipref.engine.fused import _FORMS, _Form, _Gate, _Lookup, _RmsNorm, _Rotate, fuse

ALL = {
    name: entry[:2] for name, entry in {**FAMILIES, **FLOAT32_INSIDE, **ROWS_FAMILIES}.items() if entry[0] != "mamba"
}


def both(kind: str, dtype: torch.dtype, **options: Any) -> tuple[nn.Module, nn.Module, dict[str, int]]:
    """A model as transformers runs it, and a copy of it with its layers exchanged."""
    plain = tiny(kind, torch.float32, **options).to(dtype).eval()
    fused = copy.deepcopy(plain)
    return plain, fused, fuse(fused)


def outcome(model: nn.Module, *, autocast: bool = False) -> tuple[Tensor, Tensor]:
    """Logits of some tokens, and all gradients of a random sum of them."""
    generator = torch.Generator().manual_seed(3)
    token = torch.randint(0, VOCABULARY, (2, 9), generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(token, use_cache=False).logits.double()
    weight = torch.randn(logits.shape, generator=generator).double()
    return logits.detach(), gradients(model, (logits * weight).sum()).double()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(ours: Callable, twin: Callable, *inputs: Tensor) -> None:
    """Values and gradients agree to the last digits of float64."""
    found = []
    for function in (ours, twin):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = function(*leaves)
        (out * random(*out.shape, seed=9)).sum().backward()
        found.append([out, *(x.grad for x in leaves)])
    for a, b in zip(*found, strict=True):
        assert relative(a, b) < 1e-14


# ---- the functions, in float64 ----


@pytest.mark.parametrize("form", _FORMS)
def test_the_norm_and_its_gradient_are_the_formulas_in_float64(form: _Form) -> None:
    def twin(x: Tensor, weight: Tensor) -> Tensor:
        scale = 1 + weight if form.plus_one else weight
        return scale * x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-3)

    same(lambda x, w: _RmsNorm.apply(x, w, 1e-3, form, torch.float64), twin, random(2, 5, 7), random(7, seed=1))


def test_a_row_of_zeros_has_a_norm_of_zero_and_a_gradient_without_nan() -> None:
    x, weight = torch.zeros(1, 4, requires_grad=True), torch.full((4,), 3.0, requires_grad=True)
    out = _RmsNorm.apply(x, weight, 1e-6, _FORMS[0])
    out.sum().backward()
    assert out.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert torch.allclose(x.grad, torch.full((1, 4), 3.0 / 1e-3))  # weight / sqrt(eps)


def test_the_rotation_and_its_gradient_are_those_of_halves_for_any_angles_in_float64() -> None:
    cos, sin = random(1, 1, 5, 6, seed=2), random(1, 1, 5, 6, seed=3)

    def twin(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat((-b, a), -1) * sin

    same(lambda x: _Rotate.apply(x, cos, sin, False), twin, random(1, 3, 5, 6))


@pytest.mark.parametrize(
    ("which", "activation"),
    [
        (0, nn.functional.silu),
        (1, lambda x: nn.functional.gelu(x, approximate="tanh")),
        (2, nn.functional.gelu),
    ],
)
def test_the_gate_and_its_gradient_are_the_formulas_in_float64(which: int, activation: Callable) -> None:
    same(lambda a, b: _Gate.apply(a, b, which), lambda a, b: activation(a) * b, random(4, 9) * 3, random(4, 9, seed=1))


def test_a_token_that_comes_three_times_gets_the_sum_of_its_gradients_and_padding_gets_none() -> None:
    weight = random(5, 2).requires_grad_()
    rows = _Lookup.apply(weight, torch.tensor([[1, 4, 1, 1, 0]]), 0)
    assert torch.equal(rows[0, 1], weight[4])
    gradient = torch.tensor([[[1.0, 0.0], [5.0, 5.0], [10.0, 1.0], [100.0, 2.0], [7.0, 7.0]]], dtype=torch.float64)
    (found,) = torch.autograd.grad(rows, weight, gradient)
    assert found.to_dense().tolist() == [[0, 0], [111, 3], [0, 0], [0, 0], [5, 5]]


# ---- whole models ----


@pytest.mark.parametrize("family", ALL)
def test_a_model_computes_what_it_computed_before_its_layers_were_exchanged(family: str) -> None:
    kind, options = ALL[family]
    plain, fused, _ = both(kind, torch.float64, **options)
    values, slopes = outcome(plain)
    ours, our_slopes = outcome(fused)
    # transformers computes norms in float32, whose rounding is what is left of the difference.
    assert relative(ours, values) < 1e-6
    assert relative(our_slopes, slopes) < 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_all_but_the_norms_agree_to_twelve_digits_in_float64(family: str) -> None:
    kind, options = FAMILIES[family]
    plain, fused = (tiny(kind, **options).eval() for _ in range(2))  # their norms are in float64, and not exchanged
    assert fuse(fused)["norms"] == 0
    values, slopes = outcome(plain)
    ours, our_slopes = outcome(fused)
    assert relative(ours, values) < 1e-12
    assert relative(our_slopes, slopes) < 1e-12


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("family", ["llama with tied head", "qwen3", "gemma3 with windows of 6", "olmo2"])
def test_half_precision_is_as_near_to_exact_as_it_was(family: str, autocast: bool) -> None:
    kind, options = FAMILIES[family]
    dtype = torch.float32 if autocast else torch.bfloat16
    plain, fused, found = both(kind, dtype, **options)
    assert all(found[kind] for kind in ("norms", "rotations", "gates"))
    exact = outcome(copy.deepcopy(plain).double())
    before, after = outcome(plain, autocast=autocast), outcome(fused, autocast=autocast)
    for i in (0, 1):  # values, gradients
        assert relative(after[i], exact[i]) < 1.15 * relative(before[i], exact[i])


def test_what_is_exchanged_is_counted_and_what_is_not_recognised_is_left_alone() -> None:
    def found(family: str) -> dict[str, int]:
        kind, options = ALL[family]
        return both(kind, torch.float32, **options)[2]

    assert found("llama with tied head") == {"norms": 5, "rotations": 2, "gates": 2, "linears": 15, "embeddings": 1}
    assert found("qwen3") == {"norms": 9, "rotations": 2, "gates": 2, "linears": 15, "embeddings": 0}
    assert found("gemma3 with windows of 6") == {
        **{"norms": 13, "rotations": 2, "gates": 2, "linears": 15, "embeddings": 1},
    }
    # It rotates neighbours, and its norms are layer norms.
    assert found("cohere with a logit scale") == {
        **{"norms": 0, "rotations": 0, "gates": 2, "linears": 15, "embeddings": 1},
    }
    assert found("gpt2") == {"norms": 0, "rotations": 0, "gates": 0, "linears": 1, "embeddings": 1}


def test_a_norm_that_only_looks_like_one_is_left_alone() -> None:
    class ClippedRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.rand(8)), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)).clamp(max=1.0)

    model = nn.Sequential(ClippedRMSNorm())
    assert fuse(model)["norms"] == 0
    assert "forward" not in vars(model[0])


def test_a_forward_that_somebody_else_replaced_is_left_alone() -> None:
    model = tiny("llama", torch.float32)
    mine = model.model.norm.forward = lambda x: 2 * x
    assert fuse(model)["norms"] == 4
    assert model.model.norm.forward is mine


def test_exchanging_twice_changes_nothing_and_names_and_classes_stay() -> None:
    model = tiny("llama", torch.float32, tie_word_embeddings=True)
    names, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    fuse(model)
    again = fuse(model)
    assert set(again.values()) == {0}
    assert list(model.state_dict()) == names
    assert [type(m) for m in model.modules()] == kinds


def test_the_function_that_other_models_of_the_class_call_is_not_touched() -> None:
    from transformers.models.llama import modeling_llama

    before, forward = modeling_llama.apply_rotary_pos_emb, modeling_llama.LlamaAttention.forward
    fuse(tiny("llama", torch.float32))
    assert modeling_llama.apply_rotary_pos_emb is before
    assert modeling_llama.LlamaAttention.forward is forward


def test_a_copy_is_bound_to_its_own_weights_and_a_pickle_finds_the_layers_of_its_class() -> None:
    _, fused, _ = both("llama", torch.float32, tie_word_embeddings=True)
    twin = copy.deepcopy(fused)
    expected = outcome(fused)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.mul_(1.5)
    found = outcome(twin)
    assert torch.equal(found[0], expected[0])
    assert relative(found[1], expected[1]) < 1e-6
    assert not twin.model.embed_tokens.weight.grad.is_sparse
    unpickled = pickle.loads(pickle.dumps(twin))
    assert relative(outcome(unpickled)[0], expected[0]) < 1e-6


# ---- in a policy ----


def test_a_policy_gives_the_same_with_and_without_also_where_activations_are_recomputed() -> None:
    model = tiny("llama", torch.float32, tie_word_embeddings=True)
    batch = pack(some_tries())
    weight = weights_like(batch, torch.float32)
    results = []
    for fused, recomputed in ((False, False), (True, False), (True, True)):
        policy = Policy(copy.deepcopy(model), fused=fused)
        if recomputed:
            policy.activation_checkpointing_enable()
        policy.train()
        logp = policy(batch).logp
        results.append((logp, gradients(policy.model, (weight * logp).sum())))
    for logp, slopes in results[1:]:
        assert relative(logp, results[0][0]) < 1e-6
        assert relative(slopes, results[0][1]) < 2e-6


def test_a_tied_weight_gets_a_dense_gradient_whether_or_not_the_head_is_part_of_the_loss() -> None:
    plain, fused = (tiny("llama", tie_word_embeddings=True) for _ in range(2))
    assert fuse(fused)["embeddings"] == 1
    token = torch.tensor([[3, 5, 3, 0]])  # 0 pads
    slopes = []
    for model in (plain, fused):
        model.model(token, use_cache=False).last_hidden_state.square().sum().backward()
        slopes.append(model.model.embed_tokens.weight.grad)
    assert not slopes[1].is_sparse
    assert relative(slopes[1], slopes[0]) < 1e-12
    assert slopes[1][0].abs().max() == 0


def test_gradients_of_several_forwards_of_one_step_add_up_on_a_tied_weight() -> None:
    plain, fused = (tiny("llama", tie_word_embeddings=True) for _ in range(2))
    fuse(fused)
    found = []
    for model in (plain, fused):
        for token in (torch.tensor([[3, 5, 4]]), torch.tensor([[5, 5, 8, 9]])):
            model(token, use_cache=False).logits.square().sum().backward()
        found.append(model.lm_head.weight.grad)
    assert relative(found[1], found[0]) < 1e-12


def test_adapters_are_trained_through_the_exchanged_layers() -> None:
    from peft import LoraConfig, get_peft_model

    results = []
    for fused in (False, True):
        torch.manual_seed(1)
        lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(tiny("llama"), lora)
        if fused:
            assert fuse(model) == {"norms": 0, "rotations": 2, "gates": 2, "linears": 43, "embeddings": 0}
        results.append(outcome(model))
    assert relative(results[1][0], results[0][0]) < 1e-12
    assert relative(results[1][1], results[0][1]) < 1e-12
