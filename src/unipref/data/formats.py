"""What the columns of a row mean: one function per data format, from fields to items and comparisons."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Comparison, Item, Message, Span, Text, plain_text
from unipref.data.prompts import parse_transcript, rationale_question, split_last_turn, split_text
from unipref.data.report import RowFault
from unipref.data.segments import as_spans, sentences
from unipref.data.trees import node_items

__all__ = ["FORMATS", "Columns", "Format", "Parsed", "choose_format"]

ROLES = ("system", "user", "assistant", "tool")
_SIDE = re.compile(r"(?:(?P<side>chosen|rejected)_(?P<name>.+)|(?P<name2>.+)_(?P<side2>chosen|rejected))")
_CARRIERS = ("tool_calls", "function_call", "reasoning_content", "thinking", "images", "audio")
_TWO_PROMPTS = ("prompt_chosen", "response_chosen", "prompt_rejected", "response_rejected")
_RATINGS = {"scores": "score", "ratings": "rating", "rewards": "reward"}  # column of a list -> column of its items
_FURTHER = {  # column -> role of the item that it becomes; of two columns with one role the first is read
    "gold": "gold",
    "reference": "gold",
    "base_response": "base",
    "rationale": "rationale",
    "policy_sample": "policy_sample",
    "baseline_sample": "baseline_sample",
}
_SEGMENTS = frozenset(f"{side}_segment{end}" for side in ("chosen", "rejected") for end in ("s", "_scores"))
_NOT_FACTS = {"idx", "index", "line", "row", "prompt_id", "weight", "prompt", "completion", "messages", "label", "text"}


@dataclass(frozen=True)
class Columns:
    """The columns of one source.

    Attributes:
        names: every column that has a value in some row.
        numeric: columns whose values are numbers, in most rows at least.
        lists: columns whose values are lists of numbers, in most rows at least.
        typed: False where all values arrive as text.
    """

    names: frozenset[str]
    numeric: frozenset[str]
    lists: frozenset[str]
    typed: bool

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], *, typed: bool, names_only: Iterable[str] = ()) -> "Columns":
        """The columns of `rows`; those in `names_only` are names (of a domain, a user) even where they are digits."""
        total: dict[str, int] = {}
        numbers: dict[str, int] = {}
        lists: dict[str, int] = {}
        for row in rows:
            for name, value in row.items():
                if value is None or (not typed and value == ""):
                    continue
                total[name] = total.get(name, 0) + 1
                value = value if typed else _untyped(value)
                if _is_number(value):
                    numbers[name] = numbers.get(name, 0) + 1
                elif isinstance(value, list) and value and all(_is_number(part) or part is None for part in value):
                    lists[name] = lists.get(name, 0) + 1
        names = {str(name) for row in rows for name in row} if not typed else set(total)
        return cls(
            frozenset(names),
            frozenset(name for name, count in numbers.items() if 2 * count > total[name]) - set(names_only),
            frozenset(name for name, count in lists.items() if 2 * count > total[name]),
            typed,
        )


@dataclass
class Parsed:
    """What one row says: its items, their comparisons, and what was changed on the way."""

    items: list[Item]
    comparisons: list[Comparison] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """One data format.

    Attributes:
        needs: columns it must have; a tuple inside means one of these.
        excludes: columns that belong to another format; with one of them present the columns are not recognised.
        reads: further columns it understands, for the note on unused columns.
        facts: the columns of a source whose numbers become columns of items.
        parse: row and columns to `Parsed`; raises RowFault.
    """

    name: str
    title: str
    needs: tuple[str | tuple[str, ...], ...]
    excludes: frozenset[str]
    reads: frozenset[str]
    facts: Callable[[Columns], frozenset[str]]
    parse: Callable[[Mapping[str, Any], Columns], Parsed]

    def missing(self, names: Iterable[str]) -> list[str]:
        """Needed columns that are not among `names`."""
        names = set(names)
        return [
            need if isinstance(need, str) else " or ".join(need)
            for need in self.needs
            if (need not in names if isinstance(need, str) else not names & set(need))
        ]

    def used(self, columns: Columns) -> set[str]:
        """Columns of the source that this format makes something of."""
        needed = {name for need in self.needs for name in ((need,) if isinstance(need, str) else need)}
        unread = set(_FURTHER) - set(_further_columns(columns))
        return (needed | self.reads - unread | self.facts(columns)) & columns.names

    def __str__(self) -> str:
        needs = ", ".join(need if isinstance(need, str) else "/".join(need) for need in self.needs)
        return f"{self.name} ({needs})"


def choose_format(name: str, columns: Columns, rows: Sequence[Mapping[str, Any]], source: str) -> Format:
    """The format called `name`, or for "auto" the one that the columns of `source` fit.

    Raises:
        ConfigError: there is no such format.
        DataError: the named format lacks a column, or the columns fit no format.
    """
    found = ", ".join(sorted(columns.names))
    if name != "auto":
        if name not in FORMATS:
            raise ConfigError(f"no data format named {name!r}{nearest(name, ['auto', *FORMATS])}")
        chosen = FORMATS[name]
        if missing := chosen.missing(columns.names):
            raise DataError(
                f"{source}: the format {name!r} needs the column {missing[0]!r}; found: {found}. "
                "Rename the column, or leave the format at auto"
            )
        return chosen
    for candidate in FORMATS.values():
        if candidate.name != "hh" and not candidate.missing(columns.names) and not candidate.excludes & columns.names:
            if candidate.name == "preference" and "prompt" not in columns.names and _are_transcripts(rows):
                return FORMATS["hh"]
            return candidate
    known = "".join(f"\n  {candidate}: {candidate.title}" for candidate in FORMATS.values())
    near = [
        f for f in FORMATS.values() if not f.excludes & columns.names and len(f.missing(columns.names)) < len(f.needs)
    ]
    hint = ""
    if near:
        best = min(near, key=lambda f: (len(f.missing(columns.names)), -len(f.needs)))
        hint = f" Nearest: {best.name}, which lacks {', '.join(best.missing(columns.names))}."
    raise DataError(f"{source}: the columns fit no known format. Found: {found}.{hint} Known formats:{known}")


def _are_transcripts(rows: Sequence[Mapping[str, Any]]) -> bool:
    texts = [row["chosen"] for row in rows[:100] if isinstance(row.get("chosen"), str)]
    speaking = [
        text
        for text in texts
        if text.startswith(("\n\nHuman:", "Human:", "\n\nAssistant:")) and "\n\nAssistant:" in text
    ]
    return 2 * len(speaking) > len(texts)


# ------------------------------------------------------------------------------------------------------ single values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _untyped(value: Any) -> Any:
    """A CSV cell as the JSON value or number that it spells; itself where it spells none."""
    if not isinstance(value, str):
        return value
    try:
        return float(value) if not value.lstrip().startswith(("[", "{")) else json.loads(value)
    except ValueError:
        return value


def _side_facts(columns: Columns) -> frozenset[str]:
    sides = frozenset(name for name in columns.numeric if _SIDE.fullmatch(name) and not name.startswith("votes_"))
    return sides - set(_TWO_PROMPTS)


def _row_facts(columns: Columns) -> frozenset[str]:
    return columns.numeric - _NOT_FACTS


def _list_facts(columns: Columns) -> frozenset[str]:
    return columns.lists - {"ranks", "responses"}


def _no_facts(columns: Columns) -> frozenset[str]:
    return frozenset()


def _required(row: Mapping[str, Any], name: str) -> Any:
    value = row.get(name)
    if value is None:
        raise RowFault(f"missing field {name!r}")
    return value


def number(row: Mapping[str, Any], name: str, columns: Columns) -> float | None:
    """The finite number in field `name`; None where the field is absent or empty.

    Raises:
        RowFault: it holds something else, or not-a-number.
    """
    value = row.get(name)
    if value is None or (not columns.typed and value == ""):
        return None
    return _finite(value if columns.typed else _untyped(value), name)


def _finite(value: Any, name: str) -> float:
    if not _is_number(value):
        raise RowFault(f"field {name!r} is not a number", f"it is {_kind(value)}")
    if not math.isfinite(value):
        raise RowFault(f"field {name!r} is NaN or infinite")
    return float(value)


def _kind(value: Any) -> str:
    return {str: "text", bool: "true/false", list: "a list", dict: "an object"}.get(type(value), type(value).__name__)


def _valid(text: str, name: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise RowFault(f"field {name!r} holds half a surrogate pair, which is no character") from None
    return text


def text_or_messages(value: Any, name: str, columns: Columns) -> Text:
    """A string, or a tuple of messages, from the value of field `name`.

    Raises:
        RowFault: it is neither, or a message is not one that can be read whole.
    """
    if isinstance(value, str):
        if not columns.typed and value.startswith(("[{", "[ {")):
            parsed = _untyped(value)
            if isinstance(parsed, list) and all(isinstance(part, dict) and "role" in part for part in parsed):
                return _messages(parsed, name)
        return _valid(value, name)
    if isinstance(value, Mapping) and isinstance(value.get("role"), list):  # a struct of lists, from older `datasets`
        parts = zip(value["role"], value.get("content", ()), strict=True)
        return _messages([{"role": role, "content": content} for role, content in parts], name)
    if isinstance(value, Mapping):
        return _messages([value], name)
    if isinstance(value, list | tuple):
        return _messages(value, name)
    raise RowFault(f"field {name!r} is neither text nor messages", f"it is {_kind(value)}")


def _messages(parts: Sequence[Any], name: str) -> tuple[Message, ...]:
    messages = []
    for part in parts:
        if isinstance(part, Message):
            messages.append(part)
            continue
        if not isinstance(part, Mapping) or not isinstance(part.get("role"), str):
            raise RowFault(f"field {name!r} holds something that is not a message", f"it is {_kind(part)}")
        if part["role"] not in ROLES:
            raise RowFault(f"field {name!r} holds a message with an unknown role", repr(part["role"]))
        carried = [key for key in _CARRIERS if part.get(key)]
        if carried:
            raise RowFault(f"field {name!r} holds a message with more than text", f"it has {carried[0]!r}")
        content = part.get("content")
        if isinstance(content, list | tuple) and all(
            isinstance(c, Mapping) and c.get("type") == "text" for c in content
        ):
            content = "".join(c.get("text") or "" for c in content)
        if not isinstance(content, str):
            kinds = [c.get("type") for c in content if isinstance(c, Mapping)] if isinstance(content, list) else []
            other = next((kind for kind in kinds if kind != "text"), None)
            what = f"it has a part of type {other!r}" if other else f"it is {_kind(content)}"
            raise RowFault(f"field {name!r} holds a message whose content is not text", what)
        messages.append(Message(part["role"], _valid(content, name)))
    if not messages:
        raise RowFault(f"field {name!r} holds no message")
    return tuple(messages)


def _flag(value: Any, name: str, columns: Columns) -> bool:
    if not columns.typed and isinstance(value, str):
        value = {"true": True, "false": False, "1": 1, "0": 0, "1.0": 1, "0.0": 0}.get(value.strip().lower(), value)
    if value in (0, 1) and not isinstance(value, str):
        return bool(value)
    raise RowFault(f"field {name!r} is not a true/false label", f"it is {value!r}"[:80])


def _list(row: Mapping[str, Any], name: str, columns: Columns, length: int | None = None) -> list[Any]:
    value = _required(row, name)
    value = value if columns.typed else _untyped(value)
    if not isinstance(value, list | tuple):
        raise RowFault(f"field {name!r} is not a list", f"it is {_kind(value)}")
    if length is not None and len(value) != length:
        raise RowFault(f"field {name!r} has not one entry per response", f"{len(value)} for {length}")
    return list(value)


# ------------------------------------------------------------------------------------------- context and response


def _answer(prompt: Text | None, response: Text, name: str) -> tuple[Text, Text, list[str]]:
    """(context, response, changes) of a prompt and a response that may spell the prompt again.

    Raises:
        RowFault: the response is empty or not the assistant's.
    """
    changed: list[str] = []
    if isinstance(response, str):
        if isinstance(prompt, tuple):
            response = (Message("assistant", response),)
        elif not response.strip():
            raise RowFault("empty response", f"field {name!r}")
        else:
            return prompt or "", response, changed
    if isinstance(prompt, str):
        prompt = (Message("user", prompt),) if prompt.strip() else ()
    context = prompt or ()
    if context and len(response) > len(context) and response[: len(context)] == context:
        response = response[len(context) :]
        changed.append("prompt that stood again in the response removed")
    if response[-1].role != "assistant":
        raise RowFault("the response does not end with an assistant turn", f"field {name!r}")
    if not response[-1].content.strip():
        raise RowFault("empty response", f"field {name!r}")
    lead = 0
    while lead < len(response) and response[lead].role == "assistant":
        lead += 1
    if lead < len(response):  # turns that no policy wrote: only the last turn is the response
        context, response = (*context, *response[:-1]), response[-1:]
        if prompt:
            changed.append("response of several turns: all but the last became context")
    return context, response, changed


def _pair(row: Mapping[str, Any], columns: Columns) -> Parsed:
    chosen = text_or_messages(_required(row, "chosen"), "chosen", columns)
    rejected = text_or_messages(_required(row, "rejected"), "rejected", columns)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RowFault("one of 'chosen' and 'rejected' is text and the other messages")
    if "prompt" in columns.names:
        prompt = _prompt(row, columns)
        first, second = _answer(prompt, chosen, "chosen"), _answer(prompt, rejected, "rejected")
        changed = sorted({*first[2], *second[2]})
        return _compared(row, columns, first[:2], second[:2], changed)
    if isinstance(chosen, str):
        for name, text in (("chosen", chosen), ("rejected", rejected)):
            if not text.strip():
                raise RowFault("empty response", f"field {name!r}")
        if chosen == rejected:
            raise RowFault("identical responses")
        shared, first_rest, second_rest = split_text(chosen, rejected)
        return _compared(row, columns, (shared, first_rest), (shared, second_rest), [])
    _answer((), chosen, "chosen"), _answer((), rejected, "rejected")  # the faults of each side alone
    if chosen == rejected:
        raise RowFault("identical responses")
    return _by_last_turn(row, columns, chosen, rejected)


def _two_prompts(row: Mapping[str, Any], columns: Columns) -> Parsed:
    sides, changed = [], set()
    for side in ("chosen", "rejected"):
        prompt, response = (
            text_or_messages(_required(row, name), name, columns) for name in (f"prompt_{side}", f"response_{side}")
        )
        context, answer, changes = _answer(prompt, response, f"response_{side}")
        sides.append((context, answer))
        changed |= set(changes)
    if isinstance(sides[0][0], str) != isinstance(sides[1][0], str):
        raise RowFault("one side is text and the other messages")
    return _compared(row, columns, *sides, sorted(changed))


def _transcripts(row: Mapping[str, Any], columns: Columns) -> Parsed:
    sides = []
    for name in ("chosen", "rejected"):
        value = _required(row, name)
        if not isinstance(value, str):
            raise RowFault(f"field {name!r} is not text", f"it is {_kind(value)}")
        try:
            sides.append(parse_transcript(_valid(value, name)))
        except RowFault as fault:
            raise RowFault(fault.reason, f"field {name!r}" + (f", {fault.detail}" if fault.detail else "")) from None
    if sides[0] == sides[1]:
        raise RowFault("identical responses")
    return _by_last_turn(row, columns, *sides)


def _by_last_turn(
    row: Mapping[str, Any], columns: Columns, chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> Parsed:
    sides = split_last_turn(chosen), split_last_turn(rejected)
    differ = sides[0][0] != sides[1][0]
    changed = ["conversations that differ before the last turn keep a context each"] if differ else []
    return _compared(row, columns, *sides, changed)


def _compared(
    row: Mapping[str, Any], columns: Columns, chosen: tuple[Text, Text], rejected: tuple[Text, Text], changed: list[str]
) -> Parsed:
    if chosen == rejected:
        raise RowFault("identical responses")
    if chosen[0] == rejected[0]:
        rejected = chosen[0], rejected[1]  # one object, so that it is held, and sent to other processes, once
    facts: dict[str, dict[str, float]] = {"chosen": {}, "rejected": {}}
    for name in sorted(_side_facts(columns)):
        match, value = _SIDE.fullmatch(name), number(row, name, columns)
        if value is not None:
            facts[match["side"] or match["side2"]][match["name"] or match["name2"]] = value
    preference = 1.0
    if row.get("votes_chosen") is not None or row.get("votes_rejected") is not None:
        votes = [number(row, name, columns) for name in ("votes_chosen", "votes_rejected")]
        if None in votes or min(votes) < 0 or sum(votes) == 0:
            raise RowFault("votes are not two counts, one of them above zero", f"{votes[0]} and {votes[1]}")
        preference = votes[0] / sum(votes)
    elif (given := number(row, "preference", columns)) is not None:
        if not 0 <= given <= 1:
            raise RowFault("field 'preference' is not a probability", f"{given} is outside [0, 1]")
        preference = given
    comparison = Comparison(0, 1, preference, number(row, "margin", columns), _annotator(row))
    items = [
        Item(*side, columns=facts[name], spans=_spans(row, name, side[1], columns))
        for name, side in (("chosen", chosen), ("rejected", rejected))
    ]
    return _with_further(row, columns, Parsed(items, [comparison], changed))


def _spans(row: Mapping[str, Any], side: str, response: Text, columns: Columns) -> tuple[Span, ...]:
    """The parts of one side: as given, or sentences where only their scores are."""
    segments, scores = (_json_list(row, f"{side}_segment{end}") for end in ("s", "_scores"))
    if segments is None and scores is None:
        return ()
    text = plain_text(response)
    if segments is None:
        segments = [{"start": start, "end": end} for start, end in sentences(text)]
    return as_spans(text, segments, scores, f"{side}_segments")


def _json_list(row: Mapping[str, Any], name: str) -> list[Any] | None:
    """The list in field `name`, which may be spelled as JSON; None where the field is absent or empty."""
    value = row.get(name)
    if value is None or value == "":
        return None
    value = _untyped(value)
    if not isinstance(value, list | tuple):
        raise RowFault(f"field {name!r} is not a list", f"it is {_kind(value)}")
    return list(value)


def _further_columns(columns: Columns) -> dict[str, str]:
    """Columns of the source that hold further texts, each with its role."""
    found: dict[str, str] = {}
    for name, role in _FURTHER.items():
        if name in columns.names - columns.numeric and role not in found.values():
            found[name] = role
    return found


def _with_further(row: Mapping[str, Any], columns: Columns, parsed: Parsed, *, skip: Iterable[str] = ()) -> Parsed:
    """`parsed` with the row's further texts as items of their roles, behind its responses."""
    first = parsed.items[0]
    for name, role in _further_columns(columns).items():
        value = row.get(name)
        if value is None or name in skip:
            continue
        text = text_or_messages(value, name, columns)
        if not plain_text(text).strip():
            parsed.changed.append(f"empty {name!r} left out")
            continue
        context = first.context
        if role == "rationale":
            if parsed.items[1].context != context:
                raise RowFault("a rationale needs one prompt for both responses", f"field {name!r}")
            question = rationale_question(context, parsed.items[0].response, parsed.items[1].response)
            context = question if isinstance(context, str) else (Message("user", question),)
        if isinstance(context, str) and not isinstance(text, str):
            text = plain_text(text)
        context, response, _ = _answer(context, text, name)
        parsed.items.append(Item(context, response, role=role))
    return parsed


