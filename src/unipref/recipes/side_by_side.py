"""Finished runs side by side: what differs between their recipes and what came of it, on rows that they share.

Nothing is trained and no model is read. The rows that each run was judged on are in its folder; they are brought to the
conversations that all runs have, and every number is computed from them again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import unipref
from unipref.core.cards import REQUIRED, get_method
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.io import write_json
from unipref.core.statistics import holm
from unipref.evaluate import against_baseline, fronts, summarise, summarise_reference, unpaired
from unipref.recipes._source import merged
from unipref.report import COMPARISON, CURVES, RUNS, curves_of, write_report

__all__ = ["Axes", "parse_axes", "parse_families", "side_by_side"]

Axes = tuple[tuple[str, int], ...]
Row = Mapping[str, Any]
KINDS = ("pairs", "generations")
START = "reference"
SAMPLING = ("max_new_tokens", "temperature", "top_p")
NOT_SETTINGS = ("name", "output", "stages", "runs", "controls", "fronts", "seeds")


def side_by_side(
    names: Sequence[str],
    *,
    axes: Sequence[Axes] = (),
    families: Mapping[str, Sequence[str]] | None = None,
    baseline: str | None = None,
    output: Path | None = None,
    command: str = "",
) -> Path:
    """Compare finished runs; the folder with `runs.json`, `curves.json`, `texts.json` and `report.html`.

    Held-out pairs, and generations, count where all runs have them: the same text in the same conversation. Where the
    runs share none, each is judged on its own, and differences are not paired; the report says which it is.

    A designer objective is compared where every run that has one of its name measures it in the same way (scorer,
    options, clip, normalisation, direction), and named as not comparable where they do not.

    Args:
        names: run folders or names of folders in `runs/`, of `align` or of `compare`, all of whose runs are taken; or
            FOLDER/RUN.
        axes: fronts to draw, each two or three (metric, better). Default: every objective that all runs have against
            KL.
        families: name -> runs, for the fronts. Default: runs of one method whose options differ in numbers alone; a
            lambda of 0 is a family of its own, because it turns the objectives off.
        baseline: the run that the others are compared with; default: the first.
        output: default: `runs/compared-` and eight letters that are the same for the same runs.

    Raises:
        ConfigError: a name is no finished run, a run stands twice, or there are fewer than two.
        DataError: a folder lacks what its summary speaks of.
    """
    runs = _named([run for name in names for run in _find(name)])
    if len(runs) < 2:
        raise ConfigError(
            f"compare needs two runs or more, got {len(runs)}; name another run folder, or give --methods to train "
            "methods on a recipe"
        )
    first = _chosen(baseline, runs)
    families = {name: [_chosen(run, runs) for run in members] for name, members in (families or {}).items()}
    folder = Path(output) if output is not None else Path("runs") / f"compared-{_fingerprint(runs)}"
    _refuse_other(folder)

    designer, apart = _objectives(runs)
    heldout = _share(runs)
    measured = {name: [objective for objective in run.designer if objective in designer] for name, run in runs.items()}
    start = _start(runs)
    comparison = {
        "name": folder.name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": unipref.__version__,
        "command": command,
        "baseline": first,
        "folders": {run.folder.name: {"path": str(run.folder), "name": run.recipe_name} for run in runs.values()},
        "designer": designer,
        "not_comparable": apart,
        "heldout": heldout,
        "settings": _settings(runs),
        "runs": {name: _numbers(run, measured[name]) for name, run in runs.items()},
        "reference": None if start is None else summarise_reference(*start, designer=_common(measured)),
        "differences": _differences(runs, first, measured),
        "fronts": _fronts(runs, axes, families, measured, start),
        "notes": _notes(runs, heldout, apart, start),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "curves.json", [{"run": name, **curve} for name, run in runs.items() for curve in run.curves()])
    write_json(folder / "texts.json", _samples(runs, measured, start))
    write_json(folder / RUNS, comparison)
    write_report(folder)
    return folder


def parse_axes(text: str) -> Axes:
    """The axes of a front as `--fronts` writes them: "kl,-;aux.detail.generations,+".

    Raises:
        ConfigError: it is not of that form.
    """
    axes = []
    for part in text.split(";"):
        metric, comma, sign = (word.strip() for word in part.rpartition(","))
        if not comma or not metric or sign not in ("+", "-"):
            raise ConfigError(
                f"--fronts {text!r}: expected METRIC,+ (more is better) or METRIC,- (less is better), parted by "
                f"semicolons, such as 'kl,-;accuracy,+'; got {part.strip()!r}"
            )
        axes.append((metric, 1 if sign == "+" else -1))
    return tuple(axes)


def parse_families(text: str) -> dict[str, list[str]]:
    """Families as `--families` writes them: "upo=one/upo,two/upo;dpo=one/dpo".

    Raises:
        ConfigError: it is not of that form.
    """
    families: dict[str, list[str]] = {}
    for part in text.split(";"):
        name, equals, runs = (word.strip() for word in part.partition("="))
        if not (equals and name and runs) or name in families:
            raise ConfigError(
                f"--families {text!r}: expected NAME=RUN,RUN parted by semicolons, each name once; got {part.strip()!r}"
            )
        families[name] = [run.strip() for run in runs.split(",")]
    return families


# ---- finding runs ----


@dataclass
class _Run:
    """A finished run as its folder tells of it.

    Attributes:
        rows: its pairs and its generations, of all seeds.
        before: what the model that it started from wrote.
        places: where its metrics were logged, by seed's folder ("" for the only one).
        designer: description of each objective, as in the summary.
        settings: what its recipe says of it, flat.
    """

    folder: Path
    run: str
    recipe_name: str
    summary: Mapping[str, Any]
    entry: Mapping[str, Any]
    settings: dict[str, str]
    sampling: Mapping[str, Any]
    rows: dict[str, list[Row]]
    before: list[Row]
    places: dict[str, Path]
    designer: Mapping[str, Any] = field(default_factory=dict)

    def curves(self) -> Iterable[dict[str, Any]]:
        """{seed, rows} of each training."""
        for seed, place in self.places.items():
            for curve in curves_of(place, self.run, self.summary):
                rows = [{key: row[key] for key in ("step", *CURVES) if key in row} for row in curve.rows]
                yield {"seed": seed or curve.seed, "rows": rows}


def _find(name: str) -> list[_Run]:
    """The runs that `name` stands for."""
    given = Path(name)
    for folder in (given, Path("runs") / name):
        if (kept := _kept(folder)) is not None:
            return [_read(folder, kept, run) for run in _finished(folder, kept)]
        if (kept := _kept(folder.parent)) is not None and folder.parent not in (Path(), Path("runs")):
            finished = _finished(folder.parent, kept)
            if folder.name in finished:
                return [_read(folder.parent, kept, folder.name)]
            if folder.is_dir() or folder.parent.is_dir():
                raise ConfigError(
                    f"{folder.parent} has no finished run {folder.name!r}{nearest(folder.name, finished)}; "
                    f"it has {', '.join(finished)}"
                )
    raise ConfigError(_no_run(name))


def _no_run(name: str) -> str:
    from unipref.recipes.config import bundled_recipes

    for folder in (Path(name), Path("runs") / name):
        if (folder / RUNS).is_file():
            return f"{folder} is itself a comparison of runs; name the run folders that it compares"
        if (folder / "recipe.yaml").is_file():
            return (
                f"{folder} is not finished: it holds neither a summary.json nor a {COMPARISON}; "
                f"finish it with --resume (`unipref align {folder / 'recipe.yaml'} --output {folder} --resume`, or the "
                "`unipref compare` that made it) and compare then"
            )
        if folder.is_dir() and folder != Path("runs") / name:
            return f"{folder} is no run folder: it holds neither a summary.json nor a {COMPARISON}"
    if Path(name).suffix in (".yaml", ".yml") or name in bundled_recipes():
        return (
            f"{name} is a recipe, and without --methods finished runs are compared; give --methods dpo,simpo to train "
            f"methods on it, or `unipref align {name}` first and then the names of run folders"
        )
    finished = [folder.name for folder in sorted(Path("runs").glob("*")) if _kept(folder) is not None]
    known = nearest(name, finished) if finished else "; runs/ holds none yet, and `unipref align quickstart` makes one"
    return f"no run folder {name!r}, here or in runs/{known}"


def _kept(folder: Path) -> dict[str, Any] | None:
    """What the folder's summary or comparison says; None where it has neither."""
    path = next((folder / kept for kept in ("summary.json", COMPARISON) if (folder / kept).is_file()), None)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); finish the run with --resume to write it again") from err


