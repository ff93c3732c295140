"""Methods whose strength depends on the step, the run or the pair: running numbers, filters, temperatures, matrices."""

import math
from dataclasses import replace

import pytest
import torch
from worlds import batch_for, gradients, pair_batch, pair_fields, with_items

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError
from unipref.objectives import (
    ada_dpo,
    ada_reward,
    alpha_dpo,
    as_objective,
    beta_dpo,
    contrast_matrix,
    dpo,
    dr_dpo,
    log_ratio,
    logistic,
    moving,
    rpo_relative,
    square,
    tempered,
    upo,
)

SIDES = ("chosen", "rejected")


def number(x):
    return torch.tensor([x], dtype=torch.float64)


def pairs_with(gaps, **further):
    """A batch of pairs whose log-ratios part by `gaps`, all on the chosen side."""
    gaps = torch.as_tensor(gaps, dtype=torch.float64)
    n = len(gaps)
    fields = {"logp_chosen": gaps - 9, "logp_rejected": torch.full((n,), -9.0, dtype=torch.float64)}
    fields |= {f"ref_logp_{s}": torch.full((n,), -9.0, dtype=torch.float64) for s in SIDES}
    fields |= {f"uid_{s}": torch.arange(n) + 1000 * k for k, s in enumerate(SIDES)}
    fields |= {f"len_{s}": torch.ones(n, dtype=torch.long) for s in SIDES}
    return Batch.from_fields(**fields, **further)


def with_state(objective, batch, state=None):
    """The batch with the values of the objective's one state, renewed by the batch itself as before a step."""
    (watched,) = objective.states
    state = watched.renewed(state, watched.sums(batch))
    return batch.with_statistics(**watched.values(state)), state


# running numbers


def test_the_first_step_counts_in_full_where_released_code_takes_a_tenth_of_it():
    batch = pairs_with([1.0, 2.0, 3.0])
    for compat, share in ((False, 1.0), (True, 0.1)):
        held, _ = with_state(as_objective(alpha_dpo(compat=compat)), batch)
        assert held.statistics["alpha_dpo_mean"].item() == pytest.approx(2 * share)
        assert held.statistics["alpha_dpo_std"].item() == pytest.approx(1 * share)  # unbiased


def test_the_first_margins_are_standard_scores_and_as_released_ten_times_as_wide_and_off_centre():
    def margins(compat):
        held, _ = with_state(as_objective(alpha_dpo(compat=compat)), pairs_with([1.0, 2.0, 3.0]))
        term = as_objective(alpha_dpo(alpha=0.05, gamma_ratio=0.0, compat=compat)).terms[0]
        parts = [offset(held, term.unit) for offset in term.offset]
        return sum(parts) / (-2.5 * 0.05)

    assert margins(False).tolist() == pytest.approx([-1.0, 0.0, 1.0], abs=1e-6)
    assert margins(True).std().item() == pytest.approx(10.0, abs=1e-6)
    assert margins(True).mean().item() == pytest.approx(0.9 * 2 / (0.1 * 1), abs=1e-6)


def test_a_pair_that_the_policy_parts_more_than_usual_gets_a_larger_margin_and_no_gradient_through_it():
    objective = as_objective(alpha_dpo())
    batch = pairs_with([1.0, 3.0]).with_statistics(alpha_dpo_mean=number(1.0)[0], alpha_dpo_std=number(0.5)[0])
    beta, gamma, alpha = 2.5, 0.15, 0.05
    margins = [gamma, gamma + alpha * 4.0]
    leads = [1.0, 3.0]  # logp per token: -8 + 9, -6 + 9
    _, (slope,) = gradients(objective, batch)
    expected = [-beta / (1 + math.exp(beta * (d - m))) / 2 for d, m in zip(leads, margins, strict=True)]
    assert slope[:2].tolist() == pytest.approx(expected, abs=1e-12)
    assert slope[2:].tolist() == pytest.approx([-s for s in expected], abs=1e-12)


