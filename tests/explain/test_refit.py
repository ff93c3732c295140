import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from unipref.explain.refit import refit


def world(seed: int, n: int = 600, repeats: int = 1):
    rng = np.random.default_rng(seed)
    truth = np.array([0.8, -0.5, 0.0])
    X = rng.normal(size=(n, 3))
    y = (rng.random(n) < 1 / (1 + np.exp(-X @ truth))).astype(float)
    return np.repeat(X, repeats, axis=0), np.repeat(y, repeats), np.repeat(np.arange(n), repeats), truth


def test_weights_are_scikit_learns_without_a_penalty():
    X, y, _, _ = world(0)
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(X, y)
    assert np.allclose(refit(X, y).weight, oracle.coef_[0], atol=1e-5)


def test_intervals_hold_the_truth_nineteen_times_in_twenty():
    inside = []
    for seed in range(200):
        X, y, _, truth = world(seed, n=300)
        found = refit(X, y)
        inside.append((found.low <= truth) & (truth <= found.high))
    # 600 intervals at 95 %: below 92 % or above 97.5 % by chance in fewer than one of a thousand worlds
    assert 0.92 < np.mean(inside) < 0.975


def test_rows_of_one_prompt_do_not_make_an_interval_narrower():
    X, y, groups, _ = world(1)
    once = refit(X, y)
    again = refit(*(np.repeat(a, 4, axis=0) for a in (X, y)), groups=np.repeat(groups, 4))
    assert np.allclose(once.low, again.low, rtol=1e-6)
    assert np.allclose(once.high, again.high, rtol=1e-6)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.ones((4, 1)), [1, 0, 1, 0], "too few"),
        (np.tile([[1.0, 2.0]], (40, 1)) * np.arange(-20, 20)[:, None], np.arange(40) % 2, "told from each other"),
        (np.linspace(-1, 1, 40)[:, None], np.linspace(-1, 1, 40) > 0, "separate"),
    ],
)
def test_where_there_is_no_interval_it_says_why(X, y, words):
    found = refit(X, np.asarray(y, dtype=float))
    assert words in found.why_not
    assert np.isnan(found.low).all()
