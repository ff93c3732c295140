"""Many methods side by side: the number a setting is chosen by, and differences that know how many were tested."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from unipref.core.statistics import holm, interval_of, joint_means, swap_test, wins
from unipref.evaluate._calibration import log_score, temperature_of
from unipref.evaluate._rows import conversations_of, margins_of, mean_margins_of, raw_margins_of, weights_of
from unipref.evaluate._summary import differences, metrics_of

__all__ = ["SELECTIONS", "against_baseline", "selection_scores", "unpaired"]

Rows = Sequence[Mapping[str, Any]]

SELECTIONS = {
    "accuracy": "pairs where training raised chosen over rejected",
    "ranking_accuracy": "pairs where chosen is more probable than rejected",
    "ranking_accuracy_per_token": "the same by log-probability per token",
    "log_score": "mean log-probability of people's choices, the margins' temperature fitted",
}


def selection_scores(pairs: Rows) -> dict[str, float]:
    """Each of SELECTIONS on the rows of one trained model; more is better, NaN without a row.

    Every one is defined for any policy that has a starting point, so it may be compared across methods: "accuracy" and
    "log_score" read logp - ref_logp, where the reference is the model the training started from whether or not the
    method's loss has one; the other two read the policy alone.
    """
    weights = weights_of(pairs)

    def share(margins: Sequence[float]) -> float:
        return float(np.average(wins(margins), weights=weights)) if len(pairs) else float("nan")

    margins = margins_of(pairs)
    return {
        "accuracy": share(margins),
        "ranking_accuracy": share(raw_margins_of(pairs)),
        "ranking_accuracy_per_token": share(mean_margins_of(pairs)),
        "log_score": log_score(margins, temperature_of(pairs), weights),
    }


def against_baseline(
    runs: Mapping[str, tuple[Rows, Rows]],
    baseline: str,
    *,
    designer: Collection[str] = (),
    seed: int = 0,
    resamples: int = 2000,
) -> list[dict[str, Any]]:
    """Differences of every run from `baseline`, paired, with p-values adjusted for the number of runs.

    Args:
        runs: per run its pair rows and its generation rows, all seeds together.

    Returns:
        The entries of `differences`, and those of ranking_accuracy_per_token, with p (`swap_test` over conversations),
        p_holm (`holm` over the runs, each metric a family of its own) and by_seed, the difference in each training
        seed. p is about these trained models: the luck of training is in by_seed alone.
    """
    metrics = _metrics(designer)
    others = [name for name in runs if name != baseline]
    controls = {name: baseline for name in others}
    entries = differences(runs, controls, designer=designer, metrics=metrics, seed=seed, resamples=resamples)
    for entry in entries:
        which, column, _ = metrics[entry["metric"]]
        left, right = runs[entry["a"]][which], runs[entry["b"]][which]
        p = swap_test(
            column(left),
            column(right),
            weights=(weights_of(left), weights_of(right)),
            clusters=(conversations_of(left), conversations_of(right)),
            seed=seed,
        )
        entry["p"] = None if np.isnan(p) else p
        entry["by_seed"] = _by_seed(left, right, column)
    for metric in metrics:
        family = [entry for entry in entries if entry["metric"] == metric]
        for entry, p in zip(family, holm([entry["p"] for entry in family]), strict=True):
            entry["p_holm"] = None if np.isnan(p) else float(p)
    return entries


def unpaired(
    metric: str, left: Rows, right: Rows, *, designer: Collection[str] = (), seed: int = 0, resamples: int = 2000
) -> dict[str, Any]:
    """The difference left - right of two runs that were judged on different conversations.

    Args:
        metric: one of those of `against_baseline`.
        left, right: pair rows or generation rows, whichever the metric is of.

    Returns:
        value [difference, low, high] of a bootstrap that draws each side's conversations by themselves; n and
        conversations of the smaller side. It is wider than a paired one by what the two sets of prompts differ.
    """
    _, column, bounds = _metrics(designer)[metric]
    a, b = (
        joint_means([(column(rows), weights_of(rows), conversations_of(rows))], resamples=resamples, seed=seed + side)
        for side, rows in enumerate((left, right))
    )
    n = min(sum(value is not None and not np.isnan(value) for value in column(rows)) for rows in (left, right))
    conversations = min(a.clusters, b.clusters)
    value = float(a.values[0] - b.values[0])
    drawn = a.drawn[:, 0] - b.drawn[:, 0]
    low, high = interval_of(value, drawn, conversations, bounds)
    triple = [None if np.isnan(x) else x for x in (value, low, high)]
    return {"value": triple, "n": n, "conversations": conversations}


def _metrics(designer: Collection[str]) -> dict[str, Any]:
    per_token = (0, lambda rows: wins(mean_margins_of(rows)), (-1.0, 1.0))
    return {**metrics_of(designer), "ranking_accuracy_per_token": per_token}


def _by_seed(left: Rows, right: Rows, column: Any) -> dict[str, float]:
    found = {}
    for number in sorted({row["seed"] for row in left} & {row["seed"] for row in right}):
        sides = [[row for row in rows if row["seed"] == number] for rows in (left, right)]
        a, b = (_average(column(rows), weights_of(rows)) for rows in sides)
        if not np.isnan(a - b):
            found[str(number)] = a - b
    return found


def _average(values: Sequence[float], weights: Sequence[float]) -> float:
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    mass = np.where(np.isnan(numbers), 0.0, weights)
    return float((np.nan_to_num(numbers) * mass).sum() / mass.sum()) if mass.sum() > 0 else float("nan")
