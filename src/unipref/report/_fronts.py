"""Pareto fronts of a summary: the figure, the numbers beside it, and in words what they show and what they do not."""

from collections.abc import Mapping, Sequence
from typing import Any

from unipref.report import _figures
from unipref.report._folder import REFERENCE
from unipref.report._words import Metric, bracket, judge, listed, metric_of, tick

__all__ = ["fronts_view", "told_of_front"]

BEFORE = "before alignment"
SURE = 0.95  # of the resamples
VOLUME = Metric("hypervolume", "hypervolume", "share", 1)


def fronts_view(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the page draws of each of the summary's `fronts`."""
    return [_view(summary, front) for front in summary.get("fronts") or ()]


def told_of_front(summary: Mapping[str, Any], front: Mapping[str, Any]) -> list[str]:
    """Sentences, the most important first: which family covers more, which runs are beaten, what could not be told."""
    metrics = _metrics(summary, front)
    return [
        *_of_families(front),
        *_of_runs(front),
        *(f"{run} is left out: {reason}." for run, reason in front["left_out"].items()),
        *_of_terms(front, metrics),
    ]


def _metrics(summary: Mapping[str, Any], front: Mapping[str, Any]) -> list[Metric]:
    return [metric_of(summary, axis["metric"]) for axis in front["axes"]]


# ---- words ----


def _of_families(front: Mapping[str, Any]) -> list[str]:
    families = front["families"]
    told: list[str] = []
    open_: list[str] = []
    undecided: list[str] = []
    unknown: list[str] = []
    for entry in front["differences"]:
        a, b, triple = entry["a"], entry["b"], entry["hypervolume"]
        word = judge(VOLUME, triple)
        if word == "worse":
            a, b, triple = b, a, [-triple[0], -triple[2], -triple[1]]
        if word in ("better", "worse"):
            shares = " against ".join(VOLUME.show(families[family]["hypervolume"][0]) for family in (a, b))
            number = f"{bracket(VOLUME, triple, signed=True)} points of the box"
            told.append(f"{a} covers more than {b}: {shares}, {number}.")
        elif triple[1] is None:
            unknown.append(f"{a} and {b}")
        else:
            undecided.append(f"{a} and {b} ({bracket(VOLUME, triple, signed=True)})")
    if undecided:
        open_.append(f"Could not be told apart, with their difference in points: {'; '.join(undecided)}.")
    if unknown:
        pairs = "; ".join(unknown)
        open_.append(f"No interval, because there are too few conversations or no resample differs: {pairs}.")
    empty = [family for family, entry in families.items() if not entry["runs"]]
    if empty:
        open_.append(f"Nothing is known of {listed(empty)}: no run has a value on every axis.")
    if not told and len(families) > 1 and front["differences"]:
        told.append("No family's front clearly covers more than another's.")
    return told + open_


def _of_runs(front: Mapping[str, Any]) -> list[str]:
    points = front["points"]
    runs = {run: point for run, point in points.items() if run != REFERENCE}
    told = []
    beaten = [run for run, point in points.items() if not point["on_front"] and point["on_front_share"] <= 1 - SURE]
    surely = [run for run in beaten if run != REFERENCE]
    if surely:
        told.append(
            "Beaten by another run (no worse on any axis, better on one) here and in at least 95 % of the resamples: "
            + "; ".join(f"{run}, by {listed([_name(other) for other in _beaten_by(front, run)])}" for run in surely)
            + "."
        )
    elif runs and all(point["on_front"] for point in runs.values()):
        told.append("No run is beaten on every axis by another: each is the best at its own trade.")
    unsure = [
        f"{_name(run)} ({100 * point['on_front_share']:.0f} %)"
        for run, point in points.items()
        if run not in beaten and not (point["on_front"] and point["on_front_share"] >= SURE)
    ]
    if unsure:
        told.append(f"Could not be told, with the share of resamples in which they are on the front: {listed(unsure)}.")
    if REFERENCE in beaten:
        told.append(f"The model before alignment is beaten by {listed(_beaten_by(front, REFERENCE))}.")
    worse = [run for run in runs if run not in beaten and REFERENCE in _beaten_by(front, run)]
    if worse:
        told.append(f"The model before alignment is at least as good on every axis as {listed(worse)}.")
    return told


def _of_terms(front: Mapping[str, Any], metrics: Sequence[Metric]) -> list[str]:
    ends = zip(metrics, front["axes"], front["reference_point"], front["ideal_point"], strict=True)
    box = ", ".join(f"{metric.label} {metric.show(worst)} to {metric.show(best)}" for metric, _, worst, best in ends)
    told = [
        f"The box goes from the worst to the best end of any interval: {box}. It is the same for every family and "
        f"every resample ({front['resamples']:,} resamples of {front['conversations']:,} conversations, the same for "
        "all runs).",
    ]
    n = len(front["differences"])
    if n > 1:
        told.append(f"The intervals are not adjusted for the {n} comparisons of families.")
    sizes = {family: len(entry["runs"]) for family, entry in front["families"].items() if entry["runs"]}
    if len(set(sizes.values())) > 1:
        counts = listed([f"{family} {n}" for family, n in sizes.items()])
        told.append(f"Families of more runs have more chances to cover the box, by luck too; runs here: {counts}.")
    return told


def _beaten_by(front: Mapping[str, Any], run: str) -> list[str]:
    """The points that are no worse than `run` on any axis and better on one."""

    def values(name: str) -> list[float]:
        found = front["points"][name]["values"]
        return [axis["better"] * found[axis["metric"]][0] for axis in front["axes"]]

    mine = values(run)
    gaps = {other: [x - y for x, y in zip(values(other), mine, strict=True)] for other in front["points"]}
    return [other for other, gap in gaps.items() if min(gap) >= 0 and max(gap) > 0]


def _name(run: str) -> str:
    return BEFORE if run == REFERENCE else run


# ---- the figure ----


def _view(summary: Mapping[str, Any], front: Mapping[str, Any]) -> dict[str, Any]:
    metrics = _metrics(summary, front)
    x, y, third = _drawn(metrics)
    points = front["points"]
    ends = [[end for point in points.values() for end in point["values"][metrics[i].key]] for i in (x, y)]
    axes = _figures.axis(ends[0]), _figures.axis(ends[1])
    values = {run: [point["values"][metric.key] for metric in metrics] for run, point in points.items()}
    placed = _figures.scatter([(_name(run), v[x][0], v[y][0]) for run, v in values.items()], axes)
    colour = {family: i % 7 for i, family in enumerate(front["families"])} | {None: 7}
    sizes = _figures.axis([v[third][0] for v in values.values()]) if third is not None else None
    at = {point.run: point for point in placed.points} if placed else {}
    drawn = [
        {
            "run": run,
            "point": at[_name(run)],
            "colour": colour[point["family"]],
            "on_front": point["on_front"],
            "whiskers": [[axis.at(end) for end in values[run][i][1:]] if values[run][i][1] is not None else None
                         for i, axis in zip((x, y), axes, strict=True)],
            "radius": 5 if sizes is None else round(3 + 0.06 * sizes.at(values[run][third][0]), 1),
        }
        for run, point in points.items()
    ]  # fmt: skip
    lines = []
    for family, entry in front["families"].items():
        along = sorted((at[run] for run in entry["front"]), key=lambda point: point.x)
        lines.append({"family": family, "colour": colour[family], "points": [(point.x, point.y) for point in along]})
    return {
        "name": front["name"],
        "told": told_of_front(summary, front),
        "axes": [_axis(metric, axis["better"]) for metric, axis in zip(metrics, front["axes"], strict=True)],
        "x": _axis(metrics[x], front["axes"][x]["better"]),
        "y": _axis(metrics[y], front["axes"][y]["better"]),
        "third": None if third is None else metrics[third].label,
        "x_ticks": [(axes[0].at(t), tick(metrics[x], t)) for t in axes[0].ticks],
        "y_ticks": [(axes[1].at(t), tick(metrics[y], t)) for t in axes[1].ticks],
        "drawn": drawn,
        "lines": lines,
        "rows": [
            {
                "run": run,
                "name": _name(run),
                "family": point["family"],
                "colour": colour[point["family"]],
                "cells": [
                    {"metric": metric, "triple": point["values"][metric.key]} for metric in metrics
                ],
                "on_front": point["on_front"],
                "share": f"{100 * point['on_front_share']:.0f} %",
                "share_value": point["on_front_share"],
            }
            for run, point in points.items()
        ],
        "families": [
            {
                "name": family,
                "colour": colour[family],
                "runs": entry["runs"],
                "front": entry["front"],
                "triple": entry["hypervolume"],
            }
            for family, entry in front["families"].items()
        ],
        "volume": VOLUME,
    }  # fmt: skip


def _drawn(metrics: Sequence[Metric]) -> tuple[int, int, int | None]:
    """Which axes lie along x and y, and which of three is the size of the dots: KL, or else the last.

    With two axes KL lies along x.
    """
    order = sorted(range(len(metrics)), key=lambda i: metrics[i].key == "kl")
    if len(metrics) == 3:
        return order[0], order[1], order[2]
    return (1, 0, None) if metrics[1].key == "kl" else (0, 1, None)


def _axis(metric: Metric, better: int) -> str:
    return f"{metric.label} ({'more' if better > 0 else 'less'} is better)"
