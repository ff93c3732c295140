"""A model of a few thousand weights, saved as users save theirs."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.engine import load_tokenizer


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A random Llama with the bundled tokenizer, as a saved model."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = load_tokenizer("bundled")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
