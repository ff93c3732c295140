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
    "method",
    [dpop(), dpo_shift(lam=0.5), flex_dpo(beta_rejected=0.05), dpo_sft(), minor_dpo()],
    ids=lambda m: repr(m)[:24],
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
    assert gained(dpo()) > max(gained(flex_dpo(beta_rejected=0.05)), gained(dpo_sft()))


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
@pytest.mark.parametrize("module", ["leader", "chaser"])
def test_either_module_is_pulled_by_half_alpha_beta_at_equality_however_far_both_are(module, h):
    alpha, beta = 0.6, 0.1
    coupled = slopes(ofs_dpo(beta=beta, alpha=alpha, module=module), pair_beside_partner(h, h))[0]
    plain = slopes(dpo(beta=beta), one_pair(h, 0.0))[0]
    assert coupled - plain == pytest.approx(-alpha * beta / 2, abs=1e-12)


def chase(h, partner, **options):
    """What the chase adds to DPO's slope in the chosen response's log-probability."""
    return slopes(ofs_dpo(**options), pair_beside_partner(h, partner))[0] - slopes(dpo(), one_pair(h, 0.0))[0]


def test_the_leader_is_pulled_less_the_further_it_leads_and_the_chaser_harder_the_further_it_has_passed():
    leader = [chase(h, 0.0) for h in (-50.0, 0.0, 50.0)]
    chaser = [chase(h, 0.0, module="chaser") for h in (-50.0, 0.0, 50.0)]
    assert leader == pytest.approx([-0.1 / (1 + math.exp(x)) for x in (-5, 0, 5)], abs=1e-12)
    assert chaser == pytest.approx(leader[::-1], abs=1e-12)


def test_the_chasers_loss_has_no_lower_bound_without_a_clamp():
    fields = [pair_beside_partner(h, 0.0) for h in (1e3, 1e5)]
    free, clamped = ([ofs_dpo(module="chaser", clamp=clamp)(**f).item() for f in fields] for clamp in (None, 10.0))
    assert free == pytest.approx([-1e2, -1e4], rel=1e-6)
    assert clamped == pytest.approx([-softplus(10.0)] * 2, rel=1e-6)


def test_a_clamped_chase_has_no_slope_beyond_the_clamp_and_its_own_up_to_it():
    options = {"module": "chaser", "clamp": 3.0}
    assert chase(31.0, 0.0, **options) == chase(-31.0, 0.0, **options) == 0.0
    assert chase(29.0, 0.0, **options) == chase(29.0, 0.0, module="chaser") != 0.0


@pytest.mark.parametrize(
    ("options", "words"), [({"module": "chase"}, "'chaser'"), ({"clamp": 0.0}, "limit must be above 0")]
)
def test_ofs_dpo_names_the_modules_and_the_clamps_there_are(options, words):
    with pytest.raises(ConfigError, match=words):
        ofs_dpo(**options)


# random tokens


def tokens_of(lengths, uid, step=0, pairs=((0, 1),)):
    """Responses of these lengths, the comparisons `pairs` between them."""
    item = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    items = {"logp": torch.zeros(len(lengths)), "uid": torch.tensor(uid), "len": torch.tensor(lengths)}
    sides = dict(zip(SIDES, torch.tensor(pairs).reshape(-1, 2).T, strict=True))
    return Batch(items, sides, {"item": item, "logp": torch.zeros(len(item))}, clock=Clock(step, 100))


def drawn(share, lengths, pairs):
    """How many tokens of each response a subset has."""
    batch = tokens_of(lengths, list(range(len(lengths))), pairs=pairs)
    chances = random_subset(share)(batch)
    assert set(chances.tolist()) <= {0.0, 1.0}
    return torch.zeros(len(lengths)).index_add(0, batch.token("item"), chances).tolist()


