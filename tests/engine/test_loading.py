"""Models by name, and fingerprints of what they compute."""

import subprocess
import sys

import pytest
import torch
from engine_twins import tiny
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from unipref.core.errors import ConfigError
from unipref.engine import Policy, fingerprint, load_model, load_tokenizer, value_head


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved tiny Llama in bfloat16."""
    path = tmp_path_factory.mktemp("model")
    tiny("llama", torch.bfloat16).save_pretrained(path)
    return path


def _tokenizer(**special) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a")), **special
    )


def test_dtype_auto_is_the_checkpoints_and_a_named_one_is_taken(folder) -> None:
    assert load_model(folder).dtype == torch.bfloat16
    assert load_model(folder, dtype="float32").dtype == torch.float32
    assert load_model(str(folder), dtype=torch.float64).dtype == torch.float64


def test_a_fresh_adapter_trains_alone_and_changes_nothing_yet(folder) -> None:
    model = load_model(folder, dtype="float32", lora={"r": 3, "alpha": 6, "merge": True})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    tokens = torch.tensor([[3, 4, 5]])
    assert torch.equal(model(tokens).logits, load_model(folder, dtype="float32")(tokens).logits)


def test_a_saved_adapter_loads_on_its_base_model_and_is_trainable(folder, tmp_path) -> None:
    model = load_model(folder, dtype="float32", lora={"r": 2})
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path, dtype="float32")
    tokens = torch.tensor([[3, 4, 5]])
    assert torch.equal(again(tokens).logits, model(tokens).logits)
    assert any(parameter.requires_grad for parameter in again.parameters())
    with pytest.raises(ConfigError, match="is an adapter already"):
        load_model(tmp_path, lora={"r": 2})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("./nowhere", {}, "no folder at ./nowhere"),
        ("/a/b/c/d", {}, "no folder at /a/b/c/d"),
        (None, {"dtype": "bfloat"}, "no dtype named 'bfloat' .did you mean 'bfloat16'"),
        (None, {"lora": {"rr": 4}}, "no option 'rr' .did you mean 'r'"),
        (None, {"lora": {"target_modules": ["nothing_like_it"]}}, "model_options.lora does not fit"),
    ],
)
def test_what_cannot_be_loaded_is_named_with_the_next_step(folder, name, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model(name or folder, **options)


def test_a_folder_without_a_model_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match="holds neither"):
        load_model(tmp_path)


def test_an_architecture_that_is_no_causal_language_model_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigError, match="cannot load"):
        load_model(tmp_path)


def test_a_tokenizer_without_end_of_sequence_is_refused_and_padding_defaults_to_it(folder, tmp_path) -> None:
    _tokenizer().save_pretrained(tmp_path / "without")
    (tmp_path / "without/config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ConfigError, match="no end-of-sequence token"):
        load_tokenizer(tmp_path / "without")
    _tokenizer(eos_token="</s>").save_pretrained(tmp_path / "with")
    (tmp_path / "with/config.json").write_text((folder / "config.json").read_text())
    assert load_tokenizer(tmp_path / "with").pad_token == "</s>"


def test_a_fingerprint_is_the_same_in_another_process_and_through_a_policy(folder) -> None:
    code = f"from unipref.engine import *; print(fingerprint(load_model({str(folder)!r})))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-1]
    model = load_model(folder)
    assert fingerprint(model) == other
    assert fingerprint(Policy(model, {"value": value_head(16)})) == other


def test_a_fingerprint_changes_with_one_weight_the_dtype_and_the_configuration(folder) -> None:
    original = fingerprint(load_model(folder))
    nudged = load_model(folder)
    with torch.no_grad():
        nudged.model.layers[1].mlp.up_proj.weight[3, 5] += 0.5
    scaled = load_model(folder)
    scaled.config.rope_parameters["rope_theta"] = 5.0
    found = {original, fingerprint(nudged), fingerprint(scaled), fingerprint(load_model(folder, dtype="float32"))}
    assert len(found) == 4


def test_the_reference_of_an_adapted_model_has_the_fingerprint_of_its_base(folder) -> None:
    base = fingerprint(load_model(folder))
    model = load_model(folder, lora={"r": 2})
    before = fingerprint(model)
    assert fingerprint(model, reference=True) == base != before
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 1
    assert fingerprint(model) != before
    assert fingerprint(model, reference=True) == base
