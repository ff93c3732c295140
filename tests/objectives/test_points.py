"""Methods on single responses, and those held at a reference by its answers: by hand, and in worlds of known optima."""

import math
from dataclasses import replace

import pytest
import torch
from worlds import all_pairs, batch_for, gradients, minimise

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.objectives import (
    a_lol,
    as_objective,
    bco,
    cpo,
    dpo,
    dro_v,
    gpo,
    ipo,
    pmpo,
    point,
    reference_kl,
    rso,
    sppo,
    token_importance,
    typo,
)

F64 = torch.float64


def softplus(x):
    return math.log1p(math.exp(x))


def row(**columns):
    return {name: torch.tensor(value, dtype=F64) for name, value in columns.items()}


# ---------------------------------------------------------------- rso, bco


def test_rso_hinge_has_slope_gamma_before_its_corner_and_none_after():
    fields = {"logp_rejected": [0.0, 0.0], "ref_logp_chosen": [0.0, 0.0], "ref_logp_rejected": [0.0, 0.0]}
    chosen = torch.tensor([19.0, 21.0], dtype=F64, requires_grad=True)
    loss = rso()(logp_chosen=chosen, **row(**fields))
    loss.backward()
    assert loss.item() == pytest.approx((1 - 0.05 * 19) / 2)
    assert chosen.grad.tolist() == [-0.05 / 2, 0.0]


def test_bco_gradient_is_the_classifiers_error_and_delta_has_none():
    logp = torch.tensor([-1.0, -21.0], dtype=F64, requires_grad=True)
    delta = torch.tensor(0.5, dtype=F64, requires_grad=True)
    loss = bco(beta=0.1)(logp=logp, bco_reward_mean=delta, **row(ref_logp=[-11.0, -11.0], label=[1.0, 0.0]))
    loss.backward()
    up, down = 1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(1.5))
    assert logp.grad.tolist() == pytest.approx([-0.1 * up / 2, 0.1 * down / 2])
    assert delta.grad is None


def test_bco_delta_is_the_mean_implicit_reward_of_labelled_responses_and_counts_in_full_from_the_first_step():
    (state,) = as_objective(bco(beta=0.1)).states
    batch = Batch(row(logp=[-1.0, -3.0, -90.0], ref_logp=[-2.0, -6.0, 0.0], label=[1.0, 0.0, math.nan]))
    first = state.renewed(None, state.sums(batch))
    assert state.values(first)["bco_reward_mean"].item() == pytest.approx(0.1 * (1 + 3) / 2)


def test_bco_at_delta_zero_is_half_of_the_pair_loss_that_adds_both_sides():
    batch = batch_for(as_objective(bco()), 3, bco_reward_mean=torch.tensor(0.0, dtype=F64))
    h = 0.1 * (batch.item("logp") - batch.item("ref_logp"))
    pairs = torch.nn.functional.softplus(-h[:5]) + torch.nn.functional.softplus(h[5:])
    weight = batch.pairs["weight"]
    assert as_objective(bco()).loss(batch).total.item() == pytest.approx(
        ((weight * pairs).sum() / weight.sum()).item() / 2
    )


def test_bco_density_ratio_is_held_in_bounds_and_leaves_desirable_responses_alone():
    fields = row(logp=[0.0] * 4, ref_logp=[0.0] * 4, label=[1.0, 0.0, 0.0, 0.0], density_ratio=[7.0, 0.1, 2.0, 50.0])
    loss = bco(density_ratio=True)(**fields, bco_reward_mean=torch.tensor(0.0))
    assert loss.item() == pytest.approx(math.log(2) * (1 + 0.5 + 2 + 10) / 4)


def test_bco_optimum_is_the_log_odds_of_an_answer_being_desirable_above_delta():
    # population: answer y is desirable with probability p_y; at delta the best logit of each is logit(p_y) + delta
    p, ref = torch.tensor([0.9, 0.5, 0.2], dtype=F64), torch.full((3,), 1 / 3, dtype=F64).log()
    h = torch.zeros(3, dtype=F64, requires_grad=True)
    label = torch.tensor([1.0] * 3 + [0.0] * 3, dtype=F64)
    fields = {"ref_logp": ref.repeat(2), "label": label, "weight": torch.cat([p, 1 - p])}
    minimise(lambda: bco(beta=0.5)(logp=(ref + h).repeat(2), bco_reward_mean=torch.tensor(0.3, dtype=F64), **fields), h)
    assert torch.allclose(0.5 * h.detach(), torch.logit(p) + 0.3, atol=1e-8)


