"""Products of linear layers: the numbers of torch's own, whichever library multiplies."""

import gc

import pytest
import torch
from engine_twins import gradients, relative, tiny
from torch import Tensor, nn
from torch.nn import functional

from unipref.engine import products, token_logp
from unipref.engine.fused import fuse

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_rows_are_rounded_to_few_numbers_and_by_an_eighth_at_most(monkeypatch) -> None:
    monkeypatch.setattr(products, "uses_onednn", lambda: True)
    for dtype in (torch.float32, torch.bfloat16):
        found = [products.rounded(n, dtype, CPU) for n in range(1, 4097)]
        assert all(a >= n for n, a in enumerate(found, 1))
        assert all(a <= 1.125 * n for n, a in enumerate(found, 1) if n >= 128)
        assert [products.rounded(n, dtype, CPU) for n in set(found)] == list(set(found))
        assert len(set(found)) == 32 + 56  # kernels that a run may compile for one layer


def test_rows_stay_as_they_are_where_no_kernel_is_compiled_for_them(monkeypatch) -> None:
    monkeypatch.setattr(products, "uses_onednn", lambda: False)
    assert products.rounded(17, torch.float32, CPU) == 17
    assert products.rounded(17, torch.float64, CPU) == 17
    assert products.rounded(17, torch.bfloat16, torch.device("cuda")) == 17
    assert products.rounded(17, torch.bfloat16, CPU) == 32


@pytest.mark.parametrize("n", [16, 17, 64])
@pytest.mark.parametrize("biased", [False, True])
def test_products_are_exact_to_float32_at_every_number_of_rows(n: int, biased: bool) -> None:
    x, weight, bias = random(n, 24), random(40, 24, seed=1), random(40, seed=2) if biased else None
    exact = functional.linear(x.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(products.by_transpose(x, weight, bias).double(), exact, rtol=1e-5, atol=1e-5)
    back = products.product(exact.float(), weight)
    torch.testing.assert_close(back.double(), exact.float().double() @ weight.double(), rtol=1e-5, atol=1e-4)
    total = random(n, 24, seed=3)
    added = total.clone()
    products.add_product(added, exact.float(), weight)
    torch.testing.assert_close(added, total + back, rtol=1e-5, atol=1e-4)


def outcome(layer: nn.Linear, x: Tensor, *, autocast: bool) -> tuple[Tensor, ...]:
    """Value and gradients of input, weight and bias."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = layer(x)
    inputs = [t for t in (x, *layer.parameters()) if t.requires_grad]
    return (out.detach(), *torch.autograd.grad(out.double().square().sum(), inputs))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", [(16, 24), (2, 32, 24), (5, 24)])
@pytest.mark.parametrize("trained", ["all", "nothing but the input", "no bias"])
def test_a_layer_gives_the_values_and_gradients_of_the_linear_layer(autocast, shape, trained) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(24, 40, bias=trained != "no bias")
    layer.requires_grad_(trained != "nothing but the input")
    expected = outcome(layer, random(*shape), autocast=autocast)
    assert fuse(layer)["linears"] == 1
    found = outcome(layer, random(*shape), autocast=autocast)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        torch.testing.assert_close(a, b, rtol=1e-2 if autocast else 1e-5, atol=1e-2 if autocast else 1e-4)


def test_float64_is_multiplied_by_torch_itself() -> None:
    layer = nn.Linear(8, 8).double()
    x = random(16, 8).double()
    expected = outcome(layer, x, autocast=False)
    fuse(layer)
    assert all(torch.equal(a, b) for a, b in zip(outcome(layer, x, autocast=False), expected, strict=True))


def test_unlike_dtypes_are_refused_as_torch_refuses_them() -> None:
    layer = nn.Linear(8, 8)
    fuse(layer)
    with pytest.raises(RuntimeError, match="same dtype"):
        layer(random(16, 8).bfloat16())


def test_layers_that_read_one_input_keep_one_cast_of_it() -> None:
    layers = [nn.Linear(24, 24, bias=False) for _ in range(3)]
    for layer in layers:
        fuse(layer)
    x = random(16, 24).requires_grad_()
    kept: list[int] = []
    watched = torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.data_ptr()), t)[1], lambda t: t)
    with watched, torch.autocast("cpu", torch.bfloat16):
        total = sum(layer(x).double().sum() for layer in layers)
    total.backward()
    assert len(kept) == 6  # input and weight of each
    assert len(set(kept)) == 4


def test_a_frozen_layer_keeps_its_weight_alone() -> None:
    layer = nn.Linear(24, 40).requires_grad_(False)
    fuse(layer)
    kept: list[tuple[int, ...]] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(tuple(t.shape)), t)[1], lambda t: t):
        layer(random(16, 24).requires_grad_())
    assert kept in ([(40, 24)], [(24, 40)])  # by oneDNN, or by torch's own


def test_an_input_that_was_changed_in_place_is_cast_again() -> None:
    layer = nn.Linear(8, 8, bias=False)
    fuse(layer)
    x = random(16, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        first = layer(x)
        x.mul_(2.0)
        assert torch.equal(layer(x), 2.0 * first)


def test_nothing_is_kept_of_an_input_that_is_gone() -> None:
    layer = nn.Linear(8, 8)
    fuse(layer)
    x = random(16, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x)
        assert products._narrowed._held is not None
        del x
        gc.collect()
    assert products._narrowed._held is None


@pytest.mark.parametrize("n", [5, 16, 21])
def test_rows_added_to_the_hidden_states_change_neither_values_nor_gradients(n: int) -> None:
    weight = random(50, 12, seed=1)
    row, token = torch.arange(n), torch.arange(n) * 2
    found = []
    for exact in (False, True):
        dtype = torch.float64 if exact else torch.float32
        hidden, w = (x.detach().to(dtype).requires_grad_() for x in (random(n, 12), weight))
        if exact:
            log_p = functional.linear(hidden, w).log_softmax(1)
            logp, entropy = log_p[row, token], -(log_p.exp() * log_p).sum(1)
        else:
            logp, entropy = token_logp(hidden, w, row, token, entropy=True)
        slopes = torch.autograd.grad(logp.square().sum() + (entropy * row).sum(), (hidden, w))
        found.append([x.double() for x in (logp, entropy, *slopes)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_model_in_float32_keeps_its_gradients_up_to_rounding() -> None:
    plain, fused = (tiny("llama", torch.float32) for _ in range(2))
    assert fuse(fused)["linears"] == 15
    token = torch.randint(0, 40, (4, 16), generator=torch.Generator().manual_seed(0))
    found = [gradients(model, model(token, use_cache=False).logits.square().sum()) for model in (plain, fused)]
    assert relative(found[1], found[0]) < 1e-5
