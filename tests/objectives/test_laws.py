"""Facts that every method of the catalogue shares; a method breaks one only with its card's word for it.

L1 to L10 are the laws of an algebra of preference objectives, G1 to G7 those that every pairwise method inherits.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from worlds import (
    batch_for,
    catalogue,
    gradients,
    items_of,
    pair_batch,
    pair_fields,
    subset,
    with_items,
    with_tokens,
    with_weights,
)

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError
from unipref.objectives import (
    advantage,
    ampo,
    as_objective,
    bmc,
    column,
    dpo,
    dpo_2d,
    exp_advantage,
    hinge,
    infonca,
    ipo,
    lipo,
    log_ratio,
    logistic,
    logp,
    margin,
    mrpo,
    nll,
    pairwise,
    pl_dpo,
    rankdpo,
    rpo,
    sequence,
    simpo,
    slic,
    square,
    swepo,
    upo,
)

ALL = [pytest.param(objective, card, id=name) for name, objective, card in catalogue()]
DEFAULTS = [pytest.param(objective, card, id=name) for name, objective, card in catalogue() if name == card.key]


def close(left, right, tolerance=1e-12):
    return torch.allclose(left, right, rtol=tolerance, atol=tolerance)


def check(law, card, holds):
    """A law holds, or the card says why not; and a card that excepts itself does break the law."""
    assert holds == (law not in card.exceptions), card.exceptions.get(law, f"{card.key} breaks {law}")


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_L1_losses_are_linear_in_coefficients_and_coefficient_zero_takes_a_term_away(objective, card):
    batch = batch_for(objective, 1)
    alone, (slope,) = gradients(objective, batch)
    anchor, (pull,) = gradients(as_objective(nll()), batch)
    both, (total,) = gradients(2.0 * objective + 0.25 * nll(), batch)
    assert close(both, 2 * alone + 0.25 * anchor)
    assert close(total, 2 * slope + 0.25 * pull)
    missing = 0.0 * pairwise(score=log_ratio(references={"ref_logp.absent": 1.0}))
    without, (same,) = gradients(objective + missing, batch, denominators={**objective.denominators(batch)})
    assert close(without, alone)
    assert close(same, slope)


@pytest.mark.parametrize(("objective", "card"), DEFAULTS)
def test_L2_adding_a_function_of_the_prompt_to_both_scores_changes_nothing(objective, card):
    batch = batch_for(objective, 2)
    shift = torch.tensor([0.3, -0.2, 1.1, 0.4, -0.7], dtype=torch.float64)
    scores = [t.score for t in objective.terms if t.role == "preference" and isinstance(t.score, sequence)]
    eta = scores[0].eta if scores else 0.0  # the shift is made in the score's own units: nats, or nats per token
    moved = with_items(batch, logp=batch.item("logp") - shift[batch.item("group")].abs() * batch.item("len") ** eta)
    check("L2", card, close(objective.loss(moved).total, objective.loss(batch).total))


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_L3_swapping_a_pair_and_its_target_changes_nothing(objective, card):
    p = torch.tensor([1.0, 0.5, 0.8, 0.0, 0.3], dtype=torch.float64)
    batch = batch_for(objective, 3, preference=p)
    pairs = {"chosen": batch.pairs["rejected"], "rejected": batch.pairs["chosen"], "preference": 1 - p}
    swapped = replace(batch, pairs={**batch.pairs, **pairs})
    (there, (slope,)), (back, (again,)) = gradients(objective, batch), gradients(objective, swapped)
    check("L3", card, close(there, back) and close(slope, again))


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_L4_a_hard_label_is_the_limit_of_a_soft_one(objective, card):
    hard = objective.loss(batch_for(objective, 4)).total
    certain, nearly = (
        objective.loss(batch_for(objective, 4, preference=torch.full((5,), p, dtype=torch.float64))).total
        for p in (1.0, 1 - 1e-9)
    )
    assert close(certain, hard)
    assert abs(nearly - hard) < 1e-6


def test_L5_a_constant_margin_is_a_reference_with_a_constant_log_ratio():
    fields = pair_fields(5)
    shifted = {**fields, "ref_logp_chosen": fields["ref_logp_chosen"] + 0.7 / 0.1}
    for link in (logistic(), hinge(at=1.0), square(at=0.5)):
        with_margin = pairwise(score=log_ratio(0.1), offset=(margin(0.7),), link=link)
        assert close(with_margin(**fields), pairwise(score=log_ratio(0.1), link=link)(**shifted))


def test_L6_several_references_are_one_geometric_mixture():
    fields = pair_fields(6)
    other = pair_fields(60)
    sides = ("chosen", "rejected")
    two = {f"ref_logp.other_{s}": other[f"ref_logp_{s}"] for s in sides}
    one = {f"ref_logp_{s}": 0.3 * fields[f"ref_logp_{s}"] + 0.7 * other[f"ref_logp_{s}"] for s in sides}
    mixed = as_objective(dpo()).with_references({"ref_logp": 0.3, "ref_logp.other": 0.7})
    assert close(mixed(**fields, **two), dpo()(**fields | one))
    assert mixed.needs == {"ref_logp", "ref_logp.other"}
    assert upo(base="kto").with_references({"ref_logp.other": 1.0}).statistics[0].score == log_ratio(
        references={"ref_logp.other": 1.0}
    )


@pytest.mark.parametrize("objective", [bmc(), dpo_2d(), mrpo()], ids=["tokens", "segments", "mixture"])
def test_references_are_refused_where_a_part_reads_one_otherwise_than_in_a_log_ratio(objective):
    with pytest.raises(ConfigError, match="by itself, not in a log-ratio"):
        as_objective(objective).with_references({"ref_logp.other": 1.0})


def test_L7_moving_the_value_by_k_is_a_coefficient_of_e_to_minus_lambda_k():
    batch = pair_batch(7)
    lam, k = 2.0, 0.4
    moved = with_items(batch, value=batch.item("value") + k)
    by_value = upo(base="dpo", lam=lam, value_coefficient=0.0)
    by_coefficient = upo(base="dpo", lam=lam, gamma=0.5 * math.exp(-lam * k), value_coefficient=0.0)
    assert close(by_value.loss(moved).total, by_coefficient.loss(batch).total)
    both = with_items(batch, value=batch.item("value") + k, reward=batch.item("reward") + k)
    assert close(upo(base="dpo").loss(both).total, upo(base="dpo").loss(batch).total)


def distances(unit):
    return [rpo(beta=0.3, eta=2.0, distance=distance, unit=unit) for distance in ("bwd", "fwd", "sq")]


@pytest.mark.parametrize(
    ("of_two", "of_a_pair"),
    [
        (infonca(beta=0.3, target="labels"), dpo(beta=0.3)),
        (pl_dpo(beta=0.3), dpo(beta=0.3)),
        (pl_dpo(beta=0.3, top=1), dpo(beta=0.3)),
        (lipo(beta=0.3, loss="pair_logistic"), dpo(beta=0.3)),
        (lipo(beta=0.3, loss="list_mle"), dpo(beta=0.3)),
        (rankdpo(beta=0.3, discount=False), dpo(beta=0.3)),
        (swepo(beta=0.3, alpha=0.0), dpo(beta=0.3)),
        (ampo(beta=2.0, alpha=0.0), simpo(beta=2.0, gamma=0.0)),
        *zip(distances("group"), distances("pair"), strict=True),
    ],
)
def test_L8_a_group_of_two_is_a_pair(of_two, of_a_pair):
    reward = torch.linspace(0, 1, 5, dtype=torch.float64)
    batch = batch_for(of_two + of_a_pair, 8, reward_chosen=reward + 0.3, reward_rejected=reward)
    (there, (slope,)), (here, (pull,)) = (gradients(as_objective(x), batch) for x in (of_two, of_a_pair))
    assert close(there, here)
    assert close(slope, pull)


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_L9_weights_and_data_carry_no_gradient_and_the_value_head_only_that_of_its_own_term(objective, card):
    batch = batch_for(objective, 9)
    data = [name for name in ("ref_logp", "reward", "weight") if name in batch.items]
    _, found = gradients(objective, batch, (*data, "value"))
    assert all(not slope.any() for slope in found[:-1])
    own = [0.0 * as_objective(nll())] + [term for term in objective.terms if term.role == "state"]
    _, (expected,) = gradients(as_objective(sum(own[1:], own[0])), batch, ("value",))
    check("L9", card, close(found[-1], expected))
    states = [as_objective(term) for term in objective.terms if term.role == "state"]
    assert all(not gradients(state, batch)[1][0].any() for state in states)


# exceptions of G1 hold for the default options
@pytest.mark.parametrize(("objective", "card"), DEFAULTS)
def test_G1_the_loss_at_the_reference_is_log_2(objective, card):
    fields = pair_fields(11)
    same = {f"ref_logp_{side}": fields[f"logp_{side}"] for side in ("chosen", "rejected")}
    batch = batch_for(objective, 11, **same)
    nothing = {name: torch.zeros_like(value) for name, value in batch.tokens.items() if name in ("kl", "reverse_kl")}
    value = objective.loss(replace(batch, tokens={**batch.tokens, **nothing})).total.item()
    check("G1", card, value == pytest.approx(math.log(2), abs=1e-12))


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_G3_rows_of_weight_zero_change_nothing(objective, card):
    zero = torch.tensor([1.0, 2.0, 0.5, 0.0, 1.0, 0.0], dtype=torch.float64)
    masked = with_weights(batch_for(objective, 12, n=6), zero)
    (there, (slope,)), (here, (kept,)) = (
        gradients(objective, masked),
        gradients(objective, subset(masked, [0, 1, 2, 4])),
    )
    assert close(there, here)
    assert close(slope[items_of(masked, [0, 1, 2, 4])], kept)
    assert not slope[items_of(masked, [3, 5])].any()


@pytest.mark.parametrize(("objective", "card"), DEFAULTS)
def test_G4_adding_a_constant_to_both_log_probabilities_changes_nothing(objective, card):
    batch = batch_for(objective, 13)
    moved = with_items(batch, logp=batch.item("logp") - 1.5)
    check("G4", card, close(objective.loss(moved).total, objective.loss(batch).total))


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_G5_micro_batches_add_up_to_the_step_with_its_denominators(objective, card):
    batch = batch_for(objective, 14)
    whole, (slope,) = gradients(objective, batch)
    denominators = objective.denominators(batch)
    parts = [[0], [1, 2, 3], [4]]
    found = [gradients(objective, subset(batch, pairs), denominators=denominators) for pairs in parts]
    same = close(sum(total for total, _ in found), whole) and all(
        close(part, slope[items_of(batch, pairs)]) for pairs, (_, (part,)) in zip(parts, found, strict=True)
    )
    if objective.coupling == "full":  # the trainer gives such a loss the whole step; a card says so under G5
        assert "G5" in card.exceptions
    else:
        assert same


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_a_rows_loss_ignores_the_other_rows(objective, card):
    batch = batch_for(objective, 15)
    alone = subset(batch, [2])
    same = []
    for term in objective.terms:
        values = term.values(batch)
        rows = [2] if len(values) == 5 else items_of(batch, [2])
        same.append(close(values[rows], term.values(alone)))
    assert all(same) == (objective.coupling != "full")


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_W1_weight_2_equals_the_row_twice(objective, card):
    batch = batch_for(objective, 16)
    heavy = with_weights(batch, torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0], dtype=torch.float64))
    plain = with_weights(batch, torch.ones(5, dtype=torch.float64))
    twice = subset(plain, [0, 1, 1, 2, 3, 4, 4])
    (there, (slope,)), (here, (parts,)) = gradients(objective, heavy), gradients(objective, twice)
    check("W1", card, close(there, here) and close(slope[1], parts[1] + parts[2]))


def test_weight_2_equals_the_row_twice_in_the_kl_baseline_too():
    (statistic,) = as_objective(upo(base="kto")).statistics
    logp, ref = torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([-2.0, -2.5, -3.0])
    heavy = Batch({"logp": logp, "ref_logp": ref, "weight": torch.tensor([1.0, 2.0, 1.0])})
    rows = torch.tensor([0, 1, 1, 2])
    twice = Batch({"logp": logp[rows], "ref_logp": ref[rows]})
    assert (
        [x.item() for x in statistic.sums(heavy)] == [x.item() for x in statistic.sums(twice)] == [1 + 2 * 0.5 - 1, 4]
    )
    assert statistic.value(*statistic.sums(heavy)).item() == 0.25


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize(("objective", "card"), ALL)
def test_G6_loss_and_gradient_stay_finite_at_extreme_log_probabilities(objective, card, scale):
    low = torch.tensor([-1e4, -1e4, -1e-6, 0.0, -1.0]) * scale
    high = torch.tensor([-1e-6, 0.0, -1e4, 0.0, -1.0]) * scale
    for chosen, rejected in ((low, high), (high, low)):
        batch = batch_for(objective, 17, dtype=torch.float32, logp_chosen=chosen, logp_rejected=rejected)
        total, (slope,) = gradients(objective, batch)
        assert total.isfinite()
        assert slope.isfinite().all()


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_G6_half_precision_columns_are_computed_in_float32(objective, card):
    def cast(batch, change):
        parts = (batch.items, batch.pairs, batch.tokens, batch.statistics)
        return Batch(
            *({k: change(v) if v.is_floating_point() else v for k, v in part.items()} for part in parts), batch.clock
        )

    half = cast(batch_for(objective, 18), Tensor.bfloat16)
    loss = objective.loss(half).total
    assert loss.dtype == torch.float32
    assert loss == objective.loss(cast(half, Tensor.float)).total


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_G7_no_gradient_reaches_a_live_reference(objective, card):
    batch = batch_for(objective, 19)
    reference = batch.item("ref_logp").clone().requires_grad_()
    logp = batch.item("logp").clone().requires_grad_()
    heads = {name: batch.items[name].clone().requires_grad_() for name in objective.heads if name in batch.items}
    objective.loss(with_items(batch, ref_logp=reference, logp=logp, **heads)).total.backward()
    assert reference.grad is None
    assert any(leaf.grad is not None for leaf in (logp, *heads.values()))


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_an_empty_batch_and_an_empty_response_have_loss_and_gradient_without_nan(objective, card):
    none = subset(batch_for(objective, 20), [])
    total, (slope,) = gradients(objective, none)
    assert total == 0
    assert slope.shape == (0,)
    texts = ("chosen", "rejected", *objective.roles)
    zero = {f"{name}_{text}": torch.zeros(5) for name in ("logp", "len", "ref_logp") for text in texts}
    total, (slope,) = gradients(objective, batch_for(objective, 20, dtype=torch.float32, **zero))
    assert total.isfinite()
    assert slope.isfinite().all()


@pytest.mark.parametrize("n_tokens", [1, 7])
@pytest.mark.parametrize(("objective", "card"), ALL)
def test_sides_that_are_alike_in_everything_have_a_finite_loss_and_gradient(objective, card, n_tokens):
    batch = batch_for(objective, 23)
    chosen = batch.pairs["chosen"]
    alike = {
        name: value.clone() for name, value in batch.items.items() if name not in ("label", "group", "role", "uid")
    }
    for value in alike.values():
        value[batch.pairs["rejected"]] = value[chosen]
    alike["len"] = torch.full_like(batch.item("len"), n_tokens)
    statistics = {name: torch.zeros_like(value) for name, value in batch.statistics.items()}  # deviations of 0 too
    batch = Batch({**batch.items, **alike}, batch.pairs, {}, statistics, batch.clock)
    if objective.token_needs:
        batch = with_tokens(batch, objective.token_needs, 23)
    total, (slope,) = gradients(objective, batch)
    assert total.isfinite()
    assert slope.isfinite().all()


@pytest.mark.parametrize(("objective", "card"), ALL)
def test_denominators_come_from_data_alone(objective, card):
    here, there = batch_for(objective, 21), batch_for(objective, 21)
    there = with_items(there, logp=there.item("logp") * 2, value=there.item("value") + 1)
    assert {k: v.item() for k, v in objective.denominators(here).items()} == {
        k: v.item() for k, v in objective.denominators(there).items()
    }
    assert all(v.dtype == torch.float64 and v.ndim == 0 for v in objective.denominators(here).values())


def test_loss_terms_add_up_to_the_total_and_a_closed_gate_shows_zero():
    objective = upo(base="cpo", warmup=0.5)
    for clock in (Clock(0, 10), Clock(5, 10)):
        loss = objective.loss(pair_batch(22, clock=clock))
        assert close(sum(loss.terms.values()), loss.total.detach())
        assert (loss.terms["advantage"] == 0) == (clock.step == 0)


def test_equality_is_equality_of_meaning():
    assert pairwise(score=logp(eta=1)) == pairwise(score=nll().score)
    assert dpo(beta=1) == dpo(beta=1.0) == pairwise("dpo", score=log_ratio(references={"ref_logp": 1}))
    assert ipo() != ipo(norm="mean")
    assert slic() == pairwise("slic", score=logp(), link=hinge()) + 0.1 * nll(score=logp())
    assert exp_advantage(1.0) == exp_advantage(1.0, advantage(column("reward")))