# ---------------------------------------------------------------- typo


class Arms:
    """Three answers: a preference strength that sums to 1, and a reference (card's world)."""

    best = torch.tensor([0.6, 0.3, 0.1], dtype=F64)
    ref = torch.tensor([0.4, 0.4, 0.2], dtype=F64)
    pairs = all_pairs(3)

    def fit(self, method):
        i, j = self.pairs.T
        logits = torch.zeros(3, dtype=F64, requires_grad=True)
        objective = as_objective(method)

        def loss():
            # the sampled estimator in its limit: the reference's answers, each by its probability
            logp = logits.log_softmax(0)
            items = {
                "logp": torch.cat([logp, logp]),
                "ref_logp": self.ref.log().repeat(2),
                "len": torch.ones(6),
                "role": torch.tensor([0, 0, 0, 2, 2, 2]),
                "weight": torch.cat([torch.ones(3, dtype=F64), self.ref]),
            }
            preference = self.best[i] / (self.best[i] + self.best[j])
            pairs = {"chosen": i, "rejected": j, "preference": preference}
            return objective.loss(Batch(items, pairs)).total

        minimise(loss, logits)
        return logits.detach().softmax(0)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (typo(lam=1e-5), (0.600, 0.300, 0.100)),
        # the published loss is a mean over ordered pairs, each counted in one order: half of ours beside the divergence
        (typo(lam=2 * 1.0), (0.444, 0.387, 0.169)),
        (typo(lam=2 * 100.0), (0.401, 0.400, 0.200)),
        (dpo(beta=1.0), (0.632, 0.316, 0.053)),
        (dpo(beta=100.0), (0.403, 0.400, 0.198)),
        (ipo(tau=1.0), (0.453, 0.391, 0.155)),
    ],
    ids=repr,
)
def test_three_arms_reach_the_published_worlds_policies(method, expected):
    assert Arms().fit(method).tolist() == pytest.approx(expected, abs=6e-4)


def test_typo_goes_from_the_preferred_policy_to_the_reference_and_dpo_starts_at_an_argmax_instead():
    world = Arms()
    assert torch.allclose(world.fit(typo(lam=1e-7)), world.best, atol=1e-6)
    assert torch.allclose(world.fit(typo(lam=1e6)), world.ref, atol=1e-6)
    assert world.fit(dpo(beta=0.05))[0] > 0.999


def test_typo_without_its_divergence_is_cpo_at_beta_1():
    batch = batch_for(as_objective(typo()), 8)
    ours, theirs = typo(lam=0.0), cpo(beta=1.0, alpha=0.0)
    (there, (slope,)), (here, (same,)) = gradients(as_objective(ours), batch), gradients(as_objective(theirs), batch)
    assert there == here
    assert torch.equal(slope, same)


# ---------------------------------------------------------------- reference_kl


def test_exact_and_sampled_divergence_have_one_mean_gradient_over_the_references_answers():
    # two tokens of a vocabulary of 2: all four answers, each by its probability under the reference
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randn(2, generator=generator, dtype=F64), torch.randn(2, 2, generator=generator, dtype=F64)
    ref = [torch.randn(2, generator=generator, dtype=F64).log_softmax(0) for _ in range(3)]
    answers = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])

    def fields(leaves):
        policy = [leaves[:2].log_softmax(0), leaves[2:4].log_softmax(0), leaves[4:].log_softmax(0)]
        kl = [(r.exp() * (r - q)).sum() for r, q in zip(ref, policy, strict=True)]
        rows = {"logp": [], "ref": [], "kl": [], "reverse_kl": []}
        back = [(q.exp() * (q - r)).sum() for r, q in zip(ref, policy, strict=True)]
        for a, b in answers.tolist():
            rows["logp"] += [policy[0][a], policy[1 + a][b]]
            rows["ref"] += [ref[0][a] + ref[1 + a][b]]
            rows["kl"] += [kl[0], kl[1 + a]]
            rows["reverse_kl"] += [back[0], back[1 + a]]
        return {name: torch.stack(value) for name, value in rows.items()}

    def loss(term, leaves):
        found = fields(leaves)
        item = torch.arange(4).repeat_interleave(2)
        items = {
            "logp": torch.zeros(4, dtype=F64).index_add(0, item, found["logp"]),
            "role": torch.full((4,), 2),
            "weight": found["ref"].exp().detach(),
        }
        tokens = {"item": item, "kl": found["kl"], "reverse_kl": found["reverse_kl"], "logp": found["logp"]}
        return as_objective(term).loss(Batch(items, tokens=tokens)).total

    leaves = torch.cat([first, second.flatten()]).requires_grad_()
    sampled, exact = loss(reference_kl("samples"), leaves), loss(reference_kl("base"), leaves)
    slopes = [torch.autograd.grad(value, leaves, retain_graph=True)[0] for value in (sampled, exact)]
    assert torch.allclose(*slopes, atol=1e-12)
    entropy = -(fields(leaves)["ref"].exp() * fields(leaves)["ref"]).sum()
    assert (sampled - entropy).item() == pytest.approx(exact.item())
    other = torch.autograd.grad(loss(reference_kl("base", direction="reverse"), leaves), leaves)[0]
    assert not torch.allclose(other, slopes[0], atol=1e-3)


