"""What users of other trainers were bitten by: each is found by the doctor on its line, or cannot happen here.

The tests are named after the complaint; where it cannot happen, the planted situation goes through the real encoder
and the real engine, beside the plainest code that gives the same numbers.
"""

import dataclasses
import math

import pytest
import torch
from data_templates import CHATML, DEFAULT_SYSTEM, LLAMA, REWRITES, THINKING
from transformers import AutoConfig, AutoModelForCausalLM

from unipref.core.errors import DataError, ShapeError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.core.tries import build_trie, pack
from unipref.data import encode, encode_records, examine_records, examine_tokens, read_records
from unipref.engine import Policy

GEMMA = (  # turns end with a token of their own (here <|eot|>), while the tokenizer's EOS is another token
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<|head|>' + role + '\\n' + m['content'] | trim + '<|eot|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>model\\n' }}{% endif %}"
)
QWEN = (  # opens an empty thinking block for generation, and drops the block of earlier turns only
    CHATML.replace("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}")
)
USER = Message("user", "What color is the sky?")


def said(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def pair(context, chosen, rejected, line: int = 1) -> Record:
    return Record(
        f"r{line}", (Item(context, chosen), Item(context, rejected)), (Comparison(0, 1),), source="f", line=line
    )


def tokens(records, tokenizer, **options):
    return {f.code: f for f in examine_tokens(records, tokenizer, **{"max_length": None, **options})[0]}


def lines(finding) -> list[int]:
    return [int(place.rpartition(" ")[2]) for place in finding.places]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("llama", vocab_size=512, num_key_value_heads=2, max_position_embeddings=256, **sizes)
    made = AutoModelForCausalLM.from_config(config).to(torch.float64).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, dtype=torch.float64)
    return made


def plain_logp(model, context, response) -> float:
    """Log-probability of `response` after `context`, alone through the model."""
    with torch.no_grad():
        log_p = model(torch.tensor([context + response])).logits[0].log_softmax(-1)
    at = range(len(context) - 1, len(context) + len(response) - 1)
    return sum(float(log_p[t, token]) for t, token in zip(at, response, strict=True))


def packed_logps(model, encoded, path: str) -> list[float]:
    """Log-probability of every item, all records in one forward of the engine."""
    batch = pack([e.trie for e in encoded])
    with torch.no_grad():
        logp = Policy(model, path=path)(batch).logp
    return torch.zeros(batch.n_items, dtype=logp.dtype).index_add(0, batch.scored_item, logp).tolist()


# ------------------------------------------------------------------------------------------------- 11


def test_11_keeping_the_end_of_a_long_prompt_leaves_no_row_without_a_response(make_tokenizer, model):
    tokenizer = make_tokenizer(add_bos=True)
    record = pair("The sky is blue. " * 8, "It is green.", "No, thank you, it is black.")
    n_context, n_response = len(encode(record, tokenizer).ids(0)[0]), len(encode(record, tokenizer).ids(1)[1])
    every = [encode(record, tokenizer, max_length=limit) for limit in range(2, n_context + n_response + 2)]
    for limit, encoded in enumerate(every, 2):
        for context, response in (encoded.ids(i) for i in range(2)):
            assert context
            assert response
            assert len(context) + len(response) <= limit
    assert all(map(math.isfinite, packed_logps(model, every, "tries")))
    found = tokens([record, pair("A", " b", " c", line=2)], tokenizer, max_length=24)
    assert (found["cut-contexts"].n, lines(found["cut-contexts"])) == (1, [1])


# ------------------------------------------------------------------------------------------------- 12


def test_12_a_fully_truncated_response_is_set_aside_with_its_line_and_never_becomes_nan(make_tokenizer, model):
    tokenizer = make_tokenizer()
    records = [
        pair("The sky is blue. " * 20, " yes", " no", line=4),
        *(pair("A", " yes", " no", line=k) for k in (5, 6)),
    ]
    encoded, report = encode_records(records, tokenizer, max_length=16, truncate="end")
    assert [(row.line, row.reason) for row in report.set_aside] == [(4, "truncation leaves nothing of a response")]
    assert all(map(math.isfinite, packed_logps(model, encoded, "rows")))
    found = tokens(records, tokenizer, max_length=16, truncate="end")["lost-to-length"]
    assert (found.level, lines(found)) == ("error", [4])  # one row in three
    with pytest.raises(ShapeError, match="needs a context token and a response token"):
        build_trie([([5, 6], [])])  # an item without a scored token cannot be built, so no mean divides by zero


# ------------------------------------------------------------------------------------------------- 13


