"""How often the head's matrix product is made in one step: frozen under adapters, trained, kept, recomputed."""

import pytest
import torch
from engine_twins import VOCABULARY, some_tries, tiny, weights_like
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.tries import TrieBatch, pack
from unipref.engine import Policy, load_model
from unipref.engine import head as head_module
from unipref.engine.head import token_logp

PLACES = {  # of the left factor among an operation's arguments
    **{"mm": 0, "mm.out": 0, "bmm": 0, "bmm.out": 0, "linear": 0, "_linear_pointwise": 0},
    **{"addmm": 1, "addmm_": 1, "addmm.out": 1, "baddbmm": 1, "baddbmm_": 1, "baddbmm.out": 1},
}


class Products(TorchDispatchMode):
    """Counts matrix products and their multiplications as they are made, forwards and backwards.

    Args:
        width: only products count that have a side of this width; None: all.
    """

    def __init__(self, width: int | None = None) -> None:
        super().__init__()
        self.width, self.calls, self.multiplications = width, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.__name__.removesuffix(".default")
        if name in PLACES:
            left = args[PLACES[name]]
            if self.width is None or self.width in (*left.shape, *out.shape):
                self.calls += 1
                self.multiplications += out.numel() * left.shape[-1]
        elif func.namespace != "bitsandbytes":  # of packed weights: never the head
            product = any(part in name for part in ("mm", "linear", "matmul"))
            assert not product, f"a product that is not counted: {name}"
        return out


U, H, V = 40, 24, 1000


def of_token_logp(*, head: bool, hidden: bool = True, softcap: float | None = None) -> float:
    """Products of U states and the whole head, forward and backward, where `head` and `hidden` are trained or not."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(U, H, generator=generator, dtype=torch.float64, requires_grad=hidden)
    weight = torch.randn(V, H, generator=generator, dtype=torch.float64, requires_grad=head)
    row = torch.arange(U)
    with Products() as made:
        logp, _ = token_logp(states, weight, row, torch.randint(0, V, (U,), generator=generator), softcap=softcap)
        if head or hidden:
            logp.sum().backward()
    return made.multiplications / (U * V * H)


@pytest.mark.parametrize("tile_bytes", [0, 2**23], ids=["tiles of 256", "one tile"])
def test_a_frozen_head_takes_two_products_a_trained_one_three_or_four(monkeypatch, tile_bytes) -> None:
    monkeypatch.setattr(head_module, "TILE_BYTES", tile_bytes)
    assert of_token_logp(head=False, hidden=False) == 1  # logits
    assert of_token_logp(head=False) == 2  # and softmax @ W, taken along: nothing is left for the backward pass
    assert of_token_logp(head=True) == 3  # logits, and two gradients of what was kept of them
    monkeypatch.setattr(head_module, "KEEP_BYTES", 0)
    assert of_token_logp(head=True) == 4  # the logits once more
    assert of_token_logp(head=False) == 2


def test_a_capped_frozen_head_takes_two_products_as_well() -> None:
    assert of_token_logp(head=False, softcap=3.0) == 2


def head_products(policy: Policy, batch: TrieBatch, vocabulary: int, width: int) -> int:
    """Products of the head, whose vocabulary is one tile, in one forward and backward.

    Each is of all states that a token of `batch` is read from; there may be rows besides that only fill a block up.
    """
    assert vocabulary not in (width, len(batch.token))
    sources = len(batch.parent[batch.scored].unique())
    policy.train()
    with Products(width=vocabulary) as made:
        logp = policy(batch).logp
        (weights_like(batch, logp.dtype) * logp).sum().backward()
    assert made.multiplications >= made.calls * sources * vocabulary * width
    return made.calls


def adapted(model: nn.Module) -> nn.Module:
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))


@pytest.mark.parametrize("path", ["tries", "rows"])
@pytest.mark.parametrize("recomputed", [False, True], ids=["", "blocks recomputed"])
@pytest.mark.parametrize("tied", [False, True], ids=["", "tied"])
def test_a_step_makes_two_products_of_the_head_under_adapters_and_three_where_it_is_trained(
    path, recomputed, tied
) -> None:
    batch = pack(some_tries())
    for model, products in ((tiny(tie_word_embeddings=tied), 3), (adapted(tiny(tie_word_embeddings=tied)), 2)):
        policy = Policy(model, path=path)
        if recomputed:
            policy.activation_checkpointing_enable()
        assert head_products(policy, batch, VOCABULARY, 16) == products


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
def test_a_head_over_quantised_blocks_is_a_frozen_one(kind, half, tmp_path) -> None:
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=half,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    policy = Policy(load_model(tmp_path, dtype="bfloat16" if half else "float32", lora={"r": 2}, quantize=kind))
    assert head_products(policy, pack(some_tries()), 97, 64) == 2
