"""Methods that shift or bend DPO's margin: by scores, lengths, sides, random tokens and earlier rewards."""

import math

import pytest
import torch
from test_known_worlds import Bandit, total_variation
from worlds import gradients, minimise, pair_fields

from unipref.core.batch import Batch, Clock
from unipref.core.errors import ConfigError
from unipref.objectives import (
    as_objective,
    dpo,
    dpo_length_reg,
    dpo_sft,
    dpo_shift,
    dpop,
    flex_dpo,
    ln_dpo,
    minor_dpo,
    odpo,
    ofs_dpo,
    random_subset,
    sgdpo,
    spo_sequential,
)
from unipref.objectives.randomness import uniform

SIDES = ("chosen", "rejected")


def number(x):
    return torch.tensor([x], dtype=torch.float64)


def one_pair(h_chosen, h_rejected, **further):
    """Fields of a pair with these log-ratios, and further numbers (chosen, rejected)."""
    fields = {}
    for side, h in zip(SIDES, (h_chosen, h_rejected), strict=True):
        fields |= {f"logp_{side}": number(-4.0 + h), f"ref_logp_{side}": number(-4.0)}
    return fields | {f"{k}_{s}": number(v) for k, vs in further.items() for s, v in zip(SIDES, vs, strict=True)}


def slopes(method, fields):
    """d loss / d logp of the chosen and of the rejected response."""
    _, (slope,) = gradients(as_objective(method), Batch.from_fields(**fields))
    return slope.tolist()


def softplus(x):
    return math.log1p(math.exp(x))


# odpo


def test_odpos_pull_at_a_margin_is_dpos_at_that_margin_less_the_offset():
    alpha, beta, gap = 0.7, 0.2, 3.0
    ours = slopes(odpo(beta=beta, alpha=alpha), one_pair(1.0, -0.5, reward=(4.0, 1.0)))
    theirs = slopes(dpo(beta=beta), one_pair(1.0 - alpha * math.log(gap) / beta, -0.5))
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(
    ("of", "rewards", "offset"),
    [
        ("log", (3.0, 1.0), math.log(2)),
        ("log", (1.5, 1.0), -math.log(2)),  # a gap below 1 makes the pair easier than DPO's
        ("log", (1.0, 1.0), 0.0),
        ("log", (1.0, 3.0), 0.0),
        ("log", (math.nan, 3.0), 0.0),
        ("log-ratio", (3.0, 1.0), math.log(3)),
        ("log-ratio", (3.0, -1.0), 0.0),
        ("identity", (3.0, 1.0), 2.0),
        ("identity", (1.0, 3.0), -2.0),
    ],
)
def test_odpos_offset_and_the_plain_loss_of_pairs_that_have_none(of, rewards, offset):
    loss = odpo(beta=0.1, alpha=1.0, of=of)(**one_pair(5.0, 2.0, reward=rewards))
    assert loss.item() == pytest.approx(softplus(-(0.3 - offset)), abs=1e-12)


def test_odpo_of_a_soft_label_asks_a_lead_of_the_better_scored_response_only():
    fields = one_pair(5.0, 2.0, reward=(3.0, 1.0)) | {"preference": number(0.75)}
    expected = 0.75 * softplus(-(0.3 - math.log(2))) + 0.25 * softplus(0.3)
    assert odpo()(**fields).item() == pytest.approx(expected, abs=1e-12)


def test_odpo_names_the_nearest_kind_of_offset():
    with pytest.raises(ConfigError, match="log-ratio"):
        odpo(of="log-ratios")


# lengths


def test_length_regularised_dpo_pays_alpha_over_beta_per_token_between_equally_liked_responses():
    world, alpha, beta = Bandit(7, n=3), 0.05, 0.4
    world.length = torch.tensor([9, 4, 1])
    policy = world.fit(dpo_length_reg(beta=beta, alpha=alpha), probability=torch.full((3,), 0.5, dtype=torch.float64))
    assert total_variation(policy, (world.ref - alpha * world.length / beta).softmax(0)) < 1e-8


