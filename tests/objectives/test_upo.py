"""UPO: its exact loss, its options, and the traps of its paper."""

import math

import pytest
import torch
from worlds import BASES, OPEN, batch_for, gradients, pair_batch, pair_fields, with_items

from unipref.core.batch import Batch, Clock
from unipref.core.cards import get_method
from unipref.core.errors import ConfigError
from unipref.objectives import Objective, as_objective, dpo, logp, margin, mean_logp, nll, pairwise, upo

NAN = float("nan")


WITHOUT_VALUE = [base for base in BASES if "value" not in as_objective(get_method(base).build()).heads]


def only(objective, role):
    return Objective(tuple(term for term in objective.terms if term.role == role))


def test_upo_reads_as_base_plus_advantage_weighted_term_plus_value_term():
    assert [(t.name, t.role) for t in upo(base="dpo").terms] == [
        ("dpo", "preference"),
        ("advantage", "auxiliary"),
        ("value", "state"),
    ]
    assert [term.coefficient for term in upo().terms] == [1.0, 0.5, 0.1]
    assert upo(base=dpo(beta=0.3)) == upo(base="dpo", base_options={"beta": 0.3})


def test_the_loss_is_the_papers_sum_written_out():
    # one pair under KTO at z0 = 0, both log-ratios 0: sigmoid(0) = 1/2 for each
    logp, length = torch.tensor([-4.0, -6.0]), torch.tensor([4, 3])
    reward, value = torch.tensor([1.0, 0.2]), torch.tensor([0.5, 0.6])
    loss = upo()(
        clock=OPEN, logp=logp, ref_logp=logp, len=length, reward=reward, value=value, label=torch.tensor([1, 0]),
        kl_baseline=torch.tensor(0.0),
    )  # fmt: skip
    auxiliary = (math.exp(5 * 0.5) * 4 / 4 + math.exp(5 * -0.4) * 6 / 3) / 2
    value_loss = (0.5 * 0.5**2 + 0.5 * 0.4**2) / 2
    assert loss.item() == pytest.approx(0.5 + 0.5 * auxiliary + 0.1 * value_loss, rel=1e-6)


@pytest.mark.parametrize("base", WITHOUT_VALUE)
def test_gamma_zero_is_the_base_and_the_value_head_still_learns(base):
    objective = upo(base=base, gamma=0.0)
    batch = batch_for(objective, 1)
    plain, (slope,) = gradients(as_objective(get_method(base).build()), batch)
    total, (same, to_value) = gradients(objective, batch, ("logp", "value"))
    value_loss, (expected,) = gradients(as_objective(objective.terms[-1]), batch, ("value",))
    assert torch.equal(same, slope)
    assert total.item() == pytest.approx((plain + value_loss).item(), rel=1e-12)
    assert torch.allclose(to_value, expected, rtol=1e-12)
    assert to_value.any()


def test_lambda_zero_is_likelihood_of_every_response_whatever_reward_and_value_say():
    batch = pair_batch(2)
    control = only(upo(base="dpo", lam=0.0), "auxiliary")
    anchor = 0.5 * nll(of="all")
    assert control.loss(batch).total.item() == as_objective(anchor).loss(batch).total.item()
    other = with_items(batch, reward=batch.item("reward") * 9, value=batch.item("value") - 4)
    assert control.loss(other).total == control.loss(batch).total


def test_the_auxiliary_term_never_trains_the_value_nor_the_value_term_the_policy():
    batch = pair_batch(3)
    objective = upo(base="dpo")
    assert not gradients(only(objective, "auxiliary"), batch, ("value",))[1][0].any()
    assert not gradients(only(objective, "state"), batch, ("logp",))[1][0].any()


def test_a_constant_reward_that_the_value_has_learned_is_the_lambda_zero_control():
    batch = pair_batch(4)
    constant = with_items(batch, reward=torch.full((10,), 0.3), value=torch.full((10,), 0.3))
    assert torch.equal(
        only(upo(base="dpo"), "auxiliary").loss(constant).total,
        only(upo(base="dpo", lam=0), "auxiliary").loss(batch).total,
    )


