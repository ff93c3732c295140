"""From repeats to the JSON: equal work is checked first, then medians with spread, ratios, targets."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.speed.cases import DATA, SETTINGS, SHAPES, SIDES, Case, Growth, Setting
from benchmarks.speed.work import bound_of_lists, flops, state_bytes

__all__ = ["case_of", "details", "growth_of", "side_results", "unequal"]

Found = dict[str, Any]
COUNTED = ("pairs", "tokens", "scored")
LOSS_TOLERANCE = {"float32": 2e-4, "bfloat16": 2e-2}  # relative, of the mean loss of all steps
GRADIENT_TOLERANCE = {"float32": 2e-3, "bfloat16": 5e-2}  # relative, of the norm of the first step's gradient


def unequal(repeat: Found, expected: Sequence[Mapping[str, int]], first: Found, precision: str) -> str:
    """Why `repeat` did other work than it should have; "" where it did the same.

    Args:
        expected: pairs, tokens and scored tokens of every step, that which warms up too.
        first: a repeat of the side that the others are held against, on the same order of records.
    """
    told = [{name: step[name] for name in COUNTED} for step in repeat["steps"]]
    wanted = [{name: step[name] for name in COUNTED} for step in expected]
    if told != wanted:
        return f"its steps held {told} and should hold {wanted}"
    for name, words, tolerance in (
        ("loss", "a mean loss", LOSS_TOLERANCE[precision]),
        ("gradient", "a first gradient of norm", GRADIENT_TOLERANCE[precision]),
    ):
        if not abs(repeat[name] - first[name]) <= tolerance * abs(first[name]):
            return f"it has {words} {repeat[name]:.6f} where {first[name]:.6f} is expected"
    return ""


def spread(values: Iterable[float], digits: int = 3) -> dict[str, float]:
    values = list(values)
    return {name: round(of(values), digits) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def side_results(name: str, measured: Found) -> dict[str, Found]:
    """What every side of the setting `name` reached; {"not_run": why} for one without a number.

    The sides of one order of records are held against the first of ours that has it, in random order for the mean loss.
    """
    setting = SETTINGS[name]
    found = {}
    for side, repeats in measured["sides"].items():
        if isinstance(repeats, dict):
            found[side] = {"title": SIDES[side].title, "not_run": repeats["failed"]}
            continue
        order = SIDES[side].order
        timed = measured["counts"][order]
        expected = [*measured["counts"]["warm"], *timed]
        first = next(r[0] for s, r in measured["sides"].items() if not isinstance(r, dict) and SIDES[s].order == order)
        why = next(filter(None, (unequal(repeat, expected, first, setting.precision) for repeat in repeats)), "")
        found[side] = (
            {"title": SIDES[side].title, "not_run": f"no number, for unequal work: {why}"}
            if why
            else {"title": SIDES[side].title, **_numbers(setting, side, repeats, timed)}
        )
    return found


def _numbers(setting: Setting, side: str, repeats: Sequence[Found], counts: Sequence[Mapping[str, int]]) -> Found:
    shape, reference = SHAPES[setting.shape], SIDES[side].reference == "live"
    total = {name: sum(step[name] for step in counts) for name in counts[0]}
    needed = flops(shape, total, lora=setting.lora, reference=reference)
    seconds = [repeat["seconds"] for repeat in repeats]
    peak = max(repeat["peak_mb"] for repeat in repeats)
    above = peak - repeats[0]["libraries_mb"]
    state = state_bytes(setting, shape, reference=reference, trained=repeats[0]["trained"]) / 2**20
    return {
        "pairs_per_second": spread(total["pairs"] / s for s in seconds),
        "tokens_per_second": spread((total["tokens"] / s for s in seconds), 0),
        "share_of_matrix_peak": spread(needed / repeat["seconds"] / repeat["rate"] for repeat in repeats),
        "peak_memory_mb": round(peak),
        "memory_above_libraries_mb": round(above),
        "state_mb": round(state),
        "memory_above_state_mb": round(above - state),
        "losses": [repeat["loss"] for repeat in repeats],
        "gradient": repeats[0]["gradient"],
    }


def case_of(case: Case, results: Mapping[str, Found], setting: Found) -> Found:
    """The entry of `case` from the results of its setting's sides.

    Returns:
        name, question, setting, ours, peers, ratio (peer -> our median speed over its), value (what the target is
        about, by judged peer, or "" for none), target, met (None where nothing could be judged), limit.
    """
    ours = results[case.ours]
    peers = {peer: results[peer] for peer in case.peers if peer in results}
    entry: Found = {
        "name": case.name,
        "question": case.question,
        "setting": case.setting,
        "details": setting,
        "side": case.ours,
        "ours": ours,
        "peers": peers,
        "ratio": {},
        "value": {},
        "target": None if case.target is None else asdict(case.target),
        "met": None,
        "limit": None if case.target is None else case.target.limit,
    }
    if "not_run" in ours:
        return entry
    ran = {peer: told for peer, told in peers.items() if "not_run" not in told}
    entry["ratio"] = {
        peer: round(ours["pairs_per_second"]["median"] / told["pairs_per_second"]["median"], 2)
        for peer, told in ran.items()
    }
    target = case.target
    if target is None:
        return entry
    if target.of == "peak":
        entry["value"] = {"": ours["share_of_matrix_peak"]["median"]}
    elif target.of == "memory":
        entry["value"] = {
            peer: round(ours["memory_above_state_mb"] / max(ran[peer]["memory_above_state_mb"], 1), 2)
            for peer in target.against
            if peer in ran
        }
    else:
        data = DATA[SETTINGS[case.setting].data]
        bound = bound_of_lists(data.prompt, data.response, data.k) if target.of == "bound" else 1.0
        entry["value"] = {
            peer: round(
                ours["pairs_per_second"]["median"] / ran[peer]["pairs_per_second"]["median"] / bound,
                3 if target.of == "bound" else 2,
            )
            for peer in target.against
            if peer in ran
        }
        if target.of == "bound":
            entry["bound"] = round(bound, 3)
    judged = list(entry["value"].values())
    if len(judged) == max(len(target.against), 1):
        entry["met"] = target.met(judged)
    return entry


def growth_of(growth: Growth, results: Mapping[str, Mapping[str, Found]]) -> Found:
    """The curve of `growth` from the results of its settings; points that were not measured are left out."""
    points = []
    for at, name in growth.points.items():
        if name in results:
            ours, peer = (results[name][side] for side in SETTINGS[name].sides)
            points.append({"at": at, "ours": ours, "trl": peer})
    return {"name": growth.name, "axis": growth.axis, "points": points}


def details(name: str, measured: Found) -> Found:
    """The setting `name` in words and numbers."""
    setting = SETTINGS[name]
    counts = measured["counts"]["given"]
    total = {key: sum(step[key] for step in counts) for key in counts[0]}
    return {
        "shape": {"name": setting.shape, **asdict(SHAPES[setting.shape])},
        "data": {"name": setting.data, **asdict(DATA[setting.data])},
        "precision": setting.precision,
        "lora": setting.lora,
        "steps": len(counts),
        "total": total,
        "matrix_rate_gflops": [round(of(measured["rates"]) / 1e9, 1) for of in (min, max)],
    }
