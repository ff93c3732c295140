"""One stage of a recipe: a method, a model that it starts from, and the trainer between them."""

import itertools
import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments

from unipref.core.errors import ConfigError, DataError, UniprefError, nearest
from unipref.core.io import read_jsonl, to_json, write_json, write_text, writing_folder
from unipref.core.records import Record
from unipref.data import (
    TOKEN_COLUMNS,
    DataReport,
    as_pairs,
    encode_records,
    mismatch,
    responses_of,
    with_token_columns,
)
from unipref.data.pair_questions import PairQuestion
from unipref.engine import (
    Policy,
    check_classifier,
    extrapolate,
    load_model,
    load_reward_head,
    load_tokenizer,
    make_head,
    merged,
    require_bitsandbytes,
)
from unipref.objectives import Objective, as_objective
from unipref.recipes._changes import changes
from unipref.recipes._reward_backbone import write_judge, write_reward_model
from unipref.recipes.columns import add_columns
from unipref.recipes.config import ModelOptions, Recipe, Stage, TrainOptions
from unipref.recipes.merging import merge
from unipref.recipes.streamed import Streamed
from unipref.recipes.workbench import Workbench
from unipref.store import ScoreStore
from unipref.training import (
    Example,
    PreferenceTrainer,
    alone,
    autocast,
    cache_references,
    last_checkpoint,
    make_whole,
    placed,
    processes,
    resolve_precision,
)
from unipref.training.callbacks import MetricsFile, Progress, StopOnSignal
from unipref.training.prepared import PreparedExamples, known_of

__all__ = [
    "Interrupted",
    "Ready",
    "arguments",
    "check_installed",
    "examples_of",
    "fill",
    "live_reference",
    "load_policy",
    "load_stage_tokenizer",
    "prepare",
    "run_stage",
    "set_up",
    "stage_done",
    "write_model",
]

DONE = "done.json"  # written last into a stage's folder
TRAINED = "trained"  # the model of a round before it is moved on by the loop's momentum


class Interrupted(UniprefError):
    """The user stopped the run; what was trained is in a whole checkpoint."""


def prepare(stage: Stage, records: Sequence[Record]) -> tuple[list[Record], dict[str, DataReport]]:
    """`records` as the stage trains on them: after its operators, in the form that its objective compares."""
    found, reports = list(records), {}
    for name, change in changes(stage):
        if found or change is not as_pairs:  # no pair of no record is no fault of the data
            found, reports[name] = change(found)
    return found, reports


def _prepared_validation(stage: Stage, records: Sequence[Record]) -> tuple[list[Record], DataReport]:
    """`records` as the stage trains on them; of few, a round of a loop may have none, and is then not validated."""
    report = DataReport(n_read=len(records))
    found: list[Record] = []
    try:
        found = prepare(stage, records)[0] if records else []
    except DataError as err:
        report.notes.append(f"Not validated: {err}.")
    report.add("by operators", max(0, len(found) - len(records)))
    report.leave_out("by operators", max(0, len(records) - len(found)))
    report.n_kept = len(found)
    return found, report


def examples_of(
    records: Sequence[Record],
    tokenizer: Any,
    *,
    max_length: int,
    strict: bool = False,
    mismatched_seed: int | None = None,
    tokens: Iterable[str] = (),
) -> tuple[list[Example], DataReport]:
    """`records` tokenised, and the account of what was cut or set aside.

    Args:
        tokens: token columns that follow from texts and tokens alone (`unipref.data.TOKEN_COLUMNS`).
        mismatched_seed: attach to each record responses to other records' prompts, for KTO's reference point.
    """
    encoded, report = encode_records(records, tokenizer, max_length=max_length, strict=strict)
    names = sorted(set(tokens) & set(TOKEN_COLUMNS))
    encoded, columns, later = with_token_columns(encoded, tokenizer, names, strict=strict)
    examples = [Example(one.record, one.trie, tokens=made) for one, made in zip(encoded, columns, strict=True)]
    report = report.then(later)
    if mismatched_seed is not None:
        singles = iter(mismatch([e.record for e in examples], seed=mismatched_seed, epoch=0))
        together = []  # a record's mismatched responses share its context, hence a trie
        for example in examples:
            first, *others = itertools.islice(singles, len(responses_of(example.record)))
            together.append(replace(first, items=(*first.items, *(other.items[0] for other in others))))
        encoded, _ = encode_records(together, tokenizer, max_length=max_length, strict=True)
        for example, other in zip(examples, encoded, strict=True):
            example.mismatched = Example(other.record, other.trie)
    return examples, report