def test_length_normalised_dpo_ignores_that_every_token_stands_twice():
    once = one_pair(1.0, -2.0, len=(3, 5))
    twice = {k: 2 * v if k.endswith("_chosen") else v for k, v in once.items()}
    assert ln_dpo()(**twice).item() == pytest.approx(ln_dpo()(**once).item(), abs=1e-12)
    assert dpo()(**twice) < dpo()(**once)


# sides


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_dpo_shift_gives_the_rejected_side_lam_times_the_chosen_ones_pull(lam):
    chosen, rejected = slopes(dpo_shift(lam=lam), one_pair(1.0, -2.0))
    assert chosen == pytest.approx(-0.1 / (1 + math.exp(0.1 * (1 + 2 * lam))), abs=1e-12)
    assert rejected == pytest.approx(-lam * chosen, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "at"), [("increase_linear", (0.5, 0.75, 1.0)), ("decrease_linear", (1.0, 0.75, 0.5))]
)
def test_dpo_shifts_schedules_run_from_end_to_end_by_optimiser_steps(schedule, at):
    for step, lam in zip((0, 5, 10), at, strict=True):
        fields = {k: v for k, v in pair_fields(70).items() if "logp" in k}
        scheduled = as_objective(dpo_shift(schedule=schedule))(**fields, clock=Clock(step, 10))
        assert scheduled.item() == pytest.approx(dpo_shift(lam=lam)(**fields).item(), abs=1e-12)


def test_dpo_shift_of_a_soft_label_shifts_whichever_response_is_rejected():
    fields = one_pair(1.0, -2.0) | {"preference": number(0.75)}
    expected = 0.75 * softplus(-0.1 * (1 + 0.7 * 2)) + 0.25 * softplus(-0.1 * (-2 - 0.7))
    assert dpo_shift()(**fields).item() == pytest.approx(expected, abs=1e-12)


def test_dpo_shift_refuses_a_rejected_side_that_counts_more():
    with pytest.raises(ConfigError, match="lam must be in"):
        dpo_shift(lam=1.5)


def test_minor_dpos_first_step_is_dpos():
    start = one_pair(0.0, 0.0)
    assert slopes(minor_dpo(), start) == slopes(dpo(), start) == [-0.05, 0.05]


@pytest.mark.parametrize(("h_rejected", "pushed"), [(0.5, True), (-0.5, False)])
def test_minor_dpo_pushes_a_rejected_response_only_above_its_reference(h_rejected, pushed):
    ours, theirs = (slopes(m, one_pair(1.0, h_rejected)) for m in (minor_dpo(), dpo()))
    assert (ours[1] != 0) == pushed
    assert (ours == theirs) == pushed
    assert minor_dpo()(**one_pair(1.0, h_rejected)) >= dpo()(**one_pair(1.0, h_rejected))


def rejected_after(method, steps=200, rate=5.0):
    """Log-ratios of a chosen and a rejected response of different prompts after descent from the reference."""
    h = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        loss = method(
            logp_chosen=h[:1] - 4, logp_rejected=h[1:] - 4, ref_logp_chosen=number(-4.0), ref_logp_rejected=number(-4.0)
        )
        (slope,) = torch.autograd.grad(loss, h)
        h.data -= rate * slope
    return h.tolist()


def test_minor_dpo_stops_within_a_step_below_the_reference_where_dpo_goes_on():
    chosen, rejected = rejected_after(minor_dpo())
    assert -5 * 0.1 / 2 <= rejected <= 0  # one step of rate 5 has at most slope beta / 2
    assert chosen > 10
    assert rejected_after(dpo())[1] < -10


