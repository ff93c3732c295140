"""Where a prompt that nobody named ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl import extract_prompt

from unipref.core.records import Message
from unipref.data.prompts import first_user_turn, parse_transcript, shared_length, split_text
from unipref.data.report import RowFault


def test_the_prompt_ends_at_a_word_where_trl_cuts_inside_one():
    first, second = "The sky is blue.", "The sky is black."
    assert split_text(first, second) == ("The sky is", " blue.", " black.")
    theirs = extract_prompt({"chosen": first, "rejected": second})
    assert (theirs["prompt"], theirs["chosen"], theirs["rejected"]) == ("The sky is bl", "ue.", "ack.")


@pytest.mark.parametrize(
    ("first", "second", "prompt"),
    [
        ("Q: Why?\nA: so", "Q: Why?\nA: not so", "Q: Why?\nA:"),  # white space goes with the response
        ("Q: Why?\nA:so", "Q: Why?\nA:no", "Q: Why?"),  # "A:so" is one word to a reader of spaces
        ("pi is 3.14", "pi is 3.15", "pi is"),  # not inside a number
        ("one two", "one two three", "one"),  # a response is left on both sides
        ("one ", "one  two", ""),  # nothing else would leave words on the first side
        ("blue", "black", ""),
        ("空は青い", "空は黒い", "空は"),  # no spaces: between any two characters
        ("cafe\u0301s", "cafe\u0300s", ""),  # an accent stays on its letter
        ("is, ", "is blue", ""),
    ],
)
def test_the_prompt_ends_where_a_word_ends_in_both_texts(first, second, prompt):
    assert split_text(first, second) == (prompt, first[len(prompt) :], second[len(prompt) :])


@given(st.text("ab ,\n空", max_size=8), st.text("ab ,\n空", max_size=8), st.text("ab ,\n空", max_size=8))
def test_prompt_and_rest_are_the_text_and_no_word_is_cut(shared, first, second):
    first, second = shared + first, shared + second
    if not first.strip() or not second.strip() or first == second:
        return
    prompt, *rests = split_text(first, second)
    for text, rest in zip((first, second), rests, strict=True):
        assert prompt + rest == text
        assert rest.strip()
        if prompt:
            assert rest[0].isspace() or (rest[0] == prompt[-1] == "空")
            assert not prompt[-1].isspace()


@given(st.text("ab", max_size=9), st.text("ab", max_size=9))
def test_shared_length_equals_counting_characters_one_by_one(first, second):
    expected = 0
    while expected < min(len(first), len(second)) and first[expected] == second[expected]:
        expected += 1
    assert shared_length(first, second) == expected


def test_a_transcript_is_its_turns():
    turns = parse_transcript("\n\nHuman: Hi \n\nyou\n\nAssistant: Hello.\n\nHuman: Human: ok?\n\nAssistant:Yes")
    assert turns == (
        Message("user", "Hi \n\nyou"),
        Message("assistant", "Hello."),
        Message("user", "Human: ok?"),
        Message("assistant", "Yes"),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Hello", "not a transcript"),
        ("Note\n\nHuman: Hi\n\nAssistant: Yes", "not a transcript"),
        ("\n\nHuman: Hi\n\nAssistant: ", "empty response"),
        ("\n\nHuman: \n\nAssistant: Yes", "empty turn in the conversation"),
        ("\n\nHuman: Hi", "the transcript does not end with an assistant turn"),
    ],
)
def test_what_is_no_transcript_says_why(text, reason):
    with pytest.raises(RowFault, match=reason):
        parse_transcript(text)


def test_a_conversation_is_named_by_its_first_user_turn_whatever_the_format():
    messages = (
        Message("system", "Be kind."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "?"),
    )
    assert first_user_turn(messages, (Message("assistant", "!"),)) == "Hi"
    assert first_user_turn("\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: ?\n\nAssistant:", "x").strip() == "Hi"
    assert first_user_turn("Why?", "x") == "Why?"
    assert first_user_turn("", "Once upon a time") == "Once upon a time"