def arguments(
    options: TrainOptions,
    *,
    output: Path,
    seed: int,
    n_records: int,
    has_validation: bool,
    world: int,
    compares: bool = True,
    ends_with_checkpoint: bool = True,
) -> tuple[TrainingArguments, str]:
    """The trainer's arguments for `options`, and the precision of the forward pass.

    Args:
        compares: validation rows compare responses; where they do not, `keep_best` is the loss unless another was asked
            for.
        ends_with_checkpoint: the last step leaves one even where `options` ask for none.

    Raises:
        ConfigError: the batch cannot be shared by the ranks.
    """
    if options.batch_size % world:
        raise ConfigError(f"train.batch_size {options.batch_size} does not divide by the {world} processes")
    steps_per_epoch = math.ceil(n_records / options.batch_size)
    total = options.max_steps or max(1, math.ceil(steps_per_epoch * options.epochs))
    on_cpu = not torch.cuda.is_available()  # Apple's MPS lacks float64, which exact sums need
    precision = resolve_precision(options.precision, "cpu" if on_cpu else "cuda")
    evaluates = options.eval_steps is not None and has_validation
    keeps_best = evaluates and options.keep_best is not None
    best = options.keep_best
    if not compares and best == TrainOptions.model_fields["keep_best"].default:
        best = "eval_loss"  # nobody chose the accuracy, and rows that compare nothing have none
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
        optim={"adamw": "adamw_torch_fused"}.get(options.optimizer, options.optimizer),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm or 0.0,
        bf16=precision == "bfloat16",
        logging_strategy="steps",
        logging_steps=min(options.logging_steps, total),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=options.eval_steps,
        save_strategy="steps" if keeps_best or options.save_steps or ends_with_checkpoint else "no",
        save_steps=save_steps,
        save_total_limit=2,
        load_best_model_at_end=keeps_best,
        metric_for_best_model=best if keeps_best else None,
        greater_is_better=not str(best).endswith("loss") if keeps_best else None,
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


def check_installed(model: ModelOptions, options: TrainOptions) -> None:
    """Raise ConfigError where something asks for a package that is not installed, or for a tracker that is unknown."""
    if model.quantize is not None:
        require_bitsandbytes(f"model_options.quantize: {model.quantize}")
    if options.optimizer.endswith("8bit"):
        require_bitsandbytes(f"train.optimizer: {options.optimizer}")
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in options.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ConfigError(f"train.report_to: no tracker named {name!r}{nearest(name, INTEGRATION_TO_CALLBACK)}")
        if name not in get_available_reporting_integrations():
            raise ConfigError(f"train.report_to: {name} is not installed; install it (pip install {name}) or set none")


@dataclass
class Ready:
    """A stage that is loaded and tokenised; what references say of its examples is still to be filled in.

    Attributes:
        references: live references by column, as the trainer takes them.
        held: what validation is made on.
        precision: of the forward pass.
        reports: the account of what validation keeps, and of the training examples' encoding.
    """

    policy: Policy
    tokenizer: Any
    objective: Objective
    references: dict[str, Policy | None]
    examples: Sequence[Example]
    held: list[Example]
    options: TrainOptions
    args: TrainingArguments
    precision: str
    reports: dict[str, DataReport]


