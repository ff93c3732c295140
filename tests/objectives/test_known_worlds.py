"""Tabular policies with known optima: one prompt or a few, every response listed, minimised to the end in float64."""

import math

import pytest
import torch
from worlds import OPEN, all_pairs, minimise

from unipref.core.batch import Batch, Clock
from unipref.objectives import as_objective, cdpo, dpo, dpo_robust, ipo, modpo, upo


class Bandit:
    """K responses to one prompt, a reference policy, a preference reward and a designer's reward."""

    def __init__(self, seed=0, n=5):
        generator = torch.Generator().manual_seed(seed)
        self.ref = torch.randn(n, generator=generator, dtype=torch.float64).log_softmax(0)
        self.preferred = torch.randn(n, generator=generator, dtype=torch.float64)
        self.reward = torch.rand(n, generator=generator, dtype=torch.float64)
        self.length = torch.randint(1, 9, (n,), generator=generator)
        self.logits = torch.zeros(n, dtype=torch.float64, requires_grad=True)
        self.pairs = all_pairs(n)

    def batch(self, probability=None, **columns):
        """All responses, and all pairs where `probability` (P,) of the first being preferred is given."""
        items = {"logp": self.logits.log_softmax(0), "ref_logp": self.ref, "reward": self.reward, "len": self.length}
        pairs = {}
        if probability is not None:
            pairs = {"chosen": self.pairs[:, 0], "rejected": self.pairs[:, 1], "preference": probability}
        return Batch({**items, **columns}, pairs, clock=OPEN)

    def bradley_terry(self, reward=None):
        """(P,) exact probabilities."""
        reward = self.preferred if reward is None else reward
        return torch.sigmoid(reward[self.pairs[:, 0]] - reward[self.pairs[:, 1]])

    def fit(self, method, **batch):
        """The policy (K,) at the minimum."""
        objective = as_objective(method)
        minimise(lambda: objective.loss(self.batch(**batch)).total, self.logits)
        return self.logits.detach().softmax(0)


def total_variation(p, q):
    return (p - q).abs().sum().item() / 2


def test_dpo_with_soft_labels_reaches_the_rlhf_optimum():
    world, beta = Bandit(1), 0.3
    policy = world.fit(dpo(beta=beta), probability=world.bradley_terry())
    assert total_variation(policy, (world.ref + world.preferred / beta).softmax(0)) < 1e-8
    p = world.bradley_terry()
    i, j = world.pairs.T
    log_ratio = torch.log(policy[i] / policy[j]) - (world.ref[i] - world.ref[j])
    assert torch.allclose(log_ratio, torch.logit(p) / beta, atol=1e-6)


def test_ipo_reaches_its_closed_form_on_preferences_that_add_up():
    # p_ij = 1/2 + (u_i - u_j) / 2, so the loss is least at dh = (2 p - 1) / (2 tau) in every pair at once
    world, tau = Bandit(2), 0.2
    u = world.reward
    i, j = world.pairs.T
    policy = world.fit(ipo(tau=tau), probability=0.5 + (u[i] - u[j]) / 2)
    assert total_variation(policy, (world.ref + u / (2 * tau)).softmax(0)) < 1e-8


def test_cdpo_stops_at_the_logit_of_the_flip_rate_where_dpo_never_stops():
    world = Bandit(3, n=2)
    sure = torch.ones(1, dtype=torch.float64)
    policy = world.fit(cdpo(beta=0.5, flip=0.2), probability=sure)
    lead = torch.log(policy[0] / policy[1]) - (world.ref[0] - world.ref[1])
    assert lead.item() == pytest.approx(math.log(0.8 / 0.2) / 0.5, abs=1e-6)
    loss = as_objective(dpo(beta=0.5)).loss(world.batch(probability=sure)).total
    (slope,) = torch.autograd.grad(loss, world.logits)
    assert slope[0] < 0 < slope[1]


