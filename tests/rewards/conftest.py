"""Tiny models of random weights, saved with tokenizers of their own, as the scorers would find them on a disk."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

TEXT = "the cat sat on a mat and you are kind or rude so we like dogs user assistant system : hello"
CHAT = "{% for m in messages %}[BOS] {{ m['role'] }} : {{ m['content'] }} [EOS] {% endfor %}"


def tokenizer(*, pad=True, chat=None, pair=False):
    special = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *TEXT.split()])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if pair:
        backend.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
        )
    names = {"unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    names |= {"cls_token": "[CLS]", "sep_token": "[SEP]"} if pair else {}
    names |= {"pad_token": "[PAD]"} if pad else {}
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    made.chat_template = chat
    return made


@pytest.fixture(scope="session")
def save_bert(tmp_path_factory):
    def save(labels, *, problem_type=None, positions=32, seed=0):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=positions, problem_type=problem_type, pad_token_id=0,
            id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
            initializer_range=0.5, hidden_dropout_prob=0.5,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("bert")
        BertForSequenceClassification(config).save_pretrained(folder)
        tokenizer(pair=True).save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def save_llama(tmp_path_factory):
    def save(*, outputs=1, pad=True, chat=CHAT, seed=0):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            intermediate_size=16, max_position_embeddings=64, num_labels=outputs, pad_token_id=0 if pad else None,
            bos_token_id=2, eos_token_id=3, initializer_range=0.5,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("llama")
        LlamaForSequenceClassification(config).save_pretrained(folder)
        tokenizer(pad=pad, chat=chat).save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def toxic(save_bert):
    """Three labels of which several may hold."""
    return save_bert(["toxic", "insult", "threat"], problem_type="multi_label_classification")


@pytest.fixture(scope="session")
def reward(save_llama):
    """One output, a padding token and a chat template."""
    return save_llama()
