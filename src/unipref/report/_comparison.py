"""Methods side by side: the page, the Markdown table and the terminal's table of a `comparison.json`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from unipref.core.errors import DataError
from unipref.core.io import write_text
from unipref.report import _figures
from unipref.report._doctor import doctor_view
from unipref.report._folder import SAMPLES_PAGE
from unipref.report._page import data_view, dots, environment
from unipref.report._words import MINUS, NOTHING, PER_TOKEN, Metric, bracket, found, listed, metric_of, tick

__all__ = [
    "COMPARISON", "clear", "difference_plot", "p_value", "render_comparison", "who_differs", "write_comparison",
    "write_table",
]  # fmt: skip

COMPARISON = "comparison.json"
ALPHA = 0.05
FEW = 4  # names that a headline spells out
_SELECT = {
    "accuracy": "reward accuracy",
    "ranking_accuracy": "ranking accuracy",
    "ranking_accuracy_per_token": "ranking accuracy per token",
    "log_score": "log score",
}


def write_comparison(folder: Path | str) -> Path:
    """Write `report.html` into the folder of a comparison; its path.

    Raises:
        DataError: the folder holds no whole `comparison.json`.
    """
    folder = Path(folder)
    path = folder / "report.html"
    more_samples = (folder / SAMPLES_PAGE).exists()
    page = environment().get_template("comparison.html.j2")
    write_text(path, page.render(**_view(folder, _load(folder)), more_samples=more_samples))
    return path


def write_table(folder: Path | str) -> Path:
    """Write `table.md` into the folder of a comparison: the methods, what the numbers mean, the command; its path.

    Raises:
        DataError: the folder holds no whole `comparison.json`.
    """
    folder = Path(folder)
    comparison = _load(folder)
    metrics = _columns(comparison)
    heads = ["method", "learning rate", *(metric.short for metric in metrics), _versus(comparison)]
    lines = [f"**{headline(comparison)}** {detail(comparison)}", "", _row(heads), _row(["---"] * len(heads))]
    for name, entry in _ordered(comparison):
        cells = [_bracket(metric, entry) for metric in metrics]
        lines.append(_row([f"`{entry['written']}`", _rate(entry), *cells, _tested(comparison, name)]))
    lines += [_row([f"`{entry['written']}`", f"failed: {entry['reason']}"]) for _, entry in _failed(comparison)]
    lines += ["", *(f"- {note}" for note in notes(comparison))]
    if comparison["left_out"]:
        lines += ["", "Left out:", "", *(f"- `{each['method']}`: {each['reason']}" for each in comparison["left_out"])]
    if comparison["command"]:
        lines += ["", "Made with:", "", "```sh", comparison["command"], "```"]
    path = folder / "table.md"
    write_text(path, "\n".join(lines) + "\n")
    return path


def render_comparison(comparison: Mapping[str, Any]) -> RenderableType:
    """What `comparison.json` says, for a `rich` console: one line per method, the verdict last."""
    return _Terminal(comparison)


class _Terminal:
    def __init__(self, comparison: Mapping[str, Any]) -> None:
        self.comparison = comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        comparison, metrics = self.comparison, _columns(self.comparison)
        entries = _ordered(comparison)
        room = options.max_width
        for i, block in enumerate(_blocks(metrics, entries, room)):
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            table.add_column("method", no_wrap=True)
            if i == 0:
                table.add_column("rate", no_wrap=True)
                table.add_column(_versus(comparison), no_wrap=True)
            for metric in block:
                table.add_column(metric.short, no_wrap=True)
            for name, entry in entries:
                first = [_rate(entry), _tested(comparison, name)] if i == 0 else []
                table.add_row(*map(Text, [name, *first, *(_bracket(metric, entry) for metric in block)]))
            yield table
            yield Text()
        for name, entry in _failed(comparison):
            yield Text(f"{name}: failed: {entry['reason']}", style="red")
        if comparison["left_out"]:
            n = len(comparison["left_out"])
            yield Text(f"{n} left out, because the data or the recipe lack what they need; the report says what.")
        yield Text(headline(comparison), style="bold")
        yield Text(detail(comparison))


def _blocks(metrics: Sequence[Metric], entries: Sequence[Any], room: int) -> Iterator[list[Metric]]:
    """The metrics in tables of as many as fit."""
    name = max([len(name) for name, _ in entries] or [0]) + 2
    taken, block = name + 40, []
    for metric in metrics:
        width = max([len(metric.short), *(len(_bracket(metric, entry)) for _, entry in entries)]) + 2
        if taken + width > room and block:
            yield block
            taken, block = name, []
        block.append(metric)
        taken += width
    yield block


# ---- words ----


def headline(comparison: Mapping[str, Any]) -> str:
    """Who differs from the baseline, or why this is no ranking."""
    unequal = comparison["settings"]["unequal_tuning"]
    if unequal:
        return f"Not a ranking: {unequal}."
    baseline, metric = comparison["settings"]["baseline"], primary(comparison)
    rows = [entry for entry in comparison["differences"] if entry["metric"] == metric.key]
    if not rows:
        return "Nothing is compared: the baseline failed, or it is alone."
    return who_differs(rows, f"held-out {metric.label}", baseline, what="method")


def detail(comparison: Mapping[str, Any]) -> str:
    """On what terms the methods were compared."""
    settings, split = comparison["settings"], comparison["data"].get("split", {})
    n_rates, seeds = len(settings["learning_rates"]), settings["seeds"]
    many = f"{len(seeds)} seeds" if len(seeds) > 1 else f"one seed ({seeds[0]})"
    rows = f"{split.get('train', NOTHING)} training, {split.get('validation', NOTHING)} validation and "
    rows += f"{split.get('heldout', NOTHING)} test records"
    if settings["unequal_tuning"]:
        tuned = "Better numbers may come from better settings alone"
    else:
        rates = ", ".join(f"{rate:g}" for rate in settings["learning_rates"])
        tuned = (
            f"Each method had {n_rates} learning rates ({rates}), chosen by {_SELECT[settings['select']]} on validation"
        )
    return f"{tuned}; {many}; {rows}. It holds for this model, these data and this budget, and no further."


def notes(comparison: Mapping[str, Any]) -> list[str]:
    """What a reader could get wrong."""
    settings = comparison["settings"]
    n = sum(entry["metric"] == "accuracy" for entry in comparison["differences"])
    several = len(settings["seeds"]) > 1
    told = [
        "Brackets are 95 % intervals over conversations, "
        + ("all seeds of a conversation drawn together; ± is the standard deviation over seeds." if several else
           "for these trained models: with one seed the luck of training is not in them."),
        f"p: conversations exchanged at random between a method and {settings['baseline']}, adjusted for {n} "
        "comparisons by Holm's method.",
        "Reward accuracy and margin read log-probability against the model that training started from, for methods "
        "without a reference in their loss too; ranking accuracy reads the trained model alone.",
        "Calibration (ECE, log score) is after one temperature per trained model, fitted on validation pairs, so that "
        "the scale of the margins does not decide.",
        "Drift is the change of the log-probability of the answers people chose and rejected, per token: both falling "
        "is likelihood displacement.",
    ]  # fmt: skip
    edge = [name for name, entry in comparison["methods"].items() if entry.get("at_edge")]
    if edge:
        told.append(f"An asterisk marks a rate at the end of those tried; a better one may lie beyond: {listed(edge)}.")
    if not any(entry.get("n", {}).get("generations") for entry in comparison["methods"].values()):
        told.append("KL and length need generations; none were drawn (sampling.prompts is 0).")
    inferred = [name for name, entry in comparison["methods"].items() if entry["status"] == "reconstructed"]
    if inferred:
        told.append(f"Partly inferred, because the source leaves something open: {listed(inferred)}.")
    return told


def primary(comparison: Mapping[str, Any]) -> Metric:
    """The metric that methods are ranked and tested by: the one they were tuned for, where it has a test."""
    key = comparison["settings"]["select"]
    return metric_of(comparison, key if any(d["metric"] == key for d in comparison["differences"]) else "accuracy")


def who_differs(rows: Sequence[Mapping[str, Any]], of: str, baseline: str, *, what: str) -> str:
    """Which of the differences `rows` of one metric are clear after Holm's method, in a sentence."""
    clear_ = [row for row in rows if clear(row)]
    higher, lower = ([row["a"] for row in clear_ if sign * row["value"][0] > 0] for sign in (1, -1))
    told = [f"{_some(names, what)} {word}" for names, word in ((higher, "higher"), (lower, "lower")) if names]
    if not told:
        return f"No {what}'s {of} clearly differs from {baseline}'s."
    rest = len(rows) - len(higher) - len(lower)
    others = f"; nothing is shown for the other{f' {rest}' if rest > 1 else ''}" if rest else ""
    return f"{of[0].upper()}{of[1:]} against {baseline}: {', '.join(told)}{others}."


