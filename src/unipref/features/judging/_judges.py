"""The three back ends: a language model, a table of what was judged before, and rules."""

import csv
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.features.concepts import Concept
from unipref.features.judging import wording
from unipref.features.judging._account import Account
from unipref.features.judging._cache import answer_key
from unipref.features.judging._port import rubric_of, settled
from unipref.features.rules import rule_columns, rule_of

__all__ = ["LanguageJudge", "RuleJudge", "TableJudge"]

_VERDICTS = {"A": 1, "B": -1, "SAME": 0, "TIE": 0, "EQUAL": 0, "NEITHER": 0, "BOTH": 0}
_YES_NO = {"YES": True, "NO": False}


class Chat(Protocol):
    """What a language judge asks: `unipref.features.judging.Endpoint`, or anything that answers like it."""

    model: str
    workers: int
    account: Account
    stopping: threading.Event

    def answer(self, messages: Sequence[Mapping[str, str]]) -> str | None: ...


@dataclass(frozen=True, eq=False)
class LanguageJudge:
    """A chat model asked in the words of `unipref.features.judging.wording`.

    An answer that cannot be read is asked for once more, with what was wrong; what still cannot be read is None, and
    counted as "unreadable".

    Attributes:
        scale: the lowest and the highest score; 0 means that a property does not apply.
    """

    chat: Chat
    scale: tuple[int, int] = (1, 7)

    def __post_init__(self) -> None:
        if not 1 <= self.scale[0] < self.scale[1]:
            raise ConfigError(f"a judge's scale goes from 1 or more to more than that, not {self.scale}")

    @property
    def name(self) -> str:
        """The model's name."""
        return self.chat.model

    @property
    def workers(self) -> int:
        """As many as the endpoint allows."""
        return self.chat.workers

    @property
    def account(self) -> Account:
        """That of the endpoint."""
        return self.chat.account

    @property
    def stopping(self) -> threading.Event:
        """That of the endpoint."""
        return self.chat.stopping

    def score(self, prompt: str, response: str, rubric: Concept | str) -> int | None:
        """From scale[0] to scale[1]; 0: it does not apply."""
        return self.score_on(prompt, response, [rubric_of(rubric)])[0]

    def compare(self, prompt: str, a: str, b: str, rubric: Concept | str) -> int | None:
        """The verdict of both orders."""
        return self.compare_on(prompt, a, b, [rubric_of(rubric)])[0]

    def generate(self, prompt: str) -> str | None:
        """The answer without a model's thoughts; None if there is none, or nothing but thoughts."""
        answer = self.chat.answer([{"role": "user", "content": prompt}])
        if answer is None:
            return None
        text = wording.plain(answer)
        if not text:
            self.account.miss("empty answer")
        return text or None

    def score_on(self, prompt: str, response: str, concepts: Sequence[Concept]) -> list[int | None]:
        """One request for every 20 concepts."""

        def read(text: str) -> int | None:
            number = text.removesuffix(f"/{self.scale[1]}").strip()
            value = int(number) if number.isdecimal() else -1  # "100" on a scale to 7 is nonsense, not a 10
            return value if value == 0 or self.scale[0] <= value <= self.scale[1] else None

        return [
            value
            for some in _batches(concepts)
            for value in self._ask(wording.score(prompt, response, some, self.scale), len(some), read)
        ]

    def compare_on(self, prompt: str, a: str, b: str, concepts: Sequence[Concept]) -> list[int | None]:
        """Two requests for every 20 concepts, one for each order; of equal texts neither has more of anything."""
        if a == b:
            return [0] * len(concepts)
        found: list[int | None] = []
        for some in _batches(concepts):
            there, back = (
                self._ask(wording.compare(prompt, *order, some), len(some), _verdict) for order in ((a, b), (b, a))
            )
            found += [settled(x, y, self.account, prompt) for x, y in zip(there, back, strict=True)]
        return found

    def relevant(self, prompt: str, concepts: Sequence[Concept]) -> list[bool | None]:
        """One request for every 20 concepts."""
        return [
            value
            for some in _batches(concepts)
            for value in self._ask(wording.relevance(prompt, some), len(some), _yes_no)
        ]

    def _ask(self, question: str, n: int, read: Any) -> list[Any]:
        messages = [{"role": "user", "content": question}]
        answer = self.chat.answer(messages)
        if answer is None:  # the endpoint has counted why
            return [None] * n
        values, fault = wording.read_numbered(answer, n, read)
        if not fault:
            return values
        # an empty turn is refused by some servers
        messages += [{"role": "assistant", "content": answer.strip() or "-"}]
        messages += [{"role": "user", "content": wording.again(fault)}]
        second = self.chat.answer(messages)
        if second is not None:
            repeated, fault = wording.read_numbered(second, n, read)
            # an answer to what was missing alone is enough
            values = [new if new is not None else old for old, new in zip(values, repeated, strict=True)]
        if None in values:
            self.account.miss("unreadable", example=second or answer)
        return values


