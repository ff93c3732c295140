"""A model's answers to prompts, kept as they come, so that a stopped run samples nothing twice."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError, DataError
from unipref.core.io import append_jsonl, read_jsonl, to_json, write_text
from unipref.core.records import Item, Message, Record, Text
from unipref.data import DataReport, RowFault, encode_records
from unipref.data.encode import CONTINUES
from unipref.sampling import generate

__all__ = ["answered"]

_CHUNK = 32  # prompts that are sampled and written together: what a kill may cost


def answered(
    prompts: Sequence[Record],
    load: Callable[[], tuple[Any, Any]],
    path: Path,
    *,
    responses: int,
    settings: Mapping[str, Any],
    max_length: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Record], DataReport]:
    """A record per prompt with `responses` answers as its items, and the account of prompts that have none.

    Answers are kept in `path` by prompt. Those that stand there already, from this run or a stopped one, are taken as
    they are. An answer depends on the seed, its prompt and its number alone, but for rounding (see `generate`), so
    neither the order of the prompts nor a stop changes it. An answer with a special token inside (a second beginning,
    a role) is taken out: its text would not be its tokens. Token ids are kept and never made again from the text; an
    answer that ran into the limit has 1 in the column "continues": no end token belongs behind it.

    Args:
        prompts: records of which the first item's context is the prompt; a second one of the same prompt is left out.
        load: gives the model and its tokenizer; called where something is left to sample.
        settings: what `generate` takes besides, and `model`, a word for the weights: all of it must equal what stands
            in `path`.
        max_length: most tokens of prompt and answer; a longer prompt loses its beginning.
        progress: told how many prompts are answered, of how many.

    Raises:
        ConfigError: `path` was sampled with other settings.
        DataError: there is no prompt.
    """
    report = DataReport(n_read=len(prompts))
    wanted: dict[str, Record] = {}
    for prompt in prompts:
        if _key(prompt) in wanted:
            report.leave_out("prompt that stands twice")
        else:
            wanted[_key(prompt)] = prompt
    if not wanted:
        raise DataError("there is no prompt to answer; data.train and data.eval need rows with `prompt`")
    known = _known(path, {"responses": responses, **settings})
    left = [prompt for key, prompt in wanted.items() if key not in known]
    if left:
        model, tokenizer = load()
        sampled = {name: value for name, value in settings.items() if name != "model"}
        contexts = _contexts(left, tokenizer, max_length, sampled["max_new_tokens"], report)
        left = [prompt for prompt in left if _key(prompt) in contexts]
        for start in range(0, len(left), _CHUNK):
            if progress is not None:
                progress(len(wanted) - len(left) + start, len(wanted))
            chunk = left[start : start + _CHUNK]
            ids = [contexts[_key(prompt)] for prompt in chunk for _ in range(responses)]
            drawn = iter(generate(model, tokenizer, ids, **sampled))
            special = frozenset(tokenizer.all_special_ids)
            rows = [
                {"prompt": _key(prompt), "answers": [_answer(next(drawn), special) for _ in range(responses)]}
                for prompt in chunk
            ]
            append_jsonl(path, rows)
            known |= {row["prompt"]: row["answers"] for row in rows}
    if progress is not None:
        progress(len(wanted), len(wanted))
    found = []
    for key, prompt in wanted.items():
        if key not in known:
            continue
        sound = [answer for answer in known[key] if not answer["control"]]
        if len(sound) < 2:
            report.leave_out("prompt with fewer than two answers that hold no control token")
            continue
        report.change("answer with a control token inside taken out", len(known[key]) - len(sound))
        found.append(_record(prompt, sound))
    report.n_kept = len(found)
    return found, report


def _known(path: Path, settings: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Answers in `path` by prompt. A line that a kill cut off is taken out, so that the next one starts a line."""
    head = json.loads(to_json(settings))
    if not path.exists():
        append_jsonl(path, [head])
        return {}
    rows = list(read_jsonl(path))
    if rows and rows[0] != head:
        other = sorted(name for name in {*rows[0], *head} if rows[0].get(name) != head.get(name))
        raise ConfigError(f"{path} holds answers with another {', '.join(other)}; remove the file to sample again")
    if not path.read_bytes().endswith(b"\n"):
        write_text(path, "".join(to_json(row) + "\n" for row in rows or [head]))
    return {row["prompt"]: row["answers"] for row in rows[1:]}


def _key(prompt: Record) -> str:
    """The prompt as one string that tells it from every other."""
    context = prompt.items[0].context
    return to_json(context if isinstance(context, str) else [[turn.role, turn.content] for turn in context])


def _contexts(
    prompts: Sequence[Record], tokenizer: Any, max_length: int, room: int, report: DataReport
) -> dict[str, list[int]]:
    """Token ids by prompt, as training will see them with an answer of `room` tokens behind; faults go to `report`."""
    filler = (tokenizer.eos_token_id or 0,) * room
    stand_ins = [
        replace(
            p, items=(Item(p.items[0].context, _said(p.items[0].context, ""), response_ids=filler),), comparisons=()
        )
        for p in prompts
    ]
    encoded, found = encode_records(stand_ins, tokenizer, max_length=max_length)
    report.set_aside += found.set_aside
    report.notes += found.notes
    contexts: dict[str, list[int]] = {}
    for each in encoded:
        ids = each.ids(0)[0]
        if ids:
            contexts[_key(each.record)] = ids
        else:
            report.drop(RowFault("a prompt without tokens"), source=each.record.id, line=each.record.line, strict=False)
    return contexts


def _answer(sample: Any, special: frozenset[int]) -> dict[str, Any]:
    """What is kept of a sample. `control`: it holds a special token before its end, which its text does not show."""
    inside = sample.ids[:-1] if sample.stopped else sample.ids
    control = not special.isdisjoint(inside)
    return {"text": sample.text, "ids": list(sample.ids), "stopped": sample.stopped, "control": control}


def _record(prompt: Record, answers: Sequence[Mapping[str, Any]]) -> Record:
    context = prompt.items[0].context
    items = tuple(
        Item(
            context,
            _said(context, answer["text"]),
            columns={CONTINUES: float(not answer["stopped"])},
            response_ids=tuple(answer["ids"]),
        )
        for answer in answers
    )
    return replace(prompt, items=items, comparisons=())


def _said(context: Text, text: str) -> Text:
    return text if isinstance(context, str) else (Message("assistant", text),)
