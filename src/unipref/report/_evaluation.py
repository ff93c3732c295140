"""One HTML file that says what preference models are worth on held-out pairs, from `evaluation.json`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import unipref
from unipref.core.errors import DataError
from unipref.core.io import write_text
from unipref.report import _figures
from unipref.report import _judged as words
from unipref.report._comparison import clear, p_value
from unipref.report._page import data_view, dots, environment
from unipref.report._words import NOTHING, Metric, tick

__all__ = ["EVALUATION", "columns_of", "triple_of", "write_evaluation"]

EVALUATION = "evaluation.json"
NBSP = "\N{NO-BREAK SPACE}"
N_OPEN = 12  # rows of a figure that are seen without unfolding

Triple = Sequence[float | None]
Entry = Mapping[str, Any]
ACCURACY = Metric("accuracy", "accuracy", "share", 1, "accuracy %")
METRICS = {
    "accuracy": ACCURACY,
    "agreement": Metric("agreement", "agreement with a vote", "share", 1, "agreement %"),
    "nll": Metric("nll", "NLL", "score", -1, "NLL"),
    "brier": Metric("brier", "Brier score", "score", -1, "Brier"),
    "debiased": Metric("debiased", "calibration error", "share", -1, "calibration %"),
    "left_out": Metric("left_out", "domain left out", "share", 1, "left out %"),
    "worst_domain": Metric("worst_domain", "worst domain", "share", 1, "worst domain %"),
    "worst_user": Metric("worst_user", "worst user", "share", 1, "worst user %"),
    "overall": Metric("overall", "mean of sections", "share", 1, "sections %"),
    "seconds": Metric("seconds", "training, seconds", "seconds", 0, "seconds"),
}


def write_evaluation(folder: Path | str) -> Path:
    """Write `report.html` into `folder` from its `evaluation.json`; its path.

    The page loads nothing, as every report. Its figures carry the numbers of the JSON unrounded: data-figure says of
    what, data-run or data-model of which model, data-value, data-low and data-high are the number and its interval.
    `data.json`, `recipe.yaml` and `citations.bib` are shown where they stand beside it.

    Raises:
        DataError: the folder holds no whole `evaluation.json`.
    """
    folder = Path(folder)
    path = folder / "report.html"
    page = environment().get_template("evaluation.html.j2")
    beside = {name: _text(folder / file) for name, file in _BESIDE.items()}
    write_text(path, page.render(**_view(_load(folder)), data=data_view(_data(folder)), **beside))
    return path


_BESIDE = {"recipe": "recipe.yaml", "citations": "citations.bib"}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _data(folder: Path) -> dict[str, Any]:
    return json.loads(_text(folder / "data.json") or "{}")


def _load(folder: Path) -> dict[str, Any]:
    path = folder / EVALUATION
    if not path.exists():
        raise DataError(f"{folder} holds no {EVALUATION}; run `unipref reward train` or `unipref reward eval` first")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); run `unipref reward eval` again to write it") from err


def _view(told: Entry) -> dict[str, Any]:
    names = [told["main"], *(name for name in told["models"] if name != told["main"])]
    models = {name: told["models"][name] for name in names}
    colour = {name: i % 7 for i, name in enumerate(names)} | dict.fromkeys(told["baselines"], 7)
    every = {**models, **told["baselines"]}
    columns = columns_of(told)
    return {
        "result": told,
        "words": words,
        "name": told.get("name", "preference models"),
        "version": told.get("version", unipref.__version__),
        "created": told.get("created", "an unknown day"),
        "split": told.get("split") or {},
        "main": told["main"],
        "models": models,
        "colour": colour,
        "headline": words.headline(told),
        "detail": words.detail(told),
        "notes": [*words.notes(told), *told.get("notes", ())],
        "checks": {name: words.checks(told, name) for name in names},
        "accuracy": dots(ACCURACY, {name: {"accuracy": entry["accuracy"]} for name, entry in every.items()}),
        "columns": columns,
        "table": _table(told, models, columns),
        "differences": _differences(told, names),
        "calibration": {name: _calibration(entry["calibration"]) for name, entry in models.items()},
        "domains": {name: _domains(name, entry) for name, entry in models.items()},
        "users": {name: _users(name, entry) for name, entry in models.items() if entry["by_user"]},
        "sections": {name: _sections(name, entry["sections"]) for name, entry in models.items() if entry["sections"]},
        "length": {name: _length(name, entry["length"]) for name, entry in models.items() if entry["length"]},
        "best_of": {name: _best_of(entry["best_of"]) for name, entry in models.items() if entry["best_of"]},
        "metric": ACCURACY,
        "n_open": N_OPEN,
    }


# ---- models side by side ----


def columns_of(told: Entry) -> list[Metric]:
    """The metrics that some model has a number of; without agreement where it is accuracy, on undivided labels."""
    models, divided = told["models"], told["pairs"]["soft"] + told["pairs"]["ties"]
    known = [m for m in METRICS.values() if divided or m.key != "agreement"]
    return [m for m in known if any(triple_of(e, m.key)[0] is not None for e in models.values())]


def triple_of(entry: Entry, key: str) -> Triple:
    """[value, low, high] of a model's metric; [None, None, None] where it has none."""
    if key == "debiased":
        return [entry["calibration"]["debiased"], None, None]
    if key == "seconds":
        return [entry.get("seconds"), None, None]
    part: Any = entry[key] if key != "overall" else (entry["sections"] or {}).get("overall")
    if isinstance(part, Mapping):
        part = part["weighted" if key == "overall" else "accuracy"]
    return part or [None, None, None]


