"""Two responses in one prompt, and which is better as the letter that a language model answers with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Item, Message, Record, Text, plain_text
from unipref.data.encode import CONTINUES

__all__ = ["LETTERS", "PairQuestion"]

LETTERS = ("A", "B")
FACTS = ("domain", "user")
_INSTRUCTION = "Decide which of two responses to the task is better. Answer with its letter alone."


@dataclass(frozen=True)
class PairQuestion:
    """How a pair is put to the model.

    The criterion stands last, next to the answer: where a prompt is cut at its beginning, both it and the second
    response are still there.

    Attributes:
        criterion: words of what counts, the same for every pair; "" for none.
        by: the fact of a row whose own words are the criterion, or that names one of `criteria`: "domain" or "user".
        criteria: value of that fact -> words; every value that the data have needs an entry. None: the value itself.
        instruction: what stands above everything.

    Raises:
        ConfigError: `by` is no such fact, or `criteria` stand without it.
    """

    criterion: str = ""
    by: str | None = None
    criteria: Mapping[str, str] | None = None
    instruction: str = _INSTRUCTION

    def __post_init__(self) -> None:
        if self.by is not None and self.by not in FACTS:
            raise ConfigError(f"a row has no fact {self.by!r} to take a criterion from{nearest(self.by, FACTS)}")
        if self.by is None and self.criteria is not None:
            raise ConfigError("criteria are chosen by a fact of the row; say which: by: domain, or by: user")
        if self.by is not None and self.criterion:
            raise ConfigError(f"one criterion for all, or one by the {self.by} of a row; give one of the two")

    def criterion_of(self, *, domain: str | None, user: str | None) -> str | None:
        """The criterion of a row with these facts; None where it should have one and has none."""
        if self.by is None:
            return self.criterion
        value = {"domain": domain, "user": user}[self.by]
        return value if self.criteria is None or value is None else self.criteria.get(value)

    def text(self, prompt: str, first: str, second: str, criterion: str = "") -> str:
        """The question about `first` as A and `second` as B; it ends where the letter follows."""
        parts = [self.instruction, f"Task:\n{prompt}"]
        parts += [f"Response {letter}:\n{words}" for letter, words in zip(LETTERS, (first, second), strict=True)]
        parts.append(f"{f'Criterion: {criterion}' if criterion else ''}\nBetter response:".strip())
        return "\n\n".join(part for part in parts if part)

    def items(self, question: str, *, turns: bool) -> tuple[Item, ...]:
        """The two answers to `question`, A and B.

        In plain text an answer is the letter and nothing else; a turn of a conversation ends as turns do.
        """
        if turns:
            context: Text = (Message("user", question),)
            return tuple(Item(context, (Message("assistant", letter),)) for letter in LETTERS)
        return tuple(Item(question, f" {letter}", columns={CONTINUES: 1.0}) for letter in LETTERS)

    def both_orders(
        self, name: str, prompt: Text, first: Text, second: Text, criterion: str, *, turns: bool, **facts: Any
    ) -> Record:
        """A record of four items: A and B with `first` as A, then A and B with `second` as A."""
        texts = plain_text(first), plain_text(second)
        items = tuple(
            item
            for one, other in (texts, texts[::-1])
            for item in self.items(self.text(plain_text(prompt), one, other, criterion), turns=turns)
        )
        return Record(name, items, **facts)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `PairQuestion(**...)` gives it back."""
        criteria = None if self.criteria is None else dict(self.criteria)
        return {"criterion": self.criterion, "by": self.by, "criteria": criteria, "instruction": self.instruction}