@pytest.mark.parametrize("method", [alpha_dpo(), alpha_dpo(compat=True), beta_dpo(), beta_dpo(compat=True)])
@pytest.mark.parametrize("gaps", [[0.0, 0.0, 0.0], [2.0], [], [1e-9, 0.0]])
def test_a_step_without_spread_or_with_one_pair_or_none_is_finite(method, gaps):
    objective = as_objective(method)
    held, _ = with_state(objective, pairs_with(gaps))
    total, (slope,) = gradients(objective, held)
    assert total.isfinite()
    assert slope.isfinite().all()


def test_alpha_zero_uses_neither_the_reference_nor_running_numbers():
    objective = as_objective(alpha_dpo(alpha=0.0))
    assert objective.needs == {"len"}
    assert objective.states == ()


def test_running_numbers_of_soft_labels_do_not_depend_on_which_side_is_called_chosen():
    p = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)
    batch = pairs_with([1.0, 2.0, 3.0], preference=p)
    swap = {"chosen": batch.pairs["rejected"], "rejected": batch.pairs["chosen"], "preference": 1 - p}
    watched = moving("m", log_ratio())
    there, back = watched.sums(batch), watched.sums(replace(batch, pairs=swap))
    assert torch.allclose(there, back)
    assert there[2].item() == pytest.approx(0.8 * 1 - 0.6 * 2)


def test_label_smoothing_mixes_the_swapped_pair_whose_margin_is_on_its_own_side():
    fields = {k: v for k, v in pair_fields(90).items() if k.split("_")[0] in ("logp", "ref", "len")}
    state = {"alpha_dpo_mean": torch.tensor(0.3), "alpha_dpo_std": torch.tensor(0.6)}
    other = {"chosen": "rejected", "rejected": "chosen"}
    swapped = {f"{k.rsplit('_', 1)[0]}_{other[k.rsplit('_', 1)[1]]}": v for k, v in fields.items()}
    plain, back = alpha_dpo()(**fields, **state), alpha_dpo()(**swapped, **state)
    assert alpha_dpo(flip=0.1)(**fields, **state).item() == pytest.approx((0.9 * plain + 0.1 * back).item(), abs=1e-12)


# beta_dpo


def parts_of(objective):
    term = objective.terms[0]
    return term.score, term.weight, term.unit


def test_a_step_of_wider_gaps_than_usual_has_a_larger_beta_and_of_narrower_a_smaller_one():
    objective = as_objective(beta_dpo(rho=0.0))
    score, _, _ = parts_of(objective)
    state = {"beta_dpo_mean": number(2.0)[0], "beta_dpo_std": number(1.0)[0]}
    betas = [score.factor(pairs_with(gaps).with_statistics(**state)).item() for gaps in ([2.0, 4.0], [2.0, 2.0], [1.0])]
    assert betas == pytest.approx([0.1 * (1 + 0.6), 0.1, 0.1 * (1 - 0.6)])
    assert score.factor(pairs_with([-50.0]).with_statistics(**state)).item() == 1e-3


def test_the_step_is_the_mean_of_the_kept_pairs_at_the_betas_of_the_kept_pairs():
    objective = as_objective(beta_dpo(rho=0.5))
    state = {"beta_dpo_mean": number(1.0)[0], "beta_dpo_std": number(1.0)[0]}
    gaps = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    weight = torch.tensor([1.0, 2.0, 1.0, 3.0], dtype=torch.float64)
    batch = pairs_with(gaps, weight=weight).with_statistics(**state)
    _, keep, unit = parts_of(objective)
    kept = keep.kept(batch, unit)
    assert kept.sum() == 2
    share = weight * kept / (weight * kept).sum()
    beta = 0.1 * (1 + 0.6 * ((share * gaps).sum() - 1.0))
    loss, (slope,) = gradients(objective, batch)
    assert loss.item() == pytest.approx((share * torch.log1p(torch.exp(-beta * gaps))).sum().item(), abs=1e-12)
    assert torch.allclose(slope[:4], -share * beta * torch.sigmoid(-beta * gaps))  # beta carries no gradient


