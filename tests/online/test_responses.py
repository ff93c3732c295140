"""Facts about answers that are sampled and kept: a stop loses none, and nothing is sampled twice."""

import json
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Message, Record
from unipref.data import encode_records
from unipref.engine import load_tokenizer
from unipref.online import answered, responses
from unipref.sampling import Sample

SETTINGS = {"model": "small", "max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0, "seed": 3}


@pytest.fixture(scope="module")
def loaded():
    tokenizer = load_tokenizer("bundled")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).double(), tokenizer  # in float64 an answer does not depend on its batch


def prompts(n=6):
    return [Record(id=f"p{i}", items=(Item(f"film number {i} is", ""),), conversation=f"film {i}") for i in range(n)]


def texts(records):
    return [[item.response for item in record.items] for record in records]


def ask(loaded, path, records, *, settings=None, **options):
    settings = SETTINGS if settings is None else settings
    return answered(records, lambda: loaded, path, responses=3, settings=settings, max_length=32, **options)


@pytest.fixture
def whole(loaded, tmp_path):
    return ask(loaded, tmp_path / "whole.jsonl", prompts())[0]


def test_every_prompt_has_its_answers_with_the_tokens_they_were_drawn_as(loaded, whole):
    tokenizer = loaded[1]
    assert [len(record.items) for record in whole] == [3] * 6
    assert len({text for found in texts(whole) for text in found}) > 12  # three draws, not one three times
    for record in whole:
        for item in record.items:
            assert tokenizer.decode(item.response_ids, skip_special_tokens=True) == item.response
            ended = item.response_ids[-1] == tokenizer.eos_token_id
            assert item.columns["continues"] == float(not ended)
    encoded, _ = encode_records(whole, tokenizer, max_length=32)
    assert [tuple(each.ids(0)[1]) for each in encoded] == [record.items[0].response_ids for record in whole]


def test_a_stopped_run_goes_on_and_gives_the_answers_of_one_that_was_not(loaded, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(responses, "_CHUNK", 2)
    path, asked = tmp_path / "cut.jsonl", []

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(loaded, path, prompts(), progress=stop)
    kept = path.read_text(encoding="utf-8")
    assert len(kept.splitlines()) == 1 + 4
    generate = responses.generate
    monkeypatch.setattr(responses, "generate", lambda m, t, ids, **k: (asked.extend(ids), generate(m, t, ids, **k))[1])
    found, _ = ask(loaded, path, prompts())
    assert len(asked) == 2 * 3  # the prompts that were left
    assert path.read_text(encoding="utf-8").startswith(kept)
    assert texts(found) == texts(whole)


def test_a_line_that_a_kill_cut_off_is_sampled_again_and_the_others_are_not(loaded, tmp_path, whole):
    path = tmp_path / "killed.jsonl"
    ask(loaded, path, prompts())
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:-1]) + lines[-1][:40], encoding="utf-8")
    found, _ = ask(loaded, path, prompts())
    assert texts(found) == texts(whole)
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def test_a_finished_file_needs_no_model(loaded, tmp_path, whole):
    path = tmp_path / "done.jsonl"
    ask(loaded, path, prompts())
    again, _ = answered(prompts(), None, path, responses=3, settings=SETTINGS, max_length=32)
    assert texts(again) == texts(whole)


def test_the_order_and_number_of_prompts_change_no_answer(loaded, tmp_path, whole):
    found, _ = ask(loaded, tmp_path / "turned.jsonl", prompts()[::-1][:4])
    assert texts(found) == texts(whole)[::-1][:4]


def test_another_seed_gives_other_answers_and_is_not_mixed_into_the_file(loaded, tmp_path, whole):
    other = {**SETTINGS, "seed": 4}
    path = tmp_path / "seeds.jsonl"
    assert texts(ask(loaded, path, prompts(), settings=other)[0]) != texts(whole)
    with pytest.raises(ConfigError, match="holds answers with another seed"):
        ask(loaded, path, prompts())


def test_a_prompt_that_stands_twice_is_answered_once_and_counted(loaded, tmp_path):
    found, report = ask(loaded, tmp_path / "twice.jsonl", [*prompts(2), *prompts(1)])
    assert len(found) == 2
    assert report.left_out == {"prompt that stands twice": 1}
    assert report.n_read == report.n_kept + 1


def test_a_conversation_is_answered_as_the_assistant_behind_the_chat_template(loaded, tmp_path):
    asked = Record(id="c", items=(Item((Message("user", "hello"),), ()),), conversation="hello")
    found, _ = ask(loaded, tmp_path / "chat.jsonl", [asked])
    item = found[0].items[0]
    assert [turn.role for turn in item.response] == ["assistant"]
    context = encode_records(found, loaded[1])[0][0].ids(0)[0]
    rendered = loaded[1].apply_chat_template(
        [{"role": "user", "content": "hello"}], add_generation_prompt=True, tokenize=False
    )
    assert loaded[1].decode(context) == rendered


def test_of_a_record_with_preferences_only_the_prompt_is_taken(loaded, tmp_path, whole):
    sides = [
        replace(
            p,
            items=(Item(p.items[0].context, " good", label=True), Item(p.items[0].context, " bad")),
            comparisons=(Comparison(0, 1),),
        )
        for p in prompts()
    ]
    found, _ = ask(loaded, tmp_path / "pairs.jsonl", sides)
    assert texts(found) == texts(whole)
    assert not any(record.comparisons or item.label for record in found for item in record.items)


def test_no_prompt_is_an_error_that_says_where_prompts_come_from(loaded, tmp_path):
    with pytest.raises(DataError, match="rows with `prompt`"):
        ask(loaded, tmp_path / "none.jsonl", [])


def test_an_answer_with_a_control_token_inside_is_taken_out_and_counted(loaded, tmp_path, monkeypatch):
    bos, eos = loaded[1].bos_token_id, loaded[1].eos_token_id
    drawn = [(500, bos, 600), (500, 600, eos), (700, 800), (bos, eos), (bos, 500), (900, 900)]
    samples = [Sample(ids, loaded[1].decode(ids, skip_special_tokens=True), ids[-1] == eos) for ids in drawn]
    monkeypatch.setattr(responses, "generate", lambda *args, **kwargs: samples)
    found, report = ask(loaded, tmp_path / "control.jsonl", prompts(2))
    assert [[item.response_ids for item in record.items] for record in found] == [[(500, 600, eos), (700, 800)]]
    assert report.changed == {"answer with a control token inside taken out": 1}
    assert report.left_out == {"prompt with fewer than two answers that hold no control token": 1}
    assert report.n_read == report.n_kept + 1
