"""Every data format, by hand."""

import json

import datasets
import pytest

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.data import FORMATS, conversation_key, is_heldout, read_records

USER, HELLO, AWAY = Message("user", "Hi"), Message("assistant", "Hello!"), Message("assistant", "Go away.")
HI = {"role": "user", "content": "Hi"}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def one(row: dict, **options) -> Record:
    records, report = read_records([row], **options)
    assert (report.n_read, report.n_kept, report.set_aside) == (1, 1, [])
    return records[0]


def form(row: dict) -> str:
    return read_records([row])[1].sources["rows in memory"]["format"]


# ------------------------------------------------------------------------------------------------------------- pairs


def test_standard_pair_with_an_explicit_prompt_is_kept_character_for_character():
    record = one({"prompt": "The sky is", "chosen": " blue.", "rejected": " green. "})
    assert record.items == (Item("The sky is", " blue."), Item("The sky is", " green. "))
    assert record.comparisons == (Comparison(0, 1),)
    assert (record.weight, record.domain, record.user, record.line) == (1.0, None, None, 1)
    assert record.conversation == conversation_key("the SKY  is")


def test_standard_pair_with_an_implicit_prompt_is_cut_between_words():
    assert one({"chosen": "The sky is blue.", "rejected": "The sky is black."}).items == (
        Item("The sky is", " blue."),
        Item("The sky is", " black."),
    )


def test_conversational_pairs_with_explicit_and_implicit_prompt_are_the_same_record():
    explicit = one({"prompt": [HI], "chosen": [assistant("Hello!")], "rejected": [assistant("Go away.")]})
    implicit = one({"chosen": [HI, assistant("Hello!")], "rejected": [HI, assistant("Go away.")]})
    assert explicit.items == implicit.items == (Item((USER,), (HELLO,)), Item((USER,), (AWAY,)))
    assert explicit.conversation == implicit.conversation == "hi"


def test_a_text_prompt_beside_full_conversations_is_not_said_twice():
    records, report = read_records(
        [{"prompt": "Hi", "chosen": [HI, assistant("Hello!")], "rejected": [HI, assistant("Go away.")]}]
    )
    assert records[0].items[0] == Item((USER,), (HELLO,))
    assert report.changed == {"prompt that stood again in the response removed": 1}


def test_text_answers_to_a_conversation_become_assistant_turns():
    assert one({"prompt": [HI], "chosen": "Hello!", "rejected": "Go away."}).items[1] == Item((USER,), (AWAY,))


def test_conversations_that_part_early_keep_a_context_each():
    records, report = read_records(
        [
            {
                "chosen": [HI, assistant("Yes?"), HI, assistant("a")],
                "rejected": [HI, assistant("No?"), HI, assistant("b")],
            }
        ]
    )
    first, second = records[0].items
    assert first.context == (USER, Message("assistant", "Yes?"), USER)
    assert second.context == (USER, Message("assistant", "No?"), USER)
    assert [item.response[0].content for item in records[0].items] == ["a", "b"]
    assert report.changed == {"conversations that differ before the last turn keep a context each": 1}


def test_numbers_of_a_side_become_its_columns_and_a_missing_one_stays_absent():
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_reward": 2, "rejected_reward": None, "margin": 1.5,
         "score_chosen": 7.5, "score_rejected": 3.0, "weight": 2, "domain": "law", "user": 17, "chosen_model": "m"},
        {"prompt": "p", "chosen": "c", "rejected": "d", "chosen_reward": 2, "rejected_reward": 1.0},
    ]  # fmt: skip
    records, report = read_records(rows)
    assert records[0].items[0].columns == {"reward": 2.0, "score": 7.5}
    assert records[0].items[1].columns == {"score": 3.0}
    assert records[0].comparisons == (Comparison(0, 1, 1.0, 1.5),)
    assert (records[0].weight, records[0].domain, records[0].user) == (2.0, "law", "17")
    assert report.notes == ["rows in memory: columns not used: chosen_model."]


def test_votes_and_probabilities_are_preferences():
    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    assert one({**pair, "votes_chosen": 7, "votes_rejected": 3}).comparisons[0].preference == 0.7
    assert one({**pair, "preference": 0.25, "annotator": "ann"}).comparisons == (
        Comparison(0, 1, 0.25, annotator="ann"),
    )


