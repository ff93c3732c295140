"""Log-probabilities that a scorer reads from a language model: through the one engine, each text by itself."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Item, Message, Record, Text, as_turns, plain_text
from unipref.core.tries import Trie, build_trie
from unipref.data.encode import EncodedRecord, encode_records
from unipref.rewards.scorers._common import check_flag
from unipref.rewards.scorers._models import DTYPES, tokenizer_digest

__all__ = ["LanguageModel", "as_plain", "check_language_model", "load_language_model", "turns"]


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model and its tokenizer.

    Attributes:
        identity: changes with the weights, their precision, the configuration, the tokenizer or its chat template.
        longest: tokens of the longest text that is read; a longer one is not cut and gets no value.
        budget: tokens of one forward pass.
    """

    policy: Any
    tokenizer: Any
    identity: str
    longest: int
    budget: int

    @property
    def chats(self) -> bool:
        """Whether it reads conversations in a chat template."""
        return bool(self.tokenizer.chat_template)

    def token_logp(self, items: Sequence[Item]) -> list[tuple[np.ndarray, np.ndarray] | None]:
        """Per item (token ids of the response, their log-probabilities in nats), special tokens left out.

        None where the item is longer than the model reads, is empty, or the chat template cannot render it. Items with
        one context share its tokens.

        Raises:
            DataError: not one item can be encoded; the message says why.
        """
        from unipref.engine import score

        places, tries = [], []
        for place, encoded in self._encoded(items):
            trie = encoded.trie
            readable = [k for k in range(trie.n_items) if trie.depth[trie.last[k]] < self.longest]
            if len(readable) == trie.n_items and trie.n_nodes <= self.budget:
                parts = [(readable, trie)]
            else:
                parts = self._parts(encoded, readable)
            places += [[place[k] for k in some] for some, _ in parts]
            tries += [part for _, part in parts]
        found: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(items)
        special = [i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special]
        special += self.tokenizer.all_special_ids
        for place, trie, values in zip(places, tries, score(self.policy, tries, max_tokens=self.budget), strict=True):
            for i, nodes, logp in zip(place, trie.scored, values, strict=True):
                ids = trie.token[nodes]
                plain = ~np.isin(ids, special)
                if plain.any():
                    found[i] = ids[plain], logp[plain].astype(np.float64)
        return found

    def _encoded(self, items: Sequence[Item]) -> list[tuple[list[int], EncodedRecord]]:
        """(numbers of items with one context, their tokens), without items that cannot be encoded."""
        groups: dict[Text, list[int]] = defaultdict(list)
        for i, item in enumerate(items):
            groups[item.context].append(i)
        together = list(groups.values())
        try:
            found = self._tries(items, together)
        except DataError:
            found = []
        there = {place[0] for place, _ in found}
        # a record is set aside whole, so that the items of such a one are tried one by one
        again = [[i] for place in together if place[0] not in there for i in place]
        return [*found, *self._tries(items, again)] if again else found

    def _tries(self, items: Sequence[Item], groups: Sequence[list[int]]) -> list[tuple[list[int], EncodedRecord]]:
        records = [Record(str(k), tuple(items[i] for i in place)) for k, place in enumerate(groups)]
        return [(groups[int(one.record.id)], one) for one in encode_records(records, self.tokenizer)[0]]

    def _parts(self, encoded: EncodedRecord, readable: Sequence[int]) -> list[tuple[list[int], Trie]]:
        """The items `readable` in several tries of at most `budget` nodes, one item where it alone is larger."""
        parts: list[list[int]] = []
        used = 0
        for k in readable:
            context, response = encoded.ids(k)
            if not parts or used + len(response) > self.budget:
                parts.append([])
                used = len(context)
            parts[-1].append(k)
            used += len(response)
        return [(some, build_trie([encoded.ids(k) for k in some])) for some in parts]

    def rendered(self, messages: Sequence[Message]) -> str | None:
        """The conversation as the chat template writes it; None where the template refuses it."""
        try:
            return self.tokenizer.apply_chat_template(as_turns(messages), tokenize=False)
        except (jinja2.TemplateError, TypeError, IndexError):
            return None


def turns(text: Text, role: str) -> tuple[Message, ...]:
    """`text` as messages; a string is one turn of `role`."""
    return (Message(role, text),) if isinstance(text, str) else text


def as_plain(text: Text) -> str:
    """A context as the beginning of a plain text: a string as it is, messages with an empty line behind them."""
    return text if isinstance(text, str) else plain_text(text) + "\n\n"


def load_language_model(
    scorer: str, name: str, *, dtype: str, max_length: int | None, budget: int, trust_remote_code: bool
) -> LanguageModel:
    """The causal language model `name` (hub id, folder or "bundled"), on the GPU where there is one.

    Args:
        dtype: "auto" is float32 on a CPU, where rounding to bfloat16 would cost accuracy and save nothing, and the
            checkpoint's own precision on a GPU.

    Raises:
        ConfigError: nothing is there, or it is no causal language model.
    """
    import torch

    from unipref.engine import Policy, fingerprint, load_model, load_tokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = "float32" if dtype == "auto" and device == "cpu" else dtype
    try:
        tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
        model = load_model(name, dtype=wanted, trust_remote_code=trust_remote_code, device=device)
    except ConfigError as err:
        raise ConfigError(f"{scorer}: {err}") from err
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = (max_length, tokenizer.model_max_length, positions)
    longest = int(min(limit for limit in limits if limit is not None and limit > 0))
    identity = f"{fingerprint(model)}-{tokenizer_digest(tokenizer)}"
    return LanguageModel(Policy(model).eval(), tokenizer, identity, longest, budget)


def check_language_model(
    scorer: str, option: str, name: object, *, dtype: object, max_length: object, budget: object, trust: object
) -> None:
    """Refuse what no language model could be loaded or run with; `option` is what the scorer calls the model's name."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{scorer}: {option} is a hub id, a folder or 'bundled', not {name!r}")
    folder = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not any(
        (folder / file).is_file() for file in ("config.json", "adapter_config.json")
    ):
        raise ConfigError(
            f"{scorer}: {option}: there is no model at {name}; give a folder with config.json or a hub id"
        )
    if dtype not in DTYPES:
        raise ConfigError(f"{scorer}: no dtype named {dtype!r}{nearest(str(dtype), DTYPES)}")
    for what, number, least in (("max_length", max_length, 8), ("max_tokens_per_forward", budget, 1)):
        if what == "max_length" and number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ConfigError(f"{scorer}: {what} is a number of tokens from {least}, not {number!r}")
    check_flag(scorer, "trust_remote_code", trust)
