"""Quantised weights and lean optimisers, as a recipe asks for them."""

import math
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.stage import arguments

DATA = {"train": "bundled:hh-harmless", "limit": 8, "eval_limit": 4, "max_length": 120}


def recipe(model="bundled", **changes):
    values = {
        "name": "small",
        "model": str(model),
        "data": DATA,
        "train": {"learning_rate": 1e-3, "batch_size": 4, "precision": "float32", "logging_steps": 1},
        "stages": [{"method": "dpo"}],
        "sampling": {"prompts": 0},
    }
    return load_recipe({**values, **changes})


def test_a_qlora_run_starts_at_its_reference_learns_and_leaves_a_whole_model(tmp_path):
    made = recipe(model_options={"lora": {"r": 4}, "quantize": "nf4"})
    folder = align(made, output=tmp_path / "qlora") / "dpo" / "dpo"
    losses = [row["loss"] for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-4)  # adapters off, over the same quantised weights
    assert losses[-1] != losses[0]
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert not hasattr(model.config, "quantization_config")
    assert not (folder / "model" / "adapter_config.json").exists()
    assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())  # as the bundled checkpoint


def test_quantising_without_adapters_is_refused_with_the_recipe() -> None:
    with pytest.raises(ConfigError, match=r"model_options\.quantize: quantised weights cannot be trained.*lora"):
        recipe(model_options={"quantize": "nf4"})


@pytest.mark.parametrize(
    "changes",
    [{"model_options": {"lora": {}, "quantize": "int8"}}, {"train": {"optimizer": "adamw_8bit"}}],
    ids=["weights", "optimiser"],
)
def test_a_missing_bitsandbytes_is_said_before_the_run_folder_is_made(changes, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes.*pip install 'unipref\[qlora\]'"):
        align(recipe(**changes), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "bytes_per_weight"), [("adamw", 8), ("adamw_8bit", 2), ("rmsprop", 4), ("adafactor", 0.1), ("sgd", 0)]
)
def test_optimisers_keep_as_many_bytes_per_weight_as_the_page_says(name, bytes_per_weight, tmp_path) -> None:
    from transformers import Trainer

    options = recipe(train={"optimizer": name}).train
    args, _ = arguments(options, output=tmp_path, seed=0, n_records=4, has_validation=False, world=1)
    layer = torch.nn.Linear(256, 256, bias=False)
    optimiser = Trainer(model=layer, args=args).create_optimizer()
    layer.weight.grad = torch.ones_like(layer.weight)
    optimiser.step()
    state = [v for kept in optimiser.state.values() for v in kept.values() if torch.is_tensor(v) and v.ndim > 0]
    held = sum(v.numel() * v.element_size() for v in state) / layer.weight.numel()
    assert held == pytest.approx(bytes_per_weight, abs=0.1)
    if name == "adamw":
        assert optimiser.defaults["fused"] is True
