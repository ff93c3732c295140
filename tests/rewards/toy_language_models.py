"""Language models of known tables, saved as the scorers find them on a disk.

With `attention` 0 the next word hangs on the last one alone, and the logits are the table's column of that word. Above
it, every word so far counts: a uniform mean of them all is added, so that what was said earlier shifts what comes next.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "user", "assistant", "system", ":")
CHAT = "{% for m in messages %}[BOS] {{ m['role'] }} : {{ m['content'] }} [EOS] {% endfor %}"
CHAT += "{% if add_generation_prompt %}[BOS] assistant : {% endif %}"
EMBEDDED = 10.0  # far above the norm's epsilon, so that the table comes back to 1e-6


def save_toy(
    folder: Path,
    words: Sequence[str],
    table: np.ndarray,
    *,
    attention: float = 0.0,
    chat: str | None = None,
    letters: bool = False,
    longest: int = 128,
) -> str:
    """The folder of a model over SPECIAL and `words`.

    Args:
        table: (V, V), V = len(SPECIAL) + len(words): the logit of the row's word after the column's.
        letters: the tokens are single letters, of which `words` holds those there are.
    """
    names = [*SPECIAL, *words]
    size = len(names)
    assert table.shape == (size, size)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size + size % 2,
        intermediate_size=2,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=size + size % 2,
        max_position_embeddings=longest,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        rms_norm_eps=1e-12,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).float()
    width = config.hidden_size
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        layer = model.model.layers[0]
        for norm in (layer.input_layernorm, layer.post_attention_layernorm, model.model.norm):
            norm.weight.fill_(1.0)
        model.model.embed_tokens.weight.copy_(EMBEDDED * torch.eye(size, width))
        layer.self_attn.v_proj.weight.copy_(torch.eye(width))
        layer.self_attn.o_proj.weight.copy_(attention * torch.eye(width))
        # the norm brings a word's vector to the length sqrt(width)
        model.lm_head.weight[:, :size] = torch.tensor(np.asarray(table) / np.sqrt(width), dtype=torch.float32)
    model.save_pretrained(folder)
    vocabulary = {name: i for i, name in enumerate(names)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    split = pre_tokenizers.Split(Regex(r"\S"), "isolated") if letters else pre_tokenizers.WhitespaceSplit()
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.WhitespaceSplit()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=longest,
    )
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(folder)
    return str(folder)


def log_softmax(table: np.ndarray) -> np.ndarray:
    """Columns as log-probabilities."""
    shifted = table - table.max(axis=0)
    return shifted - np.log(np.exp(shifted).sum(axis=0))
