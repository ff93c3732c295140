"""Facts about `dynamics`: what is a pattern, what is noise, and the paper's toy, in which all three come about."""

import math

import numpy as np
import pytest
import torch

from unipref.evaluate import dynamics, log_gradient_ratio


def codes(found):
    return [flag["code"] for flag in found["flags"]]


def logged(chosen, rejected, *, unseen=None, every=5, noise=0.0, seed=0, names="logps"):
    rng = np.random.default_rng(seed)
    rows = []
    for i, (c, r) in enumerate(zip(chosen, rejected, strict=True)):
        text = noise * rng.standard_normal(3)  # a batch's texts: both sides of a pair share much of it
        row = {"step": i * every, "logps/chosen": c + text[0] + text[1], "logps/rejected": r + text[0] + text[2]}
        if names == "rewards":
            row |= {"rewards/chosen": 0.1 * (c - chosen[0]), "rewards/rejected": 0.1 * (r - rejected[0])}
        if unseen is not None:
            row["logps/unseen"] = unseen[i]
        rows.append(row)
    return rows


LINE = np.arange(30.0)


# ---- the gradients ----


def test_with_respect_to_probabilities_the_gradients_are_in_the_ratio_of_the_probabilities():
    beta = 0.3
    for chosen, rejected in ((0.3, 0.2), (0.02, 1e-6), (1e-4, 0.5)):
        p = torch.tensor([chosen, rejected], dtype=torch.float64, requires_grad=True)
        reference = torch.tensor([0.12, 0.05], dtype=torch.float64)
        ratio = beta * (p / reference).log()
        loss = -torch.nn.functional.logsigmoid(ratio[0] - ratio[1])
        (slope,) = torch.autograd.grad(loss, p)
        told = math.exp(log_gradient_ratio(math.log(chosen), math.log(rejected)))
        assert abs(slope[1] / slope[0]).item() == pytest.approx(told, rel=1e-6)
        # the trap: with respect to log-probabilities both are equal, whatever the probabilities
        assert (slope * p.detach())[0].item() == pytest.approx(-(slope * p.detach())[1].item(), rel=1e-6)


def test_the_ratio_of_a_run_is_told_from_its_first_and_last_rows_in_nats():
    found = dynamics(logged(-40 - LINE, -42 - 3 * LINE))
    assert found["log_gradient_ratio"]["first"] == pytest.approx(np.mean([2 + 2 * i for i in range(3)]))
    assert found["log_gradient_ratio"]["last"] == pytest.approx(np.mean([2 + 2 * i for i in (27, 28, 29)]))


# ---- the flags ----


def test_a_rejected_side_that_falls_six_times_as_fast_is_a_drastic_drop_and_one_that_falls_four_times_is_none():
    (flag,) = dynamics(logged(-40 + LINE, -40 - 6 * LINE))["flags"]
    assert flag["code"] == "drastic_drop"
    assert (flag["chosen"], flag["rejected"]) == (pytest.approx(1 / 5), pytest.approx(-6 / 5))  # per step, five a row
    assert (flag["start"], flag["end"]) == (0, 145)
    assert "6.0 times" in flag["message"]
    assert codes(dynamics(logged(-40 + LINE, -40 - 4 * LINE))) == []


def test_a_chosen_side_that_falls_while_the_margin_grows_is_a_degradation():
    assert codes(dynamics(logged(-40 - LINE, -40 - 2 * LINE))) == ["degradation"]
    assert codes(dynamics(logged(-40 - 2 * LINE, -40 - LINE))) == []  # the margin falls too: training fails, otherwise


def test_both_falling_is_a_dispersion_only_where_unseen_responses_rise():
    both = -40 - LINE, -40 - 2 * LINE
    assert codes(dynamics(logged(*both, unseen=-50 + LINE))) == ["degradation", "dispersion"]
    assert codes(dynamics(logged(*both, unseen=-50 - LINE))) == ["degradation"]
    held = [
        {"step": step, "eval_logps/chosen": -60 + step / 10, "eval_logps/rejected": -61 + step / 10}
        for step in range(0, 150, 10)
    ]
    assert codes(dynamics([*logged(*both), *held])) == ["degradation", "dispersion"]


def test_a_pattern_that_begins_late_is_found_where_it_begins():
    chosen = np.concatenate([-40 + 0.5 * LINE, -25.5 - LINE])
    rejected = -40 - np.concatenate([LINE, 29 + 3 * LINE])
    found = {flag["code"]: flag for flag in dynamics(logged(chosen, rejected))["flags"]}
    assert 50 < found["degradation"]["start"] < 150  # it turns at 150, and a window is 100 long
    assert found["degradation"]["end"] == 295
    # at the turn the chosen side stands still, and there alone the rejected one falls five times as fast
    assert found["drastic_drop"]["start"] >= 50
    assert found["drastic_drop"]["end"] <= 250


