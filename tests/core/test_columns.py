"""What is said of columns: how each is made, and in short what a method asks of its user."""

import pytest

from unipref.core.columns import MAKE, how_to_make, in_words


def test_every_column_has_one_line_that_does_not_end_in_a_stop():
    for name, words in MAKE.items():
        assert words == words.strip(), name
        assert "\n" not in words, name
        assert not words.endswith("."), name


def test_a_column_that_nobody_knows_must_be_in_the_data():
    assert how_to_make("wit") == "numbers per response in the data, such as `chosen_wit` and `rejected_wit`"
    assert "`references:`" in how_to_make("ref_logp.teacher")


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ((), ""),
        (("len",), ""),
        (("chosen", "rejected", "len"), "pairs"),
        (("chosen", "rejected", "ref_logp"), "pairs, reference"),
        (("label", "ref_logp", "reward", "value"), "thumbs or pairs, reference, reward"),
        (("chosen", "rejected", "label"), "pairs"),
        (("group", "reward"), "lists, reward"),
        (("chosen", "rejected", "ref_logp", "kl"), "pairs, live reference"),
        (("chosen", "rejected", "ref_logp.a", "ref_logp.b"), "pairs, reference a, reference b"),
        (("segment_score", "segment"), "segment score, segments"),
    ],
)
def test_what_a_method_asks_of_its_user_is_said_in_short(needs, words):
    assert in_words(needs) == words
