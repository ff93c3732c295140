"""Training speed and memory of unipref beside TRL, flash-pref and a plain PyTorch loop.

    python -m benchmarks.speed                         # all cases, the growth curves and the profiles
    python -m benchmarks.speed --cases hh,memory       # some of them
    python -m benchmarks.speed --json FILE --resume    # goes on where an earlier run of the file ended
    python -m benchmarks.speed --profile hh_cached     # where the time of our step goes
    python -m benchmarks.speed --page FILE             # the tables and plots of docs/speed.md from FILE

docs/speed.md says what is measured and how.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.cases import CASES, CUDA_CASES, GROWTHS, SETTINGS, Case
from benchmarks.speed.result import case_of, details, growth_of, side_results
from benchmarks.speed.run import Bench, machine, missing_packages, settings_of

Found = dict[str, Any]


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--cases", help="names with commas, and growth:NAME for a curve; all by default")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument("--repeats", type=int, default=3, help="repeats per side")
    parser.add_argument("--quick", action="store_true", help="one repeat")
    parser.add_argument("--threads", type=int, default=2, help="arithmetic threads")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, after every setting")
    parser.add_argument("--resume", action="store_true", help="keep the settings that FILE has already")
    parser.add_argument("--flash-pref", metavar="PYTHON", help="interpreter of an environment that flash-pref runs in")
    parser.add_argument("--profile", metavar="CASE", help="print where the time of our step goes, and stop")
    parser.add_argument("--page", type=Path, metavar="FILE", help="renew docs/speed.md from FILE, and stop")
    return parser.parse_args()


def wanted(names: str | None, cases: tuple[Case, ...]) -> tuple[list[Case], list[str]]:
    """The cases and the names of the curves that were asked for."""
    curves = [growth.name for growth in GROWTHS] if cases is CASES else []
    if names is None:
        return list(cases), curves
    asked = [name.strip() for name in names.split(",") if name.strip()]
    known = [*(case.name for case in cases), *(f"growth:{name}" for name in curves)]
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise SystemExit(f"no case named {', '.join(unknown)}; there are {', '.join(known)}")
    return [case for case in cases if case.name in asked], [name for name in curves if f"growth:{name}" in asked]


def main() -> None:
    """Measure, and print a table."""
    asked = options()
    table = CUDA_CASES if asked.device == "cuda" else CASES
    if asked.page:
        from benchmarks.speed.page import write_page

        write_page(json.loads(asked.page.read_text(encoding="utf-8")))
        return
    if asked.list:
        print("\n".join(f"{case.name:18} {case.question}" for case in table))
        return
    if missing := missing_packages():
        raise SystemExit(f"this benchmark needs {', '.join(missing)}; install with: pip install 'unipref[bench]'")
    if asked.resume and not asked.json:
        raise SystemExit("--resume keeps what a file has already; name it with --json FILE")
    tell = lambda words: print(words, file=sys.stderr, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        size = 3072 if asked.device == "cpu" else 8192
        bench = Bench(Path(folder), asked.threads, asked.device, asked.flash_pref, tell, size)
        with bench:
            if asked.profile:
                case = wanted(asked.profile, table)[0][0]
                found = bench.profile(case.setting, case.ours)
                print(found["table"])
                print("\n".join(f"{kind:20} {100 * share:5.1f} %" for kind, share in found["shares"].items()))
                return
            cases, curves = wanted(asked.cases, table)
            result = measure(bench, asked, cases, curves)
    from benchmarks.speed.page import in_words

    print(in_words(result))
    if any("not_run" in case["ours"] for case in result["cases"]):
        sys.exit(1)


def measure(bench: Bench, asked: argparse.Namespace, cases: list[Case], curves: list[str]) -> Found:
    """Measure the settings of `cases` and `curves`; the file holds what is there after each."""
    from unipref.core.io import write_json

    began = time.perf_counter()
    repeats = 1 if asked.quick else asked.repeats
    result: Found = {"machine": machine(asked.device), "settings": {}, "cases": [], "growth": []}
    if asked.resume and asked.json.exists():
        result["settings"] = json.loads(asked.json.read_text(encoding="utf-8"))["settings"]
        result["settings"] = {
            name: told for name, told in result["settings"].items() if _still_holds(name, told, repeats)
        }
    result["run"] = {"threads": asked.threads, "repeats": repeats, "device": asked.device}
    growths = [growth for growth in GROWTHS if growth.name in curves]
    names = settings_of(
        [*(case.setting for case in cases), *(point for growth in growths for point in growth.points.values())]
    )
    for name in names:
        if name not in result["settings"]:
            bench.tell(f"{name} ({time.perf_counter() - began:.0f} s)")
            measured = bench.measure(name, SETTINGS[name].sides, repeats)
            told = {**details(name, measured), "repeats": repeats}
            told["sides"] = side_results(name, measured)
            ours = [case.ours for case in (*CASES, *CUDA_CASES) if case.setting == name]
            told["profiles"] = {side: bench.profile(name, side)["shares"] for side in dict.fromkeys(ours)}
            result["settings"][name] = told
        _judge(result)
        if asked.json:
            write_json(asked.json, result)
    _judge(result)
    return result


def _still_holds(name: str, told: Found, repeats: int) -> bool:
    """Whether what a file has of a setting was measured as it would be now."""
    return name in SETTINGS and list(told["sides"]) == list(SETTINGS[name].sides) and told.get("repeats") == repeats


def _judge(result: Found) -> None:
    """Cases and curves from all settings that are there."""
    held = result["settings"]
    result["cases"] = [
        case_of(case, held[case.setting]["sides"], {k: v for k, v in held[case.setting].items() if k != "sides"})
        for case in (*CASES, *CUDA_CASES)
        if case.setting in held
    ]
    sides = {name: told["sides"] for name, told in held.items()}
    curves = [growth_of(growth, sides) for growth in GROWTHS]
    result["growth"] = [curve for curve in curves if len(curve["points"]) > 1]


if __name__ == "__main__":
    main()
