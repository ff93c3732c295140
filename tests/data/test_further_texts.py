"""Texts beside the responses, parts of responses, scored contexts: read, kept apart, and tokenised."""

import json
import math

import pytest
from data_templates import CHATML

from unipref.core.errors import DataError
from unipref.core.records import Comparison, Item, Message, Record, Span
from unipref.data import as_pairs, chosen_only, encode, encode_records, limit_records, mismatch, read_records
from unipref.data.segments import as_spans, sentences

PAIR = {"prompt": "Why?", "chosen": " Because.", "rejected": " No idea."}


def one(row) -> Record:
    return read_records([row], strict=True)[0][0]


def roles(record: Record) -> list[str]:
    return [item.role for item in record.items]


# ------------------------------------------------------------------------------------------------------ further texts


@pytest.mark.parametrize(
    ("column", "role"),
    [
        ("gold", "gold"),
        ("reference", "gold"),
        ("base_response", "base"),
        ("policy_sample", "policy_sample"),
        ("baseline_sample", "baseline_sample"),
    ],
)
def test_a_further_text_is_an_item_of_its_role_in_the_pairs_context(column, role):
    record = one({**PAIR, column: " Physics."})
    assert record.items[2] == Item("Why?", " Physics.", role=role)
    assert record.comparisons == (Comparison(0, 1),)


def test_further_texts_stand_beside_lists_and_judged_outputs_too():
    assert roles(one({"prompt": "p", "responses": ["a", "b"], "rewards": [2, 1], "gold": "g"})) == [
        "response",
        "response",
        "gold",
    ]
    assert roles(one({"prompt": "p", "responses": ["a", "b"], "ranks": [2, 1], "reference": "g"}))[-1] == "gold"
    row = {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 2, "gold": "g"}
    assert one(row).items[2].response == (Message("assistant", "g"),)


def test_a_row_without_its_further_text_has_none_and_an_empty_one_is_counted():
    records, report = read_records([{**PAIR, "gold": "g"}, {**PAIR, "gold": None}, {**PAIR, "gold": " "}])
    assert [len(record.items) for record in records] == [3, 2, 2]
    assert report.changed == {"empty 'gold' left out": 1}
    assert "texts beside the responses: 1 x gold." in report.notes[0]


def test_of_two_spellings_of_the_gold_answer_one_is_read_and_the_other_is_named_as_unused():
    records, report = read_records([{**PAIR, "gold": "g", "reference": "r"}])
    assert [item.response for item in records[0].items[2:]] == ["g"]
    assert any("columns not used: reference" in note for note in report.notes)


def test_a_rationale_answers_a_question_whose_order_does_not_depend_on_who_won():
    given = one({**PAIR, "rationale": "It answers."}).items[2]
    swapped = one({**PAIR, "chosen": PAIR["rejected"], "rejected": PAIR["chosen"], "rationale": "It answers."})
    assert given.role == "rationale"
    assert given.context == swapped.items[2].context
    assert "Because." in given.context
    assert "No idea." in given.context


def test_the_chosen_response_is_shown_first_about_half_of_the_time():
    rows = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad", "rationale": "r"} for i in range(400)]
    texts = [record.items[2].context for record in read_records(rows)[0]]
    first = sum(text.index("good") < text.index("bad") for text in texts)
    assert 150 < first < 250  # a fair coin leaves this with a chance below 1e-6; the released code gives 400


def test_a_rationale_of_a_conversation_is_one_user_turn_that_names_the_speakers():
    row = {
        "prompt": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Why?"},
        ],
        "chosen": "A",
        "rejected": "B",
        "rationale": "r",
    }
    item = one(row).items[2]
    assert len(item.context) == 1
    assert "assistant: Yes?" in item.context[0].content
    assert item.response == (Message("assistant", "r"),)


@pytest.mark.parametrize("names", [("chosen_score", "rejected_score"), ("score_chosen", "score_rejected")])
def test_scores_of_the_sides_are_columns_of_their_items_however_they_are_spelled(names):
    record = one({**PAIR, names[0]: 4, names[1]: 1.5})
    assert [item.columns for item in record.items] == [{"score": 4.0}, {"score": 1.5}]