def test_robust_dpo_averages_to_the_clean_loss_over_flipped_labels():
    world = Bandit(4)
    world.logits.data = world.preferred.clone()
    clean = torch.ones(len(world.pairs), dtype=torch.float64)
    flip = 0.3
    robust = as_objective(dpo_robust(beta=0.7, flip=flip))
    mean = (1 - flip) * robust.loss(world.batch(clean)).total + flip * robust.loss(world.batch(1 - clean)).total
    assert mean.item() == pytest.approx(as_objective(dpo(beta=0.7)).loss(world.batch(clean)).total.item(), abs=1e-14)


@pytest.mark.parametrize(("w0", "w1", "w2"), [(1.0, 0.0, 0.0), (0.5, 0.25, 0.25), (0.2, 0.7, 0.1)])
def test_modpo_reaches_the_optimum_of_the_weighted_sum_of_rewards(w0, w1, w2):
    world, beta = Bandit(5), 0.5
    other = torch.linspace(-1, 1, 5, dtype=torch.float64)
    method = modpo(beta=beta, w0=w0, weights={"reward": w1, "other": w2})
    policy = world.fit(method, probability=world.bradley_terry(), other=other)
    best = (world.ref + (w0 * world.preferred + w1 * world.reward + w2 * other) / beta).softmax(0)
    assert total_variation(policy, best) < 1e-3


def test_upo_with_base_margin_on_dpo_reaches_the_optimum_of_both_rewards():
    world, beta, alpha = Bandit(6), 0.4, 1.5
    method = upo(base="dpo", base_options={"beta": beta}, gamma=0.0, base_margin=alpha, value="none")
    policy = world.fit(method, probability=world.bradley_terry())
    assert total_variation(policy, (world.ref + (world.preferred + alpha * world.reward) / beta).softmax(0)) < 1e-8


@pytest.mark.parametrize(("norm", "length_bias"), [("sum", 0.0), ("mean", 1.0)])
def test_the_auxiliary_term_alone_reaches_ref_times_e_to_lambda_R_and_its_mean_form_divides_by_length(
    norm, length_bias
):
    world, lam = Bandit(7, n=6), 2.0
    (auxiliary,) = (t for t in upo(base="dpo", lam=lam, norm=norm, value="none").terms if t.role == "auxiliary")
    policy = world.fit(auxiliary, weight=world.ref.exp())
    best = world.ref + lam * world.reward - length_bias * world.length.double().log()
    assert total_variation(policy, best.softmax(0)) < 1e-8


def value_term(**options):
    """The value term of UPO as an objective of its own, with coefficient 1."""
    (term,) = (t for t in upo(base="dpo", value_coefficient=1.0, **options).terms if t.role == "state")
    return as_objective(term)


def fitted_value(world, **options):
    value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    objective = value_term(**options)
    batch = world.batch(weight=world.ref.exp())

    def loss():
        return objective.loss(Batch({**batch.items, "value": value.expand(len(world.ref))})).total

    minimise(loss, value)
    return value.item()


def test_the_expectile_one_half_is_the_mean_and_towards_one_it_is_the_maximum():
    world = Bandit(8)
    assert fitted_value(world, tau=0.5) == pytest.approx((world.ref.exp() * world.reward).sum().item(), abs=1e-8)
    # first-order condition at tau: the two sides of the value balance
    v = fitted_value(world, tau=0.9)
    residual = world.reward - v
    balance = torch.where(residual > 0, 0.9 * residual, 0.1 * residual) * world.ref.exp()
    assert abs(balance.sum().item()) < 1e-9
    assert world.reward.max().item() - fitted_value(world, tau=1 - 1e-7) < 1e-3


