"""What in a recipe does not fit its data or its model: one function per question, in the order of reading."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from unipref.core.cards import get_method
from unipref.core.errors import ConfigError
from unipref.core.findings import Finding
from unipref.objectives import as_objective
from unipref.objectives.schedules import gate
from unipref.recipes.config import Recipe, Stage, TrainOptions

if TYPE_CHECKING:
    from unipref.engine import ModelFacts
    from unipref.recipes._run import RunData

__all__ = ["RECIPE_CHECKS", "WAITS", "Case", "LoadedModel", "Planned", "check_recipe", "load", "waits"]

WAITS = "the recipe has its responses written when it runs; `unipref align` asks this then"

FAR = 30.0  # a scale this many times off its default is a slip more often than a choice; chosen by us
OTHER_SCALE = 10.0  # the same, where the value would be usual for the other kind of score
SUMS, MEANS = 0.1, 2.0  # beta of DPO, on sums of log-probabilities, and of SimPO, on their mean per token
FEW_STEPS = 10
WIDE = 0.10  # half the width of an interval, as a share
# Published rates of full fine-tuning are 3e-7 to 1e-6 from 2.8 to 8 billion parameters (DPO's reference code, Zephyr,
# SimPO's tables, Tulu 3), of adapters some ten times that. The bounds leave ten times more room; chosen by us.
FULL_RATES = ((1_000_000_000, 2e-5), (100_000_000, 1e-4), (0, 1e-2))  # from so many parameters, at most this rate
LEAST_FULL_RATE = 1e-8
LORA_RATES = (1e-6, 1e-3)
MANY_LEFT_OUT = 0.05

RECIPE_CHECKS: dict[str, str] = {}
_CHECKS: list[Callable[["Case"], Finding]] = []


@dataclass(frozen=True)
class LoadedModel:
    """A model as far as checks need it: `facts` without weights and the tokenizer, or the `fault` that kept us."""

    facts: "ModelFacts | None" = None
    tokenizer: Any = None
    fault: str = ""


@dataclass(frozen=True)
class Planned:
    """A stage and what it has to work with.

    Attributes:
        where: run and stage, as messages call it.
        n_records: on which it trains; 0 where the data cannot feed it.
        fault: why they cannot.
    """

    where: str
    stage: Stage
    options: TrainOptions
    n_records: int
    fault: str = ""

    @property
    def steps(self) -> int:
        """Optimiser steps, as the trainer counts them."""
        per_epoch = math.ceil(self.n_records / self.options.batch_size)
        return self.options.max_steps or max(1, math.ceil(per_epoch * self.options.epochs))


@dataclass(frozen=True)
class Case:
    """What is asked about.

    Attributes:
        designer: what the objectives look like on the training records, as in `data.json`; empty without objectives.
        designer_fault: why they could not be scored.
    """

    recipe: Recipe
    data: "RunData"
    model: LoadedModel
    plan: tuple[Planned, ...]
    designer: Mapping[str, Any]
    designer_fault: str = ""

    @property
    def waits(self) -> bool:
        """See `waits`."""
        return waits(self.recipe, self.data)

    @property
    def trained(self) -> list[Planned]:
        """The stages that train on something; a loop's last round may only merge models."""
        return [each for each in self.plan if not each.fault and not each.stage.composition.merges]


def load(name: str, *, trust_remote_code: bool = False) -> LoadedModel:
    """The model `name` without its weights; never raises for a model that is not there."""
    from unipref.engine import load_tokenizer, model_facts

    facts = None
    try:
        facts = model_facts(name, trust_remote_code=trust_remote_code)
        return LoadedModel(facts, load_tokenizer(name, trust_remote_code=trust_remote_code))
    except ConfigError as err:
        return LoadedModel(facts, fault=str(err))


def waits(recipe: Recipe, data: "RunData") -> bool:
    """Whether the records are prompts whose responses are still to be written and compared."""
    return recipe.collect is not None and "collected" not in data.report


def check_recipe(recipe: Recipe, data: "RunData", model: LoadedModel, *, designer_fault: str = "") -> list[Finding]:
    """One finding per entry of RECIPE_CHECKS, in its order."""
    designer = data.report.get("designer", {}).get("train", {})
    case = Case(recipe, data, model, _plan(recipe, data), designer, designer_fault)
    return [check(case) for check in _CHECKS]


