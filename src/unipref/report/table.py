"""The summary in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from unipref.report._words import MINUS, NOTHING, columns, found, judge, metric_of, verdicts

__all__ = ["render_table"]

_COLOURS = {"better": "green", "worse": "red", "higher": "yellow", "lower": "yellow"}


def render_table(summary: Mapping[str, Any]) -> RenderableType:
    """What `summary.json` says, for a `rich` console: verdicts, runs, differences, alarms.

    Each number stands above its 95 % interval.
    """
    parts: list[RenderableType] = []
    for verdict in verdicts(summary):
        parts += [Text(verdict.headline, style="bold"), Text(verdict.detail, style="dim"), Text()]
    parts += [_runs(summary), Text()]
    if summary["differences"]:
        parts += [_differences(summary), Text()]
    parts += _alarms(summary)
    return Group(*parts)


def _runs(summary: Mapping[str, Any]) -> Table:
    """Metrics as rows: a terminal is narrow, and there are more metrics than runs."""
    entries = {**summary["runs"], **({"before": summary["reference"]} if summary.get("reference") else {})}
    table = Table(title="Runs (95 % intervals below each number)", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for name in entries:
        table.add_column(escape(name), justify="right")
    for metric in columns(summary):
        cells = []
        for entry in entries.values():
            triple = found(entry, metric.key)
            cell = Text(NOTHING if triple is None else metric.show(triple[0]))
            if triple is not None and triple[1] is not None:
                cell.append(f"\n{metric.show_interval(triple)}", style="dim")
            cells.append(cell)
        table.add_row(Text(metric.label), *cells)
    return table


def _differences(summary: Mapping[str, Any]) -> Table:
    table = Table(title="Differences (paired over prompts)", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("comparison", "metric"):
        table.add_column(name)
    for name in ("difference", "95 % interval", "n"):
        table.add_column(name, justify="right")
    table.add_column("")
    last = None
    for entry in summary["differences"]:
        metric = metric_of(summary, entry["metric"])
        word = judge(metric, entry["value"])
        pair = f"{entry['a']} {MINUS} {entry['b']}"
        if last not in (None, pair):
            table.add_section()
        table.add_row(
            Text("" if pair == last else pair),
            Text(metric.label),
            metric.show(entry["value"][0], signed=True),
            metric.show_interval(entry["value"], signed=True),
            str(entry["n"]),
            Text(word, style=_COLOURS.get(word, "dim")),
        )
        last = pair
    return table


def _alarms(summary: Mapping[str, Any]) -> list[RenderableType]:
    told = []
    for name, run in summary["runs"].items():
        for alarm in run.get("alarms", ()):
            style = "bold red" if alarm["level"] == "error" else "yellow"
            told.append(Text.assemble((f"{alarm['level']}: ", style), f"{name}: {alarm['message']}"))
    return told or [Text("No alarms.", style="green")]
