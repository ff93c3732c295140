"""Heads and token masks: what they read, how they start, and whom their gradient reaches."""

import math

import pytest
import torch
from engine_twins import doubled, moved, plain_states, relative, some_tries, tiny
from torch import Tensor, nn

from unipref.core.errors import ConfigError, ShapeError
from unipref.core.tries import pack
from unipref.engine import (
    READOUTS,
    Policy,
    TokenMask,
    class_head,
    make_head,
    reference_distribution,
    reward_head,
    step_value_head,
)


def a_mask(n_layers: int = 2, hidden_size: int = 16, seed: int = 0) -> TokenMask:
    """A float64 mask in the midst of training: some of its weights are 0 and some are above 1."""
    mask = TokenMask(n_layers, hidden_size).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in mask.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return mask


@torch.no_grad()
def plain_mask(mask: TokenMask, states: Tensor) -> float:
    """The weight of one token from the (K, H) outputs of the blocks, block by block and feature by feature."""
    total = 0.0
    for k, h in enumerate(states):
        centred = h - h.mean()
        normed = centred / torch.sqrt(centred.square().mean() + 1e-5) * mask.norm.weight + mask.norm.bias
        unit = max(0.0, sum(float(a * x) for a, x in zip(mask.weight[k], normed, strict=True)) + float(mask.bias[k]))
        total += float(mask.mixer.weight[0, k]) * unit
    return max(0.0, total)


# ---- token masks ----