def test_a_response_without_a_reward_enters_the_base_only():
    batch = pair_batch(5)
    reward = batch.item("reward").clone()
    reward[[1, 7]] = NAN
    objective = upo(base="kto")
    missing = with_items(batch, reward=reward)
    kept = torch.tensor([i for i in range(10) if i not in (1, 7)])
    rest = Batch({k: v[kept] for k, v in batch.items.items()}, {}, {}, batch.statistics, OPEN)
    loss = objective.loss(missing)
    for name in ("advantage", "value"):
        assert loss.terms[name].item() == pytest.approx(objective.loss(rest).terms[name].item(), rel=1e-12)
    assert loss.terms["kto"] == objective.loss(batch).terms["kto"]
    weights = batch.item("weight")
    assert objective.denominators(missing)["advantage"].item() == pytest.approx(weights[kept].sum().item())
    assert objective.denominators(missing)["kto"].item() == pytest.approx(weights.sum().item())
    _, (to_logp, to_value) = gradients(objective, missing, ("logp", "value"))
    assert to_logp.isfinite().all()
    assert not to_value[[1, 7]].any()


def test_with_no_reward_at_all_the_loss_is_the_base():
    batch = pair_batch(6)
    blind = with_items(batch, reward=torch.full((10,), NAN))
    loss = upo(base="dpo").loss(blind)
    assert loss.total == as_objective(dpo()).loss(batch).total
    assert loss.terms["advantage"] == loss.terms["value"] == 0


def test_unlabelled_responses_enter_the_auxiliary_terms_of_a_kto_base():
    fields = {"logp": [-1.0, -2.0, -3.0], "ref_logp": [-1.0, -2.0, -3.0], "len": [1, 1, 1], "reward": [0.0, 0.0, 0.0]}
    fields |= {"value": [0.0, 0.0, 0.0], "label": [1.0, 0.0, NAN]}
    fields = {name: torch.tensor(value) for name, value in fields.items()}
    batch = Batch.from_fields(clock=OPEN, kl_baseline=torch.tensor(0.0), **fields)
    assert {k: v.item() for k, v in upo().denominators(batch).items()} == {"kto": 2, "advantage": 3, "value": 3}


def test_base_margin_asks_less_where_the_reward_contradicts_the_preference():
    # sigma(beta dh - alpha (R(chosen) - R(rejected))): the chosen response is worth less to the designer, so the
    # people's preference for it is stronger than the label shows. The paper prints the opposite sign.
    same = {f"{name}_{side}": torch.tensor([-1.0]) for name in ("logp", "ref_logp") for side in ("chosen", "rejected")}
    same |= {"len_chosen": torch.tensor([1]), "len_rejected": torch.tensor([1])}
    objective = upo(base="dpo", base_margin=2.0, gamma=0.0, value="none")
    conflict = objective(**same, reward_chosen=torch.tensor([0.0]), reward_rejected=torch.tensor([0.5]))
    accord = objective(**same, reward_chosen=torch.tensor([0.5]), reward_rejected=torch.tensor([0.0]))
    assert conflict.item() == pytest.approx(math.log1p(math.exp(-1)))
    assert accord.item() == pytest.approx(math.log1p(math.exp(1)))
    unknown = objective(**same, reward_chosen=torch.tensor([NAN]), reward_rejected=torch.tensor([0.0]))
    assert unknown.item() == pytest.approx(math.log(2))


def test_base_margin_shifts_a_single_response_by_its_advantage():
    fields = {"logp": [-1.0], "ref_logp": [-1.0], "label": [1.0], "len": [1], "reward": [0.75], "value": [0.25]}
    fields = {name: torch.tensor(value) for name, value in fields.items()}
    objective = upo(base="kto", base_margin=2.0, gamma=0.0, value_coefficient=0.0)
    loss = objective(kl_baseline=torch.tensor(0.0), **fields)
    assert loss.item() == pytest.approx(1 / (1 + math.exp(-1)))  # 1 - sigmoid(-2 * 0.5)