def test_rewards_of_a_list_are_the_column_reward_alone_or_per_dimension():
    record = one({"prompt": "p", "responses": ["a", "b"], "rewards": [2, None]})
    assert [item.columns for item in record.items] == [{"reward": 2.0}, {}]
    record = one({"prompt": "p", "responses": ["a", "b"], "rewards": {"help": [1, 2], "short": [3, 4]}})
    assert [item.columns for item in record.items] == [{"help": 1.0, "short": 3.0}, {"help": 2.0, "short": 4.0}]


def test_a_joint_row_has_a_context_for_each_side():
    record = one({"prompt_chosen": "p", "response_chosen": "7", "prompt_rejected": "q", "response_rejected": "8"})
    assert [(item.context, item.response) for item in record.items] == [("p", "7"), ("q", "8")]


# ------------------------------------------------------------------------------------------------ operators and roles


def test_operators_choose_among_responses_and_carry_the_other_texts_along():
    gold = Item("c", "g", role="gold", columns={"score": 9.0})
    rated = Record("r", (gold, Item("c", "x", columns={"score": 1.0}), Item("c", "y", columns={"score": 2.0})))
    assert [item.response for item in chosen_only([rated])[0][0].items] == ["y"]
    paired = as_pairs([rated])[0][0]
    assert [item.response for item in paired.items] == ["x", "y", "g"]
    assert paired.comparisons == (Comparison(1, 0, margin=1.0),)


def test_thumbs_joined_to_a_pair_keep_each_further_text_once():
    gold = Item("c", "g", role="gold")
    up = Record("u", (Item("c", "x", label=True), gold))
    down = Record("d", (gold, Item("c", "y", label=False)))
    paired = as_pairs([up, down])[0][0]
    assert [(item.response, item.role) for item in paired.items] == [
        ("x", "response"),
        ("y", "response"),
        ("g", "gold"),
    ]
    assert chosen_only([down])[1].left_out == {"no response with thumbs up": 1}


def test_mismatched_pairs_and_limits_do_not_see_further_texts():
    records = read_records([{**PAIR, "prompt": f"p{i}"} for i in range(9)])[0]
    with_gold = read_records([{**PAIR, "prompt": f"p{i}", "gold": "g"} for i in range(9)])[0]
    strangers = mismatch(with_gold, seed=0, epoch=0)
    assert len(strangers) == 18
    assert all(r.items[0].response != "g" for r in strangers)
    assert [r.id for r in limit_records(with_gold, 4)[0]] == [r.id for r in limit_records(records, 4)[0]]


# -------------------------------------------------------------------------------------------------------- segments


def test_sentences_follow_the_rule_and_cover_every_character_that_is_not_white_space():
    text = (
        'Pi is 3.14. He said "Stop!" twice! Really?! Then:\n\n1. First. 2nd\n2. Second\n'
        "```py\nx = 1. \nprint(x)\n```\n\u672c\u5f53\uff1f\u300c\u306f\u3044\u3002\u300d\u3048\u3048\u3002\u305d\u3046"
    )
    parts = [text[start:end] for start, end in sentences(text)]
    assert parts == [
        "Pi is 3.14.",
        'He said "Stop!" twice!',
        "Really?!",
        "Then:",
        "1. First.",
        "2nd",
        "2. Second",
        "```py\nx = 1. \nprint(x)\n```",
        "\u672c\u5f53\uff1f",
        "\u300c\u306f\u3044\u3002\u300d\u3048\u3048\u3002",
        "\u305d\u3046",
    ]
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert sentences("") == sentences(" \n") == []