@pytest.mark.parametrize("h_chosen", [0.5, -0.5])
def test_dpop_multiplies_a_fallen_chosen_responses_pull_by_1_plus_lam_and_leaves_a_risen_one_alone(h_chosen):
    chosen, rejected = slopes(dpop(lam=50.0), one_pair(h_chosen, -2.0))
    assert chosen == pytest.approx(-rejected * (51 if h_chosen < 0 else 1), rel=1e-12)
    expected = softplus(-0.1 * (h_chosen + 2 - 50 * max(0.0, -h_chosen)))
    assert dpop(lam=50.0)(**one_pair(h_chosen, -2.0)).item() == pytest.approx(expected, abs=1e-12)


def test_dpops_first_step_is_dpos():
    assert slopes(dpop(), one_pair(0.0, 0.0)) == slopes(dpo(), one_pair(0.0, 0.0))


class Shared:
    """A linear score over features that a prompt's responses share; chosen and rejected are much alike."""

    def __init__(self):
        generator = torch.Generator().manual_seed(71)
        self.features = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        self.features[1] = 0.9 * self.features[0] + 0.1 * self.features[1]  # 0 is chosen over 1; the others are neither
        self.ref = (0.3 * torch.randn(8, generator=generator, dtype=torch.float64)).log_softmax(0)

    def after(self, method, steps=300, rate=5.0):
        """(8,) log-ratios after descent."""
        theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
        for _ in range(steps):
            logp = (self.ref + self.features @ theta).log_softmax(0)
            loss = method(
                logp_chosen=logp[:1],
                logp_rejected=logp[1:2],
                ref_logp_chosen=self.ref[:1],
                ref_logp_rejected=self.ref[1:2],
                len_chosen=torch.tensor([1]),
                len_rejected=torch.tensor([1]),
            )
            (slope,) = torch.autograd.grad(loss, theta)
            theta.data -= rate * slope
        return (self.ref + self.features @ theta.detach()).log_softmax(0) - self.ref


@pytest.mark.parametrize(
    "method", [dpop(), dpo_shift(lam=0.5), flex_dpo(), dpo_sft(), minor_dpo()], ids=lambda m: repr(m)[:24]
)
def test_a_chosen_response_that_shares_its_features_ends_higher_than_under_dpo(method):
    world = Shared()
    plain, mended = world.after(dpo()), world.after(method)
    assert plain[0] < 0  # DPO displaces: the chosen response itself became less likely
    assert mended[0] > plain[0]


def test_dpo_moves_mass_to_responses_of_neither_side_and_its_regularised_forms_move_less():
    world = Shared()

    def gained(method):
        return ((world.ref + world.after(method)).exp() - world.ref.exp())[2:].sum().item()

    plain = world.after(dpo())
    assert plain[1] < plain[0] < 0  # the rejected response falls faster
    assert gained(dpo()) > 0
    assert gained(dpo()) > max(gained(flex_dpo()), gained(dpo_sft()))


def test_less_weight_on_the_rejected_side_buys_the_chosen_one_likelihood_with_margin():
    world = Shared()
    ends = [world.after(dpo_shift(lam=lam)) for lam in (1.0, 0.8, 0.6)]
    chosen, margins = [h[0].item() for h in ends], [(h[0] - h[1]).item() for h in ends]
    assert chosen == sorted(chosen)
    assert margins == sorted(margins, reverse=True)


# fast and slow


def pair_beside_partner(h, partner):
    fields = one_pair(h, 0.0)
    fields["ref_logp.partner_chosen"] = number(-4.0 + partner)
    fields["ref_logp.partner_rejected"] = number(-4.0)
    return fields


@pytest.mark.parametrize("h", [0.0, 50.0, 500.0])
def test_the_fast_module_is_pulled_by_half_lam_beta_at_equality_however_far_both_are(h):
    lam, beta = 0.6, 0.1
    coupled = slopes(ofs_dpo(beta=beta, lam=lam), pair_beside_partner(h, h))[0]
    plain = slopes(dpo(beta=beta), one_pair(h, 0.0))[0]
    assert coupled - plain == pytest.approx(-lam * beta / 2, abs=1e-12)