def test_the_gate_opens_after_its_share_or_its_steps_and_the_value_learns_before():
    objective = upo(base="dpo", warmup=0.1)
    names = ["dpo", "advantage", "value"]
    by_step = {
        s: [objective.loss(pair_batch(8, clock=Clock(s, 100))).terms[n].item() for n in names] for s in (0, 9, 10)
    }
    assert by_step[0][1] == by_step[9][1] == 0 != by_step[10][1]
    assert by_step[0][2] == by_step[10][2] != 0
    paper = upo(base="dpo", warmup_steps=100)
    gate = next(t for t in paper.terms if t.name == "advantage")
    assert [gate.coefficient_at(Clock(s, 10_000)) for s in (99, 100)] == [0.0, 0.5]


def test_the_weight_cap_bounds_the_log_weight_and_says_how_often():
    batch = pair_batch(9, weight=torch.ones(5))
    batch = with_items(batch, reward=torch.tensor([0.0, 1.0] * 5), value=torch.zeros(10))
    objective = upo(base="dpo", lam=5.0, weight_cap=2.0)
    _, (slope,) = gradients(only(objective, "auxiliary"), batch)
    lengths = batch.item("len")
    assert torch.allclose(slope * lengths * -20, torch.exp(torch.tensor([0.0, 2.0] * 5, dtype=torch.float64)))
    assert objective.diagnostics(batch)["upo/capped"] == 0.5
    assert upo(base="dpo", lam=5.0).diagnostics(batch)["upo/capped"] == 0


def test_positive_only_drops_responses_at_or_below_their_baseline_and_keeps_them_in_the_denominator():
    batch = with_items(pair_batch(10), reward=torch.tensor([1.0, 0.5] * 5), value=torch.full((10,), 0.5))
    objective = only(upo(base="dpo", positive_only=True), "auxiliary")
    _, (slope,) = gradients(objective, batch)
    assert (slope[::2] < 0).all()
    assert not slope[1::2].any()
    assert objective.denominators(batch) == only(upo(base="dpo"), "auxiliary").denominators(batch)


def test_group_mean_and_none_need_no_head():
    assert upo(base="dpo").heads == ("value",)
    for value, extra in (("group-mean", {"group"}), ("none", set())):
        objective = upo(base="dpo", value=value)
        assert objective.heads == ()
        assert objective.needs == {"ref_logp", "len", "reward"} | extra
        assert [t.name for t in objective.terms] == ["dpo", "advantage"]


def test_the_group_mean_is_over_the_measured_responses_of_a_record():
    fields = {"logp": [-1.0] * 5, "len": [1] * 5, "group": [7, 7, 7, 3, 3], "reward": [1.0, 0.0, NAN, 0.4, 0.4]}
    batch = Batch({name: torch.tensor(value) for name, value in fields.items()}, clock=OPEN)
    objective = only(upo(base="dpo", value="group-mean", gamma=1.0, lam=1.0), "auxiliary")
    _, (slope,) = gradients(objective, batch)
    expected = torch.exp(torch.tensor([0.5, -0.5, 0.0, 0.0, 0.0])) * torch.tensor([1, 1, 0, 1, 1]) / -4
    assert torch.allclose(slope, expected)


def test_mean_and_sum_differ_by_the_length_of_the_response():
    batch = pair_batch(11)
    slopes = [gradients(only(upo(base="dpo", norm=norm), "auxiliary"), batch)[1][0] for norm in ("mean", "sum")]
    assert torch.allclose(slopes[0] * batch.item("len"), slopes[1])


def test_the_gradient_ratio_at_the_reference_is_4_gamma_a_over_beta_length():
    # KTO at h = z0 has slope beta/4 per response, the auxiliary term gamma a / |y|
    fields = {"logp": [-50.0] * 2, "ref_logp": [-50.0] * 2, "len": [200] * 2, "label": [1.0, 0.0]}
    fields |= {"reward": [0.7] * 2, "value": [0.2] * 2}
    batch = Batch.from_fields(
        clock=OPEN, kl_baseline=torch.tensor(0.0), **{name: torch.tensor(value) for name, value in fields.items()}
    )
    found = upo().diagnostics(batch)
    assert found["upo/gradient_ratio"].item() == pytest.approx(4 * 0.5 * math.exp(5 * 0.5) / (0.1 * 200), rel=1e-5)
    assert found["upo/advantage"].item() == pytest.approx(0.5)
    assert found["upo/ess"].item() == pytest.approx(1)