def test_segments_are_texts_or_ranges_and_their_scores_stand_with_them_or_beside():
    spans = (Span(0, 4, 2.0), Span(5, 9, 0.0))
    assert as_spans("One. Two.", ["One.", "Two."], [2, 0], "s") == spans
    assert as_spans("One. Two.", [{"text": "One. ", "score": 2}, {"text": "Two.", "score": 0}], None, "s") == spans
    ranges = [{"start": 0, "end": 4, "score": 2}, {"start": 5, "end": 9, "score": 0}]
    assert as_spans("One. Two.", ranges, None, "s") == spans
    assert math.isnan(as_spans("One.", ["One."], None, "s")[0].score)


def test_a_row_gives_segments_to_each_side_as_lists_or_as_json_and_sentences_where_only_scores_are_given():
    row = {**PAIR, "chosen": " A b. C d.", "chosen_segment_scores": [4, 1], "rejected_segments": '["No idea."]'}
    record = one(row)
    assert record.items[0].spans == (Span(1, 5, 4.0), Span(6, 10, 1.0))
    assert [(s.start, s.end) for s in record.items[1].spans] == [(1, 9)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"chosen_segment_scores": [1, 2]}, "has not one score per segment"),
        ({"chosen_segments": ["Be"], "chosen_segment_scores": []}, "has not one score per segment"),
        ({"chosen_segments": ["cause."]}, "does not continue the response"),
        ({"chosen_segments": [{"start": 3, "end": 99}]}, "has a range that is not one"),
        ({"chosen_segment_scores": ["4"]}, "has a score that is not a number"),
        ({"chosen_segment_scores": "__import__('os').getpid()"}, "is not a list"),
    ],
)
def test_segments_that_do_not_fit_set_the_row_aside_and_nothing_is_evaluated(fields, reason):
    _, report = read_records([{**PAIR, **fields}, PAIR])
    assert len(report.set_aside) == 1
    assert reason in report.set_aside[0].reason


# --------------------------------------------------------------------------------------------------------- encoding


def test_a_scored_context_leaves_its_first_token_alone_unscored(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True)
    plain = encode(Record("r", (Item("The sky", " is"),)), tokenizer)
    joint = encode(Record("r", (Item("The sky", " is", score_context=True),)), tokenizer)
    context, response = plain.ids(0)
    assert joint.ids(0) == (context[:1], [*context[1:], *response])
    assert joint.n_response == plain.n_response == (len(response),)


def test_a_scored_context_is_cut_as_any_other_and_sampled_ids_follow_it(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True)
    items = [Item("The sky is blue and green and blue", "", response_ids=(70, 71), score_context=s) for s in (0, 1)]
    plain, joint = (encode(Record("r", (item,)), tokenizer, max_length=6) for item in items)
    assert plain.n_cut_context == joint.n_cut_context
    assert plain.n_cut_context[0] > 0
    assert [t for part in plain.ids(0) for t in part] == [t for part in joint.ids(0) for t in part]
    assert joint.ids(0)[1][-2:] == [70, 71]


def test_two_splits_of_one_text_are_no_comparison_once_their_contexts_are_scored(make_tokenizer):
    items = tuple(Item(c, r, score_context=True, columns={"continues": 1.0}) for c, r in (("a b", " c"), ("a", " b c")))
    with pytest.raises(DataError, match="identical"):
        encode(Record("r", items, (Comparison(0, 1),)), make_tokenizer(bos=None))


def test_a_beginning_gets_no_end_token_and_everything_else_does(make_tokenizer):
    tokenizer = make_tokenizer()
    encoded, _ = encode_records(
        [Record("r", (Item("p", " a", columns={"continues": 1.0}), Item("p", " a", columns={"continues": 0.0})))],
        tokenizer,
    )
    begun, ended = (encoded[0].ids(i)[1] for i in (0, 1))
    assert ended == [*begun, tokenizer.eos_token_id]


def test_rows_with_further_texts_survive_json_and_tokenising(make_tokenizer):
    row = json.loads(
        json.dumps({**PAIR, "prompt": [{"role": "user", "content": "Why?"}], "gold": "g", "rationale": "r"})
    )
    encoded = encode(one(row), make_tokenizer(CHATML))
    assert [len(nodes) > 0 for nodes in encoded.trie.scored] == [True] * 4
