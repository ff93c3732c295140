"""Methods on tokens and segments: sparse_po, mapo, bmc, dpo_2d and its robust forms."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import log_softmax, softplus
from worlds import batch_for, gradients, minimise

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives import (
    as_objective,
    bmc,
    column,
    denoised_segments,
    difference,
    dpo,
    dpo_2d,
    dpo_2d_robust,
    hinge,
    kl_baseline,
    log_ratio,
    mapo,
    margin,
    shift,
    sparse_po,
)

EXAMPLE = {  # chosen (.5, .1, .9) under the policy, (.4, .2, .8) under the reference; rejected (.3, .6), (.5, .5)
    "len_chosen": torch.tensor([3]),
    "len_rejected": torch.tensor([2]),
    "token_logp": torch.tensor([0.5, 0.1, 0.9, 0.3, 0.6], dtype=torch.float64).log(),
    "token_ref_logp": torch.tensor([0.4, 0.2, 0.8, 0.5, 0.5], dtype=torch.float64).log(),
    "token_diff": torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0], dtype=torch.float64),
}


def test_bmc_weighs_by_the_policy_or_as_the_code_does_by_each_models_own_probabilities():
    assert bmc(beta=0.1, delta=3.0)(**EXAMPLE).item() == pytest.approx(0.6993863, abs=1e-7)
    own = bmc(beta=0.1, delta=3.0, weight_source="own")
    assert own(**EXAMPLE).item() == pytest.approx(0.6431198, abs=1e-7)
    assert dpo(beta=0.1)(**EXAMPLE).item() == pytest.approx(0.6943337, abs=1e-7)


def test_bmcs_two_forms_agree_where_every_differing_token_is_capped():
    both = [bmc(beta=1.0, delta=2.0, weight_source=source)(**EXAMPLE).item() for source in ("policy", "own")]
    assert both == pytest.approx([math.log1p(math.exp(-0.0579275))] * 2, abs=1e-6)


def test_bmcs_differing_tokens_hold_eight_of_twenty_six_parts_of_the_weight_at_delta_three():
    logp = torch.full((40,), math.log(1 / 4), dtype=torch.float64).requires_grad_()
    diff = torch.zeros(40, dtype=torch.float64)
    diff[[3, 7, 23, 27]] = 1.0  # two of the twenty tokens of each response, with p = 1/4 < 1/3
    fields = {"len_chosen": torch.tensor([20]), "len_rejected": torch.tensor([20])}
    loss = bmc(delta=3.0)(**fields, token_logp=logp, token_ref_logp=logp.detach(), token_diff=diff)
    (slope,) = torch.autograd.grad(loss, logp)
    chosen = slope[:20].abs()
    assert (chosen[[3, 7]].sum() / chosen.sum()).item() == pytest.approx(8 / 26)


def test_no_gradient_goes_through_bmcs_weights():
    leaf = EXAMPLE["token_logp"].clone().requires_grad_()
    loss = bmc(beta=0.1, delta=3.0)(**{**EXAMPLE, "token_logp": leaf})
    (slope,) = torch.autograd.grad(loss, leaf)
    weights = torch.tensor([3.0, 4.0, 1.0, -4.0, -1.0], dtype=torch.float64)
    z = -0.01243941
    assert torch.allclose(slope, -0.1 * torch.sigmoid(torch.tensor(-z)) * weights, atol=1e-7)


ONE_TOKEN = {
    "len_chosen": torch.tensor([1]),
    "len_rejected": torch.tensor([1]),
    "token_logp": torch.tensor([0.6, 0.5], dtype=torch.float64).log(),
    "token_ref_logp": torch.tensor([0.5, 0.25], dtype=torch.float64).log(),
    "token_kl": torch.tensor([0.0923315, 0.2392782], dtype=torch.float64),
}


@pytest.mark.parametrize(
    ("reward", "kl", "loss"), [(1, 1, 0.9904771), (1, 0, 0.9182092), (0, 1, 0.7536523), (0, 0, math.log(2))]
)
def test_sparse_po_has_the_sign_of_a_divergence_that_the_chosen_side_may_grow(reward, kl, loss):
    masks = {
        f"token_{n}": torch.full((2,), float(v), dtype=torch.float64)
        for n, v in (("reward_mask", reward), ("kl_mask", kl))
    }
    found = sparse_po(beta=0.8, masks="independent")(**ONE_TOKEN, **masks).item()
    assert found == pytest.approx(loss, abs=1e-7)


def test_a_sparsity_coefficient_adds_the_weights_of_both_responses_and_pulls_at_masks_alone():
    plain, sparse = as_objective(sparse_po()), as_objective(sparse_po(lam_u=0.3, lam_d=0.1))
    batch = batch_for(sparse, 3, weight=None)
    masks = batch.tokens["reward_mask"].sum().item() / 5  # five pairs
    extra = sparse.loss(batch).total - plain.loss(batch).total
    assert extra.item() == pytest.approx(0.5 * (0.3 + 0.1) * masks)  # one common mask: half of each
    _, (slope,) = gradients(as_objective(sparse.terms[1]), batch)
    assert not slope.any()


def test_mapo_ignores_a_gradient_of_its_mask_and_sparse_po_needs_it():
    for objective, name, flows in ((mapo(), "mask", False), (sparse_po(), "reward_mask", True)):
        batch = batch_for(as_objective(objective), 4)
        leaf = batch.tokens[name].clone().requires_grad_()
        held = Batch(batch.items, batch.pairs, {**batch.tokens, name: leaf}, batch.statistics, batch.clock)
        logp = batch.tokens["logp"].clone().requires_grad_()
        held.tokens["logp"] = logp
        as_objective(objective).loss(held).total.backward()
        assert (leaf.grad is not None) == flows
        assert logp.grad is not None


def marker_world(lam, seed=0, steps=150):
    """Mean mask on a marker and elsewhere, and the share of masks that are exactly 0, after training.

    World: a bigram policy over 16 tokens; the token 0 alone decides which response is chosen.
    """
    generator = torch.Generator().manual_seed(seed)
    n, length, vocabulary = 64, 6, 16
    tokens = torch.randint(1, vocabulary, (2 * n, length), generator=generator)
    at = torch.randint(0, length, (n,), generator=generator)
    tokens[torch.arange(n), at] = 0  # the marker, in chosen responses only
    before = torch.cat([torch.ones(2 * n, 1, dtype=torch.long), tokens[:, :-1]], 1)
    reference = torch.randn(vocabulary, vocabulary, generator=generator, dtype=torch.float64)
    policy = reference.clone().requires_grad_()
    # the mask reads the token that is to be predicted out of noise, as a hidden state would hold it
    features = torch.nn.functional.one_hot(tokens, vocabulary).double().flatten(0, 1)
    weight = torch.zeros(vocabulary, dtype=torch.float64).requires_grad_()
    bias = torch.ones(1, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([policy, weight, bias], lr=0.05)
    objective = as_objective(sparse_po(beta=0.5, lam_u=lam, lam_d=0.0))
    for _ in range(steps):
        log_p, log_r = log_softmax(policy, -1)[before], log_softmax(reference, -1)[before]
        chosen = tokens[..., None]
        fields = {
            "token_logp": log_p.gather(-1, chosen).flatten(),
            "token_ref_logp": log_r.gather(-1, chosen).flatten(),
            "token_kl": (log_r.exp() * (log_r - log_p)).sum(-1).flatten(),
            "token_reward_mask": torch.relu(features @ weight + bias),
        }
        lengths = {f"len_{side}": torch.full((n,), length) for side in ("chosen", "rejected")}
        optimiser.zero_grad()
        objective(**lengths, **fields).backward()
        optimiser.step()
    mask = torch.relu(features @ weight + bias).detach()
    marker = tokens.flatten() == 0
    return mask[marker].mean().item(), mask[~marker].mean().item(), (mask == 0).double().mean().item()


def test_in_a_world_where_one_token_decides_the_learned_mask_prefers_it_and_a_penalty_makes_it_sparser():
    found = [marker_world(lam) for lam in (0.0, 0.005, 0.05)]
    for on_marker, elsewhere, _ in found[:2]:
        assert on_marker > elsewhere
    zeros = [share for *_, share in found]
    assert zeros == sorted(zeros)
    assert zeros[2] > zeros[0]


SEGMENTS = {
    "len_chosen": torch.tensor([3]),
    "len_rejected": torch.tensor([2]),
    "token_ref_logp": torch.zeros(5, dtype=torch.float64),
    "token_logp": torch.tensor([1.0, -0.5, 0.3, 0.4, -0.2], dtype=torch.float64),
    "token_segment": torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0]),
    "token_segment_score": torch.tensor([4.0, 1.0, 3.0, 2.0, 0.0]),
}


def test_one_segment_a_side_with_the_number_one_is_dpo():
    fields = {
        "len_chosen": torch.tensor([1]),
        "len_rejected": torch.tensor([1]),
        "token_logp": torch.tensor([0.8, 0.2], dtype=torch.float64),
        "token_ref_logp": torch.zeros(2, dtype=torch.float64),
        "token_segment": torch.zeros(2),
        "token_segment_score": torch.ones(2),
    }
    assert dpo_2d(beta=0.1)(**fields).item() == pytest.approx(0.6635971, abs=1e-7)


def test_moving_segments_with_their_numbers_changes_nothing_and_cutting_one_in_two_does():
    whole = dpo_2d()(**SEGMENTS).item()
    moved = torch.tensor([2, 0, 1, 4, 3])
    changed = {**SEGMENTS, **{n: SEGMENTS[n][moved] for n in ("token_logp", "token_segment_score")}}
    assert dpo_2d()(**changed).item() == pytest.approx(whole)
    halves = {
        "len_chosen": torch.tensor([2]),
        "len_rejected": torch.tensor([2]),
        "token_logp": torch.tensor([0.5, 0.5, -0.5, -0.5], dtype=torch.float64),
        "token_ref_logp": torch.zeros(4, dtype=torch.float64),
        "token_segment_score": torch.ones(4),
    }
    together = dpo_2d(beta=1.0)(**halves, token_segment=torch.zeros(4)).item()
    apart = dpo_2d(beta=1.0)(**halves, token_segment=torch.tensor([0.0, 1.0, 0.0, 1.0])).item()
    assert together == pytest.approx(math.log1p(math.exp(-2)))
    assert apart == pytest.approx(2 * math.log1p(math.exp(-1)))


def test_numbers_of_zero_give_log_two_for_every_matched_pair_of_segments():
    silent = {**SEGMENTS, "token_segment_score": torch.zeros(5)}
    assert dpo_2d()(**silent).item() == pytest.approx(2 * math.log(2))


def test_tokens_outside_segments_and_segments_without_a_number_do_not_count():
    outside = {**SEGMENTS, "token_segment": torch.tensor([0.0, -1.0, 2.0, 0.0, 1.0])}
    # the chosen side keeps the numbers 4 and 3, which were the ones that were matched
    assert dpo_2d()(**outside).item() == pytest.approx(1.2011749, abs=1e-7)
    nobody = {**SEGMENTS, "token_segment": torch.full((5,), -1.0)}
    assert dpo_2d()(**nobody).item() == 0.0


def one_match(chosen, rejected, numbers, objective):
    fields = {
        "len_chosen": torch.tensor([1]),
        "len_rejected": torch.tensor([1]),
        "token_logp": torch.tensor([chosen, rejected], dtype=torch.float64),
        "token_ref_logp": torch.zeros(2, dtype=torch.float64),
        "token_segment": torch.zeros(2),
        "token_segment_score": torch.as_tensor(numbers, dtype=torch.float64),
    }
    return objective(**fields).item()


def test_the_expansion_of_gaussian_noise_is_that_of_a_simulation_and_is_taken_away():
    clean = one_match(2.0, -1.0, (3.0, 1.0), dpo_2d(beta=0.1))
    added = one_match(2.0, -1.0, (3.0, 1.0), dpo_2d_robust(beta=0.1, estimator="conservative", noise=0.8))
    taken = one_match(2.0, -1.0, (3.0, 1.0), dpo_2d_robust(beta=0.1, estimator="gaussian", noise=0.8))
    assert clean == pytest.approx(0.403186, abs=1e-6)
    assert added == pytest.approx(0.406733, abs=1e-6)
    assert clean - taken == pytest.approx(added - clean)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.tensor([3.0, 1.0]) + 0.8 * torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    simulated = softplus(-0.1 * (noisy[:, 0] * 2 + noisy[:, 1])).mean().item()
    assert simulated == pytest.approx(added, abs=4e-4)  # four standard errors of the simulation


def test_the_flip_estimate_is_unbiased_and_the_worst_case_bounds_the_clean_loss():
    clean = dpo_2d(beta=0.7)
    flip = dpo_2d_robust(beta=0.7, estimator="flip", noise=0.2)
    there, back = (one_match(*sides, flip) for sides in ((2.0, 1.0, (1.0, 1.0)), (1.0, 2.0, (1.0, 1.0))))
    assert 0.8 * there + 0.2 * back == pytest.approx(one_match(2.0, 1.0, (1.0, 1.0), clean))
    worst = dpo_2d_robust(beta=0.7, estimator="worst_case", noise=0.5)
    for numbers in ((3.0, 1.0), (0.0, 4.0), (2.0, 2.0)):
        assert one_match(2.0, -1.0, numbers, worst) >= one_match(2.0, -1.0, numbers, clean)


@pytest.mark.parametrize("noise", [0.5, 1.0])
def test_noise_in_the_judges_numbers_moves_the_plain_loss_further_from_the_clean_one_than_the_robust_one(noise):
    """World: 400 pairs of one segment, ratios of deviation 0.5, numbers 1 to 4; the mean over 64 draws of the noise."""
    generator = torch.Generator().manual_seed(1)
    n = 400
    fields = {
        "len_chosen": torch.ones(n, dtype=torch.long),
        "len_rejected": torch.ones(n, dtype=torch.long),
        "token_logp": 0.5 * torch.randn(2 * n, generator=generator, dtype=torch.float64),
        "token_ref_logp": torch.zeros(2 * n, dtype=torch.float64),
        "token_segment": torch.zeros(2 * n),
    }
    numbers = torch.randint(1, 5, (2 * n,), generator=generator).double()
    clean = dpo_2d(beta=1.0)(**fields, token_segment_score=numbers).item()
    gaps = {"plain": 0.0, "robust": 0.0}
    for _ in range(64):
        heard = numbers + noise * torch.randn(2 * n, generator=generator, dtype=torch.float64)
        for name, objective in (("plain", dpo_2d(beta=1.0)), ("robust", dpo_2d_robust(beta=1.0, noise=noise))):
            gaps[name] += (objective(**fields, token_segment_score=heard).item() - clean) / 64
    assert abs(gaps["robust"]) < abs(gaps["plain"])


def clean_excess(noise, seed=2, n=400, width=4, draws=8):
    """Clean loss above its least after training on noisy numbers, mean over draws: by the plain and the robust loss.

    World: pairs of one segment with random features, the first a little more in what is chosen; numbers 1 to 4.
    """
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * n, width, generator=generator, dtype=torch.float64)
    features[:n, 0] += 0.5
    numbers = torch.randint(1, 5, (2 * n,), generator=generator).double()
    fields = {
        "len_chosen": torch.ones(n, dtype=torch.long),
        "len_rejected": torch.ones(n, dtype=torch.long),
        "token_ref_logp": torch.zeros(2 * n, dtype=torch.float64),
        "token_segment": torch.zeros(2 * n),
    }
    plain, robust = dpo_2d(beta=1.0), dpo_2d_robust(beta=1.0, noise=noise)

    def clean_loss_after(objective, heard):
        slope = torch.zeros(width, dtype=torch.float64, requires_grad=True)
        minimise(lambda: objective(**fields, token_logp=features @ slope, token_segment_score=heard), slope)
        return plain(**fields, token_logp=features @ slope.detach(), token_segment_score=numbers).item()

    least, total = clean_loss_after(plain, numbers), [0.0, 0.0]
    for _ in range(draws):
        heard = numbers + noise * torch.randn(2 * n, generator=generator, dtype=torch.float64)
        total = [t + clean_loss_after(o, heard) - least for t, o in zip(total, (plain, robust), strict=True)]
    return total[0] / draws, total[1] / draws


def test_training_by_the_robust_loss_ends_nearer_the_clean_optimum_at_noise_one_and_no_nearer_at_one_half():
    plain, robust = clean_excess(1.0)
    assert 0 < robust < 0.9 * plain
    plain, robust = clean_excess(0.5)  # 400 pairs: what single draws add is more than what the noise adds on average
    assert 0.9 * plain < robust < 1.1 * plain


@pytest.mark.parametrize("estimator", ["gaussian", "conservative", "flip", "worst_case"])
def test_every_robust_form_works_at_the_default_noise_and_differs_from_the_plain_loss(estimator):
    objective = dpo_2d_robust(estimator=estimator)
    assert objective(**SEGMENTS).item() != pytest.approx(dpo_2d()(**SEGMENTS).item(), abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": (margin(0.7),)},
        {"offset": (shift(kl_baseline()),)},
        {"offset": (difference(column("reward")),)},
        {"score": log_ratio()},
    ],
    ids=repr,
)
def test_a_number_for_a_whole_response_has_no_place_among_segments(changes):
    batch = batch_for(as_objective(dpo_2d()), 5)
    with pytest.raises(ConfigError, match="score with by_segment"):
        replace(dpo_2d(), **changes).values(batch)


def test_the_expansion_of_the_logistic_link_is_none_of_another():
    with pytest.raises(ConfigError, match="expands the logistic link, not hinge"):
        denoised_segments(link=hinge())


def test_unknown_choices_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'own'"):
        bmc(weight_source="owm")
    with pytest.raises(ConfigError, match="did you mean 'common'"):
        sparse_po(masks="comon")
    with pytest.raises(ConfigError, match="did you mean 'flip'"):
        dpo_2d_robust(estimator="flipp")
