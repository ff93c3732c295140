"""Methods with further texts of a record, value heads on steps and score weights: by hand and in small worlds."""

import math
from dataclasses import replace

import pytest
import torch
from worlds import batch_for, gradients

from unipref.core.batch import Batch
from unipref.core.errors import ConfigError
from unipref.core.records import ROLES
from unipref.objectives import (
    as_objective,
    bapo,
    beside,
    class_entropy,
    crpo_creative,
    dpo,
    head,
    logp,
    rationale_dpo,
    rationale_orpo,
    shortfall,
    spac,
    spo_degree,
    step_dpo,
    svpo,
    tpo_l,
    tpo_triple,
)

F64 = torch.float64
BASE, GOLD = ROLES.index("base"), ROLES.index("gold")


def row(**columns):
    return {name: torch.tensor(value, dtype=F64) for name, value in columns.items()}


def at_reference(**changes):
    """Flat fields of one pair whose policy is its reference, all log-probabilities -1."""
    fields = {f"{name}_{side}": [-1.0] for name in ("logp", "ref_logp") for side in ("chosen", "rejected")}
    return row(**{**fields, **changes})


def slopes(loss, *leaves):
    return [g.item() for g in torch.autograd.grad(loss, leaves)]


def leaf(value):
    return torch.tensor([value], dtype=F64, requires_grad=True)


# ---------------------------------------------------------------- tpo


def test_tpo_with_the_chosen_response_as_gold_is_cpo_with_a_token_mean():
    batch = batch_for(as_objective(tpo_triple()), 1)
    gold = batch.items["role"] == GOLD
    items = {k: v.clone() for k, v in batch.items.items()}
    items["logp"][gold], items["len"][gold] = batch.item("logp")[:5], batch.item("len")[:5]
    found = as_objective(tpo_triple(beta=0.1, alpha=0.5)).loss(replace(batch, items=items)).total
    weight, p = batch.pairs["weight"], batch.item("logp")[:5]
    pair = (weight * torch.nn.functional.softplus(-0.1 * (p - batch.item("logp")[5:10]))).sum() / weight.sum()
    anchor = -(weight * p).sum() / (weight * batch.item("len")[:5]).sum()
    assert found.item() == pytest.approx((pair + 0.5 * anchor).item())


def test_the_gold_text_is_no_side_of_a_comparison_and_the_sides_are_no_gold():
    batch = batch_for(as_objective(tpo_l()), 2)
    objective = as_objective(tpo_l())
    pair, anchor = (as_objective(term) for term in objective.terms)
    gold = batch.items["role"] == GOLD
    assert not gradients(pair, batch)[1][0][gold].any()
    assert not gradients(anchor, batch)[1][0][~gold].any()