def _annotator(row: Mapping[str, Any]) -> str | None:
    who = row.get("annotator")
    return None if who is None or who == "" else str(who)


def _alpaca(row: Mapping[str, Any], columns: Columns) -> Parsed:
    texts = [_required(row, name) for name in ("instruction", "output_1", "output_2")]
    for name, text in zip(("instruction", "output_1", "output_2"), texts, strict=True):
        if not isinstance(text, str):
            raise RowFault(f"field {name!r} is not text", f"it is {_kind(text)}")
        _valid(text, name)
        if name != "instruction" and not text.strip():
            raise RowFault("empty response", f"field {name!r}")
    if texts[1] == texts[2]:
        raise RowFault("identical responses")
    judged = number(row, "preference", columns)
    if judged is None:
        raise RowFault("missing field 'preference'")
    if not 1 <= judged <= 2:
        raise RowFault("field 'preference' is not in [1, 2]", f"{judged}; 1 prefers output_1, 2 output_2, 1.5 neither")
    second = judged - 1
    context = (Message("user", texts[0]),)
    items = [Item(context, (Message("assistant", text),)) for text in texts[1:]]
    winner, preference = (1, second) if second > 0.5 else (0, 1 - second)
    comparison = Comparison(winner, 1 - winner, preference, annotator=_annotator(row))
    return _with_further(row, columns, Parsed(items, [comparison]))


