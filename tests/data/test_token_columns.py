"""Characters meet the tokens that are trained on: spans, differing tokens and the fresh part of a pair."""

import numpy as np
import pytest
from data_templates import CHATML, LLAMA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Message, Record, Span, plain_text
from unipref.data import encode, token_columns
from unipref.data.token_columns import spelled

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00\ufffd"), min_size=1, max_size=15)


def pair(chosen: Item, rejected: Item) -> Record:
    return Record("r", (chosen, rejected), (Comparison(0, 1),))


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_characters_of_tokens_are_the_offsets_of_the_tokeniser_itself(make_tokenizer, text):
    tokenizer = make_tokenizer()
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    decoded, starts = spelled(found["input_ids"], tokenizer)
    assert decoded == text
    assert starts.tolist() == [start for start, _ in found["offset_mapping"]]


@pytest.mark.parametrize("text", ["The sky is blue.", "caf\u00e9 \u20ac5", "\U0001f600\U0001f601 ok", "\u5929\u7a7a"])
def test_a_sentencepiece_vocabulary_with_byte_tokens_spells_its_text_too(make_spaced, text):
    tokenizer = make_spaced(None)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    decoded, starts = spelled(ids, tokenizer)
    assert decoded.strip() == text
    assert all(np.diff(starts) >= 0)


def by_hand(encoded, item, tokenizer, spans) -> list[int]:
    """The slow twin: decode every beginning of the response, and look where its last character lies in the text."""
    response = encoded.ids(item)[1]
    text = plain_text(encoded.record.items[item].response)
    lead = len(text) - len(text.lstrip())
    decoded = tokenizer.decode(response)
    shift = decoded.find(text.strip()) - lead
    found = []
    for k in range(len(response)):
        start = len(tokenizer.decode(response[:k]).rstrip("\ufffd"))
        end = max(len(tokenizer.decode(response[: k + 1]).rstrip("\ufffd")), start + 1)
        piece = decoded[start:end]
        at = start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0) - shift
        inside = [i for i, span in enumerate(spans) if span.start <= at < span.end] if at < len(text) else []
        found.append(inside[0] if inside else -1)
    return found


