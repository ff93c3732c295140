"""The logistic function and what is read from log-odds: by hand, and against scipy."""

import math

import numpy as np
import pytest
from scipy.special import expit

from unipref.core.statistics import both_sides, pair_accuracy, sigmoid


def test_sigmoid_is_scipys_and_never_overflows():
    z = np.array([-1e6, -800.0, -40.0, -1.5, 0.0, 1e-12, 3.0, 800.0])
    with np.errstate(all="raise"):
        assert np.allclose(sigmoid(z), expit(z), rtol=0, atol=np.finfo(float).eps)
    assert sigmoid(0.0) == 0.5


def test_the_two_sides_are_the_second_then_the_first():
    sides = both_sides(np.array([math.log(3.0), 0.0, math.nan]))
    assert sides[:2] == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert np.isnan(sides[2]).all()


def test_accuracy_counts_by_weight_and_an_even_verdict_is_half_right():
    logits = [2.0, -1.0, 0.0, 5.0, math.nan, 3.0]
    p = np.array([1.0, 1.0, 0.9, 0.5, 1.0, 0.0])
    weights = np.array([3.0, 1.0, 2.0, 10.0, 10.0, 0.0])
    # right, wrong, half right; a tie, no verdict and a row of weight 0 do not count
    assert pair_accuracy(logits, p, weights) == pytest.approx((3 + 0 + 2 * 0.5) / 6)


def test_accuracy_of_nothing_is_not_a_number():
    assert math.isnan(pair_accuracy([1.0], np.array([0.5]), np.array([1.0])))