def _facts(row: Mapping[str, Any], columns: Columns) -> dict[str, float]:
    values = {name: number(row, name, columns) for name in sorted(_row_facts(columns))}
    return {name: value for name, value in values.items() if value is not None}


def _prompt(row: Mapping[str, Any], columns: Columns) -> Text:
    return text_or_messages(_required(row, "prompt"), "prompt", columns)


def _completion(row: Mapping[str, Any], columns: Columns) -> Parsed:
    completion = text_or_messages(_required(row, "completion"), "completion", columns)
    context, response, changed = _answer(_prompt(row, columns), completion, "completion")
    return Parsed([Item(context, response, columns=_facts(row, columns))], changed=changed)


def _labelled_completion(row: Mapping[str, Any], columns: Columns) -> Parsed:
    label = _flag(_required(row, "label"), "label", columns)
    parsed = _completion(row, columns)
    item = parsed.items[0]
    return Parsed([Item(item.context, item.response, label=label, columns=item.columns)], changed=parsed.changed)


def _conversation(row: Mapping[str, Any], columns: Columns) -> tuple[Message, ...]:
    messages = text_or_messages(_required(row, "messages"), "messages", columns)
    if isinstance(messages, str):
        raise RowFault("field 'messages' is not a list of messages", "it is text")
    return messages