@pytest.mark.parametrize("share", [0.0, 0.29, 0.7, 1.0])
def test_a_random_subset_has_floor_of_its_share_of_the_shorter_response_and_one_token_at_least(share):
    lengths, pairs = [7, 100, 250, 100, 1, 3], [(0, 1), (2, 3), (4, 5)]
    sizes = [max(1, round(100 * share) * n // 100) for n in (7, 100, 1)]
    assert drawn(share, lengths, pairs) == [n for n in sizes for _ in SIDES]


def test_an_empty_response_has_an_empty_subset_and_leaves_the_other_side_one_token():
    assert drawn(0.9, [0, 8], [(0, 1)]) == [0, 1]


def test_the_shortest_of_several_comparisons_sets_the_size_of_a_responses_one_subset():
    assert drawn(0.5, [20, 10, 4, 30], [(0, 1), (0, 2)]) == [2, 5, 2, 15]  # the last is in none


def test_a_random_subset_is_the_same_in_any_batch_and_another_at_every_step_seed_and_response():
    part = random_subset(0.5)
    two = part(tokens_of([20, 30, 30, 40], [5, 6, -9, 7], pairs=((0, 1), (2, 3))))[50:80]
    alone = part(tokens_of([30, 40], [-9, 7]))[:30]
    assert torch.equal(two, alone)
    assert not torch.equal(alone, part(tokens_of([30, 40], [-9, 7], step=1))[:30])
    assert not torch.equal(alone, random_subset(0.5, seed=1)(tokens_of([30, 40], [-9, 7]))[:30])
    assert not torch.equal(alone, part(tokens_of([30, 40], [8, 7]))[:30])


def test_every_token_is_drawn_as_often_as_any_other():
    # 2,000 steps of share 1/4: a count's deviation is 19.4; all of 40 within 5 of them but for 2e-5
    counts = sum(random_subset(0.25)(tokens_of([20, 20], [3, 4], step)) for step in range(2000))
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


def guided(ratios, preference=None, **options):
    """sgdpo's loss and gradient in the tokens of two responses of which these are the log-ratios."""
    base = tokens_of([len(side) for side in ratios], [1, 2])
    logp = torch.tensor([r - 3 for side in ratios for r in side], dtype=torch.float64, requires_grad=True)
    tokens = {"item": base.token("item"), "logp": logp, "ref_logp": torch.full_like(logp, -3)}
    pairs = base.pairs if preference is None else {**base.pairs, "preference": number(preference)}
    total = as_objective(sgdpo(**options)).loss(Batch(base.items, pairs, tokens)).total
    (slope,) = torch.autograd.grad(total, logp)
    return total.item(), slope.tolist()


def test_at_the_reference_sgdpo_pulls_either_response_half_as_hard_as_dpo():
    loss, slope = guided(([0.0] * 3, [0.0] * 5))
    assert loss == pytest.approx(math.log(2))
    assert slope == pytest.approx([-0.025] * 3 + [0.025] * 5)


def test_a_response_is_set_against_a_part_of_the_other_one_whose_tokens_get_nothing_from_that():
    # pilots of floor(.6 * 4) = 2 and floor(.9 * 4) = 3 tokens
    loss, slope = guided(([0.5] * 4, [-2.0] * 8))
    chosen, rejected = 0.1 * (2 + 6), 0.1 * (1 + 16)
    assert loss == pytest.approx((softplus(-chosen) + softplus(-rejected)) / 2)
    pulls = [0.05 / (1 + math.exp(chosen)), 0.05 / (1 + math.exp(rejected))]
    assert slope == pytest.approx([-pulls[0]] * 4 + [pulls[1]] * 8)
    assert pulls[0] > pulls[1]  # outside the pilots 5 tokens fell by 10, and 2 rose by 1


def test_the_chosen_response_is_pulled_harder_or_less_hard_by_what_stands_outside_the_pilots():
    _, risen = guided(([2.0] * 4, [-0.5] * 4))
    assert -risen[0] < risen[-1]  # 2 tokens rose by 4, one fell by 0.5
    _, fallen = guided(([0.1] * 4, [-2.0] * 4))
    assert -fallen[0] > fallen[-1]  # by 0.2, and by 2


def test_a_soft_label_exchanges_the_shares_with_the_places():
    ratios, share = ([0.5] * 10, [-2.0] * 10), 0.75
    right = (softplus(-0.1 * (5 + 2 * 9)) + softplus(-0.1 * (0.5 * 6 + 20))) / 2
    wrong = (softplus(0.1 * (20 + 0.5 * 9)) + softplus(0.1 * (2 * 6 + 5))) / 2
    assert guided(ratios, preference=share)[0] == pytest.approx(share * right + (1 - share) * wrong)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_sgdpo_refuses_a_share_that_is_none(share):
    with pytest.raises(ConfigError, match=r"must be in \[0, 1\]"):
        sgdpo(r_chosen=share)


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