def _plan(recipe: Recipe, data: "RunData") -> tuple[Planned, ...]:
    from unipref.recipes.fit import check_stage

    plan, shared = recipe.run_plan(), recipe.shared_stages
    found: dict[str, Planned] = {}
    for run, stages in plan.items():
        for stage in stages:
            key = stage.model_dump_json()
            if key in found:
                continue
            own = len(stages) - len(shared) if recipe.runs else len(stages)
            where = stage.label if stage in shared else run if own == 1 else f"{run}: {stage.label}"
            planned = Planned(where, stage, recipe.train_of(stage), 0)
            if waits(recipe, data):
                found[key] = replace(planned, fault=WAITS)
                continue
            try:
                n = check_stage(recipe, stage, data.train)  # of streamed rows a sample, from which all are reckoned
                found[key] = replace(planned, n_records=round(n * data.n_train / max(len(data.train), 1)))
            except ConfigError as err:
                found[key] = replace(planned, fault=str(err))
    return tuple(found.values())


def _check(code: str, question: str) -> Callable[[Callable[[Case, str], Finding]], Callable[[Case], Finding]]:
    """Register a check; it is given its own code."""
    RECIPE_CHECKS[code] = question

    def register(function: Callable[[Case, str], Finding]) -> Callable[[Case], Finding]:
        def asked(case: Case) -> Finding:
            return function(case, code)

        _CHECKS.append(asked)
        return asked

    return register


def _told(parts: Sequence[str], most: int = 4) -> str:
    """`parts` as a list in words; of many the first few, and how many more there are."""
    more = len(parts) - most
    return "; ".join(parts[:most]) + (f"; and {more} more" if more > 0 else "")


# ---- the model ----


@_check("model-loads", "Are the model's configuration, tokenizer and weights there?")
def _model_loads(case: Case, code: str) -> Finding:
    facts = case.model.facts
    if facts is None or case.model.tokenizer is None:
        return Finding(code, "error", case.model.fault, "give a folder that a model was saved to, or a hub id")
    if facts.missing:
        return Finding(
            code,
            "error",
            f"the folder {facts.name} has a configuration but no weights: {_told(facts.missing)} is not there",
            "copy the whole folder again, or save the model with save_pretrained",
        )
    size = "" if facts.n_parameters is None else f" ({_size(facts.n_parameters)})"
    return Finding(code, "fine", f"{facts.name}{size}: configuration and tokenizer load")


@_check("vocabulary", "Has the model an embedding for every token of its tokenizer?")
def _vocabulary(case: Case, code: str) -> Finding:
    facts, tokenizer = case.model.facts, case.model.tokenizer
    if facts is None or tokenizer is None or facts.vocabulary is None:
        return _unloaded(case, code)
    n = len(tokenizer)
    if n > facts.vocabulary:
        return Finding(
            code,
            "error",
            f"the tokenizer has {n:,} tokens and the model embeds {facts.vocabulary:,}; the others would end the run",
            "take the model's own tokenizer, or resize the model's embeddings and save it",
            n=n - facts.vocabulary,
            of=n,
        )
    return Finding(code, "fine", f"{n:,} tokens, {facts.vocabulary:,} embeddings")


@_check("positions", "Does max_length stay within the positions that the model knows?")
def _positions(case: Case, code: str) -> Finding:
    facts = case.model.facts
    if facts is None:
        return _unloaded(case, code)
    if facts.positions is None:
        return Finding(code, "not_checked", "the model's configuration names no longest input")
    asked, new = case.recipe.data.max_length, case.recipe.sampling.max_new_tokens
    if asked > facts.positions:
        return Finding(
            code,
            "error",
            f"data.max_length is {asked:,}, and the model knows {facts.positions:,} positions; beyond them it was "
            "never trained, or stops with an error",
            f"set data.max_length to {facts.positions:,} or less",
        )
    if case.recipe.sampling.prompts and asked + new > facts.positions:
        return Finding(
            code,
            "warning",
            f"the longest prompts (data.max_length {asked:,}) and sampling.max_new_tokens {new:,} together pass the "
            f"model's {facts.positions:,} positions",
            f"keep their sum at {facts.positions:,} or below",
        )
    return Finding(code, "fine", f"max_length {asked:,} of {facts.positions:,} positions")