def _every_turn(row: Mapping[str, Any], columns: Columns) -> Parsed:
    messages, facts = _conversation(row, columns), _facts(row, columns)
    turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not turns:
        raise RowFault("the conversation has no assistant turn")
    if not all(messages[i].content.strip() for i in turns):
        raise RowFault("empty response", "an assistant turn")
    return Parsed([Item(messages[:i], messages[i : i + 1], columns=facts) for i in turns])


def _labelled_conversation(row: Mapping[str, Any], columns: Columns) -> Parsed:
    label = _flag(_required(row, "label"), "label", columns)
    context, response, _ = _answer((), _conversation(row, columns), "messages")
    return Parsed([Item(context, response, label=label, columns=_facts(row, columns))])


def _plain(row: Mapping[str, Any], columns: Columns) -> Parsed:
    text = _required(row, "text")
    if not isinstance(text, str):
        raise RowFault("field 'text' is not text", f"it is {_kind(text)}")
    if not text.strip():
        raise RowFault("empty response", "field 'text'")
    return Parsed([Item("", _valid(text, "text"), columns=_facts(row, columns))])


def _prompt_only(row: Mapping[str, Any], columns: Columns) -> Parsed:
    prompt = _prompt(row, columns)
    if not plain_text(prompt).strip():
        raise RowFault("empty prompt")
    return Parsed([Item(prompt, "" if isinstance(prompt, str) else ())])


