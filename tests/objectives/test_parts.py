"""Single parts: values by hand, slopes at corners, and what they refuse."""

import math

import pytest
import torch
from worlds import OPEN, gradients, pair_batch, pair_fields

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError
from unipref.objectives import (
    Term,
    as_objective,
    cpo,
    denoised,
    dpo,
    expectile,
    gate,
    hinge,
    ipo,
    kto,
    length_gap,
    linex,
    log1mexp,
    log_ratio,
    logistic,
    logp,
    margin,
    modpo,
    nll,
    orpo,
    pairwise,
    point,
    saturating,
    sft,
    simpo,
    smoothed,
    square,
)


def test_hinge_is_zero_at_its_corner_and_has_slope_minus_one_before_it():
    z = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    loss = hinge(at=1.0)(z)
    loss.sum().backward()
    assert loss.tolist() == [1.0, 0.0, 0.0]
    assert z.grad[0] == -1.0
    assert z.grad[2] == 0.0


def test_saturating_has_its_steepest_slope_at_zero_and_none_at_the_ends():
    z = torch.tensor([-100.0, 0.0, 100.0], requires_grad=True)
    saturating()(z).sum().backward()
    assert z.grad.tolist() == [pytest.approx(0), -0.25, pytest.approx(0)]


def test_logistic_and_square_by_hand():
    z = torch.tensor([2.0], dtype=torch.float64)
    assert logistic()(z).item() == pytest.approx(math.log1p(math.exp(-2)))
    assert square(at=5.0)(z).item() == 9.0


def test_expectile_weighs_the_two_sides_by_tau():
    residual = torch.tensor([2.0, -2.0])
    assert expectile(0.9)(residual).tolist() == pytest.approx([0.9 * 4, 0.1 * 4])


def test_linex_is_half_the_square_near_zero_and_its_tangent_far_out():
    lam = 2.0
    u = torch.tensor([1e-5, 0.5, -0.5, 11.0], dtype=torch.float64, requires_grad=True)
    loss = linex(lam)(u)
    by_hand = [(math.exp(lam * x) - lam * x - 1) / lam**2 for x in (0.5, -0.5)]
    assert loss[0].item() == pytest.approx(1e-10 / 2, rel=1e-4)
    assert loss[1:3].tolist() == pytest.approx(by_hand, rel=1e-12)
    tangent = (math.exp(20) - 20 - 1 + 2 * (math.exp(20) - 1)) / lam**2
    assert loss[3].item() == pytest.approx(tangent, rel=1e-12)
    (slope,) = torch.autograd.grad(loss[3], u)
    assert slope[3].item() == pytest.approx((math.exp(20) - 1) / lam, rel=1e-12)
    assert linex(1.0)(torch.tensor([1e4])).isfinite()


@pytest.mark.parametrize("x", [-1e-12, -1e-3, -0.5, -1.0, -50.0])
def test_log1mexp_keeps_its_digits_at_both_ends(x):
    exact = math.log(-math.expm1(x)) if x > -0.7 else math.log1p(-math.exp(x))
    assert log1mexp(torch.tensor(x, dtype=torch.float64)).item() == pytest.approx(exact, rel=1e-14)


def test_log1mexp_is_finite_with_finite_gradient_at_probability_one_and_far_below():
    x = torch.tensor([0.0, -1e-30, -1e4], requires_grad=True)
    value = log1mexp(x)
    value.sum().backward()
    assert value.isfinite().all()
    assert x.grad.isfinite().all()


def test_a_margin_holds_for_whichever_side_is_preferred():
    fields = {"logp_chosen": torch.tensor([-1.0]), "logp_rejected": torch.tensor([-1.0])}
    term = pairwise(score=logp(), offset=(margin(1.0),))
    losses = [term(**fields, preference=torch.tensor([p])).item() for p in (0.0, 0.5, 1.0)]
    assert losses == pytest.approx([math.log1p(math.e)] * 3)


