"""docs/speed.md from the JSON of a run: tables between the page's marks, plots beside it. No number is typed."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.speed import plots
from benchmarks.speed.cases import CASES, SIDES
from scripts.measured import renewed, table

__all__ = ["drawings", "in_words", "page_parts", "starting", "write_page"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "speed.md"
DRAWINGS = ROOT / "docs" / "speed"
STARTING = ROOT / "benchmarks" / "million_pairs.json"  # what `million_pairs.py --json` printed
STARTING_LIMIT = 60.0  # seconds

Found = Mapping[str, Any]


def starting() -> Found | None:
    """The result of `million_pairs.py`, or None where it has not been run."""
    return json.loads(STARTING.read_text(encoding="utf-8")) if STARTING.exists() else None


def write_page(result: Found) -> None:
    """Renew the page's tables and its plots.

    Raises:
        DataError: the page lacks the marks of a table.
    """
    from unipref.core.io import write_text

    text = renewed(PAGE.read_text(encoding="utf-8"), page_parts(result, starting()))
    for name, svg in drawings(result).items():
        write_text(DRAWINGS / f"{name}.svg", svg)
    write_text(PAGE, text)


def page_parts(result: Found, started: Found | None) -> dict[str, str]:
    """What stands between the page's marks, by name.

    Args:
        started: the result of `million_pairs.py`, if there is one.
    """
    return {
        "machine": _machine(result),
        "targets": _targets(result, started),
        "cases": _cases(result),
        "sides": _sides(result),
        "memory": _memory(result),
        "growth": _growth(result),
        "starting": _starting(started),
        "limits": _limits(result),
        "not_run": _not_run(result),
    }


# ---- words and tables ----


def _machine(result: Found) -> str:
    where, run = result["machine"], result["run"]
    rates: dict[str, list[float]] = {}
    for told in result["settings"].values():
        rates.setdefault(told["precision"], []).extend(told["matrix_rate_gflops"])
    measured = "; ".join(
        f"{precision} {min(found):,.0f} to {max(found):,.0f} GFLOP/s" for precision, found in sorted(rates.items())
    )
    repeats = (
        "one repeat of each side" if run["repeats"] == 1 else f"{run['repeats']} repeats of each side, two of slow ones"
    )
    device = where.get("gpu") or f"{where['cpu']}, {', '.join(where['instructions'])}"
    return (
        f"{device}; {run['threads']} threads; torch {where['torch']}, transformers {where['transformers']}, TRL "
        f"{where['trl']}; {repeats}; "
        f"load when it began {where['load_before']}. "
        f"Matrix rate over the run: {measured}."
    )


_LIMIT = {
    "speed": "at least {:g} x",
    "peak": "at least {:.0%}",
    "bound": "at least {:.0%} of the bound",
    "memory": "at most {:g} of the peer's",
}


def _reached(case: Found) -> str:
    """What a case with a target reached, peer by peer."""
    of = case["target"]["of"]
    shown = []
    for peer, value in case["value"].items():
        words = f"{value:.1%}" if of in ("peak", "bound") else f"{value:.2f}"
        against = "" if of == "peak" else f" ({SIDES[peer].title})"
        shown.append(f"{words}{' x' if of == 'speed' else ''}{against}")
    lacking = [SIDES[peer].title for peer in case["target"]["against"] if peer not in case["value"]]
    return "; ".join([*shown, *(f"no number ({title})" for title in lacking)]) or "no number"


def _verdict(case: Found) -> str:
    return {True: "met", False: "**short**", None: "not judged"}[case["met"]]


def _targets(result: Found, started: Found | None) -> str:
    rows = [
        [case["question"], _LIMIT[case["target"]["of"]].format(case["limit"]), _reached(case), _verdict(case)]
        for case in result["cases"]
        if case["target"] is not None
    ]
    measured = {case["name"] for case in result["cases"]}
    rows += [
        [case.question, _LIMIT[case.target.of].format(case.target.limit), "not run", "not judged"]
        for case in CASES
        if case.target is not None and case.name not in measured
    ]
    limit = f"at most {STARTING_LIMIT:g} s"
    if started is None:
        rows.append(["from 1,000,000 pairs on disk to the first step, warm cache", limit, "not run", "not judged"])
    else:
        seconds = statistics.median(each["first_step_s"] for each in started["warm"])
        low, high = started["spread"]["first_step_s"]
        enough = seconds <= STARTING_LIMIT and started["pairs"] >= 1_000_000
        rows.append(
            [
                f"from {started['pairs']:,} pairs on disk to the first step, warm cache",
                limit,
                f"{seconds:.1f} s [{low:.1f}, {high:.1f}]",
                "met" if enough else "**short**" if seconds > STARTING_LIMIT else "not judged: fewer pairs",
            ]
        )
    return table(["case", "must reach", "reached", ""], rows)


def _starting(started: Found | None) -> str:
    if started is None:
        return "Not run."
    rows = [[case["name"], f"{case['ours']:,.2f}"] for case in started["cases"]]
    rows += [[f"MB on disk, {name}", f"{size:,.0f}"] for name, size in started["disk_mb"].items()]
    return table(["", ""], rows)


def _spread(values: Found, pattern: str = "{:.3g}") -> str:
    shown = [pattern.format(values[name]) for name in ("median", "min", "max")]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _cases(result: Found) -> str:
    rows = []
    for case in result["cases"]:
        for peer, told in case["peers"].items():
            if "not_run" in told or "not_run" in case["ours"]:
                continue
            memory = case["ours"]["memory_above_libraries_mb"] / max(told["memory_above_libraries_mb"], 1)
            rows.append(
                [
                    f"`{case['name']}`",
                    f"{case['ours']['title']} / {told['title']}",
                    f"{_spread(case['ours']['pairs_per_second'])} / {_spread(told['pairs_per_second'])}",
                    f"{case['ratio'][peer]:.2f}" + (" (slower)" if case["ratio"][peer] < 1 else ""),
                    f"{memory:.2f}",
                ]
            )
    return table(["case", "ours / peer", "pairs/s", "speed x", "memory x"], rows)


def _sides(result: Found) -> str:
    rows = []
    for name, setting in result["settings"].items():
        for told in setting["sides"].values():
            if "not_run" not in told:
                rows.append(
                    [
                        f"`{name}`",
                        told["title"],
                        _spread(told["pairs_per_second"]),
                        _spread(told["tokens_per_second"], "{:,.0f}"),
                        _spread({k: 100 * v for k, v in told["share_of_matrix_peak"].items()}, "{:.1f}"),
                    ]
                )
    return table(["setting", "side", "pairs/s", "tokens/s", "% of the matrix rate"], rows)


def _memory(result: Found) -> str:
    rows = []
    for name, setting in result["settings"].items():
        for told in setting["sides"].values():
            if "not_run" not in told:
                names = ("peak_memory_mb", "memory_above_libraries_mb", "state_mb", "memory_above_state_mb")
                rows.append([f"`{name}`", told["title"], *(f"{told[key]:,.0f}" for key in names)])
    return table(["setting", "side", "peak MB", "above libraries", "state", "above state"], rows)


def _growth(result: Found) -> str:
    rows = []
    for curve in result["growth"]:
        for point in curve["points"]:
            ran = [point["ours"], point["trl"]]
            if any("not_run" in side for side in ran):
                continue
            ours, trl = ran
            rows.append(
                [
                    f"{point['at']:,} {curve['axis']}",
                    _spread(ours["pairs_per_second"]),
                    _spread(trl["pairs_per_second"]),
                    f"{ours['pairs_per_second']['median'] / trl['pairs_per_second']['median']:.2f}",
                    f"{ours['memory_above_state_mb']:,} / {trl['memory_above_state_mb']:,}",
                ]
            )
    return table(["at", "unipref, pairs/s", "TRL, pairs/s", "x", "MB above state, unipref / TRL"], rows)


def _profiles(result: Found) -> list[tuple[str, Mapping[str, float]]]:
    """The profile of every case's own side, once a setting and side."""
    found = {}
    for case in result["cases"]:
        shares = result["settings"][case["setting"]]["profiles"].get(case["side"])
        if shares is not None:
            found.setdefault((case["setting"], case["side"]), (case["name"], shares))
    return list(found.values())