def test_the_slow_module_closes_the_gap_of_probabilities_and_rests_where_there_is_none():
    def closing(h, partner):
        with_partner = slopes(ofs_dpo(module="slow", lam=1.0), pair_beside_partner(h, partner))[0]
        return with_partner - slopes(dpo(), one_pair(h, 0.0))[0]

    q, p = 1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(-0.3))
    assert closing(1.0, 3.0) == pytest.approx(2 * (q - p) * q * (1 - q) * 0.1, abs=1e-12)
    assert closing(1.0, 3.0) < 0 < closing(3.0, 1.0)
    assert closing(2.0, 2.0) == pytest.approx(0, abs=1e-15)


# random tokens


def tokens_of(lengths, uid, step=0):
    item = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    items = {"logp": torch.zeros(len(lengths)), "uid": torch.tensor(uid), "len": torch.tensor(lengths)}
    return Batch(items, tokens={"item": item, "logp": torch.zeros(len(item))}, clock=Clock(step, 100))


@pytest.mark.parametrize("share", [0.0, 0.29, 0.7, 1.0])
def test_a_random_subset_has_exactly_floor_of_its_share_of_every_response(share):
    lengths = [0, 1, 7, 10, 100, 3]
    batch = tokens_of(lengths, list(range(6)))
    weights = random_subset(share, 1.0)(batch)
    counts = torch.zeros(6).index_add(0, batch.token("item"), weights - 1)
    assert counts.tolist() == [(round(100 * share) * n) // 100 for n in lengths]


def test_a_random_subset_is_the_same_in_any_batch_and_another_at_every_step_and_seed():
    part = random_subset(0.5, 1.0)
    both, alone = part(tokens_of([20, 30], [5, -9])), part(tokens_of([30], [-9]))
    assert torch.equal(both[20:], alone)
    assert not torch.equal(alone, part(tokens_of([30], [-9], step=1)))
    assert not torch.equal(alone, random_subset(0.5, 1.0, seed=1)(tokens_of([30], [-9])))
    assert not torch.equal(alone, part(tokens_of([30], [8])))


def test_every_token_is_drawn_as_often_as_any_other():
    # 2,000 steps of share 1/4: a count's deviation is 19.4; all of 20 within 5 of them but for 1e-5
    counts = sum(random_subset(0.25, 1.0)(tokens_of([20], [3], step)) - 1 for step in range(2000))
    assert ((counts - 500).abs() < 5 * 19.4).all()


def test_counted_numbers_are_uniform_and_do_not_follow_their_neighbours():
    draws = uniform(0, 0, torch.arange(100_000))
    assert draws.min() > 0
    assert draws.max() < 1
    # five deviations each: mean 1/2 +- 9.1e-4, correlation of neighbours 0 +- 3.2e-3
    assert abs(draws.mean().item() - 0.5) < 5 * 9.2e-4
    assert abs(torch.corrcoef(torch.stack([draws[1:], draws[:-1]]))[0, 1].item()) < 5 * 3.2e-3
    assert not torch.equal(
        uniform(0, 0, torch.tensor(1), torch.tensor(2)), uniform(0, 0, torch.tensor(2), torch.tensor(1))
    )


def sgdpo_pulls(r_chosen, r_rejected):
    """Sums over tokens of the gradient's size on either side, averaged over 20 steps, from the reference."""
    totals = [0.0, 0.0]
    for step in range(20):
        base = tokens_of([10, 10], [1, 2], step)
        logp = torch.full((20,), -1.0, requires_grad=True)
        items = {**base.items, "logp": torch.full((2,), -10.0)}
        pairs = {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])}
        tokens = {**base.tokens, "logp": logp, "ref_logp": torch.full((20,), -1.0)}
        batch = Batch(items, pairs, tokens, clock=base.clock)
        total = as_objective(sgdpo(r_chosen=r_chosen, r_rejected=r_rejected)).loss(batch).total
        (slope,) = torch.autograd.grad(total, logp)
        totals = [t + s.abs().sum().item() / 20 for t, s in zip(totals, (slope[:10], slope[10:]), strict=True)]
    return totals


