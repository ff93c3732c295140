"""A small byte-level BPE tokenizer."""

import string

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|head|>",
    "<|/head|>",
    "<|eot|>",
    "<|User|>",
    "<|Assistant|>",
]
CORPUS = [
    "The sky is blue. The sky is black. What color is the sky? It is blue, and it is green.\n",
    "assistant\n\nuser\n\nsystem\n\nHello there, how are you today? I am fine, thank you.\n\n\n",
    "Question: what?\nAnswer: nothing at all. \n\n\n\n",
] * 4


@pytest.fixture(scope="session")
def bpe() -> str:
    """The trained tokenizer as JSON. Bytes without special tokens: every string survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


@pytest.fixture
def make_tokenizer(bpe: str):
    """A function (chat template, bos added to texts) -> tokenizer."""

    def make(template: str | None = None, *, bos: str | None = "<s>", add_bos: bool = False, add_eos: bool = False):
        inner = Tokenizer.from_str(bpe)
        if add_bos or add_eos:
            single = ("<s> " if add_bos else "") + "$A" + (" </s>" if add_eos else "")
            ids = [(token, inner.token_to_id(token)) for token in ("<s>", "</s>")]
            inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token="</s>", pad_token="</s>")
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture
def make_spaced():
    """A function (chat template) -> tokenizer in the manner of SentencePiece: a space before every text."""
    pieces = [
        "<unk>",
        *SPECIALS,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *string.printable.strip(),
        "is",
        "▁is",
    ]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    inner = Tokenizer(
        models.BPE(vocabulary, [("i", "s"), ("▁", "is")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    inner.add_special_tokens(SPECIALS)
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )

    def make(template: str | None):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")
        tokenizer.chat_template = template
        return tokenizer

    return make
