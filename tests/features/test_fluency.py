import math

import pytest

from unipref.features.fluency import CharacterModel


def test_a_character_of_an_unknown_context_gets_an_equal_share():
    # the corpus is the text itself, which is taken out: 3 letters and the end are known, and one share is for the rest
    model = CharacterModel.of(["abc"])
    assert model.fluency("abc") == pytest.approx(math.log(1 / 5))
    assert math.isnan(model.fluency(""))


def test_order_one_is_witten_and_bells_mixture_by_hand():
    # corpus a, b, e(nd) of "ab"; kinds 3, tokens 3, letters 3 + 1
    model = CharacterModel.of(["ab"], order=1)
    known = (1 + 3 * 1 / 4) / (3 + 3)
    unknown = (0 + 3 * 1 / 4) / (3 + 3)
    assert 3 * known + unknown == pytest.approx(1.0)
    assert model.fluency("az") == pytest.approx((math.log(known) * 2 + math.log(unknown)) / 3)


def test_order_two_goes_back_to_order_one_by_hand():
    # "aa" padded: ^ a a $; after ^: a; after a: a, $ (2 kinds, 2 tokens); order 1: a 2, $ 1 (2 kinds, 3 tokens)
    model = CharacterModel.of(["aa"], order=2)
    a1, e1 = (2 + 2 / 3) / 5, (1 + 2 / 3) / 5
    start_a = (1 + 1 * a1) / (1 + 1)
    a_end = (1 + 2 * e1) / (2 + 2)
    assert model.fluency("a") == pytest.approx((math.log(start_a) + math.log(a_end)) / 2)


TEXTS = ["cheap shoes today", "cheap boots today", "boots and shoes", "お得な靴", "お得なくつ【公式】", "cheap!"]


@pytest.mark.parametrize("order", [1, 2, 5])
def test_a_text_in_the_corpus_is_scored_as_if_the_corpus_never_had_it_or_its_pair(order):
    model = CharacterModel.of(TEXTS, order=order)
    for text in TEXTS:
        for other in TEXTS:
            without = CharacterModel.of([each for each in TEXTS if each not in (text, other)], order=order)
            # letters that only these two have are still known as letters
            twin = CharacterModel(
                order, without.texts, without.counts, without.after, without.kinds, letters=model.letters
            )
            assert model.fluency(text, without=[other]) == pytest.approx(twin.fluency(text))


def test_a_text_twice_in_the_data_is_once_in_the_corpus():
    once, twice = CharacterModel.of(TEXTS), CharacterModel.of([*TEXTS, *TEXTS])
    assert once.fluency("cheap boots") == twice.fluency("cheap boots")


def test_expected_letters_are_more_fluent_than_the_same_letters_in_disorder_in_any_script():
    model = CharacterModel.of(["今日は天気がいい", "今日は雨がふる", "明日は天気がいい", "the weather is good"])
    assert model.fluency("明日は雨がふる") > model.fluency("るがふは明雨日")
