"""The tiled head against log_softmax of whole logits."""

import math

import pytest
import torch
from torch import Tensor, nn

from unipref.engine import head as head_module
from unipref.engine.head import LogitHead, token_logp

U, H, V = 7, 5, 1000


def _inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(U, H, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    bias = torch.randn(V, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    row = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 6])  # two tokens are read from the first and from the last state
    token = torch.tensor([999, 0, 5, 256, 255, 511, 512, 1, 998])
    return hidden, weight, bias, row, token


def _plain(hidden, weight, bias, row, token, scale=1.0, softcap=None):
    logits = (hidden @ weight.T + (0 if bias is None else bias)) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    log_p = logits.log_softmax(-1)
    return log_p[row, token], -(log_p.exp() * log_p).sum(-1)


@pytest.fixture(params=["kept", "recomputed"])
def tiles(request, monkeypatch):
    """Four tiles of 256 ids (the last one cut), with logits kept for the backward pass or recomputed."""
    monkeypatch.setattr(head_module, "TILE_BYTES", 0)
    if request.param == "recomputed":
        monkeypatch.setattr(head_module, "KEEP_BYTES", 0)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 2.0), (0.5, 1.5)])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("trains", ["head and model", "head", "model"])
def test_values_and_gradients_equal_log_softmax_of_the_whole_logits(entropy, scale, softcap, with_bias, trains) -> None:
    hidden, weight, bias, row, token = _inputs()
    bias = bias if with_bias else None
    hidden.requires_grad_("model" in trains)
    for parameter in (weight, bias):
        if parameter is not None:
            parameter.requires_grad_("head" in trains)
    leaves = [x for x in (hidden, weight, bias) if x is not None and x.requires_grad]
    a = torch.arange(1.0, 10.0, dtype=torch.float64) * torch.tensor([1, -1, 1, 1, -1, 1, -1, 1, 1])
    b = torch.arange(7.0, 0.0, -1.0, dtype=torch.float64)

    def both(logp: Tensor, entropies: Tensor | None) -> list[Tensor]:
        loss = (a * logp).sum() + ((b * entropies).sum() if entropy else 0)
        return [logp, *torch.autograd.grad(loss, leaves)]

    ours = both(*token_logp(hidden, weight, row, token, bias=bias, scale=scale, softcap=softcap, entropy=entropy))
    twin = both(*_plain(hidden, weight, bias, row, token, scale, softcap))
    for x, y in zip(ours, twin, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13)


def test_a_uniform_head_gives_minus_log_v_and_entropy_log_v() -> None:
    logp, entropy = token_logp(
        torch.ones(2, 3), torch.zeros(8, 3), torch.tensor([0, 1]), torch.tensor([7, 0]), entropy=True
    )
    assert logp.tolist() == pytest.approx([-math.log(8)] * 2)
    assert entropy.tolist() == pytest.approx([math.log(8)] * 2)


def test_logits_of_ten_thousand_neither_overflow_nor_make_a_log_probability_positive() -> None:
    weight = torch.tensor([[1e4], [0.0], [-1e4]], requires_grad=True)
    hidden = torch.ones(1, 1, requires_grad=True)
    logp, _ = token_logp(hidden, weight, torch.tensor([0, 0]), torch.tensor([0, 2]))
    assert logp.tolist() == [0.0, -2e4]
    logp[0].backward()
    assert weight.grad.flatten().tolist() == [0.0, 0.0, 0.0]  # a certain token has nothing left to learn
    assert hidden.grad.item() == 0.0


def test_a_confident_token_keeps_its_small_gradient_in_bfloat16() -> None:
    # p = sigmoid(8) = 0.99966: one minus p rounded to bfloat16 would be zero
    weight = torch.tensor([[8.0], [0.0]], dtype=torch.bfloat16, requires_grad=True)
    hidden = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    logp, _ = token_logp(hidden, weight, torch.tensor([0]), torch.tensor([0]))
    logp.sum().backward()
    expected = 1 - 1 / (1 + math.exp(-8))
    assert weight.grad[0].item() == pytest.approx(expected, rel=2**-7)


def test_a_head_that_is_no_plain_linear_layer_is_called_on_slices_with_the_same_numbers(monkeypatch) -> None:
    class Doubled(nn.Linear):
        """Stands for an adapter on the head: its weight alone is not what it computes."""

        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    monkeypatch.setattr(head_module, "TILE_BYTES", 4 * V * 2)  # two hidden states a slice
    hidden, weight, bias, row, token = _inputs()
    module = Doubled(H, V).double()
    module.weight.data, module.bias.data = weight.data, bias.data
    logp, entropy = LogitHead(module, scale=0.5)(hidden, row.flip(0), token.flip(0), entropy=True)
    grads = torch.autograd.grad(logp.sum() + entropy.sum(), [hidden, module.weight])
    plain, plain_entropy = _plain(hidden, weight, bias, row.flip(0), token.flip(0))
    twin = torch.autograd.grad(plain.sum() + plain_entropy.sum(), [hidden, weight])
    torch.testing.assert_close(logp, plain, rtol=1e-12, atol=0)
    torch.testing.assert_close(entropy, plain_entropy, rtol=1e-12, atol=0)
    for x, y in zip(grads, twin, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-13)


def test_without_gradients_no_logit_outlives_its_tile() -> None:
    hidden, weight, _, row, token = _inputs()
    with torch.no_grad():
        logp, _ = token_logp(hidden, weight, row, token)
    assert logp.grad_fn is None
    torch.testing.assert_close(logp, _plain(hidden, weight, None, row, token)[0].detach(), rtol=1e-12, atol=0)


def test_with_a_frozen_head_nothing_of_vocabulary_size_waits_for_the_backward_pass() -> None:
    hidden, weight, _, row, token = _inputs()
    weight.requires_grad_(False)
    logp, _ = token_logp(hidden, weight, row, token)
    function = logp.grad_fn.next_functions[1][0]
    saved = [t for t in function.saved_tensors if t is not None and t.data_ptr() != weight.data_ptr()]
    assert max(t.numel() for t in saved) == U * H
