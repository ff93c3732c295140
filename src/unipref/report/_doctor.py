"""What the doctor found in words, and in the terminal, from `Examination.to_dict()`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from unipref.core.findings import LEVELS
from unipref.report._words import NOTHING

__all__ = ["KINDS", "doctor_view", "render_doctor", "table_of", "verdict", "visible"]

SHOWN = ("error", "warning", "note")  # in full; the others by their codes
HEADINGS = {
    "error": "Training would be wrong",
    "warning": "Look at these before training",
    "note": "Worth knowing",
    "fine": "Checked, nothing found",
    "not_checked": "Could not be asked of these data",
}
KINDS = {"context": "read, not scored", "scored": "scored: what training raises or lowers", "cut": "cut by max_length"}
MOST_PLACES = 3  # in the terminal; the page shows all
MOST_DOMAINS = 6
_BADGES = {"error": "bold white on red", "warning": "black on yellow", "note": "black on cyan"}
_PLURALS = {"error": "errors", "warning": "warnings", "note": "notes"}


def verdict(found: Mapping[str, Any]) -> tuple[str, str]:
    """The worst level, and the verdict in one sentence."""
    counts = dict(found["counts"])
    codes = [one["code"] for one in found["findings"] if one["level"] == "error"]
    accepted = [code for code in codes if code in found["accepted"]]
    counts["error"] -= len(accepted)
    told = [f"{n} {level if n == 1 else _PLURALS[level]}" for level in SHOWN if (n := counts[level])]
    more = f" Accepted in spite of an error: {', '.join(accepted)}." if accepted else ""
    worst = next((level for level in SHOWN if counts[level]), "fine")
    if worst == "error":
        return worst, f"Training would be wrong: {', '.join(told)}.{more}"
    if worst == "fine":
        n = counts["fine"]
        return worst, f"Nothing found in {n} check{'s' * (n != 1)}.{more}"
    return worst, f"Nothing that would make training wrong: {', '.join(told)}.{more}"


# ---- the terminal ----


def render_doctor(found: Mapping[str, Any], *, long: bool = False) -> RenderableType:
    """What was found, for a `rich` console: the verdict, the worst first, facts last.

    Args:
        long: every finding in full, with all its rows and domains, and the tokens of the rows shown.
    """
    return _Printed(found, long)


@dataclass(frozen=True)
class _Printed:
    found: Mapping[str, Any]
    long: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        found = self.found
        kind, sentence = verdict(found)
        style = {"error": "bold red", "warning": "bold yellow"}.get(kind, "bold green")
        yield Text(found["subject"], style="dim")
        yield Text(sentence, style=style)
        for level in LEVELS if self.long else SHOWN:
            yield from self._of_level(level)
        if not self.long:
            yield from self._rest()
        for heading, rows in found["facts"].items():
            yield Text()
            yield Text(heading, style="bold cyan")
            yield _grid(rows)
        for row in found["tokens"] if self.long else ():
            yield Text()
            yield Text(f"{row['place']}, {row['item']}, token by token", style="bold cyan")
            yield _spelled(row["tokens"])
        yield Text()
        yield Text(sentence, style=style)  # again, where the eye is

    def _of_level(self, level: str) -> Iterator[RenderableType]:
        findings = [one for one in self.found["findings"] if one["level"] == level]
        if not findings:
            return
        yield Text()
        yield Text(HEADINGS[level], style="bold cyan")
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for one in findings:
            badge = Text(f" {level.upper().replace('_', ' ')} ", style=_BADGES.get(level, "dim"), no_wrap=True)
            table.add_row(badge, self._words(one))
        yield table

    def _words(self, one: Mapping[str, Any]) -> Text:
        words = Text.assemble((one["code"], "bold"), ": ", one["says"])
        if one["code"] in self.found["accepted"]:
            words.append(" (accepted in the recipe)", style="bold")
        if one["advice"]:
            words.append("\n→ " + one["advice"], style="green")
        places, domains = one["places"], list(one["by_domain"].items())
        if not self.long:
            domains = [(name, entry) for name, entry in domains if entry.get("n") != 0 or entry.get("value")]
        if places:
            kept = places if self.long else places[:MOST_PLACES]
            words.append("\n" + _first(kept, one["n"] or len(places)), style="dim")
        if domains and one["level"] != "fine":
            kept = domains if self.long else domains[:MOST_DOMAINS]
            told = [f"{name} {count(entry)}" for name, entry in kept if count(entry)]
            told += [f"{len(domains) - len(kept)} more domains"] if len(domains) > len(kept) else []
            words.append("\nby domain: " + "; ".join(told) if told else "", style="dim")
        return words

    def _rest(self) -> Iterator[Text]:
        findings = self.found["findings"]
        fine = [one["code"] for one in findings if one["level"] == "fine"]
        if fine:
            yield Text()
            yield Text.assemble((f"Fine ({len(fine)}): ", "bold green"), ", ".join(fine))
        reasons: dict[str, list[str]] = {}
        for one in findings:
            if one["level"] == "not_checked":
                reasons.setdefault(one["says"], []).append(one["code"])
        if reasons:
            yield Text()
            yield Text(f"Not checked ({sum(map(len, reasons.values()))})", style="bold")
            for why, codes in reasons.items():
                yield Text.assemble(("  " + ", ".join(codes) + ": "), (why, "dim"))


def _first(places: Sequence[str], n: int) -> str:
    """Places in words; those of one file name it once.

    Example:
        >>> _first(["a.jsonl, line 3", "a.jsonl, line 7"], 9)
        'a.jsonl, lines 3, 7 and 7 more'
    """
    more = f" and {n - len(places):,} more" if n > len(places) else ""
    parts = [place.rpartition(", line ") for place in places]
    if len(places) > 1 and len({file for file, _, _ in parts}) == 1 and parts[0][0]:
        return f"{parts[0][0]}, lines {', '.join(line for _, _, line in parts)}{more}"
    return "; ".join(places) + more


def count(entry: Mapping[str, Any]) -> str:
    """`n` of `of` and the estimate of a finding, or of one domain of it, in words; "" where it has neither.

    Example:
        >>> count({"n": 3, "of": 12, "value": [0.25, 0.05, 0.57]})
        '3 of 12, 0.25 [0.05, 0.57]'
    """
    told = []
    if entry.get("n") is not None:
        told.append(f"{entry['n']:,}" + (f" of {entry['of']:,}" if entry.get("of") is not None else ""))
    if entry.get("value") is not None:
        told.append(show(entry["value"]))
    return ", ".join(told)


def show(value: Any) -> str:
    """A value of a table of facts as a reader sees it.

    Example:
        >>> [show(x) for x in (12345, 0.123456, True, [0.5, 0.4, 0.6], "auto")]
        ['12,345', '0.1235', 'yes', '0.5 [0.4, 0.6]', 'auto']
    """
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        if len(value) == 3 and all(x is None or isinstance(x, int | float) for x in value):
            middle, low, high = (NOTHING if x is None else f"{x:.3g}" for x in value)
            return f"{middle} [{low}, {high}]"
        return ", ".join(map(show, value))
    return str(value)


def table_of(rows: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Headings of columns, and per row its name and cells; a row without columns has one cell."""
    columns = list(dict.fromkeys(name for value in rows.values() if isinstance(value, Mapping) for name in value))
    if not columns:
        return [], [(name, [show(value)]) for name, value in rows.items()]
    return columns, [
        (name, [show(value[c]) if c in value else "" for c in columns] if isinstance(value, Mapping) else [show(value)])
        for name, value in rows.items()
    ]


