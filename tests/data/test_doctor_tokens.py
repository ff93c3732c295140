"""Checks of tokens, each with the tokenizer or the template that has the fault."""

import pytest
from data_templates import CHATML, DEFAULT_SYSTEM, LLAMA, NO_END, REFUSES, REWRITES, SAFE, THINKING
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unipref.core.errors import ConfigError
from unipref.core.findings import Finding
from unipref.core.records import Comparison, Item, Message, Record
from unipref.data import CHECKS, encode, examine_tokens
from unipref.data.doctor import _tokens
from unipref.data.doctor._checks import ASKED_OF_TOKENS

USER = Message("user", "What color is the sky?")


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def pair(line: int, context=None, chosen="It is blue.", rejected="It is black.", **more) -> Record:
    context = (USER,) if context is None else context
    sides = (chosen, rejected) if isinstance(context, str) else (said(chosen), said(rejected))
    items = tuple(Item(context, side) for side in sides)
    return Record(f"r{line}", items, (Comparison(0, 1),), source="f.jsonl", line=line, **more)


def examined(records, tokenizer, *, max_length=None, **options) -> dict[str, Finding]:
    return {f.code: f for f in examine_tokens(records, tokenizer, max_length=max_length, **options)[0]}


def lines(finding: Finding) -> list[int]:
    return [int(place.rpartition(" ")[2]) for place in finding.places]


@pytest.mark.parametrize("template", SAFE)
def test_sound_records_give_no_error_and_no_warning_under_every_safe_template(make_tokenizer, template):
    tokenizer = make_tokenizer(SAFE[template])
    ends = {"chatml": "<|im_end|>", "default_system": "<|im_end|>", "llama": "<|eot|>"}
    stop = tokenizer.convert_tokens_to_ids(ends.get(template, "</s>"))
    found = examined([pair(1), pair(2)], tokenizer, max_length=64, stop_ids=[stop])
    assert {f.code: f.says for f in found.values() if f.level in ("error", "warning")} == {}
    assert list(found) == list(ASKED_OF_TOKENS)


def test_without_a_template_or_an_end_the_first_check_says_so_and_the_others_are_not_checked(make_tokenizer):
    found = examined([pair(1)], make_tokenizer())
    assert found["chat-template"].level == "error"
    assert "no chat template" in found["chat-template"].says
    assert {f.level for code, f in found.items() if code != "chat-template"} == {"not_checked"}
    assert examined([pair(1, "The sky is", " blue", " black")], make_tokenizer())["chat-template"].level == "fine"
    endless = make_tokenizer(CHATML)
    endless.eos_token = None
    assert "no EOS token" in examined([pair(1)], endless)["chat-template"].says


def test_conversations_that_the_template_refuses_are_found_on_their_lines(make_tokenizer):
    system = (Message("system", "Be kind."), USER)
    found = examined([pair(1), pair(2, system), *(pair(k) for k in range(3, 41))], make_tokenizer(REFUSES))
    assert (found["template-refuses"].n, lines(found["template-refuses"])) == (1, [2])
    assert found["template-refuses"].level == "warning"
    assert "no system turns here" in found["template-refuses"].says


def test_a_template_that_refuses_everything_is_an_error_with_its_lines_not_a_stop(make_tokenizer):
    system = (Message("system", "Be kind."), USER)
    found = examined([pair(k, system) for k in (3, 5)], make_tokenizer(REFUSES), max_length=32)
    assert (found["template-refuses"].level, lines(found["template-refuses"])) == ("error", [3, 5])
    assert found["turn-end"].level == found["bos-twice"].level == "not_checked"
    assert "2 x the chat template refuses" in found["turn-end"].says


def test_a_template_that_rewrites_the_prompt_is_an_error(make_tokenizer):
    found = examined([pair(1), pair(2)], make_tokenizer(REWRITES))
    assert (found["prompt-not-prefix"].level, lines(found["prompt-not-prefix"])) == ("error", [1, 2])


def test_words_that_the_template_takes_out_are_found(make_tokenizer):
    found = examined([pair(1, chosen="<think>hm</think>Yes."), pair(2)], make_tokenizer(THINKING))
    assert lines(found["template-alters"]) == [1]
    cut = CHATML.replace("m['content']", "m['content'].replace('blue', '***')")
    found = examined([pair(1), pair(2, chosen="Green.")], make_tokenizer(cut))
    assert (found["template-alters"].n, lines(found["template-alters"])) == (1, [1])


def test_bos_that_a_text_spells_is_an_error_in_prompt_and_response_and_at_the_doubled_start(make_tokenizer):
    tokenizer = make_tokenizer(LLAMA, add_bos=True)
    many = [pair(k) for k in range(4, 200)]
    records = [pair(1, (Message("user", "<s>Hi there"),)), pair(2, chosen="<s>Blue."), pair(3), *many]
    found = examined(records, tokenizer)["bos-twice"]
    assert (found.level, lines(found)) == ("error", [1, 2])
    found = examined([pair(3)], tokenizer)["bos-twice"]
    assert found.level == "fine"
    assert "both would write it" in found.says


