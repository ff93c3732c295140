"""The main job: from a recipe to aligned models, their comparison and a report."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import unipref
from unipref.core.io import read_jsonl, write_json, write_text
from unipref.data import one_pair_each
from unipref.engine import Policy, load_model, load_tokenizer
from unipref.evaluate import alarms, differences, dynamics, fronts, summarise, summarise_reference
from unipref.recipes._judging import Rows, compared, judge_pairs, judging_precision, sample
from unipref.recipes._reward_backbone import all_rewards, rewards_of, run_trains_reward
from unipref.recipes._run import (
    RunData,
    described,
    prepare_folder,
    quiet_transformers,
    read_data,
    run_stages,
    stage_key,
)
from unipref.recipes.citations import bibliography
from unipref.recipes.config import Recipe
from unipref.recipes.doctor import before_training
from unipref.recipes.fit import check_data
from unipref.recipes.stage import check_installed, examples_of
from unipref.report import write_report
from unipref.store import ScoreStore
from unipref.training import asked_sharding, cache_references, leave_group, processes

__all__ = ["align"]


def align(recipe: Recipe, *, output: Path | None = None, resume: bool = False, console: Console | None = None) -> Path:
    """Run `recipe`; the run folder with models, metrics, `summary.json` and `report.html`.

    A folder that an earlier run left is kept beside it as `NAME.previous`; with `resume` it is continued: finished
    stages and evaluations are taken as they are, a stage that was stopped goes on from its last whole checkpoint.

    Raises:
        UniprefError: something is wrong that the user can mend; everything that was finished stays in the folder.
    """
    for stage in (stage for stages in recipe.run_plan().values() for stage in stages):
        check_installed(recipe.model_options, recipe.train_of(stage))
    console = console or Console(stderr=True)
    folder = Path(output) if output is not None else recipe.folder
    rank0 = processes().is_main_process
    asked_sharding()  # a launcher's configuration that cannot work is said before anything is read
    if rank0:
        prepare_folder(folder, recipe, resume=resume)
    processes().wait_for_everyone()
    store = ScoreStore(folder.parent / ".scores")
    with quiet_transformers():
        data = read_data(recipe, store, console if rank0 else None, folder=folder)
        check_data(recipe, data.train)  # first: it asks no model, which may be far away
        if rank0:
            before_training(recipe, data, folder, console)
        processes().wait_for_everyone()
        if rank0:
            write_json(folder / "data.json", data.report)
        finals = _train_all(recipe, folder, data, store, resume=resume, console=console if rank0 else None)
        leave_group()  # the others end here, their devices are free, and nobody waits for what one process judges
        if rank0:
            rows = _judge_all(recipe, folder, data, finals, store, resume=resume, console=console)
            write_json(folder / "summary.json", _summarise(recipe, data, finals, rows))
            write_text(folder / "citations.bib", bibliography(recipe))
            write_report(folder)
    return folder


# ---- training ----


@dataclass(frozen=True)
class _Final:
    """A trained run: where its model lies, what it started from, what the stages say of themselves."""

    run: str
    seed: int
    folder: Path
    model: Path
    reference: str
    method: str
    seconds: float


def _train_all(
    recipe: Recipe, folder: Path, data: RunData, store: ScoreStore, *, resume: bool, console: Console | None
) -> list[_Final]:
    plan = recipe.run_plan()
    shared = recipe.shared_stages if recipe.runs else []
    several = len(recipe.seeds) > 1
    finals = []
    for seed in recipe.seeds:
        told = f" seed {seed}" if several else ""
        common = {"seed": seed, "data": data, "store": store, "resume": resume, "console": console}
        places = [folder / "shared" / f"{s.label}-{stage_key(seed, shared[: i + 1])}" for i, s in enumerate(shared)]
        start, before = run_stages(
            recipe, shared, places, start=recipe.model, title=lambda s, told=told: f"{s.label} (shared){told}", **common
        )
        for run, stages in plan.items():
            own = stages[len(shared) :]
            first = 0 if recipe.runs else len(own) - 1  # what the run itself is compared with: where this stage starts
            while first and own[first].round:  # of a loop: where its first round starts
                first -= 1
            run_folder = folder / run / f"seed-{seed}" if several else folder / run
            places = [run_folder / stage.label for stage in own]
            more = {"title": lambda s, run=run, told=told: f"{run}{told}", **common}
            reference, warm_up = run_stages(recipe, own[:first], places[:first], start=start, **more)
            model, seconds = run_stages(recipe, own[first:], places[first:], start=reference, **more)
            finals.append(
                _Final(run, seed, run_folder, Path(model), reference, own[-1].method, before + warm_up + seconds)
            )
    return finals


# ---- judging ----


def _judge_all(
    recipe: Recipe,
    folder: Path,
    data: RunData,
    finals: Sequence[_Final],
    store: ScoreStore,
    *,
    resume: bool,
    console: Console,
) -> dict[str, Rows]:
    """The rows of every run, all seeds together, and those of the model before alignment under "reference"."""
    rows: dict[str, Rows] = {}
    with console.status("evaluating on held-out records"):
        for final in finals:
            path = final.folder / "evaluation.json"
            if not (resume and path.exists()):
                if run_trains_reward(recipe, final.run):
                    found = _judge_rewards(recipe, data, final)
                else:
                    found = _judge(recipe, data, final.model, final.reference, store, seed=final.seed)
                write_json(path, {"seed": final.seed, "pairs": found.pairs, "generations": found.generations})
            saved = json.loads(path.read_text(encoding="utf-8"))
            whole = rows.setdefault(final.run, Rows([], []))
            whole.pairs += saved["pairs"]
            whole.generations += saved["generations"]
        if all_rewards(recipe):  # no policy was trained, and so there is none before alignment either
            return rows
        policy = next(final for final in finals if not run_trains_reward(recipe, final.run))
        path = folder / "shared" / "reference.json"
        if not (resume and path.exists()):
            found = _judge(recipe, data, policy.reference, policy.reference, store, seed=policy.seed)
            write_json(path, {"pairs": found.pairs, "generations": found.generations})
        saved = json.loads(path.read_text(encoding="utf-8"))
        rows["reference"] = Rows(saved["pairs"], saved["generations"])
    return rows


def _judge(recipe: Recipe, data: RunData, model: Path | str, reference: str, store: ScoreStore, *, seed: int) -> Rows:
    """Held-out pairs and sampled responses of one model, each scored under it and under its reference."""
    trust = recipe.model_options.trust_remote_code
    tokenizer = load_tokenizer(str(model), trust_remote_code=trust)
    device, precision = judging_precision(recipe)
    policy = Policy(load_model(str(model), dtype="float32", trust_remote_code=trust)).to(device).eval()
    base = Policy(load_model(str(reference), dtype="float32", trust_remote_code=trust)).to(device).eval()
    examples, _ = examples_of(compared(data.heldout), tokenizer, max_length=recipe.data.max_length)
    keep = {"store": store, "precision": precision, "max_tokens": 2 * recipe.train.max_tokens_per_forward}
    cache_references(examples, policy, name="logp", **keep)
    cache_references(examples, base, name="ref_logp", **keep)
    written = sample(recipe, data.designer, data.judges, examples, policy, base, tokenizer, precision, seed=seed)
    return Rows(judge_pairs(recipe, examples, seed=seed), written)


def _judge_rewards(recipe: Recipe, data: RunData, final: _Final) -> Rows:
    """Held-out pairs under a reward model; it writes nothing, and no reference is run."""
    tokenizer = load_tokenizer(str(final.model), trust_remote_code=recipe.model_options.trust_remote_code)
    pairs, _ = one_pair_each(compared(data.heldout))
    examples, _ = examples_of(pairs, tokenizer, max_length=recipe.data.max_length)
    rewards = rewards_of(recipe, final.run, examples, final.model)
    return Rows(judge_pairs(recipe, examples, seed=final.seed, reward=rewards), [])


# ---- the summary ----


def _summarise(recipe: Recipe, data: RunData, finals: Sequence[_Final], rows: Mapping[str, Rows]) -> dict[str, Any]:
    names = recipe.scores
    reference = None
    if "reference" in rows:
        reference = summarise_reference(rows["reference"].pairs, rows["reference"].generations, designer=names)
    runs: dict[str, Any] = {}
    for run in recipe.run_plan():
        mine = [final for final in finals if final.run == run]
        stage = recipe.run_plan()[run][-1]
        found = summarise(rows[run].pairs, rows[run].generations, designer=names)
        logs = [
            {**row, "seed": final.seed} if len(mine) > 1 else row
            for final in mine
            for row in read_jsonl(final.folder / stage.label / "metrics.jsonl")
        ]
        found |= {
            "method": mine[0].method,
            "options": stage.options,
            "seeds": [final.seed for final in mine],
            "seconds": sum(final.seconds for final in mine),
            "diagnostics": _diagnostics(logs),
            "dynamics": _dynamics(logs),
        }
        if run_trains_reward(recipe, run):
            found |= {"reward_model": True, "dynamics": []}
        found["alarms"] = alarms(
            logs, found, reference=reference, method=mine[0].method, bounds=recipe.train_of(stage).bounds.model_dump()
        )
        runs[run] = found
    return {
        "name": recipe.name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": unipref.__version__,
        "recipe": recipe.resolved(),
        "data": data.report,
        "designer": described(data),
        "runs": runs,
        "differences": differences(
            {run: (rows[run].pairs, rows[run].generations) for run in runs}, recipe.controls, designer=names
        ),
        "reference": reference,
        "fronts": _fronts(recipe, rows),
    }


def _fronts(recipe: Recipe, rows: Mapping[str, Rows]) -> list[dict[str, Any]]:
    """The trade-offs that the recipe asks for, the model before alignment among the points."""
    signs = {"higher": 1, "lower": -1}
    return [
        fronts(
            {run: (found.pairs, found.generations) for run, found in rows.items() if run != "reference"},
            asked.families,
            [(axis.metric, signs[axis.better]) for axis in asked.axes],
            designer=recipe.scores,
            reference=(rows["reference"].pairs, rows["reference"].generations) if "reference" in rows else None,
            name=name,
        )
        for name, asked in recipe.fronts.items()
    ]


def _dynamics(logs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each seed's training did to probabilities on the way."""
    by_seed: dict[Any, list[Mapping[str, Any]]] = {}
    for row in logs:
        by_seed.setdefault(row.get("seed"), []).append(row)
    return [{"seed": seed, **dynamics(rows)} for seed, rows in by_seed.items()]


def _diagnostics(logs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the run of what UPO logs, where the auxiliary term was on."""
    found = {}
    for name in ("gradient_ratio", "ess", "advantage"):
        values = [row[f"upo/{name}"] for row in logs if row.get(f"upo/{name}") is not None]
        if values:
            found[name] = float(np.mean(values))
    return found
