"""One stage of a recipe: a method, a model that it starts from, and the trainer between them."""

import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments

from unipref.core.cards import get_method
from unipref.core.errors import ConfigError, UniprefError, nearest
from unipref.core.io import read_jsonl, write_json, writing_folder
from unipref.core.records import Record
from unipref.data import DataReport, as_pairs, chosen_only, encode_records, mismatch
from unipref.engine import Policy, load_model, load_tokenizer, value_head
from unipref.objectives import Objective, as_objective
from unipref.recipes.config import ModelOptions, Recipe, Stage, TrainOptions
from unipref.store import ScoreStore
from unipref.training import (
    Example,
    PreferenceTrainer,
    cache_references,
    last_checkpoint,
    processes,
    resolve_precision,
)
from unipref.training.callbacks import MetricsFile, Progress, StopOnSignal

__all__ = ["Interrupted", "build_objective", "check_trackers", "examples_of", "run_stage", "stage_done"]

DONE = "done.json"  # written last into a stage's folder


class Interrupted(UniprefError):
    """The user stopped the run; what was trained is in a whole checkpoint."""


def build_objective(stage: Stage) -> Objective:
    """The objective that `stage` names, with its options."""
    return as_objective(get_method(stage.method).function(**stage.options))


def examples_of(
    records: Sequence[Record],
    tokenizer: Any,
    *,
    max_length: int,
    strict: bool = False,
    mismatched_seed: int | None = None,
) -> tuple[list[Example], DataReport]:
    """`records` tokenised, and the account of what was cut or set aside.

    Args:
        mismatched_seed: attach to each record responses to other records' prompts, for KTO's reference point.
    """
    encoded, report = encode_records(records, tokenizer, max_length=max_length, strict=strict)
    examples = [Example(e.record, e.trie) for e in encoded]
    if mismatched_seed is not None:
        singles = iter(mismatch([e.record for e in examples], seed=mismatched_seed, epoch=0))
        together = []  # a record's mismatched responses share its context, hence a trie
        for example in examples:
            first, *others = itertools.islice(singles, len(example.record.items))
            together.append(replace(first, items=(*first.items, *(other.items[0] for other in others))))
        encoded, _ = encode_records(together, tokenizer, max_length=max_length, strict=True)
        for example, other in zip(examples, encoded, strict=True):
            example.mismatched = Example(other.record, other.trie)
    return examples, report


def arguments(
    options: TrainOptions, *, output: Path, seed: int, n_records: int, has_validation: bool, world: int
) -> tuple[TrainingArguments, str]:
    """The trainer's arguments for `options`, and the precision of the forward pass.

    Raises:
        ConfigError: the batch cannot be shared by the ranks, or a metric is to be kept that is never measured.
    """
    if options.batch_size % world:
        raise ConfigError(f"train.batch_size {options.batch_size} does not divide by the {world} processes")
    steps_per_epoch = math.ceil(n_records / options.batch_size)
    total = options.max_steps or max(1, math.ceil(steps_per_epoch * options.epochs))
    on_cpu = not torch.cuda.is_available()  # Apple's MPS lacks float64, which exact sums need
    precision = resolve_precision(options.precision, "cpu" if on_cpu else "cuda")
    evaluates = options.eval_steps is not None and has_validation
    keeps_best = evaluates and options.keep_best is not None
    save_steps = options.eval_steps if keeps_best else (options.save_steps or total)
    args = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=options.batch_size // world,
        gradient_accumulation_steps=1,
        learning_rate=options.learning_rate,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        warmup_steps=math.ceil(options.warmup_share * total),
        lr_scheduler_type=options.schedule,
        optim={"adamw": "adamw_torch", "rmsprop": "rmsprop", "adafactor": "adafactor", "sgd": "sgd"}[options.optimizer],
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm or 0.0,
        bf16=precision == "bfloat16",
        logging_strategy="steps",
        logging_steps=min(options.logging_steps, total),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=options.eval_steps,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=2,
        load_best_model_at_end=keeps_best,
        metric_for_best_model=options.keep_best if keeps_best else None,
        greater_is_better=not str(options.keep_best).endswith("loss") if keeps_best else None,
        report_to=list(options.report_to) or "none",
        seed=seed,
        data_seed=seed,
        use_cpu=on_cpu,
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
    )
    return args, precision


