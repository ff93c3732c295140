"""What is said of a model without its weights is what is true of it with them."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from unipref.core.errors import ConfigError
from unipref.engine import load_model, model_facts


def test_the_facts_of_a_model_are_those_of_the_loaded_one():
    facts, model = model_facts("bundled"), load_model("bundled")
    assert facts.n_parameters == sum(p.numel() for p in model.parameters())
    assert facts.vocabulary == model.get_input_embeddings().num_embeddings
    assert facts.positions == model.config.max_position_embeddings
    assert facts.stop_ids == (model.generation_config.eos_token_id,)
    assert facts.missing == ()
    assert not facts.adapter


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft, of every GPT-2
@pytest.mark.parametrize("config", [LlamaConfig, GPT2Config])
def test_the_modules_said_to_be_adaptable_are_those_that_all_linear_adapts(tmp_path, config):
    small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 32}
    small |= {"bos_token_id": 1, "eos_token_id": [3, 5]} | ({"intermediate_size": 16} if config is LlamaConfig else {})
    AutoModelForCausalLM.from_config(config(**small)).save_pretrained(tmp_path)
    adapted = load_model(tmp_path, lora={"r": 2}).targeted_module_names
    facts = model_facts(str(tmp_path))
    assert sorted(facts.adaptable) == sorted(adapted)
    assert facts.stop_ids == (3, 5)


def test_an_adapters_facts_are_those_of_the_model_below_it_and_its_own_weights_are_missed(tmp_path):
    with torch.random.fork_rng():
        load_model("bundled", lora={"r": 2}).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": "bundled"}))
    facts = model_facts(str(tmp_path))
    assert facts.adapter
    assert facts.n_parameters == model_facts("bundled").n_parameters
    assert facts.missing == ()
    (tmp_path / "adapter_model.safetensors").unlink()
    assert model_facts(str(tmp_path)).missing == ("adapter_model.safetensors",)


def test_a_folder_that_holds_no_model_says_so(tmp_path):
    with pytest.raises(ConfigError, match="is no saved model"):
        model_facts(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        model_facts(str(tmp_path))