@pytest.mark.parametrize(("n", "rho", "kept"), [(1, 0.2, 1), (2, 0.9, 1), (10, 0.2, 8), (64, 0.2, 51), (3, 0.0, 3)])
def test_floor_of_the_share_is_kept_and_never_nothing(n, rho, kept):
    objective = as_objective(beta_dpo(rho=rho))
    batch, _ = with_state(objective, pairs_with(torch.linspace(-1, 1, n)))
    _, keep, unit = parts_of(objective)
    assert keep.kept(batch, unit).sum() == kept


def test_pairs_far_from_the_running_mean_are_kept_less_often_as_often_as_the_weights_say():
    # one of two is kept, with chances 1 and e^(-1/2) of a gap one deviation away; 1,000 draws, deviation 0.0153
    objective = as_objective(beta_dpo(rho=0.5))
    state = {"beta_dpo_mean": number(0.0)[0], "beta_dpo_std": number(2.0)[0]}
    batch = pairs_with([0.0, 2.0]).with_statistics(**state)
    _, keep, unit = parts_of(objective)
    times = sum(keep.kept(replace(batch, clock=Clock(step, 1000)), unit) for step in range(1000)) / 1000
    assert times.sum() == 1
    assert times[1].item() == pytest.approx(math.exp(-0.5) / (1 + math.exp(-0.5)), abs=5 * 0.0153)


def test_the_same_pairs_are_kept_in_whatever_order_they_stand():
    objective = as_objective(beta_dpo(rho=0.5))
    batch, _ = with_state(objective, pairs_with(torch.linspace(-1, 1, 12)))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(91))
    pairs = {name: value[order] for name, value in batch.pairs.items()}
    _, keep, unit = parts_of(objective)
    kept = keep.kept(batch, unit)
    assert torch.equal(keep.kept(replace(batch, pairs=pairs), unit), kept[order])
    assert not torch.equal(keep.kept(replace(batch, clock=Clock(7, 10)), unit), kept)


def test_a_share_of_one_to_leave_out_is_refused():
    with pytest.raises(ConfigError, match="left out"):
        beta_dpo(rho=1.0)


# ada_dpo


@pytest.mark.parametrize(("rho", "c"), [(0.1, 0.94344), (0.2, 1.41894), (0.5, 2.98324)])
def test_the_temperature_is_the_margin_over_the_root_of_the_entropy(rho, c):
    link = tempered(rho, 0.1, 5.0)
    assert link.critical == pytest.approx(c, abs=1e-5)
    z = torch.tensor([0.0, 0.01, 1.0, -1.0, 100.0], dtype=torch.float64)
    assert link.temperature(z).tolist() == pytest.approx([0.1, 0.1, 1 / link.critical, 1 / link.critical, 5.0])


def newton(z, rho, low, high, *, quadratic=False, steps=200):
    """The minimum over tau by bisected Newton steps on the derivative, the plainest code that arrives."""
    tau = torch.full_like(z, 1.0)
    below, above = torch.full_like(z, low), torch.full_like(z, high)
    for _ in range(steps):
        u = z / tau
        slope = torch.nn.functional.softplus(-u) + u * torch.sigmoid(-u) - math.log(2)
        slope = slope + (2 * rho * tau if quadratic else rho)
        bend = z**2 / tau**3 * torch.sigmoid(u) * torch.sigmoid(-u) + (2 * rho if quadratic else 0)
        below, above = torch.where(slope < 0, tau, below), torch.where(slope > 0, tau, above)
        new = tau - slope / bend.clamp(min=1e-12)
        tau = torch.where((new > below) & (new < above), new, (below + above) / 2)
    return tau


@pytest.mark.parametrize("quadratic", [False, True])
@pytest.mark.parametrize("rho", [0.05, 0.1, 0.2, 0.5])
def test_the_temperature_is_where_newtons_method_arrives(rho, quadratic):
    z = torch.cat([torch.linspace(-30, -0.01, 200), torch.linspace(0.01, 30, 200)]).double()
    ours = tempered(rho, 0.1, 5.0, quadratic).temperature(z)
    assert torch.allclose(ours, newton(z, rho, 0.1, 5.0, quadratic=quadratic), atol=1e-6)
    assert (ours[201:] >= ours[200:-1] - 1e-12).all()  # it does not fall as the margin grows


