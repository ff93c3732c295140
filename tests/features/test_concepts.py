import math

import numpy as np
import pytest

from unipref.core.errors import ShapeError
from unipref.features.concepts import (
    Concept,
    PairValues,
    discriminative_ngrams,
    ngram_values,
    ngrams_of,
    pair_differences,
    surface_values,
)
from unipref.features.surface import SURFACE


def values(first, second):
    a, b = (np.array(side, dtype=float)[:, None] for side in (first, second))
    return PairValues((Concept("c", "c", "more"),), a - b, a, b)


def test_differences_are_in_units_of_the_spread_of_both_sides_pooled():
    # 0, 2 | 4, 2 -> mean 2, variance (4 + 0 + 4 + 0) / 4 = 2
    scaled, spread = pair_differences(values([0, 2], [4, 2]), np.array([True, True]))
    assert spread == pytest.approx([math.sqrt(2)])
    assert scaled[:, 0] == pytest.approx([-4 / math.sqrt(2), 0.0])


def test_the_spread_is_of_the_rows_that_are_fitted_and_a_constant_adds_to_both_sides_nothing():
    inside = np.array([True, True, False])
    base, _ = pair_differences(values([0, 2, 9], [4, 2, 0]), inside)
    shifted, _ = pair_differences(values([10, 12, 19], [14, 12, 10]), inside)
    assert np.allclose(base, shifted)
    far, _ = pair_differences(values([0, 2, 900], [4, 2, 0]), inside)
    assert np.allclose(base[:2], far[:2])


def test_swapping_the_sides_mirrors_the_differences_and_a_constant_concept_has_none():
    rows = np.ones(3, bool)
    there, _ = pair_differences(values([1, 2, 3], [3, 1, 7]), rows)
    back, _ = pair_differences(values([3, 1, 7], [1, 2, 3]), rows)
    assert np.allclose(there, -back)
    constant, spread = pair_differences(values([5, 5, 5], [5, 5, 5]), rows)
    assert spread.tolist() == [0.0]
    assert not constant.any()


def test_what_nobody_judged_stays_unknown():
    scaled, _ = pair_differences(values([1, np.nan, 3], [0, 1, 0]), np.ones(3, bool))
    assert np.isnan(scaled[:, 0]).tolist() == [False, True, False]


def test_surface_counts_are_logarithms_and_shares_are_not():
    found = surface_values(["p"], ["a b c. d!"], [""])
    at = {concept.key: i for i, concept in enumerate(found.concepts)}
    assert list(at) == list(SURFACE)
    assert found.first[0, at["tokens"]] == pytest.approx(math.log(5))
    assert found.first[0, at["type_token_ratio"]] == 1.0
    assert found.difference[0, at["exclamations"]] == pytest.approx(math.log(2))


def test_ngrams_are_runs_of_tokens():
    assert ngrams_of("No, thank you") == {"no", "thank", "you", "no thank", "thank you"}


def test_an_ngram_that_winners_have_leads_with_a_positive_sign():
    rng = np.random.default_rng(0)
    filler = [" ".join(rng.choice(list("bcdefgh"), 6)) for _ in range(400)]
    winners = [text + (" please" if i % 2 else "") for i, text in enumerate(filler[:200])]
    losers = [text + (" never" if i % 3 == 0 else "") for i, text in enumerate(filler[200:])]
    found = dict(discriminative_ngrams(winners, losers, order=1))
    assert list(found)[:2] in (["please", "never"], ["never", "please"])
    assert found["please"] > 3 > 0 > -3 > found["never"]
    mirrored = dict(discriminative_ngrams(losers, winners, order=1))
    assert mirrored["please"] == pytest.approx(-found["please"])


def test_log_odds_by_hand():
    # "x" in 6 winners only, "y" in 3 of each side alone: n_up 9, n_down 3, prior 6 and 6 of 12
    winners = ["x"] * 6 + ["y"] * 3 + ["q"] * 3
    losers = ["q"] * 6 + ["q"] * 3 + ["y"] * 3
    found = dict(discriminative_ngrams(winners, losers, order=1, least_texts=6))
    up, down = {"x": 6, "y": 3, "q": 3}, {"x": 0, "y": 3, "q": 9}
    total = sum(up.values()) + sum(down.values())
    a, b = up["x"] + 6, down["x"] + 6
    z = math.log(a / (12 + total - a)) - math.log(b / (12 + total - b))
    assert found["x"] == pytest.approx(z / math.sqrt(1 / a + 1 / b))


def test_what_both_responses_say_is_no_evidence():
    assert discriminative_ngrams(["hello"] * 9, ["hello"] * 9) == []


def test_ngram_values_say_which_response_has_it():
    found = ngram_values(["thank you", "no"], ["No, thank you", "no", "a"], ["you thank", "no", "No"], domains=["d"])
    assert found.difference.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, -1.0]]
    assert found.concepts[0].domains == ("d",)
    assert ngram_values([], ["a"], ["b"]).difference.shape == (1, 0)


def test_a_table_of_another_width_than_its_concepts_is_refused():
    with pytest.raises(ShapeError, match="1 concepts"):
        PairValues((Concept("c", "c", "more"),), np.zeros((3, 2)))


def test_an_n_gram_of_a_script_without_spaces_is_named_as_it_is_written():
    table = ngram_values(["無 料", "of tea", "tea 茶"], ["無料です"], ["a cup of tea"])
    assert [concept.name for concept in table.concepts] == ["says “無料”", "says “of tea”", "says “tea 茶”"]
    assert [concept.key for concept in table.concepts] == ["says:無 料", "says:of tea", "says:tea 茶"]
    assert table.difference.tolist() == [[1.0, -1.0, 0.0]]


def test_ngram_values_are_what_looking_each_one_up_in_each_text_gives():
    rng = np.random.default_rng(0)
    words = ["a", "b", "東", "don't", "C"]
    first, second = (["".join(rng.choice([f"{word} " for word in words], 6)) for _ in range(40)] for _ in range(2))
    names = ["a", "b a", "東", "don't c", "nowhere"]
    found = ngram_values(names, first, second, domains={name: ("law",) if name == "b a" else () for name in names})
    slow = [
        [float(n in ngrams_of(a)) - float(n in ngrams_of(b)) for n in names] for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_array_equal(found.difference, slow)
    assert [concept.domains for concept in found.concepts] == [(), ("law",), (), (), ()]


def test_surface_values_of_a_response_are_the_same_however_often_it_stands_in_the_data():
    prompts, first, second = ["p", "q", "p"], ["one two", "one two", "x y z"], ["x y z", "b", "one two"]
    together = surface_values(prompts, first, second)
    for i in range(3):
        alone = surface_values(prompts[i : i + 1], first[i : i + 1], second[i : i + 1])
        np.testing.assert_array_equal(together.difference[i], alone.difference[0])
        np.testing.assert_array_equal(together.first[i], alone.first[0])


def test_every_surface_feature_has_a_name_of_its_own_for_people():
    concepts = surface_values(["Why?"], ["So."], ["No."]).concepts
    assert [concept.key for concept in concepts] == list(SURFACE)
    assert len({concept.name for concept in concepts}) == len(SURFACE)
    assert not any("_" in concept.name for concept in concepts)
    assert {concept.key: concept.name for concept in concepts}["prompt_recall"] == "the prompt's words, repeated"