def test_the_reverse_divergence_cannot_be_had_from_likelihoods_and_words_are_checked():
    with pytest.raises(ConfigError, match="reverse divergence cannot be taken"):
        pmpo(kl="samples", direction="reverse")
    with pytest.raises(ConfigError, match=r"estimator='sample'\).*'samples'"):
        typo(kl="sample")
    assert as_objective(pmpo(direction="reverse")).computed == ("reverse_kl",)
    assert as_objective(pmpo()).computed == ("kl",)


# ---------------------------------------------------------------- sppo, gpo


def test_sppo_and_gpo_optima_are_the_exponential_weights_update_up_to_its_normaliser():
    generator = torch.Generator().manual_seed(5)
    ref = torch.randn(4, generator=generator, dtype=F64).log_softmax(0)
    score = torch.randn(4, generator=generator, dtype=F64)
    h = torch.zeros(4, dtype=F64, requires_grad=True)
    for method, columns in ((gpo(beta=0.5), {"score": score}), (sppo(beta=0.5), {"win_rate": score + 0.5})):
        h.data.zero_()
        minimise(lambda method=method, columns=columns: method(logp=ref + h, ref_logp=ref, **columns), h)
        assert torch.allclose(h.detach(), score / 0.5, atol=1e-9)


def test_a_group_of_skew_scores_asks_for_log_ratios_that_add_up_to_zero():
    scores = torch.tensor([[0.0, 0.4, -1.1], [-0.4, 0.0, 0.3], [1.1, -0.3, 0.0]], dtype=F64)
    target = as_objective(gpo(beta=0.1)).terms[0].target
    columns = {"logp": torch.zeros(3), "ref_logp": torch.zeros(3), "score": scores.mean(1)}
    assert target(Batch(columns), point()).sum().item() == pytest.approx(0.0, abs=1e-12)


def test_responses_nobody_scored_do_not_count():
    fields = row(logp=[-1.0, -3.0], ref_logp=[-2.0, -2.0])
    loss = sppo(beta=1.0)(win_rate=torch.tensor([1.0, math.nan], dtype=F64), **fields)
    assert loss.item() == 0.25


# ---------------------------------------------------------------- pmpo


class Answers:
    """K answers to one prompt that the reference wrote, some accepted: the population of sampled data."""

    def __init__(self, seed=0, n=6):
        generator = torch.Generator().manual_seed(seed)
        self.ref = torch.randn(n, generator=generator, dtype=F64).softmax(0)
        self.accepted = torch.arange(n) < n // 2
        self.logits = self.ref.log().clone().requires_grad_()

    def loss(self, **options):
        logp, weight = self.logits.log_softmax(0), self.ref
        items = {
            "logp": torch.cat([logp, logp]),
            "label": torch.cat([self.accepted.to(F64), torch.full_like(logp, math.nan)]),
            "role": torch.tensor([0] * len(logp) + [2] * len(logp)),
            "weight": torch.cat([weight, weight]),
        }
        return as_objective(pmpo(kl="samples", **options)).loss(Batch(items)).total

    @property
    def shares(self):
        """(p+, p-): the accepted and the rejected answers' distributions."""
        up, down = self.ref * self.accepted, self.ref * ~self.accepted
        return up / up.sum(), down / down.sum(), down.sum()