@_check("lora-targets", "Does every LoRA target name a module of the model?")
def _lora_targets(case: Case, code: str) -> Finding:
    lora, facts = case.recipe.model_options.lora, case.model.facts
    if lora is None:
        return Finding(code, "not_checked", "all weights are trained, no adapter")
    if facts is None or not facts.adaptable:
        return _unloaded(case, code)
    if facts.adapter:
        return Finding(
            code,
            "error",
            f"{facts.name} is an adapter already, and model_options.lora asks for another on it",
            "leave out model_options.lora, or merge the adapter first",
        )
    targets = lora.target_modules
    if targets == "all-linear":
        return Finding(code, "fine", f"all-linear: {len(facts.adaptable)} modules")
    if isinstance(targets, str):
        lacking, n = [] if _matches(targets, facts.named) else [targets], 1
    else:
        known = {name for full in facts.named for name in _endings(full)}
        lacking, n = [name for name in targets if name not in known], len(targets)
    if not lacking:
        return Finding(code, "fine", f"{n} targets, each found in the model")
    there = sorted({name.rsplit(".", 1)[-1] for name in facts.named})
    level = "error" if len(lacking) == n else "warning"
    says = f"{len(lacking)} of {n} LoRA targets name no module of {facts.name}: {_told(lacking)}; they get no adapter"
    return Finding(code, level, says, f"the model has {', '.join(there)}; or set all-linear", n=len(lacking), of=n)


def _matches(pattern: str, names: Sequence[str]) -> bool:
    try:
        return any(re.fullmatch(pattern, name) for name in names)
    except re.error:  # no pattern, hence no name either
        return False


def _endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]


@_check("dropout", "Do policy and reference start out equal, without dropout?")
def _dropout(case: Case, code: str) -> Finding:
    lora, facts = case.recipe.model_options.lora, case.model.facts
    if lora is not None and lora.dropout > 0:
        return Finding(
            code,
            "note",
            f"LoRA dropout is {lora.dropout:g}: the log-ratios do not start at 0, and responses of a record are run "
            "one by one",
            "set model_options.lora.dropout: 0.0, unless you know that you need it",
        )
    own = {} if facts is None else facts.config.to_dict()
    on = [f"{key} {value:g}" for key, value in own.items() if isinstance(value, float) and "drop" in key and value > 0]
    return Finding(code, "fine", f"{_told(on)}: switched off in training" if on else "there is none")


@_check("references", "Is every reference there, with the model's own vocabulary?")
def _references(case: Case, code: str) -> Finding:
    others = dict.fromkeys(ref.model for ref in case.recipe.references if ref.model != "model")
    reading = [each.where for each in case.plan if _reads_reference(each.stage)]
    if not others:
        return Finding(code, "fine", "the reference is the model that each stage starts from")
    for name in others:
        other = load(name, trust_remote_code=case.recipe.model_options.trust_remote_code)
        if other.tokenizer is None or other.facts is None or other.facts.missing:
            lost = other.fault or f"the folder holds no weights ({_told(other.facts.missing)} is not there)"
            return Finding(code, "error", f"the reference {name} cannot be loaded: {lost}", "check `references`")
        own = case.model.tokenizer
        if own is not None and other.tokenizer.get_vocab() != own.get_vocab():
            return Finding(
                code,
                "error",
                f"the reference {name} has another vocabulary ({len(other.tokenizer):,} tokens, the model's "
                f"{len(own):,}): the same numbers are other words to it, and its log-probabilities mean nothing",
                "take a reference of the model's own family, with the same tokenizer",
            )
    if not reading:
        says = f"`references` names {_told(list(others))}, and no method of this recipe reads a reference"
        return Finding(code, "note", says, "take `references` out, or choose a method with a reference")
    different = [name for name in others if name != case.recipe.model]
    if different:
        return Finding(
            code,
            "note",
            f"the reference is not the model that training starts from ({_told(different)}): the log-ratios of "
            f"{_told(reading)} do not start at 0",
            "this is right where the reference is meant to stay; otherwise write `references: [model]`",
        )
    return Finding(code, "fine", f"{len(others)} references load, with the model's vocabulary")


def _reads_reference(stage: Stage) -> bool:
    objective = as_objective(stage.composition.objective)
    return any(name.startswith("ref_logp") for name in objective.needs | objective.token_needs)


# ---- the method and its data ----


@_check("method-needs", "Have the data what each method reads?")
def _method_needs(case: Case, code: str) -> Finding:
    if case.waits:
        return Finding(code, "not_checked", WAITS)
    faults = [each.fault for each in case.plan if each.fault]
    if faults:
        return Finding(code, "error", _told(faults), n=len(faults), of=len(case.plan))
    return Finding(code, "fine", f"{_told([each.stage.method for each in case.plan], most=8)}: all that they read")


