"""What a reader must be told before they trust a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from unipref.core.errors import ConfigError, nearest

__all__ = ["DEFAULT_BOUNDS", "alarms"]

# Chosen by us. The first four are warnings where a healthy run can cross them; the last is the issue's own bound.
DEFAULT_BOUNDS: Mapping[str, float] = {
    "chosen_drift": -0.5,  # nats per token: chosen responses have become e^0.5 = 1.6 times less likely per token
    "length_drift": 0.5,  # change of the mean length of generations, as a share of the reference's
    "kl": 50.0,  # nats per generation
    "margin": 7.0,  # a logistic loss at margin 7 has less than 0.1 % of its slope left
    "gradient_ratio": 0.01,  # auxiliary to preference gradient
}


def alarms(
    metrics: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    *,
    reference: Mapping[str, Any] | None = None,
    method: str | None = None,
    bounds: Mapping[str, float] | None = None,
) -> list[dict[str, str]]:
    """Alarms of one run, errors first.

    Args:
        metrics: rows of its `metrics.jsonl`; of several seeds where rows have a "seed", each judged alone.
        summary: what `summarise` made of it.
        reference: what `summarise_reference` made of the un-aligned model; needed to judge length.
        method: key of the method that was trained; "upo" must have an auxiliary term that acts.
        bounds: what differs from `DEFAULT_BOUNDS`.

    Returns:
        {level, code, message} each. Errors (the run is not what its name says): nan_loss, gate_closed (UPO's auxiliary
        term never acted), gradient_ratio (it acted, but stayed below the bound throughout). Warnings: chosen_collapse,
        length_drift, kl, margin_saturated.

    Raises:
        ConfigError: an unknown bound.
    """
    unknown = sorted(set(bounds or {}) - set(DEFAULT_BOUNDS))
    if unknown:
        raise ConfigError(f"no bound is called {unknown[0]!r}{nearest(unknown[0], DEFAULT_BOUNDS)}")
    limits = {**DEFAULT_BOUNDS, **(bounds or {})}
    found: list[dict[str, str]] = []
    by_seed: dict[Any, list[Mapping[str, Any]]] = {}
    for row in metrics:
        by_seed.setdefault(row.get("seed"), []).append(row)
    for seed, rows in by_seed.items():
        where = "" if seed is None else f" (seed {seed})"
        found += [{**alarm, "message": alarm["message"] + where} for alarm in _of_training(rows, method, limits)]
    found += _of_evaluation(summary, reference, limits)
    return sorted(found, key=lambda alarm: alarm["level"] != "error")


def _alarm(level: str, code: str, message: str) -> dict[str, str]:
    return {"level": level, "code": code, "message": message}


def _of_training(
    rows: Sequence[Mapping[str, Any]], method: str | None, limits: Mapping[str, float]
) -> list[dict[str, str]]:
    found = []
    broken = [row["step"] for row in rows if "loss" in row and not _finite(row["loss"])]
    if broken:
        found.append(
            _alarm("error", "nan_loss", f"the loss was not a number at step {broken[0]}; lower the learning rate")
        )
    if method == "upo" or any(key.startswith("upo/") for row in rows for key in row):
        ratios = [row["upo/gradient_ratio"] for row in rows if _finite(row.get("upo/gradient_ratio"))]
        acting = [ratio for ratio in ratios if ratio > 0]
        bound = limits["gradient_ratio"]
        if not acting:
            found.append(
                _alarm(
                    "error",
                    "gate_closed",
                    "UPO's auxiliary term never acted: its warm-up did not end within the run, so this is its base "
                    "method; lower the warm-up share or train longer",
                )
            )
        elif max(acting) < bound:
            found.append(
                _alarm(
                    "error",
                    "gradient_ratio",
                    f"UPO's auxiliary gradient stayed below {bound:g} of the preference gradient (at most "
                    f"{max(acting):.2g}), so this is in effect its base method; raise gamma",
                )
            )
    margins = [row["rewards/margins"] for row in rows if _finite(row.get("rewards/margins"))]
    late = margins[-max(1, len(margins) // 10) :]
    if late and sum(late) / len(late) > limits["margin"]:
        found.append(
            _alarm(
                "warning",
                "margin_saturated",
                f"training margins ended at {sum(late) / len(late):.3g}, past {limits['margin']:g}: pairs are told "
                "apart so surely that they teach no more; train less or with a lower beta",
            )
        )
    return found


def _of_evaluation(
    summary: Mapping[str, Any], reference: Mapping[str, Any] | None, limits: Mapping[str, float]
) -> list[dict[str, str]]:
    found = []
    drift = summary["drift_per_token"]["chosen"][0]
    if drift is not None and drift < limits["chosen_drift"]:
        found.append(
            _alarm(
                "warning",
                "chosen_collapse",
                f"chosen responses lost {-drift:.2g} nats per token against the reference (bound "
                f"{-limits['chosen_drift']:g}): the model moves away from what people chose too",
            )
        )
    length = summary["length"][0]
    usual = None if reference is None else reference["length"][0]
    if length is not None and usual:
        change, bound = length / usual - 1, limits["length_drift"]
        if abs(change) > bound:
            found.append(
                _alarm(
                    "warning",
                    "length_drift",
                    f"generations have {length:.3g} tokens on average, the reference's {usual:.3g}: a change of "
                    f"{change:+.0%} (bound {bound:.0%})",
                )
            )
    kl = summary["kl"][0]
    if kl is not None and kl > limits["kl"]:
        found.append(
            _alarm(
                "warning",
                "kl",
                f"the policy is {kl:.3g} nats per response from its reference (bound {limits['kl']:g}): read its "
                "generations before you trust its scores",
            )
        )
    return found


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