def test_what_batches_differ_in_raises_no_flag_and_rewards_see_through_it():
    flat = np.full(60, -40.0)
    alarms = [bool(codes(dynamics(logged(flat, flat, noise=5.0, seed=seed)))) for seed in range(50)]
    assert sum(alarms) <= 2  # of 50 runs in which nothing happens
    slow = np.arange(60.0) / 20  # 3 nats in the run, beside 7 of noise from row to row
    rows = logged(flat - slow, flat - 2 * slow, noise=5.0, names="rewards")
    assert dynamics(rows)["read"] == ["rewards/chosen", "rewards/rejected"]
    assert codes(dynamics(rows)) == ["degradation"]


def test_a_run_with_few_rows_or_without_pairs_is_not_judged_and_says_so():
    found = dynamics(logged(-LINE[:5], -2 * LINE[:5]))
    assert found["flags"] == []
    assert "fewer than 8 logged steps" in found["why_not"]
    assert "why_not" in dynamics([{"step": 1, "loss": 0.5}])
    assert "why_not" in dynamics([])


# ---- the toy ----


def toy(on_chosen=True, on_rejected=True, *, seed=0, beta=(0.1, 0.1), sft=0.0, epochs=500):
    """Four prompts, ten responses, a three-layer network by Adam; per epoch (chosen, rejected, others) probabilities.

    Prompt i has response i chosen and 4 + i rejected, each with the probability 0.12 (what the policy would write) or
    0.02; the other eight are unseen for it.
    """
    rng = np.random.default_rng(seed)
    i, x = np.arange(4), np.eye(4)
    weights = [rng.normal(size=(a, b)) * math.sqrt(2 / a) for a, b in ((4, 32), (32, 32), (32, 10))]
    moments: list = []

    def forward():
        hidden = np.maximum(x @ weights[0], 0)
        deep = np.maximum(hidden @ weights[1], 0)
        logits = deep @ weights[2]
        logits -= logits.max(axis=1, keepdims=True)
        return hidden, deep, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def step(k, slope, hidden, deep, rate):
        back = (slope @ weights[2].T) * (deep > 0)
        first = (back @ weights[1].T) * (hidden > 0)
        for j, g in enumerate((x.T @ first, hidden.T @ back, deep.T @ slope)):
            m, v = moments[j]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            moments[j] = m, v
            weights[j] -= rate * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)

    a, b = (0.12 if on else 0.02 for on in (on_chosen, on_rejected))
    wanted = np.full((4, 10), (1 - a - b) / 8)
    wanted[i, i], wanted[i, 4 + i] = a, b
    moments[:] = [(0.0, 0.0)] * 3
    for k in range(1, 201):
        hidden, deep, logp = forward()
        step(k, (np.exp(logp) - wanted) / 4, hidden, deep, 0.01)
    reference = forward()[2]
    moments[:] = [(0.0, 0.0)] * 3
    told = []
    for k in range(1, epochs + 1):
        hidden, deep, logp = forward()
        chosen, rejected = logp[i, i], logp[i, 4 + i]
        others = 1 - np.exp(chosen) - np.exp(rejected)
        told.append([np.exp(chosen).mean(), np.exp(rejected).mean(), others.mean(), chosen.mean(), rejected.mean()])
        margin = beta[0] * (chosen - reference[i, i]) - beta[1] * (rejected - reference[i, 4 + i])
        pull = 1 / (1 + np.exp(margin)) / 4
        slope = np.zeros((4, 10))
        slope[i, i], slope[i, 4 + i] = -beta[0] * pull - sft / 4, beta[1] * pull
        step(k, slope - np.exp(logp) * slope.sum(axis=1, keepdims=True), hidden, deep, 0.003)
    return np.array(told)


def rows_of(told):
    every = told[::5]
    return logged(every[:, 3], every[:, 4], unseen=np.log(every[:, 2]))


@pytest.mark.parametrize("seed", range(3))
def test_in_the_toy_chosen_responses_rise_and_then_fall_and_the_unseen_rise_late(seed):
    told = toy(seed=seed)
    chosen, rejected, others = told[:, 0], told[:, 1], told[:, 2]
    peak = int(chosen.argmax())
    assert chosen[0] == pytest.approx(0.12, abs=0.01)
    assert chosen[peak] > 0.6
    assert 20 < peak < 250
    assert chosen[-1] < chosen[peak] - 0.25
    assert others[-1] > others[peak] + 0.25
    assert rejected[-1] < 1e-6
    assert {"degradation", "dispersion"} <= set(codes(dynamics(rows_of(told))))
    # pairs that the policy would not write: a lower peak, and less at the end
    off = toy(False, False, seed=seed)
    assert off[:, 0].max() < chosen[peak]
    assert off[-1, 0] < chosen[-1]
    # the paper's two remedies: a smaller beta for the rejected side, and a term for the chosen one
    assert toy(seed=seed, beta=(0.1, 0.05))[-1, 0] > chosen[-1] + 0.25
    assert toy(seed=seed, sft=0.1)[-1, 0] > 0.95


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_alone_raises_no_flag(seed):
    assert codes(dynamics(rows_of(toy(seed=seed, beta=(0.0, 0.0), sft=1.0)))) == []
