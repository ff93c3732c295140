"""Several methods on the same rows, seeds and tuning budget: trained, chosen on validation, judged side by side."""

import contextlib
import gc
import json
import math
import re
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console

import unipref
from unipref.core.cards import REQUIRED, get_method, list_methods
from unipref.core.errors import ConfigError, DataError, ShapeError, nearest
from unipref.core.io import write_json, write_text
from unipref.core.records import Record
from unipref.engine import Policy, score
from unipref.evaluate import (
    SELECTIONS,
    against_baseline,
    calibration,
    selection_scores,
    summarise,
    summarise_reference,
    temperature_of,
)
from unipref.recipes._judging import Rows, compared, judge_pairs, judging_precision, sample
from unipref.recipes._reward_backbone import trains_reward
from unipref.recipes._run import (
    RunData,
    described,
    prepare_folder,
    quiet_transformers,
    read_data,
    run_stages,
    stage_key,
)
from unipref.recipes._source import yaml_value
from unipref.recipes.citations import bibliography
from unipref.recipes.config import Recipe, Stage, TrainOverrides, load_recipe
from unipref.recipes.doctor import before_training
from unipref.recipes.fit import check_data
from unipref.recipes.stage import (
    check_installed,
    examples_of,
    load_policy,
    load_stage_tokenizer,
    stage_done,
    write_model,
)
from unipref.recipes.workbench import Workbench
from unipref.report import write_report, write_table
from unipref.store import ScoreStore
from unipref.training import Example, NonFiniteLossError, autocast, cache_references, processes

__all__ = ["Method", "compare", "parse_methods"]

VALIDATION_SHARE = 0.2  # one number is chosen on it, so it is larger than where a checkpoint is
SPREAD = 3.0  # the default learning rates are the recipe's, that over SPREAD, and that times SPREAD
ALL = "all"
FAILURES = (NonFiniteLossError, ConfigError, DataError, ShapeError, torch.OutOfMemoryError)  # of one method alone


@dataclass(frozen=True)
class Method:
    """One contender.

    Attributes:
        name: of its folder: the key, and what was written behind it.
        text: as it was written, "dpo:beta=0.3".
        rates: learning rates of its own; empty: those of all.
        named: asked for by its key; otherwise it is one of "all", and left out where the data cannot feed it.
    """

    name: str
    text: str
    stage: Stage
    rates: tuple[float, ...] = ()
    named: bool = True


def parse_methods(text: str) -> list[Method]:
    """The methods in `text`: "KEY", "KEY:option=value;option=value" or "KEY@RATE/RATE:option=value", by commas.

    Commas inside brackets do not part methods, and values are written as in YAML. "all" stands for every objective
    that needs no option to be given.

    Raises:
        ConfigError: a method or option is unknown, a value does not fit, or a method is named twice.

    Example:
        >>> [(m.name, m.stage.options, m.rates) for m in parse_methods("dpo:beta=0.3, simpo@1e-6/3e-6")]
        [('dpo-beta-0.3', {'beta': 0.3}, ()), ('simpo-1e-6-3e-6', {}, (1e-06, 3e-06))]
    """
    import unipref.recipes.catalogue
    import unipref.rewards  # noqa: F401 (each fills the registry)

    parts = [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text) if part.strip()]
    if not parts:
        raise ConfigError("--methods names none; give keys by commas, such as dpo,simpo, or `all`")
    named = {part for part in parts if part != ALL}
    methods: list[Method] = []
    for part in parts:
        if part == ALL:
            others = [card for card in list_methods("objective") if card.key not in named]
            methods += [_method(card.key, named=False) for card in others if REQUIRED not in card.options.values()]
        else:
            methods.append(_method(part))
    names = [method.name for method in methods]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--methods names {twice} twice")
    return methods


def _method(text: str, *, named: bool = True) -> Method:
    head, _, settings = text.partition(":")
    key, _, written = head.partition("@")
    card = get_method(key)
    options = {}
    for setting in filter(None, (each.strip() for each in settings.split(";"))):
        name, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--methods {text}: expected option=value, got {setting!r}")
        if name not in card.options:
            raise ConfigError(f"--methods {text}: {key} has no option {name!r}{nearest(name, card.options)}")
        options[name] = yaml_value(value, f"--methods {text}")
    try:
        rates = tuple(float(rate) for rate in written.split("/")) if written else ()
    except ValueError:
        rates = (-1.0,)
    if any(not 0 < rate < math.inf for rate in rates):
        raise ConfigError(
            f"--methods {text}: learning rates behind @ are positive numbers parted by /, got {written!r}"
        )
    try:
        stage = Stage(method=key, options=options)
    except ValidationError as err:
        raise ConfigError(f"--methods {text}: {_first_fault(err)}") from err
    return Method(re.sub(r"[^A-Za-z0-9._+]+", "-", text).strip("-"), text, stage, rates, named)


