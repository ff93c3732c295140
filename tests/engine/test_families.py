"""Tries give what each item alone gives, for every family of models: values and gradients."""

import pytest
import torch
from engine_twins import (
    FAMILIES,
    FLOAT32_INSIDE,
    ROWS_FAMILIES,
    gradients,
    plain_values,
    relative,
    some_tries,
    tiny,
    weights_like,
)

from unipref.core.tries import pack
from unipref.engine import Policy


@pytest.mark.parametrize("family", FAMILIES)
def test_tries_equal_rows_of_one_to_twelve_digits_in_float64_values_and_gradients(family: str) -> None:
    kind, options = FAMILIES[family]
    model = tiny(kind, **options)
    policy = Policy(model)
    assert policy.path == "tries", policy.path_reason
    tries = some_tries()
    batch = pack(tries)
    a, b = weights_like(batch, torch.float64), weights_like(batch, torch.float64, seed=2)

    values = policy(batch, want=("logp", "entropy"))
    ours = gradients(model, (a * values.logp).sum() + (b * values.entropy).sum())
    logp, entropy = plain_values(model, tries)
    twin = gradients(model, (a * logp).sum() + (b * entropy).sum())

    assert relative(values.logp, logp) < 1e-12
    assert relative(values.entropy, entropy) < 1e-12
    assert relative(ours, twin) < 1e-12


# Gradients pass through the part that is float32 and are rounded there in another order: measured up to 5e-8 with
# cohere's rotation, 1e-9 with the experts' routing weights. The values, rounded alike, agree to the last digits.
@pytest.mark.parametrize("path", ["tries", "rows"])
@pytest.mark.parametrize("family", FLOAT32_INSIDE)
def test_both_paths_are_exact_in_values_where_a_model_computes_parts_in_float32_and_as_exact_as_those_in_gradients(
    family: str, path: str
) -> None:
    kind, options = FLOAT32_INSIDE[family]
    model = tiny(kind, **options)
    policy = Policy(model, path=path)
    tries = some_tries()
    batch = pack(tries)
    weight = weights_like(batch, torch.float64)
    values = policy(batch)
    ours = gradients(model, (weight * values.logp).sum())
    logp, _ = plain_values(model, tries)
    assert relative(values.logp, logp) < 1e-12
    assert relative(ours, gradients(model, (weight * logp).sum())) < 2e-7


@pytest.mark.parametrize("family", ["llama", "gemma3 with windows of 6", "gpt2", "phi3"])
def test_padded_rows_equal_rows_of_one_to_twelve_digits_in_float64(family: str) -> None:
    kind, options = FAMILIES[family]
    model = tiny(kind, **options)
    tries = some_tries()
    batch = pack(tries)
    weight = weights_like(batch, torch.float64)
    values = Policy(model, path="rows")(batch)
    ours = gradients(model, (weight * values.logp).sum())
    logp, _ = plain_values(model, tries)
    assert relative(values.logp, logp) < 1e-12
    assert relative(ours, gradients(model, (weight * logp).sum())) < 1e-12


@pytest.mark.parametrize("family", ROWS_FAMILIES)
def test_a_model_that_tries_do_not_fit_takes_the_rows_path_and_says_why(family: str) -> None:
    kind, options, reason = ROWS_FAMILIES[family]
    model = tiny(kind, **options)
    before = model.config._attn_implementation
    policy = Policy(model)
    assert policy.path == "rows"
    assert reason in policy.path_reason
    assert model.config._attn_implementation == before
    tries = some_tries()
    logp, _ = plain_values(model, tries)
    # These models compute parts in float32 whatever their weights are.
    assert relative(policy(pack(tries)).logp, logp) < 1e-6


# Rounding of the model's own arithmetic, which shared and separate prefixes order differently: measured below a third
# of these on every family.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3 with windows of 6", "gpt_neox"])
def test_tries_equal_rows_of_one_within_rounding_in_lower_precisions(
    family: str, dtype: torch.dtype, tolerance: float
) -> None:
    kind, options = FAMILIES[family]
    model = tiny(kind, dtype, **options)
    policy = Policy(model)
    assert policy.path == "tries", policy.path_reason
    tries = some_tries()
    batch = pack(tries)
    weight = weights_like(batch, torch.float32)
    values = policy(batch)
    assert values.logp.dtype == torch.float32
    ours = gradients(model, (weight * values.logp).sum()).float()
    logp, _ = plain_values(model, tries)
    twin = gradients(model, (weight * logp).sum()).float()
    assert relative(values.logp, logp) < tolerance
    assert relative(ours, twin) < 4 * tolerance


@pytest.mark.parametrize("path", ["tries", "rows"])
def test_log_probabilities_are_float32_under_bfloat16_autocast_and_near_the_float32_ones(path: str) -> None:
    model = tiny("llama", torch.float32)
    policy = Policy(model, path=path)
    tries = some_tries()
    batch = pack(tries)
    weight = weights_like(batch, torch.float32)
    exact = policy(batch)
    twin = gradients(model, (weight * exact.logp).sum())
    with torch.autocast("cpu", torch.bfloat16):
        values = policy(batch, want=("logp", "entropy"))
    assert values.logp.dtype == torch.float32
    assert values.entropy.dtype == torch.float32
    assert relative(values.logp, exact.logp) < 1e-2
    assert relative(gradients(model, (weight * values.logp).sum()), twin) < 5e-2