def set_up(
    recipe: Recipe,
    stage: Stage,
    *,
    start: Path | str,
    folder: Path,
    seed: int,
    train: Sequence[Record] | Streamed,
    validation: Sequence[Record],
    bench: Workbench,
    ends_with_checkpoint: bool = True,
    show: Callable[[int, int, Mapping[str, Any]], None] | None = None,
) -> Ready:
    """What one stage trains with, on its device.

    Args:
        train: as `prepare` gives them, or rows that are prepared on the way.
        show: told about the tokenising of such rows.
        validation: as the data give them.
        ends_with_checkpoint: as for `arguments`.
    """
    options = recipe.train_of(stage)
    objective = as_objective(stage.composition.objective)
    validation, kept = _prepared_validation(stage, validation)
    tokenizer = bench.tokenizer(start, lambda: load_stage_tokenizer(recipe, start))
    torch.manual_seed(seed)
    headless = objective.trains_reward
    policy = bench.policy(
        start, lambda: load_policy(recipe, start, headless=headless), same=recipe.model_options.lora is None
    )
    references = _live_references(recipe, objective, start)
    encode = {
        "max_length": recipe.data.max_length,
        "strict": recipe.data.strict,
        "mismatched_seed": seed if objective.statistics else None,
        "tokens": objective.token_needs,
    }
    settings = (str(start), *encode.values())
    if isinstance(train, Streamed):
        examples, encoded = train.examples(stage, tokenizer, show=show, **encode)
    else:
        examples, report = bench.examples(train, settings, lambda: examples_of(train, tokenizer, **encode))
        encoded = {"encoding": report}
    torch.manual_seed(seed)
    degrees = known_of(examples).degrees if objective.heads else -1
    policy.heads.update(_heads(objective, policy, references.get("ref_logp") or policy, degrees))
    if headless:
        policy.heads.update(_trained_head(start))
        check_classifier(policy)
    if options.gradient_checkpointing:
        policy.activation_checkpointing_enable()

    held: list[Example] = []
    if validation:
        held, _ = bench.examples(validation, settings, lambda: examples_of(validation, tokenizer, **encode))
    args, precision = arguments(
        options,
        output=folder / "checkpoints",
        seed=seed,
        n_records=len(examples),
        has_validation=bool(held),
        world=processes().num_processes,
        compares=any(example.record.comparisons for example in held),
        ends_with_checkpoint=ends_with_checkpoint,
    )
    placed(policy, args.device, precision)
    reports = {"validation": kept, **encoded}
    return Ready(policy, tokenizer, objective, references, examples, held, options, args, precision, reports)


def fill(
    recipe: Recipe,
    ready: Ready,
    *parts: Sequence[Example],
    start: Path | str,
    store: ScoreStore | None,
    show: Callable[[int, int, Mapping[str, Any]], None] | None = None,
) -> None:
    """Give the `parts` of the stage's examples what its references and its untrained policy say of them."""
    policy, objective, precision, options = ready.policy, ready.objective, ready.precision, ready.options
    _cache(recipe, objective, policy, parts, store, precision, options, live=ready.references, show=show)
    examples = [example for part in parts if not isinstance(part, PreparedExamples) for example in part]
    with autocast(ready.args.device, precision):
        add_columns(examples, objective, policy, max_tokens=2 * options.max_tokens_per_forward)


