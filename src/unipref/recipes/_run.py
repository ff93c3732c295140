"""What every job does around its training: the run folder, the records, the stages in a row, the progress shown."""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from unipref.core.errors import ConfigError
from unipref.core.io import to_json, write_text
from unipref.core.records import Record
from unipref.data import DataReport, is_heldout, limit_records, read_records, split_records
from unipref.engine import Policy
from unipref.recipes._collecting import collected
from unipref.recipes.config import DataSplit, DesignerObjective, Recipe, ScorerChoice, Stage
from unipref.recipes.stage import run_stage, stage_done
from unipref.recipes.streamed import Streamed, refuse_unstreamable, split_of
from unipref.recipes.workbench import Workbench
from unipref.rewards import DesignerObjectives, Judges, make_scorer
from unipref.store import ScoreStore

__all__ = [
    "VALIDATION_SHARE",
    "RunData",
    "described",
    "prepare_folder",
    "progress",
    "quiet_transformers",
    "read_data",
    "run_stages",
    "stage_key",
]

PREPARED = ".prepared"  # beside the run folders
VALIDATION_SALT = "unipref-validation-1"
VALIDATION_SHARE = 0.1
_BEFORE_WORK = frozenset({"recipe.yaml", "data.json", "doctor.json"})  # what a run writes before it trains

Show = Callable[[int, int, Mapping[str, Any]], None]


@dataclass
class RunData:
    """The records of a run and what is to be told of them.

    Attributes:
        read: the account of the training file's rows; of prompts that were answered, from prompts to pairs.
        judges: what grades generations besides `designer`.
        stream: all training records, where they are not held in memory; `train` is a sample of them then.
    """

    train: list[Record]
    validation: list[Record]
    heldout: list[Record]
    report: dict[str, Any]
    designer: DesignerObjectives | None
    read: DataReport
    judges: Judges | None = None
    stream: Streamed | None = None

    @property
    def n_train(self) -> int:
        """Training records, all of them."""
        return len(self.train) if self.stream is None else self.stream.split.n


def described(data: RunData) -> dict[str, dict[str, Any]]:
    """What scores stand for, by name: the designer objectives, then the judges."""
    own = {} if data.designer is None else data.designer.describe()
    return own | ({} if data.judges is None else data.judges.describe())


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
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