def test_a_judge_between_two_outputs_names_the_winner():
    row = {"instruction": "Hi", "output_1": "a", "output_2": "b", "dataset": "vicuna", "annotator": "gpt"}
    first = one({**row, "preference": 1.0}, domain_field="dataset")
    assert first.comparisons == (Comparison(0, 1, 1.0, annotator="gpt"),)
    assert first.domain == "vicuna"
    assert first.items[0] == Item((USER,), (Message("assistant", "a"),))
    assert one({**row, "preference": 1.75}).comparisons == (Comparison(1, 0, 0.75, annotator="gpt"),)
    assert one({**row, "preference": 1.5}).comparisons == (Comparison(0, 1, 0.5, annotator="gpt"),)


def test_transcripts_are_conversations():
    head = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: ok\n\nAssistant:"
    record = one({"chosen": head + " Good.", "rejected": head + " Bad."})
    assert record.items[0].context == (USER, Message("assistant", "Yes?"), Message("user", "ok"))
    assert record.items[1].response == (Message("assistant", "Bad."),)
    assert record.conversation == "hi"


# ------------------------------------------------------------------------------------------------- one and several


@pytest.mark.parametrize(("label", "value"), [(True, True), (False, False), (1, True), (0, False)])
def test_unpaired_labels_are_thumbs(label, value):
    assert one({"prompt": "p", "completion": "c", "label": label}).items == (Item("p", "c", label=value),)
    row = {"prompt": [HI], "completion": [assistant("Hello!")], "label": label}
    assert one(row).items == (Item((USER,), (HELLO,), label=value),)
    assert one({"messages": [HI, assistant("Hello!")], "label": label}).items == (Item((USER,), (HELLO,), label=value),)


def test_prompt_completion_keeps_the_numbers_of_the_row():
    record = one({"prompt": "p", "completion": "c", "toxicity": 0.5, "idx": 4})
    assert record.items == (Item("p", "c", columns={"toxicity": 0.5}),)
    assert record.comparisons == ()


def test_every_assistant_turn_of_a_conversation_is_an_item_with_what_stood_before_as_context():
    record = one({"messages": [HI, assistant("Hello!"), HI, assistant("Go away.")]})
    assert record.items == (Item((USER,), (HELLO,)), Item((USER, HELLO, USER), (AWAY,)))


def test_text_has_an_empty_context_and_is_its_own_conversation():
    record = one({"text": "Once upon a time"})
    assert record.items == (Item("", "Once upon a time"),)
    assert record.conversation == "once upon a time"


def test_ranked_and_rated_lists_keep_every_response():
    ranked = one({"prompt": "p", "responses": ["a", "b", "c"], "ranks": [2, 1, 2]})
    assert [(item.response, item.rank) for item in ranked.items] == [("a", 2), ("b", 1), ("c", 2)]
    rated = one({"prompt": [HI], "responses": ["a", "b"], "scores": [1, None], "length": [3.0, 4.0]})
    assert [dict(item.columns) for item in rated.items] == [{"score": 1.0, "length": 3.0}, {"length": 4.0}]
    assert rated.items[0].response == (Message("assistant", "a"),)
    by_name = one(
        {"prompt": "p", "responses": ["a", "b"], "ratings": [{"help": 4, "truth": 5}, {"help": 1, "truth": 2}]}
    )
    assert [dict(item.columns) for item in by_name.items] == [{"help": 4.0, "truth": 5.0}, {"help": 1.0, "truth": 2.0}]
    lists = one({"prompt": "p", "responses": ["a", "b"], "ratings": {"help": [4, 1], "truth": [5, 2]}})
    assert lists.items == by_name.items


def test_the_steps_of_a_solution_each_continue_the_ones_before():
    record = one({"prompt": "Add.", "completions": ["Take 1.", "Add 2."], "labels": [True, False]})
    assert record.items == (Item("Add.", "Take 1.", label=True), Item("Add.Take 1.\n", "Add 2.", label=False))


def test_prompts_alone_are_records_without_a_response():
    assert one({"prompt": [HI]}).items == (Item((USER,), ()),)


