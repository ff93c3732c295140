"""Facts about margins as probabilities."""

import math

import numpy as np
import pytest

from unipref.evaluate._calibration import calibration, fit_temperature, log_score


def row(margin, *, conversation="c", seed=0, weight=1.0):
    """A pair row whose implicit reward margin is `margin`."""
    sides = {
        "logp_chosen": -10.0 + margin,
        "logp_rejected": -10.0,
        "ref_logp_chosen": -10.0,
        "ref_logp_rejected": -10.0,
    }
    return {**sides, "conversation": conversation, "seed": seed, "weight": weight, "len_chosen": 5, "len_rejected": 5}


def test_the_temperature_of_two_margins_by_hand():
    # 3 pairs at +1, 1 at -1, targets 5/6: the slope s solves 3 (5/6 - p) = 5/6 - (1 - p), p = sigmoid(s)
    p = (3 * 5 / 6 - 5 / 6 + 1) / 4
    assert fit_temperature([1.0, 1.0, 1.0, -1.0]) == pytest.approx(1 / math.log(p / (1 - p)), rel=1e-9)


def test_margins_that_are_all_right_have_a_temperature_above_zero():
    # the target (3 + 1) / (3 + 2) is met at sigmoid(2 / T) = 0.8
    assert fit_temperature([2.0, 2.0, 2.0]) == pytest.approx(2 / math.log(4), rel=1e-9)


def test_margins_that_point_the_wrong_way_are_worth_a_coin():
    assert fit_temperature([-1.0, -2.0, 0.5]) == math.inf
    assert fit_temperature([0.0, 0.0]) == math.inf
    assert fit_temperature([]) == math.inf
    assert log_score([3.0, -5.0], math.inf) == pytest.approx(-math.log(2))


def test_scale_decides_nothing_once_a_temperature_is_fitted():
    margins = np.random.default_rng(0).normal(0.4, 1.0, size=60)
    temperature = fit_temperature(margins)
    assert fit_temperature(1000 * margins) == pytest.approx(1000 * temperature, rel=1e-9)
    big = [row(1000 * m, conversation=str(i)) for i, m in enumerate(margins)]
    small = [row(m, conversation=str(i)) for i, m in enumerate(margins)]
    one = calibration(big, {0: 1000 * temperature}, resamples=200)
    other = calibration(small, {0: temperature}, resamples=200)
    for name in ("brier", "log_score"):
        assert one[name] == pytest.approx(other[name], rel=1e-6)
    assert one["ece"] == pytest.approx(other["ece"], rel=1e-6)


def test_weight_two_is_the_row_twice():
    twice = fit_temperature([1.0, 1.0, -0.5])
    assert fit_temperature([1.0, -0.5], [2.0, 1.0]) == pytest.approx(twice, rel=1e-9)


def test_brier_log_score_and_calibration_error_by_hand():
    z = math.log(3)  # sigmoid(z) = 3/4
    pairs = [row(z, conversation=str(i)) for i in range(3)] + [row(-z, conversation="3")]
    found = calibration(pairs, {0: 1.0}, resamples=200)
    assert found["brier"][0] == pytest.approx((3 * (1 / 4) ** 2 + (3 / 4) ** 2) / 4)
    assert found["log_score"][0] == pytest.approx((3 * math.log(3 / 4) + math.log(1 / 4)) / 4)
    assert found["ece"] == pytest.approx(0.0, abs=1e-12)  # confidence 3/4 throughout, three of four right
    overconfident = calibration(pairs, {0: 1e-9}, resamples=200)
    assert overconfident["ece"] == pytest.approx(1 / 4)  # confidence 1, three of four right


def test_every_seed_has_its_own_temperature():
    pairs = [row(2.0, seed=0, conversation="a"), row(20.0, seed=1, conversation="b")]
    found = calibration(pairs, {0: 1.0, 1: 10.0}, resamples=200)
    assert found["log_score"][0] == pytest.approx(-math.log1p(math.exp(-2)))
    assert found["temperature"] == {"0": 1.0, "1": 10.0}


def test_a_fitted_temperature_calibrates_rewards_that_follow_the_model_it_assumes():
    rng = np.random.default_rng(3)
    gaps = 4 * rng.normal(size=4000)
    right = rng.random(4000) < 1 / (1 + np.exp(-gaps / 2.5))  # people choose with temperature 2.5
    margins = np.where(right, gaps, -gaps)
    assert fit_temperature(margins) == pytest.approx(2.5, rel=0.1)  # standard error below 3 %
    pairs = [row(m, conversation=str(i)) for i, m in enumerate(margins)]
    # ten bins of 400: the mean absolute gap of a calibrated reward is about 0.8 * 0.4 / 20 = 0.016
    assert calibration(pairs, {0: 2.5}, resamples=100)["ece"] < 0.03
    assert calibration(pairs, {0: 0.5}, resamples=100)["ece"] > 0.1
