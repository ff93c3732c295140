"""A recipe as a person would write it: YAML lines, each with its comment."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from unipref.recipes._source import yaml_value

__all__ = ["Entry", "Items", "Section", "comment", "scalar", "written"]

WIDTH = 100
STEP = "  "


@dataclass(frozen=True)
class Entry:
    """`key: value`, a mapping or list in braces. `says` stands behind it, or above it where it is too long for that."""

    key: str
    value: Any
    says: str = ""


@dataclass(frozen=True)
class Section:
    """A key with entries below it."""

    key: str
    entries: Sequence["Entry | Section | Items"]
    says: str = ""


@dataclass(frozen=True)
class Items:
    """A key with a list of mappings below it."""

    key: str
    items: Sequence[Sequence["Entry | Section | Items"]]
    says: str = ""


Part = Entry | Section | Items


def written(heading: Sequence[str], parts: Iterable[Part], ending: Sequence[str] = ()) -> str:
    """The text of a recipe: `heading` as comments, `parts`, and `ending` as comments.

    A section is set off by a blank line. Values are written so that `load_recipe` reads back what was given.
    """
    lines = comment(heading)
    before: Part | None = None
    for part in parts:
        if not isinstance(part, Entry) or not isinstance(before, Entry | None):
            lines.append("")
        lines += _lines([part], 0)
        before = part
    if ending:
        lines += ["", *comment(ending)]
    return "\n".join(lines) + "\n"


def comment(paragraphs: Iterable[str], indent: str = "") -> list[str]:
    """Comment lines of at most WIDTH characters; a paragraph that starts with blanks is kept on its line."""
    lines = []
    for paragraph in (part for given in paragraphs for part in given.split("\n")):
        kept = paragraph.startswith(" ") or not paragraph
        rows = [paragraph] if kept else textwrap.wrap(paragraph, WIDTH - len(indent) - 2, break_long_words=False)
        lines += [f"{indent}# {row}".rstrip() for row in rows]
    return lines


def scalar(value: Any) -> str:
    """`value` on one line of YAML, as `load_recipe` reads it.

    Example:
        >>> scalar({"beta": 0.1, "loss": "hinge", "none": None}), scalar(5e-7), scalar("1e-5")
        ('{beta: 0.1, loss: hinge, none: null}', '5.0e-07', '"1e-5"')
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True, sort_keys=False)
    text = text.removesuffix("...\n").strip()
    # PyYAML writes the words of YAML 1.1; what recipes would read otherwise is quoted as JSON, which is YAML too
    return text if yaml_value(text, "a value") == value else json.dumps(value, ensure_ascii=False)


def _lines(parts: Sequence[Part], depth: int) -> list[str]:
    indent = STEP * depth
    bare = [f"{indent}{p.key}: {scalar(p.value)}" if isinstance(p, Entry) else f"{indent}{p.key}:" for p in parts]
    beside = [
        isinstance(part, Entry) and bool(part.says) and len(line) + len(part.says) + 4 <= WIDTH
        for part, line in zip(parts, bare, strict=True)
    ]
    column = max((len(line) for line, short in zip(bare, beside, strict=True) if short and len(line) <= 40), default=0)
    lines: list[str] = []
    for part, line, short in zip(parts, bare, beside, strict=True):
        if short:
            gap = column if column + len(part.says) + 4 <= WIDTH else 0
            lines.append(f"{line.ljust(gap)}  # {part.says}")
            continue
        lines += [*(comment([part.says], indent) if part.says else []), line]
        if isinstance(part, Section):
            lines += _lines(part.entries, depth + 1)
        for item in part.items if isinstance(part, Items) else ():
            lines += _dashed(_lines(item, depth + 2), depth + 1)
    return lines


def _dashed(lines: list[str], depth: int) -> list[str]:
    """The lines of a list's item, with its dash before the first one that is no comment."""
    first = next(i for i, line in enumerate(lines) if not line.lstrip().startswith("#"))
    above = [line.removeprefix(STEP) for line in lines[:first]]
    return [*above, f"{STEP * depth}- {lines[first].lstrip()}", *lines[first + 1 :]]