@pytest.mark.parametrize("way", ["tries", "rows", "whole rows"])
def test_a_mask_reads_the_reference_where_it_predicts_the_token_in_every_block_but_the_embeddings(way: str) -> None:
    other = moved(tiny(), by=0.3)
    reference = Policy(doubled(other) if way == "whole rows" else other, path="tries" if way == "tries" else "rows")
    policy = Policy(tiny(), heads={"reward_mask": a_mask()})
    tries = some_tries()
    batch = pack(tries)
    said = reference_distribution(reference, batch, layers=True)
    found = policy(batch, want=("reward_mask",), reference=said).tokens["reward_mask"]
    expected = []
    for trie in tries:
        for item in range(trie.n_items):
            states = plain_states(other, trie, item)[1:]
            n = len(trie.scored[item])
            expected += [plain_mask(policy.heads["reward_mask"], states[:, i]) for i in range(-n - 1, -1)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert min(expected) == 0.0  # exact zeros
    assert max(expected) > 1.0  # and no upper bound


def test_before_training_every_token_counts_once_and_no_unit_is_dead() -> None:
    mask = TokenMask(3, 8)
    layers = torch.randn(50, 3, 8, generator=torch.Generator().manual_seed(0))
    weight = mask(layers)
    torch.testing.assert_close(weight, torch.ones(50), rtol=1e-6, atol=0)
    (weight * torch.arange(50.0)).sum().backward()
    for parameter in (mask.weight, mask.bias, mask.mixer.weight):
        assert (parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad).abs().min() > 0


def test_a_mask_trains_itself_and_neither_the_reference_nor_the_policy() -> None:
    policy, reference = Policy(tiny(), heads={"kl_mask": a_mask()}), Policy(tiny())
    batch = pack(some_tries())
    said = reference_distribution(reference, batch, layers=True)
    policy(batch, want=("kl_mask",), reference=said).tokens["kl_mask"].sum().backward()
    assert all(p.grad is None for p in [*policy.model.parameters(), *reference.parameters()])
    assert all(p.grad is not None for p in policy.heads.parameters())


def test_two_masks_are_independent_and_come_beside_the_divergence() -> None:
    policy, reference = (
        Policy(tiny(), heads={"reward_mask": a_mask(), "kl_mask": a_mask(seed=1)}),
        Policy(moved(tiny())),
    )
    batch = pack(some_tries())
    said = reference_distribution(reference, batch, layers=True)
    values = policy(batch, want=("logp", "kl", "reward_mask", "kl_mask"), reference=said)
    assert set(values.tokens) == {"kl", "reward_mask", "kl_mask"}
    assert all(value.shape == values.logp.shape for value in values.tokens.values())
    assert not torch.equal(values.tokens["reward_mask"], values.tokens["kl_mask"])
    assert values.heads == {}


def test_a_mask_computes_in_float32_over_a_bfloat16_reference() -> None:
    policy = Policy(tiny(dtype=torch.bfloat16), heads={"reward_mask": TokenMask(2, 16)})
    batch = pack(some_tries())
    said = reference_distribution(policy, batch, layers=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = policy(batch, want=("reward_mask",), reference=said).tokens["reward_mask"]
    assert weight.dtype == torch.float32
    assert weight.tolist() == [1.0] * len(batch.scored)


def test_a_mask_is_saved_with_the_heads() -> None:
    policy = Policy(tiny(), heads={"reward_mask": TokenMask(2, 16)})
    names = {name for name in policy.state_dict() if name.startswith("heads.")}
    parts = ("norm.weight", "norm.bias", "weight", "bias", "mixer.weight")
    assert names == {f"heads.reward_mask.{part}" for part in parts}


def test_a_mask_without_the_blocks_of_a_reference_or_with_others_is_an_error() -> None:
    policy = Policy(tiny(), heads={"reward_mask": TokenMask(3, 16)})
    batch = pack(some_tries())
    with pytest.raises(ConfigError, match=r"reward_mask: .* give reference_distribution"):
        policy(batch, want=("reward_mask",))
    with pytest.raises(ConfigError, match=r"reward_mask: .* make it with layers=True"):
        policy(batch, want=("reward_mask",), reference=reference_distribution(policy, batch))
    with pytest.raises(ShapeError, match=r"\(blocks, width\) = \(3, 16\) and the reference has \(2, 16\)"):
        policy(batch, want=("reward_mask",), reference=reference_distribution(policy, batch, layers=True))


# ---- heads ----


@pytest.mark.parametrize("way", ["tries", "rows", "whole rows"])
def test_a_class_head_gives_logits_per_class_from_the_last_token(way: str) -> None:
    model = doubled(tiny()) if way == "whole rows" else tiny()
    head = class_head(16, 3).double()
    head.module.weight.data += torch.arange(48.0).reshape(3, 16)
    policy = Policy(model, heads={"degree_head": head}, path="tries" if way == "tries" else "rows")
    tries = some_tries()
    found = policy(pack(tries), want=("degree_head",)).heads["degree_head"]
    last = torch.stack([plain_states(model, t, item)[-1, -1] for t in tries for item in range(t.n_items)])
    assert found.shape == (8, 3)
    assert relative(found, last @ head.module.weight.T) < 1e-12


def test_every_head_starts_at_zero_so_that_classes_start_even() -> None:
    hidden = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for head in (make_head("value", 8), step_value_head(8), reward_head(8)):
        assert head(hidden).tolist() == [0.0] * 4
    log_p = class_head(8, 5)(hidden).log_softmax(1)
    torch.testing.assert_close(log_p, torch.full((4, 5), -math.log(5)))


def test_a_step_value_stays_within_one_and_is_read_from_the_token_that_ends_the_step() -> None:
    head = step_value_head(3)
    head.module[0].weight.data.fill_(1.0)
    assert head(torch.tensor([[0.1, 0.2, 0.3], [50.0, 50.0, 50.0]])).tolist() == pytest.approx([math.tanh(0.6), 1.0])
    assert head.at == "last"


@pytest.mark.parametrize("make", [step_value_head, reward_head, lambda size: class_head(size, 2)])
def test_step_value_reward_and_class_train_the_model_too(make) -> None:
    head = make(16).double()
    for parameter in head.parameters():
        nn.init.constant_(parameter, 0.1)
    model = tiny()
    Policy(model, heads={"head": head})(pack(some_tries()), want=("head",)).heads["head"].sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


# ---- by name ----


@pytest.mark.parametrize("name", READOUTS)
def test_every_name_makes_a_readout_that_gives_its_column(name: str) -> None:
    head = make_head(name, 16, n_layers=2, n_classes=4).double()
    policy = Policy(tiny(), heads={name: head})
    batch = pack(some_tries())
    said = reference_distribution(policy, batch, layers=True)
    values = policy(batch, want=(name,), reference=said)
    shape = {"degree_head": (8, 4), "reward_mask": (36,), "kl_mask": (36,)}.get(name, (8,))
    assert {**values.heads, **values.tokens}[name].shape == shape


def test_an_unknown_column_and_a_missing_size_are_errors_that_name_the_next_step() -> None:
    with pytest.raises(ConfigError, match=r"no readout gives a column 'reward_maks' \(did you mean 'reward_mask'\?\)"):
        make_head("reward_maks", 16)
    with pytest.raises(ConfigError, match="'degree_head' classifies; give n_classes"):
        make_head("degree_head", 16)
    with pytest.raises(ConfigError, match="'kl_mask' reads every block of the reference; give n_layers"):
        make_head("kl_mask", 16)
    with pytest.raises(ConfigError, match="at least 2 classes apart, not 1"):
        class_head(16, 1)
