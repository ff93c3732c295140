"""An evaluation of preference models in the terminal: a line per model, then what the main one may be trusted for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from unipref.report import _judged as words
from unipref.report._comparison import p_value
from unipref.report._evaluation import ACCURACY, columns_of, triple_of
from unipref.report._words import NOTHING, Metric, bracket

__all__ = ["render_evaluation"]

WIDEST = 32  # letters of a model's name that are shown
_STYLES = {True: "green", False: "yellow", None: "cyan"}


def render_evaluation(told: Mapping[str, Any]) -> RenderableType:
    """What `evaluation.json` says, for a `rich` console: the models, the verdict, what it may be trusted for, notes."""
    return _Printed(told)


@dataclass(frozen=True)
class _Printed:
    told: Mapping[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        told = self.told
        names = sorted(told["models"], key=lambda name: name != told["main"])
        for columns in self._blocks(columns_of(told), names, options.max_width):
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            for head in ("model", *(title for title, _ in columns)):
                table.add_column(head, no_wrap=True)
            rows = [*names, *(told["baselines"] if any(cells.keys() > {*names} for _, cells in columns) else ())]
            for name in rows:
                table.add_row(*map(Text, [_short(name), *(cells.get(name, NOTHING) for _, cells in columns)]))
            yield table
            yield Text()
        yield Text(words.headline(told), style="bold")
        yield Text(words.detail(told))
        for check in words.checks(told, told["main"]):
            yield Text.assemble((check["word"], _STYLES[check["passed"]]), ": ", check["sentence"])
        notes = [*words.notes(told), *told.get("notes", ())]
        if notes:
            yield Text()
            yield Text("Notes", style="bold cyan")
            for note in notes:
                yield Text(f"- {note}")

    def _blocks(
        self, metrics: Sequence[Metric], names: Sequence[str], room: int
    ) -> Iterator[list[tuple[str, dict[str, str]]]]:
        """The columns in tables of as many as fit: title and a cell per model."""
        told, columns = self.told, []
        for metric in metrics:
            entries = {**told["models"], **(told["baselines"] if metric is ACCURACY else {})}
            cells = {name: _cell(metric, triple_of(entry, metric.key)) for name, entry in entries.items()}
            columns.append((metric.short, cells))
            if metric is ACCURACY and told["baseline"]:
                columns.append((f"against {told['baseline']}", self._against()))
        first = max(len(_short(name)) for name in ("model", *names, *told["baselines"])) + 2
        taken, block = first, []
        for title, cells in columns:
            width = max(map(len, (title, *cells.values())), default=0) + 2
            if taken + width > room and block:
                yield block
                taken, block = first, []
            block.append((title, cells))
            taken += width
        yield block

    def _against(self) -> dict[str, str]:
        return {
            entry["a"]: f"{bracket(ACCURACY, entry['value'], signed=True)}, {p_value(entry)}"
            for entry in self.told["differences"]
            if (entry["b"], entry["metric"]) == (self.told["baseline"], "accuracy")
        }


def _short(name: str) -> str:
    return name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"


def _cell(metric: Metric, triple: Sequence[float | None]) -> str:
    if triple[0] is None:
        return NOTHING
    return metric.bare(triple[0]) if triple[1] is None else bracket(metric, triple)
