"""Masks made of activations, against hooks on one item at a time and by hand."""

import numpy as np
import pytest
import torch
from engine_twins import doubled, moved, plain_output, some_tries, tiny
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn

from unipref.core.errors import ConfigError
from unipref.core.tries import Trie, build_trie
from unipref.engine import Policy, activation_mask
from unipref.engine.activations import _stretched

GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 128}
PARTS = {
    "llama": ("model.layers.{}.self_attn", "model.layers.{}.mlp", "model.layers.{}"),
    "gpt2": ("transformer.h.{}.attn", "transformer.h.{}.mlp", "transformer.h.{}"),
    "gpt_neox": ("gpt_neox.layers.{}.attention", "gpt_neox.layers.{}.mlp", "gpt_neox.layers.{}"),
}


def plain_activation_mask(model: nn.Module, kind: str, trie: Trie, item: int) -> list[float]:
    """The mask of one item alone, with the z-step that the authors have."""
    kept: dict[str, Tensor] = {}
    handles = []
    for part in PARTS[kind]:
        for layer in range(2):

            def keep(module: nn.Module, given: object, output: object, name: str = part.format(layer)) -> None:
                kept[name] = (output[0] if isinstance(output, tuple) else output)[0].mean(-1)

            handles.append(model.get_submodule(part.format(layer)).register_forward_hook(keep))
    with torch.no_grad():
        plain_output(model, trie, item)
    for handle in handles:
        handle.remove()
    n = len(trie.scored[item])
    if n == 1:
        return [1.0]
    kinds = []
    for part in PARTS[kind]:
        layers = []
        for layer in range(2):
            activity = kept[part.format(layer)][-n - 1 : -1]
            z = (activity - activity.mean()) / (activity.std() + 1e-12)
            layers.append((z - z.min()) / (z.max() - z.min()))
        kinds.append(torch.stack(layers).mean(0))
    return torch.stack(kinds).mean(0).tolist()


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("path", ["tries", "rows"])
def test_the_mask_equals_hooks_on_one_item_at_a_time(kind: str, path: str) -> None:
    model = tiny(kind, **(GPT2 if kind == "gpt2" else {}))
    tries = some_tries()
    found = activation_mask(Policy(model, path=path), tries, max_tokens=40)
    for trie, masks in zip(tries, found, strict=True):
        assert len(masks) == trie.n_items
        for item, mask in enumerate(masks):
            assert mask.dtype == np.float32
            np.testing.assert_allclose(mask, plain_activation_mask(model, kind, trie, item), atol=2e-5)


def test_models_that_are_read_from_whole_rows_or_row_by_row_have_masks_too() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 20}
    for model in (doubled(tiny()), tiny(rope_parameters=rope, max_position_embeddings=20)):
        tries = some_tries()
        for trie, masks in zip(tries, activation_mask(Policy(model), tries), strict=True):
            for item, mask in enumerate(masks):
                np.testing.assert_allclose(mask, plain_activation_mask(model, "llama", trie, item), atol=2e-5)


def test_stretching_puts_the_least_active_token_at_zero_and_the_most_active_at_one() -> None:
    found = _stretched(torch.tensor([[2.0, 4.0, 3.0, 9.0], [5.0, 5.0, 5.0, 5.0]]))
    assert found[0].tolist() == pytest.approx([0, 2 / 7, 1 / 7, 1])  # the anchor of arXiv:2410.05102 as we computed it
    assert found[1].tolist() == [1.0] * 4  # nothing to tell apart: every token counts, and no 0 / 0


def test_the_only_token_of_a_response_counts_in_full() -> None:
    assert activation_mask(Policy(tiny()), [build_trie([([3, 4], [5])])])[0][0].tolist() == [1.0]


def test_the_adapters_are_off_where_the_reference_is_meant() -> None:
    model = get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    policy, tries = Policy(model), some_tries()
    base, adapted = (activation_mask(policy, tries, reference=reference)[0][0] for reference in (True, False))
    np.testing.assert_array_equal(base, activation_mask(Policy(tiny()), tries)[0][0])
    assert np.abs(base - adapted).max() > 1e-3


def test_no_hook_is_left_behind() -> None:
    model = moved(tiny())
    activation_mask(Policy(model), some_tries())
    assert not any(module._forward_hooks for module in model.modules())


def test_blocks_with_other_names_and_learned_prompts_are_refused_by_name() -> None:
    mamba = Policy(tiny("mamba", state_size=4))
    with pytest.raises(ConfigError, match=r"a block of 'mamba' has none of self_attn, .*it has norm, mixer"):
        activation_mask(mamba, some_tries())
    prompted = get_peft_model(tiny(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ConfigError, match=r"computes 296 positions for 272 tokens; use a model without a learned"):
        activation_mask(Policy(prompted.eval()), some_tries())
