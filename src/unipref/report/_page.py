"""One HTML file that shows a run folder and needs no network."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from unipref.core.io import write_text
from unipref.report import _figures
from unipref.report._doctor import doctor_view
from unipref.report._dynamics import dynamics_notes
from unipref.report._folder import REFERENCE, SAMPLES_PAGE, RunFolder, load
from unipref.report._fronts import fronts_view
from unipref.report._words import Metric, columns, found, judge, metric_of, nothing_compared, tick, verdicts

__all__ = ["CURVES", "N_SAMPLES", "by_seed", "cell_of", "data_view", "dots", "environment", "table_rows", "write_page"]

N_SAMPLES = 40
N_SET_ASIDE = 50

CURVES = {
    "loss": "Loss",
    "rewards/accuracies": "Reward accuracy (training rows)",
    "rewards/margins": "Reward margin",
    "logps/chosen": "Log-prob of chosen responses",
    "logps/rejected": "Log-prob of rejected responses",
    "upo/gradient_ratio": "Auxiliary to preference gradient",
    "upo/ess": "Effective sample size of UPO's weights",
    "upo/advantage": "Mean advantage",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
}

_GROUPS = {
    "share": "Percentage points",
    "score": "Designer scores, in their own units",
    "nats": "Nats per response",
    "tokens": "Tokens per generation",
}


def write_page(run_folder: Path | str) -> Path:
    """Write `report.html` into `run_folder` from what is in it; its path.

    The page loads nothing: styles, scripts and figures are inside, and its content policy forbids every request. Every
    figure carries data attributes (data-run, data-metric, data-value, data-low, data-high) with the numbers of
    `summary.json` unrounded.

    Raises:
        DataError: the folder holds no `summary.json`.
    """
    folder = Path(run_folder)
    page = (
        environment()
        .get_template("page.html.j2")
        .render(**_view(load(folder)), more_samples=(folder / SAMPLES_PAGE).exists())
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


@cache
def environment() -> Environment:
    """Where the templates are found; they see the module `_figures` as `fig`."""
    made = Environment(
        loader=PackageLoader("unipref.report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["fig"] = _figures
    return made


def _view(folder: RunFolder) -> dict[str, Any]:
    summary = folder.summary
    runs = list(summary["runs"])
    table = columns(summary)
    entries = dict(summary["runs"])
    if summary.get("reference"):
        entries[REFERENCE] = summary["reference"]
    told = verdicts(summary)
    alarms = [{"run": name, **alarm} for name, run in summary["runs"].items() for alarm in run.get("alarms", ())]
    return {
        "summary": summary,
        "name": summary["name"],
        "version": summary["version"],
        "created": summary["created"],
        "runs": runs,
        "colour": {name: i % 8 for i, name in enumerate([*runs, REFERENCE])},
        "reference": REFERENCE,
        "verdicts": told,
        "nothing_compared": nothing_compared(summary),
        "alarms": sorted(alarms, key=lambda alarm: alarm["level"] != "error"),
        "dynamics": dynamics_notes(summary),
        "seeds": sorted({seed for run in summary["runs"].values() for seed in run.get("seeds", ())}),
        "table": table_rows(table, entries),
        "columns": table,
        "by_seed": by_seed(summary),
        "main_plots": [dots(metric, entries) for metric in table[:2]],
        "forests": [_forest(summary, verdict.a, verdict.b) for verdict in told],
        "fronts": fronts_view(summary),
        "objectives": [_objective(summary, name, entries) for name in summary["designer"]],
        "panels": [p for key, title in CURVES.items() if (p := _figures.panel(key, title, folder.curves)) is not None],
        "samples": folder.samples[:N_SAMPLES],
        "n_samples": len(folder.samples),
        "data": data_view(folder.data),
        "doctor": doctor_view(folder.doctor),
        "recipe": folder.recipe,
        "citations": folder.citations,
        "size": _size(summary),
    }


def _size(summary: Mapping[str, Any]) -> dict[str, Any]:
    return next((run["n"] for run in summary["runs"].values() if "n" in run), {})


def by_seed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Each seed's accuracy and scores; empty where there is one seed."""
    metrics = [metric for metric in columns(summary) if metric.key == "accuracy" or metric.key.startswith("aux.")]
    rows = [
        {"run": name, "seed": seed, "cells": [(metric, _of_seed(metric, entry)) for metric in metrics]}
        for name, run in summary["runs"].items()
        if len(run.get("by_seed", {})) > 1
        for seed, entry in run["by_seed"].items()
    ]
    return {"metrics": metrics, "rows": rows}


def _of_seed(metric: Metric, entry: Mapping[str, Any]) -> float | None:
    if metric.key == "accuracy":
        return entry["accuracy"]
    return entry["aux"][metric.key.removeprefix("aux.").removesuffix(".generations")]