def _some(names: Sequence[str], what: str) -> str:
    return listed(names) if len(names) <= FEW else f"{len(names)} {what}s"


# ---- numbers ----


def _columns(comparison: Mapping[str, Any]) -> list[Metric]:
    designer = comparison["designer"]
    known = [
        Metric("accuracy", "reward accuracy", "share", 1, "accuracy %"),
        Metric("ranking_accuracy", "ranking accuracy", "share", 1, "ranking %"),
        PER_TOKEN,
        Metric("margin", "reward margin, nats", "nats", 0, "margin nats"),
        Metric("drift_per_token.chosen", "drift of chosen, nats per token", "score", 0, "chosen drift"),
        Metric("drift_per_token.rejected", "drift of rejected, nats per token", "score", 0, "rejected drift"),
        *(metric_of(comparison, f"aux.{name}.generations") for name in designer),
        Metric("kl", "KL to the start, nats", "nats", 0, "KL nats"),
        Metric("length", "length, tokens", "tokens", 0, "length"),
        Metric("calibration.ece", "calibration error", "score", -1, "ECE"),
        Metric("calibration.log_score", "log score, nats", "score", 1, "log score"),
        Metric("seconds", "seconds per run", "seconds", 0, "seconds"),
        Metric("tokens", "tokens through the engine", "count", 0, "tokens"),
    ]
    done = [entry for _, entry in _ordered(comparison)]
    return [m for m in known if any((found(entry, m.key) or [None])[0] is not None for entry in done)]


