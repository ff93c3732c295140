"""L10 and G2: the gradient of each loss in each log-probability and each head is the closed form, in float64.

A method of the catalogue *is* these coefficients, so a new method must bring its own.
"""

import math
from dataclasses import replace

import deltas_pairs
import deltas_structured
import pytest
import torch
from worlds import batch_for

from unipref.core.batch import Batch, Clock
from unipref.core.cards import list_methods
from unipref.objectives import as_objective, bapo, expectile, knowpat, log_odds, logistic, spac, tempered
from unipref.objectives.terms import COMPUTED, HEADS

MID = Clock(step=6, total=8)  # where a schedule from a to b has come to a / 4 + 3 b / 4, and gates are open
CARDS = list_methods("objective")
DELTAS = {**deltas_pairs.DELTAS, **deltas_structured.DELTAS}
VARIANTS = {**deltas_pairs.VARIANTS, **deltas_structured.VARIANTS}
CASES = {card.key: (card.build(), DELTAS[card.key]) for card in CARDS if card.key in DELTAS} | VARIANTS
# log-probabilities near each other, so that both sides of SLiC's corner occur, and others far from each other
NEAR = {"logp_chosen": -torch.arange(2, 9).double() / 2, "logp_rejected": -torch.arange(9, 2, -1).double() / 2}
WORLDS = {"near": (30, NEAR), "far": (31, {}), "further": (32, {})}


def world(objective, name):
    seed, changes = WORLDS[name]
    return batch_for(objective, seed, n=7, weight=torch.ones(7, dtype=torch.float64), clock=MID, **changes)


def slopes(objective, batch):
    """Gradients by column: log-probabilities and heads of responses, or of tokens where the objective reads tokens."""
    tokens = {"logp", *HEADS, *COMPUTED} & set(batch.tokens) if objective.token_needs else set()
    items = {"logp", *objective.heads} & set(batch.items) - tokens
    leaves = {name: batch.tokens[name].detach().clone().requires_grad_() for name in sorted(tokens)}
    leaves |= {name: batch.item(name).detach().clone().requires_grad_() for name in sorted(items)}
    columns = {name: leaves[name] for name in items}
    if tokens:
        columns["logp"] = torch.zeros_like(batch.item("logp")).index_add(0, batch.tokens["item"], leaves["logp"])
    held = replace(
        batch,
        items={**batch.items, **columns},
        tokens={**batch.tokens, **{name: leaves[name] for name in tokens}},
    )
    found = torch.autograd.grad(objective.loss(held).total, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), found, strict=True)
    return {name: torch.zeros_like(leaf) if slope is None else slope for (name, leaf), slope in pairs}


def expected(delta, sides, found):
    """What `delta` says, column by column in the form of `found`; 0 for columns that it does not name."""
    said = delta(sides)
    said = said if isinstance(said, dict) else {"logp": said}
    assert set(said) <= set(found), f"no gradient can be taken in {set(said) - set(found)}"
    whole = {}
    for name, slope in found.items():
        value = said.get(name, torch.zeros_like(slope))
        if not isinstance(value, torch.Tensor):
            value = torch.cat([part.to(slope.dtype) for part in value])
        if len(value) != len(slope):  # of responses, whose tokens then all have it
            value = value[sides.batch.tokens["item"]]
        whole[name] = value / sides.size
    return whole


def test_every_method_has_its_closed_form():
    keys = {card.key for card in CARDS}
    assert keys == set(DELTAS), f"without coefficients: {keys - set(DELTAS)}; of no method: {set(DELTAS) - keys}"
    assert not set(deltas_pairs.DELTAS) & set(deltas_structured.DELTAS)
    assert not set(deltas_pairs.VARIANTS) & set(deltas_structured.VARIANTS)


