"""Tiny random models of many families, tries to put through them, and the plainest code that gives their values."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel

from unipref.core.tries import Trie, TrieBatch, build_trie

VOCABULARY = 61
_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts_per_tok": 2, "experts_implementation": "eager"}
_MIXED = ["sliding_attention", "full_attention"]

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with tied head": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 4}),
    "mistral with a window of 7": ("mistral", {"sliding_window": 7}),
    "gemma3 with windows of 6": ("gemma3_text", {"head_dim": 4, "sliding_window": 6, "layer_types": _MIXED}),
    "gemma2 without score caps": (
        "gemma2",
        {"head_dim": 4, "sliding_window": 6, "attn_logit_softcapping": None, "final_logit_softcapping": 3.0},
    ),
    "phi3": ("phi3", {}),
    "gpt2": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "gpt_neox": ("gpt_neox", {}),
    "olmo2": ("olmo2", {}),
    "smollm3": ("smollm3", {}),
    "granite with a logit scale": ("granite", {"logits_scaling": 3.0}),
}
FLOAT32_INSIDE: dict[str, tuple[str, dict[str, Any]]] = {  # they rotate, or weigh their experts, in float32
    "cohere with a logit scale": ("cohere", {"logit_scale": 0.25}),
    "mixtral": ("mixtral", {"num_local_experts": 4, **_EXPERTS}),
    "qwen2_moe": (
        "qwen2_moe",
        {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, **_EXPERTS},
    ),
}
ROWS_FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma2": ("gemma2", {"head_dim": 4, "sliding_window": 6}, "softcap"),
    "gpt_oss": ("gpt_oss", {"num_local_experts": 4, "head_dim": 4, "sliding_window": 6, **_EXPERTS}, "s_aux"),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}, "by name"),
    "mamba": ("mamba", {"state_size": 4}, "cannot run"),
}


def tiny(kind: str = "llama", dtype: torch.dtype = torch.float64, **options: Any) -> PreTrainedModel:
    """A random model of `kind`; float64 ones compute their norms in float64 too, which transformers does not."""
    settings = {**_SMALL, **options}
    extra = {name: settings.pop(name) for name in ("experts_implementation",) if name in settings}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings), **extra).to(dtype)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):  # away from symmetric starts: norms at 1, biases at 0
            parameter.data += 0.05 * torch.randn(parameter.shape).to(dtype)
        if dtype == torch.float64 and type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm_in_float64(module)
    return model.train()


def _norm_in_float64(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    plus_one = type(norm).__name__.startswith("Gemma")
    eps = getattr(norm, "variance_epsilon", None) or norm.eps

    def forward(x: Tensor) -> Tensor:
        weight = 1 + norm.weight if plus_one else norm.weight
        return weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)

    return forward


def moved(model: PreTrainedModel, by: float = 0.1, seed: int = 5) -> PreTrainedModel:
    """`model` itself after a random step away from where it was."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += by * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    return model


class DoubledLogits(LlamaForCausalLM):
    """Does more than its head to the logits, so that they are read from the model itself."""

    def forward(self, *args: Any, **options: Any) -> Any:
        out = super().forward(*args, **options)
        out.logits = 2 * out.logits
        return out


def doubled(model: PreTrainedModel) -> PreTrainedModel:
    """A llama with its logits doubled outside of the head."""
    model.__class__ = DoubledLogits
    return model


def some_tries(seed: int = 0, longest: int = 34) -> list[Trie]:
    """A pair whose responses share their beginning; two items of different contexts; a single item; three branches."""
    draw = np.random.default_rng(seed)

    def ids(n: int) -> list[int]:
        return draw.integers(3, VOCABULARY, n).tolist()

    prompt, opening, short = ids(longest - 12), ids(2), ids(3)
    return [
        build_trie([(prompt, opening + ids(10)), (prompt, opening + ids(5))]),
        build_trie([(ids(4), ids(3)), (ids(5), ids(6))]),
        build_trie([(ids(9), ids(1))]),
        build_trie([(short, ids(1)), (short, ids(4)), (short + ids(1), ids(2))]),
    ]


def plain_values(model: nn.Module, tries: Sequence[Trie]) -> tuple[Tensor, Tensor]:
    """(T,) log-probabilities and (T,) entropies, each item alone through the model, without any code of the engine."""
    log_p = plain_log_probs(model, tries)
    token = torch.cat([torch.tensor(t.token[nodes].astype(np.int64)) for t in tries for nodes in t.scored])
    return log_p.gather(1, token[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def plain_log_probs(model: nn.Module, tries: Sequence[Trie]) -> Tensor:
    """(T, V) log-probabilities of the whole vocabulary where each scored token is predicted, item by item."""
    found = []
    for trie in tries:
        for item in range(trie.n_items):
            logits = plain_output(model, trie, item).logits[0]
            log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
            found.append(log_p[-len(trie.scored[item]) - 1 : -1])
    return torch.cat(found)


def plain_states(model: nn.Module, trie: Trie, item: int) -> Tensor:
    """(1 + K, L, H) embeddings and outputs of every block for one item alone."""
    return torch.cat(plain_output(model, trie, item, output_hidden_states=True).hidden_states)


def plain_output(model: nn.Module, trie: Trie, item: int, **options: Any) -> Any:
    """What the model gives for one item alone, as if no other had been before it."""
    for module in model.modules():
        if hasattr(module, "max_seq_len_cached"):  # a longer row's frequencies, where they depend on the length
            module.max_seq_len_cached = 0
    tokens = torch.tensor(trie.token[trie.path(item)].astype(np.int64))
    return model(tokens[None], use_cache=False, **options)


def gradients(model: nn.Module, value: Tensor) -> Tensor:
    """All gradients of `value`, flat; parameters without one count as zero."""
    model.zero_grad()
    value.backward()
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in found]).clone()


def weights_like(batch: TrieBatch, dtype: torch.dtype, seed: int = 1) -> Tensor:
    """(T,) random numbers to weigh log-probabilities with, so that no gradient cancels by symmetry."""
    return torch.randn(len(batch.scored), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over the norm of `b`."""
    return float((a - b).detach().norm() / b.detach().norm())
