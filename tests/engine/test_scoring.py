"""Scoring many tries: the order that was given, whatever the batches; nothing of the policy is changed."""

import numpy as np
import pytest
import torch
from engine_twins import plain_values, some_tries, tiny
from peft import LoraConfig, get_peft_model

from unipref.core.errors import ConfigError
from unipref.core.tries import Trie
from unipref.engine import Policy, score


def many_tries() -> list[Trie]:
    """Twelve tries of very different sizes."""
    return [trie for seed, longest in enumerate((40, 20, 60)) for trie in some_tries(seed, longest)]


def test_scores_come_in_the_order_of_the_tries_and_items_and_equal_rows_of_one() -> None:
    model = tiny()
    tries = many_tries()
    found = score(Policy(model), tries, max_tokens=90)
    assert [[len(values) for values in row] for row in found] == [[len(s) for s in t.scored] for t in tries]
    assert all(values.dtype == np.float32 for row in found for values in row)
    with torch.no_grad():
        truth = plain_values(model, tries)[0].numpy()
    flat = np.concatenate([values for row in found for values in row])
    np.testing.assert_allclose(flat, truth, rtol=1e-6)


@pytest.mark.parametrize("max_tokens", [1, 64, 10_000])
@pytest.mark.parametrize("path", ["tries", "rows"])
def test_batches_change_nothing_beyond_the_last_digits(max_tokens: int, path: str) -> None:
    policy = Policy(tiny(), path=path)
    tries = many_tries()
    found = score(policy, tries, max_tokens=max_tokens)
    shuffled = score(policy, tries[::-1], max_tokens=200)[::-1]
    for row, other in zip(found, shuffled, strict=True):
        for values, expected in zip(row, other, strict=True):
            np.testing.assert_allclose(values, expected, rtol=3e-7)  # a digit of float32


def test_no_trie_is_no_score() -> None:
    assert score(Policy(tiny()), []) == []


def test_a_budget_below_one_token_is_an_error() -> None:
    with pytest.raises(ConfigError, match="max_tokens must be at least 1: 0"):
        score(Policy(tiny()), some_tries(), max_tokens=0)


def test_the_reference_is_scored_with_adapters_off_and_the_policy_with_them_on() -> None:
    base = score(Policy(tiny()), some_tries())
    model = get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    policy = Policy(model)
    reference = score(policy, some_tries(), reference=True)
    adapted = score(policy, some_tries())
    for row, other, third in zip(reference, base, adapted, strict=True):
        for values, expected, different in zip(row, other, third, strict=True):
            np.testing.assert_array_equal(values, expected)
            assert np.abs(values - different).max() > 1e-3


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_mode_of_the_policy_as_it_was_and_makes_no_gradient(training: bool) -> None:
    policy = Policy(tiny()).train(training)
    score(policy, some_tries())
    assert policy.training is training
    assert all(p.grad is None for p in policy.parameters())
    assert torch.is_grad_enabled()
