"""The model that ships with the package: it loads, its template composes, and it knows its held-out text."""

import gzip
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import unipref
from unipref.data.split import conversation_key, is_heldout

ASSETS = Path(unipref.__file__).parent / "assets"
FOLDER = ASSETS / "model"
# Nats per token: the shipped weights have 3.80 on the eight conversations below, chosen by us a little above that.
HELDOUT_NATS_BOUND = 3.9


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def metrics():
    return json.loads((FOLDER / "metrics.json").read_text(encoding="utf-8"))


def heldout_conversations(n: int) -> list[list[dict[str, str]]]:
    found = []
    with gzip.open(ASSETS / "hh_harmless" / "harmless_base_test.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            parts = re.split(r"\n\n(Human|Assistant): ?", json.loads(line)["chosen"])[1:]
            roles = ["user" if speaker == "Human" else "assistant" for speaker in parts[::2]]
            turns = [{"role": r, "content": c} for r, c in zip(roles, parts[1::2], strict=True)]
            if is_heldout(conversation_key(turns[0]["content"].strip()), share=0.2):
                found.append(turns)
            if len(found) == n:
                break
    return found


def test_folder_stays_below_20_megabytes_and_weights_are_bfloat16():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 20e6
    assert AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto").dtype == torch.bfloat16


def test_parameter_count_is_between_5_and_10_million(model, tokenizer):
    assert 5e6 <= sum(p.numel() for p in model.parameters()) <= 10e6
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == 8192


def test_any_unicode_text_survives_the_round_trip(tokenizer):
    curly, family = "\u2019s", "\U0001f469\u200d\U0001f469\u200d\U0001f467"
    for text in (
        "",
        "  two  spaces , kept .\n\n\ttab",
        f"naïve café {curly}",
        f"日本語 العربية {family}",
        "\x00\x7f\u2028",
    ):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(1, 0xD7FF, (20, 50), generator=generator)
    for row in codes.tolist():
        text = "".join(map(chr, row))
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_plain_tokenization_adds_no_special_token(tokenizer):
    assert not set(tokenizer("How are you?")["input_ids"]) & set(tokenizer.all_special_ids)


def test_special_tokens_are_distinct_single_ids_and_the_model_agrees(model, tokenizer):
    names = ["<|bos|>", "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    assert [tokenizer.bos_token, tokenizer.pad_token, tokenizer.eos_token] == names[:3]
    ids = [tokenizer(name)["input_ids"] for name in names]
    assert all(len(i) == 1 for i in ids)
    assert len({i[0] for i in ids}) == len(names)
    for config in (model.config, model.generation_config):
        assert config.bos_token_id == tokenizer.bos_token_id
        assert config.pad_token_id == tokenizer.pad_token_id
        assert config.eos_token_id in (tokenizer.eos_token_id, [tokenizer.eos_token_id])


def test_template_is_written_out_and_prompt_is_a_prefix_in_text_and_in_tokens(tokenizer):
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hi\n"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Why? "},
    ]
    answer = [{"role": "assistant", "content": "  Because.\n"}]
    rendered = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(prompt + answer, tokenize=False)
    assert rendered == (
        "<|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|><|user|>Why?<|end|><|assistant|>"
    )
    assert whole == rendered + "Because.<|end|>"
    ids = tokenizer(rendered)["input_ids"]
    assert tokenizer(whole)["input_ids"][: len(ids)] == ids


def test_generation_marks_cover_assistant_content_and_its_end_only(tokenizer):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    encoded = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, m in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if m]
    assert tokenizer.decode(marked) == "Hello!<|end|>"


def test_an_unknown_role_is_an_error(tokenizer):
    with pytest.raises(Exception, match="unknown role tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


@torch.no_grad()
def test_loss_on_heldout_conversations_is_below_the_stated_bound(model, tokenizer):
    nats, n_tokens = 0.0, 0
    for turns in heldout_conversations(8):
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :1024]
        nats += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        n_tokens += ids.shape[1] - 1
    assert nats / n_tokens < HELDOUT_NATS_BOUND


def test_measured_numbers_meet_the_bars(metrics):
    for part in ("hh", "all"):
        assert metrics["heldout"][part]["model_bits_per_byte"] < metrics["heldout"][part]["ngram_bits_per_byte"]
    hh = metrics["heldout"]["hh"]
    assert hh["model_bits_per_byte"] < hh["ngram_hh_only_bits_per_byte"]
    for sampling in metrics["words"].values():
        assert sampling["n_samples"] >= 200
        assert sampling["share_in_training_text"] >= 0.95


def test_card_quotes_the_measured_numbers_and_every_training_leg(metrics):
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for part in metrics["heldout"].values():
        assert f"{part['model_bits_per_byte']:.4f} | {part['ngram_bits_per_byte']:.4f}" in card
    for sampling in metrics["words"].values():
        assert f"{sampling['share_in_training_text']:.2%}" in card
    for number, leg in enumerate(metrics["training"]["legs"], start=1):
        assert f"| {number} | {leg['steps']} | {leg['settings']['batch_tokens']} | {leg['tokens']} |" in card