@_check("beta-scale", "Is beta on the scale of its method?")
def _beta_scale(case: Case, code: str) -> Finding:
    told = [words for each in case.plan for words in _betas(each.where, each.stage.method, each.stage.options)]
    if told:
        return Finding(code, "warning", _told(told), "check the option, or leave it out to take the default")
    return Finding(code, "fine", "every beta is near the default of its method")


def _betas(where: str, key: str, options: Mapping[str, Any]) -> list[str]:
    """A phrase for every scale that is far from the card's default."""
    card, told = get_method(key), []
    for name, value in options.items():
        default = card.options.get(name)
        if not (name == "beta" or (key, name) == ("ipo", "tau")) or not isinstance(default, int | float):
            continue
        if not isinstance(value, int | float) or value <= 0:
            continue
        times = value / default
        words = f"{where}: {name} is {value:g}, and {key}'s default is {default:g}"
        if default >= 1 and times <= 1 / OTHER_SCALE:
            told.append(f"{words} (it scales a mean per token; {SUMS:g} is for sums, as in DPO)")
        elif default <= SUMS and times >= OTHER_SCALE and value >= MEANS:
            told.append(f"{words} (it scales a sum of log-probabilities; {MEANS:g} is for means, as in SimPO)")
        elif not 1 / FAR < times < FAR:
            told.append(f"{words}, {times:,.3g} times it" if times > 1 else f"{words}, 1/{1 / times:,.3g} of it")
    base, below = options.get("base", card.options.get("base")), options.get("base_options")
    if isinstance(base, str) and isinstance(below, Mapping):
        told += _betas(f"{where} (base {base})", base, below)
    return told


@_check("learning-rate", "Is the learning rate usual for the size of what is trained?")
def _learning_rate(case: Case, code: str) -> Finding:
    facts, lora = case.model.facts, case.recipe.model_options.lora
    size = None if facts is None else facts.n_parameters
    if lora is None and size is None:
        return _unloaded(case, code)
    if lora is not None:
        (low, high), what = LORA_RATES, "LoRA"
    else:
        high = next(most for least, most in FULL_RATES if size >= least)
        low, what = LEAST_FULL_RATE, f"all weights of a model of {_size(size)}"
    rates = {each.where: each.options.learning_rate for each in case.plan if each.options.optimizer != "sgd"}
    off = [f"{where}: {rate:g}" for where, rate in rates.items() if not low <= rate <= high]
    if off:
        return Finding(
            code,
            "warning",
            f"learning rates outside {low:g} to {high:g}, our range for {what}: {_told(off)}",
            "published rates of preference tuning are 3e-7 to 1e-6 for whole models from 2.8 to 8 billion parameters, "
            "and some ten times that for LoRA",
            n=len(off),
            of=len(rates),
        )
    return Finding(code, "fine", f"within {low:g} to {high:g}, our range for {what}")


@_check("steps", "Are there steps enough to learn something, and rows enough for a batch?")
def _steps(case: Case, code: str) -> Finding:
    trained = case.trained
    if not trained:
        return Finding(code, "not_checked", WAITS if case.waits else "no stage can be trained on these data")
    few = [
        f"{each.where}: {each.steps} step{'s' * (each.steps > 1)} ({each.n_records:,} records, batch "
        f"{each.options.batch_size:,})"
        for each in trained
        if each.steps < FEW_STEPS
    ]
    large = [each.where for each in trained if each.options.batch_size > each.n_records]
    if large:
        says = f"the batch is larger than the data, so every step is a whole pass: {_told(few or large)}"
        return Finding(
            code, "warning", says, "lower train.batch_size, or give more data", n=len(large), of=len(trained)
        )
    if few:
        says = f"fewer than {FEW_STEPS} optimiser steps: {_told(few)}"
        advice = "lower train.batch_size, raise train.epochs, or give more data"
        return Finding(code, "warning", says, advice, n=len(few), of=len(trained))
    return Finding(code, "fine", _told([f"{each.where}: {each.steps:,}" for each in trained]) + " steps")