def _several(row: Mapping[str, Any], columns: Columns) -> tuple[list[tuple[Text, Text]], list[dict[str, float]]]:
    prompt = _prompt(row, columns)
    responses = _list(row, "responses", columns)
    if len(responses) < 2:
        raise RowFault("fewer than two responses", f"{len(responses)}")
    sides = [
        _answer(prompt, text_or_messages(response, "responses", columns), "responses")[:2] for response in responses
    ]
    if len(set(sides)) == 1:
        raise RowFault("identical responses")
    if len({isinstance(context, str) for context, _ in sides}) > 1:
        raise RowFault("some responses are text and others messages")
    facts: list[dict[str, float]] = [{} for _ in sides]
    for name in sorted(_list_facts(columns)):
        if row.get(name) is None:
            continue
        key = _RATINGS.get(name, name)
        for fact, value in zip(facts, _list(row, name, columns, len(sides)), strict=True):
            if value is not None:
                fact[key] = _finite(value, name)
    return sides, facts


def _ranked(row: Mapping[str, Any], columns: Columns) -> Parsed:
    sides, facts = _several(row, columns)
    ranks = _list(row, "ranks", columns, len(sides))
    for rank in ranks:
        if not _is_number(rank) or rank != int(rank) or rank < 1:
            raise RowFault("field 'ranks' holds something that is no rank", f"{rank!r}; 1 is best")
    items = [Item(*side, rank=int(rank), columns=fact) for side, rank, fact in zip(sides, ranks, facts, strict=True)]
    return _with_further(row, columns, Parsed(items), skip=["rationale"])