@pytest.mark.parametrize(("alpha", "factor"), [(0.5, 1.5), (0.0, 1.1), (0.8, 3.0), (1.0, 0.0)])
def test_pmpo_optimum_is_accepted_minus_rejected_plus_reference(alpha, factor):
    world = Answers(1)
    up, down, mass = world.shares
    beta = factor * (1 - alpha) / mass.item() if alpha < 1 else 0.7
    minimise(lambda: world.loss(alpha=alpha, beta=beta), world.logits)
    expected = alpha * up - (1 - alpha) * down + beta * world.ref
    assert torch.allclose(world.logits.detach().softmax(0), expected / expected.sum(), atol=1e-6)


def test_rejected_answers_alone_at_the_threshold_have_the_optimum_of_accepted_answers_alone():
    world = Answers(2)
    up, down, mass = world.shares
    expected = -down + world.ref / mass
    assert torch.allclose(expected / expected.sum(), up, atol=1e-12)


def test_pmpo_is_bounded_above_its_threshold_and_not_below_it():
    world = Answers(3)
    _, down, mass = world.shares
    worst = int(down.argmax())

    def lowest(beta, alpha=0.0):
        found = []
        for depth in (0.0, 10.0, 100.0, 1000.0):
            world.logits.data = world.ref.log() - depth * ~world.accepted
            found.append(world.loss(alpha=alpha, beta=beta).item())
        return found

    below, above = lowest(0.9 / mass.item()), lowest(1.1 / mass.item())
    assert below[3] < below[2] < below[1]
    assert below[3] < -50
    assert above[3] > above[2] > above[1]
    assert not world.accepted[worst]


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_pmpo_on_rejected_answers_alone_is_bounded_where_beta_is_above_1_less_alpha(alpha):
    world = Answers(6)
    world.accepted = torch.zeros(6, dtype=torch.bool)

    def falls(beta):
        losses = []
        for depth in (10.0, 1000.0):
            world.logits.data = world.ref.log() - depth * (torch.arange(6) < 3)
            losses.append(world.loss(alpha=alpha, beta=beta).item())
        return losses[1] < losses[0]

    assert falls(0.99 * (1 - alpha))
    assert not falls(1.01 * (1 - alpha))
    minimise(lambda: world.loss(alpha=alpha, beta=1.5 * (1 - alpha)), world.logits)
    assert torch.allclose(world.logits.detach().softmax(0), world.ref, atol=1e-6)


def test_pmpo_defaults_with_half_of_the_mass_rejected_are_below_the_threshold():
    world = Answers(4)
    world.ref = torch.full((6,), 1 / 6, dtype=F64)
    losses = []
    for depth in (10.0, 1000.0):
        world.logits.data = -depth * (~world.accepted).to(F64)
        losses.append(world.loss().item())
    assert losses[1] < losses[0] - 100


def test_pmpo_learns_from_rejected_answers_alone_above_its_threshold_and_collapses_below_it():
    rewards = {}
    for factor in (1.2, 0.6):
        world = Answers(5)
        mass = world.shares[2]
        optimiser = torch.optim.SGD([world.logits], lr=1.0)
        for _ in range(300):
            optimiser.zero_grad()
            world.loss(alpha=0.0, beta=factor / mass.item()).backward()
            optimiser.step()
        policy = world.logits.detach().softmax(0)
        rewards[factor] = (policy[world.accepted].sum().item(), world.loss(alpha=0.0, beta=factor / mass.item()).item())
    start = 1 - Answers(5).shares[2].item()
    assert rewards[1.2][0] > start + 0.1
    assert rewards[0.6][1] < -20  # still falling: what was rejected is driven to nothing, without end


def test_pmpo_means_are_per_set_and_either_set_may_be_empty():
    fields = row(logp=[-1.0, -2.0, -4.0], len=[1.0, 1.0, 1.0], token_kl=[0.0, 0.0, 0.0])
    both = pmpo()(**fields, label=torch.tensor([1.0, 1.0, 0.0]))
    assert both.item() == pytest.approx(0.5 * 1.5 - 0.5 * 4)
    assert pmpo()(**fields, label=torch.ones(3)).item() == pytest.approx(0.5 * 7 / 3)
    assert pmpo()(**fields, label=torch.zeros(3)).item() == pytest.approx(-0.5 * 7 / 3)


# ---------------------------------------------------------------- a_lol, dro_v


def lol(logp, ref, reward=1.0, **options):
    fields = row(logp=[logp], ref_logp=[ref], reward=[reward], base_value=[0.0])
    fields["logp"].requires_grad_()
    loss = a_lol(value="base_value", **options)(**fields)
    (slope,) = torch.autograd.grad(loss, fields["logp"])
    return slope.item()


