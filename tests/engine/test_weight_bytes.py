"""What weights take in memory, packed ones with what unpacks them, against every tensor that is there."""

import gc

import pytest
import torch
from torch._subclasses import FakeTensor
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.tries import build_trie, pack
from unipref.engine import Policy, load_model, n_weights, weight_bytes
from unipref.engine.shape import ModelShape

V, H, INSIDE = 96, 64, 128
SHAPES = {  # of the matrices of a block, as (out, in)
    **{"q": (H, H), "k": (H // 2, H), "v": (H // 2, H), "o": (H, H)},
    **{"gate": (INSIDE, H), "up": (INSIDE, H), "down": (H, INSIDE)},
}
LINEAR = {name: out * into for name, (out, into) in SHAPES.items()}
BLOCKS = 2
ROTARY = 2 * 4 * (H // 4 // 2)  # two buffers of float32 frequencies
FULL = 2 * V * H + (2 * BLOCKS + 1) * H  # embeddings, head, norms


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=H,
        intermediate_size=INSIDE,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    folder = tmp_path_factory.mktemp("saved")
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tensors():
    """Every storage that some tensor in this process has, by address; a compiler's stand-ins have none."""
    gc.collect()
    # By type: `isinstance` asks every object for its class, and some modules warn when they are asked for anything.
    alive = (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor) and type(o) is not FakeTensor)
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive if t.device.type == "cpu"}


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8", None])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bytes_are_those_of_all_tensors_that_loading_leaves(saved, kind, dtype) -> None:
    load_model(saved, dtype=dtype, lora={"r": 4}, quantize=kind)  # whatever is made once in a process
    before = tensors()
    model = load_model(saved, dtype=dtype, lora={"r": 4}, quantize=kind)
    found = weight_bytes(model)
    assert found.held == sum(n for at, n in tensors().items() if at not in before)


def lora_bytes(r):
    return BLOCKS * r * sum(out + into for out, into in SHAPES.values()) * 4


def test_four_bits_by_hand(saved) -> None:
    found = weight_bytes(load_model(saved, dtype="bfloat16", lora={"r": 4}, quantize="nf4"))
    n = BLOCKS * sum(LINEAR.values())
    assert found.packed == n / 2
    assert found.unpacked == 2 * n
    assert found.whole == 2 * FULL + ROTARY + lora_bytes(4)
    # A scale of 8 bits for every 64 weights, one of 32 for every 256 of these, and their mean: of 4-bit code books and
    # of 8-bit ones each layer has its own, 16 and 256 float32 numbers.
    scales = sum(size // 64 + 4 * -(-size // 64 // 256) + 4 for size in LINEAR.values())
    assert found.constants == BLOCKS * (scales + len(LINEAR) * 4 * (16 + 256))


def test_eight_bits_by_hand_also_after_the_first_forward_which_moves_the_scales(saved) -> None:
    model = load_model(saved, dtype="float32", lora={"r": 4}, quantize="int8")
    n = BLOCKS * sum(LINEAR.values())
    rows = BLOCKS * sum(out for out, _ in SHAPES.values())  # a float32 scale for every output
    before = weight_bytes(model)
    assert (before.packed, before.constants, before.unpacked) == (n, 4 * rows, 4 * n)
    policy = Policy(model)
    policy(pack([build_trie([([1, 2, 3], [4, 5])])]))
    assert weight_bytes(policy).constants == before.constants


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_packed_weight_counts_as_one_in_a_models_shape(saved, kind) -> None:
    whole, packed = (
        ModelShape.of(Policy(load_model(saved, dtype="float32", lora={"r": 4}, quantize=quantize)))
        for quantize in (None, kind)
    )
    assert packed == whole
    assert whole.matrix == BLOCKS * sum(LINEAR.values()) + lora_bytes(4) // 4
    assert n_weights(torch.zeros(3, 4)) == 12