def _limits(result: Found) -> str:
    profiles = _profiles(result)
    if not profiles:
        return "Nothing was profiled."
    kinds = list(profiles[0][1])
    rows = []
    for name, shares in profiles:
        most = max(shares, key=lambda kind: shares[kind])
        cells = [f"**{100 * shares[kind]:.0f}**" if kind == most else f"{100 * shares[kind]:.0f}" for kind in kinds]
        rows.append([f"`{name}`", *cells])
    return table(["case", *(f"{kind}, %" for kind in kinds)], rows)


def _not_run(result: Found) -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, setting in result["settings"].items():
        for told in setting["sides"].values():
            if "not_run" in told:
                reasons.setdefault((told["title"], told["not_run"]), []).append(name)
    lines = [f"- {title} in {', '.join(f'`{n}`' for n in names)}: {why}" for (title, why), names in reasons.items()]
    return "\n".join(lines) or "Every side of this run has a number."


# ---- plots ----


def drawings(result: Found) -> dict[str, str]:
    """The plots by name, as SVG; each says so where the run has no numbers for it."""
    several = {n: s for n, s in result["settings"].items() if len(s["sides"]) > 1 and s["data"]["name"] in _SHOWN}
    found = {name: plots.nothing(name) for name in ("pairs", "memory", "growth", "limits")}
    speeds, memories = [], []
    for name, setting in several.items():
        ran = {side: told for side, told in setting["sides"].items() if "not_run" not in told}
        if not ran:
            continue
        title = _title(name, setting)
        engines = {side: SIDES[side].engine for side in ran}
        speeds.append((title, [(t["title"], engines[side], t["pairs_per_second"]) for side, t in ran.items()]))
        rows = [(t["title"], engines[side], t["state_mb"], t["memory_above_state_mb"]) for side, t in ran.items()]
        memories.append((title, rows))
    if speeds:
        found["pairs"] = plots.bars(speeds, "Pairs per second; the numbers stand in the table of sides")
        found["memory"] = plots.memory_bars(memories, "Memory above the libraries; the numbers stand in the table")
    panels = []
    for curve in result["growth"]:
        ran = [p for p in curve["points"] if not any("not_run" in p[side] for side in ("ours", "trl"))]
        for words, value in (
            ("pairs per second", lambda told: told["pairs_per_second"]["median"]),
            ("MB above state", lambda told: max(told["memory_above_state_mb"], 1)),
        ):
            lines = {
                engine: [(point["at"], value(point[side])) for point in ran]
                for side, engine in (("ours", "unipref"), ("trl", "trl"))
            }
            if len(ran) > 1:
                panels.append((words, curve["axis"], lines))
    if panels:
        found["growth"] = plots.curves(panels, "Speed and memory as data grow; the numbers stand in the table")
    profiles = _profiles(result)
    if profiles:
        found["limits"] = plots.share_bars(profiles, "What our step's time goes to; the numbers stand in the table")
    return found


