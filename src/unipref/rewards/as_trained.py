"""A fine-tuned reward model as it lies in a folder: how its texts become tokens, as they did when it was trained."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Item, Message, Record, Text, plain_text
from unipref.data import encode_records
from unipref.data.pair_questions import PairQuestion

__all__ = ["BACKBONE", "FORMAT", "JUDGE_FORMAT", "AsTrained", "read_backbone", "read_question", "texts_of"]

BACKBONE = "reward.json"
FORMAT = "unipref-reward-backbone-1"
JUDGE_FORMAT = "unipref-pair-judge-1"


@dataclass(frozen=True)
class AsTrained:
    """How a reward model that was trained here reads a response to a context.

    Attributes:
        max_length: most tokens of both together; of a longer context the beginning is cut.
        texts: what it was trained on: "text" (prompt and response as they are, and EOS), "turns" (conversations, in the
            tokenizer's chat template), or "both".
    """

    max_length: int
    texts: str

    def encode(
        self, tokenizer: Any, contexts: Sequence[Text], responses: Sequence[Text], longest: int
    ) -> list[list[int] | None]:
        """Token ids of each; None where the text cannot be encoded (a chat template that refuses the conversation).

        A text for a model that knows conversations is a user's turn; a conversation for a model that knows only text is
        its messages, joined by blank lines.

        Args:
            longest: tokens that the model has positions for.
        """
        limit = min(longest, self.max_length)
        records = [
            Record(str(i), (Item(self._given(context, "user"), self._given(response, "assistant")),))
            for i, (context, response) in enumerate(zip(contexts, responses, strict=True))
        ]
        found: list[list[int] | None] = [None] * len(records)
        try:
            encoded, _ = encode_records(records, tokenizer, max_length=limit)
        except DataError:  # none of them can be
            return found
        for each in encoded:
            trie = each.trie
            found[int(each.record.id)] = trie.token[trie.path(0)].tolist()
        return found

    def _given(self, text: Text, role: str) -> Text:
        if self.texts == "turns" and isinstance(text, str):
            return (Message(role, text),)
        if self.texts == "text" and not isinstance(text, str):
            return plain_text(text)
        return text


def texts_of(records: Iterable[Record]) -> str:
    """What `records` are made of: "text", "turns" or "both"."""
    plain = {isinstance(item.context, str) for record in records for item in record.items}
    return {(True,): "text", (False,): "turns"}.get(tuple(plain), "both")


def read_backbone(folder: Path | str) -> AsTrained | None:
    """How the reward model in `folder` reads texts; None where it was not trained here.

    Raises:
        ConfigError: the file is of another version, or of a judge of pairs.
    """
    told = _told(folder, FORMAT)
    return None if told is None else AsTrained(told["max_length"], told["texts"])


def read_question(folder: Path | str) -> PairQuestion | None:
    """What the judge of pairs in `folder` was trained to be asked; None where it was not trained here.

    Raises:
        ConfigError: the file is of another version, or of a model that is no judge of pairs.
    """
    told = _told(folder, JUDGE_FORMAT)
    return None if told is None else PairQuestion(**told["question"])


def _told(folder: Path | str, expected: str) -> dict[str, Any] | None:
    path = Path(folder).expanduser() / BACKBONE
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        found = told["format"]
    except (ValueError, KeyError, TypeError) as err:
        raise ConfigError(f"{path} does not say what the model is ({err}); train the model again") from err
    if found != expected:
        kinds = {FORMAT: "a fine-tuned reward model (scorer: reward_model)", JUDGE_FORMAT: "a judge of pairs"}
        what = kinds.get(found, f"of the format {found!r}")
        raise ConfigError(f"{path} says that the model is {what}; {kinds[expected]} was expected")
    return told