def _first_fault(err: ValidationError) -> str:
    first = err.errors(include_url=False)[0]
    return first["ctx"]["faults"][0][1] if first["type"] == "faults" else first["msg"]


def compare(
    recipe: Recipe,
    methods: Sequence[Method],
    *,
    learning_rates: Sequence[float] = (),
    seeds: Sequence[int] = (),
    validation_share: float = VALIDATION_SHARE,
    select: str = "accuracy",
    baseline: str | None = None,
    output: Path | None = None,
    resume: bool = False,
    keep_models: bool = False,
    command: str = "",
    console: Console | None = None,
) -> Path:
    """Train `methods` on the recipe's rows and compare them; the folder with `comparison.json` and `report.html`.

    The recipe's shared stages are trained once per seed, and every method starts from there, which is its reference
    too. Without `runs` in the recipe its last stage stands for the methods: the stages before it are shared, and its
    settings of `train` hold for all methods.

    Each method is trained at every learning rate with the first seed, the rate is chosen on validation conversations
    taken from the training side, and the chosen rate is trained with all seeds; test rows are met by the chosen rate's
    models alone, once. One rate is trained and judged without choosing. A method whose loss stops being finite, or
    whose model does not fit into memory, has failed; the others go on.

    Args:
        learning_rates: tried by every method that names none of its own; default: the recipe's, and a third and three
            times that.
        seeds: default: the recipe's.
        validation_share: of the training conversations.
        select: one of `unipref.evaluate.SELECTIONS`, on validation rows; ties fall to the better log score, then to the
            lower rate.
        baseline: the method that the others are compared with; default: the first.
        output: default: the recipe's folder with "-compare" behind its name.
        resume: take what is in the folder as it is and do the rest. Methods, rates and seeds may have been added.
        keep_models: write the models of the chosen rates; otherwise none outlives its evaluation.
        command: what the table says it was made with.

    Raises:
        ConfigError: something does not fit; said before anything is trained.
        UniprefError: what cannot be mended by leaving out one method. What was finished stays in the folder.
    """
    console = console or Console(stderr=True)
    if select not in SELECTIONS:
        raise ConfigError(f"--select: no metric is called {select!r}{nearest(select, SELECTIONS)}")
    if processes().num_processes > 1:
        raise ConfigError("compare runs in one process; start it without a launcher, or align one method on many")
    if recipe.data.stream:
        raise ConfigError(
            "compare holds all records in memory for its many runs; set data.stream=false and a data.limit, or align "
            "one method on all rows"
        )
    names = {name: method.name for method in methods for name in (method.text, method.name)}
    if baseline is not None and baseline not in names:
        raise ConfigError(f"--baseline: no method is called {baseline!r}{nearest(baseline, names)}")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds: a seed stands twice in {list(seeds)}")
    check_installed(recipe.model_options, recipe.train)
    plan = _Plan.of(recipe, methods, learning_rates, seeds or recipe.seeds, select, validation_share)
    folder = Path(output) if output is not None else recipe.folder.with_name(f"{recipe.folder.name}-compare")
    store = ScoreStore(folder.parent / ".scores")
    with quiet_transformers():
        if recipe.collect is not None:  # its pairs are kept in the folder
            prepare_folder(folder, recipe, resume=resume)
        data = read_data(recipe, store, console, folder=folder, validation_share=validation_share)
        plan, left_out = _feasible(plan, data.train)
        chosen = names[baseline] if baseline is not None else plan.methods[0].name
        if chosen not in {method.name for method in plan.methods}:
            reason = next(each["reason"] for each in left_out if each["method"] == chosen)
            raise ConfigError(f"--baseline: {chosen} is left out: {reason}")
        _check_validation(plan, data)
        if recipe.collect is None:
            prepare_folder(folder, recipe, resume=resume)
        before_training(plan.as_recipe(), data, folder, console)
        write_json(folder / "data.json", data.report)
        job = _Job(plan, folder, data, store, console, resume=resume, keep_models=keep_models)
        with _settled():
            found = {method.name: job.run(method) for method in plan.methods}
        comparison = {
            "name": recipe.name,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "version": unipref.__version__,
            "command": command,
            "recipe": recipe.resolved(),
            "data": data.report,
            "designer": described(data),
            "settings": plan.describe() | {"baseline": chosen},
            **job.summary(found, chosen),
            "left_out": left_out,
        }
        write_json(folder / "comparison.json", comparison)
        stages = [*plan.shared, *(method.stage for method in plan.methods)]
        write_text(folder / "citations.bib", bibliography(plan.recipe, stages))
        write_table(folder)
        write_report(folder)
    return folder


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """The trainer collects garbage before every run: what stands already (modules, records) need not be searched."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


# ---- what is to be done ----


@dataclass(frozen=True)
class _Plan:
    """What is compared on what terms.

    Attributes:
        shared: stages before the methods.
        train: settings of `train` that all methods share.
    """

    recipe: Recipe
    methods: tuple[Method, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    select: str
    validation_share: float
    shared: tuple[Stage, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        methods: Sequence[Method],
        rates: Sequence[float],
        seeds: Sequence[int],
        select: str,
        validation_share: float,
    ) -> "_Plan":
        stages = recipe.stages if recipe.runs else recipe.stages[:-1]
        shared = tuple(each for stage in stages for each in stage.in_rounds())
        train = {} if recipe.runs else recipe.stages[-1].train.as_written()
        if not rates:
            middle = train.get("learning_rate", recipe.train.learning_rate)
            rates = [float(f"{rate:.3g}") for rate in (middle / SPREAD, middle, middle * SPREAD)]
        if any(not 0 < rate < math.inf for rate in rates):
            raise ConfigError(f"--learning-rates: expected positive numbers, got {list(rates)}")
        return cls(
            recipe, tuple(methods), tuple(sorted(set(rates))), tuple(seeds), select, validation_share, shared, train
        )

    def rates_of(self, method: Method) -> tuple[float, ...]:
        return tuple(sorted(set(method.rates))) or self.rates

    def stages(self, method: Method, rate: float) -> list[Stage]:
        """What is trained of `method` at `rate`; a loop is one stage per round."""
        changes = TrainOverrides.model_validate({**self.train, "learning_rate": rate})
        return method.stage.model_copy(update={"train": changes}).in_rounds()

    def as_recipe(self) -> Recipe:
        """The recipe with a run for each method at its highest rate, as the doctor looks at it."""
        runs = {method.name: tuple(self.stages(method, self.rates_of(method)[-1])) for method in self.methods}
        own = {"stages": self.shared, "runs": runs, "controls": {}, "fronts": {}, "seeds": self.seeds}
        return self.recipe.model_copy(update=own)

    @property
    def unequal(self) -> str:
        """Why the methods did not get the same tuning; empty where they did."""
        own = [method.name for method in self.methods if method.rates]
        if own:
            return f"learning rates of their own were given to {', '.join(own)}"
        return "every method had one learning rate, so nothing was tuned" if len(self.rates) < 2 else ""

    def describe(self) -> dict[str, Any]:
        return {
            "learning_rates": list(self.rates),
            "seeds": list(self.seeds),
            "tuning_seed": self.seeds[0],
            "select": self.select,
            "validation_share": self.validation_share,
            "unequal_tuning": self.unequal,
            "shared_stages": [stage.label for stage in self.shared],
        }


def _feasible(plan: _Plan, records: Sequence[Record]) -> tuple[_Plan, list[dict[str, str]]]:
    """The plan without the methods of "all" that the data cannot feed, and why each is left out.

    Raises:
        ConfigError: a method that was named cannot be fed, or none is left.
    """
    lacking = {method.name: reason for method in plan.methods if (reason := _lack(plan, method, records))}
    named = {method.name: lacking[method.name] for method in plan.methods if method.named and method.name in lacking}
    if named:
        told = "\n  ".join(f"{name}: {reason}" for name, reason in named.items())
        raise ConfigError(f"--methods: {len(named)} cannot be trained on these data; nothing was trained\n  {told}")
    kept = tuple(method for method in plan.methods if method.name not in lacking)
    if not kept:
        told = "\n  ".join(f"{name}: {reason}" for name, reason in lacking.items())
        raise ConfigError(f"--methods: these data feed no method\n  {told}")
    left_out = [{"method": name, "reason": reason} for name, reason in lacking.items()]
    return replace(plan, methods=kept), left_out


def _check_validation(plan: _Plan, data: RunData) -> None:
    """Refuse to choose among learning rates by nothing."""
    several = any(len(plan.rates_of(method)) > 1 for method in plan.methods)
    if several and not any(record.comparisons for record in compared(data.validation)):
        raise ConfigError(
            f"none of the {len(data.validation)} validation records holds a comparison to choose learning rates by; "
            "raise --validation-share, give more data, or give one rate with --learning-rates"
        )


def _lack(plan: _Plan, method: Method, records: Sequence[Record]) -> str:
    """What the data or the recipe lack for `method`, or why it is no policy; empty where nothing."""
    if trains_reward(method.stage):
        return "it trains a reward model, which has no log-probabilities to compare; train it with `unipref align`"
    try:
        own = {"stages": [], "runs": {method.name: [method.stage.model_dump(mode="json")]}}
        own |= {"controls": {}, "fronts": {}}  # they name the recipe's own runs
        check_data(load_recipe({**plan.recipe.resolved(), **own}, validate_files=False), records)
    except (ConfigError, DataError) as err:
        return re.sub(r"^\s*runs\.\S+: ", "", str(err).splitlines()[-1])
    return ""


# ---- doing it ----


class _Job:
    """Trains and judges; holds what runs share."""

    def __init__(
        self,
        plan: _Plan,
        folder: Path,
        data: RunData,
        store: ScoreStore,
        console: Console,
        *,
        resume: bool,
        keep_models: bool,
    ) -> None:
        self.plan, self.recipe, self.folder, self.data = plan, plan.recipe, folder, data
        self.store, self.console, self.resume, self.keep_models = store, console, resume, keep_models
        self.bench = Workbench(keep=True)
        self.device, self.precision = judging_precision(self.recipe)
        self.starts: dict[int, str] = {}
        self.judged: dict[tuple[str, str], list[Example]] = {}
        self.begun, self.n_runs = 0, sum(self._n_runs(method) for method in plan.methods)

    def _n_runs(self, method: Method) -> int:
        n_rates = len(self.plan.rates_of(method))
        return len(self.plan.seeds) + n_rates - 1  # the chosen rate's tuning run is that of the first seed

    def run(self, method: Method) -> dict[str, Any]:
        """What became of `method`; its models are judged when this returns."""
        rates, first = self.plan.rates_of(method), self.plan.seeds[0]
        tuning: list[dict[str, Any]] = []
        best, held = None, None
        for rate in rates:
            result, policy = self._train(method, rate, first)
            tuning.append(result)
            if result["state"] == "done" and (best is None or self._order(result) > self._order(best)):
                best, held = result, policy
            del policy  # one model waits beside the one in training, not two
        told = {"tuning": tuning}
        if best is None:
            return {"state": "failed", "reason": tuning[0]["reason"], **told}
        rate = best["learning_rate"]
        told |= {"learning_rate": rate, "at_edge": len(rates) > 1 and rate in (rates[0], rates[-1]), "finals": []}
        for seed in self.plan.seeds:
            final, policy = (best, held) if seed == first else self._train(method, rate, seed)
            held = None
            judged = self._place(method, rate, seed) / "evaluation.json"
            if final["state"] == "done" and not judged.exists():
                if policy is None:
                    final, policy = self._train(method, rate, seed, again=True)
                if policy is not None:
                    self._judge(policy, judged, seed)
            if final["state"] == "failed":
                return {"state": "failed", "reason": f"seed {seed}: {final['reason']}", **told}
            told["finals"].append(final)
            del policy
        return {"state": "done", **told}

    def _order(self, result: Mapping[str, Any]) -> tuple[float, float, float]:
        """What makes one tuning run better than another."""
        found = (result["validation"][name] for name in (self.plan.select, "log_score"))
        value, log_score = (-math.inf if number is None else number for number in found)
        return value, log_score, -result["learning_rate"]

    def _place(self, method: Method, rate: float, seed: int) -> Path:
        return self.folder / method.name / f"lr-{rate:g}-seed-{seed}"

    def _train(
        self, method: Method, rate: float, seed: int, *, again: bool = False
    ) -> tuple[dict[str, Any], Policy | None]:
        """A run and what it is worth on validation, and the policy where it was trained now.

        Args:
            again: train it although the folder knows how it ended, because its model is wanted.

        Raises:
            ConfigError: the folder holds the run with other settings.
        """
        place, stages = self._place(method, rate, seed), self.plan.stages(method, rate)
        path = place / "result.json"
        settings = {
            "stages": [stage.model_dump(mode="json") for stage in (*self.plan.shared, *stages)],
            "seed": seed,
            "validation_share": self.plan.validation_share,
        }
        self.begun += not again
        if path.exists() and not again:
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["settings"] != settings:
                raise ConfigError(f"{place} holds a run with other settings; choose another folder with --output")
            if result["state"] == "done":
                return result, None
        places = [place] if len(stages) == 1 else [place / stage.label for stage in stages]
        done = (places[-1] / "done.json").exists()
        result = {"settings": settings, "learning_rate": rate, "seed": seed}
        trained: list[Policy] = []
        try:
            run_stages(
                self.recipe,
                stages,
                places,
                start=self._start(seed),
                seed=seed,
                data=self._training_data(stages),
                store=self.store,
                resume=self.resume and not again and not done,
                console=self.console,
                title=lambda stage: f"[{self.begun}/{self.n_runs}] {method.name} {rate:g} seed {seed}",
                bench=self.bench,
                hand_over=lambda policy, tokenizer: trained.append(policy),
            )
        except FAILURES as err:
            result |= {"state": "failed", "reason": str(err).strip().splitlines()[0]}
        else:
            pairs = self._pairs(trained[0], "validation", seed)
            ends = [stage_done(each) for each in places]
            result |= {"state": "done", "validation": selection_scores(pairs), "temperature": temperature_of(pairs)}
            result |= {name: sum(end[name] for end in ends) for name in ("steps", "seconds", "tokens")}
        for each in places:  # of a failed run, and of all rounds but the last
            for left in ("checkpoints", "model", "trained"):
                shutil.rmtree(each / left, ignore_errors=True)
        write_json(path, result)
        return json.loads(path.read_text(encoding="utf-8")), trained[0].to("cpu") if trained else None

    def _training_data(self, stages: Sequence[Stage]) -> RunData:
        """Validation rows are met after training, unless the recipe chooses checkpoints by them."""
        evaluates = any(self.recipe.train_of(stage).eval_steps for stage in stages)
        return self.data if evaluates else replace(self.data, validation=[])

    def _start(self, seed: int) -> str:
        """The model that all methods start from with `seed`: trained now where there are shared stages."""
        if seed not in self.starts:
            shared = self.plan.shared
            keys = [stage_key(seed, shared[: i + 1]) for i in range(len(shared))]
            self.starts[seed], _ = run_stages(
                self.recipe,
                shared,
                [self.folder / "shared" / f"{stage.label}-{key}" for stage, key in zip(shared, keys, strict=True)],
                start=self.recipe.model,
                seed=seed,
                data=self._training_data(shared),
                store=self.store,
                resume=self.resume,
                console=self.console,
                title=lambda stage: f"{stage.label} (shared) seed {seed}",
            )
        return self.starts[seed]

    def _base(self, seed: int) -> tuple[Policy, Any]:
        """The model before the methods, which is their reference, and its tokenizer."""
        start = self._start(seed)
        base = self.bench.untrained(start, lambda: load_policy(self.recipe, start, trained=False))
        return base, self.bench.tokenizer(start, lambda: load_stage_tokenizer(self.recipe, start))

    def _examples(self, part: str, seed: int) -> list[Example]:
        """The records of "validation" or "heldout" with what the reference says of them."""
        key = (part, self._start(seed))
        if key not in self.judged:
            base, tokenizer = self._base(seed)
            found, _ = examples_of(
                compared(getattr(self.data, part)), tokenizer, max_length=self.recipe.data.max_length
            )
            self.bench.tokenised += len(found)
            with self._on_device(base):
                cache_references(found, base, store=self.store, precision=self.precision, max_tokens=self._budget())
            self.judged[key] = found
        return self.judged[key]

    def _budget(self) -> int:
        return 2 * self.recipe.train.max_tokens_per_forward

    @contextlib.contextmanager
    def _on_device(self, *policies: Policy) -> Iterator[None]:
        """Models lie in main memory and come to the device to be used."""
        for policy in policies:
            policy.to(self.device)
        yield
        for policy in policies:
            policy.to("cpu")

    def _pairs(self, policy: Policy, part: str, seed: int) -> list[dict[str, Any]]:
        examples = self._examples(part, seed)
        with self._on_device(policy), autocast(self.device, self.precision):
            scored = score(policy, [example.trie for example in examples], max_tokens=self._budget())
        for example, logp in zip(examples, scored, strict=True):
            example.ref_logp["logp"] = logp
        return judge_pairs(self.recipe, examples, seed=seed)

    def _written(self, policy: Policy, seed: int) -> list[dict[str, Any]]:
        base, tokenizer = self._base(seed)
        examples = self._examples("heldout", seed)
        with self._on_device(policy, base):
            policy.eval()
            scorers = self.data.designer, self.data.judges
            return sample(self.recipe, *scorers, examples, policy, base, tokenizer, self.precision, seed=seed)

    def _judge(self, policy: Policy, path: Path, seed: int) -> None:
        pairs = self._pairs(policy, "heldout", seed)
        write_json(path, {"seed": seed, "pairs": pairs, "generations": self._written(policy, seed)})
        if self.keep_models:
            write_model(self.recipe, policy, self._base(seed)[1], path.parent / "model")

    # -- the numbers -----------------------------------------------------------------------------------------------

    def summary(self, found: Mapping[str, Mapping[str, Any]], baseline: str) -> dict[str, Any]:
        """What `comparison.json` says of the methods and of the model before them."""
        names = self.recipe.scores
        rows = {}
        for method in self.plan.methods:
            result = found[method.name]
            if result["state"] == "done":
                places = [self._place(method, result["learning_rate"], seed) for seed in self.plan.seeds]
                saved = [json.loads((place / "evaluation.json").read_text(encoding="utf-8")) for place in places]
                rows[method.name] = Rows(*([row for one in saved for row in one[k]] for k in ("pairs", "generations")))
        methods = {}
        for method in self.plan.methods:
            card, result = get_method(method.stage.method), found[method.name]
            entry = {"method": card.key, "written": method.text, "options": method.stage.options, "status": card.status}
            entry |= {key: result[key] for key in ("state", "reason", "learning_rate", "at_edge") if key in result}
            entry["tuning"] = [
                {key: run.get(key) for key in ("learning_rate", "state", "reason", "validation")}
                for run in result["tuning"]
            ]
            if method.name in rows:
                entry |= self._numbers(rows[method.name], result["finals"], names)
            methods[method.name] = entry
        compared_ = {name: (one.pairs, one.generations) for name, one in rows.items()}
        return {
            "methods": methods,
            "differences": against_baseline(compared_, baseline, designer=names) if baseline in rows else [],
            "reference": self._reference(rows, names) if rows else {},
            "shared": {"records_tokenised": self.bench.tokenised, "records_reused": self.bench.reused},
        }

    def _numbers(self, rows: Rows, finals: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
        numbers = summarise(rows.pairs, rows.generations, designer=names)
        temperatures = {f["seed"]: math.inf if f["temperature"] is None else f["temperature"] for f in finals}
        numbers["calibration"] = calibration(rows.pairs, temperatures)
        for seed, entry in numbers["by_seed"].items():
            mine = [row for row in rows.pairs if str(row["seed"]) == seed]
            entry |= {name: value for name, value in selection_scores(mine).items() if name != "log_score"}
        numbers["seed_deviation"] = {
            name: statistics.stdev(entry[name] for entry in numbers["by_seed"].values())
            for name in SELECTIONS
            if name != "log_score" and len(numbers["by_seed"]) > 1
        }
        per_run = {name: statistics.fmean(final[name] for final in finals) for name in ("seconds", "tokens", "steps")}
        return {**numbers, "seeds": [final["seed"] for final in finals], **per_run}

    def _reference(self, rows: Mapping[str, Rows], names: Sequence[str]) -> dict[str, Any]:
        path, seed = self.folder / "shared" / "reference.json", self.plan.seeds[0]
        if not path.exists():
            write_json(path, {"generations": self._written(self._base(seed)[0], seed)})
        generations = json.loads(path.read_text(encoding="utf-8"))["generations"]
        pairs = [row for row in next(iter(rows.values())).pairs if row["seed"] == seed]
        return summarise_reference(pairs, generations, designer=names)