@_check("warm-up", "Do warm-ups and gates end before the run does?")
def _warm_up(case: Case, code: str) -> Finding:
    trained = case.trained
    if not trained:
        return Finding(code, "not_checked", WAITS if case.waits else "no stage can be trained on these data")
    closed, whole = [], []
    for each in trained:
        total = each.steps
        warm = 0 if each.options.schedule == "constant" else math.ceil(each.options.warmup_share * total)
        if warm >= total == 1:
            whole.append(f"{each.where}: its one step is the warm-up's first, with a learning rate of 0")
        elif warm >= total:
            whole.append(f"{each.where}: the learning rate rises over all {total:,} steps")
        for term in as_objective(each.stage.composition.objective).terms:
            opens = _opens(term.schedule, total) if isinstance(term.schedule, gate) else 0
            if opens >= total:
                closed.append(f"{each.where}: the term {term.name!r} opens after step {opens:,} of {total:,}")
    if closed:
        return Finding(
            code,
            "error",
            f"something would never be trained: {_told(closed)}",
            "lower the method's warm-up (upo: warmup, warmup_steps), or train for more steps",
            n=len(closed),
            of=len(trained),
        )
    if whole:
        return Finding(
            code,
            "warning",
            _told(whole),
            "lower train.warmup_share, or train for more steps",
            n=len(whole),
            of=len(trained),
        )
    return Finding(code, "fine", "they end before the run does")


def _opens(schedule: gate, total: int) -> int:
    """Steps that are done before the gate opens."""
    if schedule.after_steps is not None:
        return schedule.after_steps
    return math.ceil((schedule.after_share or 0.0) * total)


@_check("intervals", "Is every eval_steps and save_steps reached?")
def _intervals(case: Case, code: str) -> Finding:
    trained = case.trained
    if not trained:
        return Finding(code, "not_checked", WAITS if case.waits else "no stage can be trained on these data")
    late = []
    for each in trained:
        options = each.options
        for name in ("eval_steps", "save_steps"):
            every = getattr(options, name)
            if every is not None and every > each.steps and not (name == "save_steps" and options.eval_steps):
                late.append(f"{each.where}: {name} is {every:,} and there are {each.steps:,} steps")
    if late:
        advice = "lower them, or leave them out: the end of training is evaluated and saved either way"
        return Finding(code, "warning", f"never reached: {_told(late)}", advice, n=len(late), of=2 * len(trained))
    return Finding(code, "fine", "each is reached, or left to the end of training")


# ---- the designer's objectives ----


@_check("objective-scores", "Does every designer objective score responses, and differ between them?")
def _objective_scores(case: Case, code: str) -> Finding:
    if not case.recipe.objectives:
        return Finding(code, "not_checked", "the recipe has no `objectives`")
    if case.designer_fault:
        return Finding(code, "error", case.designer_fault, "change or remove the objective")
    if case.waits:
        return Finding(code, "not_checked", WAITS)
    n, parts = case.designer.get("responses", 0), case.designer.get("parts", {})
    constant = [name for name, part in parts.items() if part["missing"] < n and not part["deviation"] > 0]
    if "reward" in constant and _rewarded(case):
        return Finding(
            code,
            "error",
            f"all {n:,} training responses have the same combined reward, so {_told(_rewarded(case))} cannot learn "
            "from it",
            "look at each objective's clip and options; `unipref methods KEY` says what a scorer measures",
        )
    if constant:
        names = _told([name for name in constant if name != "reward"] or constant)
        says = f"the same score for every training response: {names}; it tells no response from another"
        return Finding(
            code, "warning", says, "look at its clip and options, or remove it", n=len(constant), of=len(parts)
        )
    lacking = {name: part["missing"] for name, part in parts.items() if name != "reward" and part["missing"] > n / 2}
    if lacking:
        told = _told([f"{name} ({_percent(missing, n)} without)" for name, missing in lacking.items()])
        rule = case.recipe.missing_rewards
        kept = "has no reward" if rule == "skip" else "is rewarded by the others alone"
        says = f"more than half of the {n:,} training responses get no score from {told}; such a response {kept}"
        return Finding(code, "warning", says, "choose a scorer that fits these texts, or other `missing_rewards`")
    return Finding(code, "fine", f"{_told([name for name in parts if name != 'reward'])}: {n:,} responses scored")