def _table(told: Entry, models: Entry, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    rows = [(name, [triple_of(entry, m.key) for m in metrics]) for name, entry in models.items()]
    rows += [
        (name, [entry["accuracy"] if m.key == "accuracy" else [None] * 3 for m in metrics])
        for name, entry in told["baselines"].items()
    ]
    return [
        {
            "name": name,
            "method": "" if name in models else "simple rule",
            "cells": [
                {**_cell(m, triple), "metric": m, "scored": ""} for m, triple in zip(metrics, triples, strict=True)
            ],
        }
        for name, triples in rows
    ]


def _cell(metric: Metric, triple: Triple, *, signed: bool = False) -> dict[str, Any]:
    interval = "" if triple[1] is None else metric.show_interval(triple, signed=signed)
    return {"triple": triple, "shown": metric.show(triple[0], signed=signed), "interval": interval}


def _differences(told: Entry, names: Sequence[str]) -> list[dict[str, Any]]:
    """Per other side and metric a forest of the models minus it."""
    plots = []
    for b, key in dict.fromkeys((entry["b"], entry["metric"]) for entry in told["differences"]):
        metric = METRICS[key]
        rows = []
        for entry in sorted(told["differences"], key=lambda entry: names.index(entry["a"])):
            if (entry["b"], entry["metric"]) != (b, key):
                continue
            up = (entry["value"][0] or 0) > 0
            word = "unclear" if not clear(entry) else "better" if up == (metric.better > 0) else "worse"
            rows.append({"run": entry["a"], **_cell(metric, entry["value"], signed=True), "told": p_value(entry),
                         "p": entry["p_holm"], "word": word})  # fmt: skip
        axis = _figures.axis([x for row in rows for x in row["triple"]], around_zero=True)
        ticks = [(axis.at(t), tick(metric, t).removesuffix(" %")) for t in axis.ticks]
        measured = any(row["triple"][0] is not None for row in rows)
        plots.append({"b": b, "metric": metric, "rows": rows, "axis": axis, "ticks": ticks, "measured": measured,
                      "rule": b in told["baselines"]})  # fmt: skip
    return plots


# ---- calibration ----


def _calibration(found: Entry) -> dict[str, Any]:
    """The reliability curve on square axes, and the numbers beside it."""
    ends = [x for point in found["curve"] for x in (point["confidence"], *point["right"])]
    low = min([0.5, *(x for x in ends if x is not None)])
    axis = _figures.Axis(math.floor(10 * low) / 10, 1.0, tuple(i / 10 for i in range(math.floor(10 * low), 11)))
    points = [
        {
            **point,
            "x": axis.at(point["confidence"]),
            "y": axis.at(point["right"][0]),
            "ends": None if point["right"][1] is None else [axis.at(end) for end in point["right"][1:]],
            "sure": ACCURACY.show(point["confidence"]),
            **_cell(ACCURACY, point["right"]),
        }
        for point in found["curve"]
    ]
    temperature = found["temperature"]
    return {
        **found,
        "points": points,
        "axis": axis,
        "ticks": [(axis.at(t), tick(ACCURACY, t)) for t in axis.ticks],
        "chance": f"{ACCURACY.show(found['ece_by_chance'][0])}, up to {ACCURACY.show(found['ece_by_chance'][1])}",
        "p_shown": "< 0.001" if found["ece_p"] < 0.001 else f"{found['ece_p']:.2g}",
        "temperature_shown": NOTHING if temperature is None else f"{temperature:.2f}",
    }


# ---- by group ----


def _plot(key: str, rows: Mapping[str, tuple[Triple, str]]) -> dict[str, Any]:
    """A figure of accuracies by name, each with what stands behind its interval."""
    plot = dots(ACCURACY, {name: {"accuracy": triple} for name, (triple, _) in rows.items()})
    for row in plot["rows"]:
        row["scored"] = rows[row["run"]][1]
    metric = Metric(key, ACCURACY.label, "share", 1)
    return {**plot, "metric": metric, "colour": dict.fromkeys(rows, 0)}


def _domains(name: str, entry: Entry) -> dict[str, Any] | None:
    by_domain, left_out = entry["by_domain"], entry["left_out"]
    if len(by_domain) < 2:
        return None
    rows = sorted(by_domain.items(), key=lambda item: -(item[1]["accuracy"][0] or 0))
    away = None
    if left_out:
        away = {
            **left_out,
            "cell": _cell(ACCURACY, left_out["difference"], signed=True),
            "rows": [
                {"name": domain, "n": each["n"], "with": _cell(ACCURACY, by_domain[domain]["accuracy"]),
                 "without": _cell(ACCURACY, each["accuracy"]),
                 "difference": _cell(ACCURACY, each["difference"], signed=True)}
                for domain, each in left_out["by_domain"].items()
            ],
        }  # fmt: skip
    return {
        "plot": _plot("by_domain", {d: (each["accuracy"], f"n{NBSP}={NBSP}{each['n']:,}") for d, each in rows}),
        "worst": _worst(entry["worst_domain"]),
        "left_out": away,
    }


def _worst(found: Entry | None) -> dict[str, Any] | None:
    return None if found is None else {**found, **_cell(ACCURACY, found["accuracy"])}


def _users(name: str, entry: Entry) -> dict[str, Any] | None:
    by_user = entry["by_user"]
    if len(by_user["users"]) + by_user["few"]["users"] < 2:
        return None
    rows = sorted(by_user["users"].items(), key=lambda item: item[1]["accuracy"][0])
    shown = {
        user: (each["accuracy"], f"n{NBSP}={NBSP}{each['n']:,}; shrunk {ACCURACY.bare(each['shrunk'])}")
        for user, each in rows
    }
    plot = _plot("by_user", shown) if shown else None
    return {
        **by_user,
        "plot": plot and {**plot, "rows": plot["rows"][:N_OPEN]},
        "rest": plot and {**plot, "rows": plot["rows"][N_OPEN:]},
        "worst": _worst(entry["worst_user"]),
        "few_cell": _cell(ACCURACY, by_user["few"]["accuracy"]),
    }


def _sections(name: str, found: Entry) -> dict[str, Any]:
    subsets = found["subsets"]

    def plot(names: Sequence[str], key: str) -> dict[str, Any]:
        ties = {each: f"; {words.plural(subsets[each]['ties'], 'equal score')}" if subsets[each]["ties"] else ""
                for each in names}  # fmt: skip
        return _plot(key, {each: (subsets[each]["accuracy"], f"n{NBSP}={NBSP}{subsets[each]['n']:,}{ties[each]}")
                           for each in names})  # fmt: skip

    sections = []
    for section, each in found["sections"].items():
        told = {key: _cell(ACCURACY, each[key]) for key in ("weighted", "unweighted", "strict") if key in each}
        sections.append({"name": section, "told": told, "absent": each["absent"],
                         "plot": plot(each["subsets"], section) if each["subsets"] else None})  # fmt: skip
    overall = found["overall"]
    return {
        "overall": overall and {key: _cell(ACCURACY, triple) for key, triple in overall.items()},
        "sections": sections,
        "elsewhere": plot(found["elsewhere"], "subsets") if found["elsewhere"] else None,
    }


# ---- length, over-optimisation ----


def _length(name: str, found: Entry) -> dict[str, Any]:
    n = found["n"]
    rows = {
        "where people chose the longer": (found["accuracy_longer_chosen"], f"n{NBSP}={NBSP}{n['longer_chosen']:,}"),
        "where people chose the shorter": (found["accuracy_shorter_chosen"], f"n{NBSP}={NBSP}{n['shorter_chosen']:,}"),
    }
    chooses = {
        "chosen by the model": (found["chooses_longer"], ""),
        "chosen by people": (found["people_choose_longer"], ""),
    }
    correlation = found["correlation"]
    number = Metric("correlation", "correlation", "score")
    return {
        **found,
        "right": _plot("accuracy by length", rows),
        "chooses": _plot("longer chosen", chooses),
        "gap_cell": _cell(ACCURACY, found["gap"], signed=True),
        "excess_cell": _cell(ACCURACY, found["excess"], signed=True),
        "correlation_cell": _cell(number, correlation, signed=True),
    }


def _marked(n: int, k: int) -> bool:
    return n == k or (n & (n - 1) == 0 and 1.5 * n < k)


def _best_of(found: Entry) -> dict[str, Any]:
    """Gold and proxy over sqrt(KL), each in a panel of its own units."""
    d = [math.sqrt(kl) for kl in found["kl"]]
    number = Metric("gold", "gold reward", "score", 1)
    panels = []
    for key, title in (("gold", "Gold reward of the best of n"), ("proxy", "The model's own reward of the same")):
        triples = found[key]
        y = _figures.axis([x for triple in triples for x in triple])
        room = 0.04 * d[-1] or 0.5
        x = _figures.Axis(-room, d[-1] + room, ())
        points = [(_figures.x_at(x, at), _figures.y_at(y, triple[0])) for at, triple in zip(d, triples, strict=True)]
        ends = [(_figures.x_at(x, at), triple) for at, triple in zip(d, triples, strict=True) if triple[1] is not None]
        band = [(at, _figures.y_at(y, triple[2])) for at, triple in ends]
        band += [(at, _figures.y_at(y, triple[1])) for at, triple in reversed(ends)]
        marks = [(_figures.x_at(x, at), n) for at, n in zip(d, found["n"], strict=True) if _marked(n, found["k"])]
        panels.append({"key": key, "title": title, "y": y, "points": points, "marks": marks,
                       "band": " ".join(f"{at},{height}" for at, height in band)})  # fmt: skip
    peak, fall = found["peak"], found["fall"]
    if found["k"] < 2:
        sentence = "One sample a prompt: there is nothing to choose from."
    elif found["overoptimised"]:
        sentence = (
            f"Over-optimised: the gold reward is greatest at n = {peak['n']} (in 95 % of resamples at "
            f"{peak['n_range'][0]} to {peak['n_range'][1]}) and falls towards n = {found['k']}, "
            f"by {number.show(fall[0])} ({number.show_interval(fall)})."
        )
    else:
        sentence = f"No fall of the gold reward is shown up to n = {found['k']}; it is greatest at n = {peak['n']}."
    return {
        **found,
        "panels": panels,
        "sentence": sentence,
        "rows": [
            {"n": n, "kl": f"{kl:.2f}", "gold": _cell(number, gold), "proxy": _cell(number, proxy)}
            for n, kl, gold, proxy in zip(found["n"], found["kl"], found["gold"], found["proxy"], strict=True)
        ],
        "fit_cells": {key: _cell(number, triple) for key, triple in (found["fit"] or {}).items()},
    }
