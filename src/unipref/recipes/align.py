"""The main job: from a recipe to aligned models, their comparison and a report."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

import unipref
from unipref.core.cards import bibtex, get_method
from unipref.core.errors import ConfigError, DataError
from unipref.core.io import read_jsonl, to_json, write_json, write_text
from unipref.core.records import Record
from unipref.core.tries import build_trie
from unipref.data import as_pairs, is_heldout, limit_records, read_records, split_records
from unipref.engine import Policy, load_model, load_tokenizer, score
from unipref.evaluate import alarms, differences, generation_rows, pair_rows, summarise, summarise_reference
from unipref.recipes.config import Recipe, Stage
from unipref.recipes.stage import check_trackers, examples_of, run_stage, stage_done
from unipref.report import write_report
from unipref.rewards import DesignerObjectives
from unipref.sampling import generate
from unipref.store import ScoreStore
from unipref.training import Example, autocast, cache_references, leave_group, processes, resolve_precision

__all__ = ["align"]

VALIDATION_SALT = "unipref-validation-1"
VALIDATION_SHARE = 0.1

Show = Callable[[int, int, Mapping[str, Any]], None]


@dataclass
class _Data:
    """The records of a run and what is to be told of them."""

    train: list[Record]
    validation: list[Record]
    heldout: list[Record]
    report: dict[str, Any]
    designer: DesignerObjectives | None


def align(recipe: Recipe, *, output: Path | None = None, resume: bool = False, console: Console | None = None) -> Path:
    """Run `recipe`; the run folder with models, metrics, `summary.json` and `report.html`.

    A folder that an earlier run left is kept beside it as `NAME.previous`; with `resume` it is continued: finished
    stages and evaluations are taken as they are, a stage that was stopped goes on from its last whole checkpoint.

    Raises:
        UniprefError: something is wrong that the user can mend; everything that was finished stays in the folder.
    """
    for stage in (stage for stages in recipe.run_plan().values() for stage in stages):
        check_trackers(recipe.train_of(stage))
    console = console or Console(stderr=True)
    folder = Path(output) if output is not None else recipe.folder
    rank0 = processes().is_main_process
    if rank0:
        _prepare_folder(folder, recipe, resume=resume)
    processes().wait_for_everyone()
    store = ScoreStore(folder.parent / ".scores")
    with _quiet_transformers():
        data = _read(recipe, store, console if rank0 else None)
        if rank0:
            write_json(folder / "data.json", data.report)
        finals = _train_all(recipe, folder, data, store, resume=resume, console=console if rank0 else None)
        if rank0:
            rows = _judge_all(recipe, folder, data, finals, store, resume=resume, console=console)
            write_json(folder / "summary.json", _summarise(recipe, folder, data, finals, rows))
            _cite(recipe, folder)
            write_report(folder)
    leave_group()
    return folder


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Its bars for loading and saving would tear up ours; faults still come as exceptions."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _prepare_folder(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    resolved = yaml.safe_dump(recipe.resolved(), sort_keys=False, allow_unicode=True)
    path = folder / "recipe.yaml"
    if resume:
        if not path.exists():
            raise ConfigError(f"there is nothing to resume in {folder}: it holds no recipe.yaml; run without --resume")
        if path.read_text(encoding="utf-8") != resolved:
            raise ConfigError(
                f"{path} is not the recipe that was given; resume with the same recipe, or run without --resume"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        previous = folder.with_name(f"{folder.name}.previous")
        if not path.exists():
            raise ConfigError(f"{folder} is not empty and not a run folder; choose another with --output")
        if previous.exists():
            shutil.rmtree(previous)
        folder.rename(previous)
    write_text(path, resolved)


# ---- data ----


def _read(recipe: Recipe, store: ScoreStore, console: Console | None) -> _Data:
    options = recipe.data
    records, report = read_records(options.train, format=options.format, strict=options.strict)
    told: dict[str, Any] = {"train": report.to_dict()}
    if options.eval is None:
        train, heldout = split_records(records, share=options.eval_share)
    else:
        train = records
        heldout, held_report = read_records(options.eval, format=options.format, strict=options.strict)
        told["eval"] = held_report.to_dict()
        inside = {record.conversation for record in heldout}
        kept = [record for record in train if record.conversation not in inside]
        told["overlap_with_eval"] = len(train) - len(kept)
        train = kept
    if not heldout:
        raise ConfigError("no record is held out; raise data.eval_share or give data.eval")
    train = limit_records(train, options.limit)[0] if options.limit else train
    heldout = limit_records(heldout, options.eval_limit)[0] if options.eval_limit else heldout
    validation: list[Record] = []
    if any(recipe.train_of(stage).eval_steps for stages in recipe.run_plan().values() for stage in stages):
        # checkpoints are chosen on rows that no number of the report is taken from
        sides: tuple[list[Record], list[Record]] = ([], [])
        for record in train:
            sides[is_heldout(record.conversation, share=VALIDATION_SHARE, salt=VALIDATION_SALT)].append(record)
        train, validation = sides
    designer = None
    if recipe.objectives:
        specs = {name: objective.model_dump(exclude_none=True) for name, objective in recipe.objectives.items()}
        designer = DesignerObjectives.from_config(specs, missing=recipe.missing_rewards)
        designer, train, found = designer.fit_score(train, store=store)
        heldout, held_found = designer.score_records(heldout, store=store)
        if validation:
            validation, _ = designer.score_records(validation, store=store)
        told["designer"] = {"train": found.to_dict(), "heldout": held_found.to_dict()}
        if console is not None:
            for sentence in found.conflicts:
                console.print(f"note: {sentence}", highlight=False)
    told["split"] = {
        "train": len(train),
        "validation": len(validation),
        "heldout": len(heldout),
        "conversations_heldout": len({record.conversation for record in heldout}),
        "by": "conversation (hash of the first user turn)",
    }
    if console is not None:
        console.print(report.describe())
        console.print(f"{len(train)} records to train on, {len(heldout)} held out (no conversation is in both).")
    return _Data(train, validation, heldout, told, designer)


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
    recipe: Recipe, folder: Path, data: _Data, store: ScoreStore, *, resume: bool, console: Console | None
) -> list[_Final]:
    plan = recipe.run_plan()
    done: dict[str, Path] = {}
    finals = []
    for seed in recipe.seeds:
        for run, stages in plan.items():
            start, seconds, method = recipe.model, 0.0, ""
            reference = recipe.model
            run_folder = folder / run if len(recipe.seeds) == 1 else folder / run / f"seed-{seed}"
            n_shared = len(recipe.stages) if recipe.runs else len(stages) - 1
            for i, stage in enumerate(stages):
                shared = i < len(recipe.stages) and bool(recipe.runs)
                key = _stage_key(seed, stages[: i + 1])
                if i == n_shared:
                    reference = start
                place = run_folder / stage.label
                if shared:
                    place = folder / "shared" / f"{stage.label}-{key}"
                if key not in done or not shared:
                    title = f"{stage.label} (shared)" if shared else run
                    with _progress(console, f"{title} seed {seed}" if len(recipe.seeds) > 1 else title) as show:
                        model = run_stage(
                            recipe,
                            stage,
                            start=start,
                            folder=place,
                            seed=seed,
                            train=data.train,
                            validation=data.validation,
                            store=store,
                            resume=resume,
                            show=show,
                        )
                    done[key] = model
                model = done[key]
                start, method = str(model), stage.method
                seconds += stage_done(place)["seconds"]
            finals.append(_Final(run, seed, run_folder, Path(start), str(reference), method, seconds))
    return finals


def _stage_key(seed: int, stages: Sequence[Stage]) -> str:
    text = to_json([seed, [stage.model_dump(mode="json") for stage in stages]])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class _progress:
    """A progress bar for one stage; silent without a console."""

    def __init__(self, console: Console | None, title: str) -> None:
        self.console, self.title = console, title
        self.bar: Progress | None = None

    def __enter__(self) -> Show:
        if self.console is None:
            return lambda done, total, logs: None
        self.bar = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
            console=self.console,
        )
        task = self.bar.add_task(self.title, total=None, told="")
        self.bar.start()

        def show(done: int, total: int, logs: Mapping[str, Any]) -> None:
            told = [f"loss {logs['loss']:.3f}"] if "loss" in logs else []
            if np.isfinite(logs.get("rewards/accuracies", np.nan)):
                told.append(f"accuracy {logs['rewards/accuracies']:.2f}")
            if np.isfinite(logs.get("upo/gradient_ratio", np.nan)):
                told.append(f"aux/pref {logs['upo/gradient_ratio']:.2f}")
            self.bar.update(task, completed=done, total=total, told="  ".join(told))

        return show

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()


# ---- judging ----


@dataclass
class _Rows:
    pairs: list[dict[str, Any]]
    generations: list[dict[str, Any]]


def _judge_all(
    recipe: Recipe,
    folder: Path,
    data: _Data,
    finals: Sequence[_Final],
    store: ScoreStore,
    *,
    resume: bool,
    console: Console,
) -> dict[str, _Rows]:
    """The rows of every run, all seeds together, and those of the model before alignment under "reference"."""
    rows: dict[str, _Rows] = {}
    with console.status("evaluating on held-out records"):
        for final in finals:
            path = final.folder / "evaluation.json"
            if not (resume and path.exists()):
                found = _judge(recipe, data, final.model, final.reference, store, seed=final.seed)
                write_json(path, {"seed": final.seed, "pairs": found.pairs, "generations": found.generations})
            saved = json.loads(path.read_text(encoding="utf-8"))
            whole = rows.setdefault(final.run, _Rows([], []))
            whole.pairs += saved["pairs"]
            whole.generations += saved["generations"]
        path = folder / "shared" / "reference.json"
        if not (resume and path.exists()):
            found = _judge(recipe, data, finals[0].reference, finals[0].reference, store, seed=finals[0].seed)
            write_json(path, {"pairs": found.pairs, "generations": found.generations})
        saved = json.loads(path.read_text(encoding="utf-8"))
        rows["reference"] = _Rows(saved["pairs"], saved["generations"])
    return rows


def _judge(recipe: Recipe, data: _Data, model: Path | str, reference: str, store: ScoreStore, *, seed: int) -> _Rows:
    """Held-out pairs and sampled responses of one model, each scored under it and under its reference."""
    trust = recipe.model_options.trust_remote_code
    tokenizer = load_tokenizer(str(model), trust_remote_code=trust)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # what is reported is not rounded to bfloat16 where that costs seconds; on a GPU it would cost a model's size
    precision = "float32" if device.type == "cpu" else resolve_precision(recipe.train.precision, device)
    budget = 2 * recipe.train.max_tokens_per_forward
    policy = Policy(load_model(str(model), dtype="float32", trust_remote_code=trust)).to(device).eval()
    base = Policy(load_model(str(reference), dtype="float32", trust_remote_code=trust)).to(device).eval()
    examples, _ = examples_of(_compared(data.heldout), tokenizer, max_length=recipe.data.max_length)
    keep = {"store": store, "precision": precision, "max_tokens": budget}
    cache_references(examples, policy, name="logp", **keep)
    cache_references(examples, base, name="ref_logp", **keep)
    names = list(recipe.objectives)
    pairs = pair_rows(
        [e.record for e in examples],
        logp=[e.ref_logp["logp"] for e in examples],
        ref_logp=[e.ref_logp["ref_logp"] for e in examples],
        aux=names,
        seed=seed,
    )
    return _Rows(pairs, _sample(recipe, data, examples, policy, base, tokenizer, precision, seed=seed))


def _compared(records: Sequence[Record]) -> Sequence[Record]:
    """`records` with comparisons wherever ranks, ratings or thumbs give any."""
    try:
        return as_pairs(records)[0]
    except DataError:
        return records


def _sample(
    recipe: Recipe,
    data: _Data,
    examples: Sequence[Example],
    policy: Policy,
    base: Policy,
    tokenizer: Any,
    precision: str,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    sampling = recipe.sampling
    chosen: dict[str, Example] = {}
    for example in examples:  # one prompt per conversation, so that prompts are independent draws
        chosen.setdefault(example.record.conversation, example)
    if not sampling.prompts:
        return []
    prompts, _ = limit_records([example.record for example in chosen.values()], sampling.prompts)
    kept = [chosen[record.conversation] for record in prompts]
    contexts = [_context_ids(example) for example in kept]
    device = next(policy.parameters()).device
    with autocast(device, precision):
        samples = generate(
            policy.model,
            tokenizer,
            contexts,
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
        )
    tries = [build_trie([(context, sample.ids)]) for context, sample in zip(contexts, samples, strict=True)]
    budget = 2 * recipe.train.max_tokens_per_forward
    with autocast(device, precision):
        logp = score(policy, tries, max_tokens=budget)
        ref_logp = score(base, tries, max_tokens=budget)
    aux = {}
    if data.designer is not None:
        aux = data.designer.score_texts([r.items[0].context for r in prompts], [sample.text for sample in samples])
    return generation_rows(
        prompts,
        samples,
        logp=[values[0] for values in logp],
        ref_logp=[values[0] for values in ref_logp],
        aux=aux,
        seed=seed,
    )


def _context_ids(example: Example) -> list[int]:
    trie = example.trie
    path = trie.path(0)
    return trie.token[path[: len(path) - len(trie.scored[0])]].tolist()


# ---- the summary ----


def _summarise(
    recipe: Recipe, folder: Path, data: _Data, finals: Sequence[_Final], rows: Mapping[str, _Rows]
) -> dict[str, Any]:
    names = list(recipe.objectives)
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
        }
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
        "designer": {} if data.designer is None else data.designer.describe(),
        "runs": runs,
        "differences": differences(
            {run: (rows[run].pairs, rows[run].generations) for run in runs}, recipe.controls, designer=names
        ),
        "reference": reference,
    }


def _diagnostics(logs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the run of what UPO logs, where the auxiliary term was on."""
    found = {}
    for name in ("gradient_ratio", "ess", "advantage"):
        values = [row[f"upo/{name}"] for row in logs if row.get(f"upo/{name}") is not None]
        if values:
            found[name] = float(np.mean(values))
    return found


def _cite(recipe: Recipe, folder: Path) -> None:
    keys = dict.fromkeys(stage.method for stages in recipe.run_plan().values() for stage in stages)
    bases = dict.fromkeys(
        stage.options["base"]
        for stages in recipe.run_plan().values()
        for stage in stages
        if isinstance(stage.options.get("base"), str)
    )
    write_text(folder / "citations.bib", bibtex([get_method(key) for key in {**keys, **bases}]))
