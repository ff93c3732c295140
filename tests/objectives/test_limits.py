"""The special cases that cards name: with those options a method is another one, in loss and in every gradient."""

from dataclasses import replace

import pytest
import torch
from worlds import batch_for

from unipref.core.cards import get_method, list_methods
from unipref.objectives import as_objective, cdpo, dpo, pairwise, token_score
from unipref.objectives.terms import COMPUTED, HEADS

CASES = [
    pytest.param(card, limit, id=f"{card.key}{dict(limit.options)}-is-{limit.method}")
    for card in list_methods("objective")
    for limit in card.limits
]


def held(batch, where):
    """The batch with the columns of `where` (of responses, pairs or tokens) at one number each."""
    unknown = set(where) - {*batch.items, *batch.pairs, *batch.tokens}
    assert not unknown, f"no such columns: {unknown}"

    def at(table):
        return {name: torch.full_like(v, where[name]) if name in where else v for name, v in table.items()}

    return replace(batch, items=at(batch.items), pairs=at(batch.pairs), tokens=at(batch.tokens))


def loss_and_gradients(objective, batch):
    """The loss, and its gradient in every column that can carry one: 0 where none arrives.

    Where the batch has tokens, the responses' log-probabilities are their sums, so that a loss of sums and a loss of
    tokens have their gradients in the same place.
    """
    leaves = {("items", name): v for name, v in batch.items.items() if name in ("logp", *HEADS)}
    leaves |= {("tokens", name): v for name, v in batch.tokens.items() if name in ("logp", *HEADS, *COMPUTED)}
    if batch.tokens:
        del leaves["items", "logp"]
    leaves = {place: value.detach().clone().requires_grad_() for place, value in leaves.items()}
    tables = {
        table: {**getattr(batch, table), **{name: leaf for (of, name), leaf in leaves.items() if of == table}}
        for table in ("items", "tokens")
    }
    if batch.tokens:
        logp, item = leaves["tokens", "logp"], batch.tokens["item"]
        tables["items"]["logp"] = torch.zeros_like(batch.item("logp")).index_add(0, item, logp)
    total = objective.loss(replace(batch, **tables)).total
    if not total.requires_grad:
        return total, {place: torch.zeros_like(leaf) for place, leaf in leaves.items()}
    slopes = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    found = zip(leaves.items(), slopes, strict=True)
    return total.detach(), {place: torch.zeros_like(leaf) if g is None else g for (place, leaf), g in found}


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
        batch = held(batch_for(ours + theirs, seed), limit.where)
        found, expected = (loss_and_gradients(objective, batch) for objective in (ours, theirs))
        assert any(slope.any() for slope in found[1].values()), "nothing to compare: no gradient anywhere"
        assert same(found, expected, limit.tolerance, limit.factor, limit.constant)


def test_the_comparison_sees_a_factor_a_constant_and_a_gradient_that_differs():
    batch = batch_for(as_objective(dpo()), 53)
    plain, double = (loss_and_gradients(as_objective(c * dpo()), batch) for c in (1.0, 2.0))
    assert same(double, plain, 1e-12, factor=2.0)
    assert not same(double, plain, 1e-12)
    lifted = (plain[0] + 3.0, plain[1])
    assert same(lifted, plain, 1e-12, constant=3.0)
    assert not same((plain[0], double[1]), plain, 1e-12)
    assert not same(loss_and_gradients(as_objective(cdpo(flip=0.01)), batch), plain, 1e-12)


def test_a_loss_of_tokens_and_the_same_loss_of_sums_have_one_gradient():
    tokens = as_objective(pairwise(score=token_score(0.1)))
    batch = batch_for(tokens, 54)
    sums, found = (loss_and_gradients(objective, batch) for objective in (as_objective(dpo()), tokens))
    assert found[1]["tokens", "logp"].any()
    assert same(found, sums, 1e-12)