def test_a_length_gap_counts_tokens_and_swaps_with_the_pair():
    fields = {f"logp_{side}": torch.tensor([-1.0]) for side in ("chosen", "rejected")}
    fields |= {"len_chosen": torch.tensor([12]), "len_rejected": torch.tensor([2])}
    term = pairwise(score=logp(), offset=(length_gap(-0.1),))
    assert term(**fields).item() == pytest.approx(math.log1p(math.e))
    assert term(**fields, preference=torch.tensor([0.0])).item() == pytest.approx(math.log1p(math.exp(-1)))


def test_a_tie_pulls_a_dpo_pair_together_and_the_anchor_to_both_sides():
    tie = {"preference": torch.full((5,), 0.5, dtype=torch.float64), "weight": torch.ones(5)}
    batch = pair_batch(1, **tie, logp_chosen=-torch.ones(5), logp_rejected=-9 * torch.ones(5),
                       ref_logp_chosen=-torch.ones(5), ref_logp_rejected=-torch.ones(5))  # fmt: skip
    _, (slope,) = gradients(as_objective(dpo()), batch)
    assert (slope[:5] > 0).all()
    assert (slope[5:] < 0).all()
    _, (pull,) = gradients(as_objective(nll(score=logp())), batch)
    assert torch.allclose(pull, torch.full((10,), -0.1))


@pytest.mark.parametrize(
    "method", [dpo(), ipo(), simpo(), modpo(), cpo(), orpo()], ids=lambda m: as_objective(m).terms[0].name
)
def test_a_soft_label_is_the_mean_of_both_orders(method):
    p = torch.tensor([0.9, 0.7, 0.5, 0.2, 0.0], dtype=torch.float64)
    objective = as_objective(method)
    batch = pair_batch(2)
    swapped = Batch(batch.items, {**batch.pairs, "chosen": batch.pairs["rejected"], "rejected": batch.pairs["chosen"]})
    soft = pair_batch(2, preference=p)
    for term in objective.terms:
        assert torch.allclose(term.values(soft), p * term.values(batch) + (1 - p) * term.values(swapped))


def test_smoothing_and_denoising_undo_each_other():
    batch = pair_batch(3, preference=torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    for term in (dpo(), simpo()):
        p = term.target(batch, term.unit)
        noisy = p * 0.7 + (1 - p) * 0.3
        assert torch.allclose(smoothed(0.3)(batch, term.unit), noisy)
        assert torch.allclose((noisy - 0.3) / 0.4, p)
    assert denoised(0.3)(pair_batch(3), term.unit) == pytest.approx(0.7 / 0.4)


@pytest.mark.parametrize("flip", [-0.1, 0.5, 0.9])
def test_a_flip_rate_of_one_half_or_more_is_refused(flip):
    for target in (smoothed, denoised):
        with pytest.raises(ConfigError, match=r"flip must be in \[0, 0.5\)"):
            target(flip)


def test_token_weighting_divides_by_the_tokens_of_the_whole_step():
    batch = Batch({"logp": torch.tensor([-6.0, -2.0]), "len": torch.tensor([3, 1])})
    objective = as_objective(sft(per="token"))
    assert objective.denominators(batch)["sft"] == 4
    assert objective.loss(batch).total == 2
    assert objective.loss(batch, {"sft": torch.tensor(16.0)}).total == 0.5


def test_sft_reads_thumbs_up_and_unjudged_responses_but_no_thumbs_down():
    batch = Batch(
        {"logp": torch.tensor([-1.0, -2.0, -4.0]), "label": torch.tensor([1.0, 0.0, math.nan]), "len": torch.ones(3)}
    )
    assert as_objective(sft()).loss(batch).total == (1 + 4) / 2


def test_kto_ignores_extreme_responses_and_both_labels_on_one_response_cancel():
    extreme = kto(beta=1.0)
    logp = torch.tensor([-1e4, 0.0], requires_grad=True)
    reference = torch.tensor([0.0, -1e4])
    zero = torch.tensor(0.0)
    extreme(logp=logp, ref_logp=reference, label=torch.tensor([1, 0]), kl_baseline=zero).backward()
    assert not logp.grad.any()
    both = torch.tensor([-3.0, -3.0], dtype=torch.float64, requires_grad=True)
    loss = kto()(logp=both, ref_logp=torch.tensor([-5.0, -5.0]), label=torch.tensor([1, 0]), kl_baseline=zero)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)  # lambda over two rows
    assert both.grad.sum().item() == pytest.approx(0)