def test_the_soft_value_makes_the_mean_weight_one_and_the_mean_value_makes_it_larger():
    world, lam = Bandit(9), 3.0
    weight = world.ref.exp()
    soft = fitted_value(world, value="soft", lam=lam)
    assert soft == pytest.approx(math.log((weight * torch.exp(lam * world.reward)).sum().item()) / lam, abs=1e-8)
    assert (weight * torch.exp(lam * (world.reward - soft))).sum().item() == pytest.approx(1, abs=1e-8)
    mean = (weight * world.reward).sum()
    assert (weight * torch.exp(lam * (world.reward - mean))).sum().item() > 1


def test_the_soft_value_at_lambda_zero_is_the_mean():
    world = Bandit(10)
    assert fitted_value(world, value="soft", lam=0.0) == pytest.approx(
        (world.ref.exp() * world.reward).sum().item(), abs=1e-8
    )


class Toy:
    """8 prompts, 12 responses, a designer's reward that conflicts with the preferences, 4,000 labelled pairs."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)
        shape = (8, 12)
        self.ref = torch.randn(shape, generator=self.generator).log_softmax(1)
        self.preferred = torch.randn(shape, generator=self.generator)
        self.reward = torch.sigmoid(-self.preferred + torch.randn(shape, generator=self.generator))
        prompt = torch.randint(0, 8, (4000,), generator=self.generator)
        two = torch.multinomial(self.ref[prompt].exp(), 2, replacement=True, generator=self.generator)
        r = self.preferred[prompt].gather(1, two)
        first = torch.rand(4000, generator=self.generator) < torch.sigmoid(r[:, 0] - r[:, 1])
        self.prompt = prompt
        self.chosen, self.rejected = torch.where(first, two[:, 0], two[:, 1]), torch.where(first, two[:, 1], two[:, 0])

    def train(self, objective, steps=1200, size=64):
        """E[R], E[r_p] and KL to the reference after training on batches of pairs, KTO's way."""
        objective = as_objective(objective)
        draws = torch.Generator().manual_seed(0)
        table = self.ref.clone().requires_grad_()
        value = torch.zeros(8, requires_grad=True)
        optimiser = torch.optim.RMSprop([table, value], lr=0.02)
        label = torch.cat([torch.ones(size), torch.zeros(size)])
        for step in range(steps):
            rows = torch.randint(0, 4000, (size,), generator=draws)
            x = self.prompt[rows].repeat(2)
            y = torch.cat([self.chosen[rows], self.rejected[rows]])
            log_policy = table.log_softmax(1)
            other = y.roll(1)
            mismatched = Batch({"logp": log_policy[x, other], "ref_logp": self.ref[x, other]})
            statistics = {s.name: s.value(*s.sums(mismatched)) for s in objective.statistics}
            items = {"logp": log_policy[x, y], "ref_logp": self.ref[x, y], "label": label, "len": torch.ones(2 * size)}
            items |= {"reward": self.reward[x, y], "value": value[x]}
            loss = objective.loss(Batch(items, statistics=statistics, clock=Clock(step, steps))).total
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        policy = table.detach().log_softmax(1)
        p = policy.exp()
        measured = ((p * self.reward).sum(1), (p * self.preferred).sum(1), (p * (policy - self.ref)).sum(1))
        return tuple(m.mean().item() for m in measured)


@pytest.mark.parametrize("seed", range(3))
def test_upo_gains_designer_reward_over_its_lambda_zero_control_and_stays_nearer_the_reference_than_kto(seed):
    # gamma is small because a response here is one token: the auxiliary gradient is |y| times that of real text
    world = Toy(seed)
    options = {"base": "kto", "gamma": 0.003, "warmup_steps": 100}
    kto_reward, _, kto_kl = world.train(upo(**options | {"gamma": 0.0}))
    control_reward, _, _ = world.train(upo(**options, lam=0.0))
    upo_reward, _, upo_kl = world.train(upo(**options, lam=5.0))
    assert upo_reward - control_reward > 0.03
    assert upo_reward > kto_reward
    assert upo_kl < kto_kl