def _batches(concepts: Sequence[Concept]) -> list[Sequence[Concept]]:
    size = wording.CONCEPTS_PER_CALL
    return [concepts[i : i + size] for i in range(0, len(concepts), size)]


def _verdict(text: str) -> int | None:
    words = [word.strip(".,;:()*_`\"'") for word in text.split()]
    if words and words[0].casefold() == "response":
        words = words[1:]
    named = {word for word in words[1:] if word in _VERDICTS}
    # "A and B are close", "B, other than A": a reader cannot know which is meant
    return None if not words or named - {words[0].upper()} else _VERDICTS.get(words[0].upper())


def _yes_no(text: str) -> bool | None:
    words = text.upper().strip(" .*_`\"'").split()
    return _YES_NO.get(words[0].strip(".,;:()")) if words else None


@dataclass(frozen=True, eq=False)
class TableJudge:
    """Verdicts and scores that were given before, found by the texts and the concept's key.

    A comparison stands in one order or in both: of one, the other is its mirror image; of both, the swap protocol makes
    one verdict. What the table does not hold is None, and counted as "not in the table". For answers of an endpoint
    that were kept, give `Endpoint` its cache and a budget of 0 requests instead.
    """

    rows: Mapping[str, int]
    name: str = "table"
    workers: int = 1
    account: Account = field(default_factory=Account, repr=False)
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)

    @classmethod
    def from_csv(cls, path: Path | str, *, name: str = "") -> "TableJudge":
        """A table of the columns `prompt, response, concept, score` or `prompt, first, second, concept, verdict`.

        `verdict` is 1 where the first has more of the concept, -1 where the second has, and 0. An empty score or
        verdict is one that nobody gave.

        Raises:
            DataError: the file cannot be read as one of the two; a row is broken or contradicts another. With its line.
        """
        path = Path(path)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                columns = set(reader.fieldnames or ())
                rows = [(reader.line_num, row) for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as err:
            raise DataError(f"{path} cannot be read as a table of judgements: {err}") from err
        scores, verdicts = {"response", "score"} <= columns, {"first", "second", "verdict"} <= columns
        if scores == verdicts or not {"prompt", "concept"} <= columns:
            raise DataError(
                f"{path} has the columns {', '.join(sorted(columns)) or 'none'}; a table of judgements has prompt, "
                "response, concept, score or prompt, first, second, concept, verdict"
            )
        given, texts = ("score", ("response",)) if scores else ("verdict", ("first", "second"))
        found: dict[str, int] = {}
        for line, row in rows:
            if None in row or None in row.values():
                raise DataError(f"{path}, line {line}: the row has not as many cells as the heading; mend it")
            if not row[given].strip():
                continue
            try:
                value = int(row[given])
            except ValueError:
                raise DataError(f"{path}, line {line}: the {given} is a whole number, got {row[given]!r}") from None
            if verdicts and value not in (-1, 0, 1):
                raise DataError(f"{path}, line {line}: a verdict is 1, 0 or -1, got {value}")
            key = _table_key(given, row["prompt"], *(row[name] for name in texts), row["concept"])
            if found.setdefault(key, value) != value:
                raise DataError(
                    f"{path}, line {line}: another line has the {given} {found[key]} for the same; keep one"
                )
        return cls(found, name or path.stem)

    def score(self, prompt: str, response: str, rubric: Concept | str) -> int | None:
        """As the table has it."""
        return self._found("score", prompt, response, rubric_of(rubric).key)

    def compare(self, prompt: str, a: str, b: str, rubric: Concept | str) -> int | None:
        """As the table has it, in either order."""
        key = rubric_of(rubric).key
        there = self.rows.get(_table_key("verdict", prompt, a, b, key))
        back = self.rows.get(_table_key("verdict", prompt, b, a, key))
        if there is None and back is None:
            return self._found("verdict", prompt, a, b, key)
        self.account.add(cached=1)
        if there is None or back is None:
            return there if there is not None else -back  # type: ignore[operator]
        return settled(there, back, self.account, prompt)

    def generate(self, prompt: str) -> str | None:
        """A table holds no text.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a table of judgements cannot write; give an endpoint for what needs new text")

    def score_on(self, prompt: str, response: str, concepts: Sequence[Concept]) -> list[int | None]:
        """`score` of each."""
        return [self.score(prompt, response, concept) for concept in concepts]

    def compare_on(self, prompt: str, a: str, b: str, concepts: Sequence[Concept]) -> list[int | None]:
        """`compare` of each."""
        return [self.compare(prompt, a, b, concept) for concept in concepts]

    def relevant(self, prompt: str, concepts: Sequence[Concept]) -> list[bool | None]:
        """All: what did not matter has a 0 in the table."""
        return [True] * len(concepts)

    def _found(self, *parts: str) -> int | None:
        value = self.rows.get(_table_key(*parts))
        if value is None:
            self.account.miss("not in the table")
        else:
            self.account.add(cached=1)
        return value


def _table_key(*parts: str) -> str:
    return answer_key({"parts": parts})


@dataclass(frozen=True, eq=False)
class RuleJudge:
    """Rules in place of a model: deterministic, free, and only for concepts that name a rule (`Concept.rule`).

    For values of many pairs use `unipref.features.rules.rule_values`, which keeps the numbers; a judge's answers are
    whole. The scores are chosen by us: a share p is 1 + 6p, a count n is 1 + log2(1 + n), both rounded and at most 7.
    """

    name: str = "rules"
    workers: int = 1
    account: Account = field(default_factory=Account, repr=False)
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)

    def score(self, prompt: str, response: str, rubric: Concept | str) -> int | None:
        """From 1 to 7; None where the rule has nothing to stand on."""
        return self.score_on(prompt, response, [rubric_of(rubric)])[0]

    def compare(self, prompt: str, a: str, b: str, rubric: Concept | str) -> int | None:
        """Which of the two has more by the rule."""
        return self.compare_on(prompt, a, b, [rubric_of(rubric)])[0]

    def generate(self, prompt: str) -> str | None:
        """Rules write nothing.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("rules cannot write; give an endpoint for what needs new text")

    def score_on(self, prompt: str, response: str, concepts: Sequence[Concept]) -> list[int | None]:
        """`score` of each."""
        values, _, shares = rule_columns(_with_rules(concepts, "length_label", "fluency"), [prompt], [response], [""])
        found: list[int | None] = []
        for value, share in zip(values[0].tolist(), shares, strict=True):
            # a count n comes as log(1 + n)
            scaled = 1 + 6 * value if share else 1 + value / math.log(2)
            found.append(None if math.isnan(scaled) else min(7, max(1, math.floor(scaled + 0.5))))
        self.account.add(answered=len(found))
        return found

    def compare_on(self, prompt: str, a: str, b: str, concepts: Sequence[Concept]) -> list[int | None]:
        """`compare` of each."""
        first, second, _ = rule_columns(_with_rules(concepts, "fluency"), [prompt], [a], [b])
        signs = np.sign(first[0] - second[0]).tolist()
        self.account.add(answered=len(signs))
        return [None if math.isnan(sign) else int(sign) for sign in signs]

    def relevant(self, prompt: str, concepts: Sequence[Concept]) -> list[bool | None]:
        """All."""
        return [True] * len(concepts)


def _with_rules(concepts: Sequence[Concept], *more: str) -> Sequence[Concept]:
    """`concepts`, each with a rule that is none of `more`, which need more texts than there are."""
    for concept in concepts:
        rule = rule_of(concept)
        if rule is None:
            raise ConfigError(f"{concept.key} names no rule, and rules cannot judge it; give an endpoint or a table")
        if rule.name in more:
            raise ConfigError(f"{concept.key} is counted by {rule.name}, which needs other texts, too; use rule_values")
    return concepts