def test_text_parts_of_a_message_are_joined():
    row = {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
                        assistant("Hello!")]}  # fmt: skip
    assert one(row).items == (Item((USER,), (HELLO,)),)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("preference", {"chosen": "a b", "rejected": "a c", "messages": [HI]}),
        ("hh", {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}),
        ("alpaca", {"instruction": "i", "output_1": "a", "output_2": "b", "preference": 1}),
        ("ranked", {"prompt": "p", "responses": ["a", "b"], "ranks": [1, 2], "scores": [2, 1]}),
        ("rated", {"prompt": "p", "responses": ["a", "b"], "scores": [2, 1]}),
        ("stepwise", {"prompt": "p", "completions": ["a"], "labels": [True]}),
        ("unpaired", {"prompt": "p", "completion": "a", "label": True}),
        ("unpaired_messages", {"messages": [assistant("a")], "label": True}),
        ("prompt_completion", {"prompt": "p", "completion": "a"}),
        ("messages", {"messages": [assistant("a")]}),
        ("text", {"text": "a"}),
        ("prompt_only", {"prompt": "p"}),
        ("votes", {"response_a": "a", "response_b": "b", "n_a": 2, "n_b": 1}),
        (
            "summaries",
            {
                "reviews": ["r"],
                "summary-pairs": {"summary-one": {"summary-text": "a"}, "summary-two": {"summary-text": "b"}},
                "preference-data": 1,
            },
        ),
        ("tree", {"prompt": "p", "nodes": [{"id": 0, "text": "a"}]}),
        (
            "joint",
            {"prompt_chosen": "p", "response_chosen": "a", "prompt_rejected": "q", "response_rejected": "b"},
        ),
    ],
)
def test_every_format_is_told_from_its_columns(name, row):
    assert form(row) == name
    assert read_records([row], format=name)[0] == read_records([row])[0]


def test_the_list_above_is_complete():
    marks = test_every_format_is_told_from_its_columns.pytestmark
    assert {name for name, _ in marks[0].args[1]} == set(FORMATS)


# ---------------------------------------------------------------------------------------------------------- sources


def test_hh_harmless_has_2312_rows_of_which_4_have_an_empty_last_turn():
    records, report = read_records("bundled:hh-harmless")
    assert (report.n_read, report.n_kept) == (2312, 2308)
    assert report.counts == {"empty response": 4}
    assert report.set_aside[0].line == 87
    assert len({record.id for record in records}) == 2308
    apart = [record.line for record in records if record.items[0].context != record.items[1].context]
    assert apart == [1255, 1689, 1951, 1953, 2037]
    assert report.changed == {"conversations that differ before the last turn keep a context each": 5}
    assert all(item.response[-1].role == "assistant" for record in records for item in record.items)
    heldout = [record for record in records if is_heldout(record.conversation, share=0.2)]
    assert 0.15 < len(heldout) / len(records) < 0.25


def test_several_sources_are_read_in_order_with_unique_ids_and_one_account(tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    first, second = tmp_path / "one" / "x.jsonl", tmp_path / "two" / "x.jsonl"
    for path, rows in ((first, [row, {**row, "chosen": ""}]), (second, [{"text": "t"}])):
        path.parent.mkdir()
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    records, report = read_records([first, str(second)])
    assert [record.id for record in records] == ["x.jsonl:1", "x.jsonl:1#2"]
    assert (report.n_read, report.n_kept, report.counts) == (3, 2, {"empty response": 1})
    assert [facts["format"] for facts in report.sources.values()] == ["preference", "text"]


def test_ids_of_the_data_are_kept_and_made_unique():
    rows = [{"id": 7, "text": "a"}, {"id": 7, "text": "b"}, {"id": "7#2", "text": "c"}, {"text": "d"}]
    records, _ = read_records(rows)
    assert [record.id for record in records] == ["7", "7#2", "7#2#2", "rows in memory:4"]


def test_a_data_set_in_memory_and_one_saved_to_disk_read_the_same(tmp_path):
    rows = [{"chosen": [HI, assistant("Hello!")], "rejected": [HI, assistant("Go away.")]}]
    made = datasets.Dataset.from_list(rows)
    made.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "split")
    expected = one(rows[0]).items
    assert read_records(made)[0][0].items == expected
    assert read_records(tmp_path / "saved")[0][0].items == expected
    records, report = read_records(tmp_path / "split")
    assert records[0].items == expected
    assert "read the split 'train' of test, train" in report.notes[0]


def test_a_limit_counts_what_it_leaves_out():
    records, report = read_records("bundled:hh-harmless", limit=100)
    assert (len(records), report.n_read, report.n_kept, report.left_out) == (100, 2312, 100, {"limit": 2208})


def test_names_that_do_not_exist_get_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'preference'"):
        read_records([{"text": "a"}], format="preferences")
    with pytest.raises(DataError, match="did you mean 'hh-harmless'"):
        read_records("bundled:hh-harmles")
