"""The special cases that cards name: with those options a method is another one, in loss and in every gradient."""

from dataclasses import replace

import pytest
import torch
from worlds import pair_batch

from unipref.core.cards import get_method, list_methods
from unipref.objectives import as_objective, cdpo, dpo

CASES = [
    pytest.param(card, limit, id=f"{card.key}{dict(limit.options)}-is-{limit.method}")
    for card in list_methods("objective")
    for limit in card.limits
]


def held(batch, where):
    """The batch with the columns of `where` (of responses or of pairs) at one number each."""
    unknown = set(where) - set(batch.items) - set(batch.pairs)
    assert not unknown, f"no such columns: {unknown}"
    tables = (
        {k: torch.full_like(v, where[k]) if k in where else v for k, v in t.items()} for t in (batch.items, batch.pairs)
    )
    items, pairs = tables
    return replace(batch, items=items, pairs=pairs)


def loss_and_gradients(objective, batch):
    """The loss, and its gradient in every column that can carry one: 0 where none arrives."""
    leaves = {("items", name): batch.items[name] for name in ("logp", "value") if name in batch.items}
    leaves |= {("tokens", name): batch.tokens[name] for name in ("logp", "mask") if name in batch.tokens}
    leaves = {k: v.detach().clone().requires_grad_() for k, v in leaves.items() if v.is_floating_point()}
    tables = {
        table: {**getattr(batch, table), **{name: leaf for (of, name), leaf in leaves.items() if of == table}}
        for table in ("items", "tokens")
    }
    total = objective.loss(replace(batch, **tables)).total
    if not total.requires_grad:
        return total, {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    found = zip(leaves.items(), slopes, strict=True)
    return total.detach(), {name: torch.zeros_like(leaf) if g is None else g for (name, leaf), g in found}


def same(ours, theirs, tolerance, factor=1.0, constant=0.0):
    """Our loss is factor * theirs + constant, gradients alike."""
    (loss, slopes), (other, others) = ours, theirs
    pairs = [(loss, factor * other + constant), *((slopes[name], factor * others[name]) for name in slopes)]
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in pairs)


@pytest.mark.parametrize(("card", "limit"), CASES)
def test_a_special_case_is_the_method_that_the_card_names(card, limit):
    ours = as_objective(card.build(**limit.options))
    theirs = as_objective(get_method(limit.method).build(**limit.method_options))
    for seed in (50, 51):
        batch = held(pair_batch(seed), limit.where)
        found, expected = (loss_and_gradients(objective, batch) for objective in (ours, theirs))
        assert any(slope.any() for slope in found[1].values()), "nothing to compare: no gradient anywhere"
        assert same(found, expected, limit.tolerance, limit.factor, limit.constant)


def test_the_comparison_sees_a_factor_a_constant_and_a_gradient_that_differs():
    batch = pair_batch(53)
    plain, double = (loss_and_gradients(as_objective(c * dpo()), batch) for c in (1.0, 2.0))
    assert same(double, plain, 1e-12, factor=2.0)
    assert not same(double, plain, 1e-12)
    lifted = (plain[0] + 3.0, plain[1])
    assert same(lifted, plain, 1e-12, constant=3.0)
    assert not same((plain[0], double[1]), plain, 1e-12)
    assert not same(loss_and_gradients(as_objective(cdpo(flip=0.01)), batch), plain, 1e-12)
