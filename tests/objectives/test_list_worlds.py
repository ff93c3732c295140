"""Lists in tabular worlds: optima that list losses reach, and how exact EXO's gradient is."""

from itertools import permutations

import pytest
import torch
from worlds import all_pairs, minimise

from unipref.core.batch import Batch
from unipref.objectives import as_objective, cross_entropy, dpo, exo, infonca, kl_fwd, lipo, nca, pl_dpo, rpo


class Prompt:
    """One prompt, `n` responses, a reference and a reward."""

    def __init__(self, seed, n=4):
        generator = torch.Generator().manual_seed(seed)
        self.ref = torch.randn(n, generator=generator, dtype=torch.float64).log_softmax(0)
        self.reward = torch.rand(n, generator=generator, dtype=torch.float64)
        self.logits = torch.zeros(n, dtype=torch.float64, requires_grad=True)

    def batch(self, records=1, pairs=None, **columns):
        """All responses, in each of `records`."""
        n = len(self.ref)
        items = {"logp": self.logits.log_softmax(0), "ref_logp": self.ref, "reward": self.reward}
        items = {name: value.repeat(records) for name, value in items.items()}
        items["group"] = torch.arange(records).repeat_interleave(n)
        return Batch({**items, **columns}, pairs or {})

    def fit(self, method, **batch):
        objective = as_objective(method)
        minimise(lambda: objective.loss(self.batch(**batch)).total, self.logits)
        return self.logits.detach().softmax(0)


BETA = 0.4


@pytest.mark.parametrize(
    ("method", "temperature"),
    [
        (infonca(beta=BETA, alpha=0.5), 0.5),
        (exo(beta=BETA, beta_r=0.5), 0.5),
        (rpo(beta=BETA, eta=2.0, unit="group"), 0.5),
        (rpo(beta=BETA, eta=2.0, unit="group", distance="fwd"), 0.5),
        (rpo(beta=BETA, eta=2.0, unit="group", distance="sq"), 0.5),
        (lipo(beta=BETA, loss="softmax"), 1.0),
    ],
    ids=["infonca", "exo", "rpo-bwd", "rpo-fwd", "rpo-sq", "lipo-softmax"],
)
def test_rewards_of_all_responses_lead_to_the_rlhf_optimum(method, temperature):
    world = Prompt(1)
    policy = world.fit(method)
    assert torch.allclose(policy, (world.ref + world.reward / (temperature * BETA)).softmax(0), atol=1e-7)


def test_pl_dpo_on_rankings_drawn_by_their_probabilities_reaches_the_rlhf_optimum():
    world = Prompt(2)
    orders = torch.tensor(list(permutations(range(4))))  # (24, 4) the response at every place
    in_order = world.reward[orders]
    left = in_order.flip(1).logcumsumexp(1).flip(1)
    probability = (in_order - left).sum(1).exp()
    rank = (orders.argsort(1) + 1).double().flatten()
    policy = world.fit(pl_dpo(beta=BETA), records=24, rank=rank, weight=probability.repeat_interleave(4))
    assert torch.allclose(policy, (world.ref + world.reward / BETA).softmax(0), atol=1e-7)


def test_nca_with_every_response_free_stops_at_the_shares_of_its_target():
    world = Prompt(3)
    free = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    objective = as_objective(nca(beta=BETA, alpha=0.5))
    minimise(lambda: objective.loss(world.batch(logp=world.ref + free)).total, free)
    q = (world.reward / 0.5).softmax(0)
    assert torch.allclose(BETA * free.detach(), (4 * q).log(), atol=1e-8)


def test_a_small_reward_gap_leaves_a_small_margin_where_dpo_drives_it_on():
    world = Prompt(4, n=2)
    world.reward = torch.tensor([0.1, 0.0], dtype=torch.float64)
    pairs = {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])}
    for distance in ("bwd", "fwd", "sq"):
        policy = Prompt.fit(world, rpo(beta=BETA, distance=distance), pairs=pairs)
        margin = BETA * ((policy[0] / policy[1]).log() - (world.ref[0] - world.ref[1]))
        assert margin.item() == pytest.approx(0.1, abs=1e-6)
    optimiser = torch.optim.SGD([world.logits], lr=5.0)
    for _ in range(2000):
        optimiser.zero_grad()
        as_objective(dpo(beta=BETA)).loss(world.batch(pairs=pairs)).total.backward()
        optimiser.step()
    policy = world.logits.detach().log_softmax(0)
    assert BETA * (policy[0] - policy[1] - world.ref[0] + world.ref[1]).item() > 3


def test_every_pairs_rewards_lead_where_the_whole_lists_do():
    world = Prompt(5)
    i, j = all_pairs(4).T
    policy = world.fit(rpo(beta=BETA, eta=2.0), pairs={"chosen": i, "rejected": j})
    assert torch.allclose(policy, (world.ref + 2 * world.reward / BETA).softmax(0), atol=1e-7)


def test_exos_gradient_comes_to_that_of_the_rlhf_objective_as_samples_grow_and_cross_entropys_does_not():
    """200,000 responses sampled from the reference, in groups of k; cosine of their mean gradient with the exact one.

    Found in this world: .67, .81, .96, .997, 1.000 for k of 2, 4, 16, 64, 512; cross-entropy comes to .91.
    """
    generator = torch.Generator().manual_seed(0)
    n, beta = 10, 0.5
    ref, theta = (torch.randn(n, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    reward = torch.rand(n, generator=generator, dtype=torch.float64)
    leaf = theta.clone().requires_grad_()
    # with EXO's own beta of 1, so that the policy it regularises is the policy itself
    optimum = (ref + reward / beta).log_softmax(0)
    policy = leaf.log_softmax(0)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - optimum)).sum(), leaf)

    def cosine(link, k, n_samples=200_000):
        n_groups = n_samples // k
        of = torch.multinomial(ref.exp(), n_groups * k, replacement=True, generator=generator).view(n_groups, k)
        scores = (leaf.log_softmax(0) - ref)[of]
        goal = (reward / beta)[of]
        target = goal.softmax(1) if isinstance(link, cross_entropy) else goal
        loss = link.losses(scores, target, torch.ones_like(of, dtype=torch.bool)).mean()
        (slope,) = torch.autograd.grad(loss, leaf)
        return torch.cosine_similarity(slope, exact, dim=0).item()

    found = [cosine(kl_fwd(), k) for k in (2, 4, 16, 64, 512)]
    assert found == sorted(found)
    assert found[-1] > 0.999
    assert max(cosine(cross_entropy(), k) for k in (64, 512)) < 0.95
