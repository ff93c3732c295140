"""Saved weights come back into a model that is already built, in place."""

import pytest
import torch
from engine_twins import tiny
from torch import nn

from unipref.core.errors import ConfigError
from unipref.engine import Policy, load_model, load_weights

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
