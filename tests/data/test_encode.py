"""Tokenising: no token lost, none of the prompt scored, the end always there."""

import random
from importlib import resources

import pytest
from data_templates import CHATML, DEFAULT_SYSTEM, LLAMA, NO_END, REFUSES, REWRITES, SAFE, THINKING
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.data import check_tokenizer, encode, encode_records, read_records

USER = Message("user", "What color is the sky?")
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=1, max_size=12).filter(
    lambda text: text.strip()
)


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def pair(context, chosen, rejected) -> Record:
    return Record("r", (Item(context, chosen), Item(context, rejected)), (Comparison(0, 1),), source="f.jsonl", line=7)


def rendered(tokenizer, messages, opened=False) -> str:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opened)


@pytest.mark.parametrize("name", [name for name in SAFE if name != "no_end"])
def test_context_and_response_decode_to_the_rendered_text_up_to_the_end_of_the_turn(make_tokenizer, name):
    tokenizer = make_tokenizer(SAFE[name])
    record = pair((USER,), said("It is blue."), said("It is black, thank you."))
    encoded = encode(record, tokenizer)
    for i, item in enumerate(record.items):
        context, response = encoded.ids(i)
        whole = rendered(tokenizer, (*item.context, *item.response))
        assert tokenizer.decode(context + response) == whole.rstrip("\n")
        assert item.response[0].content in tokenizer.decode(response)
        assert "sky?" not in tokenizer.decode(response)


def test_chatml_response_is_the_words_and_the_turn_end_without_the_line_break_behind_it(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    context, response = encode(pair((USER,), said("It is blue."), said("No.")), tokenizer).ids(0)
    assert tokenizer.decode(context) == "<|im_start|>user\nWhat color is the sky?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(response) == "It is blue.<|im_end|>"


def test_where_a_token_would_span_the_cut_both_parts_keep_their_characters(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    whole = tokenizer("assistant\n\n", add_special_tokens=False)["input_ids"]
    apart = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("assistant\n", "\n")]
    assert whole != apart[0] + apart[1]  # the vocabulary has a token of two line breaks
    context, response = encode(pair((USER,), said("\nIt is."), said("No.")), tokenizer).ids(0)
    assert tokenizer.decode(context).endswith("assistant\n")
    assert tokenizer.decode(response) == "\nIt is.<|im_end|>"
    assert context == tokenizer(tokenizer.decode(context), add_special_tokens=False)["input_ids"]


def test_a_default_system_prompt_is_context_on_both_sides(make_tokenizer):
    tokenizer = make_tokenizer(DEFAULT_SYSTEM)
    encoded = encode(pair((USER,), said("Yes."), said("No.")), tokenizer)
    assert tokenizer.decode(encoded.ids(0)[0]).count("You are fine.") == 1
    assert encoded.boundary == ("template", "template")
    assert tokenizer.decode(encoded.ids(1)[1]) == "No.<|im_end|>"


def test_a_thinking_block_that_history_lacks_moves_the_cut_to_the_assistant_header(make_tokenizer):
    tokenizer = make_tokenizer(THINKING)
    encoded, report = encode_records([pair((USER,), said("<Yes."), said("No."))], tokenizer)
    assert encoded[0].boundary == ("turn", "turn")
    assert tokenizer.decode(encoded[0].ids(0)[0]).endswith(
        "sky?<|Assistant|>"
    )  # "<" is the response's, not "<think>"'s
    assert tokenizer.decode(encoded[0].ids(0)[1]) == "<Yes.</s>"
    assert "opens 2 responses" in report.notes[0]


def test_a_template_that_drops_the_responses_own_thinking_sets_the_record_aside(make_tokenizer):
    with pytest.raises(DataError, match=r"f\.jsonl, line 7: the chat template changes the response's words"):
        encode(pair((USER,), said("<think>hm</think>Yes."), said("No.")), make_tokenizer(THINKING))


def test_a_template_that_rewrites_the_context_sets_the_record_aside_and_says_so(make_tokenizer):
    with pytest.raises(DataError, match="renders the context differently once a response follows"):
        encode(pair((USER,), said("Yes."), said("No.")), make_tokenizer(REWRITES))


def test_a_conversation_that_the_template_refuses_is_counted_and_the_others_are_kept(make_tokenizer):
    with_system = pair((Message("system", "Be kind."), USER), said("Yes."), said("No."))
    encoded, report = encode_records([with_system, pair((USER,), said("Yes."), said("No."))], make_tokenizer(REFUSES))
    assert (len(encoded), report.n_read, report.n_kept) == (1, 2, 1)
    assert report.counts == {"the chat template refuses the conversation": 1}
    assert "no system turns here" in report.set_aside[0].detail


def test_a_template_without_a_turn_end_gets_eos_in_place_of_its_white_space(make_tokenizer):
    tokenizer = make_tokenizer(NO_END)
    encoded, report = encode_records([pair((USER,), said("Yes."), said("No."))], tokenizer)
    assert tokenizer.decode(encoded[0].ids(0)[0]) == "user: What color is the sky?\nassistant:"
    assert tokenizer.decode(encoded[0].ids(0)[1]) == " Yes.</s>"
    assert "EOS was added to 2 responses" in report.notes[0]


def test_a_trimming_template_with_its_own_bos_writes_bos_once(make_tokenizer):
    tokenizer = make_tokenizer(LLAMA, add_bos=True)
    context, response = encode(pair((USER,), said("  Yes. "), said("No.")), tokenizer).ids(0)
    assert context.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(response) == "Yes.<|eot|>"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(user=TEXTS, chosen=TEXTS, rejected=TEXTS, name=st.sampled_from(["chatml", "llama", "default_system"]))
def test_any_words_survive_every_safe_template(make_tokenizer, user, chosen, rejected, name):
    if chosen.strip() == rejected.strip():
        rejected += " else"
    tokenizer = make_tokenizer(SAFE[name])
    record = pair((Message("user", user),), said(chosen), said(rejected))
    encoded = encode(record, tokenizer)
    for i, item in enumerate(record.items):
        context, response = encoded.ids(i)
        assert tokenizer.decode(context) == rendered(tokenizer, item.context, opened=True)
        assert tokenizer.decode(context + response) == rendered(tokenizer, (*item.context, *item.response)).rstrip("\n")
        assert response[-1] in (
            tokenizer.convert_tokens_to_ids("<|im_end|>"),
            tokenizer.convert_tokens_to_ids("<|eot|>"),
        )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=TEXTS, chosen=TEXTS, rejected=TEXTS)
