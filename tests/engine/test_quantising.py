"""Weights in 4 and 8 bits under adapters: what is computed, what is trained, what is written."""

import copy
import sys

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.errors import ConfigError
from unipref.core.tries import build_trie, pack
from unipref.engine import Policy, fingerprint, is_quantised, load_model, merged

V = 96
KINDS = ["nf4", "fp4", "int8"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a small model whose widths fill whole blocks of 64 weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.15,
    )
    folder = tmp_path_factory.mktemp("saved")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)

    def ids(n):
        return generator.integers(0, V, n).tolist()

    prompts = [ids(n) for n in (9, 14, 5)]
    return pack([build_trie([(prompt, ids(6)), (prompt, ids(8))]) for prompt in prompts])


def adapted(folder, kind, **options):
    """A quantised model with adapters that already say something."""
    model = load_model(folder, dtype="float32", lora={"r": 4}, quantize=kind, **options)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def plain(folder, model):
    """The unquantised model with the weights that `model` holds once they are unpacked: the slow twin of its base."""
    twin = LlamaForCausalLM.from_pretrained(folder)
    unpacked = copy.deepcopy(model).unload().dequantize(torch.float32)
    twin.load_state_dict(unpacked.state_dict())
    return twin


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_reference_gives_the_log_probabilities_of_its_unpacked_weights(kind, saved, batch):
    model = adapted(saved, kind)
    policy = Policy(model)
    assert is_quantised(model)
    assert policy.path == "tries"
    with torch.no_grad(), policy.reference_mode():
        ours = policy(batch).logp
    twin = Policy(plain(saved, model))(batch).logp.detach()
    whole = Policy(LlamaForCausalLM.from_pretrained(saved))(batch).logp.detach()
    # int8 rounds activations to 8 bits too; 4-bit weights are unpacked and multiplied as they are
    near = 0.2 if kind == "int8" else 1e-4
    torch.testing.assert_close(ours, twin, rtol=0, atol=near)
    assert float((ours - whole).abs().max()) > 1e-3  # what was rounded away is seen


@pytest.mark.parametrize("kind", KINDS)
def test_tries_equal_rows_and_only_adapters_have_gradients(kind, saved, batch):
    found = {}
    for path in ("tries", "rows"):
        model = adapted(saved, kind)
        policy = Policy(model, path=path)
        logp = policy(batch).logp
        (logp * torch.linspace(-1, 1, len(logp))).sum().backward()
        assert all(("lora_" in name) == (p.grad is not None) for name, p in model.named_parameters())
        found[path] = [logp.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]
    near = 0.05 if kind == "int8" else 1e-4  # the outlier columns of int8 are those of whatever is in a forward
    for ours, twin in zip(found["tries"], found["rows"], strict=True):
        torch.testing.assert_close(ours, twin, rtol=near, atol=near)


def test_scoring_in_between_changes_no_gradient():
    # bitsandbytes repacks weights for inference where it can, and what is repacked has no gradient
    torch.manual_seed(0)
    model = load_model("bundled", dtype="float32", lora={"r": 2, "init_lora_weights": "gaussian"}, quantize="nf4")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    policy = Policy(model, path="rows")
    batch = pack([build_trie([([1, 2, 3, 4], [5, 6, 7]), ([1, 2, 3, 4], [8, 9])])])

    def gradients():
        model.zero_grad()
        policy.train()
        policy(batch).logp.sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    first = gradients()
    policy.eval()
    with torch.no_grad():
        policy(batch)
    for before, after in zip(first, gradients(), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_a_step_moves_adapters_and_leaves_every_packed_weight_as_it_is(saved, batch):
    model = adapted(saved, "nf4")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    Policy(model)(batch).logp.sum().backward()
    optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if "lora_" in name}


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_merging_unpacks_the_weights_so_that_what_is_saved_computes_what_was_trained(kind, saved, batch, tmp_path):
    model = adapted(saved, kind)
    trained = Policy(model)(batch).logp.detach()
    merged(model).save_pretrained(tmp_path / "whole")
    again = load_model(tmp_path / "whole", dtype="float32")
    assert not is_quantised(again)
    near = 0.2 if kind == "int8" else 1e-4
    torch.testing.assert_close(Policy(again)(batch).logp.detach(), trained, rtol=0, atol=near)


def test_a_saved_adapter_loads_over_weights_that_are_quantised_again(saved, batch, tmp_path):
    model = adapted(saved, "nf4")
    trained = Policy(model)(batch).logp.detach()
    model.save_pretrained(tmp_path / "adapter")
    again = load_model(tmp_path / "adapter", dtype="float32", quantize="nf4")
    torch.testing.assert_close(Policy(again)(batch).logp.detach(), trained, rtol=0, atol=1e-6)


def test_the_fingerprint_of_a_reference_tells_quantisations_apart_and_stays_from_load_to_load(saved):
    prints = {kind: fingerprint(adapted(saved, kind), reference=True) for kind in KINDS}
    whole = fingerprint(load_model(saved, dtype="float32"))
    assert len({*prints.values(), whole}) == 4
    assert fingerprint(adapted(saved, "nf4"), reference=True) == prints["nf4"]


def test_quantised_weights_without_adapters_are_refused(saved):
    with pytest.raises(ConfigError, match="cannot be trained; give lora too"):
        load_model(saved, quantize="nf4")
    with pytest.raises(ConfigError, match=r"no quantisation named 'nf5'.*nf4"):
        load_model(saved, lora={}, quantize="nf5")


def test_where_bitsandbytes_is_missing_the_error_names_the_extra_before_anything_is_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"quantize: nf4 needs bitsandbytes.*pip install 'unipref\[qlora\]'"):
        load_model("/nowhere/at/all", lora={}, quantize="nf4")
