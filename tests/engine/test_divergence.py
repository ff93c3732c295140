"""Divergences to a live reference: by hand, against whole distributions, and what they must leave alone."""

import copy
import math

import pytest
import torch
from engine_twins import (
    doubled,
    gradients,
    moved,
    plain_log_probs,
    plain_values,
    relative,
    some_tries,
    tiny,
    weights_like,
)
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from unipref.core.errors import ConfigError, ShapeError
from unipref.core.tries import build_trie, pack
from unipref.engine import Policy, reference_distribution
from unipref.engine import head as head_module
from unipref.engine.head import LogitHead, divergences


def head_of(p: list[list[float]]) -> tuple[LogitHead, Tensor]:
    """A head and hidden states whose distributions are the rows of `p`."""
    return LogitHead(nn.Identity()), torch.tensor(p, dtype=torch.float64).log()


def both_ways(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Forward (q first) and reverse divergence of whole distributions."""
    return (log_q.exp() * (log_q - log_p)).sum(1), (log_p.exp() * (log_p - log_q)).sum(1)


# ---- the head ----


def test_the_forward_divergence_puts_the_reference_first() -> None:
    policy, p = head_of([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    reference, q = head_of([[0.5, 0.25, 0.25]] * 2)
    forward, reverse = divergences(policy, p, reference, q)
    # the anchor of arXiv:2410.05102 as we computed it, and the same arithmetic the other way round
    assert forward.tolist() == pytest.approx([0.0923315, 0.2392782], abs=1e-7)
    assert forward[0].item() == pytest.approx(0.5 * math.log(5 / 6) + 0.25 * math.log(5 / 6) + 0.25 * math.log(2.5))
    assert reverse[0].item() == pytest.approx(0.6 * math.log(1.2) + 0.3 * math.log(1.2) + 0.1 * math.log(0.4))


def test_the_gradient_of_the_forward_divergence_on_logits_is_policy_minus_reference() -> None:
    policy, p = head_of([[0.6, 0.3, 0.1]])
    reference, q = head_of([[0.5, 0.25, 0.25]])
    p.requires_grad_()
    divergences(policy, p, reference, q)[0].sum().backward()
    assert p.grad[0].tolist() == pytest.approx([0.1, 0.05, -0.15])


class Wrapped(nn.Linear):
    """Stands for an adapter on the head: no plain linear layer, so it is called on slices of the hidden states."""


@pytest.mark.parametrize("layer", [nn.Linear, Wrapped], ids=["tiles", "slices"])
@pytest.mark.parametrize("wanted", [(1, 0), (0, 1), (1, 1)], ids=["forward", "reverse", "both"])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.5, 1.5)])
@pytest.mark.parametrize("trains", ["head and model", "head", "model"])
def test_pieces_equal_whole_distributions_in_values_and_gradients(
    layer, wanted, scale, softcap, trains, monkeypatch
) -> None:
    monkeypatch.setattr(head_module, "TILE_BYTES", 0)  # tiles of 256 ids, the last one cut, or slices of one state
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ours, theirs = layer(5, 600).double(), layer(4, 600, bias=False).double()  # another width
    ours.weight.data, ours.bias.data, theirs.weight.data = random(600, 5), random(600), random(600, 4)
    ours.requires_grad_("head" in trains)
    hidden, reference_hidden = random(7, 5).requires_grad_("model" in trains), random(7, 4).requires_grad_()
    reference = LogitHead(theirs, softcap=3.0)
    found = divergences(LogitHead(ours, scale=scale, softcap=softcap), hidden, reference, reference_hidden)
    logits = ours(hidden) * scale
    log_p = (logits if softcap is None else softcap * torch.tanh(logits / softcap)).log_softmax(1)
    twin = both_ways(log_p, (3 * torch.tanh(theirs(reference_hidden) / 3)).log_softmax(1).detach())
    weight = random(2, 7) * torch.tensor(wanted)[:, None]
    for x, y in zip(found, twin, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=0)
    leaves = [x for x in (hidden, ours.weight, ours.bias) if x.requires_grad]
    everything = [*leaves, theirs.weight, reference_hidden]
    *grads, none, nor = torch.autograd.grad((weight * torch.stack(found)).sum(), everything, allow_unused=True)
    assert none is nor is None  # nothing goes to the reference
    expected = torch.autograd.grad((weight * torch.stack(twin)).sum(), leaves)
    for x, y in zip(grads, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-13)


def test_nothing_of_vocabulary_size_waits_for_the_backward_pass() -> None:
    heads = [LogitHead(nn.Linear(5, 1000)) for _ in range(2)]
    hidden = torch.randn(16, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    own = {parameter.data_ptr() for head in heads for parameter in head.module.parameters()}
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        divergences(heads[0], hidden, heads[1], hidden.detach())
    assert max(t.numel() for t in saved if t.data_ptr() not in own) == 16 * 5


@pytest.mark.parametrize("n", [5, 16, 21])
def test_rows_added_to_the_hidden_states_change_no_divergence_and_no_gradient(n: int) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(12, 50), nn.Linear(12, 50)
    hidden = torch.randn(n, 12)
    found = []
    for dtype in (torch.float32, torch.float64):  # of float64 no kernel is compiled, and no row is added
        heads = [LogitHead(copy.deepcopy(layer).to(dtype)) for layer in (ours, theirs)]
        leaf = hidden.to(dtype).requires_grad_()
        values = divergences(heads[0], leaf, heads[1], leaf.detach() * 0.5)
        leaves = (leaf, *heads[0].module.parameters())
        slopes = torch.autograd.grad(sum(x.square().sum() for x in values), leaves)
        found.append([x.double() for x in (*values, *slopes)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear, Wrapped], ids=["tiles", "slices"])
def test_logits_of_ten_thousand_give_a_finite_divergence_and_gradient(layer) -> None:
    ours, theirs = layer(1, 3, bias=False), layer(1, 3, bias=False)
    ours.weight.data, theirs.weight.data = torch.tensor([[1e4], [0.0], [-1e4]]), torch.tensor([[-1e4], [0.0], [1e4]])
    forward, reverse = divergences(LogitHead(ours), torch.ones(1, 1), LogitHead(theirs), torch.ones(1, 1))
    assert forward.item() == reverse.item() == 2e4
    forward.sum().backward()
    assert ours.weight.grad.flatten().tolist() == [1.0, 0.0, -1.0]


def test_two_vocabularies_cannot_be_compared() -> None:
    (policy, p), (reference, q) = head_of([[0.5, 0.5]]), head_of([[0.5, 0.25, 0.25]])
    with pytest.raises(ConfigError, match=r"policy's head has 2 tokens and the reference's 3; take a reference"):
        divergences(policy, p, reference, q)


# ---- the policy ----


def a_policy(way: str) -> Policy:
    model = doubled(tiny()) if way == "whole rows" else tiny()
    return Policy(model, path="tries" if way == "tries" else "rows")


@pytest.mark.parametrize("way", ["tries", "rows", "whole rows"])
@pytest.mark.parametrize("reference_way", ["tries", "rows", "whole rows"])
def test_every_way_equals_whole_distributions_of_rows_of_one(way: str, reference_way: str) -> None:
    policy, reference = a_policy(way), a_policy(reference_way)
    moved(reference.model)
    tries = some_tries()
    batch = pack(tries)
    said = reference_distribution(reference, batch)
    values = policy(batch, want=("kl", "reverse_kl"), reference=said)
    log_p = plain_log_probs(policy.model, tries)
    twin = both_ways(log_p, plain_log_probs(reference.model, tries).detach())
    assert values.kl is values.tokens["kl"]
    losses = [0.0, 0.0]
    for i, name in enumerate(("kl", "reverse_kl")):
        assert relative(values.tokens[name], twin[i]) < 1e-12
        weight = weights_like(batch, torch.float64, seed=i)
        losses = [losses[0] + (weight * values.tokens[name]).sum(), losses[1] + (weight * twin[i]).sum()]
    assert relative(*(gradients(policy.model, loss) for loss in losses)) < 1e-11
    assert all(p.grad is None for p in reference.parameters())


def test_rows_that_go_one_by_one_have_each_their_own_distribution() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 20}
    model, other = tiny(rope_parameters=rope, max_position_embeddings=20), moved(tiny())
    tries = some_tries(longest=34)
    batch = pack(tries)
    log_p, log_q = (plain_log_probs(m, tries).detach() for m in (model, other))
    policy, reference = Policy(model), Policy(other)
    here = policy(batch, want=("kl",), reference=reference_distribution(reference, batch)).kl
    there = reference(batch, want=("kl",), reference=reference_distribution(policy, batch)).kl
    assert relative(here, both_ways(log_p, log_q)[0]) < 1e-6  # they rotate in float32
    assert relative(there, both_ways(log_q, log_p)[0]) < 1e-6


@pytest.mark.parametrize("way", ["tries", "rows", "whole rows"])
def test_a_policy_is_at_distance_zero_from_itself_and_rests_there(way: str) -> None:
    policy = a_policy(way)
    batch = pack(some_tries())
    values = policy(batch, want=("kl", "reverse_kl"), reference=reference_distribution(policy, batch))
    for found in values.tokens.values():
        assert found.tolist() == [0.0] * len(batch.scored)
    assert gradients(policy.model, sum(found.sum() for found in values.tokens.values())).abs().max() < 1e-13


def test_other_items_of_the_batch_change_nothing() -> None:
    policy, reference = Policy(tiny()), Policy(moved(tiny()))
    tries = some_tries()

    def kl(tries: list) -> Tensor:
        batch = pack(tries)
        return policy(batch, want=("kl",), reference=reference_distribution(reference, batch)).kl

    assert relative(kl(tries), torch.cat([kl([trie]) for trie in tries])) < 1e-12


def test_tokens_that_items_share_have_one_divergence_and_count_in_each() -> None:
    policy, reference = Policy(tiny()), Policy(moved(tiny()))
    once, twice = pack([build_trie([([3, 4], [5, 6])])]), pack([build_trie([([3, 4], [5, 6]), ([3, 4], [5, 6])])])
    one, two = (
        policy(batch, want=("kl",), reference=reference_distribution(reference, batch)).kl for batch in (once, twice)
    )
    assert torch.equal(two, torch.cat([one, one]))
    assert relative(gradients(policy.model, two.sum()), 2 * gradients(policy.model, one.sum())) < 1e-14


def test_the_reference_says_its_own_log_probabilities_and_is_left_in_its_mode() -> None:
    reference = Policy(moved(tiny())).train()
    tries = some_tries()
    said = reference_distribution(reference, pack(tries))
    assert relative(said.logp, plain_values(reference.model, tries)[0]) < 1e-12
    assert said.layers is None
    assert not said.logp.requires_grad
    assert not said.hidden.requires_grad
    assert reference.training


# An adapter on the head, or a copy of the head that is trained, is not part of the reference.
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": "all-linear"},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=["layers", "head", "trained head"],
)
def test_with_its_adapters_off_a_policy_is_its_own_reference(options) -> None:
    model = get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", r=2, **options))
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 5
    policy = Policy(model)
    tries = some_tries()
    batch = pack(tries)
    values = policy(batch, want=("kl",), reference=reference_distribution(policy, batch, reference=True))
    twin = both_ways(plain_log_probs(model, tries), plain_log_probs(tiny(), tries).detach())[0]
    assert relative(values.kl, twin) < 1e-11
    weight = weights_like(batch, torch.float64)
    grads = [gradients(model, (weight * x).sum()) for x in (values.kl, twin)]
    assert relative(*grads) < 1e-11
    assert policy(batch).logp.requires_grad  # the adapters are on again


def test_in_bfloat16_autocast_the_divergence_is_near_that_of_float32_and_zero_to_itself() -> None:
    policy, reference = Policy(tiny(dtype=torch.float32)), Policy(moved(tiny(dtype=torch.float32), by=0.3))
    batch = pack(some_tries())
    exact = policy(batch, want=("kl",), reference=reference_distribution(reference, batch)).kl
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = policy(batch, want=("kl",), reference=reference_distribution(reference, batch)).kl
        itself = policy(batch, want=("kl",), reference=reference_distribution(policy, batch)).kl
    near.sum().backward()
    assert near.dtype == torch.float32
    assert relative(near, exact) < 2**-5  # a mantissa of 8 bits, two models of two layers
    assert itself.tolist() == [0.0] * len(batch.scored)
    assert all(torch.isfinite(p.grad).all() for p in policy.model.parameters())


def test_a_divergence_without_a_reference_or_with_one_of_another_batch_is_an_error() -> None:
    policy = Policy(tiny())
    batch, short = pack(some_tries()), pack(some_tries()[:1])
    with pytest.raises(ConfigError, match=r"kl, reverse_kl: .* give reference_distribution"):
        policy(batch, want=("kl", "reverse_kl"))
    with pytest.raises(ShapeError, match="speaks of 19 scored tokens and the batch has 36; make it from the same"):
        policy(batch, want=("kl",), reference=reference_distribution(policy, short))


def test_a_reference_with_another_vocabulary_is_an_error() -> None:
    policy, reference = Policy(tiny()), Policy(tiny(vocab_size=64))
    batch = pack(some_tries())
    with pytest.raises(ConfigError, match="policy's head has 61 tokens and the reference's 64"):
        policy(batch, want=("kl",), reference=reference_distribution(reference, batch))