def released(z, rho):
    """Five clipped Newton steps from 1, as released."""
    tau = torch.ones_like(z)
    for _ in range(5):
        u = z / tau
        slope = torch.nn.functional.softplus(-u) + u * torch.sigmoid(-u) - math.log(2) + rho
        bend = z**2 / tau**3 * torch.sigmoid(u) * torch.sigmoid(-u)
        tau = (tau - slope / bend.clamp(min=1e-6)).clamp(0.1, 5.0)
    return tau


@pytest.mark.parametrize(("rho", "error"), [(0.1, 6.5e-4), (0.05, 0.0139), (0.2, 0.475), (0.5, 2.76)])
def test_the_released_five_steps_arrive_near_rho_a_tenth_only(rho, error):
    z = torch.linspace(0.01, 30, 100_000, dtype=torch.float64)
    worst = (released(z, rho) - tempered(rho, 0.1, 5.0).temperature(z)).abs().max().item()
    assert worst == pytest.approx(error, rel=0.01)


def test_between_the_bounds_the_loss_is_linear_and_wrong_pairs_pull_harder():
    z = torch.tensor([0.5, 1.0, 3.0, -0.5, -3.0], dtype=torch.float64, requires_grad=True)
    tempered(0.1, 0.1, 5.0)(z).sum().backward()
    assert z.grad.tolist() == pytest.approx([-0.28021] * 3 + [-0.71979] * 2, abs=1e-5)


def test_a_badly_wrong_pair_keeps_its_pull():
    # log(sigmoid(z / tau) + 1e-6), as released, is flat from 13.8 tau on
    for z in (-100.0, -1000.0):
        margin = number(z).requires_grad_()
        tempered()(margin).backward()
        assert margin.grad.item() == pytest.approx(-1.0, abs=1e-6)


def test_adaptive_dpo_pulls_from_the_reference_as_dpo_does():
    fields = {f"{n}_{s}": number(-3.0) for n in ("logp", "ref_logp") for s in SIDES}
    batch = Batch.from_fields(**fields)
    ours, theirs = (gradients(as_objective(m), batch)[1][0] for m in (ada_dpo(), dpo()))
    assert torch.allclose(ours, theirs)


def test_a_radius_of_log_2_or_more_stands_at_the_lowest_temperature():
    z = torch.tensor([-30.0, 0.0, 1e4])
    for rho in (math.log(2), 1.0):
        assert (tempered(rho, 0.1, 5.0).temperature(z) == 0.1).all()


def test_an_open_upper_bound_lets_clear_pairs_grow_and_a_quadratic_radius_bounds_itself():
    z = number(1e5)
    assert tempered(0.1, 0.1, None).temperature(z).item() == pytest.approx(1e5 / 0.9434431, rel=1e-6)
    assert tempered(0.1, 0.1, None, quadratic=True).temperature(z).item() == pytest.approx(math.log(2) / 0.2, rel=1e-6)


def test_an_adaptive_reward_model_with_temperatures_of_one_is_bradley_terrys():
    batch = batch_for(as_objective(ada_reward()), 92)
    (loss, (slope,)) = gradients(as_objective(ada_reward(tau_min=1.0, tau_max=1.0)), batch, ("reward_head",))
    gap = batch.side("reward_head", "chosen") - batch.side("reward_head", "rejected")
    share = batch.pairs["weight"] / batch.pairs["weight"].sum()
    assert loss.item() == pytest.approx((share * torch.log1p(torch.exp(-gap))).sum().item(), abs=1e-12)
    assert torch.allclose(slope[:5], -share * torch.sigmoid(-gap))


@pytest.mark.parametrize("options", [{"rho": 0.0}, {"tau_min": 0.0}, {"tau_min": 2.0, "tau_max": 1.0}])
def test_temperatures_that_do_not_exist_are_refused(options):
    with pytest.raises(ConfigError, match=r"rho|tau_min"):
        ada_dpo(**options)


