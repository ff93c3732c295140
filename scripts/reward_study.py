"""Make docs/studies/reward-models.md: every preference model on four sets of real data, and on simulated users.

    python scripts/reward_study.py fit DATA runs/reward-study
    python scripts/reward_study.py adapt DATA runs/reward-study
    python scripts/reward_study.py page runs/reward-study

DATA holds the published files as they are: `opinpref/annotations-train.jsonl`, `adparaphrase/adparaphrase.csv` and
`alpaca_eval/*.parquet`; they stay where they are. Every number between the page's marks comes from what `fit` and
`adapt` wrote; none is typed.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measured import points, renewed, share, table  # beside this file

from unipref.core.io import write_json, write_text
from unipref.data import read_records
from unipref.data.pairs import Pairs
from unipref.rewards import (
    Features,
    TextPreferenceModel,
    adaptation_curve,
    make_features,
    make_model,
    make_scorer,
    preference_table,
    simulate_users,
)
from unipref.store import FeatureStore

PAGE = Path(__file__).resolve().parents[1] / "docs" / "studies" / "reward-models.md"
ADAPTATION = "adaptation-{}.json"
KINDS = ("simulated", "judges", "annotators")
LEFT_OUT = "judges-left-out"  # a run of its own: six fits of each model
DOMAINS = ("bt", "cpm", "gpm", "more", "d3g", "drm_risk", "dial")
COUNTS = (1, 2, 4, 8, 16)
WHY = {  # how the error of a model says it -> how a cell does
    "to know whose comparison it is": "no users",
    "to know the domain of a comparison": "no domains",
    "votes per category": "no votes by category",
    "ratings of responses": "no ratings",
}
USERS = (
    "lore",
    "pal",
    "micro",
    "drm_pca",
    "np_bt",
)  # can be taught newcomers who judged other responses, as copl cannot
FEW = ("lore",)  # the same where a newcomer is one person

Told = Mapping[str, Any]


# ---- the sets ----


def recipes(data: Path) -> dict[str, dict[str, Any]]:
    """The recipes of the four sets, by name, and of the models of domains where one is left out."""
    judges = [str(path) for path in sorted((data / "alpaca_eval").glob("*eval*.parquet"))]
    verdicts = {"train": judges, "domain_column": "dataset", "limit": 2000, "eval_limit": 1000}
    english = ["minilm", "surface"]
    common: dict[str, Any] = {"method": "bt", "beside": "all"}
    return {
        "harmlessness": {**common, "data": {"train": "bundled:hh-harmless"}, "features": english},
        "summaries": {
            **common,
            "data": {"train": str(data / "opinpref" / "annotations-train.jsonl"), "user_column": "source"},
            "features": english,
        },
        "advertising": {
            **common,
            "data": {"train": str(data / "adparaphrase" / "adparaphrase.csv")},
            "features": ["hashed", "surface"],  # Japanese, which the sentence model does not read
        },
        "judges": {**common, "data": verdicts, "features": english},
        LEFT_OUT: {
            "method": "bt",
            "beside": {name: {"method": name} for name in DOMAINS},
            "data": verdicts,
            "features": english,
            "left_out_domains": True,
        },
    }


def fit(data: Path, runs: Path, only: Sequence[str]) -> None:
    """Train every model on every set, one run folder per set; what is there already is left alone."""
    from unipref.recipes.reward import train_reward
    from unipref.recipes.reward_config import load_reward_recipe

    for name, values in recipes(data).items():
        if (only and name not in only) or (runs / name / "evaluation.json").exists():
            continue
        print(f"== {name}", file=sys.stderr)
        recipe = load_reward_recipe({"name": name, **values})
        train_reward(recipe, output=runs / name, tell=lambda words: print(words, file=sys.stderr, flush=True))


# ---- newcomers ----


def tastes(runs: Path, store: FeatureStore, pairs: Pairs, rows: Sequence[np.ndarray], m: int) -> dict[str, np.ndarray]:
    """(m,) scores of responses by diverse tastes: two fitted to real preferences, the others rules; NaN: no opinion."""
    rules: dict[str, tuple[str, dict[str, Any]]] = {
        "brief": ("length", {"cap": 200, "inverted": True}),
        "easy to read": ("reading_level", {}),
        "asks back": ("regex", {"pattern": r"\?"}),
        "says sorry": ("regex", {"pattern": r"(?i)\b(sorry|afraid|unfortunately|apologi[sz]e)\b"}),
        "speaks of you": ("regex", {"pattern": r"(?i)\byou(r|rs)?\b"}),
        "gives numbers": ("regex", {"pattern": r"\d"}),
        "relevant": ("r3", {"embedder": "hashed"}),
    }
    found = {name: np.full(m, np.nan) for name in rules}
    for name, (key, options) in rules.items():
        scorer = make_scorer({"scorer": key, "options": options})
        for where, texts in zip(rows, (pairs.first, pairs.second), strict=True):
            found[name][where] = scorer.score(pairs.prompt.tolist(), texts.tolist())
    for name in ("harmlessness", "judges"):
        model = TextPreferenceModel.load(runs / name, store=store)
        values = found[f"{name} (fitted)"] = np.full(m, np.nan)
        for where, texts in zip(rows, (pairs.first, pairs.second), strict=True):
            values[where] = model.rewards(pairs.prompt.tolist(), texts.tolist())
    return found


def adapt(data: Path, runs: Path, kinds: Sequence[str]) -> None:
    """Newcomers of three kinds: simulated users over real pairs, the three judges, the annotators of summaries."""
    store = FeatureStore(runs / ".scores")
    features = make_features(["minilm"])
    for kind in kinds or KINDS:
        write_json(runs / ADAPTATION.format(kind), _of_kind(kind, recipes(data), runs, features, store))


def _of_kind(kind: str, made: Mapping[str, Any], runs: Path, features: Features, store: FeatureStore) -> dict[str, Any]:
    if kind == "judges":
        sources = made["judges"]["data"]["train"]
        records = [r for source in sources for r in read_records(source, domain_field="dataset", limit=400)[0]]
        return _each_left_out(preference_table(Pairs.of(records), features, store))
    if kind == "annotators":
        records, _ = read_records(made["summaries"]["data"]["train"], user_field="source")
        return _each_left_out(preference_table(Pairs.of(records), features, store))
    pairs = Pairs.of(read_records("bundled:hh-harmless")[0])
    table = preference_table(pairs, features, store)
    found = tastes(runs, store, pairs, (table.first, table.second), len(table.features))
    values = np.stack(list(found.values()), axis=1)
    whole = np.isfinite(values[table.first]).all(axis=1) & np.isfinite(values[table.second]).all(axis=1)
    users = simulate_users(table.take(whole), values, seen=60, newcomers=30, pairs=40, alpha=0.1, scorers=tuple(found))
    told = _curve(users.seen, users.newcomers, USERS)
    return told | {"scorers": list(found), "ties": users.ties, "left_out_pairs": int((~whole).sum())}


def _curve(seen: Any, newcomers: Any, names: Sequence[str]) -> dict[str, Any]:
    models = {name: make_model(name) for name in names}
    fitted = {}
    notes = []
    for name, model in models.items():
        try:
            fitted[name] = model.fit(seen)
        except Exception as err:  # what a model cannot do is a finding of the study
            notes.append(f"{name}: {err}")
    found = adaptation_curve(fitted, seen, newcomers, counts=COUNTS)
    return {
        "users": found.users,
        "judged": found.judged,
        "draws": found.draws,
        "notes": notes,
        "points": [
            {
                "model": point.model,
                "choices": point.choices,
                "accuracy": point.accuracy.as_list(),
                "over_pooled": point.over_pooled.as_list(),
            }
            for point in found.points
        ],
    }


def _each_left_out(table: Any) -> dict[str, Any]:
    """Every user is the newcomer once; the others are seen."""
    told = {}
    for user in table.users:
        own = table.user == user
        told[user] = _curve(table.take(~own), table.take(own), FEW)
    return {"users": told}


# ---- the page ----


def accuracies(sets: Mapping[str, Told]) -> str:
    """Every model on every set: held-out accuracy, and what it is beside Bradley-Terry on the same pairs."""
    names = sorted({name for told in sets.values() for name in told["models"]} - {"bt"})
    rows = []
    for name in ["bt", *names]:
        cells = []
        for told in sets.values():
            entry = told["models"].get(name)
            if entry is None:
                cells.append(_why(told, name))
                continue
            cell = share(entry["accuracy"])
            if name != "bt":
                gap = next(d for d in told["differences"] if (d["a"], d["b"], d["metric"]) == (name, "bt", "accuracy"))
                cell = f"{cell}; {points(gap['value'])}{' **' if gap['p_holm'] < 0.05 else ''}"
            cells.append(cell)
        rows.append([f"`{name}`", *cells])
    for rule in next(iter(sets.values()))["baselines"]:
        rows.append([rule, *(share(told["baselines"].get(rule, {}).get("accuracy")) for told in sets.values())])
    return table(["model", *(f"{name}, {told['pairs']['n']:,} held out" for name, told in sets.items())], rows)


def _why(told: Told, name: str) -> str:
    """Why a set has no fit of a model: what is missing."""
    note = next((note for note in told["notes"] if note.startswith(f"{name} is not beside")), "")
    why = note.partition(": ")[2].partition(";")[0]
    return next((short for words, short in WHY.items() if words in why), why or "not fitted")


def calibrations(sets: Mapping[str, Told]) -> str:
    """Calibration error with chance taken away, and log loss."""
    names = sorted({name for told in sets.values() for name in told["models"]})
    rows = []
    for name in names:
        cells = []
        for told in sets.values():
            entry = told["models"].get(name)
            if entry is None:
                cells += ["", ""]
                continue
            error = entry["calibration"]["debiased"]
            cells += ["-" if error is None else f"{100 * error:.1f}", f"{entry['nll'][0]:.3f}"]
        rows.append([f"`{name}`", *cells])
    head = ["model", *(f"{name}, {what}" for name in sets for what in ("error %", "NLL"))]
    return table(head, rows)


def left_out(sets: Mapping[str, Told]) -> str:
    """Accuracy in a domain that the model never saw, and by how much that is less than with it."""
    rows = []
    for told in sets.values():
        for name, entry in told["models"].items():
            found = entry["left_out"]
            if found is not None:
                rows.append(
                    [f"`{name}`", share(entry["accuracy"]), share(found["accuracy"]), points(found["difference"])]
                )
    return table(["model", "all domains seen, %", "the pair's domain left out, %", "difference, points"], rows)


def seconds(sets: Mapping[str, Told]) -> str:
    """Seconds of each fit."""
    names = sorted({name for told in sets.values() for name in told["models"]})
    rows = [[f"`{name}`", *(_seconds(told["models"].get(name)) for told in sets.values())] for name in names]
    return table(["model", *sets], rows)


def _seconds(entry: Told | None) -> str:
    return "" if entry is None or entry["seconds"] is None else f"{entry['seconds']:.1f}"


def newcomers(told: Mapping[str, Told]) -> str:
    """Accuracy on newcomers' further choices after some of them, by kind of newcomer."""
    parts = [_curve_table(told["simulated"], "simulated users")]
    for kind in ("judges", "annotators"):
        parts += [_curve_table(curve, f"{kind}: {user}") for user, curve in told[kind]["users"].items()]
    return "\n\n".join(parts)