@pytest.mark.parametrize("template", [None, CHATML, LLAMA])
def test_every_token_is_in_the_span_of_its_first_character(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    text = " The sky is \U0001f600. \u5929\u7a7a is caf\u00e9!\n\nIt is fine. "
    cut = text.index("!") + 1
    spans = (Span(1, cut, 2.0), Span(cut + 2, len(text) - 1, -1.0))
    items = [
        Item(
            "p" if template is None else (Message("user", "p"),), text if template is None else said(text), spans=spans
        )
    ]
    encoded = encode(Record("r", tuple(items)), tokenizer)
    columns = token_columns(encoded, tokenizer, ["segment", "segment_score"])
    segment, score = columns["segment"][0], columns["segment_score"][0]
    assert segment.dtype == score.dtype == np.float32
    assert segment.tolist() == by_hand(encoded, 0, tokenizer, spans)
    assert segment[-1] == -1  # the end token
    assert set(segment.tolist()) == {-1.0, 0.0, 1.0}
    assert score.tolist() == [{0: 2.0, 1: -1.0, -1: 0.0}[int(k)] for k in segment]


def test_the_first_word_of_a_sentence_is_in_it_though_its_token_starts_with_the_space_before(make_tokenizer):
    tokenizer = make_tokenizer()
    encoded = encode(Record("r", (Item("p", "It is. It is.", spans=(Span(0, 6), Span(7, 13))),)), tokenizer)
    segment = token_columns(encoded, tokenizer, ["segment"])["segment"][0]
    words = [tokenizer.decode([i]) for i in encoded.ids(0)[1]]
    assert dict.fromkeys(k for k, word in zip(segment, words, strict=True) if word == " It") == {1.0: None}


def test_spans_hold_after_truncation_with_scored_contexts_and_for_sampled_ids(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True)
    text, spans = "It is. It is fine.", (Span(0, 6), Span(7, 18))
    whole = encode(Record("r", (Item("Hello there", text, spans=spans),)), tokenizer)
    expected = token_columns(whole, tokenizer, ["segment"])["segment"][0].tolist()
    joint = encode(Record("r", (Item("Hello there", text, spans=spans, score_context=True),)), tokenizer)
    n_context = len(whole.ids(0)[0]) - 1
    assert token_columns(joint, tokenizer, ["segment"])["segment"][0].tolist() == [-1.0] * n_context + expected
    n = len(expected) - 2
    cut = encode(Record("r", (Item("p", text, spans=spans),)), tokenizer, max_length=n + 2, truncate="end")
    kept = token_columns(cut, tokenizer, ["segment"])["segment"][0].tolist()
    assert kept == expected[: len(kept)]
    sampled = Item("Hello there", text, spans=spans, response_ids=tuple(whole.ids(0)[1]))
    encoded = encode(Record("r", (sampled,)), tokenizer)
    assert token_columns(encoded, tokenizer, ["segment"])["segment"][0].tolist() == expected


def test_tokens_that_do_not_spell_the_response_and_spans_without_scores_are_refused(make_tokenizer):
    tokenizer = make_tokenizer()
    other = tuple(tokenizer("Quite another", add_special_tokens=False)["input_ids"])
    encoded = encode(Record("r", (Item("p", "It is.", spans=(Span(0, 6),), response_ids=other),)), tokenizer)
    with pytest.raises(DataError, match="which is not in its response"):
        token_columns(encoded, tokenizer, ["segment"])
    unscored = encode(Record("r", (Item("p", "It is.", spans=(Span(0, 6),)),)), tokenizer)
    with pytest.raises(DataError, match="segment 1 has no score"):
        token_columns(unscored, tokenizer, ["segment_score"])
    with pytest.raises(ConfigError, match="did you mean 'segment'"):
        token_columns(unscored, tokenizer, ["segments"])


def ids_pair(chosen: list[int], rejected: list[int], tokenizer):
    return encode(
        pair(Item("p", "", response_ids=tuple(chosen)), Item("p", "", response_ids=tuple(rejected))), tokenizer
    )


def test_diff_marks_what_is_replaced_deleted_and_inserted_on_each_side(make_tokenizer):
    tokenizer = make_tokenizer(bos=None)
    encoded = ids_pair([110, 111, 120, 112, 121], [110, 122, 123, 111, 124, 112], tokenizer)  # single bytes, no words
    diff = token_columns(encoded, tokenizer, ["diff"])["diff"]
    assert [column.tolist() for column in diff] == [[0, 0, 1, 0, 1], [0, 1, 1, 0, 1, 0]]
    assert diff[0].dtype == np.float32


def test_frequent_tokens_of_long_responses_are_aligned_like_all_others(make_tokenizer):
    rng = np.random.default_rng(0)
    chosen = rng.integers(110, 120, 300).tolist()  # every token stands in more than 1 % of the places
    rejected = [*chosen[:150], 130, *chosen[151:]]
    diff = token_columns(ids_pair(chosen, rejected, make_tokenizer(bos=None)), make_tokenizer(bos=None), ["diff"])[
        "diff"
    ]
    assert [int(column.sum()) for column in diff] == [1, 1]


def test_stop_words_never_differ_in_any_spelling_that_is_one_token(make_tokenizer):
    tokenizer = make_tokenizer()
    record = pair(Item("p", " It is the sky."), Item("p", " The blue is a sky."))
    encoded = encode(record, tokenizer)
    diff = token_columns(encoded, tokenizer, ["diff"])["diff"]
    for side in (0, 1):
        for token, value in zip(encoded.ids(side)[1], diff[side], strict=True):
            if tokenizer.decode([token]) in (" It", " is", " the", "The", " The", " a", "It"):
                assert value == 0
    assert diff[1].sum() > 0


def test_fresh_starts_where_the_sides_part_and_everywhere_where_their_contexts_differ(make_tokenizer):
    tokenizer = make_tokenizer(bos=None)
    fresh = token_columns(ids_pair([60, 61, 62], [60, 61, 63, 62], tokenizer), tokenizer, ["fresh"])["fresh"]
    assert [column.tolist() for column in fresh] == [[0, 0, 1], [0, 0, 1, 1]]
    begun = token_columns(ids_pair([60, 61], [60, 61, 63], tokenizer), tokenizer, ["fresh"])["fresh"]
    assert [column.tolist() for column in begun] == [[0, 0], [0, 0, 1]]
    apart = pair(Item("p", "", response_ids=(60, 61)), Item("q", "", response_ids=(60, 62)))
    fresh = token_columns(encode(apart, tokenizer), tokenizer, ["fresh"])["fresh"]
    assert [column.tolist() for column in fresh] == [[1, 1], [1, 1]]


def test_items_outside_of_pairs_have_no_difference_and_a_response_in_two_pairs_has_no_one_partner(make_tokenizer):
    tokenizer = make_tokenizer()
    items = (Item("p", " a"), Item("p", " b"), Item("p", " g", role="gold"))
    encoded = encode(Record("r", items, (Comparison(0, 1),)), tokenizer)
    assert not token_columns(encoded, tokenizer, ["fresh"])["fresh"][2].any()
    several = encode(Record("r", items, (Comparison(0, 1), Comparison(0, 2))), tokenizer)
    with pytest.raises(DataError, match="compares one response with several"):
        token_columns(several, tokenizer, ["diff"])
