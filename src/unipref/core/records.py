"""Records: what people preferred, as text and facts, before any model or tokenizer."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = [
    "ROLES",
    "Comparison",
    "Item",
    "Message",
    "Record",
    "Span",
    "Text",
    "as_turns",
    "as_written",
    "last_user_turn",
    "plain_text",
]

ROLES = ("response", "gold", "base", "rationale", "policy_sample", "baseline_sample", "variant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is "system", "user", "assistant" or "tool"."""

    role: str
    content: str


Text = str | tuple[Message, ...]  # standard format: a string; conversational format: messages


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` up to `end` of a response (as `plain_text` gives it) that belong together: a segment, a step.

    Attributes:
        score: what a judge says of it; NaN where nobody did.
    """

    start: int
    end: int
    score: float = math.nan


@dataclass(frozen=True, slots=True)
class Item:
    """A context, a response to it, and what is known of the response alone.

    Items of one record may have different contexts. Either both texts are strings or both are messages; a
    conversational response is one or more messages that follow the context.

    Attributes:
        label: thumbs up (True) or down (False); None where nobody said. Sides of a comparison carry no label.
        rank: 1 is best; None where the item is not ranked.
        columns: numbers known of this response by name ("reward", a rating per dimension, ...). A missing value is
            absent or NaN, never zero.
        response_ids: the response as token ids, where it was sampled; used as they are, never tokenised again.
        role: one of ROLES. Only a "response" is a side of a comparison, a member of a list or labelled; a further text
            of the record has another role: the gold answer, the reference model's own ("base"), a rationale, samples of
            the policy or of what it is compared with, a degraded variant.
        score_context: the context's tokens count in the log-probability too, all but the first.
        spans: parts of the response in order, without overlap.
    """

    context: Text
    response: Text
    label: bool | None = None
    rank: int | None = None
    columns: Mapping[str, float] = field(default_factory=dict)
    response_ids: tuple[int, ...] | None = None
    role: str = "response"
    score_context: bool = False
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """`winner` was preferred to `loser` (indices into the record's items).

    Attributes:
        preference: P(winner is preferred to loser), in [0, 1]; 1 for a hard label, 0.5 for a tie.
        margin: how much better the winner is, in the data's own units; None where unknown.
        annotator: who judged; votes of several people are several comparisons or one with their share.
    """

    winner: int
    loser: int
    preference: float = 1.0
    margin: float | None = None
    annotator: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Items that belong together (one prompt's responses, as a rule) and what is known about them.

    Attributes:
        id: unique in its data set; made from source and line where the data has none.
        weight: example weight; weight 2 means the row stands twice.
        conversation: the key that decides the row's side of a split (`unipref.data.conversation_key`).
    """

    id: str
    items: tuple[Item, ...]
    comparisons: tuple[Comparison, ...] = ()
    weight: float = 1.0
    domain: str | None = None
    user: str | None = None
    source: str | None = None
    line: int | None = None
    conversation: str = ""


def plain_text(text: Text) -> str:
    """`text` as one string: a string as it is, messages as their contents joined by blank lines.

    For scorers that read a response; never for training, where the chat template decides.
    """
    return text if isinstance(text, str) else "\n\n".join(message.content for message in text)


def as_turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    """`messages` as chat templates and data files have them: {"role", "content"} each."""
    return [{"role": message.role, "content": message.content} for message in messages]


def as_written(text: Text) -> str | list[dict[str, str]]:
    """`text` as a data file has it: a string as it is, messages as `as_turns`."""
    return text if isinstance(text, str) else as_turns(text)


def last_user_turn(text: Text) -> str:
    """What the response answers: the last user message, or the whole string of a standard prompt."""
    if isinstance(text, str):
        return text
    return next((message.content for message in reversed(text) if message.role == "user"), "")
