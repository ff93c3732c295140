"""Where each method's population loss is least, against its closed form: tables of a few responses, and single leads.

`docs/claims.md` lists what is shown here, from the rows of `claims.py`.
"""

import math

import pytest
import torch
from test_known_worlds import Bandit, total_variation
from test_points import Arms
from worlds import minimise

from unipref.core.batch import Batch
from unipref.objectives import (
    a_lol,
    ada_dpo,
    ada_reward,
    as_objective,
    bt,
    cdpo,
    cpo,
    crpo_creative,
    dpo,
    dpo_2d,
    dpo_length_reg,
    dpo_robust,
    dpo_sft,
    dpo_shift,
    dpop,
    dr_dpo,
    flex_dpo,
    ipo,
    kto,
    ln_dpo,
    minor_dpo,
    modpo,
    mrpo,
    odpo,
    orpo,
    rpo,
    rso,
    sft,
    simpo,
    slic,
    step_dpo,
    svpo,
    typo,
)

F64 = torch.float64
BETA = 0.4
LENGTHS = torch.tensor([6, 1, 4, 2, 3])


def world(seed=20):
    found = Bandit(seed)
    found.length = LENGTHS
    return found


def normalised_at(ref, utility, scale):
    """(K,) the log-probabilities ref + scale * (utility + c), with the one c for which they are normalised."""
    low, high = -100.0, 100.0
    for _ in range(200):
        c = (low + high) / 2
        low, high = (c, high) if (ref + scale * (utility + c)).logsumexp(0) < 0 else (low, c)
    return ref + scale * (utility + low)


# ---------------------------------------------------------------- a table of responses


SCORES = {
    "diversity": torch.tensor([0.9, 0.1, 0.5, 0.3, 0.7], dtype=F64),
    "novelty": torch.tensor([0.2, 0.8, 0.4, 0.6, 1.0], dtype=F64),
    "quality": torch.tensor([0.5, 0.5, 0.9, 0.1, 0.3], dtype=F64),
    "surprise": torch.tensor([0.1, 0.7, 0.2, 0.9, 0.4], dtype=F64),
}
SECOND = torch.tensor([0.1, -0.4, 1.2, -2.0, 0.3], dtype=F64).log_softmax(0)
SEGMENT_SCORES = torch.tensor([3.0, 1.0, 2.0, 0.5, 1.5], dtype=F64)


def biased(found):
    """Preferences of annotators for whom a token more is worth 0.2."""
    return found.bradley_terry(found.preferred + 0.2 * found.length)


def flipped(found):
    """Preferences of which one in five is recorded the wrong way round."""
    return 0.2 + 0.6 * found.bradley_terry()


def harmonic(found):
    """The mixture of both references in which the smaller probability says more."""
    return -torch.logaddexp(math.log(0.3) - SECOND, math.log(0.7) - found.ref)