def test_a_lol_ratio_is_policy_over_reference_and_is_clipped_on_both_sides():
    assert lol(-1.0, -1.5) == pytest.approx(-math.exp(0.5))
    assert lol(-2.0, -1.5) == pytest.approx(-math.exp(-0.5))
    assert lol(-1.0, -9.0) == pytest.approx(-1.9)
    assert lol(-9.0, -1.0) == pytest.approx(-0.1)
    assert lol(-9.0, -1.0, clip=None) == pytest.approx(-math.exp(-8.0))
    assert lol(-9.0, -1.0, ratio="none") == -1.0


def test_a_lol_ratio_from_negative_log_probabilities_is_the_same_ratio():
    # the released code subtracts the policy's negative log-probability from the reference's
    policy, reference = -2.0, -1.5
    assert math.exp((-reference) - (-policy)) == math.exp(policy - reference) == pytest.approx(-lol(policy, reference))


def test_a_lol_leaves_responses_below_their_value_alone():
    assert lol(-1.0, -1.0, reward=-0.2) == 0.0
    assert lol(-1.0, -1.0, reward=0.0) == 0.0


def test_a_lol_token_ratios_weigh_tokens_and_carry_no_gradient():
    logp = torch.tensor([-1.0, -2.0], dtype=F64, requires_grad=True)
    fields = row(token_ref_logp=[-1.5, -9.0], len=[2.0], reward=[1.0], base_value=[0.0])
    a_lol(ratio="token", value="base_value")(token_logp=logp, **fields).backward()
    assert logp.grad.tolist() == pytest.approx([-math.exp(0.5), -1.9])
    assert a_lol(ratio="token").terms[0].score.weights == token_importance(0.9)


def test_a_lol_stays_finite_without_a_clip():
    fields = {"ref_logp": torch.tensor([-1e9]), "reward": torch.tensor([1.0]), "base_value": torch.tensor([0.0])}
    logp = torch.tensor([-1e8], requires_grad=True)  # float32
    loss = a_lol(value="base_value", clip=None)(logp=logp, **fields)
    loss.backward()
    assert loss.isfinite()
    assert logp.grad.isfinite().all()


def test_a_lol_penalty_lowers_every_logged_response_alike():
    assert lol(-1.0, -1.0, kl=0.3, ratio="none") == pytest.approx(-1.0 + 0.3)


def test_dro_v_gradients_are_the_definitions_for_policy_and_value():
    fields = row(ref_logp=[-2.0, -2.0], reward=[2.0, 0.5])
    logp, value = (torch.tensor(v, dtype=F64, requires_grad=True) for v in ([-1.0, -4.0], [0.5, 0.25]))
    dro_v(tau=0.5)(logp=logp, value=value, **fields).backward()
    residual = [2.0 - 0.5 - 0.5 * 1.0, 0.5 - 0.25 + 0.5 * 2.0]
    assert logp.grad.tolist() == pytest.approx([-0.5 * u / 2 for u in residual])
    assert value.grad.tolist() == pytest.approx([-u / 2 for u in residual])


def test_dro_v_reaches_the_rlhf_optimum_and_the_soft_value_from_unpaired_responses():
    generator, tau = torch.Generator().manual_seed(6), 0.4
    ref = torch.randn(5, generator=generator, dtype=F64).log_softmax(0)
    reward = torch.randn(5, generator=generator, dtype=F64)
    found = torch.zeros(6, dtype=F64, requires_grad=True)

    def loss():
        return dro_v(tau=tau)(logp=found[:5].log_softmax(0), ref_logp=ref, reward=reward, value=found[5:].expand(5))

    minimise(loss, found)
    assert torch.allclose(found.detach()[:5].softmax(0), (ref + reward / tau).softmax(0), atol=1e-7)
    assert found[5].item() == pytest.approx((tau * torch.logsumexp(ref + reward / tau, 0)).item(), abs=1e-7)


def test_desirable_and_undesirable_are_read_from_labels_alone():
    batch = Batch(row(logp=[0.0] * 3, label=[1.0, 0.0, math.nan], weight=[2.0, 3.0, 5.0]))
    assert point("desirable").weight(batch).tolist() == [2.0, 0.0, 0.0]
    assert point("undesirable").weight(batch).tolist() == [0.0, 3.0, 0.0]
    with pytest.raises(ConfigError, match="needs the column 'label'"):
        point("desirable").weight(replace(batch, items={"logp": batch.items["logp"]}))
