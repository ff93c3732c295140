"""Saved weights come back into a model that is already built, in place."""

import pytest
import torch
from engine_twins import tiny
from torch import nn

from unipref.core.errors import ConfigError
from unipref.engine import Policy, average, extrapolate, load_model, load_weights

TOKENS = torch.tensor([[3, 4, 5, 6]])


def moved(model: nn.Module) -> nn.Module:
    """`model` with every trainable weight shifted, as a training would have."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.25
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tie_word_embeddings": True},
        {"kind": "mixtral", "num_local_experts": 4, "experts_implementation": "eager"},  # saved expert by expert
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_saved_weights_come_back_bit_by_bit_into_the_same_tensors(tmp_path, options, dtype) -> None:
    model = tiny(dtype=dtype, **options)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path)
    policy = Policy(moved(model), path="rows")  # what an optimiser holds must be what is loaded into
    held = list(policy.parameters())
    load_weights(policy.model, tmp_path)
    assert all(a is b for a, b in zip(policy.parameters(), held, strict=True))
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    if options.get("tie_word_embeddings"):
        assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_float32_model_takes_what_was_saved_in_bfloat16(tmp_path) -> None:
    saved = tiny(dtype=torch.bfloat16)
    saved.save_pretrained(tmp_path)
    model = moved(tiny(dtype=torch.float32))
    load_weights(model, tmp_path)
    assert model.dtype == torch.float32
    assert all(torch.equal(t, saved.state_dict()[name].float()) for name, t in model.state_dict().items())


def test_an_adapter_folder_gives_the_adapters_weights_and_leaves_the_base_as_it_is(tmp_path) -> None:
    tiny(dtype=torch.float32).save_pretrained(tmp_path / "base")
    model = moved(load_model(tmp_path / "base", lora={"r": 2}))
    logits = model(TOKENS).logits
    model.save_pretrained(tmp_path / "adapter")
    moved(model)
    base = {n: p.clone() for n, p in model.named_parameters() if "lora_" not in n}
    assert not torch.equal(model(TOKENS).logits, logits)
    load_weights(model, tmp_path / "adapter")
    assert torch.equal(model(TOKENS).logits, logits)
    assert all(torch.equal(p, base[n]) for n, p in model.named_parameters() if n in base)


def test_weights_of_another_architecture_are_refused_and_nothing_is_changed(tmp_path) -> None:
    tiny(hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path)
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match="do not fit"):
        load_weights(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_folder_without_weights_is_an_error_that_names_it(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot load the weights in"):
        load_weights(tiny(), tmp_path)


def test_extrapolation_goes_on_by_its_share_of_the_way_and_moves_tied_weights_once() -> None:
    now, before = (tiny(dtype=torch.float64, tie_word_embeddings=True) for _ in range(2))
    moved(before)
    here = {name: value.clone() for name, value in now.named_parameters()}
    there = {name: value.clone() for name, value in before.named_parameters()}
    extrapolate(now, before, 0.5)
    assert all(torch.equal(value, here[n] + 0.5 * (here[n] - there[n])) for n, value in now.named_parameters())
    assert all(torch.equal(value, there[n]) for n, value in before.named_parameters())
    assert now.lm_head.weight is now.model.embed_tokens.weight


def test_momentum_0_moves_nothing_and_a_model_moves_on_from_itself_nowhere() -> None:
    now, before = tiny(dtype=torch.float64), moved(tiny(dtype=torch.float64))
    here = {name: value.clone() for name, value in now.named_parameters()}
    extrapolate(now, before, 0.0)
    extrapolate(now, now, 0.9)
    assert all(torch.equal(value, here[name]) for name, value in now.named_parameters())


def saved(folder, scale: float, **options) -> nn.Module:
    """A model with its weights times `scale`, saved to `folder`."""
    model = tiny(dtype=torch.float64, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_a_mean_of_saved_models_counts_each_by_its_weight(tmp_path, tied) -> None:
    parts = [saved(tmp_path / str(k), k + 1.0, tie_word_embeddings=tied) for k in range(3)]
    given = [dict(part.named_parameters()) for part in parts]
    model = tiny(dtype=torch.float64, tie_word_embeddings=tied)
    average(model, [tmp_path / str(k) for k in range(3)], [0.5, 0.25, 0.25])
    for name, value in model.named_parameters():
        expected = 0.5 * given[0][name] + 0.25 * given[1][name] + 0.25 * given[2][name]
        assert torch.allclose(value, expected, rtol=1e-14), name


def test_a_mean_of_one_model_is_that_model_and_a_weight_of_0_leaves_a_model_out(tmp_path) -> None:
    one, _ = saved(tmp_path / "one", 1.0), saved(tmp_path / "other", -3.0)
    for folders, weights in ((["one"], [1.0]), (["one", "other"], [1.0, 0.0])):
        model = moved(tiny(dtype=torch.float64))
        average(model, [tmp_path / name for name in folders], weights)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), one.parameters(), strict=True))


def test_a_mean_in_bfloat16_is_rounded_once(tmp_path) -> None:
    for k, value in enumerate((1.0, 0.0078125, 0.0078125)):  # each addition alone would be lost beside 1
        model = tiny(dtype=torch.bfloat16)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        model.save_pretrained(tmp_path / str(k))
    average(model, [tmp_path / str(k) for k in range(3)], [1 / 3, 1 / 3, 1 / 3])
    expected = torch.tensor((1.0 + 2 * 0.0078125) / 3).to(torch.bfloat16)
    assert all((parameter == expected).all() for parameter in model.parameters())


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.4], [1.5, -0.5], []])
def test_weights_that_make_no_mean_are_refused_and_nothing_is_loaded(tmp_path, weights) -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match="weights"):
        average(model, [tmp_path / "no", tmp_path / "model"], weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