def _grid(rows: Mapping[str, Any]) -> Table:
    columns, cells = table_of(rows)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    numbers = columns or all(value[:1].isdigit() for _, (value, *_) in cells)
    for _ in columns or [""]:
        table.add_column(justify="right" if numbers else "left")
    if columns:
        table.add_row("", *(Text(name, style="bold") for name in columns))
    for name, values in cells:
        table.add_row("  " + name, *map(Text, values))
    return table


def _spelled(tokens: Sequence[Sequence[Any]]) -> Text:
    """Tokens with what is scored underlined and what is cut struck through."""
    styles = {"context": "dim", "scored": "underline green", "cut": "strike red"}
    words = Text()
    for text, _, kind in tokens:
        words.append(visible(text), style=styles[kind])
    return words


def visible(text: str) -> str:
    """A token with its line breaks marked, and something to see where there is nothing else.

    Example:
        >>> visible(" a\\n"), visible("")
        (' a⏎\\n', '∅')
    """
    return text.replace("\n", "⏎\n").replace("\t", "⇥") or "∅"


def doctor_view(found: Mapping[str, Any]) -> dict[str, Any]:
    """What templates need of the findings; empty where nothing was examined."""
    if not found:
        return {}
    kind, sentence = verdict(found)
    by_level = {level: [one for one in found["findings"] if one["level"] == level] for level in LEVELS}
    return {
        "kind": kind,
        "verdict": sentence,
        "counts": found["counts"],
        "accepted": found["accepted"],
        "levels": LEVELS,
        "headings": HEADINGS,
        "shown": [level for level in SHOWN if by_level[level]],
        "by_level": by_level,
        "count": count,
        "places": lambda one: _first(one["places"], one["n"] or 0),
    }