def _curve_table(curve: Told, name: str) -> str:
    models: dict[str, dict[int, Sequence[float]]] = {}
    for point in curve["points"]:
        value, low, high = point["accuracy"]
        of_one = curve["users"] == 1  # an interval over one person says nothing
        models.setdefault(point["model"], {})[point["choices"]] = [value, *((None, None) if of_one else (low, high))]
    columns = sorted({point["choices"] for point in curve["points"]})
    rows = [
        [f"`{model}`", *(share(found[n]) if n in found else "" for n in columns)] for model, found in models.items()
    ]
    said = f"**{name}**: {curve['users']} newcomers, {curve['judged']:.0f} judged choices"
    return f"{said}\n\n{table(['model', *(f'{n} choices' if n else 'unknown' for n in columns)], rows)}"


def main() -> None:
    """Fit the models, teach them newcomers, or renew the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("fit", "fit every model to every set"), ("adapt", "teach models newcomers")):
        command = commands.add_parser(name, help=words)
        command.add_argument("data", type=Path, help="the folder of the published files")
        command.add_argument("runs", type=Path, help="where runs go")
        if name == "fit":
            command.add_argument("sets", nargs="*", help="only these sets")
        else:
            command.add_argument("kinds", nargs="*", help=f"only these newcomers: {', '.join(KINDS)}")
    page = commands.add_parser("page", help="renew the tables of the study's page")
    page.add_argument("runs", type=Path, help="where the runs are")
    args = parser.parse_args()
    if args.command == "fit":
        fit(args.data, args.runs, args.sets)
        return
    if args.command == "adapt":
        adapt(args.data, args.runs, args.kinds)
        return
    sets = {
        name: json.loads((args.runs / name / "evaluation.json").read_text(encoding="utf-8")) for name in recipes(Path())
    }
    apart = {LEFT_OUT: sets.pop(LEFT_OUT)}
    parts = {made.__name__: made(sets) for made in (accuracies, calibrations, seconds)}
    parts["left_out"] = left_out(apart)
    parts["newcomers"] = newcomers(
        {kind: json.loads((args.runs / ADAPTATION.format(kind)).read_text(encoding="utf-8")) for kind in KINDS}
    )
    write_text(PAGE, renewed(PAGE.read_text(encoding="utf-8"), parts))


if __name__ == "__main__":
    main()