def test_diagnostics_tell_a_closed_gate_from_a_weak_term_and_keep_the_step_denominators():
    objective = upo(base="dpo", warmup=0.5)
    before, after = (objective.diagnostics(pair_batch(12, clock=Clock(s, 2))) for s in (0, 1))
    assert before["upo/gradient_ratio"] == 0
    assert (
        before["upo/gradient_ratio_ungated"] == after["upo/gradient_ratio"] == after["upo/gradient_ratio_ungated"] > 0
    )
    batch = pair_batch(12, clock=Clock(1, 2))
    doubled = {name: 2 * value for name, value in objective.denominators(batch).items()}
    scaled = objective.diagnostics(batch, doubled)
    assert scaled["upo/gradient_ratio"].item() == pytest.approx(after["upo/gradient_ratio"].item(), rel=1e-12)
    assert as_objective(dpo()).diagnostics(batch) == {}


def test_the_effective_sample_size_is_the_share_of_equal_weights_that_says_as_much():
    batch = with_items(
        pair_batch(13, weight=torch.ones(5)), reward=torch.tensor([0.0] * 9 + [1.0]), value=torch.zeros(10)
    )
    weights = [1.0] * 9 + [math.exp(5)]
    expected = sum(weights) ** 2 / (10 * sum(w * w for w in weights))
    assert upo(base="dpo").diagnostics(batch)["upo/ess"].item() == pytest.approx(expected, rel=1e-6)


def test_diagnostics_leave_the_graph_of_the_caller_alone():
    batch = pair_batch(14)
    logp = batch.item("logp").clone().requires_grad_()
    held = with_items(batch, logp=logp)
    with torch.no_grad():
        found = upo(base="cpo").diagnostics(held)
    assert logp.grad is None
    assert not any(value.requires_grad for value in found.values())


def test_the_implicit_reward_is_the_bases():
    batch = pair_batch(15)
    reward = upo(base="dpo", base_options={"beta": 0.3}).implicit_reward(batch)
    assert torch.equal(reward, 0.3 * (batch.item("logp") - batch.item("ref_logp")))
    assert torch.equal(upo(base="sft").implicit_reward(batch), mean_logp()(batch))


@pytest.mark.parametrize("base", sorted(set(BASES) - set(WITHOUT_VALUE)))
def test_a_base_with_a_value_head_of_its_own_is_refused_until_upo_takes_another_baseline(base):
    for value in ("expectile", "soft"):
        with pytest.raises(ConfigError, match=f"upo.base='{base}'.*one head cannot follow two targets.*group-mean"):
            upo(base=base, value=value)
    for value in ("group-mean", "none"):
        assert "value" in upo(base=base, value=value).heads  # the base's, which alone trains it
    assert {"a_lol", "dro_v"} <= set(BASES) - set(WITHOUT_VALUE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "avg"}, "norm='avg'.*known: mean, sum"),
        ({"value": "softt"}, "did you mean 'soft'"),
        ({"base": "kt"}, "did you mean 'kto'"),
        ({"base": "upo"}, "cannot be the base"),
        ({"base": dpo(), "base_options": {"beta": 1.0}}, "base given by name"),
        ({"base": "dpo", "base_options": {"betta": 1.0}}, "no option 'betta' .did you mean 'beta'"),
        ({"base": "sft", "base_margin": 1.0}, "base has none"),
        ({"lam": -1.0}, "imitate the worst"),
        ({"tau": 1.0}, "between 0 and 1"),
        ({"warmup": 2.0}, "share of the run"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_the_next_step(options, message):
    with pytest.raises(ConfigError, match=message):
        upo(**options)


def test_any_composition_can_be_the_base():
    base = pairwise("mine", score=logp(0.5), offset=(margin(1.0),)) + 0.1 * nll()
    objective = upo(base=base, base_margin=1.0)
    assert [t.name for t in objective.terms] == ["mine", "nll", "advantage", "value"]
    fields = pair_fields(16)
    assert objective(clock=OPEN, **fields).isfinite()
