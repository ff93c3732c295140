"""Pareto fronts of families of runs: which runs no other beats on every axis, and how much a family's front covers.

A family is one method with its sweep of strengths. Its **hypervolume** is the share of a box that its runs dominate:
one number for a front, so that two methods can be compared where neither has a single best setting. The box is the same
for all families and all resamples. On each axis it goes from the worst end of any point's interval (the reference
point) to the best end (the ideal point), the model before alignment being a point too.

Intervals are of a paired bootstrap: one resample draws the same conversations for every run, and the seeds of one
prompt together. They are about these trained models and other prompts; how the runs would come out with other seeds
they do not know.

A front takes the best of noisy points, so its hypervolume is too large, and more so for a family of more runs whose
points lie close together. Resampling adds the same bias a second time. The interval of a difference is therefore
reflected (2 * value - resample), which takes it off again: of 300 worlds in which five runs and one run of another
family were equally good, 7 % had a reflected interval without 0, and 26 % a plain one (128 conversations, two axes).
The interval of a single hypervolume is plain, and covers too seldom (86 to 89 %) where all runs of a family are equal.

Source: Zitzler and Thiele 1999, IEEE Transactions on Evolutionary Computation 3(4) (hypervolume); While, Hingston,
Barone and Huband 2006, same journal 10(1) (slicing).
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, nearest
from unipref.core.statistics import interval_of, joint_means, mean
from unipref.evaluate._rows import conversations_of, weights_of
from unipref.evaluate._summary import metrics_of

__all__ = ["START", "fronts", "hypervolume", "non_dominated"]

Rows = Sequence[Mapping[str, Any]]
START = "reference"  # the name of the model before alignment among the points
N_AXES = (2, 3)
_SHARE = (0.0, 1.0)


def fronts(
    rows: Mapping[str, tuple[Rows, Rows]],
    families: Mapping[str, Sequence[str]],
    axes: Sequence[tuple[str, int]],
    *,
    designer: Collection[str],
    reference: tuple[Rows, Rows] | None = None,
    box: tuple[Sequence[float], Sequence[float]] | None = None,
    name: str = "",
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """The front of every family and of all runs together, as an entry of "fronts" in `summary.json`.

    Args:
        rows: per run its pair rows and its generation rows, all seeds together.
        families: per family its runs; a run is in one family. Runs of `rows` that no family names are left out.
        axes: two or three (metric, better): a metric as `differences` names it, and 1 where more is better, -1 where
            less is. KL to the start is `("kl", -1)`.
        designer: names of the designer objectives, as in `differences`.
        reference: rows of the model before alignment. It is a point, called "reference", in no family.
        box: (reference point, ideal point) to measure in, in the axes' own units, where numbers of several calls are to
            be compared; what lies beyond is moved to its edge. Default: see the module.

    Returns:
        name; axes; reference_point and ideal_point of the box; points: per run its family, its values
        {metric: [value, low, high]} as `summarise` gives them, `on_front` (no other point, of any family, is at least
        as good on every axis and better on one) and `on_front_share`, the share of resamples in which that is so;
        families: per family its runs, its own `front`, and its `hypervolume` as a share of the box; differences: of the
        hypervolumes of each two families, a - b; left_out: runs without a value on an axis, with the reason;
        conversations; resamples.

        A value is the mean over what its run has a score of. Two runs with missing scores may be scored on different
        conversations, which `differences` of two runs does not allow.

    Raises:
        ConfigError: axes, families and runs do not fit each other.
    """
    table = metrics_of(designer)
    _check(rows, families, axes, table)
    members = {run: family for family, runs in families.items() for run in runs}
    entries: dict[str, tuple[Rows, Rows]] = {run: rows[run] for run in members}
    if reference is not None:
        entries[START] = reference
    values, left_out = _values(entries, [metric for metric, _ in axes], table, seed=seed, resamples=resamples)
    kept = [run for run in entries if run not in left_out]
    signs = np.array([better for _, better in axes], dtype=np.float64)

    columns = [
        (table[metric][1](entries[run][table[metric][0]]), weights_of(entries[run][table[metric][0]]),
         conversations_of(entries[run][table[metric][0]]))
        for run in kept
        for metric, _ in axes
    ]  # fmt: skip
    joint = joint_means(columns, resamples=resamples, seed=seed)
    shape = (len(kept), len(axes))
    points_NA, drawn_RNA = joint.values.reshape(shape), joint.drawn.reshape(resamples, *shape)
    low, high = _box(values, kept, axes) if box is None else (np.array(side, dtype=np.float64) for side in box)
    on_front = non_dominated(signs * points_NA)
    shares = non_dominated(signs * drawn_RNA).mean(axis=0)

    covered: dict[str, tuple[float, np.ndarray]] = {}
    told: dict[str, Any] = {}
    for family, runs in families.items():
        at = [i for i, run in enumerate(kept) if run in runs]
        own = non_dominated(signs * points_NA[at])
        unit_NA, unit_RNA = (_in_box(points[..., at, :], low, high) for points in (points_NA, drawn_RNA))
        if at:
            covered[family] = float(hypervolume(unit_NA)), hypervolume(unit_RNA)
        told[family] = {
            "runs": [kept[i] for i in at],
            "front": [kept[i] for i, best in zip(at, own, strict=True) if best],
            "hypervolume": _triple(*covered[family], joint.clusters) if at else [None, None, None],
        }
    return {
        "name": name,
        "axes": [{"metric": metric, "better": better} for metric, better in axes],
        "reference_point": low.tolist(),
        "ideal_point": high.tolist(),
        "points": {
            run: {
                "family": members.get(run),
                "values": values[run],
                "on_front": bool(on_front[i]),
                "on_front_share": float(shares[i]),
            }
            for i, run in enumerate(kept)
        },
        "families": told,
        "differences": [
            {
                "a": a,
                "b": b,
                "hypervolume": _reflected(covered[a][0] - covered[b][0], covered[a][1] - covered[b][1], joint.clusters),
            }
            for a, b in combinations(covered, 2)
        ],
        "left_out": left_out,
        "conversations": joint.clusters,
        "resamples": resamples,
    }


def non_dominated(points: np.ndarray) -> np.ndarray:
    """(..., n) True where no other of the (..., n, axes) points is at least as good on all axes and better on one.

    More is better on every axis. Equal points do not dominate each other. A point with a NaN is never on the front,
    and dominates nothing.

    Example:
        >>> non_dominated(np.array([[1.0, 3.0], [2.0, 2.0], [1.0, 2.0]])).tolist()
        [True, True, False]
    """
    *_, n, _ = points.shape
    result = ~np.isnan(points).any(axis=-1)
    for i in range(n):
        other = points[..., i : i + 1, :]
        dominated = (other >= points).all(axis=-1) & (other > points).any(axis=-1)
        result &= ~dominated
    return result


def hypervolume(points: np.ndarray) -> np.ndarray:
    """(...) the volume between 0 and the (..., n, axes) points, exact: what at least one of them dominates.

    More is better on every axis, and a coordinate below 0 (or NaN) has no volume. Slices along the last axis, so the
    time grows as n to the power axes - 1: for tens of points and two or three axes.

    Example:
        >>> hypervolume(np.array([[0.5, 1.0], [1.0, 0.5]])).item()
        0.75
    """
    points = np.maximum(np.nan_to_num(points, nan=0.0), 0.0)
    *batch, n, n_axes = points.shape
    if n == 0:
        return np.zeros(batch)
    if n_axes == 1:
        return points[..., 0].max(axis=-1)
    order = np.argsort(-points[..., -1], axis=-1, kind="stable")
    points = np.take_along_axis(points, order[..., None], axis=-2)
    heights = points[..., -1]
    thickness = heights - np.concatenate([heights[..., 1:], np.zeros((*batch, 1))], axis=-1)
    # between the i-th height and the next, the first i points stand
    if n_axes == 2:
        return (thickness * np.maximum.accumulate(points[..., 0], axis=-1)).sum(axis=-1)
    return sum((thickness[..., i] * hypervolume(points[..., : i + 1, :-1]) for i in range(n)), np.zeros(batch))


def _check(
    rows: Mapping[str, Any],
    families: Mapping[str, Sequence[str]],
    axes: Sequence[tuple[str, int]],
    table: Mapping[str, Any],
) -> None:
    if len(axes) not in N_AXES:
        raise ConfigError(f"a front has two or three axes, got {len(axes)}: {[metric for metric, _ in axes]}")
    for metric, better in axes:
        if metric not in table:
            raise ConfigError(f"a front has no axis {metric!r}{nearest(metric, table)}; there are {', '.join(table)}")
        if better not in (1, -1):
            raise ConfigError(f"axis {metric}: better is 1 (more is better) or -1 (less is better), got {better!r}")
    if len({metric for metric, _ in axes}) < len(axes):
        raise ConfigError(f"an axis stands twice in {[metric for metric, _ in axes]}")
    if not families:
        raise ConfigError("a front needs at least one family of runs, such as {upo: [upo_weak, upo_strong]}")
    seen: dict[str, str] = {}
    for family, runs in families.items():
        if not runs:
            raise ConfigError(f"family {family!r} has no runs; name at least one of {', '.join(rows)}")
        for run in runs:
            if run not in rows:
                raise ConfigError(
                    f"the family {family!r} names the run {run!r}, which does not exist{nearest(run, rows)}"
                )
            if run in seen:
                where = f"in {seen[run]!r} and {family!r}" if seen[run] != family else f"twice in {family!r}"
                raise ConfigError(f"the run {run!r} is {where}; a run belongs to one family, once")
            seen[run] = family


def _values(
    entries: Mapping[str, tuple[Rows, Rows]], metrics: Sequence[str], table: Mapping[str, Any], **settings: Any
) -> tuple[dict[str, dict[str, list[float | None]]], dict[str, str]]:
    """Per run [value, low, high] of each metric, as in the summary; and why runs without one are left out."""
    values: dict[str, dict[str, list[float | None]]] = {}
    left_out: dict[str, str] = {}
    for run, sides in entries.items():
        values[run] = {}
        for metric in metrics:
            which, column, bounds = table[metric]
            found = mean(
                column(sides[which]),
                weights=weights_of(sides[which]),
                clusters=conversations_of(sides[which]),
                bounds=None if bounds is None else _SHARE,
                **settings,
            )
            values[run][metric] = found.as_list()
            if found.n == 0:
                what = ("held-out pairs", "generations")[which]
                left_out[run] = f"no value of {metric}: none of its {len(sides[which])} {what} has one"
    return values, left_out


def _box(
    values: Mapping[str, Mapping[str, Sequence[float | None]]], kept: Sequence[str], axes: Sequence[tuple[str, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """The worst and the best end of any interval on each axis; a value stands for the interval it does not have."""
    reference, ideal = [], []
    for metric, better in axes:
        ends = [x for run in kept for x in values[run][metric] if x is not None] or [0.0]
        reference.append(min(ends) if better > 0 else max(ends))
        ideal.append(max(ends) if better > 0 else min(ends))
    return np.array(reference), np.array(ideal)


def _in_box(points: np.ndarray, reference: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    """Coordinates from 0 at the reference point to 1 at the ideal one; 1 on an axis on which all points agree."""
    width = ideal - reference
    scaled = np.divide(points - reference, width, out=np.ones_like(points), where=width != 0)
    return np.where(np.isnan(points), np.nan, np.clip(scaled, 0.0, 1.0))


def _triple(value: float, drawn: np.ndarray, clusters: int) -> list[float | None]:
    low, high = interval_of(value, drawn, clusters)
    return [None if np.isnan(x) else float(x) for x in (value, low, high)]


def _reflected(value: float, drawn: np.ndarray, clusters: int) -> list[float | None]:
    return _triple(value, 2 * value - drawn, clusters)
