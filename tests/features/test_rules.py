import math

import numpy as np
import pytest

from unipref.core.errors import ConfigError
from unipref.features.concepts import Concept, pair_differences, surface_values
from unipref.features.rules import RULES, Rule, length_label, parse_rule, rule_of, rule_values
from unipref.features.surface import SURFACE


def value(rule, text, prompt="", other="other"):
    found = rule_values([Concept("c", "c", "c", rule=rule)], [prompt], [text], [other])
    return found.first[0, 0]


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        ("kanji", "東京タワーへ行く、々", math.log1p(4)),  # 東 京 行 and the mark of repetition
        ("hiragana", "東京タワーへ行く", math.log1p(2)),
        ("katakana", "東京タワーへ行く", math.log1p(3)),  # the long mark is katakana
        ("katakana", "ﾀﾜｰ", math.log1p(3)),  # half width
        ("latin", "\uff21\uff22 c é", math.log1p(4)),
        ("kanji_share", "東京 a b", 0.5),  # of 4 characters that are not spaces
        ("katakana_share", "", math.nan),
        ("lenticular_brackets", "【公式】(公式)【新】", math.log1p(2)),
        ("brackets", "【公式】(公式)【新】", math.log1p(3)),
        ("digits", "第12巻", 0.5),
    ],
)
def test_characters_are_told_apart_by_their_script(rule, text, expected):
    assert value(rule, text) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "source", "share"),
    [
        ("the cat sat down", "there the cat sat on", 3 / 4),
        ("sat cat the", "the cat sat", 1 / 3),
        ("the cat sat", "on the cat sat there", 1.0),
        ("a b", "c d", 0.0),
        ("東京へ行く", "明日東京へ", 3 / 5),
        ("", "c d", math.nan),
    ],
)
def test_the_longest_copied_run_is_found(text, source, share):
    assert value("copied_run", text, source) == pytest.approx(share, nan_ok=True)


def test_the_longest_copied_run_equals_trying_every_run():
    rng = np.random.default_rng(0)
    for _ in range(50):
        own, source = (rng.choice(list("abc"), rng.integers(1, 12)).tolist() for _ in range(2))
        runs = [tuple(own[i:j]) for i in range(len(own)) for j in range(i + 1, len(own) + 1)]
        inside = [r for r in runs if any(tuple(source[i : i + len(r)]) == r for i in range(len(source)))]
        longest = max((len(run) for run in inside), default=0)
        assert value("copied_run", " ".join(own), " ".join(source)) == longest / len(own)


@pytest.mark.parametrize(
    ("first", "second", "label"),
    [
        (10, 16, 0),
        (10, 17, -1),
        (17, 10, 1),
        (0, 0, 0),
        (0, 1, -1),
        (11, 18, 0),
        (11, 19, -1),
        (21, 30, 0),  # 0.7 of it, but 9 behind
        (28, 40, -1),
        (79, 99, -1),  # 0.798, 20 behind
        (81, 101, 0),  # 0.802
        (360, 400, -1),
        (361, 400, 0),
    ],
)
def test_length_label_as_the_authors_rule(first, second, label):
    assert length_label(first, second) == label


def test_a_rule_of_pairs_has_its_verdict_as_the_difference_and_swapping_mirrors_it():
    long, short = "w " * 30, "w " * 10
    concept = [Concept("longer", "Longer", "longer", rule="length_label")]
    found = rule_values(concept, [""] * 3, [long, short, short], [short, long, short])
    assert found.difference[:, 0].tolist() == [1.0, -1.0, 0.0]
    scaled, _ = pair_differences(found, np.ones(3, bool))
    assert (np.sign(scaled[:, 0]) == [1, -1, 0]).all()


def test_bounds_make_a_yes_or_no_with_the_upper_bound_outside():
    words = ["w " * n for n in (24, 25, 49, 50)]
    assert [value("tokens from 25 to 50", text) for text in words] == [0.0, 1.0, 1.0, 0.0]
    assert [value("tokens to 25", text) for text in words] == [1.0, 0.0, 0.0, 0.0]
    assert [value("tokens from 50", text) for text in words] == [0.0, 0.0, 0.0, 1.0]
    assert math.isnan(value("novel_tokens from 0.5", "w", ""))  # nothing to be new against


def test_minus_turns_a_rule_round():
    assert value("minus tokens", "a b c") == -value("tokens", "a b c") == -math.log(4)


def test_rules_of_surface_features_are_the_surface_features():
    texts = ["Try this:\n- rest!", "Maybe not. 12 (ok)"]
    plain = surface_values(["How do I rest?"] * 2, texts, texts[::-1])
    concepts = [Concept(name, name, meaning) for name, meaning in SURFACE.items()]
    found = rule_values(concepts, ["How do I rest?"] * 2, texts, texts[::-1])
    assert np.array_equal(plain.difference, found.difference, equal_nan=True)


def test_fluency_is_by_the_other_pairs_and_mirrors_when_the_sides_are_swapped():
    first, second = ["cheap shoes now", "cheap boots now"], ["shoes cheap now", "zq xv jk"]
    concept = [Concept("fluent", "Fluent", "fluent", rule="fluency")]
    there = rule_values(concept, ["", ""], first, second)
    back = rule_values(concept, ["", ""], second, first)
    assert np.allclose(there.difference, -back.difference)
    assert there.difference[1, 0] > 0
    alone = rule_values(concept, [""], first[:1], second[:1])
    assert alone.difference[0, 0] == pytest.approx(0.0)  # no other text, nothing expected


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("tokns", "did you mean 'tokens'"),
        ("tokens between 1 and 2", "NAME from LOW to HIGH"),
        ("tokens from few to many", "numbers"),
        ("tokens from 50 to 25", "lower bound first"),
        ("length_label from 0", "no bounds"),
        ("", "NAME"),
    ],
)
def test_a_rule_that_cannot_be_read_is_named_with_what_is_near(text, word):
    with pytest.raises(ConfigError, match=word):
        parse_rule(text)


def test_a_concept_without_a_rule_is_not_counted():
    assert rule_of(Concept("warmth", "Warmth", "kind", kind="judge")) is None
    assert rule_of(Concept("tokens", "Words", "more")) == Rule("tokens")
    with pytest.raises(ConfigError, match="leave it to a judge"):
        rule_values([Concept("warmth", "Warmth", "kind", kind="judge")], [""], ["a"], ["b"])


def test_every_rule_has_a_number_for_a_plain_pair_and_a_meaning():
    prompt, texts = (
        "Tell me of Tokyo towers 東京.",
        ["The first tower 東京タワー stands [1].", "Towers, two of them: ある!"],
    )
    concepts = [Concept(f"c{i}", name, RULES[name], rule=name) for i, name in enumerate(RULES)]
    found = rule_values(concepts, [prompt], texts[:1], texts[1:])
    assert np.isfinite(found.difference).all()
    assert all(RULES.values())
