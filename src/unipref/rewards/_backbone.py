"""What a language model makes of a response: its hidden state where the response has been read to the end."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError
from unipref.core.records import Item, Message, Record
from unipref.data import encode_records
from unipref.data.encode import EncodedRecord
from unipref.engine import Policy, embed_spans, fingerprint, load_model, load_tokenizer

__all__ = ["Backbone"]

RECIPE = 1  # version of everything here that decides a number
_SLICE = 512  # responses that are encoded at a time


@dataclass(frozen=True)
class Backbone:
    """The last hidden state of a causal language model at the last token of prompt and response.

    That is the token that ends the response, as in reward models that were fine-tuned. No padding is there to be read.

    Args:
        model: a hub id, a folder, or "bundled".
        chat: the prompt as one user turn and the response as the assistant's, in the model's chat template; False: the
            texts as they are; None: chat where there is a template. A prompt of several turns has been joined before.
        max_length: tokens of prompt and response; more are cut from the prompt's beginning, then from the response's
            end. None: as many as the model has positions for.
        batch_tokens: tokens in one pass; it changes time and memory alone.
    """

    model: str
    chat: bool | None = None
    max_length: int | None = None
    batch_tokens: int = 4096
    name: str = "backbone"

    @property
    def identity(self) -> dict[str, object]:
        """The weights, the tokenizer, and how texts become tokens."""
        return {
            "embedder": "backbone",
            "recipe": RECIPE,
            "model": _load(self.model)[2],
            "chat": self._chat,
            "tokens": self._limit,
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """ "backbone.0", "backbone.1", ..."""
        size = _load(self.model)[0].config.get_text_config().hidden_size
        return tuple(f"{self.name}.{j}" for j in range(size))

    def of_responses(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n, H) float32.

        Raises:
            DataError: a text cannot be encoded.
        """
        values = [np.zeros((0, len(self.columns)), np.float32)]
        for encoded in self._encoded(prompts, responses):
            tries = [one.trie for one in encoded]
            ends = [[[(len(trie.scored[0]) - 1, len(trie.scored[0]))]] for trie in tries]
            found = embed_spans(_load(self.model)[0], tries, ends, max_tokens=self.batch_tokens)
            values += [items[0] for items in found]
        return np.concatenate(values)

    def cut(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n,) True where prompt and response together are longer than `max_length`."""
        marks = [
            bool(one.n_cut_context[0] or one.n_cut_response[0])
            for encoded in self._encoded(prompts, responses)
            for one in encoded
        ]
        return np.array(marks, dtype=bool)

    @property
    def _chat(self) -> bool:
        tokenizer = _load(self.model)[1]
        if self.chat and not tokenizer.chat_template:
            raise ConfigError(f"backbone: {self.model!r} has no chat template; set chat: false, or take another model")
        return bool(tokenizer.chat_template) if self.chat is None else self.chat

    @property
    def _limit(self) -> int | None:
        positions = getattr(_load(self.model)[0].config.get_text_config(), "max_position_embeddings", None)
        limits = [limit for limit in (self.max_length, positions) if limit]
        return min(limits, default=None)

    def _encoded(self, prompts: Sequence[str], responses: Sequence[str]) -> Iterator[list[EncodedRecord]]:
        tokenizer = _load(self.model)[1]
        items = [self._item(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        for start in range(0, len(items), _SLICE):
            records = [Record(str(start + i), (item,)) for i, item in enumerate(items[start : start + _SLICE])]
            yield encode_records(records, tokenizer, max_length=self._limit, strict=True)[0]

    def _item(self, prompt: str, response: str) -> Item:
        eos = None if response else (_load(self.model)[1].eos_token_id,)  # an empty response is its end alone
        if not self._chat:
            return Item(prompt, response, response_ids=eos)
        return Item((Message("user", prompt),), (Message("assistant", response),), response_ids=eos)


@lru_cache(maxsize=2)
def _load(name: str) -> tuple[Policy, Any, str]:
    """The model, its tokenizer, and what tells the two from others."""
    tokenizer = load_tokenizer(name)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    marks = hashlib.sha256(f"{words}|{tokenizer.chat_template}".encode()).hexdigest()[:32]
    policy = Policy(load_model(name, dtype="float32"))
    return policy, tokenizer, f"{fingerprint(policy)}-{marks}"