def run_stage(
    recipe: Recipe,
    stage: Stage,
    *,
    start: Path | str,
    folder: Path,
    seed: int,
    train: Sequence[Record] | Streamed,
    validation: Sequence[Record],
    store: ScoreStore | None,
    resume: bool,
    show: Callable[[int, int, Mapping[str, Any]], None],
    history: Sequence[Path | str] = (),
    bench: Workbench | None = None,
    hand_over: Callable[[Policy, Any], None] | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Train one stage; the model that it ends with is in `folder`/model.

    Args:
        history: of a loop, the model that it started from and the folder of every round before this one.
        start: the model that the stage starts from, and its reference.
        show: told about progress.
        bench: where the stage finds what other stages loaded and tokenised; by default nothing is shared.
        hand_over: is given the trained policy and its tokenizer; no model is written then, and no checkpoint is left.
        tell: is given a sentence of what the user did not ask for and should know.

    Raises:
        Interrupted: the user stopped it; resume continues from the checkpoint.
    """
    model_folder = folder / "model"
    if resume and (folder / DONE).exists():
        return model_folder
    began = time.perf_counter()
    options = recipe.train_of(stage)
    composition = stage.composition
    reports: dict[str, DataReport] = {}
    if not isinstance(train, Streamed):
        train, reports = prepare(stage, train)
    if composition.merges:
        if processes().is_main_process:
            with alone():
                _merge(recipe, stage, start, folder, train, store, reports, history=history, hand_over=hand_over)
        processes().wait_for_everyone()
        return model_folder
    bench = bench or Workbench()
    ready = set_up(
        recipe,
        stage,
        start=start,
        folder=folder,
        seed=seed,
        train=train,
        validation=validation,
        bench=bench,
        ends_with_checkpoint=hand_over is None,
        show=show,
    )
    reports |= ready.reports
    if ready.policy.path == "rows":
        tell(
            f"{stage.label} computes every response as a row of its own, its prompt again each time: "
            f"{ready.policy.path_reason}. The result is the same, and takes longer."
        )
    if isinstance(ready.examples, PreparedExamples):
        fill(recipe, ready, ready.examples, ready.held, start=start, store=store, show=show)
    else:
        fill(recipe, ready, [*ready.examples, *ready.held], start=start, store=store)
    held, tokenizer, precision = ready.held, ready.tokenizer, ready.precision

    stop = StopOnSignal()
    callbacks = [MetricsFile(folder / "metrics.jsonl"), Progress(show), stop]
    trainer = PreferenceTrainer(
        ready.policy,
        ready.objective,
        ready.args,
        ready.examples,
        held,
        max_tokens=options.max_tokens_per_forward,
        references=ready.references,
        by_length=options.group_by_length,
        by_prompt=options.group_by_prompt,
        tokenizer=tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = last_checkpoint(folder / "checkpoints") if resume else None
    if checkpoint is not None:
        began -= _seconds_until(checkpoint, folder / "metrics.jsonl")
    trainer.started = began
    tokens_before = bench.tokens
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
    seconds, tokens = time.perf_counter() - began, bench.tokens - tokens_before
    make_whole(trainer.policy)
    if trainer.is_world_process_zero():
        if composition.momentum:
            earlier = Path(history[-1]) / TRAINED if len(history) > 1 else start
            _move_on(recipe, trainer.policy, folder, composition.momentum, earlier)
        told = {"steps": trainer.state.global_step, "best_step": trainer.state.best_global_step}
        told |= {"seconds": seconds, "tokens": tokens, "precision": precision}
        _conclude(recipe, stage, trainer.policy, tokenizer, folder, hand_over, reports, ready.examples, **told)
    trainer.accelerator.wait_for_everyone()
    return model_folder


def _heads(objective: Objective, policy: Policy, reference: Policy, degrees: int) -> dict[str, torch.nn.Module]:
    """What is trained beside the policy; masks of tokens read the reference, all else the policy.

    Args:
        degrees: the highest degree of a variant in the data, -1 where none has one.
    """
    found = {}
    for name in objective.heads:
        config = (reference if name in objective.token_needs else policy).config.get_text_config()
        found[name] = make_head(
            name,
            config.hidden_size,
            n_layers=config.num_hidden_layers,
            n_classes=None if degrees < 0 else degrees + 1,
        )
    return found


def _trained_head(start: Path | str) -> dict[str, torch.nn.Module]:
    """The head of a reward model that training goes on from; nothing where `start` is none."""
    head = load_reward_head(start)
    return {} if head is None else {"reward_head": head}


def live_reference(recipe: Recipe, objective: Objective) -> str | None:
    """The model of the reference that must be run beside the policy; None where cached log-probabilities are enough.

    Raises:
        ConfigError: the recipe mixes several references, whose distributions have no mixture that could be run.
    """
    if not objective.computed and not set(objective.heads) & objective.token_needs:
        return None
    (name, _), *others = recipe.reference_weights()
    if others:
        raise ConfigError(
            f"{objective.terms[0].name} reads the whole distribution of one live reference, and `references` mixes "
            f"{len(others) + 1}; keep one of them"
        )
    return name


def _live_references(recipe: Recipe, objective: Objective, start: Path | str) -> dict[str, Policy | None]:
    """The live reference by its column; None stands for the policy with its adapters off."""
    name = live_reference(recipe, objective)
    if name is None:
        return {}
    if name == "model" and recipe.model_options.lora is not None:
        return {"ref_logp": None}
    return {"ref_logp": load_policy(recipe, start if name == "model" else name, trained=False)}


def load_stage_tokenizer(recipe: Recipe, start: Path | str) -> Any:
    """The tokenizer of `start`."""
    return load_tokenizer(str(start), trust_remote_code=recipe.model_options.trust_remote_code)


def load_policy(recipe: Recipe, start: Path | str, *, trained: bool = True, headless: bool = False) -> Policy:
    """A policy without heads, from `start`.

    Args:
        trained: with the recipe's adapters and dropout, ready to be trained; otherwise as a reference is.
        headless: its log-probabilities will not be read, so that `start` may be a reward model.
    """
    lora = recipe.model_options.lora if trained else None
    drops = lora is not None and lora.dropout > 0
    model = _load(recipe.model_options, start, trained=trained, headless=headless)
    return Policy(model, dropout=drops, longest=recipe.data.max_length)


def _load(options: ModelOptions, start: Path | str, *, trained: bool, headless: bool) -> torch.nn.Module:
    lora = options.lora.model_dump(exclude={"merge"}) if options.lora is not None and trained else None
    dtype = options.dtype
    if dtype == "auto" and options.lora is None:
        dtype = "float32"  # small updates vanish in bfloat16 weights; frozen ones keep the checkpoint's own type
    quantize = options.quantize if trained else None
    trust = options.trust_remote_code
    return load_model(str(start), dtype=dtype, lora=lora, quantize=quantize, trust_remote_code=trust, headless=headless)


def _seconds_until(checkpoint: Path, metrics: Path) -> float:
    """What the run had taken when `checkpoint` was written, as its log says."""
    step = int(checkpoint.name.rsplit("-", 1)[1])
    return max((row["seconds"] for row in read_jsonl(metrics) if "seconds" in row and row["step"] <= step), default=0.0)


def write_model(
    recipe: Recipe, policy: Policy, tokenizer: Any, folder: Path, judge: PairQuestion | None = None
) -> None:
    """Write what `AutoModelForCausalLM` and `AutoTokenizer` load; adapters are merged, for good, as the recipe says.

    Args:
        judge: what the model is asked, where it is a judge of pairs: kept beside it.
    """
    model = _whole(recipe, policy)
    with writing_folder(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if judge is not None:
            write_judge(temporary, judge)


def _whole(recipe: Recipe, policy: Policy) -> torch.nn.Module:
    lora = recipe.model_options.lora
    adapted = hasattr(policy.model, "merge_and_unload")
    return merged(policy.model) if adapted and lora is not None and lora.merge else policy.model


def _move_on(recipe: Recipe, policy: Policy, folder: Path, momentum: float, before: Path | str) -> None:
    """Go on from the model `before` through this one; the next round does so from where this one ended in training."""
    model = _whole(recipe, policy)
    with writing_folder(folder / TRAINED) as temporary:
        model.save_pretrained(temporary)
    extrapolate(model, load_policy(recipe, before, trained=False).model, momentum)


def _merge(
    recipe: Recipe,
    stage: Stage,
    start: Path | str,
    folder: Path,
    train: Sequence[Record],
    store: ScoreStore | None,
    reports: dict[str, DataReport],
    *,
    history: Sequence[Path | str],
    hand_over: Callable[[Policy, Any], None] | None,
) -> None:
    """The round that trains nothing: the mean of the loop's models that fits `train` best, written as a stage is."""
    began = time.perf_counter()
    options = recipe.train_of(stage)
    objective = as_objective(stage.composition.objective)
    tokenizer = load_stage_tokenizer(recipe, start)
    examples, reports["encoding"] = examples_of(
        train, tokenizer, max_length=recipe.data.max_length, strict=recipe.data.strict
    )
    device = processes().device
    precision = resolve_precision(options.precision, device.type)
    origin = load_policy(recipe, history[0] if history else start, trained=False).to(device)
    _cache(recipe, objective, origin, [examples], store, precision, options)
    policy = load_policy(recipe, start, trained=False).to(device)
    weights, tried = merge(
        policy,
        objective,
        examples,
        [Path(place) / "model" for place in history[1:]],
        precision=precision,
        max_tokens=2 * options.max_tokens_per_forward,
    )
    write_text(folder / "metrics.jsonl", "".join(to_json(row) + "\n" for row in tried))
    told = {"steps": 0, "best_step": None, "seconds": time.perf_counter() - began, "tokens": 0}
    told |= {"precision": precision, "weights": list(weights)}
    _conclude(recipe, stage, policy, tokenizer, folder, hand_over, reports, examples, **told)


def _conclude(
    recipe: Recipe,
    stage: Stage,
    policy: Policy,
    tokenizer: Any,
    folder: Path,
    hand_over: Callable[[Policy, Any], None] | None,
    reports: Mapping[str, DataReport],
    examples: Sequence[Example],
    **told: Any,
) -> None:
    """Write the model, or hand it over with no checkpoint left, and then what the stage says of itself."""
    if hand_over is None and as_objective(stage.composition.objective).trains_reward:
        write_reward_model(recipe, stage, policy, tokenizer, folder / "model", examples)
    elif hand_over is None:
        write_model(recipe, policy, tokenizer, folder / "model", stage.composition.judge)
    else:
        hand_over(policy, tokenizer)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    facts = {"method": stage.method, **told, "path": policy.path, "path_reason": policy.path_reason}
    write_json(folder / DONE, {**facts, "data": {name: report.to_dict() for name, report in reports.items()}})


def _cache(
    recipe: Recipe,
    objective: Objective,
    policy: Policy,
    parts: Sequence[Sequence[Example]],
    store: ScoreStore | None,
    precision: str,
    options: TrainOptions,
    live: Collection[str] = (),
    show: Callable[[int, int, Mapping[str, Any]], None] | None = None,
) -> None:
    """Give the examples of all `parts` the log-probabilities under the recipe's references, all but `live` columns.

    One reference is its own column; several are mixed geometrically into one, which is what several weighted log-ratios
    add up to (law L6 of the algebra). A reference with a name stays apart, for the methods that read it.
    """
    read = {name for name in objective.needs | objective.token_needs if name.startswith("ref_logp")}
    if read <= set(live):  # nothing is read, or what runs beside the policy says it at every step
        return
    references = recipe.reference_weights()
    keep = {"store": store, "precision": precision, "max_tokens": 2 * options.max_tokens_per_forward}
    if show is not None:
        keep["show"] = lambda done, total: show(done, total, {"doing": "reference"})
    columns = [(f"ref_logp.{i}" if len(references) > 1 else "ref_logp", name) for i, (name, _) in enumerate(references)]
    columns += [(column, name) for column, name in recipe.named_references().items() if column in objective.needs]
    for column, name in columns:
        if column in live:
            continue
        other = policy
        if name != "model":
            other = load_policy(recipe, name, trained=False)
            placed(other, policy.device, precision)
        for examples in parts:
            cache_references(examples, other, name=column, **keep)
    if len(references) > 1:
        for examples in parts:
            _mix(examples, [weight for _, weight in references])


def _mix(examples: Sequence[Example], weights: Sequence[float]) -> None:
    """Put one reference in the place of several, which are called by their numbers."""
    names = [f"ref_logp.{i}" for i in range(len(weights))]
    if isinstance(examples, PreparedExamples):
        for one in filter(None, (examples, examples.mismatched)):
            one.mix_references("ref_logp", dict(zip(names, weights, strict=True)))
        return
    for example in [*examples, *(e.mismatched for e in examples if e.mismatched is not None)]:
        values = [example.ref_logp.pop(name) for name in names]
        example.ref_logp["ref_logp"] = [
            sum(weight * each for weight, each in zip(weights, item, strict=True)) for item in zip(*values, strict=True)
        ]


def stage_done(folder: Path) -> dict[str, Any]:
    """What a finished stage wrote of itself."""
    return json.loads((folder / DONE).read_text(encoding="utf-8"))
