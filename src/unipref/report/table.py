"""The summary in the terminal: one line per run or per metric, nothing wrapped inside a cell, the verdict last."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from unipref.report._dynamics import dynamics_notes
from unipref.report._folder import REFERENCE
from unipref.report._fronts import told_of_front
from unipref.report._words import (
    NOTHING,
    Metric,
    bracket,
    columns,
    concordance,
    found,
    judge,
    metric_of,
    nothing_compared,
    verdicts,
)

__all__ = ["entries_table", "fronts_told", "render_table"]

GAP = "  "
BEFORE = "before"
_COLOURS = {"better": "green", "worse": "red", "higher": "yellow", "lower": "yellow"}
_BADGES = {"error": "bold white on red", "warning": "black on yellow"}


def render_table(summary: Mapping[str, Any]) -> RenderableType:
    """What `summary.json` says, for a `rich` console: runs, differences, alarms, and at the end the verdict.

    Runs are columns where that fits the console's width; otherwise they are rows, in blocks of as many metrics as fit.
    Names that are too long for the width lose their middle; numbers are never cut above a width of 50.
    """
    return _Report(summary)


def entries_table(summary: Mapping[str, Any], width: int) -> Iterator[RenderableType]:
    """The numbers of all runs in lines of at most `width`, and what they mean."""
    yield from _runs(summary, width)
    yield from _legend(summary)


@dataclass(frozen=True)
class _Report:
    summary: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        summary, width = self.summary, options.max_width
        yield _opening(summary)
        yield from entries_table(summary, width)
        yield from _differences(summary, width)
        yield from fronts_told(summary)
        yield from _alarms(summary)
        yield from _dynamics(summary)
        yield from _verdicts(summary)


def _opening(summary: Mapping[str, Any]) -> Text:
    runs = summary["runs"]
    seeds = max(len(run.get("seeds", ())) for run in runs.values()) or 1
    size = next((run["n"] for run in runs.values() if "n" in run), {})
    counts = [f"{len(runs)} run{'s' * (len(runs) > 1)}", f"{seeds} seed{'s' * (seeds > 1)}"]
    each = " per seed" if seeds > 1 else ""
    for key, what in (("pairs", "held-out pairs"), ("generations", "generations per run")):
        if key in size:
            counts.append(f"{size[key] // seeds:,} {what}{each if key == 'pairs' else each.replace(' per', ' and')}")
    return Text.assemble((summary["name"], "bold"), f": {', '.join(counts)}")


# ---- runs ----


def _groups(summary: Mapping[str, Any]) -> dict[str, list[Metric]]:
    """The metrics by what they are measured on."""
    known = {metric.key: metric for metric in columns(summary)}
    scores = [metric for key, metric in known.items() if key.startswith("aux.")]
    agree = [concordance(summary, name) for name in summary["designer"]]
    drift = [known["drift.chosen"], known["drift.rejected"]]
    rest = [known[key] for key in ("kl", "length", "stopped", "seconds")]
    return {
        "On held-out pairs": [known["accuracy"], known["ranking_accuracy"], *agree, *drift],
        "On the run's own generations, and training time": [*scores, *rest],
    }


def _runs(summary: Mapping[str, Any], width: int) -> Iterator[Text]:
    entries = {**summary["runs"], **({REFERENCE: summary["reference"]} if summary.get("reference") else {})}
    names = [BEFORE if name == REFERENCE else name for name in entries]
    groups = _groups(summary)
    metrics = [metric for group in groups.values() for metric in group]
    cells = {metric.key: [_cell(metric, entry) for entry in entries.values()] for metric in metrics}
    metrics = [metric for metric in metrics if set(cells[metric.key]) != {NOTHING}]
    groups = {title: [metric for metric in group if metric in metrics] for title, group in groups.items()}

    wide = [["", *names], *([metric.short, *cells[metric.key]] for metric in metrics)]
    spaces = [max(map(cell_len, column)) for column in _aligned(wide)]
    if sum(spaces) + len(GAP) * (len(spaces) - 1) <= width:
        lines = iter(_lines(_aligned(wide)))
        yield Text()
        yield _line(next(lines), "bold")
        for title, group in groups.items():
            yield Text(title, style="bold cyan")
            for _ in group:
                yield _line(next(lines))
        return

    names = [_short(name, max(12, width // 4)) for name in names]
    for title, group in groups.items():
        for i, block in enumerate(_blocks(group, cells, names, width)):
            yield Text()
            if i == 0:
                yield Text(title, style="bold cyan")
            heading, *rows = _lines([["run", *names], *block])
            yield _line(heading, "bold")
            for row in rows:
                yield _line(row)


def _blocks(
    group: Sequence[Metric], cells: Mapping[str, Sequence[str]], names: Sequence[str], width: int
) -> Iterator[list[list[str]]]:
    """Columns of as many metrics as fit beside the names."""
    room = width - max(map(cell_len, names))
    block: list[list[str]] = []
    taken = 0
    for metric in group:
        values = _align(cells[metric.key])
        column = [_short(metric.short, max(24, max(map(cell_len, values)))), *values]
        space = len(GAP) + max(map(cell_len, column))
        if block and taken + space > room:
            yield block
            block, taken = [], 0
        block.append(column)
        taken += space
    yield block


def _cell(metric: Metric, entry: Mapping[str, Any]) -> str:
    triple = found(entry, metric.key)
    if triple is None or triple[0] is None:
        return NOTHING
    return metric.bare(triple[0]) if metric.unit == "seconds" else bracket(metric, triple)


def _align(cells: Sequence[str]) -> list[str]:
    """Cells with their numbers one under the other and their brackets too."""
    width = max(cell_len(cell.split(" ")[0]) for cell in cells)
    return [" " * (width - cell_len(cell.split(" ")[0])) + cell for cell in cells]


def _aligned(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows as columns, numbers aligned below the heading of each."""
    names, *columns_ = (list(column) for column in zip(*rows, strict=True))
    return [names, *([column[0], *_align(column[1:])] for column in columns_)]