def test_13_images_are_never_dropped_in_silence(tmp_path):
    sound = {"prompt": "Name a color.", "chosen": " Blue.", "rejected": " Seven."}
    picture = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}]
    answers = {
        side: [{"role": "assistant", "content": text}] for side, text in (("chosen", "A cat."), ("rejected", "A dog."))
    }
    rows = [sound] * 5
    records, report = read_records([*rows, {"prompt": picture, **answers}])
    media = {f.code: f for f in examine_records(records, report)[0]}["media"]
    assert (media.level, lines(media)) == ("error", [6])
    assert "part of type 'image'" in report.set_aside[0].detail
    for more in ({"images": ["cat.png"]}, {"prompt": "<image>\nWhat is this?"}, {"prompt": "<|vision_start|>What?"}):
        records, report = read_records([*rows, {**sound, **more}])
        assert {f.code: f for f in examine_records(records, report)[0]}["media"].level == "error"
    with pytest.raises(DataError, match="content is not text"):  # nothing else there: not one row is trained on
        read_records([{"prompt": picture, **answers}])


# ------------------------------------------------------------------------------------------------- 14


def test_14_thinking_blocks_and_system_prompts_move_no_token_of_the_prompt_into_the_response(make_tokenizer):
    record = pair((USER,), said("It is blue."), said("No."), line=3)
    for template, boundary, start in (
        (QWEN, "turn", "<|im_start|>assistant\n"),
        (THINKING, "turn", "<|Assistant|>"),
        (DEFAULT_SYSTEM, "template", "<|im_start|>assistant\n"),
    ):
        tokenizer = make_tokenizer(template)
        encoded = encode(record, tokenizer)
        context, response = (tokenizer.decode(ids) for ids in encoded.ids(0))
        assert encoded.boundary == (boundary, boundary)
        assert context.endswith(start)
        assert "think" not in response
        assert response.startswith("It is blue.")
        found = tokens([record], tokenizer)
        assert found["turn-boundary"].level == ("note" if boundary == "turn" else "fine")
        assert found["prompt-not-prefix"].level == "fine"
    found = tokens([record], make_tokenizer(REWRITES))["prompt-not-prefix"]
    assert (found.level, lines(found)) == ("error", [3])
    found = tokens([pair((USER,), said("<think>so</think>Blue."), said("No."), line=3)], make_tokenizer(THINKING))
    assert (found["template-alters"].level, lines(found["template-alters"])) == ("error", [3])


# ------------------------------------------------------------------------------------------------- 15