def _rated(row: Mapping[str, Any], columns: Columns) -> Parsed:
    sides, facts = _several(row, columns)
    for name in _RATINGS:
        value = row.get(name)
        value = value if columns.typed else _untyped(value)
        if isinstance(value, Mapping):  # a list per dimension
            value = [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=False)]
        if isinstance(value, list | tuple) and value and all(isinstance(part, Mapping) for part in value):
            if len(value) != len(sides):
                raise RowFault(f"field {name!r} has not one entry per response", f"{len(value)} for {len(sides)}")
            for fact, part in zip(facts, value, strict=True):
                fact.update({str(key): _finite(v, name) for key, v in part.items() if v is not None})
        elif value is not None and name not in columns.lists:
            raise RowFault(f"field {name!r} is not a list of numbers", f"it is {_kind(value)}")
    if not any(facts):
        raise RowFault("no response has a rating")
    items = [Item(*side, columns=fact) for side, fact in zip(sides, facts, strict=True)]
    return _with_further(row, columns, Parsed(items), skip=["rationale"])


def _stepwise(row: Mapping[str, Any], columns: Columns) -> Parsed:
    prompt = _prompt(row, columns)
    if not isinstance(prompt, str):
        raise RowFault("field 'prompt' is not text", "the steps of a solution continue a text")
    steps = _list(row, "completions", columns)
    labels = _list(row, "labels", columns, len(steps))
    items = []
    for step, label in zip(steps, labels, strict=True):
        if not isinstance(step, str) or not step.strip():
            raise RowFault("empty response" if isinstance(step, str) else "a step is not text", "field 'completions'")
        items.append(Item(prompt, _valid(step, "completions"), label=_flag(label, "labels", columns)))
        prompt = f"{prompt}{step}\n"
    if not items:
        raise RowFault("empty response", "field 'completions' has no step")
    return Parsed(items)