def test_a_template_that_writes_bos_before_every_turn_of_the_user_means_it(make_tokenizer):
    turns = "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + m['content'] + '<|head|>' }}"
    turns += "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    context = (USER, Message("assistant", "Blue."), USER)
    tokenizer = make_tokenizer(turns)
    assert encode(pair(1, context), tokenizer).ids(0)[0].count(tokenizer.bos_token_id) == 2
    assert examined([pair(1, context)], tokenizer)["bos-twice"].level == "fine"


def test_bos_cannot_be_doubled_where_there_is_none_or_where_it_is_the_end_too(make_tokenizer):
    assert examined([pair(1)], make_tokenizer(CHATML, bos=None))["bos-twice"].level == "not_checked"
    assert examined([pair(1)], make_tokenizer(CHATML, bos="</s>"))["bos-twice"].level == "not_checked"


def test_a_turn_end_that_generation_does_not_stop_at_is_an_error_and_without_the_model_a_warning(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)  # turns end with <|im_end|>, the tokenizer's EOS is </s>
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    levels = [examined([pair(1)], tokenizer, stop_ids=stops)["turn-end"].level for stops in ((), (2,), (end,))]
    assert levels == ["warning", "error", "fine"]
    assert "<|im_end|> (2)" in examined([pair(1)], tokenizer)["turn-end"].says


def test_eos_in_place_of_a_missing_turn_end_is_fine_and_said(make_tokenizer):
    found = examined([pair(1)], make_tokenizer(NO_END), stop_ids=[make_tokenizer().eos_token_id])["turn-end"]
    assert found.level == "fine"
    assert "EOS was added" in found.says


def test_padding_equal_to_the_end_is_fine_and_says_why(make_tokenizer):
    found = examined([pair(1)], make_tokenizer(CHATML))["padding"]
    assert found.level == "fine"
    assert "known by position" in found.says


def test_cuts_of_prompts_and_of_responses_are_told_apart_and_by_side(make_tokenizer):
    tokenizer = make_tokenizer()
    long = " blue" * 50
    records = [pair(k, "The sky is", long, " no") for k in range(1, 7)]
    records += [pair(7, "What color? " * 40, " yes", " no"), *(pair(k, "The sky is", " a", " b") for k in (8, 9, 10))]
    found = examined(records, tokenizer, max_length=32)
    assert lines(found["cut-contexts"]) == [1, 2, 3, 4, 5, 6, 7]
    assert (found["cut-responses"].n, found["cut-responses"].level) == (6, "error")  # 60 % do not learn to stop
    assert "preferred ones: 6, others: 0, so that the preferred" in found["cut-responses"].says
    assert "preferred ones lose" not in examined(records[5:], tokenizer, max_length=32)["cut-responses"].says
    assert examined(records, tokenizer)["cut-responses"].level == "not_checked"


def test_the_length_it_proposes_cuts_no_more_than_one_record_in_a_hundred(make_tokenizer):
    tokenizer = make_tokenizer()
    records = [pair(k, "The sky is", " blue" * k, " no") for k in range(1, 100)]
    says = examined(records, tokenizer, max_length=32)["cut-responses"].advice
    found = examined(records, tokenizer, max_length=int(says.split()[1]))
    assert found["cut-responses"].n <= 1
    assert found["cut-contexts"].n <= 1


def test_sides_that_become_the_same_are_found_whether_by_length_or_by_trimming(make_tokenizer):
    start = " It is blue, and it is"
    found = examined(
        [pair(1, "A", start + " green.", start + " black."), pair(2, "A", " a", " b")], make_tokenizer(), max_length=5
    )
    assert lines(found["lost-to-length"]) == [1]
    found = examined([pair(1, chosen="Yes.", rejected="Yes. "), pair(2)], make_tokenizer(LLAMA), max_length=64)
    assert lines(found["lost-to-length"]) == [1]


def test_characters_outside_the_vocabulary_are_counted(make_tokenizer):
    words = {"<unk>": 0, "</s>": 1, "the": 2, "sky": 3, "blue": 4}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", eos_token="</s>")
    found = examined([pair(1, "the sky", " blue", " sky"), pair(2, "the sky", " blau", " sky")], tokenizer)
    assert lines(found["unknown-tokens"]) == [2]
    assert "1 of " in found["unknown-tokens"].says
    assert examined([pair(1)], make_tokenizer(CHATML))["unknown-tokens"].level == "fine"