def check_trackers(options: TrainOptions) -> None:
    """Raise ConfigError where `train.report_to` names a tracker that is unknown or not installed."""
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in options.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(f"train.report_to: no tracker named {name!r}{nearest(name, INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise ConfigError(f"train.report_to: {name} is not installed; install it (pip install {name}) or set none")


def run_stage(
    recipe: Recipe,
    stage: Stage,
    *,
    start: Path | str,
    folder: Path,
    seed: int,
    train: Sequence[Record],
    validation: Sequence[Record],
    store: ScoreStore | None,
    resume: bool,
    show: Callable[[int, int, Mapping[str, Any]], None],
) -> Path:
    """Train one stage; the model that it ends with is in `folder`/model.

    Args:
        start: the model that the stage starts from, and its reference.
        show: told about progress.

    Raises:
        Interrupted: the user stopped it; resume continues from the checkpoint.
    """
    model_folder = folder / "model"
    if resume and (folder / DONE).exists():
        return model_folder
    began = time.perf_counter()
    options = recipe.train_of(stage)
    objective = build_objective(stage)
    tokenizer = load_tokenizer(str(start), trust_remote_code=recipe.model_options.trust_remote_code)
    model = _load(recipe.model_options, start, trained=True)
    torch.manual_seed(seed)
    heads = {name: value_head(model.config.get_text_config().hidden_size) for name in objective.heads}
    drops = recipe.model_options.lora is not None and recipe.model_options.lora.dropout > 0
    policy = Policy(model, heads=heads, dropout=drops, longest=recipe.data.max_length)
    if options.gradient_checkpointing:
        policy.activation_checkpointing_enable()

    reports = {}
    if stage.method == "sft":
        (train, reports["chosen_only"]), (validation, _) = chosen_only(train), chosen_only(validation)
    elif objective.unit_needs == "pair":
        train, reports["as_pairs"] = as_pairs(train)
        validation = as_pairs(validation)[0] if validation else []
    needs_mismatch = bool(objective.statistics)
    encode = {
        "max_length": recipe.data.max_length,
        "strict": recipe.data.strict,
        "mismatched_seed": seed if needs_mismatch else None,
    }
    examples, reports["encoding"] = examples_of(train, tokenizer, **encode)
    held, _ = examples_of(validation, tokenizer, **encode) if validation else ([], {})
    args, precision = arguments(
        options,
        output=folder / "checkpoints",
        seed=seed,
        n_records=len(examples),
        has_validation=bool(held),
        world=processes().num_processes,
    )
    policy.to(args.device)
    _cache(recipe, objective, policy, [*examples, *held], start, store, precision, options)

    stop = StopOnSignal()
    callbacks = [MetricsFile(folder / "metrics.jsonl"), Progress(show), stop]
    trainer = PreferenceTrainer(
        policy,
        objective,
        args,
        examples,
        held,
        max_tokens=options.max_tokens_per_forward,
        by_length=options.group_by_length,
        tokenizer=tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(folder / "checkpoints") if resume else None
    if checkpoint is not None:
        began -= _seconds_until(checkpoint, folder / "metrics.jsonl")
    trainer.started = began
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        stop.restore()
    if stop.stopped and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(
            f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; the checkpoint is in "
            f"{folder / 'checkpoints'}. Continue with --resume"
        )
    if held:
        trainer.evaluate()
    if trainer.is_world_process_zero():
        _write_model(trainer.policy, tokenizer, model_folder, merge=_merges(recipe.model_options))
        write_json(
            folder / DONE,
            {
                "method": stage.method,
                "steps": trainer.state.global_step,
                "best_step": trainer.state.best_global_step,
                "seconds": time.perf_counter() - began,
                "path": policy.path,
                "path_reason": policy.path_reason,
                "precision": precision,
                "data": {name: report.to_dict() for name, report in reports.items()},
            },
        )
    trainer.accelerator.wait_for_everyone()
    return model_folder


def _load(options: ModelOptions, start: Path | str, *, trained: bool) -> torch.nn.Module:
    lora = options.lora.model_dump(exclude={"merge"}) if options.lora is not None and trained else None
    dtype = options.dtype
    if dtype == "auto" and options.lora is None:
        dtype = "float32"  # small updates vanish in bfloat16 weights; frozen ones keep the checkpoint's own type
    return load_model(str(start), dtype=dtype, lora=lora, trust_remote_code=options.trust_remote_code)


def _seconds_until(checkpoint: Path, metrics: Path) -> float:
    """What the run had taken when `checkpoint` was written, as its log says."""
    step = int(checkpoint.name.rsplit("-", 1)[1])
    return max((row["seconds"] for row in read_jsonl(metrics) if "seconds" in row and row["step"] <= step), default=0.0)


def _merges(options: ModelOptions) -> bool:
    return options.lora is not None and options.lora.merge


def _write_model(policy: Policy, tokenizer: Any, folder: Path, *, merge: bool) -> None:
    model = policy.model.merge_and_unload() if merge else policy.model
    with writing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def _cache(
    recipe: Recipe,
    objective: Objective,
    policy: Policy,
    examples: Sequence[Example],
    start: Path | str,
    store: ScoreStore | None,
    precision: str,
    options: TrainOptions,
) -> None:
    """Give every example the log-probabilities under the recipe's references.

    One reference is its own column; several are mixed geometrically into one, which is what several weighted log-ratios
    add up to (law L6 of the algebra).
    """
    if not any(name.startswith("ref_logp") for name in objective.needs):
        return
    references = recipe.reference_weights()
    keep = {"store": store, "precision": precision, "max_tokens": 2 * options.max_tokens_per_forward}
    for i, (name, _) in enumerate(references):
        column = "ref_logp" if len(references) == 1 else f"ref_logp.{i}"
        if name == "model":
            cache_references(examples, policy, name=column, adapters_off=False, **keep)
            continue
        other = Policy(_load(recipe.model_options, name, trained=False), longest=recipe.data.max_length)
        other.to(next(policy.parameters()).device)
        cache_references(examples, other, name=column, **keep)
    if len(references) > 1:
        for example in [*examples, *(e.mismatched for e in examples if e.mismatched is not None)]:
            parts = [example.ref_logp.pop(f"ref_logp.{i}") for i in range(len(references))]
            example.ref_logp["ref_logp"] = [
                sum(weight * values for (_, weight), values in zip(references, item, strict=True))
                for item in zip(*parts, strict=True)
            ]


def stage_done(folder: Path) -> dict[str, Any]:
    """What a finished stage wrote of itself."""
    return json.loads((folder / DONE).read_text(encoding="utf-8"))
