"""Facts about `unipref.sampling.stream`: what `generate` draws, shown as it comes, in whole characters."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unipref.core.errors import ConfigError
from unipref.engine import load_tokenizer
from unipref.sampling import generate, printable, stream
from unipref.sampling._stream import _Pieces

MIXED = "Well — 猫は「にゃあ」と鳴く。 naïve café 👩‍👩‍👧 العربية 🇯🇵!"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("bundled")


def random_model(vocabulary, dtype, **more):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=0, eos_token_id=2, pad_token_id=None, **more,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


@pytest.fixture(scope="module", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def model(request, tokenizer):
    return random_model(len(tokenizer), request.param)


def streamed(model, tokenizer, context, **options):
    pieces = []
    sample = stream(model, tokenizer, context, show=pieces.append, **{"max_new_tokens": 24, "seed": 5, **options})
    return sample, pieces


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8}, {"seed": 9}])
def test_streamed_tokens_are_those_that_generate_draws(model, tokenizer, options):
    for prompt in ("<|bos|>Hello", "<|bos|>How do I", "<|bos|>猫"):
        context = tokenizer(prompt)["input_ids"]
        (whole,) = generate(model, tokenizer, [context], max_new_tokens=24, **{"seed": 5, **options})
        assert streamed(model, tokenizer, context, **options)[0] == whole


def test_the_nth_draw_is_what_generate_gives_a_context_that_it_meets_the_nth_time(model, tokenizer):
    context = tokenizer("<|bos|>Again")["input_ids"]
    drawn = generate(model, tokenizer, [context] * 3, max_new_tokens=24, seed=5, batch_tokens=1)
    assert len({sample.ids for sample in drawn}) == 3
    assert [streamed(model, tokenizer, context, nth=n)[0] for n in range(3)] == drawn


def test_a_longer_limit_begins_with_the_shorter_response(model, tokenizer):
    context = tokenizer("<|bos|>Go on")["input_ids"]
    short, long = (streamed(model, tokenizer, context, max_new_tokens=n)[0] for n in (5, 20))
    assert long.ids[:5] == short.ids


def test_pieces_of_random_tokens_join_to_the_decoded_text(model, tokenizer):
    # A random model over byte tokens draws halves of characters that never become whole: nothing of them may be lost.
    for seed in range(8):
        context = tokenizer("<|bos|>x")["input_ids"]
        sample, pieces = streamed(model, tokenizer, context, seed=seed, temperature=3.0, max_new_tokens=40)
        assert "".join(pieces) == sample.text == tokenizer.decode(sample.ids, skip_special_tokens=True)
        assert "" not in pieces


def pieces_of(tokenizer, ids):
    shown = []
    pieces = _Pieces(tokenizer, shown.append)
    pieces.put(torch.tensor([[1, 2, 3]]))  # the context, which is not shown
    for token in ids:
        pieces.put(torch.tensor([token]))
    pieces.end()
    return shown


def test_no_piece_splits_a_character_of_a_byte_level_vocabulary(tokenizer):
    ids = tokenizer(MIXED)["input_ids"]
    assert len(ids) > len(MIXED)  # most of these characters are several tokens
    shown = pieces_of(tokenizer, ids)
    assert "".join(shown) == MIXED
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in shown)
    assert len(shown) > 20  # and it is not all held back to the end


def test_a_replacement_character_that_the_text_really_holds_is_shown(tokenizer):
    text = "a \N{REPLACEMENT CHARACTER} b\N{REPLACEMENT CHARACTER}"
    assert "".join(pieces_of(tokenizer, tokenizer(text)["input_ids"])) == text


@pytest.fixture(scope="module")
def spaced():
    """A vocabulary as SentencePiece makes them: a mark for a space, and bytes for characters that it lacks."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{i:02X}>": 3 + i for i in range(256)}}
    for word in ("▁the", "▁cat", "▁", "s", "猫"):
        vocabulary[word] = len(vocabulary)
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", bos_token="<s>", unk_token="<unk>")


def test_spaces_and_bytes_of_a_sentencepiece_vocabulary_come_out_right(spaced):
    def in_bytes(text):
        return [f"<0x{byte:02X}>" for byte in text.encode()]

    tokens = ["▁the", "▁cat", "s", "▁", *in_bytes("鳴"), *in_bytes("く"), "猫", "▁the", *in_bytes("👍"), "</s>"]
    ids = spaced.convert_tokens_to_ids(tokens)
    shown = pieces_of(spaced, ids)
    assert "".join(shown) == "the cats 鳴く猫 the👍" == spaced.decode(ids, skip_special_tokens=True)
    assert shown[:3] == ["the", " cat", "s"]
    # bytes that are no character decode to a mark each, the whole run of them: it is shown when the run has ended
    broken = spaced.convert_tokens_to_ids(["▁the", *in_bytes("鳴"), "<0xFF>", "▁cat"])
    assert "".join(pieces_of(spaced, broken)) == spaced.decode(broken)


def test_earlier_tokens_are_computed_once(tokenizer):
    model = random_model(len(tokenizer), torch.float32)
    widths = []
    model.register_forward_pre_hook(lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]),
                                    with_kwargs=True)  # fmt: skip
    context = tokenizer("<|bos|>What a long prompt this is, and longer still")["input_ids"]
    sample, _ = streamed(model, tokenizer, context, max_new_tokens=6)
    assert widths == [len(context)] + [1] * (len(sample.ids) - 1)


def test_a_response_that_is_stopped_keeps_what_was_drawn_and_says_that_it_did_not_end(model, tokenizer):
    context = tokenizer("<|bos|>Hello")["input_ids"]
    whole, _ = streamed(model, tokenizer, context)
    asked = []
    sample, pieces = streamed(model, tokenizer, context, stop=lambda: bool(asked.append(1)) or len(asked) == 4)
    assert sample.ids == whole.ids[:4]
    assert not sample.stopped
    assert "".join(pieces) == sample.text


def test_a_piece_is_shown_before_the_next_token_is_drawn(model, tokenizer):
    context = tokenizer("<|bos|>Hello")["input_ids"]
    calls = []
    hook = model.register_forward_pre_hook(lambda *_: calls.append("model"))
    sample = stream(model, tokenizer, context, show=lambda piece: calls.append(piece), max_new_tokens=6,
                    temperature=0.0)  # fmt: skip
    hook.remove()
    texts = [tokenizer.decode([token], skip_special_tokens=True) for token in sample.ids]
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
    assert calls == [call for text in texts for call in ("model", text)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_settings_out_of_range_are_refused_as_generate_refuses_them(model, tokenizer, options, words):
    with pytest.raises(ConfigError, match=words):
        streamed(model, tokenizer, [1, 2], **options)
    with pytest.raises(ConfigError, match="the context has no tokens"):
        streamed(model, tokenizer, [])


def test_what_a_model_writes_cannot_drive_the_terminal():
    hostile = "\x1b]0;title\x07\x1b[2Jdone\r\x08\x7f\x9b31m\u202egnp\n\ttab"
    safe = printable(hostile)
    assert safe.endswith("\n\ttab")
    assert all(char in "\n\t" or char.isprintable() for char in safe)
    assert printable(MIXED) == MIXED