@_check("objective-conflict", "Do the preferences go against a designer objective?")
def _objective_conflict(case: Case, code: str) -> Finding:
    if not case.designer:
        why = WAITS if case.waits else case.designer_fault or "the recipe has no `objectives`"
        return Finding(code, "not_checked", why)
    found = case.designer["conflicts"]
    if found:
        conflicting = [name for name in case.designer["parts"] if any(one.startswith(f"{name} ") for one in found)]
        part = case.designer["parts"][conflicting[0]]
        return Finding(
            code,
            "note",
            _told(found),
            "gaining on it is expected to cost accuracy; its weight is the price you set",
            n=len(found),
            of=len(case.recipe.objectives),
            value=tuple(part["agreement"]) if len(conflicting) == 1 else None,
        )
    return Finding(code, "fine", "none goes against the preferences beyond chance")


@_check("objective-used", "Is the designer's reward trained on?")
def _objective_used(case: Case, code: str) -> Finding:
    if not case.recipe.objectives:
        return Finding(code, "not_checked", "the recipe has no `objectives`")
    using = _rewarded(case)
    if not using:
        says = "the recipe has `objectives`, and no method in it reads a reward: they are measured, not trained on"
        return Finding(code, "note", says, "to train on them choose a method that needs `reward`, such as upo")
    return Finding(code, "fine", f"{_told(using)} read{'s' * (len(using) == 1)} it")


def _rewarded(case: Case) -> list[str]:
    return [each.where for each in case.plan if "reward" in as_objective(each.stage.composition.objective).needs]


# ---- evaluation ----


@_check("eval-size", "Are enough conversations held out to tell runs apart?")
def _eval_size(case: Case, code: str) -> Finding:
    from unipref.recipes._judging import compared

    if case.waits:
        return Finding(code, "not_checked", WAITS)
    judged = [record for record in compared(case.data.heldout) if record.comparisons]
    n, pairs = len({record.conversation for record in judged}), sum(len(record.comparisons) for record in judged)
    if not n:
        return Finding(
            code,
            "warning",
            f"the {len(case.data.heldout):,} held-out records hold no comparison: accuracy cannot be measured",
            "give data.eval with comparisons",
            n=0,
        )
    half = min(1.96 * math.sqrt(0.25 / n), 0.5)
    size = f"{pairs:,} held-out pairs in {n:,} conversations"
    says = f"{size}: an accuracy near 50 % is known to about ±{100 * half:.0f} points"
    if half > WIDE:
        need = math.ceil(0.25 * (1.96 / WIDE) ** 2)
        advice = f"for ±{100 * WIDE:.0f} points hold out {need} conversations: raise data.eval_share or give data.eval"
        return Finding(code, "warning", f"only {says}", advice, n=n)
    return Finding(code, "fine", says, n=n)


@_check("eval-left-out", "Were training records left out because their conversation is held out?")
def _eval_left_out(case: Case, code: str) -> Finding:
    if case.recipe.data.eval is None:
        return Finding(code, "fine", "conversations are on one side of the split each")
    lost = case.data.report.get("overlap_with_eval", 0)
    whole = case.data.report["train"]["n_kept"]
    if not lost:
        return Finding(code, "fine", "no training record has a conversation of data.eval", n=0, of=whole)
    return Finding(
        code,
        "warning" if lost > MANY_LEFT_OUT * whole else "note",
        f"{lost:,} of {whole:,} training records ({_percent(lost, whole)}) were left out: their conversation is in "
        "data.eval too",
        "if that is more than you expected, the evaluation file was made from the training file",
        n=lost,
        of=whole,
    )


@_check("seeds", "Is the luck of training in the intervals?")
def _seeds(case: Case, code: str) -> Finding:
    seeds = case.recipe.seeds
    if len(seeds) == 1:
        says = f"one seed ({seeds[0]}): the intervals hold the luck of the held-out rows, not that of training"
        return Finding(code, "note", says, "set seeds: [0, 1, 2] before you believe a small difference", n=1)
    return Finding(code, "fine", f"{len(seeds)} seeds", n=len(seeds))


# ---- words ----


def _unloaded(case: Case, code: str) -> Finding:
    why = case.model.fault or "the architecture cannot be built without its weights"
    return Finding(code, "not_checked", why[0].upper() + why[1:])


def _size(n: int) -> str:
    if n >= 1e9:
        return f"{n / 1e9:.1f} billion parameters"
    return f"{n / 1e6:.1f} million parameters" if n >= 1e6 else f"{n:,} parameters"


def _percent(n: int, of: int) -> str:
    return f"{100 * n / of:.1f} %" if of else "0 %"