def table_rows(metrics: Sequence[Metric], entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per run with a cell per metric."""
    return [
        {"name": name, "method": entry.get("method", ""), "cells": [cell_of(metric, entry) for metric in metrics]}
        for name, entry in entries.items()
    ]


def cell_of(metric: Metric, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A metric of a run as it is shown."""
    triple = found(entry, metric.key) or [None, None, None]
    interval = ""
    if triple[0] is not None and metric.unit != "seconds":
        interval = metric.show_interval(triple)
    return {
        "metric": metric,
        "triple": triple,
        "shown": metric.show(triple[0]),
        "interval": interval,
        "scored": _scored(metric, entry),
    }


def _scored(metric: Metric, entry: Mapping[str, Any]) -> str:
    """How many texts a mean is of, where scores are missing."""
    if found(entry, metric.key) is None or not (metric.key.startswith("aux.") and metric.key.endswith(".generations")):
        return ""
    missing = entry["aux"][metric.key.removeprefix("aux.").removesuffix(".generations")]["missing"]["generations"]
    n = entry.get("n", {}).get("generations")
    return f"{n - missing} of {n} scored" if missing and n else ""


def dots(metric: Metric, entries: Mapping[str, Any]) -> dict[str, Any]:
    """A row per run on one axis."""
    rows = [
        {"run": name, **cell_of(metric, entry)}
        for name, entry in entries.items()
        if found(entry, metric.key) is not None
    ]
    # what a run gets that has learned nothing; a ranking starts wherever the reference is
    chance = [0.5] if metric.unit == "share" and metric.key != "ranking_accuracy" else []
    axis = _figures.axis([*(x for row in rows for x in row["triple"]), *chance])
    ticks = [(axis.at(t), tick(metric, t)) for t in axis.ticks]
    return {"metric": metric, "rows": rows, "axis": axis, "ticks": ticks, "line": chance[0] if chance else None,
            "measured": any(row["triple"][0] is not None for row in rows)}  # fmt: skip


def _forest(summary: Mapping[str, Any], a: str, b: str) -> dict[str, Any]:
    """Differences a - b, those of one unit on one axis around zero."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in summary["differences"]:
        if (entry["a"], entry["b"]) != (a, b):
            continue
        metric = metric_of(summary, entry["metric"])
        groups.setdefault(metric.unit, []).append(
            {
                "metric": metric,
                "triple": entry["value"],
                "n": entry["n"],
                "shown": metric.show(entry["value"][0], signed=True),
                "interval": "" if entry["value"][0] is None else metric.show_interval(entry["value"], signed=True),
                "word": judge(metric, entry["value"]),
            }
        )
    drawn = []
    for unit, title in _GROUPS.items():
        if unit in groups:
            axis = _figures.axis([x for row in groups[unit] for x in row["triple"]], around_zero=True)
            ticks = [(axis.at(t), tick(groups[unit][0]["metric"], t).removesuffix(" %")) for t in axis.ticks]
            measured = any(row["triple"][0] is not None for row in groups[unit])
            drawn.append({"title": title, "rows": groups[unit], "axis": axis, "ticks": ticks, "measured": measured})
    return {"a": a, "b": b, "groups": drawn}


def _objective(summary: Mapping[str, Any], name: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    generated = metric_of(summary, f"aux.{name}.generations")
    concordance = Metric(f"aux.{name}.heldout", f"{name}, concordance on held-out", "share", generated.better)
    run = next(iter(summary["runs"].values()))["aux"][name]
    return {
        "name": name,
        "facts": summary["designer"][name],
        "agreement": run.get("agreement"),
        "conflict": _conflict(name, run.get("agreement"), generated.better),
        "data_mean": run["data_mean"],
        "missing": {
            other: entry["aux"][name]["missing"]
            for other, entry in entries.items()
            if any(entry["aux"][name]["missing"].values())
        },
        "plots": [dots(generated, entries), dots(concordance, entries)],
        "buckets": [bucket["words"] for bucket in run["by_length"]],
        "by_length": [
            {
                "run": other,
                **{
                    where: [_bucket(metric, bucket, where) for bucket in entry["aux"][name]["by_length"]]
                    for where, metric in (("generations", generated), ("heldout", concordance))
                },
            }
            for other, entry in entries.items()
        ],
        "metric": generated,
    }


def _bucket(metric: Metric, bucket: Mapping[str, Any], where: str) -> dict[str, Any]:
    triple = bucket.get(where) or [None, None, None]
    n = bucket["n"]
    return {
        "triple": triple,
        "shown": metric.show(triple[0]),
        "interval": metric.show_interval(triple) if triple[0] is not None else "",
        "n": n[where] if isinstance(n, Mapping) else n,
    }


def _conflict(name: str, agreement: Sequence[float | None] | None, better: int) -> str:
    if not agreement or agreement[1] is None or agreement[2] is None:
        return "Too few held-out pairs have different scores to say whether people agree with this objective."
    share = Metric("", "", "share")
    side = "higher" if better > 0 else "lower"
    value, low, high = agreement if better > 0 else [1 - agreement[0], 1 - agreement[2], 1 - agreement[1]]
    counts = f"People chose the {side}-scored answer in {share.show(value)} of the held-out pairs that it tells apart"
    counts += f" (95 % interval {share.show_interval([value, low, high])})"
    if high < 0.5:
        return f"{counts}: it conflicts with the preferences, so gaining on it is expected to cost accuracy."
    if low > 0.5:
        return f"{counts}: it goes with the preferences."
    return f"{counts}: it neither goes with the preferences nor against them."


def data_view(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data report, with its account of rows drawn apart from the rest."""
    parts = []
    for part, report in data.items():
        if not isinstance(report, Mapping) or "n_read" not in report:
            continue
        rows = [("rows read", report["n_read"])]
        rows.append(("kept", report["n_kept"]))
        rows += [(f"set aside: {reason}", n) for reason, n in report.get("counts", {}).items()]
        rows += [(f"left out: {reason}", n) for reason, n in report.get("left_out", {}).items()]
        rows += [(f"changed: {what}", n) for what, n in report.get("changed", {}).items()]
        parts.append(
            {
                "name": part,
                "rows": rows,
                "set_aside": report.get("set_aside", [])[:N_SET_ASIDE],
                "n_set_aside": report.get("n_set_aside", len(report.get("set_aside", []))),
                "notes": report.get("notes", []),
                "sources": report.get("sources", {}),
            }
        )
    drawn = {part["name"] for part in parts}
    return {"parts": parts, "rest": {key: value for key, value in data.items() if key not in drawn}}