# rpo_relative


def prompts(n, seed=93, **changes):
    return batch_for(as_objective(rpo_relative()), seed, n=n, weight=None, **changes)


def test_paired_contrasts_equal_the_plainest_code():
    batch, tau = prompts(4), 0.3
    h = batch.item("logp") - batch.item("ref_logp")
    e = batch.item("embedding")
    total = 0.0
    for i in range(4):
        near = [math.exp((torch.cosine_similarity(e[i], e[j], 0).item() - 1) / tau) for j in range(4)]
        for j in range(4):
            z = 0.1 * near[j] / sum(near) * (h[i] - h[4 + j]).item()
            total += math.log1p(math.exp(-z)) / 16
    assert as_objective(rpo_relative(tau=tau)).loss(batch).total.item() == pytest.approx(total, abs=1e-12)


def test_one_pair_alone_is_dpo():
    batch = prompts(1)
    for variant in ("paired", "diagonal"):
        (ours, (slope,)), (theirs, (other,)) = (
            gradients(as_objective(m), batch) for m in (rpo_relative(variant=variant, kappa=0.8), dpo())
        )
        factor = 1.0 if variant == "paired" else 0.8  # there is no other prompt for the rest
        assert ours.item() == pytest.approx(factor * theirs.item(), abs=1e-12)
        assert torch.allclose(slope, factor * other)


def test_a_cold_similarity_of_distinct_prompts_is_dpo_over_n_and_log_2_for_the_rest():
    batch, n = prompts(4), 4
    (ours, (slope,)), (theirs, (other,)) = (gradients(as_objective(m), batch) for m in (rpo_relative(tau=1e-4), dpo()))
    assert ours.item() == pytest.approx((theirs.item() + (n - 1) * math.log(2)) / n, abs=1e-9)
    assert torch.allclose(slope, other / n, atol=1e-9)


@pytest.mark.parametrize("tau", [0.01, 0.5, 100.0])
def test_from_the_reference_the_pull_is_about_one_nth_of_dpos_at_any_temperature(tau):
    fields = pair_fields(94, n=4)
    batch = prompts(4, 94, **{f"ref_logp_{s}": fields[f"logp_{s}"] for s in SIDES})
    ours, theirs = (gradients(as_objective(m), batch)[1][0][:4].sum() for m in (rpo_relative(tau=tau), dpo()))
    assert (ours / theirs).item() == pytest.approx(0.25, abs=1e-9)


def test_the_diagonal_variant_weighs_the_other_prompts_outside_the_sigmoid():
    batch = prompts(3)
    h = batch.item("logp") - batch.item("ref_logp")
    loss = [[math.log1p(math.exp(-0.1 * (h[i] - h[3 + j]).item())) for j in range(3)] for i in range(3)]
    own = sum(loss[i][i] for i in range(3)) / 3
    rest = sum(loss[i][j] for i in range(3) for j in range(3) if i != j) / 6
    found = as_objective(rpo_relative(variant="diagonal", kappa=0.7)).loss(batch).total.item()
    assert found == pytest.approx(0.7 * own + 0.3 * rest, abs=1e-12)


def single(labels):
    n = len(labels)
    generator = torch.Generator().manual_seed(95)
    draw = torch.rand(2, n, generator=generator, dtype=torch.float64)
    return Batch.from_fields(
        logp=-5 * draw[0],
        ref_logp=-5 * draw[1],
        label=torch.tensor(labels, dtype=torch.float64),
        embedding=torch.randn(n, 4, generator=generator, dtype=torch.float64),
    )