def test_15_a_cut_takes_the_end_token_of_its_own_response_only_and_is_counted_by_side(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    records = [pair((USER,), said("blue " * 40), said("No."), line=1), pair((USER,), said("Yes."), said("No."), line=2)]
    encoded, _ = encode_records(records, tokenizer, max_length=24)
    assert [[e.ids(i)[1][-1] == end for i in (0, 1)] for e in encoded] == [[False, True], [True, True]]
    found = tokens(records, tokenizer, max_length=24, stop_ids=[end])
    assert lines(found["cut-responses"]) == [1]
    assert "preferred ones: 1, others: 0" in found["cut-responses"].says
    assert found["turn-end"].level == "fine"


def test_15_the_end_of_a_gemma_turn_is_scored_and_must_be_a_token_that_generation_stops_at(make_tokenizer):
    tokenizer = make_tokenizer(GEMMA)
    end = tokenizer.convert_tokens_to_ids("<|eot|>")
    record = pair((USER,), said("Blue."), said("No."))
    assert encode(record, tokenizer).ids(0)[1][-1] == end
    assert end != tokenizer.eos_token_id
    assert tokens([record], tokenizer, stop_ids=[tokenizer.eos_token_id])["turn-end"].level == "error"
    assert tokens([record], tokenizer, stop_ids=[tokenizer.eos_token_id, end])["turn-end"].level == "fine"


# ------------------------------------------------------------------------------------------------- 16


def test_16_no_tokenizer_puts_bos_before_a_response_and_one_that_the_text_spells_is_an_error(make_tokenizer):
    for template, context, sides in (
        (None, "The sky is", (" blue.", " black.")),
        (None, "", ("Blue.", "Black.")),
        (LLAMA, (USER,), (said("Blue."), said("Black."))),
    ):
        tokenizer = make_tokenizer(template, add_bos=True)
        encoded = encode(pair(context, *sides), tokenizer)
        for i in range(2):
            ids, response = encoded.ids(i)
            assert ids.count(tokenizer.bos_token_id) == 1
            assert tokenizer.bos_token_id not in response
    spelled = [
        pair("The sky is", "<s> blue.", "<s> black.", line=9),
        *(pair("A", " b", " c", line=k) for k in range(10, 99)),
    ]
    found = tokens(spelled, make_tokenizer(add_bos=True))["bos-twice"]
    assert (found.level, lines(found)) == ("error", [9])


# ------------------------------------------------------------------------------------------------- 17


def test_17_chosen_and_rejected_that_were_templated_by_hand_are_found_in_their_common_shapes(make_tokenizer):
    question = "What color is the sky at noon?"
    whole = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n"
    transcripts = [
        {"prompt": question, "chosen": whole.format(question, "Blue."), "rejected": whole.format(question, "Red.")},
        {"prompt": question, "chosen": f"{question}\nBlue.", "rejected": f"{question}\nRed."},
        {"prompt": question, "chosen": "Blue.\n\nHuman: And at night?", "rejected": "Red."},
        {"prompt": question, "chosen": "Blue.", "rejected": "Red."},
    ]
    records, report = read_records(transcripts)
    found = {f.code: f for f in examine_records(records, report)[0]}
    assert lines(found["template-markers"]) == [1]
    assert lines(found["prompt-repeated"]) == [2]
    assert lines(found["other-speaker"]) == [3]
    assert tokens(records, make_tokenizer())["markers-as-text"].level == "fine"  # this vocabulary has them
    foreign = [pair(f"[INST] {question} [/INST]", " Blue.", " Red.", line=1)]
    assert tokens(foreign, make_tokenizer())["markers-as-text"].level == "error"
    turns = [{"role": "user", "content": question}]
    answers = [{"role": "assistant", "content": text} for text in ("Blue.", "Red.")]
    row = {"prompt": turns, "chosen": [*turns, answers[0]], "rejected": [*turns, answers[1]]}
    records, report = read_records([row])  # whole conversations as responses: the prompt is taken off, and counted
    assert [item.response[0].content for item in records[0].items] == ["Blue.", "Red."]
    assert report.changed == {"prompt that stood again in the response removed": 1}


# --------------------------------------------------------------------------------------------- 22, 23


def several(make_tokenizer):
    tokenizer = make_tokenizer(CHATML)
    words = ("sky", "blue and green", "black", "what color is it today, thank you")
    records = [
        pair(
            (Message("user", f"{word}?"),),
            said(f"It is {word}."),
            said("No." if k % 2 else f"No {word} at all."),
            line=k,
        )
        for k, word in enumerate(words, 1)
    ]
    return encode_records(records, tokenizer)[0]


@pytest.mark.parametrize("path", ["tries", "rows"])
def test_22_records_packed_without_padding_have_the_log_probabilities_of_each_alone(make_tokenizer, model, path):
    encoded = several(make_tokenizer)
    alone = [plain_logp(model, *e.ids(i)) for e in encoded for i in (0, 1)]
    assert packed_logps(model, encoded, path) == pytest.approx(alone, rel=1e-5)


def test_22_the_gradient_of_a_packed_step_is_the_sum_of_the_gradients_of_each_alone(make_tokenizer, model):
    encoded = several(make_tokenizer)
    policy = Policy(model, path="tries")

    def gradient(tries) -> torch.Tensor:
        model.zero_grad()
        policy(pack(tries)).logp.sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    alone = sum(gradient([e.trie]).clone() for e in encoded)
    assert torch.allclose(gradient([e.trie for e in encoded]), alone, rtol=1e-5, atol=1e-9)


def test_23_a_packed_range_holds_exactly_the_tokens_of_its_response(make_tokenizer):
    encoded = several(make_tokenizer)
    batch = pack([e.trie for e in encoded])
    responses = [e.ids(i)[1] for e in encoded for i in (0, 1)]
    for item, response in enumerate(responses):
        assert batch.token[batch.scored[batch.scored_item == item]].tolist() == response
    assert batch.length.tolist() == [len(response) for response in responses]


def test_23_positions_start_anew_with_every_packed_record_and_would_be_missed_if_they_did_not(make_tokenizer, model):
    encoded = several(make_tokenizer)
    batch = pack([e.trie for e in encoded])
    for start, e in zip(batch.start.tolist(), encoded, strict=False):
        for i in (0, 1):
            path = (torch.from_numpy(e.trie.path(i)) + start).tolist()
            assert batch.depth[path].tolist() == list(range(len(path)))
    running = dataclasses.replace(
        batch, depth=torch.arange(len(batch.token))
    )  # the fault: one count for the whole pack
    policy = Policy(model, path="tries")
    with torch.no_grad():
        right, wrong = policy(batch).logp, policy(running).logp
    assert (right - wrong).abs().max() > 1e-3