def train(objective, steps=300, seed=0):
    """Gradient descent of a softmax over 5 answers: 0 beats 1, answer 2 is gold (and base); log-probabilities after."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, generator=generator, dtype=F64).requires_grad_()
    ref = logits.detach().log_softmax(0)
    length = torch.full((3,), 4)
    optimiser = torch.optim.SGD([logits], lr=0.5)
    role = torch.tensor([0, 0, GOLD if "gold" in as_objective(objective).roles else BASE])
    for _ in range(steps):
        optimiser.zero_grad()
        items = {"logp": logits.log_softmax(0)[:3], "ref_logp": ref[:3], "len": length, "role": role}
        items["group"] = torch.zeros(3, dtype=torch.int64)
        pairs = {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])}
        as_objective(objective).loss(Batch(items, pairs)).total.backward()
        optimiser.step()
    return logits.detach().log_softmax(0) - ref


def test_tpo_raises_gold_likelihood_while_the_margin_grows_and_without_alpha_it_need_not():
    with_gold, without = train(tpo_triple(beta=0.5)), train(tpo_triple(beta=0.5, alpha=0.0))
    assert with_gold[2] > 0
    assert with_gold[0] > with_gold[1]
    assert without[2] < 0


# ---------------------------------------------------------------- bapo


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_bapo_at_the_reference_has_dpos_gradient_and_below_it_the_base_answers_own(place):
    chosen, base = leaf(-1.0), leaf(-1.0)
    fields = at_reference(ref_logp_base=[-1.0])
    fields["logp_chosen"] = chosen
    method = bapo(beta=0.1, lam=2.0, place=place)
    assert slopes(method(logp_base=base, **fields), chosen, base) == pytest.approx([-0.05, 0.0])
    lower = leaf(-1.5)
    pull = -2.0 if place == "outside" else -2.0 / (1 + math.exp(-1.0))  # sigmoid(lam * hinge), dh = 0
    assert slopes(method(logp_base=lower, **fields), lower) == pytest.approx([pull])
    higher = leaf(-0.5)
    assert slopes(method(logp_base=higher, **fields), chosen, higher) == pytest.approx([-0.05, 0.0])


def test_bapo_inside_asks_both_orders_of_a_soft_pair_for_the_same_lead():
    fields = at_reference(logp_base=[-1.5], ref_logp_base=[-1.0], preference=[0.5])
    assert bapo(lam=2.0, place="inside")(**fields).item() == pytest.approx(math.log1p(math.exp(1.0)))


def test_bapo_keeps_the_base_answer_where_dpo_lets_it_fall():
    dropped, held = train(dpo(beta=0.1)), train(bapo(beta=0.1))
    assert dropped[2] < -0.5
    assert held[2] > -0.1
    assert train(bapo(beta=0.1, lam=0.05, place="inside"))[2] > dropped[2]


def test_beside_reads_the_texts_of_one_role_in_the_same_record_and_0_where_there_are_none():
    columns = {
        "logp": torch.tensor([-1.0, -2.0, -4.0, -8.0, -16.0], dtype=F64),
        "role": torch.tensor([0, 0, BASE, BASE, GOLD]),
        "group": torch.tensor([7, 3, 7, 7, 3]),
    }
    assert beside(logp(), "base")(Batch(columns)).tolist() == [-6.0, 0.0, -6.0, -6.0, 0.0]
    with pytest.raises(ConfigError, match="needs a 'base' text beside the responses"):
        beside(logp(), "base")(Batch({name: columns[name] for name in ("logp", "group")}))
    with pytest.raises(ConfigError, match=r"role='bas'\).*'base'"):
        beside(logp(), "bas")
    assert as_objective(bapo(place="inside")).roles == ("base",)


def test_shortfall_has_no_gradient_at_its_corner():
    values = torch.tensor([-1.0, 0.0, 1.0], dtype=F64, requires_grad=True)
    found = shortfall(logp())(Batch({"logp": values}))
    found.sum().backward()
    assert found.tolist() == [1.0, 0.0, 0.0]
    assert values.grad.tolist() == [-1.0, 0.0, 0.0]


# ---------------------------------------------------------------- spac


def sample_slopes(policy, baseline, **options):
    """Gradients in a sample of the policy and one of the baseline; the reference gives either -1."""
    down, up = leaf(policy), leaf(baseline)
    fields = at_reference(ref_logp_policy_sample=[-1.0], ref_logp_baseline_sample=[-1.0])
    loss = spac(lam=0.1, baseline=True, **options)(logp_policy_sample=down, logp_baseline_sample=up, **fields)
    return slopes(loss, down, up)


def test_spac_pushes_the_policys_samples_down_and_the_baselines_up_as_far_as_its_bound_lets_it():
    assert sample_slopes(-1.0, -1.0) == pytest.approx([0.05, -0.05])
    far = 0.1 / (1 + math.exp(19))  # 19 nats from the iterate
    assert sample_slopes(-20.0, 18.0) == pytest.approx([far, -far])
    assert sample_slopes(-20.0, -20.0, bound="clip") == [0.0, 0.0]
    assert sample_slopes(-5.0, -5.0, bound="clip") == pytest.approx([0.1, -0.1])
    assert sample_slopes(-1e6, -1e6, bound="none") == pytest.approx([0.1, -0.1])


def test_spacs_pessimism_is_bounded_below_unless_it_is_linear():
    fields = at_reference(ref_logp_policy_sample=[-1.0])
    preference = dpo(beta=0.1)(**{name: value for name, value in fields.items() if "sample" not in name}).item()

    def pessimism(**options):
        value = spac(lam=0.1, **options)(logp_policy_sample=torch.tensor([-1e6], dtype=F64), **fields).item()
        return value - preference

    assert pessimism() == pytest.approx(0.0, abs=1e-12)
    assert pessimism(bound="clip") == pytest.approx(-1.0)
    assert pessimism(bound="none") == pytest.approx(-1e5, rel=1e-4)


def test_spac_needs_a_baselines_samples_only_where_it_is_asked_for_them():
    assert as_objective(spac()).roles == ("policy_sample",)
    assert as_objective(spac(baseline=True)).roles == ("policy_sample", "baseline_sample")
    with pytest.raises(ConfigError, match=r"bound='clips'.*'clip'"):
        spac(bound="clips")


@pytest.mark.parametrize("bound", ["log-sigmoid", "clip", "none"])
@pytest.mark.parametrize(("term", "role"), [(1, "policy_sample"), (2, "baseline_sample")])
def test_spacs_pessimism_has_no_gradient_at_the_iterate_on_average_over_the_iterates_samples(bound, term, role):
    ref = torch.randn(4, generator=torch.Generator().manual_seed(7), dtype=F64).log_softmax(0)
    logits = ref.clone().requires_grad_()
    items = {"logp": logits.log_softmax(0), "ref_logp": ref, "weight": ref.exp()}
    items["role"] = torch.full((4,), ROLES.index(role))
    pessimism = as_objective(as_objective(spac(bound=bound, baseline=True)).terms[term])
    assert torch.autograd.grad(pessimism.loss(Batch(items)).total, logits)[0].abs().max() < 1e-12


def spac_world(objective, features, steps=200):
    """Answers 0 and 1 are the data, 0 preferred; answer 2 is nowhere in it, and the reference gives it mass 1/2.

    The policy is ref * e^(features @ parameters), normalised; what comes back are its probabilities.
    """
    ref = torch.tensor([0.25, 0.25, 0.5], dtype=F64).log()
    parameters = torch.zeros(features.shape[1], dtype=F64, requires_grad=True)
    optimiser = torch.optim.SGD([parameters], lr=0.5)
    policy, baseline = (ROLES.index(f"{name}_sample") for name in ("policy", "baseline"))
    where = torch.tensor([0, 1, 0, 1, 2, 0, 1])
    for _ in range(steps):
        optimiser.zero_grad()
        items = {
            "logp": (ref + features @ parameters).log_softmax(0)[where],
            "ref_logp": ref[where],
            "role": torch.tensor([0, 0, *[policy] * 3, *[baseline] * 2]),
            # samples by the shares that the iterate and the data give them
            "weight": torch.tensor([1.0, 1.0, 0.25, 0.25, 0.5, 0.5, 0.5], dtype=F64),
        }
        pairs = {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])}
        as_objective(objective).loss(Batch(items, pairs)).total.backward()
        optimiser.step()
    return (ref + features @ parameters.detach()).softmax(0)


LIKENESS = torch.tensor([[1.0], [0.0], [2.0]], dtype=F64)  # the unseen answer has more of what the winner has


def test_dpo_raises_an_unseen_answer_that_looks_like_the_winner_and_spac_does_not_hold_it_down():
    # claimed: held down. The preferences move the policy first, and the pessimism adds to that
    plain, pessimistic = spac_world(dpo(beta=0.5), LIKENESS)[2], spac_world(spac(eta=2.0, lam=0.5), LIKENESS)[2]
    assert plain.item() == pytest.approx(0.999, abs=5e-4)
    assert pessimistic.item() == pytest.approx(0.999, abs=5e-4)
    assert pessimistic > plain


def test_with_the_datas_answers_as_a_baseline_spac_holds_an_unseen_one_down_and_the_winner_that_it_looks_like_too():
    clip, smooth = (
        spac_world(spac(eta=2.0, lam=0.5, bound=bound, baseline=True), LIKENESS) for bound in ("clip", "log-sigmoid")
    )
    assert clip.tolist() == pytest.approx([0.099, 0.879, 0.022], abs=5e-4)
    assert smooth.tolist() == pytest.approx([0.232, 0.184, 0.584], abs=5e-4)
    assert spac_world(dpo(beta=0.5), LIKENESS)[2].item() == pytest.approx(0.999, abs=5e-4)


def test_dpo_in_a_table_lowers_the_unseen_answer_by_itself_and_spac_lowers_it_further():
    # without shared features nothing raises it: its logit stands still while the winner's rises
    table = torch.eye(3, dtype=F64)
    plain, pessimistic = spac_world(dpo(beta=0.5), table), spac_world(spac(eta=2.0, lam=0.5), table)
    assert 0.01 < plain[2] < 0.5
    assert pessimistic[2] < plain[2] / 2
    assert pessimistic[0] > pessimistic[1]


# ---------------------------------------------------------------- crpo_creative

SCORES = ("diversity", "novelty", "quality", "surprise")


def scored(chosen, rejected=0.0):
    sides = {"chosen": chosen, "rejected": rejected}
    return at_reference(**{f"{name}_{side}": [value] for side, value in sides.items() for name in SCORES})


def test_crpo_gradient_of_a_pair_is_its_weight_times_dpos():
    for weight in (0.0, 0.3, 1.0):
        chosen = leaf(-1.0)
        fields = {**scored(weight), "logp_chosen": chosen}
        assert slopes(crpo_creative()(**fields), chosen) == pytest.approx([-0.05 * weight])


def test_crpo_soft_labels_weigh_each_order_by_its_own_winners_scores():
    fields = scored(0.8, 0.2) | row(preference=[0.75])
    fields["logp_chosen"] = torch.tensor([9.0], dtype=F64)  # beta * dh = 1
    loss = crpo_creative()(**fields)
    expected = 0.75 * 0.8 * math.log1p(math.exp(-1)) + 0.25 * 0.2 * math.log1p(math.exp(1))
    assert loss.item() == pytest.approx(expected)


def test_crpo_twice_the_weights_is_twice_the_loss_and_a_negative_score_sum_counts_as_0():
    fields = scored(0.4)
    double = crpo_creative(weights=dict.fromkeys(SCORES, 0.5))(**fields)
    assert double.item() == pytest.approx(2 * crpo_creative()(**fields).item())
    assert crpo_creative()(**scored(-0.4)).item() == 0.0
    with pytest.raises(ConfigError, match="not negative"):
        crpo_creative(weights={"novelty": -1.0})


def test_crpo_leaves_out_pairs_that_nobody_scored():
    fields = {name: torch.cat([value, value]) for name, value in scored(0.6, 0.6).items()}
    whole = crpo_creative()(**fields)
    fields["novelty_rejected"] = torch.tensor([0.6, math.nan], dtype=F64)
    fields["logp_rejected"] = torch.tensor([-1.0, -50.0], dtype=F64)
    assert crpo_creative()(**fields).item() == whole.item()


# ---------------------------------------------------------------- rationales


@pytest.mark.parametrize("logp_rationale", [-1e-6, -3.0, -1e4])
def test_rationale_gradient_is_gamma_times_a_sigmoid_between_a_half_and_1(logp_rationale):
    gamma, text = 0.1, leaf(logp_rationale)
    fields = at_reference()
    (found,) = slopes(rationale_dpo(gamma=gamma)(logp_rationale=text, **fields), text)
    assert found == pytest.approx(-gamma / (1 + math.exp(gamma * logp_rationale)))
    assert -gamma <= found <= -gamma / 2 + 1e-8
    (linear,) = slopes(rationale_dpo(gamma=gamma, form="linear")(logp_rationale=text, **fields), text)
    assert linear == pytest.approx(-gamma)


def test_rationales_are_summed_in_dpo_and_averaged_in_orpo():
    sums, means = as_objective(rationale_dpo(form="linear")), as_objective(rationale_orpo(gamma=0.1))
    batch = batch_for(sums + means, 9)
    texts = batch.items["role"] == ROLES.index("rationale")
    first, second = (gradients(objective, batch)[1][0][texts] for objective in (sums, means))
    assert torch.allclose(first, second * batch.item("len")[texts])


# ---------------------------------------------------------------- spo_degree


def variants(scores, degree):
    role = torch.tensor([0, 0, *[ROLES.index("variant")] * len(degree)])
    return Batch(
        {
            "logp": torch.zeros(2 + len(degree), dtype=F64),
            "ref_logp": torch.zeros(2 + len(degree), dtype=F64),
            "role": role,
            "degree": torch.cat([torch.full((2,), math.nan, dtype=F64), torch.tensor(degree, dtype=F64)]),
            "degree_head": torch.cat([torch.zeros(2, scores.shape[1], dtype=F64), scores]),
        },
        {"chosen": torch.tensor([0]), "rejected": torch.tensor([1])},
    )


def test_degree_loss_is_the_cross_entropy_of_variants_and_its_gradient_is_softmax_minus_one_hot():
    scores = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]], dtype=F64, requires_grad=True)
    objective = as_objective(spo_degree(gamma=1.0))
    loss = objective.loss(variants(scores, [0.0, 2.0]))
    by_hand = (-torch.log_softmax(scores, 1)[[0, 1], [0, 2]]).mean()
    assert loss.terms["degree"].item() == pytest.approx(by_hand.item())
    (slope,) = torch.autograd.grad(loss.total, scores)
    one_hot = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=F64)
    assert torch.allclose(slope, (scores.detach().softmax(1) - one_hot) / 2)


def test_variants_enter_no_comparison_and_no_other_term():
    objective = as_objective(spo_degree(base="cpo"))
    batch = batch_for(objective, 10)
    texts = batch.items["role"] == ROLES.index("variant")
    assert not gradients(objective, batch)[1][0][texts].any()
    assert objective.heads == ("degree_head",)


def test_a_base_of_ones_own_is_kept_as_it_is_and_the_method_is_not_its_own_base():
    own = dpo(beta=0.3) + 0.1 * tpo_l().terms[1]
    assert as_objective(spo_degree(base=own)).terms[: len(own.terms)] == own.terms
    with pytest.raises(ConfigError, match="'spo_degree' cannot be the base of spo_degree"):
        spo_degree(base="spo_degree")
    with pytest.raises(ConfigError, match="base_options belong to a base given by name"):
        spo_degree(base=own, base_options={"beta": 1.0})


def test_a_degree_head_learns_what_was_taken_away_and_the_preference_loss_is_no_worse():
    # hidden states on a line: what was taken away moves the text along a direction; held-out variants are new draws
    generator = torch.Generator().manual_seed(11)

    def draw(n):
        degree = torch.randint(0, 3, (n,), generator=generator).to(F64)
        hidden = torch.randn(n, 4, generator=generator, dtype=F64)
        hidden[:, 0] += 2.0 * degree
        return torch.cat([hidden, torch.ones(n, 1, dtype=F64)], 1), degree

    final = {}
    for gamma in (0.0, 1.0):
        weight = torch.zeros(5, 3, dtype=F64, requires_grad=True)
        shift = torch.zeros(1, dtype=F64, requires_grad=True)
        optimiser = torch.optim.SGD([weight, shift], lr=0.3)
        hidden, degree = draw(60)
        objective = as_objective(spo_degree(gamma=gamma))
        for _ in range(150):
            optimiser.zero_grad()
            batch = variants(hidden @ weight, degree.tolist())
            lead = torch.cat([shift, -shift, torch.zeros(60, dtype=F64)])
            loss = objective.loss(replace(batch, items={**batch.items, "logp": lead}))
            loss.total.backward()
            optimiser.step()
        unseen, truth = draw(200)
        final[gamma] = ((unseen @ weight).argmax(1) == truth).double().mean().item(), loss.terms["dpo"].item()
    assert final[1.0][0] > 0.6  # chance is 1/3
    assert final[0.0][0] < 0.5
    assert final[1.0][1] <= final[0.0][1] + 1e-12


def test_class_entropy_of_even_scores_is_the_log_of_the_number_of_classes_at_any_scale():
    even = class_entropy().between(torch.full((2, 5), 1e4), torch.tensor([0.0, 4.0]), 0.0, (1.0, 1.0))
    assert even.tolist() == pytest.approx([math.log(5)] * 2)


# ---------------------------------------------------------------- steps


def test_svpo_value_terms_move_the_head_alone_and_vanish_where_values_are_right_and_in_order():
    objective = as_objective(svpo(gamma=0.0))
    batch = batch_for(objective, 12)
    right = torch.cat([torch.full((5,), 0.5, dtype=F64), torch.full((5,), -0.5, dtype=F64)])
    items = {**batch.items, "q": right, "step_value": right.clone()}
    loss = objective.loss(replace(batch, items=items))
    assert loss.terms["step_value"] == 0
    assert loss.terms["step_rank"] == 0
    assert not gradients(as_objective(objective.terms[1]), batch)[1][0].any()
    assert objective.heads == ("step_value",)
    assert head("step_value")(batch).equal(batch.item("step_value"))


def test_svpo_square_loss_is_a_mean_over_the_steps_that_have_a_q():
    fields = at_reference(q_chosen=[1.0], q_rejected=[math.nan], step_value_chosen=[0.2], step_value_rejected=[0.9])
    loss = as_objective(svpo()).loss(Batch.from_fields(**fields))
    assert loss.terms["step_value"].item() == pytest.approx(0.8**2)
    assert loss.terms["step_rank"].item() == pytest.approx(0.1 + 0.7)


@pytest.mark.parametrize(
    ("visits", "confidence"), [((30, 10), 0.75), ((10, 30), 0.5), ((0, 0), 1.0), ((1, 1), 0.5)], ids=str
)
def test_step_dpo_labels_of_visit_counts(visits, confidence):
    # conf = 1 / (1 + N_r / max(1, N_c)), eps = min(1 - conf, 1/2), preference = 1 - eps
    chosen, rejected = visits
    assert 1 - min(1 - 1 / (1 + rejected / max(1, chosen)), 0.5) == confidence
    lead = leaf(-1.0)
    fields = at_reference(preference=[confidence])
    fields["logp_chosen"] = lead
    assert slopes(step_dpo(beta=0.1)(**fields), lead) == pytest.approx([-0.1 * (confidence - 0.5)], abs=1e-15)


def test_step_dpo_optimum_is_the_log_odds_of_the_label_over_beta():
    shift = torch.zeros(1, dtype=F64, requires_grad=True)
    optimiser = torch.optim.SGD([shift], lr=100.0)
    for _ in range(300):
        optimiser.zero_grad()
        fields = at_reference(preference=[0.75])
        fields["logp_chosen"] = fields["logp_chosen"] + shift
        step_dpo(beta=0.1)(**fields).backward()
        optimiser.step()
    assert shift.item() == pytest.approx(math.log(3) / 0.1)


def step_fields(prefix):
    """A pair of suffixes behind `prefix` shared tokens, as token fields."""
    shared = [(-0.7, -0.4, 0.0)] * prefix
    chosen, rejected = [*shared, (-1.0, -2.0, 1.0), (-2.0, -3.0, 1.0)], [*shared, (-3.0, -1.0, 1.0)]
    names = ("token_logp", "token_ref_logp", "token_fresh")
    columns = dict(zip(names, zip(*chosen, *rejected, strict=True), strict=True))
    lengths = {"len_chosen": [len(chosen)], "len_rejected": [len(rejected)]}
    return row(**{name: list(v) for name, v in columns.items()}, **lengths)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_step_dpo_does_not_see_a_shared_prefix(loss):
    found = [step_dpo(loss=loss)(**step_fields(n)).item() for n in (0, 1, 7)]
    assert found == pytest.approx([found[0]] * 3, abs=1e-12)


def test_step_dpo_of_responses_without_a_token_of_their_own_is_finite():
    fields = step_fields(2)
    fields["token_fresh"] = torch.zeros_like(fields["token_fresh"])
    fields["token_logp"].requires_grad_()
    loss = step_dpo(loss="ipo")(**fields)
    loss.backward()
    assert loss.item() == pytest.approx(25.0)  # (0 - 1 / (2 * 0.1))^2
    assert not fields["token_logp"].grad.any()
