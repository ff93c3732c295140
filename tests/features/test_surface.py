# ruff: noqa: RUF001 (full-width marks are what is tested)
import math

import numpy as np
import pytest

from unipref.features.surface import SURFACE, script_of, surface, tokens


def of(response: str, prompt: str = "") -> dict[str, float]:
    return dict(zip(SURFACE, surface([response], [prompt])[0].tolist(), strict=True))


@pytest.mark.parametrize(
    ("feature", "text", "value"),
    [
        ("characters", "abc d", 5),
        ("tokens", "It's a well-known fact.", 4),
        ("sentences", "One. Two! Three?\n\nFour", 4),
        ("sentence_length", "One two. Three four five six.", 3),
        ("type_token_ratio", "the cat and The dog", 4 / 5),
        ("repeated_trigrams", "a b c a b c", 1 / 4),  # abc bca cab abc
        ("bullets", "- a\n* b\ntext - c\n• d", 3),
        ("numbered", "1. a\n2) b\n(3) c\n1999 was good", 3),
        ("headings", "# a\n## b\n#tag", 2),
        ("bold", "**a** and __b__ and *c*", 2),
        ("code", "`x` and\n```\ny `z`\n```", 2),
        ("tables", "| a | b |\n| - | - |\na | b", 2),
        ("links", "see https://a.org/b and [12] and (Smith et al., 2004)", 3),
        ("digits", "ab12", 0.5),
        ("brackets", "f(x)[0]", 2),
        ("brackets", "【新】《無料》≪今≫［広告］＜秋＞〔a〕", 6),
        ("questions", "What? 何？", 2),
        ("exclamations", "No! はい！", 2),
        ("emoji", "\U0001f600 ☀ :)", 2),
        ("refusals", "I’m sorry, but I can't. As an AI I cannot say.", 3),
        ("hedges", "Maybe it might work; it depends.", 3),
        ("politeness", "Please wait. Thank you, of course.", 3),
        ("second_person", "You know your own yourself best, youth.", 3),
        ("imperatives", "Try it.\n- Use oil\n2. Make tea\nThe use of it", 3),
        ("steps", "First boil, then stir. Finally, step 4.", 4),
        ("long_words", "elephant is big", 1 / 3),
    ],
)
def test_a_feature_counts_what_it_says(feature, text, value):
    assert of(text)[feature] == pytest.approx(value)


def test_overlap_with_the_prompt_is_of_distinct_tokens():
    found = of("Cats sleep. Cats eat fish.", "What do cats eat?")
    assert found["prompt_recall"] == 2 / 4  # cats, eat of what, do, cats, eat
    assert found["prompt_precision"] == 2 / 4  # of cats, sleep, eat, fish
    assert found["novel_tokens"] == 2 / 5  # sleep, fish of five


def test_scripts_without_spaces_are_read_letter_by_letter_and_have_no_english():
    found = of("無料カウンセリングはこちらから。今すぐ！", "Write an ad")
    assert found["tokens"] == 18
    assert found["sentences"] == 2
    assert found["other_script"] == 1
    assert all(math.isnan(found[name]) for name in ("hedges", "reading_ease", "imperatives", "long_words"))
    assert of("Привет, как дела?", "Hello")["other_script"] == 1
    assert of("Hello", "Hi")["other_script"] == 0


def test_an_empty_text_has_counts_of_zero_and_no_shares():
    found = of("", "Hi there")
    assert found["tokens"] == found["sentences"] == found["hedges"] == found["prompt_recall"] == 0
    assert all(math.isnan(found[name]) for name in ("type_token_ratio", "digits", "reading_ease", "novel_tokens"))
    assert math.isnan(of("word")["prompt_recall"])


def test_a_text_has_the_same_numbers_whatever_stands_beside_it():
    texts = ["One two.", "", "東京へ行く", "- a\n- b"]
    together = surface(texts, ["p"] * 4)
    assert together.shape == (4, len(SURFACE))
    for row, text in zip(together, texts, strict=True):
        assert np.array_equal(row, surface([text], ["p"])[0], equal_nan=True)
    assert surface([], []).shape == (0, len(SURFACE))


def test_full_width_and_half_width_are_one():
    assert tokens("ＡＢＣ　123") == ["abc", "123"]
    assert script_of("ABC ひらがなカタカナ漢字") == "CJK"
    assert script_of("123 !?") == ""