def test_markers_of_another_models_template_are_found_and_the_models_own_are_not(make_tokenizer):
    records = [pair(1, "[INST] Hi [/INST]", " a", " b"), pair(2, "<|im_start|>user\nHi<|im_end|>", " a", " b")]
    found = examined(records, make_tokenizer())["markers-as-text"]
    assert (found.level, lines(found)) == ("error", [1])


def test_token_rows_spell_the_texts_and_mark_what_is_cut(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True)
    record = pair(7, "The sky is blue. What color is the sky?", " It is blue, and it is green, thank you.", " No.")
    longest = len(encode(record, tokenizer).ids(0)[1])
    for limit in (None, longest + 4, longest):
        _, _, rows = examine_tokens([record], tokenizer, max_length=limit)
        encoded = encode(record, tokenizer, max_length=limit)
        assert [(row.place, row.item, row.boundary) for row in rows] == [
            ("f.jsonl, line 7", side, "text") for side in ("chosen", "rejected")
        ]
        for i, row in enumerate(rows):
            context, response = encoded.ids(i)
            assert [token for _, token, kind in row.tokens if kind == "context"] == context
            assert [token for _, token, kind in row.tokens if kind == "scored"] == response
            n_cut = encoded.n_cut_context[i] + encoded.n_cut_response[i]
            assert sum(kind == "cut" for _, _, kind in row.tokens) == n_cut
            text = "".join(text for text, _, _ in row.tokens)
            assert text == "<s>" + record.items[0].context + record.items[i].response + "</s>"


def test_token_rows_show_a_cut_record_where_there_is_one_and_keep_spaces_of_sentencepiece(make_tokenizer, make_spaced):
    records = [pair(k, "The sky is", " blue", " black") for k in range(1, 9)]
    records.append(pair(9, "The sky is", " blue" * 30, " no"))
    rows = examine_tokens(records, make_tokenizer(), max_length=24, rows=2)[2]
    assert {row.place for row in rows} == {"f.jsonl, line 1", "f.jsonl, line 9"}
    rows = examine_tokens([pair(1, "The sky is", " is blue", " no")], make_spaced(None), max_length=None)[2]
    assert "".join(text for text, _, _ in rows[0].tokens) == " The sky is is blue</s>"


def test_facts_add_up_to_the_tokens_that_are_trained_on(make_tokenizer):
    tokenizer = make_tokenizer()
    records = [pair(1, "The sky is", " blue", " black, and it is green"), pair(2, "What?", " yes", " no")]
    _, facts, _ = examine_tokens(records, tokenizer, max_length=None)
    encoded = [encode(record, tokenizer) for record in records]
    rows = [len(e.ids(i)[0]) + len(e.ids(i)[1]) for e in encoded for i in (0, 1)]
    epoch = facts["Tokens of an epoch"]
    assert epoch["every response with its prompt, unpadded"] == sum(rows)
    assert epoch["padded to the longest of 8 records"] == 4 * max(rows)
    assert epoch["shared beginnings once, as here"] == sum(e.trie.n_nodes for e in encoded)
    assert facts["Length in tokens"]["responses"]["longest"] == max(len(e.ids(i)[1]) for e in encoded for i in (0, 1))
    assert facts["Tokenizer"]["ends texts (EOS)"] == f"</s> ({tokenizer.eos_token_id})"


def test_lengths_in_the_table_are_those_before_anything_is_cut(make_tokenizer):
    records = [pair(1, "The sky is blue. " * 4, " blue" * 30, " no")]
    tables = [examine_tokens(records, make_tokenizer(), max_length=m)[1]["Length in tokens"] for m in (None, 16)]
    assert tables[0] == tables[1]


def test_of_many_records_a_sample_is_tokenised_and_the_table_says_so(make_tokenizer, monkeypatch):
    monkeypatch.setattr(_tokens, "N_RECORDS", 5)
    records = [pair(k, f"Number {k}", " a", " b") for k in range(1, 21)]
    findings, facts, _ = examine_tokens(records, make_tokenizer(), max_length=16)
    assert facts["Records tokenised"] == {"records": 5, "of": 20, "used": 5}
    assert next(f for f in findings if f.code == "cut-contexts").of == 5
    again = examine_tokens(records[::-1], make_tokenizer(), max_length=16)[1]  # chosen by their names, not their order
    assert again["Length in tokens"] == facts["Length in tokens"]


def test_a_default_system_prompt_is_no_fault(make_tokenizer):
    found = examined([pair(1)], make_tokenizer(DEFAULT_SYSTEM))
    assert found["prompt-not-prefix"].level == found["turn-boundary"].level == "fine"


def test_an_impossible_length_is_the_callers_mistake(make_tokenizer):
    with pytest.raises(ConfigError, match="1 is below 2"):
        examine_tokens([pair(1)], make_tokenizer(CHATML), max_length=1)


def test_every_check_has_a_question():
    assert all(question.endswith("?") for question in CHECKS.values())