def test_the_worlds_lie_on_both_sides_of_the_references_and_rewards_of_every_text():
    objective = as_objective(bapo()) + spac(baseline=True)
    for name in WORLDS:
        sides = deltas_pairs.Sides(world(objective, name), objective)
        corners = [sides.h_w, sides.h_l, sides.l_w - sides.l_l - 1, sides.m_w - sides.m_l, sides.r_w - sides.r_l]
        corners += [sides.r_w - sides.v_w, sides.r_l - sides.v_l, sides.ratio("base")]
        assert all((corner < 0).any() and (corner > 0).any() for corner in corners)
        samples = torch.cat([sides.ratio("policy_sample"), sides.ratio("baseline_sample")]).abs()
        assert (samples < 3).any()
        assert (samples > 10).any()


@pytest.mark.parametrize("name", CASES)
def test_autograd_equals_the_closed_form_coefficient_of_every_log_probability(name):
    method, delta = CASES[name]
    objective = as_objective(method)
    moved = False
    for where in WORLDS:
        batch = world(objective, where)
        found = slopes(objective, batch)
        right = expected(delta, deltas_pairs.Sides(batch, objective), found)
        for column in found:
            assert torch.allclose(found[column], right[column], rtol=1e-11, atol=1e-14), (where, column)
            moved = moved or bool(found[column].any())
    assert moved, "nothing to compare: no gradient anywhere"


def test_a_wrong_coefficient_is_seen():
    method, delta = CASES["dpo"]
    batch = world(as_objective(method), "far")
    sides, found = deltas_pairs.Sides(batch, as_objective(method)), slopes(as_objective(method), batch)
    right = expected(delta, sides, found)["logp"]
    wrong = expected(lambda s: (delta(s)[0], 1.0001 * delta(s)[1]), sides, found)["logp"]
    assert torch.allclose(found["logp"], right, rtol=1e-11, atol=1e-14)
    assert not torch.allclose(found["logp"], wrong, rtol=1e-11, atol=1e-14)


def test_knowpat_of_three_answers_has_the_coefficients_of_the_authors_sum():
    s = torch.tensor([[-1.0, -0.4, -2.5], [-0.3, -2.0, -0.9]], dtype=torch.float64)  # best first
    length = torch.tensor([[2, 5, 3], [4, 1, 6]])
    rank = torch.tensor([1.0, 2.0, 3.0]).repeat(2)
    logp = (s * length).flatten().requires_grad_()
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    knowpat(lam=0.3)(logp=logp, len=length.flatten(), rank=rank, group=group).backward()
    w = (s - s.amin(1, keepdim=True)) / (s.amax(1, keepdim=True) - s.amin(1, keepdim=True))
    up, down = torch.sigmoid(-s), torch.sigmoid(s)
    ranking = torch.stack([-w[:, 0] * up[:, 0], -w[:, 1] * up[:, 1] + w[:, 0] * down[:, 1] / 2, 0 * s[:, 0]], 1)
    ranking[:, 2] = (w[:, 0] / 2 + w[:, 1]) * down[:, 2]
    best = torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64)
    assert torch.allclose(logp.grad, ((0.3 / 2 * ranking + best) / length / 2).flatten(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("z", [-40.0, -25.0, -15.0, 0.0, 15.0, 40.0])
def test_the_logistic_slope_has_all_digits_of_float64_far_below_the_reference_too(z):
    for link in (logistic(), tempered(low=1.0, high=1.0)):
        at = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        link(at).backward()
        assert at.grad.item() == pytest.approx(-1 / (1 + math.exp(z)), rel=1e-15, abs=0)


def test_the_expectile_weighs_in_the_precision_of_its_residual():
    residual = torch.tensor([-3.0, 3.0], dtype=torch.float64)
    assert expectile(0.9)(residual).tolist() == pytest.approx([0.9, 8.1], rel=1e-15, abs=0)


@pytest.mark.parametrize("mean", [-0.01, -1.0, -5.0])
def test_the_odds_gradient_exceeds_the_log_ratio_gradient_by_one_over_one_minus_p(mean):
    logp = torch.tensor([4 * mean], dtype=torch.float64, requires_grad=True)
    log_odds()(Batch({"logp": logp, "len": torch.tensor([4])})).sum().backward()
    assert logp.grad.item() == pytest.approx(1 / (4 * (1 - torch.exp(torch.tensor(mean, dtype=torch.float64)).item())))