def _ordered(comparison: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The methods that were judged: by their rank, or as they were named where this is no ranking."""
    done = [(name, entry) for name, entry in comparison["methods"].items() if entry["state"] == "done"]
    if comparison["settings"]["unequal_tuning"]:
        return done
    select = comparison["settings"]["select"]
    key = "calibration.log_score" if select == "log_score" else select
    return sorted(done, key=lambda pair: -((found(pair[1], key) or [None])[0] or -math.inf))


def _failed(comparison: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, entry) for name, entry in comparison["methods"].items() if entry["state"] == "failed"]


def _bracket(metric: Metric, entry: Mapping[str, Any]) -> str:
    triple = found(entry, metric.key)
    if triple is None or triple[0] is None:
        return NOTHING
    text = metric.bare(triple[0]) if triple[1] is None else bracket(metric, triple)
    deviation = entry.get("seed_deviation", {}).get(metric.key)
    return text if deviation is None else f"{text} ± {metric.bare(deviation)}"


def _rate(entry: Mapping[str, Any]) -> str:
    return f"{entry['learning_rate']:g}{'*' if entry['at_edge'] else ''}".replace("-", MINUS)


def _versus(comparison: Mapping[str, Any]) -> str:
    return f"{primary(comparison).label} against {comparison['settings']['baseline']}"


def _difference(comparison: Mapping[str, Any], name: str, key: str) -> Mapping[str, Any] | None:
    return next((d for d in comparison["differences"] if (d["a"], d["metric"]) == (name, key)), None)


def _tested(comparison: Mapping[str, Any], name: str) -> str:
    metric = primary(comparison)
    entry = _difference(comparison, name, metric.key)
    if entry is None or entry["value"][0] is None:
        return NOTHING
    return f"{bracket(metric, entry['value'], signed=True)}, {p_value(entry)}"


def clear(entry: Mapping[str, Any]) -> bool:
    """Whether a difference is clear after Holm's method."""
    return entry["p_holm"] is not None and entry["p_holm"] <= ALPHA


def p_value(entry: Mapping[str, Any]) -> str:
    """The adjusted p of a difference, as a reader sees it."""
    p = entry["p_holm"]
    return "no test" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


# ---- the page ----


def _view(folder: Path, comparison: Mapping[str, Any]) -> dict[str, Any]:
    ordered = _ordered(comparison)
    entries = dict(ordered)
    metrics = _columns(comparison)
    metric = primary(comparison)
    names = [name for name, _ in ordered]
    scatter = _figures.scatter(
        [
            (name, entry["drift_per_token"]["chosen"][0], (found(entry, metric.key) or [None])[0])
            for name, entry in ordered
        ]
    )
    return {
        "comparison": comparison,
        "name": comparison["name"],
        "version": comparison["version"],
        "created": comparison["created"],
        "headline": headline(comparison),
        "detail": detail(comparison),
        "notes": notes(comparison),
        "settings": comparison["settings"],
        "select": _SELECT[comparison["settings"]["select"]],
        "metric": metric,
        "versus": _versus(comparison),
        "colour": {name: i % 8 for i, name in enumerate(comparison["methods"])},
        "columns": metrics,
        "table": [_line(comparison, name, entry, metrics) for name, entry in ordered],
        "failed": _failed(comparison),
        "main": dots(metric, entries),
        "differences": [
            difference_plot(comparison, names, key)
            for key in dict.fromkeys(entry["metric"] for entry in comparison["differences"])
        ],
        "scatter": scatter,
        "scatter_ticks": [(scatter.y.at(t), tick(metric, t)) for t in scatter.y.ticks] if scatter else [],
        "tuning": _tuning(comparison),
        "data": data_view(_json(folder / "data.json")),
        "doctor": doctor_view(_json(folder / "doctor.json")),
        "recipe": _text(folder / "recipe.yaml"),
        "citations": _text(folder / "citations.bib"),
    }


def _line(
    comparison: Mapping[str, Any], name: str, entry: Mapping[str, Any], metrics: Sequence[Metric]
) -> dict[str, Any]:
    cells = []
    for metric in metrics:
        triple = found(entry, metric.key) or [None, None, None]
        deviation = entry.get("seed_deviation", {}).get(metric.key)
        cells.append(
            {
                "metric": metric,
                "triple": triple,
                "shown": metric.show(triple[0]),
                "interval": metric.show_interval(triple) if triple[1] is not None else "",
                "seeds": "" if deviation is None else f"± {metric.bare(deviation)} over seeds",
            }
        )
    return {"name": name, "entry": entry, "rate": _rate(entry), "cells": cells, "tested": _tested(comparison, name)}


def difference_plot(comparison: Mapping[str, Any], names: Sequence[str], key: str) -> dict[str, Any]:
    """A row per method on one axis around zero."""
    metric = metric_of(comparison, key)
    rows = []
    for name in names:
        entry = _difference(comparison, name, key)
        if entry is None:
            continue
        signs = [value * (entry["value"][0] or 0) > 0 for value in entry["by_seed"].values()]
        seeds = f", {sum(signs)} of {len(signs)} seeds" if len(signs) > 1 else ""
        direction = metric.better * (1 if (entry["value"][0] or 0) > 0 else -1)
        rows.append(
            {
                "run": name,
                "triple": entry["value"],
                "shown": metric.show(entry["value"][0], signed=True),
                "interval": "" if entry["value"][0] is None else metric.show_interval(entry["value"], signed=True),
                "told": p_value(entry) + seeds + ("" if entry.get("paired", True) else ", not paired"),
                "p": entry["p_holm"],
                "word": "unclear" if not clear(entry) else {1: "better", -1: "worse", 0: "higher"}[direction],
            }
        )
    axis = _figures.axis([x for row in rows for x in row["triple"]], around_zero=True)
    ticks = [(axis.at(t), tick(metric, t).removesuffix(" %")) for t in axis.ticks]
    measured = any(row["triple"][0] is not None for row in rows)
    return {"metric": metric, "rows": rows, "axis": axis, "ticks": ticks, "measured": measured}


def _tuning(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Validation by learning rate: a line per method, and the numbers as a table; empty where nothing was tuned."""
    select = comparison["settings"]["select"]
    unit = "score" if select == "log_score" else "share"
    metric = Metric(select, _SELECT[select], unit, 1)
    rates = sorted({run["learning_rate"] for entry in comparison["methods"].values() for run in entry["tuning"]})
    lines, rows = [], []
    for name, entry in comparison["methods"].items():
        values = {run["learning_rate"]: (run["validation"] or {}).get(select) for run in entry["tuning"]}
        if len(values) < 2:
            continue
        failed = {run["learning_rate"] for run in entry["tuning"] if run["state"] == "failed"}
        cells = [
            {"rate": rate, "value": values.get(rate), "chosen": rate == entry.get("learning_rate"),
             "shown": "failed" if rate in failed else metric.show(values.get(rate))}
            for rate in rates
        ]  # fmt: skip
        rows.append({"run": name, "cells": cells})
        lines.append((name, [(math.log10(rate), value) for rate, value in values.items() if value is not None]))
    panel = _figures.lines(select, f"Validation {metric.label} by learning rate", lines, [math.log10(r) for r in rates])
    return {
        "rates": rates,
        "rows": rows,
        "panel": panel,
        "labels": {math.log10(rate): f"{rate:g}" for rate in rates},
    }


def _load(folder: Path) -> dict[str, Any]:
    path = folder / COMPARISON
    if not path.exists():
        raise DataError(f"{folder} holds no {COMPARISON}; run `unipref compare` to its end first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); run `unipref compare --resume` to write it again") from err


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