def _tree(row: Mapping[str, Any], columns: Columns) -> Parsed:
    prompt = _prompt(row, columns)
    if not isinstance(prompt, str):
        raise RowFault("field 'prompt' is not text", "the steps of a solution continue a text")
    nodes = _json_list(row, "nodes")
    if nodes is None:
        raise RowFault("missing field 'nodes'")
    return Parsed(node_items(prompt, nodes))


_VOTES = {  # what is read -> the columns that may hold it: the general names, and AdParaphrase's
    "first": ("response_a", "ad1"),
    "second": ("response_b", "ad2"),
    "n_first": ("n_a", "count.preference_ad1"),
    "n_second": ("n_b", "count.preference_ad2"),
    "n_neither": ("n_skip", "count.preference_skip"),
}


def _voted(row: Mapping[str, Any], columns: Columns) -> Parsed:
    """Two texts and how many people preferred each; those who took neither are half a vote for both."""
    named = {part: next((name for name in names if name in columns.names), None) for part, names in _VOTES.items()}
    sides = [text_or_messages(_required(row, named[part]), named[part], columns) for part in ("first", "second")]
    if isinstance(sides[0], str) != isinstance(sides[1], str):
        raise RowFault(f"one of {named['first']!r} and {named['second']!r} is text and the other messages")
    prompt = _prompt(row, columns) if row.get("prompt") is not None else ""
    answers = [_answer(prompt, side, named[part]) for side, part in zip(sides, ("first", "second"), strict=True)]
    if answers[0][:2] == answers[1][:2]:
        raise RowFault("identical responses")
    counts = [0.0, 0.0, 0.0]
    for i, part in enumerate(("n_first", "n_second", "n_neither")):
        count = number(row, named[part], columns) if named[part] else 0.0
        if count is None and part != "n_neither":
            raise RowFault(f"missing field {named[part]!r}")
        if count is not None and count < 0:
            raise RowFault("votes are not counts", f"field {named[part]!r} is {count:g}")
        counts[i] = count or 0.0
    if not sum(counts):
        raise RowFault("nobody voted")
    share = (counts[0] + counts[2] / 2) / sum(counts)
    comparison = Comparison(0, 1, share) if share >= 0.5 else Comparison(1, 0, 1 - share)
    comparison = replace(comparison, annotator=_annotator(row))
    changed = sorted({*answers[0][2], *answers[1][2]})
    return _with_further(row, columns, Parsed([Item(*answer[:2]) for answer in answers], [comparison], changed))


def _summaries(row: Mapping[str, Any], columns: Columns) -> Parsed:
    """Two summaries of the same reviews, rated by dimension, and which one is preferred (OpinPref)."""
    reviews = row.get("reviews")
    if not isinstance(reviews, list | tuple) or not all(isinstance(review, str) for review in reviews):
        raise RowFault("field 'reviews' is not a list of texts", f"it is {_kind(reviews)}")
    pair = _required(row, "summary-pairs")
    context, items = _valid("\n\n".join(reviews), "reviews"), []
    for name in ("summary-one", "summary-two"):
        summary = pair.get(name) if isinstance(pair, Mapping) else None
        text = summary.get("summary-text") if isinstance(summary, Mapping) else None
        if not isinstance(text, str):
            raise RowFault(f"field 'summary-pairs' has no {name!r} with a 'summary-text'")
        if not text.strip():
            raise RowFault("empty response", f"field {name!r}")
        ratings = summary.get("summary-score") or {}
        facts = {str(key): _finite(value, str(key)) for key, value in ratings.items() if value is not None}
        items.append(Item(context, _valid(text, name), columns=facts))
    if items[0].response == items[1].response:
        raise RowFault("identical responses")
    # the codes are not documented: with 1 the first has the higher ratings in three rows of four, with 2 the second
    preferred = number(row, "preference-data", columns)
    if preferred not in (1, 2):
        raise RowFault("field 'preference-data' is not 1 or 2", f"{row.get('preference-data')!r}"[:80])
    winner = int(preferred) - 1
    return Parsed(items, [Comparison(winner, 1 - winner, annotator=_annotator(row))])