TABLES = {
    "cpo, without a reference: e^(u / beta)": (
        cpo(beta=BETA, alpha=0.0),
        {},
        lambda w: w.preferred / BETA,
    ),
    "dpo_robust, labels of which 1 in 5 is flipped: ref e^(u / beta)": (
        dpo_robust(beta=BETA, flip=0.2),
        {"probability": flipped},
        lambda w: w.ref + w.preferred / BETA,
    ),
    "dpo, the same labels: less than that": (
        dpo(beta=BETA),
        {"probability": lambda w: torch.sigmoid(0.3 * (w.preferred[w.pairs[:, 0]] - w.preferred[w.pairs[:, 1]]))},
        lambda w: w.ref + 0.3 * w.preferred / BETA,
    ),
    "dpo_length_reg, annotators who like length: ref e^(u / beta)": (
        dpo_length_reg(beta=BETA, alpha=0.2),
        {"probability": biased},
        lambda w: w.ref + w.preferred / BETA,
    ),
    "dpo, the same annotators: ref e^((u + 0.2 |y|) / beta)": (
        dpo(beta=BETA),
        {"probability": biased},
        lambda w: w.ref + (w.preferred + 0.2 * w.length) / BETA,
    ),
    "ln_dpo: log-ratios are |y| (u + c) / beta": (
        ln_dpo(beta=BETA),
        {},
        lambda w: normalised_at(w.ref, w.preferred, w.length / BETA),
    ),
    "simpo, margin 0: log-probabilities are |y| (u + c) / beta": (
        simpo(beta=BETA, gamma=0.0),
        {},
        lambda w: normalised_at(torch.zeros(5, dtype=F64), w.preferred, w.length / BETA),
    ),
    "mrpo, fixed shares: harmonic mixture times e^(u / beta)": (
        mrpo(beta=BETA, alpha=0.3, epsilon=None, weight_on="own"),
        {"ref_logp.1": lambda w: SECOND},
        lambda w: harmonic(w) + w.preferred / BETA,
    ),
    "crpo_creative: ref (s e^u)^(1 / beta), s the mean score": (
        crpo_creative(beta=BETA),
        {name: lambda w, value=value: value for name, value in SCORES.items()},
        lambda w: w.ref + (w.preferred + (sum(SCORES.values()) / 4).log()) / BETA,
    ),
    "odpo, equal scores: ref e^(u / beta)": (
        odpo(beta=BETA),
        {"reward": lambda w: torch.ones(5, dtype=F64)},
        lambda w: w.ref + w.preferred / BETA,
    ),
    "step_dpo: ref e^(u / beta)": (step_dpo(beta=BETA), {}, lambda w: w.ref + w.preferred / BETA),
    "dpo_2d, one segment a response: log-ratios are (u + c) / (beta r)": (
        dpo_2d(beta=BETA),
        {"segment_score": lambda w: SEGMENT_SCORES},
        lambda w: normalised_at(w.ref, w.preferred, 1 / (BETA * SEGMENT_SCORES)),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_population_loss_of_a_table_is_least_at_its_closed_form(name):
    method, columns, expected = TABLES[name]
    found, objective = world(), as_objective(method)
    given = {key: make(found) for key, make in columns.items()}
    given.setdefault("probability", found.bradley_terry())

    def loss():
        batch = found.batch(**given)
        one = {"item": torch.arange(5), **batch.items, "segment": torch.zeros(5)}  # a response is one token
        tokens = {key: one[key] for key in ("item", *objective.token_needs)} if objective.token_needs else {}
        return objective.loss(Batch(batch.items, batch.pairs, tokens, clock=batch.clock)).total

    minimise(loss, found.logits)
    assert total_variation(found.logits.detach().softmax(0), expected(found).softmax(0)) < 1e-6


def test_ipo_on_a_certain_order_leaves_log_ratios_of_wins_less_losses_over_2_K_tau_where_dpo_runs_away():
    found, tau = world(), 0.5
    sure = torch.ones(10, dtype=F64)  # every response beats every later one
    policy = found.fit(ipo(tau=tau), probability=sure)
    wins_less_losses = torch.tensor([4.0, 2.0, 0.0, -2.0, -4.0], dtype=F64)
    assert total_variation(policy, (found.ref + wins_less_losses / (2 * 5 * tau)).softmax(0)) < 1e-6
    loss = as_objective(dpo(beta=tau)).loss
    found.logits.data = found.ref + 100 * wins_less_losses
    far = loss(found.batch(probability=sure)).total
    found.logits.data = found.ref + wins_less_losses
    assert far < 1e-12 < loss(found.batch(probability=sure)).total


def test_likelihood_reaches_the_shares_of_the_data_by_tokens_and_divides_them_by_length_by_responses():
    share = torch.tensor([0.1, 0.3, 0.2, 0.25, 0.15], dtype=F64)
    by_token = world().fit(sft(per="token"), weight=share)
    by_response = world().fit(sft(), weight=share)
    assert total_variation(by_token, share) < 1e-6
    assert total_variation(by_response, (share / LENGTHS) / (share / LENGTHS).sum()) < 1e-6


def test_a_lol_without_its_ratio_reaches_ref_times_positive_advantage_and_with_it_has_the_policy_gradient():
    found = world()
    value = torch.full((5,), found.reward.median().item(), dtype=F64)
    gain = (found.reward - value).clamp(min=0)
    columns = {"weight": found.ref.exp(), "baseline": value}
    found.logits.data = torch.linspace(-1, 1, 5, dtype=F64)
    whole = as_objective(a_lol(ratio="sequence", clip=None, value="baseline"))
    (slope,) = torch.autograd.grad(whole.loss(found.batch(**columns)).total, found.logits)
    (exact,) = torch.autograd.grad(-(found.logits.softmax(0) * gain).sum(), found.logits)
    assert torch.allclose(slope, exact, atol=1e-12)
    # responses of no advantage go to 0, which a finite table only comes near to
    plain = as_objective(a_lol(ratio="none", value="baseline"))
    minimise(lambda: plain.loss(found.batch(**columns)).total, found.logits)
    goal = found.ref.exp() * gain
    assert total_variation(found.logits.detach().softmax(0), goal / goal.sum()) < 1e-3


# ---------------------------------------------------------------- the lead of one response over another


def at_rest(loss, low=-60.0, high=60.0):
    """The lead at which descent on `loss` comes to rest: where its slope changes sign."""
    for _ in range(60):
        lead = torch.tensor([(low + high) / 2], dtype=F64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(lead), lead)
        low, high = (lead.item(), high) if slope < 0 else (low, lead.item())
    return low


def loss_of_lead(method, p, **columns):
    """The loss of one pair, of which the first response is preferred with probability `p`, as a function of its lead.

    `columns` are (first, second). The lead is in log-probability, and in the reward head where there is one.
    """
    fields = {
        f"{n}_{s}": torch.tensor([-90.0], dtype=F64) for n in ("logp", "ref_logp") for s in ("chosen", "rejected")
    }
    fields |= {f"len_{s}": torch.tensor([1]) for s in ("chosen", "rejected")}
    for name, (first, second) in columns.items():
        fields |= {f"{name}_chosen": torch.tensor([first], dtype=F64)}
        fields |= {f"{name}_rejected": torch.tensor([second], dtype=F64)}
    fields["preference"] = torch.tensor([p], dtype=F64)

    def loss(lead):
        heads = {"reward_head_chosen": lead, "reward_head_rejected": torch.zeros(1, dtype=F64)}
        return method(**{**fields, "logp_chosen": lead - 90.0}, **heads)

    return loss


def logit(p):
    return math.log(p / (1 - p))


def asked_of_both(p, gamma):
    """The margin z at rest where the preferred response, whichever it is, has to lead by gamma."""
    c = math.exp(-gamma)
    return math.log((2 * p - 1 + math.sqrt((1 - 2 * p) ** 2 + 4 * p * (1 - p) * c * c)) / (2 * (1 - p) * c))


def asked_of_first(p, gamma):
    """The margin z at rest where only the first response, when preferred, has to lead by gamma."""
    c = math.exp(gamma)
    return math.log(c * (2 * p - 1 + math.sqrt((1 - 2 * p) ** 2 + 4 * p * (1 - p) / c)) / (2 * (1 - p)))


B = 0.5
LEADS = [
    (dpo(beta=B), 0.7, {}, logit(0.7) / B),
    (cdpo(beta=B, flip=0.2), 0.7, {}, logit(0.7 * 0.8 + 0.3 * 0.2) / B),
    (dpo_robust(beta=B, flip=0.2), 0.7 * 0.8 + 0.3 * 0.2, {}, logit(0.7) / B),
    (ipo(tau=B), 0.7, {}, (2 * 0.7 - 1) / (2 * B)),
    (rpo(beta=B), 0.5, {"reward": (1.5, 0.3)}, (1.5 - 0.3) / B),
    (
        modpo(beta=B, w0=0.25, weights={"reward": 0.75}),
        0.7,
        {"reward": (1.5, 0.3)},
        (0.25 * logit(0.7) + 0.75 * 1.2) / B,
    ),
    # half of the offset that a certain label would have, at an even one
    (odpo(beta=B), 0.5, {"reward": (4.0, 1.0)}, math.log(3) / 2 / B),
    (odpo(beta=B), 0.7, {"reward": (4.0, 1.0)}, asked_of_first(0.7, math.log(3)) / B),
    # a margin asked of whichever response is preferred pulls an even pair nowhere, and an uneven one further
    (simpo(beta=B, gamma=1.0), 0.5, {}, 0.0),
    (simpo(beta=B, gamma=1.0), 0.7, {}, asked_of_both(0.7, 1.0) / B),
    # hinges keep the majority and not its size
    (rso(gamma=B), 0.7, {}, 1 / B),
    (rso(gamma=B), 0.95, {}, 1 / B),
    (slic(delta=3.0, lam=0.0), 0.7, {}, 3.0),
    (slic(delta=3.0, lam=0.0), 0.3, {}, -3.0),
    # neither lets the response preferred less often fall below its reference
    (minor_dpo(beta=B), 0.7, {}, logit(0.7) / B),
    (minor_dpo(beta=B), 0.3, {}, 0.0),
    (dpop(beta=B, lam=50.0), 0.7, {}, logit(0.7) / B),
    (dpop(beta=B, lam=50.0), 0.3, {}, 0.0),
    # a temperature of 0.1 below sigmoid(c) = 0.72 and the upper bound above it
    (ada_dpo(beta=B), 0.6, {}, 0.1 * logit(0.6) / B),
    (ada_dpo(beta=B), 0.9, {}, 5.0 * logit(0.9) / B),
    (bt(), 0.7, {}, logit(0.7)),
    (bt(temperature=2.0), 0.7, {}, 2.0 * logit(0.7)),
    (bt(margin=1.0), 0.7, {}, asked_of_both(0.7, 1.0)),
    (bt(margin=1.0), 0.5, {}, 0.0),
    (ada_reward(), 0.6, {}, 0.1 * logit(0.6)),
    (ada_reward(), 0.9, {}, 1.0 * logit(0.9)),
]


@pytest.mark.parametrize(("method", "p", "columns", "lead"), LEADS, ids=repr)
def test_the_lead_of_a_response_comes_to_rest_at_its_closed_form(method, p, columns, lead):
    assert at_rest(loss_of_lead(method, p, **columns)) == pytest.approx(lead, abs=1e-9)


@pytest.mark.parametrize(("gamma", "moved"), [(0.1, 0.025), (0.0, 0.0)])
def test_svpos_values_of_two_steps_share_what_is_missing_to_the_margin(gamma, moved):
    values, still = torch.tensor([0.5, 0.45], dtype=F64), torch.zeros(1, dtype=F64)
    fields = {f"{n}_{s}": still for n in ("logp", "ref_logp") for s in ("chosen", "rejected")}
    fields |= {"q_chosen": values[:1], "q_rejected": values[1:]}
    by = at_rest(
        lambda d: svpo(gamma=gamma)(step_value_chosen=values[:1] + d, step_value_rejected=values[1:] - d, **fields)
    )
    assert by == pytest.approx(moved, abs=1e-9)


@pytest.mark.parametrize(("beta_prime", "factor"), [(2.0, 2.0), (5.0, 1.25), (1.0, math.inf)])
def test_dr_dpo_on_labels_that_are_right_with_chance_p_rests_at_dpos_lead_times_b_over_b_less_1(beta_prime, factor):
    p, both = 0.7, torch.zeros(2, dtype=F64)
    fields = {"ref_logp_chosen": both, "logp_rejected": both, "ref_logp_rejected": both}
    fields |= {"preference": torch.tensor([1.0, 0.0], dtype=F64), "weight": torch.tensor([p, 1 - p], dtype=F64)}
    lead = at_rest(lambda x: dr_dpo(beta=B, beta_prime=beta_prime)(logp_chosen=x.expand(2), **fields), high=30.0)
    assert lead == pytest.approx(min(30.0, factor * logit(p) / B), abs=1e-6)  # without an end where b = 1


def test_kto_always_ends_with_the_response_desired_more_often_and_dpo_need_not():
    ref, p, beta = torch.tensor([0.1, 0.9], dtype=F64).log(), 0.6, 1.0

    def loss(share):
        logp = torch.tensor([share, 1 - share], dtype=F64).log().repeat(2)
        fields = {"label": [1.0, 1.0, 0.0, 0.0], "weight": [p, 1 - p, 1 - p, p]}
        fields = {name: torch.tensor(value, dtype=F64) for name, value in fields.items()}
        return kto(beta=beta)(logp=logp, ref_logp=ref.repeat(2), kl_baseline=torch.tensor(0.0), **fields).item()

    losses = [loss(share) for share in torch.linspace(0.01, 0.99, 99).tolist()]
    assert losses == sorted(losses, reverse=True)
    found = Bandit(0, n=2)
    found.ref = ref
    policy = found.fit(dpo(beta=beta), probability=torch.tensor([p], dtype=F64))
    assert policy[0].item() == pytest.approx(1 / 7, abs=1e-8)  # (1/9)(3/2) against 1


# ---------------------------------------------------------------- what has nothing to say should change nothing


SILENT = {
    "dpo": (dpo(beta=BETA), 0.0),
    "cdpo": (cdpo(beta=BETA), 0.0),
    "dpo_robust": (dpo_robust(beta=BETA), 0.0),
    "ipo": (ipo(tau=BETA), 0.0),
    "ln_dpo": (ln_dpo(beta=BETA), 0.0),
    "odpo": (odpo(beta=BETA), 0.0),
    "modpo": (modpo(beta=BETA), 0.0),
    "dpo_length_reg": (dpo_length_reg(beta=BETA, alpha=0.2), 0.338),
    "dpo_shift": (dpo_shift(beta=BETA), 0.225),
    "flex_dpo": (flex_dpo(beta_rejected=0.05), 0.394),
    "dpo_sft": (dpo_sft(beta=BETA), 0.459),
    "cpo": (cpo(beta=BETA), 0.516),
    "simpo": (simpo(), 0.614),
    "orpo": (orpo(), 0.534),
}


@pytest.mark.parametrize("key", SILENT)
def test_how_far_even_labels_alone_move_a_policy_from_its_reference(key):
    method, expected = SILENT[key]
    found = world()
    even = torch.full((10,), 0.5, dtype=F64)
    policy = found.fit(method, probability=even, reward=torch.zeros(5, dtype=F64))
    assert total_variation(policy, found.ref.exp()) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("lam", [0.1, 1.0, 10.0])
def test_typo_keeps_a_reference_that_explains_the_preferences_already_and_dpo_sharpens_it(lam):
    found = Arms()
    found.best = found.ref
    assert torch.allclose(found.fit(typo(lam=lam)), found.ref, atol=1e-8)
    sharper = found.ref ** (1 + 1 / lam)
    assert torch.allclose(found.fit(dpo(beta=lam)), sharper / sharper.sum(), atol=1e-6)