def test_a_drift_of_every_response_moves_the_kl_baseline_with_it():
    objective = as_objective(kto())
    (statistic,) = objective.statistics
    label = torch.tensor([1, 0, 1])

    def loss(drift):
        h = torch.tensor([0.5, 1.0, 2.0]) + drift
        baseline = statistic.value(*statistic.sums(Batch({"logp": h.roll(1), "ref_logp": torch.zeros(3)})))
        return objective(logp=h, ref_logp=torch.zeros(3), label=label, kl_baseline=baseline).item()

    assert loss(3.0) == pytest.approx(loss(0.0))
    assert loss(-9.0) != pytest.approx(loss(0.0))  # z0 is held at 0 there


def test_the_kl_baseline_of_nothing_is_zero_and_carries_no_gradient():
    (statistic,) = as_objective(kto()).statistics
    logp = torch.tensor([-1.0], requires_grad=True)
    sums = statistic.sums(Batch({"logp": logp, "ref_logp": torch.tensor([-3.0])}))
    assert not any(x.requires_grad for x in sums)
    assert statistic.value(torch.tensor(0.0), torch.tensor(0.0)) == 0
    with pytest.raises(ConfigError, match="kl_baseline"):
        kto()(logp=logp, ref_logp=logp, label=torch.tensor([1]))


def test_a_gate_counts_a_share_or_steps_and_takes_exactly_one():
    assert [gate(after_share=0.5)(Clock(step, 4)) for step in range(4)] == [0, 0, 1, 1]
    assert [gate(after_steps=3)(Clock(step, 4)) for step in range(4)] == [0, 0, 0, 1]
    for wrong in ({}, {"after_share": 0.1, "after_steps": 1}, {"after_share": 1.5}, {"after_steps": -1}):
        with pytest.raises(ConfigError):
            gate(**wrong)


def test_terms_add_up_to_objectives_and_names_stay_unique():
    objective = dpo() + 0.5 * nll() + nll() + cpo()
    assert [t.name for t in objective.terms] == ["dpo", "nll", "nll_2", "cpo", "nll_3"]
    assert (2 * objective).terms[1].coefficient == 1.0
    assert isinstance(0.5 * dpo(), Term)
    with pytest.raises(ConfigError, match="not function; call the method"):
        as_objective(dpo)


def test_pairs_are_asked_for_where_responses_are_compared():
    assert as_objective(dpo()).unit_needs == as_objective(nll()).unit_needs == "pair"
    assert as_objective(kto()).unit_needs == as_objective(sft()).unit_needs == "point"
    single = Batch({"logp": torch.tensor([-1.0]), "ref_logp": torch.tensor([-1.0])})
    for objective in (dpo(), nll(score=logp())):
        with pytest.raises(ConfigError, match="has no pairs"):
            as_objective(objective).loss(single)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ipo(norm="tokens"), "norm='tokens'"),
        (lambda: sft(per="tokens"), "did you mean 'token'"),
        (lambda: simpo(gamma=1.0, gamma_ratio=0.5), "not both"),
        (lambda: modpo(w0=0.0), "above 0"),
        (lambda: log_ratio(references={}), "needs a reference"),
        (lambda: point("winners"), "winners"),
        (lambda: pairwise(score=logp(), role="preferences"), "did you mean 'preference'"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_integer_columns_and_float32_references_mix_with_float64_policies():
    fields = {k: v.float() if k.startswith("ref") else v for k, v in pair_fields(4).items()}
    assert simpo()(clock=OPEN, **fields).dtype == torch.float64
    assert dpo()(**fields).dtype == torch.float64