def prepare_folder(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    """Make `folder` ready for a run of `recipe`: what an earlier run left is kept beside it as NAME.previous.

    A start that ended before there was any work is replaced, and NAME.previous stays what it was: however often a start
    fails, the last run that did something is kept.

    Raises:
        ConfigError: the folder holds something that is no run, or nothing that a resume could go on with.
    """
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
        if {entry.name for entry in folder.iterdir()} <= _BEFORE_WORK:
            shutil.rmtree(folder)
        else:
            if previous.exists():
                shutil.rmtree(previous)
            folder.rename(previous)
    write_text(path, resolved)


def read_data(
    recipe: Recipe,
    store: ScoreStore | None,
    console: Console | None,
    *,
    folder: Path | None = None,
    validation_share: float | None = None,
) -> RunData:
    """The records of `recipe`, split and scored by its designer objectives.

    Args:
        folder: the run folder, where a recipe that collects its pairs keeps them. Without it nothing is sampled: the
            records of such a recipe are its prompts, and objectives and judges have nothing to score.
        console: where to tell what was found; None: nowhere.
        validation_share: share of the training conversations that validation takes; None: VALIDATION_SHARE where a
            stage evaluates while it trains, and nothing otherwise.

    Raises:
        ConfigError: no record is held out.
    """
    if recipe.data.stream:
        return _streamed(recipe, store, console, folder, validation_share)
    train, heldout, report, told = read_split(recipe.data, notes=_not_collected(recipe))
    if recipe.collect is not None and folder is not None:
        train, report = _collected(recipe, train, "train", folder, store, console)
        heldout, held_report = _collected(recipe, heldout, "heldout", folder, store, console)
        report.notes += _not_collected(recipe)
        told["collected"] = {"train": report.to_dict(), "heldout": held_report.to_dict()}
    scorable = recipe.collect is None or folder is not None
    validation: list[Record] = []
    share = _validation_share(recipe, validation_share)
    if share is not None:
        # checkpoints are chosen on rows that no number of the report is taken from
        sides: tuple[list[Record], list[Record]] = ([], [])
        for record in train:
            sides[is_heldout(record.conversation, share=share, salt=VALIDATION_SALT)].append(record)
        train, validation = sides
    designer = None
    if recipe.objectives and scorable:
        designer = _designer(recipe)
        designer, train, found = designer.fit_score(train, store=store)
        heldout, held_found = designer.score_records(heldout, store=store)
        if validation:
            validation, _ = designer.score_records(validation, store=store)
        told["designer"] = {"train": found.to_dict(), "heldout": held_found.to_dict()}
        if console is not None:
            for sentence in found.notes:
                console.print(f"note: {sentence}", highlight=False)
    judges = None
    if recipe.judges and scorable:
        judges, heldout = _judged(recipe, heldout, store, told, console)
    if scorable and (facts := _facts(recipe)):
        told["scorers"] = facts
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
    return RunData(train, validation, heldout, told, designer, report, judges)


def _validation_share(recipe: Recipe, share: float | None) -> float | None:
    """Share of the training conversations that validation takes; None: nothing."""
    if any(recipe.train_of(stage).eval_steps for stages in recipe.run_plan().values() for stage in stages):
        return share or VALIDATION_SHARE
    return share


def _designer(recipe: Recipe) -> DesignerObjectives:
    specs = {name: objective.model_dump(exclude_none=True) for name, objective in recipe.objectives.items()}
    return DesignerObjectives.from_config(specs, missing=recipe.missing_rewards)


def _judged(
    recipe: Recipe, heldout: list[Record], store: ScoreStore | None, told: dict[str, Any], console: Console | None
) -> tuple[Judges, list[Record]]:
    """The judges, and what they say of the held-out records."""
    judges = Judges({name: make_scorer(judge.model_dump()) for name, judge in recipe.judges.items()})
    heldout = judges.score_records(heldout, store=store)
    told["judges"] = {"notes": _self_graded(recipe)}
    if console is not None:
        for sentence in told["judges"]["notes"]:
            console.print(f"warning: {sentence}", highlight=False)
    return judges, heldout


def _streamed(
    recipe: Recipe,
    store: ScoreStore | None,
    console: Console | None,
    folder: Path | None,
    validation_share: float | None,
) -> RunData:
    """As `read_data`, of a recipe whose training rows are not held in memory: `train` is a sample of them.

    Of the designer's objectives, only what normalising takes is measured on all rows; the account is of the sample.
    """
    refuse_unstreamable(recipe)
    place = None if folder is None else folder.parent / PREPARED
    share = _validation_share(recipe, validation_share)
    split = split_of(recipe, place, validation_share=share, salt=VALIDATION_SALT)
    told, report = dict(split.told), split.report
    report.notes += _not_collected(recipe)
    told["train"] = report.to_dict()
    stream = Streamed(recipe, split, place, store=store)
    train, validation, heldout, designer = split.sample, split.validation, split.heldout, None
    if recipe.objectives:
        stream = stream.fitted(_designer(recipe))
        designer = stream.designer
        train, found = designer.score_records(train, store=store)
        heldout, held_found = designer.score_records(heldout, store=store)
        validation = designer.score_records(validation, store=store)[0] if validation else []
        told["designer"] = {"train": {**found.to_dict(), "sample_of": split.n}, "heldout": held_found.to_dict()}
        if console is not None:
            for sentence in found.notes:
                console.print(f"note: {sentence} (in a sample of {len(train):,} records)", highlight=False)
    judges = None
    if recipe.judges:
        judges, heldout = _judged(recipe, heldout, store, told, console)
    if facts := _facts(recipe):
        told["scorers"] = facts
    told["split"] = {
        "train": split.n,
        "validation": len(validation),
        "heldout": len(heldout),
        "conversations_heldout": len({record.conversation for record in heldout}),
        "by": "conversation (hash of the first user turn)",
    }
    if console is not None:
        console.print(report.describe())
        for sentence in told["stream"]["notes"]:
            console.print(f"note: {sentence}", highlight=False)
        console.print(
            f"{split.n:,} records to train on, streamed; {len(heldout):,} held out (no conversation is in both)."
        )
    return RunData(train, validation, heldout, told, designer, report, judges, stream)


def read_split(
    options: DataSplit, *, notes: Sequence[str] = ()
) -> tuple[list[Record], list[Record], DataReport, dict[str, Any]]:
    """Records to train on, records held out, the account of the training file, and what `data.json` says of both.

    Training loses the conversations that a held-out file of its own has too; they are counted.

    Args:
        notes: told with the account of the training file.

    Raises:
        ConfigError: no record is held out.
    """
    how = {
        "format": options.format,
        "strict": options.strict,
        "domain_field": options.domain_column,
        "user_field": options.user_column,
    }
    sources = (options.train,) if isinstance(options.train, str) else options.train
    read = [read_records(source, **how) for source in sources]
    records = [record for found, _ in read for record in found]
    report = read[0][1] if len(read) == 1 else DataReport.merged([found for _, found in read])
    report.notes += notes
    told: dict[str, Any] = {"train": report.to_dict()}
    if options.eval is None:
        train, heldout = split_records(records, share=options.eval_share)
    else:
        train = records
        heldout, held_report = read_records(options.eval, **how)
        told["eval"] = held_report.to_dict()
        inside = {record.conversation for record in heldout}
        kept = [record for record in train if record.conversation not in inside]
        told["overlap_with_eval"] = len(train) - len(kept)
        train = kept
    if not heldout:
        raise ConfigError("no record is held out; raise data.eval_share or give data.eval")
    train = limit_records(train, options.limit)[0] if options.limit else train
    heldout = limit_records(heldout, options.eval_limit)[0] if options.eval_limit else heldout
    return train, heldout, report, told


def _collected(
    recipe: Recipe,
    prompts: Sequence[Record],
    part: str,
    folder: Path,
    store: ScoreStore | None,
    console: Console | None,
) -> tuple[list[Record], DataReport]:
    with progress(console, f"answers ({part})") as show:
        return collected(recipe, prompts, part, folder, store, lambda done, total: show(done, total, {}))


def _trained_on(recipe: Recipe) -> dict[str, DesignerObjective | ScorerChoice]:
    """What scores enter training by, by their key in the recipe."""
    label = {} if recipe.collect is None else {"collect.label": recipe.collect.label}
    return {**{f"objectives.{name}": objective for name, objective in recipe.objectives.items()}, **label}


def _self_graded(recipe: Recipe) -> list[str]:
    """A sentence for every judge that is trained on as well."""
    return [
        f"the judge {name} is {key}: what is trained on grades itself; give the judge another scorer, or other data "
        "(half: second)"
        for name, judge in recipe.judges.items()
        for key, choice in _trained_on(recipe).items()
        if judge.same_as(choice)
    ]


def _facts(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What scorers that were fitted here say of themselves, by their key in the recipe."""
    judges = {f"judges.{name}": judge for name, judge in recipe.judges.items()}
    chosen = {**_trained_on(recipe), **judges}
    scorers = {key: make_scorer({"scorer": each.scorer, "options": each.options}) for key, each in chosen.items()}
    return {key: scorer.facts() for key, scorer in scorers.items() if hasattr(scorer, "facts")}


def _not_collected(recipe: Recipe) -> list[str]:
    """A sentence for every loop of `recipe` that as published collects data of its own between its rounds."""
    stages = (stage for run in recipe.run_plan().values() for stage in run)
    collects = {stage.method: stage.collects for stage in stages if stage.collects}
    return [
        f"{method} as published collects {what}; here it trains on these rows, whoever wrote them (off-policy)."
        for method, what in collects.items()
    ]


def run_stages(
    recipe: Recipe,
    stages: Sequence[Stage],
    places: Sequence[Path],
    *,
    start: str,
    seed: int,
    data: RunData,
    store: ScoreStore,
    resume: bool,
    console: Console | None,
    title: Callable[[Stage], str],
    bench: Workbench | None = None,
    hand_over: Callable[[Policy, Any], None] | None = None,
) -> tuple[str, float]:
    """Train `stages` one after the other, each from where the one before ended, each in its place.

    Args:
        bench: as for `run_stage`.
        hand_over: as for `run_stage`, of the last stage.

    Returns:
        The last model (`start` where there is no stage), and the seconds that training took.
    """
    seconds, history = 0.0, (start,)
    for stage, place in zip(stages, places, strict=True):
        if not stage.round:
            history = (start,)
        with progress(console, title(stage)) as show:
            model = run_stage(
                recipe,
                stage,
                start=start,
                folder=place,
                seed=seed,
                train=data.train if data.stream is None else data.stream,
                validation=data.validation,
                store=store,
                resume=resume,
                show=show,
                history=history,
                bench=bench,
                hand_over=hand_over if place == places[-1] else None,
                tell=(lambda sentence: None) if console is None else console.print,
            )
        start, history = str(model), (*history, place)
        seconds += stage_done(place)["seconds"]
    return start, seconds


def stage_key(seed: int, stages: Sequence[Stage]) -> str:
    """A short name for what `stages` make with `seed`."""
    text = to_json([seed, [stage.model_dump(mode="json") for stage in stages]])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class progress:
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
            told = [f"loss {logs['loss']:.3f}"] if "loss" in logs else [logs["doing"]] if "doing" in logs else []
            if np.isfinite(logs.get("rewards/accuracies", np.nan)):
                told.append(f"accuracy {logs['rewards/accuracies']:.2f}")
            if np.isfinite(logs.get("upo/gradient_ratio", np.nan)):
                told.append(f"aux/pref {logs['upo/gradient_ratio']:.2f}")
            self.bar.update(task, completed=done, total=total, told="  ".join(told))

        return show

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
