"""Facts about how sure a preference model is."""

import itertools
import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from unipref.evaluate._reliability import CURVE, debiased_square, reliability


def told(logit, p, weight=None, conversation=None, **more):
    logit, p = np.asarray(logit, dtype=float), np.asarray(p, dtype=float)
    weight = np.ones(len(p)) if weight is None else np.asarray(weight, dtype=float)
    conversation = np.array([str(i) for i in range(len(p))]) if conversation is None else conversation
    return reliability(logit, p, weight, conversation, **{"resamples": 200, **more})


def drawn(rng, n, scale=1.5):
    """Logits and labels that follow them."""
    logit = rng.normal(0, scale, n)
    return logit, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float)


@pytest.mark.parametrize("bins", [5, 10, 20])
def test_bins_of_equal_width_are_scikit_learns_on_both_orders_of_every_pair(bins):
    logit, p = drawn(np.random.default_rng(0), 400)
    q = 1 / (1 + np.exp(-np.r_[logit, -logit]))
    share, predicted = calibration_curve(np.r_[p, 1 - p], q, n_bins=bins)
    found = told(logit, p)["equal_width"][str(bins)]
    assert found["ace"] == pytest.approx(np.abs(share - predicted).mean(), abs=1e-12)
    assert found["mce"] == pytest.approx(np.abs(share - predicted).max(), abs=1e-12)


def test_the_expected_calibration_error_by_hand():
    z, two = math.log(3), math.log(9)  # 3/4 and 9/10
    found = told([z, z, two, -two], [1, 0, 1, 0])
    # both orders: [3/4, 3/4] has share 1/2 and [9/10, 9/10] share 1, each with its mirror image
    assert found["equal_width"]["10"]["ece"] == pytest.approx((0.25 + 0.1) / 2)
    assert found["equal_width"]["10"]["ace"] == pytest.approx((0.25 + 0.1) / 2)
    assert found["equal_width"]["10"]["mce"] == pytest.approx(0.25)


def test_a_probability_on_an_edge_belongs_to_the_bin_below():
    # of 10 bins, 0.5 belongs to (0.4, 0.5], where 0.45 is, and 0.55 is above: with labels 1, 1 and both orders,
    # (0.4, 0.5] holds 0.5 with 1, 0.5 with 0 and 0.45 with 0, and (0.5, 0.6] holds 0.55 with 1
    found = told([0.0, math.log(0.55 / 0.45)], [1, 1])["equal_width"]["10"]
    assert found["ece"] == pytest.approx((abs(1 - 1.45) + 0.45) / 4)
    assert found["ace"] == pytest.approx((0.45 / 3 + 0.45) / 2)


def test_a_model_that_cannot_tell_any_pair_is_calibrated():
    found = told(np.zeros(40), np.random.default_rng(0).integers(0, 2, 40))
    assert [found["equal_width"][k]["ece"] for k in ("5", "10", "20")] == [0, 0, 0]
    assert (found["ece"], found["squared"], found["temperature"]) == (0, 0, None)
    assert [(point["confidence"], point["right"][0], point["n"]) for point in found["curve"]] == [(0.5, 0.5, 40)]


def test_the_curve_holds_every_pair_once_and_its_gaps_make_the_error():
    logit, p = drawn(np.random.default_rng(2), 333)
    found = told(logit, p)
    assert sum(point["n"] for point in found["curve"]) == 333
    assert len(found["curve"]) == CURVE
    gaps = [point["n"] * abs(point["right"][0] - point["confidence"]) for point in found["curve"]]
    assert found["ece"] == pytest.approx(sum(gaps) / 333)
    confidences = [point["confidence"] for point in found["curve"]]
    assert confidences == sorted(confidences)


def test_debiasing_is_the_published_estimator_where_that_is_defined():
    rng = np.random.default_rng(3)
    confidence = np.repeat([0.6, 0.8, 0.95], [50, 30, 20])
    right = (rng.random(100) < 0.8).astype(float)
    gaps, masses = np.zeros((2, 100, 3))
    bins = np.repeat([0, 1, 2], [50, 30, 20])
    gaps[np.arange(100), bins], masses[np.arange(100), bins] = right - confidence, 1
    expected = 0.0
    for k, c in enumerate((0.6, 0.8, 0.95)):
        y, n = right[bins == k].mean(), (bins == k).sum()
        expected += n / 100 * ((c - y) ** 2 - y * (1 - y) / (n - 1))  # Kumar, Liang and Ma 2019, Definition 4.2
    assert debiased_square(gaps, masses) == pytest.approx(expected, abs=1e-15)


def test_debiasing_is_the_mean_product_of_gaps_of_different_conversations():
    rng = np.random.default_rng(4)
    masses = rng.integers(0, 3, (12, 2)).astype(float)
    gaps = masses * rng.normal(0, 0.3, (12, 2))
    expected = 0.0
    for k in range(2):
        pairs = list(itertools.permutations(range(12), 2))
        product = sum(gaps[i, k] * gaps[j, k] for i, j in pairs) / sum(masses[i, k] * masses[j, k] for i, j in pairs)
        expected += masses[:, k].sum() / masses.sum() * product
    assert debiased_square(gaps, masses) == pytest.approx(expected, abs=1e-15)
    assert debiased_square(gaps[:1], np.ones((1, 2))) is None


def test_of_a_calibrated_model_the_plain_error_is_above_zero_and_the_debiased_square_is_zero_on_average():
    # 300 samples of 200 pairs in 100 conversations; three standard errors fail for a right estimator once in 370
    rng = np.random.default_rng(5)
    conversation = np.array([str(i // 2) for i in range(200)])
    found = [told(*drawn(rng, 200), conversation=conversation, resamples=1) for _ in range(300)]
    squares = np.array([each["squared"] for each in found])
    assert abs(squares.mean()) < 3 * squares.std() / math.sqrt(300)
    assert np.mean([each["ece"] for each in found]) > 0.05


def test_what_chance_makes_of_a_calibrated_model_is_what_calibrated_models_get():
    # of 150 samples, a p of at most 0.05 in 7.5 on average; more than 16 has chance 0.001
    rng = np.random.default_rng(6)
    conversation = np.array([str(i // 2) for i in range(200)])
    found = [told(*drawn(rng, 200), conversation=conversation, resamples=100, seed=i) for i in range(150)]
    assert sum(each["ece_p"] <= 0.05 for each in found) <= 16
    expected, seen = (np.mean([each[key] for each in found], axis=0) for key in ("ece_by_chance", "ece"))
    assert expected[0] == pytest.approx(seen, rel=0.08)


def test_a_model_that_is_three_times_too_sure_is_found_out():
    logit, p = drawn(np.random.default_rng(7), 20_000, scale=1.0)
    conversation = np.array([str(i % 500) for i in range(20_000)])
    right, wrong = (told(factor * logit, p, conversation=conversation) for factor in (1, 3))
    assert right["equal_width"]["10"]["ece"] < 0.02
    assert right["temperature"] == pytest.approx(1, abs=0.06)  # 3 standard errors of the slope, about 0.018
    assert wrong["temperature"] == pytest.approx(3 * right["temperature"], rel=1e-6)
    assert wrong["debiased"] > 0.1
    assert wrong["equal_width"]["10"]["ece"] > 0.1
    assert (right["ece_p"] > 0.05, wrong["ece_p"]) == (True, pytest.approx(1 / 201))
    top = wrong["curve"][-1]
    assert top["right"][2] < top["confidence"]