def _lines(columns_: Sequence[Sequence[str]]) -> list[str]:
    """Text of columns, padded, without space at the end."""
    spaces = [max(map(cell_len, column)) for column in columns_]
    return [
        GAP.join(cell + " " * (space - cell_len(cell)) for cell, space in zip(row, spaces, strict=True)).rstrip()
        for row in zip(*columns_, strict=True)
    ]


def _short(name: str, most: int) -> str:
    """`name` in at most `most` characters; names differ at both ends, so the middle of the first word goes."""
    word, space, rest = name.partition(" ")
    room = max(5, most - len(space + rest))
    if len(word) <= room:
        return name
    end = (room - 1) // 2
    return f"{word[: room - 1 - end]}\N{HORIZONTAL ELLIPSIS}{word[-end:]}{space}{rest}"


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ignore")


def _legend(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(style="dim")
    table.add_row(Text("[a, b]"), "95 % interval over conversations, where there are enough")
    rewards = [bool(run.get("reward_model")) for run in summary["runs"].values()]
    if not all(rewards):
        table.add_row("accuracy", "pairs where training raised chosen over rejected; 50 is chance")
    if any(rewards):
        table.add_row("accuracy", "of a reward model: pairs where chosen gets the higher reward; 50 is chance")
    if all(rewards):
        table.add_row("seconds", "spent on training, all seeds together")
        yield Text()
        yield table
        return
    table.add_row("ranking", "pairs where chosen is more probable than rejected")
    if summary["designer"]:
        table.add_row("agree", "pairs where the run prefers the answer that scores higher")
    table.add_row("chosen, rejected", "change of these answers' log-probability")
    table.add_row("KL", "distance from the model before alignment, per answer")
    table.add_row("ended", "answers that end before the length limit")
    table.add_row("seconds", "spent on training, all seeds together")
    if summary.get("reference"):
        table.add_row(BEFORE, "the model before alignment")
    yield Text()
    yield table


# ---- differences, alarms, verdict ----


def _differences(summary: Mapping[str, Any], width: int) -> Iterator[Text]:
    for verdict in verdicts(summary):
        rows = [entry for entry in summary["differences"] if (entry["a"], entry["b"]) == (verdict.a, verdict.b)]
        told = [(metric_of(summary, entry["metric"]), entry) for entry in rows]
        numbers = _align([bracket(metric, entry["value"], signed=True) for metric, entry in told])
        words = [judge(metric, entry["value"]) for metric, entry in told]
        counts = [f"n = {entry['n']:,}" for _, entry in told]
        room = width - 3 * len(GAP) - max(map(cell_len, numbers)) - max(map(cell_len, words))
        names = [_short(metric.short.replace(" %", " points"), max(12, room)) for metric, _ in told]
        whole = [["", *numbers], ["", *words], ["", *counts]]
        indented = ["", *(GAP + name for name in names)]
        if max(map(cell_len, names)) + len(GAP) + max(map(cell_len, counts)) > room:
            whole.pop()
        half = (width - len(" minus , paired over prompts")) // 2
        a, b = (_short(name, max(12, half)) for name in (verdict.a, verdict.b))
        yield Text()
        yield Text.assemble((f"{a} minus {b}", "bold cyan"), (", paired over prompts", "dim"), no_wrap=True)
        for text, word in zip(_lines([indented, *whole])[1:], words, strict=True):
            line = _line(text)
            line.highlight_words([f" {word}"], style=_COLOURS.get(word, "dim"))
            yield line


def fronts_told(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Each front in words."""
    for front in summary.get("fronts") or ():
        yield Text()
        yield Text.assemble(("Front", "bold cyan"), (f", {front['name']}" if front["name"] else "", "bold cyan"))
        for sentence in told_of_front(summary, front):
            yield Padding(Text(sentence), (0, 0, 0, 2))


def _alarms(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    alarms = [(name, alarm) for name, run in summary["runs"].items() for alarm in run.get("alarms", ())]
    yield Text()
    if not alarms:
        yield Text("No alarms.", style="green")
        return
    table = Table.grid(padding=(0, 1, 0, 0))
    for name, alarm in sorted(alarms, key=lambda pair: pair[1]["level"] != "error"):
        badge = Text(f" {alarm['level'].upper()} ", style=_BADGES[alarm["level"]], no_wrap=True)
        table.add_row(badge, Text.assemble((f"{name}: ", "bold"), alarm["message"]))
    yield table


def _dynamics(summary: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A line per run and pattern, of the first seed that shows it, and what can be done, once."""
    notes, remedy = dynamics_notes(summary)
    if not notes:
        return
    table = Table.grid(padding=(0, 1, 0, 0))
    for note in notes:
        badge = Text(" NOTE ", style="black on cyan", no_wrap=True)
        table.add_row(badge, Text(f"{note.run}: {note.message}" + (f" ({note.where})" if note.where else "")))
    yield Text()
    yield table
    yield Padding(Text(remedy, style="dim"), (0, 0, 0, 7))


def _verdicts(summary: Mapping[str, Any]) -> Iterator[Text]:
    told = verdicts(summary)
    if not told:
        yield Text()
        yield Text(nothing_compared(summary), style="bold")
    for verdict in reversed(told):  # the one that matters stays last on the screen
        yield Text()
        yield Text(verdict.headline, style="bold")
        if verdict is told[0] or verdict.against_control:
            yield Text(verdict.detail)