_RESPONSES = frozenset(
    {"chosen", "rejected", "completion", "completions", "responses", "output_1", "output_2", "messages"}
)
_PAIR_FACTS = _SEGMENTS | frozenset(
    {"prompt", "margin", "preference", "votes_chosen", "votes_rejected", "annotator", *_FURTHER}
)


def _only(*names: str) -> frozenset[str]:
    return _RESPONSES - set(names)


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            "alpaca",
            "two outputs and a judge's verdict",
            ("instruction", "output_1", "output_2", "preference"),
            frozenset({"chosen", "rejected"}),
            frozenset({"annotator", *_FURTHER}),
            _no_facts,
            _alpaca,
        ),
        Format(
            "preference",
            "a chosen and a rejected response, prompt given or shared",
            ("chosen", "rejected"),
            frozenset({"output_1", "output_2"}),
            _PAIR_FACTS,
            _side_facts,
            _pair,
        ),
        Format(
            "joint",
            "a chosen and a rejected pair of a prompt and its response",
            _TWO_PROMPTS,
            _RESPONSES | {"prompt"},
            _PAIR_FACTS - {"prompt", "rationale"},
            _side_facts,
            _two_prompts,
        ),
        Format(
            "hh",
            "a chosen and a rejected HH-RLHF transcript",
            ("chosen", "rejected"),
            frozenset(),
            _PAIR_FACTS - {"prompt"},
            _side_facts,
            _transcripts,
        ),
        Format(
            "votes",
            "two texts and how many people preferred each",
            tuple(names for part, names in _VOTES.items() if part != "n_neither"),
            frozenset({"chosen", "rejected", "output_1", "output_2"}),
            frozenset({"prompt", "annotator", *_VOTES["n_neither"], *_FURTHER}),
            _no_facts,
            _voted,
        ),
        Format(
            "summaries",
            "two summaries of the same reviews, rated, and which is preferred",
            ("reviews", "summary-pairs", "preference-data"),
            _RESPONSES,
            frozenset({"annotator"}),
            _no_facts,
            _summaries,
        ),
        Format(
            "ranked",
            "several responses with ranks, 1 is best",
            ("prompt", "responses", "ranks"),
            _only("responses", "messages"),
            frozenset({*_RATINGS, *_FURTHER}) - {"rationale"},
            _list_facts,
            _ranked,
        ),
        Format(
            "rated",
            "several responses with scores or ratings",
            ("prompt", "responses", tuple(_RATINGS)),
            _only("responses", "messages"),
            frozenset(_FURTHER) - {"rationale"},
            _list_facts,
            _rated,
        ),
        Format(
            "stepwise",
            "a solution's steps, each labelled",
            ("prompt", "completions", "labels"),
            _only("completions"),
            frozenset(),
            _no_facts,
            _stepwise,
        ),
        Format(
            "unpaired",
            "one response with a thumb",
            ("prompt", "completion", "label"),
            _only("completion", "messages"),
            frozenset(),
            _row_facts,
            _labelled_completion,
        ),
        Format(
            "prompt_completion",
            "one response to learn from",
            ("prompt", "completion"),
            _only("completion", "messages"),
            frozenset(),
            _row_facts,
            _completion,
        ),
        Format(
            "unpaired_messages",
            "one conversation with a thumb on its last turn",
            ("messages", "label"),
            _only("messages"),
            frozenset(),
            _row_facts,
            _labelled_conversation,
        ),
        Format(
            "messages",
            "one conversation to learn from, every assistant turn",
            ("messages",),
            _only("messages"),
            frozenset(),
            _row_facts,
            _every_turn,
        ),
        Format(
            "tree",
            "a tree of solution steps, one object per node",
            ("prompt", "nodes"),
            _RESPONSES,
            frozenset(),
            _no_facts,
            _tree,
        ),
        Format("text", "text to learn from", ("text",), _RESPONSES, frozenset(), _row_facts, _plain),
        Format(
            "prompt_only",
            "prompts to answer",
            ("prompt",),
            _RESPONSES | {"text", "nodes"},
            frozenset(),
            _no_facts,
            _prompt_only,
        ),
    )
}