def test_the_chosen_share_of_sgdpos_gradient_grows_with_both_ratios():
    ratios = [a / b for a, b in (sgdpo_pulls(*r) for r in ((0.0, 0.0), (0.3, 0.0), (0.3, 0.3), (0.6, 0.6)))]
    assert ratios == pytest.approx([1.0, 1.3, 1.3 / 0.7, 1.6 / 0.4], rel=1e-6)


def test_sgdpo_with_all_rejected_tokens_drawn_is_a_loss_of_the_chosen_response_alone():
    base = tokens_of([2, 2], [1, 2])
    pairs = {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])}
    tokens = {**base.tokens, "logp": torch.tensor([-1.0, -2.0, -5.0, -7.0]), "ref_logp": torch.full((4,), -3.0)}
    loss = as_objective(sgdpo(r_chosen=0.0, r_rejected=1.0)).loss(Batch(base.items, pairs, tokens)).total
    assert loss.item() == pytest.approx(softplus(-0.3), abs=1e-6)


# rounds


def test_a_pair_that_agrees_with_the_earlier_reward_starts_below_zero_and_pulls_harder():
    def start(agreement):
        fields = {f"{n}_{s}": number(-4.0) for n in ("logp", "ref_logp") for s in SIDES}
        fields |= {"ref_logp.0_chosen": number(-4.0 - agreement), "ref_logp.0_rejected": number(-4.0)}
        return spo_sequential(mu=(0.5,))(**fields).item(), slopes(spo_sequential(mu=(0.5,)), fields)[0]

    (loss, pull), (neutral, half), (easy, less) = start(2.0), start(0.0), start(-2.0)
    assert loss == pytest.approx(softplus(0.5 * 0.1 * 2), abs=1e-12)
    assert loss > neutral > easy
    assert pull < half < less < 0


def test_the_third_rounds_margin_takes_the_first_reward_out_of_the_second():
    generator = torch.Generator().manual_seed(72)
    names = ("logp", "ref_logp", "ref_logp.1", "ref_logp.0")
    table = {f"{n}_{s}": -torch.rand(1, generator=generator, dtype=torch.float64) * 9 for n in names for s in SIDES}
    now, two, one, start = (table[f"{n}_chosen"] - table[f"{n}_rejected"] for n in names)
    first = 0.2 * (one - start)
    second = 0.3 * (two - one) - 0.5 * first
    expected = torch.log1p(torch.exp(-(0.1 * (now - two) - 0.5 * first - 0.4 * second)))
    loss = spo_sequential(beta=0.1, mu=(0.5, 0.4), betas=(0.2, 0.3))(**table)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)


def test_more_weight_on_the_first_reward_keeps_more_of_it_through_the_second_round():
    world = Bandit(73)
    first, second, beta = world.preferred, 3 * (world.reward - 0.5), 0.5
    after_one = (world.ref + first / beta).log_softmax(0)
    kept = []
    for mu in (0.0, 0.5, 1.0):
        world.logits.data.zero_()
        objective = as_objective(spo_sequential(beta=beta, mu=(mu,)))
        columns = {"ref_logp": after_one, "ref_logp.0": world.ref}
        p = world.bradley_terry(second)
        minimise(lambda: objective.loss(world.batch(p, **columns)).total, world.logits)  # noqa: B023  used in the loop
        policy = world.logits.detach().softmax(0)
        assert total_variation(policy, (after_one + (second + mu * first) / beta).softmax(0)) < 1e-8
        kept.append((policy * first).sum().item())
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]


def test_rounds_need_a_beta_each():
    with pytest.raises(ConfigError, match="betas as many"):
        spo_sequential(mu=(0.1, 0.2), betas=(0.1,))