def test_any_plain_words_survive_with_bos_once_in_front_and_eos_once_behind(make_tokenizer, prompt, chosen, rejected):
    if chosen == rejected:
        rejected += " else"
    tokenizer = make_tokenizer(add_bos=True)
    encoded = encode(pair(prompt, chosen, rejected), tokenizer)
    for i, text in enumerate((chosen, rejected)):
        context, response = encoded.ids(i)
        assert context[0] == tokenizer.bos_token_id
        assert tokenizer.decode(context[1:]) == prompt
        assert response[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(response[:-1]) == text
        assert tokenizer.bos_token_id not in context[1:] + response


def test_the_tokenizers_own_tokens_are_used_where_the_cut_falls_between_two(make_tokenizer):
    tokenizer = make_tokenizer()
    context, response = encode(pair("The sky is", " blue.", " black."), tokenizer).ids(0)
    assert context + response == [*tokenizer("The sky is blue.")["input_ids"], tokenizer.eos_token_id]


def test_an_eos_that_the_tokenizer_puts_behind_every_text_does_not_stand_behind_the_prompt(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True, add_eos=True)
    context, response = encode(pair("The sky", " is.", " was."), tokenizer).ids(0)
    assert tokenizer.eos_token_id not in context
    assert response.count(tokenizer.eos_token_id) == 1


def test_bos_and_eos_that_the_data_spells_are_not_doubled(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True)
    context, response = encode(pair("<s>The sky", " is.</s>", " was."), tokenizer).ids(0)
    assert context.count(tokenizer.bos_token_id) == 1
    assert response.count(tokenizer.eos_token_id) == 1
    context, response = encode(Record("t", (Item("", "<s>Hello"),)), tokenizer).ids(0)
    assert context == [tokenizer.bos_token_id]
    assert tokenizer.decode(response) == "Hello</s>"


def test_an_empty_context_is_bos_or_without_one_the_first_token_is_not_scored(make_tokenizer):
    with_bos, without = make_tokenizer(), make_tokenizer(bos=None)
    context, response = encode(Record("t", (Item("", "Hello"),)), with_bos).ids(0)
    assert context == [with_bos.bos_token_id]
    assert with_bos.decode(response) == "Hello</s>"
    context, response = encode(Record("t", (Item("", "Hello"),)), without).ids(0)
    assert len(context) == 1
    assert without.decode(context + response) == "Hello</s>"


def test_sampled_ids_are_used_as_they_are(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    ids = tuple(tokenizer.convert_tokens_to_ids(["h", "e", "l"]))  # not how the tokenizer would spell "hel"
    encoded = encode(Record("s", (Item((USER,), said("hel"), response_ids=ids),)), tokenizer)
    assert encoded.ids(0)[1] == list(ids)
    assert encoded.boundary == ("ids",)
    assert tokenizer.decode(encoded.ids(0)[0]) == rendered(tokenizer, (USER,), opened=True)


def test_the_path_in_the_trie_is_context_then_response_and_only_the_response_is_scored(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    record = pair((USER,), said("It is blue."), said("It is black."))
    encoded = encode(record, tokenizer)
    trie = encoded.trie
    for i in range(2):
        context, response = encoded.ids(i)
        assert trie.token[trie.path(i)].tolist() == context + response
        assert trie.token[trie.scored[i]].tolist() == response
        assert int(trie.context[i]) == trie.path(i)[len(context) - 1]
    assert trie.n_nodes < trie.n_row_tokens


def test_the_context_is_cut_from_its_start_alike_for_both_sides_and_bos_stays(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True)
    record = pair("The sky is blue. What color is the sky?", " It is blue.", " It is black, and it is green.")
    full = encode(record, tokenizer)
    longest = max(len(full.ids(i)[1]) for i in range(2))
    cut = encode(record, tokenizer, max_length=longest + 4)
    for i in range(2):
        context, response = cut.ids(i)
        assert context == [tokenizer.bos_token_id, *full.ids(i)[0][-3:]]
        assert response == full.ids(i)[1]
    assert cut.n_cut_context == (len(full.ids(0)[0]) - 4,) * 2
    assert cut.n_cut_response == (0, 0)


def test_a_response_is_cut_only_where_it_alone_does_not_fit_and_then_it_is_counted(make_tokenizer):
    tokenizer = make_tokenizer(add_bos=True)
    record = pair("The sky", " It is blue, and it is green.", " No.")
    full = encode(record, tokenizer)
    n = len(full.ids(0)[1])
    encoded, report = encode_records([record], tokenizer, max_length=n)  # a context token more would be needed
    assert encoded[0].ids(0) == ([tokenizer.bos_token_id], full.ids(0)[1][:-1])
    assert encoded[0].ids(1) == ([tokenizer.bos_token_id], full.ids(1)[1])
    assert encoded[0].n_cut_response == (1, 0)
    assert report.changed == {
        "context cut to fit max_length": 1,
        "response cut to fit max_length, its end lost": 1,
    }


def test_truncation_at_the_end_that_empties_a_response_sets_the_record_aside(make_tokenizer):
    tokenizer = make_tokenizer()
    long = pair("The sky is blue. What color is the sky?", " Blue.", " Black.")
    short = pair("Hello", " there", " you")
    encoded, report = encode_records([long, short], tokenizer, max_length=5, truncate="end")
    assert len(encoded) == 1
    assert report.counts == {"truncation leaves nothing of a response": 1}
    with pytest.raises(DataError, match="line 7: truncation leaves nothing of a response"):
        encode_records([long], tokenizer, max_length=5, truncate="end", strict=True)


def test_responses_that_truncation_makes_identical_are_set_aside(make_tokenizer):
    tokenizer = make_tokenizer()
    _, report = encode_records(
        [pair("A", " It is blue, and it is green.", " It is blue, and it is black."), pair("A", " yes", " no")],
        tokenizer,
        max_length=4,
    )
    assert report.counts == {"truncation leaves the compared responses identical": 1}


def test_sides_that_differ_only_in_what_the_template_trims_are_set_aside(make_tokenizer):
    with pytest.raises(DataError, match="makes the compared responses identical"):
        encode(pair((USER,), said("Yes."), said("Yes. ")), make_tokenizer(LLAMA))


def test_a_tokenizer_without_eos_or_template_is_refused_with_the_next_step(make_tokenizer):
    tokenizer = make_tokenizer()
    with pytest.raises(ConfigError, match="chat template"):
        encode(pair((USER,), said("a"), said("b")), tokenizer)
    check_tokenizer(tokenizer)  # padding with EOS is fine
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match=r"no EOS token.*tokenizer\.eos_token ="):
        check_tokenizer(tokenizer)


def test_nonsense_limits_are_refused(make_tokenizer):
    record = pair("a", " b", " c")
    with pytest.raises(ConfigError, match="1 is below 2"):
        encode(record, make_tokenizer(), max_length=1)
    with pytest.raises(ConfigError, match="'middle'"):
        encode(record, make_tokenizer(), truncate="middle")


def test_prompts_without_a_response_cannot_be_encoded_and_say_so(make_tokenizer):
    records, _ = read_records([{"prompt": "Hello"}])
    with pytest.raises(DataError, match="no response"):
        encode_records(records, make_tokenizer())


def test_many_records_together_give_what_each_gives_alone(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    rng = random.Random(0)
    words = ["\n", "the", "sky", "is", "blue", "black", "green", "what", "\n\n"]
    records = [
        pair((Message("user", f"{i} " + " ".join(rng.choices(words, k=5))),), said(f"{rng.choice(words)} a"), said("b"))
        for i in range(20)
    ]
    together, _ = encode_records(records, tokenizer)
    for record, encoded in zip(records, together, strict=True):
        alone = encode(record, tokenizer)
        assert [encoded.ids(i) for i in range(2)] == [alone.ids(i) for i in range(2)]


def test_line_breaks_that_are_tokens_of_their_own_do_not_swallow_a_response(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    tokenizer.add_tokens(["\n", "\n\n", "blue."])  # not special, as in Gemma's vocabulary
    context, response = encode(pair((USER,), said("\nblue."), said("No.")), tokenizer).ids(0)
    assert tokenizer.decode(context).endswith("assistant\n")
    assert tokenizer.decode(response) == "\nblue.<|im_end|>"
    tokenizer.chat_template = NO_END
    assert encode(pair((USER,), said("blue."), said("No.")), tokenizer).ids(0)[1][-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("text", ["s blue", " blue", "\nblue", "  blue", "0", "n"])
@pytest.mark.parametrize("template", [None, CHATML])
def test_a_vocabulary_that_begins_every_text_with_a_space_puts_none_before_a_response(make_spaced, template, text):
    tokenizer = make_spaced(template)
    if template is None:
        context, response = encode(pair("The sky i", text, " black"), tokenizer).ids(0)
        assert tokenizer.decode(context) == "The sky i"
        assert tokenizer.decode(context + response[:-1]) == "The sky i" + text
    else:
        context, response = encode(pair((USER,), said(text), said("No.")), tokenizer).ids(0)
        whole = rendered(tokenizer, (USER, Message("assistant", text)))
        assert tokenizer.decode(context + response) == whole.rstrip("\n")


def test_the_cut_above_does_fall_inside_a_token(make_spaced):
    tokenizer = make_spaced(None)
    assert "▁is" in tokenizer.tokenize("The sky is blue")
    assert tokenizer.tokenize("s blue")[0].startswith("▁")


def test_the_bundled_tokenizer_gives_its_own_tokens_for_the_bundled_rows():
    tokenizer = AutoTokenizer.from_pretrained(str(resources.files("unipref") / "assets" / "model"))
    records, _ = read_records("bundled:hh-harmless", limit=200)
    encoded, report = encode_records(records, tokenizer)
    assert report.n_kept == 200
    for found in encoded:
        for i, item in enumerate(found.record.items):
            context, response = found.ids(i)
            whole = rendered(tokenizer, (*item.context, *item.response))
            assert tokenizer.decode(context) == rendered(tokenizer, item.context, opened=True)
            assert context + response == tokenizer(whole, add_special_tokens=False)["input_ids"]
            assert response[-1] == tokenizer.eos_token_id
