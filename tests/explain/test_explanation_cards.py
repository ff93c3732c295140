"""What the cards of explanations and of concepts build, on a case worked out by hand for each."""

import math
import re

import numpy as np
import pytest

import unipref.explain.catalogue
import unipref.features.concept_cards  # noqa: F401 (both fill the registry)
from unipref.core.cards import get_method, list_methods
from unipref.explain.study import Settings
from unipref.features.concept_sets import concept_set_names

X = np.array([[1.0], [2.0], [-1.0], [0.0]])
Y = np.array([1, 1, 1, 1])  # the first is preferred; it has more of the factor twice, less once, as much once


def build(key: str, kind: str = "explanation", **options):
    return get_method(key, kind).build(**options)


def test_tau_counts_ties_of_the_factor_and_chi2_does_not():
    [tau] = build("tau_influence")(X, Y)
    assert tau.influence == (2 - 1) / (2 + 1 + 1)
    [chi2] = build("chi2_association")(X, Y)
    assert (chi2.n, chi2.chi2) == (3, (2 * 2 - 3) ** 2 / 3)
    assert chi2.p == pytest.approx(math.erfc(math.sqrt(chi2.chi2 / 2)))


def test_a_label_that_wins_three_contests_of_four_is_as_strong_as_three_to_one_but_for_a_tenth_of_a_win():
    found = build("btl_factors")([["a"]] * 4, [["b"]] * 4, [1, 1, 1, 0])
    strength = dict(zip(found.names, found.strength, strict=True))
    assert strength["a"] / strength["b"] == pytest.approx((3 + 0.1) / (1 + 0.1), rel=1e-6)


def test_the_regression_has_no_weight_above_its_largest_useful_penalty():
    # one domain: 0 is best iff lambda_shared >= (1 + alpha) / 2 * |mean of y x|, with y of -1 and 1
    mean = abs((X[:, 0] * (2 * Y - 1)).mean())
    assert build("hmdr", lambda_shared=0.501 * 2 * mean, alpha=1.0).fit(X, Y).shared_[0] == 0.0
    assert build("hmdr", lambda_shared=0.999 * mean, alpha=1.0).fit(X, Y).shared_[0] > 0.0


def test_the_posterior_of_nothing_is_its_prior():
    found = build("laplace_posterior", scale=0.1, draws=500, warm_up=200, chains=2)(np.zeros((4, 1)), Y)
    # variance of Laplace(0, b) is 2 b^2; 1,000 draws, so the mean of them is 0 within five standard errors
    assert found.mean[0] == pytest.approx(0.0, abs=5 * math.sqrt(2) * 0.1 / math.sqrt(float(found.ess[0])))


def test_a_counterfactual_takes_a_value_of_a_real_pair_that_has_the_other_verdict():
    data = np.array([[-1.0, 0.0], [-3.0, 5.0], [2.0, 1.0]])
    found = build("tcol")(lambda x: np.atleast_2d(x)[:, 0], np.array([1.0, 0.0]), data)
    assert [(j, new) for j, _, new in found.changes] == [(0, -1.0)]


def test_two_sides_apart_by_three_and_four_are_five_apart():
    a, b = np.zeros((10, 2)), np.tile([3.0, 4.0], (10, 1))
    assert build("distinguishability", swaps=0)(a, b).dist == pytest.approx(5.0)


def test_an_option_of_a_card_reaches_what_it_builds():
    assert build("cpm_regression", penalty="l1").penalty == "l1"
    assert build("hmdr_discovery", n_batches=3).keywords["n_batches"] == 3
    assert build("ngrams", "concepts", most=7).keywords["most"] == 7
    assert get_method("ngrams", "concepts").options["most"] == Settings().n_grams


def test_every_set_that_the_command_takes_has_a_card_and_builds_itself():
    sets = [card for card in list_methods("concepts") if card.key in concept_set_names()]
    assert {card.key for card in sets} == set(concept_set_names())
    for card in sets:
        built = card.build()
        assert built.name == card.key
        assert {concept.source for concept in built.concepts} == {f"arXiv:{card.citation.arxiv}"}
        count = re.match(r"(\d+) ", card.formula)
        extra = "and length" in card.formula  # CPM's thirteen, and one that is counted
        assert int(count[1]) + extra == len(built.concepts)
        if counted := re.search(r"(\d+)(?: of them)? counted", card.formula):
            assert int(counted[1]) == sum(concept.kind == "rule" for concept in built.concepts)
