"""Finished runs side by side: the page and the terminal's table of a `runs.json`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.text import Text

from unipref.core.errors import DataError
from unipref.core.io import write_text
from unipref.report import _figures
from unipref.report._comparison import clear, difference_plot, p_value, who_differs
from unipref.report._folder import REFERENCE, Curve
from unipref.report._fronts import fronts_view
from unipref.report._page import CURVES, N_SAMPLES, by_seed, dots, environment, table_rows
from unipref.report._words import NOTHING, columns, judge, metric_of
from unipref.report.table import entries_table, fronts_told

__all__ = ["RUNS", "render_runs", "runs_headline", "write_runs"]

RUNS = "runs.json"


def write_runs(folder: Path | str) -> Path:
    """Write `report.html` into the folder of a comparison of runs; its path.

    Raises:
        DataError: the folder holds no whole `runs.json`.
    """
    folder = Path(folder)
    path = folder / "report.html"
    page = (
        environment()
        .get_template("runs.html.j2")
        .render(**_view(_load(folder / RUNS), _load(folder / "curves.json"), _load(folder / "texts.json")))
    )
    write_text(path, page)
    return path


def render_runs(comparison: Mapping[str, Any]) -> RenderableType:
    """What `runs.json` says, for a `rich` console: settings that differ, runs, clear differences, fronts, notes."""
    return _Terminal(comparison)


def runs_headline(comparison: Mapping[str, Any]) -> str:
    """Who differs from the baseline, on the objectives first, or that nothing is shown."""
    baseline = comparison["baseline"]
    keys = [key for key in _metric_keys(comparison) if key.endswith(".generations") or key == "accuracy"]
    told = []
    for key in sorted(keys, key=lambda key: key == "accuracy"):
        rows = [entry for entry in comparison["differences"] if entry["metric"] == key]
        if any(clear(row) for row in rows):
            told.append(who_differs(rows, _spoken(comparison, key), baseline, what="run"))
    if told:
        return " ".join(told)
    many = "No run" if len(comparison["runs"]) > 2 else next(name for name in comparison["runs"] if name != baseline)
    verb = "clearly differs" if len(comparison["runs"]) > 2 else "does not clearly differ"
    return f"{many} {verb} from {baseline} in accuracy or on an objective."


def _spoken(comparison: Mapping[str, Any], key: str) -> str:
    metric = metric_of(comparison, key)
    return f"held-out {metric.label}" if key == "accuracy" else metric.label


def _metric_keys(comparison: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(entry["metric"] for entry in comparison["differences"]))


def _load(path: Path) -> Any:
    if not path.exists():
        raise DataError(f"{path.parent} holds no {path.name}; run `unipref compare` with the run folders again")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); run `unipref compare` with the run folders again") from err


# ---- the page ----


def _view(
    comparison: Mapping[str, Any], curves: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    runs = list(comparison["runs"])
    entries = _entries(comparison)
    metrics = columns(comparison)
    drawn = [Curve(curve["run"], curve["seed"], curve["rows"]) for curve in curves]
    plotted = [metric for metric in metrics if metric.key == "accuracy" or metric.key.startswith("aux.")]
    plots = [dots(metric, entries) for metric in plotted]
    return {
        "comparison": comparison,
        "name": comparison["name"],
        "version": comparison["version"],
        "created": comparison["created"],
        "headline": runs_headline(comparison),
        "runs": runs,
        "baseline": comparison["baseline"],
        "colour": {name: i % 8 for i, name in enumerate([*runs, REFERENCE])},
        "reference": REFERENCE,
        "alarms": [{"run": name, **a} for name, run in comparison["runs"].items() for a in run.get("alarms", ())],
        "columns": metrics,
        "table": table_rows(metrics, entries),
        "by_seed": by_seed(comparison),
        "plots": [plot for plot in plots if plot["measured"]],
        "differences": [difference_plot(comparison, runs, key) for key in _metric_keys(comparison)],
        "fronts": fronts_view(comparison),
        "panels": [p for key, title in CURVES.items() if (p := _figures.panel(key, title, drawn)) is not None],
        "samples": samples[:N_SAMPLES],
        "n_samples": len(samples),
    }


def _entries(comparison: Mapping[str, Any]) -> dict[str, Any]:
    before = {REFERENCE: comparison["reference"]} if comparison["reference"] else {}
    return {**comparison["runs"], **before}


# ---- the terminal ----


class _Terminal:
    def __init__(self, comparison: Mapping[str, Any]) -> None:
        self.comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        comparison = self.comparison
        heldout = comparison["heldout"]
        counts = ", ".join(
            f"{heldout[kind]['shared']:,} {what}" if heldout[kind]["shared"] else f"no shared {what}"
            for kind, what in (("pairs", "held-out pairs"), ("generations", "prompts"))
        )
        yield Text.assemble(("side by side", "bold"), f": {len(comparison['runs'])} runs, judged on {counts}")
        yield from self._settings()
        yield from entries_table(comparison, options.max_width)
        yield from self._differences()
        yield from fronts_told(comparison)
        if comparison["notes"]:
            yield Text()
            yield from (Text(f"note: {note}") for note in comparison["notes"])
        yield Text()
        yield Text(runs_headline(comparison), style="bold")

    def _settings(self) -> Iterator[RenderableType]:
        """A line per setting and value, so that nothing is cut however many runs there are."""
        differ = self.comparison["settings"]["differ"]
        yield Text()
        yield Text("What differs between the recipes", style="bold cyan")
        for key, values in differ.items():
            owners: dict[str | None, list[str]] = {}
            for run, value in values.items():
                owners.setdefault(value, []).append(run)
            told = [f"{NOTHING if value is None else value} ({', '.join(runs)})" for value, runs in owners.items()]
            yield Padding(Text(f"{key}: {'; '.join(told)}"), (0, 0, 0, 2))
        if not differ:
            yield Text("  nothing")

    def _differences(self) -> Iterator[RenderableType]:
        comparison = self.comparison
        yield Text()
        yield Text.assemble(
            (f"Minus {comparison['baseline']}", "bold cyan"),
            (", clear after Holm's method over the runs (p at most 0.05)", "dim"),
        )
        rows = [entry for entry in comparison["differences"] if clear(entry)]
        for entry in rows:
            metric = metric_of(comparison, entry["metric"])
            name = (metric.short or metric.label).removesuffix(" %")
            value = metric.show(entry["value"][0], signed=True)
            interval = metric.show_interval(entry["value"], signed=True)
            word = judge(metric, entry["value"])
            yield Padding(Text(f"{entry['a']}: {name} {value} ({interval}), {p_value(entry)}, {word}"), (0, 0, 0, 2))
        if not rows:
            yield Text("  none")