def _finished(folder: Path, kept: Mapping[str, Any]) -> list[str]:
    if "runs" in kept:
        return list(kept["runs"])
    found = [name for name, entry in kept["methods"].items() if entry["state"] == "done"]
    if not found:
        raise ConfigError(f"no method of {folder} has finished, so there is nothing to compare")
    return found


def _read(folder: Path, kept: Mapping[str, Any], run: str) -> _Run:
    of_align = "runs" in kept
    entry = kept["runs" if of_align else "methods"][run]
    recipe = kept["recipe"]
    if of_align:
        several = len(entry["seeds"]) > 1
        places = {f"seed-{seed}" if several else "": folder / run / f"seed-{seed}" if several else folder / run
                  for seed in entry["seeds"]}  # fmt: skip
        own = recipe["runs"].get(run, []) if recipe["runs"] else []
        stages = [*recipe["stages"], *own]
    else:
        rate = f"lr-{entry['learning_rate']:g}"
        places = {f"seed-{seed}": folder / run / f"{rate}-seed-{seed}" for seed in entry["seeds"]}
        shared = recipe["stages"] if recipe["runs"] else recipe["stages"][:-1]
        train = {} if recipe["runs"] else recipe["stages"][-1]["train"]
        own_stage = {"method": entry["method"], "options": entry["options"]}
        stages = [*shared, {**own_stage, "train": {**train, "learning_rate": entry["learning_rate"]}}]
    saved = [_json(place / "evaluation.json") for place in places.values()]
    before = folder / "shared" / "reference.json"
    return _Run(
        folder=folder,
        run=run,
        recipe_name=kept["name"],
        summary=kept if of_align else {"recipe": {}},
        entry=entry,
        settings=_flat_recipe(kept, recipe, stages),
        sampling=recipe.get("sampling", {}),
        rows={kind: [{"seed": one["seed"], **row} for one in saved for row in one[kind]] for kind in KINDS},
        before=_json(before)["generations"] if before.exists() else [],
        places=places,
        designer=kept["designer"],
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(f"{path} is gone, and with it the rows to compare; run the job again with --resume") from err
    except ValueError as err:
        raise DataError(f"{path} is not JSON ({err}); remove it and run the job again with --resume") from err


def _named(found: Sequence[_Run]) -> dict[str, _Run]:
    """The runs by the shortest end of FOLDER/RUN that no other has."""
    paths = [(*run.folder.resolve().parts[1:], run.run) for run in found]
    for path, run in zip(paths, found, strict=True):
        if paths.count(path) > 1:
            raise ConfigError(f"the run {run.folder / run.run} is named twice; name every run once")
    named = {}
    for path, run in zip(paths, found, strict=True):
        length = next(n for n in range(1, len(path) + 1) if [other[-n:] for other in paths].count(path[-n:]) == 1)
        named["/".join(path[-length:])] = run
    if START in named:  # no run is called so; a folder of one may be
        raise ConfigError(f"a run cannot be called {START!r}, the name of the model before alignment")
    return named


def _chosen(name: str | None, runs: Mapping[str, _Run]) -> str:
    """The run that `name` means: as the report calls it, or FOLDER/RUN."""
    if name is None:
        return next(iter(runs))
    ends = [key for key, run in runs.items() if _ends((*run.folder.resolve().parts, run.run), Path(name).parts)]
    if name in runs:
        return name
    if len(ends) != 1:
        why = f"may be {' or '.join(ends)}; say which" if ends else f"is none of the runs{nearest(name, runs)}"
        raise ConfigError(f"{name!r} {why}")
    return ends[0]


def _ends(path: Sequence[str], end: Sequence[str]) -> bool:
    return tuple(path[len(path) - len(end) :]) == tuple(end)


def _fingerprint(runs: Mapping[str, _Run]) -> str:
    text = "\n".join(str(run.folder.resolve() / run.run) for run in runs.values())
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _refuse_other(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()) and not (folder / RUNS).exists():
        raise ConfigError(f"{folder} is not empty and not a comparison of runs; choose another with --output")


# ---- what may be compared ----


def _objectives(runs: Mapping[str, _Run]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The objectives that mean the same wherever they stand, and those of one name that do not, by description."""
    versions: dict[str, dict[str, list[str]]] = {}
    facts: dict[str, Any] = {}
    for name, run in runs.items():
        for objective, described in run.designer.items():
            measure = {key: described.get(key) for key in ("description", "clip", "normalise", "scale")}
            measure["better"] = "lower" if described.get("weight", 1.0) < 0 else "higher"
            versions.setdefault(objective, {}).setdefault(json.dumps(measure, sort_keys=True), []).append(name)
            facts.setdefault(objective, described)
    same = {objective: facts[objective] for objective, found in versions.items() if len(found) == 1}
    apart = [
        {"name": objective, "versions": [{**json.loads(measure), "runs": owners} for measure, owners in found.items()]}
        for objective, found in versions.items()
        if len(found) > 1
    ]
    return same, apart


def _key(kind: str, row: Row) -> Hashable:
    """What makes two rows of two runs the same question."""
    if kind == "pairs":
        return row["conversation"], row["id"], *row["words"]
    return row["conversation"], row["prompt"]


def _keys(kind: str, rows: Iterable[Row]) -> set[Hashable]:
    return {_key(kind, row) for row in rows}


def _share(runs: Mapping[str, _Run]) -> dict[str, Any]:
    """Bring the rows of all runs to those that they share, if they share any; how many they are, and of how many.

    Runs without any row of a kind do not take part in it.
    """
    told = {}
    for kind in KINDS:
        keys = {name: _keys(kind, run.rows[kind]) for name, run in runs.items() if run.rows[kind]}
        shared = set.intersection(*keys.values()) if keys else set()
        if shared:
            for run in runs.values():
                run.rows[kind] = [row for row in run.rows[kind] if _key(kind, row) in shared]
                if kind == "generations":
                    run.before = [row for row in run.before if _key(kind, row) in shared]
        conversations = {name: len({key[0] for key in found}) for name, found in keys.items()}
        told[kind] = {
            "shared": len(shared),
            "conversations": len({key[0] for key in shared}),
            "of": {name: len(found) for name, found in keys.items()},
            "conversations_of": conversations,
        }
    return told


def _start(runs: Mapping[str, _Run]) -> tuple[list[Row], list[Row]] | None:
    """Rows of the model before alignment, if all runs started from the same; None where they did not."""
    texts = {json.dumps(sorted([_key("generations", row), row["text"]] for row in run.before)) for run in runs.values()}
    one = next(iter(runs.values()))
    if len(texts) > 1 or not one.before:
        return None
    seeds = {row.get("seed") for row in one.rows["pairs"]}
    first = min(seeds, key=str) if seeds else None
    pairs = [
        {**row, "logp_chosen": row["ref_logp_chosen"], "logp_rejected": row["ref_logp_rejected"]}
        for row in one.rows["pairs"]
        if row.get("seed") == first
    ]
    return pairs, one.before


def _common(measured: Mapping[str, Sequence[str]], *names: str) -> list[str]:
    """Objectives that all of the runs have; of all runs where none are named."""
    lists = [measured[name] for name in names] or list(measured.values())
    return [objective for objective in lists[0] if all(objective in other for other in lists)]


# ---- settings ----


def _flat_recipe(
    kept: Mapping[str, Any], recipe: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """What the recipe says of one run, by dotted key: what it trains first, then the rest."""
    last = stages[-1]
    whole: dict[str, Any] = {"method": last["method"], "options": _options(last)}
    if last.get("operators"):
        whole["operators"] = last["operators"]
    if len(stages) > 1:
        before = [{**stage, "options": _options(stage)} for stage in stages[:-1]]
        whole["before it"] = {f"stage {i}": stage for i, stage in enumerate(before, start=1)}
    rest = {key: value for key, value in recipe.items() if key not in NOT_SETTINGS}
    whole |= {**rest, "train": merged(recipe["train"], last.get("train") or {}), "seeds": recipe["seeds"]}
    data = kept.get("data", {})
    sources = data.get("train", {}).get("sources", {}) if isinstance(data.get("train"), Mapping) else {}
    whole["training rows"] = {name: facts.get("sha256") for name, facts in sources.items()}
    whole["training records"] = data.get("split", {}).get("train")
    whole["unipref"] = kept["version"]
    return {key: _written(value) for key, value in _leaves(whole)}


def _options(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's options with the defaults of its method, so that a default and the same value written out agree."""
    defaults = {name: value for name, value in get_method(stage["method"]).options.items() if value != REQUIRED}
    return {**defaults, **(stage.get("options") or {})}


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    return repr(value) if callable(value) else json.dumps(value, default=str)


def _settings(runs: Mapping[str, _Run]) -> dict[str, Any]:
    """The keys whose values are not the same for all runs, {key: {run: value, None where it has no such key}}."""
    keys = dict.fromkeys(key for run in runs.values() for key in run.settings)
    table = {key: {name: run.settings.get(key) for name, run in runs.items()} for key in keys}
    written = {f"options.{name}" for run in runs.values() for name in run.entry.get("options") or {}}
    for key, values in list(table.items()):
        # a default of the one method that has this option tells no more than the method's name
        if key.startswith("options.") and key not in written and len({*values.values()} - {None}) == 1:
            del table[key]
    differing = {key: values for key, values in table.items() if len(set(values.values())) > 1}
    return {"differ": differing, "same": len(table) - len(differing)}


# ---- numbers ----


def _numbers(run: _Run, designer: Sequence[str]) -> dict[str, Any]:
    found = summarise(run.rows["pairs"], run.rows["generations"], designer=designer)
    kept = {name: run.entry[name] for name in ("method", "options", "seeds", "seconds") if name in run.entry}
    alarms = run.entry.get("alarms", [])
    return {**found, **kept, "alarms": alarms, "folder": str(run.folder), "run": run.run}


def _differences(
    runs: Mapping[str, _Run], baseline: str, measured: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Each run minus the baseline on what the two share, p-values adjusted over the runs, a metric at a time."""
    entries = []
    for name in runs:
        if name == baseline:
            continue
        pair = {each: runs[each] for each in (name, baseline)}
        designer = _common(measured, name, baseline)
        rows: dict[str, list[list[Row]]] = {each: [] for each in pair}
        shares = []
        for kind in KINDS:
            shared = set.intersection(*(_keys(kind, run.rows[kind]) for run in pair.values()))
            shares.append(bool(shared))
            for each, run in pair.items():
                rows[each].append([row for row in run.rows[kind] if not shared or _key(kind, row) in shared])
        found = against_baseline({each: tuple(sides) for each, sides in rows.items()}, baseline, designer=designer)
        for entry in found:
            which = _which(entry["metric"])
            entry["paired"] = shares[which]
            if not shares[which]:
                sides = rows[name][which], rows[baseline][which]
                entry |= {**unpaired(entry["metric"], *sides, designer=designer), "p": None, "by_seed": {}}
        entries += found
    for metric in dict.fromkeys(entry["metric"] for entry in entries):
        family = [entry for entry in entries if entry["metric"] == metric]
        for entry, p in zip(family, holm([entry["p"] for entry in family]), strict=True):
            entry["p_holm"] = None if np.isnan(p) else float(p)
    return entries


def _which(metric: str) -> int:
    """0 where a metric is of pairs, 1 where it is of generations."""
    return int(metric in ("kl", "length") or metric.endswith(".generations"))


def _fronts(
    runs: Mapping[str, _Run],
    axes: Sequence[Axes],
    families: Mapping[str, Sequence[str]],
    measured: Mapping[str, Sequence[str]],
    start: tuple[list[Row], list[Row]] | None,
) -> list[dict[str, Any]]:
    common = _common(measured)
    if not axes and all(run.rows["generations"] for run in runs.values()):
        weights = {name: next(iter(runs.values())).designer[name].get("weight", 1.0) for name in common}
        axes = [((f"aux.{name}.generations", -1 if weights[name] < 0 else 1), ("kl", -1)) for name in common]
    found = []
    for one in axes:
        for metric, _ in one:
            objective = ".".join(metric.split(".")[1:-1])
            if (
                metric.startswith("aux.")
                and objective not in common
                and any(objective in r.designer for r in runs.values())
            ):
                raise ConfigError(
                    f"--fronts: {metric} cannot be an axis, because not every run measures {objective!r}, or not in "
                    "the same way; compare fewer runs, or take another axis"
                )
        found.append(
            fronts(
                {name: (run.rows["pairs"], run.rows["generations"]) for name, run in runs.items()},
                families or _families(runs),
                one,
                designer=common,
                reference=start,
                name=" against ".join(metric.removesuffix(".generations").removeprefix("aux.") for metric, _ in one),
            )
        )
    return found


def _families(runs: Mapping[str, _Run]) -> dict[str, list[str]]:
    """Runs of one method whose options differ in numbers alone; those without an auxiliary weight by themselves."""
    families: dict[str, list[str]] = {}
    for name, run in runs.items():
        method = run.settings["method"]
        given = run.entry.get("options") or {}
        kinds = [f"{key}={value}" for key, value in given.items() if isinstance(value, str)]
        off = ["lam=0"] if given.get("lam") == 0 else []
        families.setdefault(":".join([method, *([";".join([*kinds, *off])] if kinds or off else [])]), []).append(name)
    return families


# ---- words and texts ----


def _notes(
    runs: Mapping[str, _Run],
    heldout: Mapping[str, Any],
    apart: Sequence[Mapping[str, Any]],
    start: tuple[list[Row], list[Row]] | None,
) -> list[str]:
    """What a reader could get wrong, for these runs."""
    told = []
    what = {"pairs": "held-out pairs", "generations": "prompts with an answer"}
    for kind, facts in heldout.items():
        sizes = set(facts["of"].values())
        without = [name for name in runs if name not in facts["of"]]
        if facts["shared"] and sizes != {facts["shared"]}:
            own = ", ".join(f"{name} {n:,}" for name, n in facts["of"].items())
            told.append(f"All runs share {facts['shared']:,} {what[kind]}, and only these count; they had {own}.")
        elif facts["of"] and not facts["shared"]:
            told.append(
                f"The runs share no {what[kind]}: each is judged on its own, and differences that are not paired hold "
                "the luck of the conversations on both sides."
            )
        if without:
            told.append(f"No {what[kind]}: {', '.join(without)}.")
    for objective in apart:
        versions = "; ".join(f"{', '.join(version['runs'])}: {_measure(version)}" for version in objective["versions"])
        told.append(f"{objective['name']} is not compared, because it is not measured in the same way: {versions}.")
    lacking = {
        name: [run_name for run_name, run in runs.items() if name not in run.designer]
        for name in dict.fromkeys(name for run in runs.values() for name in run.designer)
    }
    told += [
        f"{objective} was not measured for {', '.join(without)}." for objective, without in lacking.items() if without
    ]
    samplings = [key for key in SAMPLING if len({json.dumps(run.sampling.get(key)) for run in runs.values()}) > 1]
    if samplings:
        told.append(
            f"Answers were drawn with different {', '.join(samplings)}: scores, KL and length of answers differ for "
            "that reason too."
        )
    if start is None and any(run.before for run in runs.values()):
        told.append(
            "The answers before alignment are not the same for all runs (another model, another warm-up, or other "
            "sampling), so no start is shown; reward accuracy and KL are each against the run's own start."
        )
    seeds = {len(run.entry.get("seeds", ())) for run in runs.values()}
    if len(seeds) > 1:
        told.append("Runs have different numbers of seeds; a run of one seed holds the luck of one training.")
    elif seeds == {1}:
        told.append("One training seed each: the luck of training is not in these intervals.")
    return told


def _measure(version: Mapping[str, Any]) -> str:
    scale = version["scale"]
    parts = [version["description"] or "a scorer that the folder does not describe"]
    parts += [f"clip {version['clip']}"] if any(end is not None for end in version["clip"] or ()) else []
    parts += [f"{version['normalise']} by {scale}"] if scale else []
    return ", ".join([*parts, f"{version['better']} is better"])


def _samples(
    runs: Mapping[str, _Run], measured: Mapping[str, Sequence[str]], start: tuple[list[Row], list[Row]] | None
) -> list[dict[str, Any]]:
    """Per prompt that all runs have answered, in the order of the first run: their answers of the first seed."""

    def first_of(rows: Sequence[Row], kept: Sequence[str]) -> dict[Hashable, Row]:
        texts: dict[Hashable, Row] = {}
        for row in rows:
            shown = {**row, "aux": {name: value for name, value in row["aux"].items() if name in kept}}
            texts.setdefault(_key("generations", row), shown)
        return texts

    by_run: dict[str, dict[Hashable, Row]] = {}
    if start is not None:
        by_run[START] = first_of(start[1], _common(measured))
    by_run |= {name: first_of(run.rows["generations"], measured[name]) for name, run in runs.items()}
    first = by_run[next(iter(runs))]
    shared: Callable[[Hashable], bool] = lambda key: all(key in texts for texts in by_run.values())  # noqa: E731
    return [
        {"id": row["id"], "prompt": row["prompt"], "texts": {name: texts[key] for name, texts in by_run.items()}}
        for key, row in first.items()
        if shared(key)
    ]