_SHOWN = ("hh", "hh_step", "long", "lists_8", "trees_3", "hh_cuda", "long_cuda", "lists_cuda")


def _title(name: str, setting: Found) -> str:
    shape = setting["shape"]
    what = [setting["precision"], f"vocabulary {shape['vocabulary']:,}", f"hidden {shape['hidden']:,}"]
    return f"{name}: {', '.join([*what, *(['LoRA'] if setting['lora'] else [])])}"


# ---- the terminal ----


def in_words(result: Found) -> str:
    """The same for reading in a terminal."""
    lines = [_machine(result), ""]
    for case in result["cases"]:
        ours = case["ours"]
        if "not_run" in ours:
            lines.append(f"{case['name']:18} not run: {ours['not_run']}")
            continue
        speed = ours["pairs_per_second"]
        lines.append(
            f"{case['name']:18} {speed['median']:8.2f} pairs/s [{speed['min']:.2f}, {speed['max']:.2f}], "
            f"{100 * ours['share_of_matrix_peak']['median']:.1f} % of the matrix rate, "
            f"{ours['memory_above_state_mb']:,} MB above state"
        )
        for peer, told in case["peers"].items():
            if "not_run" in told:
                lines.append(f"{'':18}   {told['title']}: not run: {told['not_run']}")
            else:
                lines.append(
                    f"{'':18}   {case['ratio'][peer]:.2f} x {told['title']} ({told['memory_above_state_mb']:,} MB)"
                )
        if case["target"] is not None:
            limit = _LIMIT[case["target"]["of"]].format(case["limit"])
            lines.append(f"{'':18}   {limit}: {_reached(case)}: {_verdict(case).strip('*')}")
    return "\n".join(lines)