def test_unpaired_contrasts_meet_every_desirable_response_with_every_undesirable_one():
    batch, (good, bad) = single([1.0, 0.0, 1.0, math.nan, 0.0]), ((0, 2), (1, 4))
    h, e = batch.item("logp") - batch.item("ref_logp"), batch.item("embedding")
    total = 0.0
    for i in good:
        near = {j: math.exp((torch.cosine_similarity(e[i], e[j], 0).item() - 1) / 0.5) for j in bad}
        total += sum(math.log1p(math.exp(-0.1 * near[j] / sum(near.values()) * (h[i] - h[j]).item())) for j in bad)
    objective = as_objective(rpo_relative(variant="unpaired"))
    assert objective.loss(batch).total.item() == pytest.approx(total / 4, abs=1e-12)
    assert objective.unit_needs == "point"


@pytest.mark.parametrize("labels", [[1.0, 1.0], [0.0, 0.0, math.nan], [math.nan]])
def test_a_step_that_lacks_a_kind_of_response_gives_nothing(labels):
    total, (slope,) = gradients(as_objective(rpo_relative(variant="unpaired")), single(labels))
    assert total == 0
    assert not slope.any()


def test_prompts_without_a_direction_and_of_any_size_leave_the_loss_finite():
    batch = prompts(3)
    for scale in (0.0, 1e-20, 1e20):
        held = with_items(batch, embedding=batch.item("embedding") * scale)
        assert as_objective(rpo_relative(tau=1e-3)).loss(held).total.isfinite()


def test_a_contrast_matrix_names_what_it_cannot_do():
    with pytest.raises(ConfigError, match="temperature of the similarity"):
        rpo_relative(tau=0.0)
    with pytest.raises(ConfigError, match="rpo_relative"):
        rpo_relative(variant="pairs")
    with pytest.raises(ConfigError, match="no offset per pair"):
        upo(base="rpo_relative", base_margin=0.2)
    with pytest.raises(ConfigError, match="knows 'pairs'"):
        contrast_matrix("x", score=log_ratio(), link=logistic(), of="lists")
    assert contrast_matrix("x", score=log_ratio(), link=square(), own=False) != contrast_matrix(
        "x", score=log_ratio(), link=square()
    )


# dr_dpo


def test_robust_dpos_pull_is_dpos_weighted_by_how_well_each_pair_fits():
    batch, beta, prime = pair_batch(96), 0.1, 0.5
    z = beta * (batch.item("logp") - batch.item("ref_logp"))
    z = z[:5] - z[5:]
    weight = batch.pairs["weight"]
    tilt = weight * torch.sigmoid(z) ** (1 / prime)
    loss, (slope,) = gradients(as_objective(dr_dpo(beta=beta, beta_prime=prime)), batch)
    assert loss.item() == pytest.approx(-prime * math.log((tilt.sum() / weight.sum()).item()), abs=1e-12)
    assert torch.allclose(slope[:5], -beta * torch.sigmoid(-z) * tilt / tilt.sum())


def noisy_run(method, seed, n=200, flipped=0.3):
    """Share of unseen pairs ordered right by a linear reward that descends on pairs of which some are swapped."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(10, generator=generator, dtype=torch.float64)

    def draw(n):
        features = torch.randn(n, 10, generator=generator, dtype=torch.float64)
        return features * torch.sign(features @ truth)[:, None]  # chosen less rejected, rightly ordered

    train, test = draw(n), draw(2000)
    train = torch.where(torch.rand(n, 1, generator=generator) < flipped, -train, train)
    theta = torch.zeros(10, dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(n, dtype=torch.float64)
    for _ in range(200):
        loss = method(logp_chosen=train @ theta, logp_rejected=zero, ref_logp_chosen=zero, ref_logp_rejected=zero)
        (slope,) = torch.autograd.grad(loss, theta)
        theta.data -= 2.0 * slope
    return (test @ theta.detach() > 0).double().mean().item()


def test_robust_dpo_orders_unseen_pairs_better_than_dpo_where_three_in_ten_labels_are_swapped():
    seeds = range(5)
    robust = [noisy_run(dr_dpo(beta=1.0, beta_prime=1.0), seed) for seed in seeds]
    plain = [noisy_run(dpo(beta=1.0), seed) for seed in seeds]
    assert sum(robust) > sum(plain)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        dr_dpo(beta_prime=0.0)
