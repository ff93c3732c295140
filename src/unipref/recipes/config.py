"""The recipe: what a run is made of, as frozen models that refuse what they do not know before anything is loaded."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from unipref.core.cards import Card, get_method
from unipref.core.errors import ConfigError, UniprefError, nearest
from unipref.evaluate import DEFAULT_BOUNDS, metrics_of
from unipref.objectives import as_objective
from unipref.online import PAIRS, PREFERENCES
from unipref.recipes._source import Key, Source, dotted, merged, read_yaml
from unipref.recipes.composition import Composition, collected_by, rounds_of

__all__ = [
    "Axis",
    "Bounds",
    "Collect",
    "DataOperator",
    "DataOptions",
    "DataSplit",
    "DesignerObjective",
    "Front",
    "Lora",
    "ModelOptions",
    "Name",
    "Recipe",
    "Reference",
    "Sampling",
    "ScorerChoice",
    "Section",
    "Stage",
    "TrainOptions",
    "bundled_recipes",
    "find_recipe",
    "load_as",
    "load_recipe",
    "not_there",
    "refuse",
]

# Booleans are refused where numbers are expected, and a quoted "16" is not a number.
Int = Annotated[int, Field(strict=True)]
Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Float, Field(gt=0)]
Count = Annotated[Int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]  # becomes the name of a folder


T = TypeVar("T")
_Kind = TypeVar("_Kind", bound=BaseModel)


def _fault(words: str) -> PydanticCustomError:
    return PydanticCustomError("words", "{words}", {"words": words})


def _filled(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise _fault("the list is empty; it needs at least one entry")
    return value


def _distinct(value: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(value)) < len(value):
        raise _fault(f"a seed stands twice in {list(value)}")
    return value


_Filled = Annotated[tuple[T, ...], AfterValidator(_filled)]

RESERVED = ("reference", "shared")


Names = Annotated[  # a name or a list of names
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    PlainSerializer(list),
    Field(min_length=1),
]


class Section(BaseModel):
    """A part of a recipe, which refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Lora(Section):
    """Low-rank adapters instead of full fine-tuning; the adapter switched off is the reference."""

    r: Count = Field(16, description="rank of the adapters")
    alpha: Positive = Field(32.0, description="scale; the adapter's output is multiplied by alpha / r")
    dropout: Annotated[Float, Field(ge=0, lt=1)] = Field(0.0, description="dropout on the adapter's input")
    target_modules: str | tuple[str, ...] = Field("all-linear", description="modules to adapt: `all-linear` or names")
    merge: bool = Field(True, description="write the merged model; false writes the adapter alone")


class ModelOptions(Section):
    """How the model is loaded."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="type of the weights")
    lora: Lora | None = Field(None, description="train low-rank adapters; null trains all weights")
    quantize: Literal["nf4", "fp4", "int8"] | None = Field(
        None, description="hold the frozen weights under `lora` in 4 or 8 bits (QLoRA); needs bitsandbytes"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with a hub model")


class Reference(Section):
    """One of the models that the policy is compared with. A plain string is its `model`."""

    model: str = Field(description="hub id, local path, or `model`: the model that the stage starts from")
    weight: Positive | None = Field(None, description="its share in the log-probability; null: equal shares")
    name: Name | None = Field(
        None, description="keep it apart, as the column `ref_logp.NAME` that some methods read; null: mix it in"
    )


def _plain_reference(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


def _format_exists(name: str) -> str:
    from unipref.data import FORMATS

    if name not in ("auto", *FORMATS):
        raise _fault(f"no data format named {name!r}{nearest(name, ['auto', *FORMATS])}")
    return name


def _checks_exist(codes: tuple[str, ...]) -> tuple[str, ...]:
    from unipref.data import CHECKS
    from unipref.recipes._recipe_checks import RECIPE_CHECKS

    known = {**CHECKS, **RECIPE_CHECKS}
    for code in codes:
        if code not in known:
            raise _fault(f"no check is called {code!r}{nearest(code, known)}")
    return codes


class DataSplit(Section):
    """Which preferences are read and how they are split."""

    train: str = Field(
        description="a file (JSON lines, JSON, CSV, Parquet, gzip), a hub data set, `bundled:hh-harmless`, or for "
        "`collect` a file with prompts alone, such as `bundled:review-openings`"
    )
    eval: str | None = Field(
        None, description="held-out data; null holds out `eval_share` of the conversations in `train`"
    )
    eval_share: Annotated[Float, Field(gt=0, lt=1)] = Field(0.2, description="share of conversations held out")
    limit: Count | None = Field(None, description="train on at most this many records; null: all")
    eval_limit: Count | None = Field(None, description="evaluate on at most this many records; null: all")
    format: Annotated[str, AfterValidator(_format_exists)] = Field(
        "auto", description="the rows' format; `auto` recognises it"
    )
    domain_column: str = Field("domain", description="the column that names a row's domain")
    user_column: str = Field("user", description="the column that names whose preference a row is")
    strict: bool = Field(False, description="a faulty row is an error; otherwise it is set aside and counted")


class DataOptions(DataSplit):
    """Which preferences are read, how they are split, and how much of a text is."""

    max_length: Count = Field(
        512, description="tokens of context and response together; longer ones are cut and counted"
    )
    stream: bool = Field(
        False,
        description="read the training rows a part at a time and keep them tokenised beside the runs, for data that do "
        "not fit in memory",
    )
    version: str | None = Field(
        None, description="with `stream`, of a hub data set: a revision or date that changes when its rows do"
    )
    accept: Annotated[tuple[str, ...], AfterValidator(_checks_exist)] = Field(
        (), description="findings of `unipref doctor` that were looked at: train in spite of these errors"
    )


class DesignerObjective(Section):
    """A goal of the designer's own: a scorer of responses and how much it counts."""

    scorer: str = Field(description="what scores a response; `unipref methods --kind scorer` lists them")
    weight: Float = Field(1.0, description="factor in the combined reward; negative: less is better")
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of the scorer; `unipref methods KEY` lists them"
    )
    clip: tuple[Float | None, Float | None] | None = Field(
        None, description="[low, high] in the scorer's own units, either null for no bound"
    )
    normalise: Literal["none", "minmax", "zscore"] = Field(
        "none", description="`minmax`: training responses fill 0 to 1; `zscore`: they have mean 0 and deviation 1"
    )


class ScorerChoice(Section):
    """A scorer with its options: what labels collected answers, or a judge, which grades and never enters a reward."""

    scorer: str = Field(description="what scores a response; `unipref methods --kind scorer` lists them")
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of the scorer; `unipref methods KEY` lists them"
    )

    @model_validator(mode="after")
    def _scorer_exists(self) -> "ScorerChoice":
        from unipref.rewards import make_scorer

        try:
            make_scorer(self.model_dump())
        except UniprefError as err:
            refuse([(("options",) if self.options else ("scorer",), str(err))])
        return self

    def same_as(self, other: "ScorerChoice | DesignerObjective") -> bool:
        """Whether both score alike: the same scorer with the same options, defaults filled in."""
        from unipref.rewards import make_scorer

        return make_scorer(self.model_dump()) == make_scorer({"scorer": other.scorer, "options": other.options})


class Collect(Section):
    """Preference pairs from the start model's own answers: `data.train` gives the prompts, a scorer the labels.

    The start model is the recipe's `model`. It answers once, before anything is trained, and all runs train on these
    pairs. Held-out prompts get pairs of their own, in the same way, which are only evaluated on.
    """

    label: ScorerChoice = Field(description="the scorer whose higher value is preferred: the user's reward")
    responses: Annotated[Int, Field(ge=2)] = Field(2, description="answers to every prompt")
    max_new_tokens: Count = Field(64, description="longest answer in tokens")
    temperature: Annotated[Float, Field(gt=0)] = Field(1.0, description="temperature of the draw")
    top_p: Annotated[Float, Field(gt=0, le=1)] = Field(
        1.0, description="draw from the smallest set of tokens with this probability"
    )
    seed: Annotated[Int, Field(ge=0)] = Field(0, description="seed of the draw")
    pairs: Literal[PAIRS] = Field(
        "best_worst", description="of a prompt's answers: the best and the worst, `all` pairs, or the `first_two`"
    )
    preference: Literal[PREFERENCES] = Field(
        "hard",
        description="`hard`: the higher score wins; `bradley_terry`: a soft label, sigmoid of the difference / scale",
    )
    scale: Positive = Field(1.0, description="of `bradley_terry`, in the label's units")
    min_gap: Annotated[Float, Field(ge=0)] = Field(
        0.0, description="pairs whose scores are less apart are left out, and counted"
    )


class Axis(Section):
    """One axis of a front."""

    metric: str = Field(
        description="as in the report's table of differences: `kl`, `length`, `accuracy`, `aux.NAME.generations`, ..."
    )
    better: Literal["higher", "lower"] = Field(description="which side of it is wanted")


class Front(Section):
    """Runs as points, methods as families of runs, and the area that each family reaches."""

    axes: Annotated[tuple[Axis, ...], Field(min_length=2, max_length=3)] = Field(description="two or three axes")
    families: Annotated[dict[Name, Names], Field(min_length=1)] = Field(
        description="family: its runs, such as one method over a sweep of its strength"
    )


class Bounds(Section):
    """Beyond these an alarm is raised in the log and the report."""

    chosen_drift: Float = Field(
        DEFAULT_BOUNDS["chosen_drift"],
        description="change of the chosen responses' log-probability, nats per token; alarm below",
    )
    length_drift: Positive = Field(
        DEFAULT_BOUNDS["length_drift"], description="change of the mean generated length, as a share of the reference's"
    )
    kl: Positive = Field(DEFAULT_BOUNDS["kl"], description="KL to the reference, nats per generation")
    margin: Positive = Field(DEFAULT_BOUNDS["margin"], description="mean reward margin at the end of training")
    gradient_ratio: Positive = Field(
        DEFAULT_BOUNDS["gradient_ratio"],
        description="least ratio of UPO's auxiliary to its preference gradient; an error below",
    )


def _trackers(value: Any) -> Any:
    if value is None or value == "none":
        return ()
    return (value,) if isinstance(value, str) else value


class TrainOptions(Section):
    """How weights are moved."""

    learning_rate: Positive = Field(1e-5, description="peak learning rate")
    batch_size: Count = Field(16, description="records per optimiser step, over all devices")
    epochs: Positive = Field(1.0, description="passes over the training records")
    max_steps: Count | None = Field(None, description="stop after this many optimiser steps; null: `epochs` decides")
    warmup_share: Annotated[Float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the steps with a rising learning rate"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="learning rate after the warm-up")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "rmsprop", "sgd"] = Field(
        "adamw", description="optimiser; those in 8 bits need bitsandbytes"
    )
    weight_decay: Annotated[Float, Field(ge=0)] = Field(0.0, description="decoupled weight decay")
    max_grad_norm: Positive | None = Field(1.0, description="clip the gradient's norm here; null: never")
    max_tokens_per_forward: Count = Field(8192, description="a step is split into forwards of at most this many tokens")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="arithmetic of the forward pass")
    gradient_checkpointing: bool = Field(
        False, description="recompute activations: less memory, about a third more time"
    )
    group_by_length: bool = Field(False, description="put records of like length into one step: faster, less random")
    group_by_prompt: bool = Field(
        False,
        description="put records of one prompt or conversation into one step, where what they share is computed once",
    )
    logging_steps: Count = Field(5, description="write metrics every so many steps")
    eval_steps: Count | None = Field(None, description="evaluate every so many steps; null: at the end")
    save_steps: Count | None = Field(None, description="checkpoint every so many steps; null: at the end and on Ctrl-C")
    keep_best: str | None = Field(
        "eval_rewards/accuracies", description="held-out metric whose best checkpoint is kept; null: the last"
    )
    report_to: Annotated[tuple[str, ...], BeforeValidator(_trackers), PlainSerializer(lambda v: list(v) or "none")] = (
        Field((), description="trackers such as `tensorboard` or `wandb`, one or a list")
    )
    bounds: Bounds = Field(Bounds(), description="when alarms are raised")


class _Changes(Section):
    def as_written(self) -> dict[str, Any]:
        """The settings that were given, without the rest."""
        return self.model_dump(mode="json", exclude_unset=True)

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        return ((name, value) for name, value in super().__repr_args__() if name in self.model_fields_set)


TrainOverrides = create_model(
    "TrainOverrides",
    __base__=_Changes,
    __doc__="The settings of `train` that a stage changes for itself.",
    **{
        name: (Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation, None)
        for name, info in TrainOptions.model_fields.items()
    },
)


def _objective_exists(key: str) -> str:
    try:
        card = _card(key)
    except ConfigError as err:
        raise _fault(str(err)) from err
    if card.kind not in ("objective", "recipe", "loop"):
        raise _fault(f"{key} is of kind {card.kind!r}; a stage trains an objective, a recipe or a loop")
    return key


def _operator_exists(key: str) -> str:
    try:
        card = _card(key)
    except ConfigError as err:
        raise _fault(str(err)) from err
    if card.kind != "operator":
        raise _fault(f"{key} is of kind {card.kind!r}; `unipref methods --kind operator` lists what changes data")
    return key


class DataOperator(Section):
    """A change of the data before they are trained on. A plain string is its `operator`."""

    operator: Annotated[str, AfterValidator(_operator_exists)] = Field(
        description="its key; `unipref methods --kind operator` lists them"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of the operator; `unipref methods KEY` lists them"
    )

    @model_validator(mode="after")
    def _options_fit(self) -> "DataOperator":
        _check_options(self.operator, self.options)
        return self


def _plain_operator(value: Any) -> Any:
    return {"operator": value} if isinstance(value, str) else value


def _check_options(key: str, options: dict[str, Any]) -> None:
    card = _card(key)
    unknown = [name for name in options if name not in card.options]
    refuse((("options", name), f"{key} has no option {name!r}{nearest(name, card.options)}") for name in unknown)
    try:
        card.build(**options)
    except (ValueError, TypeError) as err:
        refuse([(("options",), str(err))])


class Stage(Section):
    """One training run: a method with its options, on the model that the stage before left.

    A loop is a stage for each of its rounds, called NAME-1, NAME-2, ...
    """

    method: Annotated[str, AfterValidator(_objective_exists)] = Field(
        description="a method's key; `unipref methods` lists them"
    )
    name: Name | None = Field(None, description="the stage's name in its run; null: the method's key")
    options: dict[str, Any] = Field(
        default_factory=dict, description="options of the method; `unipref methods KEY` lists them"
    )
    operators: tuple[Annotated[DataOperator, BeforeValidator(_plain_operator)], ...] = Field(
        (), description="changes of this stage's data, in order; an entry may be its `operator` alone"
    )
    round: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="of a loop: train this round alone, counted from 0; null: all, one after another"
    )
    train: Annotated[TrainOverrides, PlainSerializer(_Changes.as_written)] = Field(
        TrainOverrides(), description="settings of `train` changed for this stage"
    )

    @property
    def label(self) -> str:
        """The stage's name: its own, or its method's key."""
        return self.name or self.method

    @model_validator(mode="after")
    def _options_fit(self) -> "Stage":
        _check_options(self.method, self.options)
        n_rounds = len(rounds_of(_card(self.method), self.options))
        if self.round is not None and self.round >= n_rounds:
            refuse([(("round",), f"{self.method} has {n_rounds} rounds, counted from 0; there is no {self.round}")])
        return self

    def in_rounds(self) -> list["Stage"]:
        """The stage itself, or one for every round of a loop."""
        n_rounds = len(rounds_of(_card(self.method), self.options))
        if n_rounds == 1 or self.round is not None:
            return [self]
        return [self.model_copy(update={"name": f"{self.label}-{i + 1}", "round": i}) for i in range(n_rounds)]

    @property
    def composition(self) -> Composition:
        """What the stage trains: the operators of the stage, then those of its method, and the objective."""
        found = rounds_of(_card(self.method), self.options)[self.round or 0]
        own = tuple(_card(each.operator).build(**each.options) for each in self.operators)
        return replace(found, operators=(*own, *found.operators))

    @property
    def collects(self) -> str:
        """What the method, a loop, samples or has labelled between its rounds as it is published; "" of others."""
        return collected_by(_card(self.method), self.options)


class Sampling(Section):
    """What the trained models write for the report."""

    prompts: Annotated[Int, Field(ge=0)] = Field(64, description="held-out prompts to answer; 0: none")
    max_new_tokens: Count = Field(64, description="longest answer in tokens")
    temperature: Annotated[Float, Field(ge=0)] = Field(1.0, description="0 takes the likeliest token")
    top_p: Annotated[Float, Field(gt=0, le=1)] = Field(
        1.0, description="draw from the smallest set of tokens with this probability"
    )
    seed: Annotated[Int, Field(ge=0)] = Field(0, description="seed of the draw")


class Recipe(Section):
    """A validated recipe. `load_recipe` makes one from a file or a mapping; errors there are `ConfigError`s."""

    name: Name = Field("recipe", description="the run folder is runs/NAME; a file's own name stands in for it")
    output: str | None = Field(None, description="another run folder")
    model: str = Field(description="`bundled`, a hub id or a local path")
    model_options: ModelOptions = Field(ModelOptions(), description="how it is loaded")
    references: _Filled[Annotated[Reference, BeforeValidator(_plain_reference)]] = Field(
        (Reference(model="model"),), description="what log-ratios are taken against; an entry may be its `model` alone"
    )
    data: DataOptions = Field(description="preferences")
    collect: Collect | None = Field(
        None, description="make preferences of the start model's own answers to `data`'s prompts; null: `data` has them"
    )
    objectives: dict[Name, DesignerObjective] = Field(default_factory=dict, description="designer objectives by name")
    missing_rewards: Literal["skip", "renormalise"] = Field(
        "skip",
        description="a response that an objective cannot score has no reward, or the others' weights are scaled up",
    )
    judges: dict[Name, ScorerChoice] = Field(
        default_factory=dict, description="scorers by name that grade what is evaluated and never enter the reward"
    )
    train: TrainOptions = Field(TrainOptions(), description="settings of every stage")
    stages: tuple[Stage, ...] = Field((), description="stages that every run shares, in order")
    runs: dict[Name, _Filled[Stage]] = Field(
        default_factory=dict,
        description="named runs, each a list of further stages; without any, `stages` is the one run",
    )
    controls: dict[str, Names] = Field(default_factory=dict, description="run: the run, or runs, it is compared with")
    fronts: dict[Name, Front] = Field(
        default_factory=dict, description="trade-offs to draw by name: runs on two or three axes, by family"
    )
    seeds: Annotated[_Filled[Annotated[Int, Field(ge=0)]], AfterValidator(_distinct)] = Field(
        (0,), description="train every run once per seed"
    )
    sampling: Sampling = Field(Sampling(), description="generations for the report")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output) if self.output is not None else Path("runs") / self.name

    @property
    def scores(self) -> list[str]:
        """Names of what responses are scored by in an evaluation: the designer objectives, then the judges."""
        return [*self.objectives, *self.judges]

    def run_plan(self) -> dict[str, list[Stage]]:
        """The stages of every run, the shared ones first; a loop is one stage per round."""
        if not self.runs:
            return {self.stages[-1].method: self.shared_stages}
        own = {name: [each for stage in stages for each in stage.in_rounds()] for name, stages in self.runs.items()}
        return {name: [*self.shared_stages, *stages] for name, stages in own.items()}

    @property
    def shared_stages(self) -> list[Stage]:
        """The stages that every run has in common; a loop is one stage per round."""
        return [each for stage in self.stages for each in stage.in_rounds()]

    def train_of(self, stage: Stage) -> TrainOptions:
        """The settings of `train` with the stage's own laid over them."""
        return TrainOptions.model_validate(merged(self.train.model_dump(mode="json"), stage.train.as_written()))

    def reference_weights(self) -> list[tuple[str, float]]:
        """Each reference model that is mixed into `ref_logp`, with its share; the shares add up to 1."""
        mixed = [ref for ref in self.references if ref.name is None]
        return [(ref.model, 1.0 / len(mixed) if ref.weight is None else ref.weight) for ref in mixed]

    def named_references(self) -> dict[str, str]:
        """The model of every reference that is a column of its own, by column."""
        return {f"ref_logp.{ref.name}": ref.model for ref in self.references if ref.name is not None}

    def resolved(self) -> dict[str, Any]:
        """The recipe as plain values, every default written out; `load_recipe` reads it back as an equal recipe."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _parts_fit(self) -> "Recipe":
        if not self.stages and not self.runs:
            refuse([(("stages",), "nothing to train: give `stages`, such as [{method: dpo}], or `runs`")])
        refuse(
            [
                *self._name_faults(),
                *self._objective_faults(),
                *self._judge_faults(),
                *self._stage_faults(),
                *self._control_faults(),
                *self._front_faults(),
                *self._reference_faults(),
                *self._adapter_faults(),
            ]
        )
        return self

    def _name_faults(self) -> Iterator[tuple[Key, str]]:
        for name in self.runs:
            if name in RESERVED:
                yield ("runs", name), f"a run cannot be called {name!r}: the run folder and the summary use that name"

    def _stage_faults(self) -> Iterator[tuple[Key, str]]:
        for name, stages in self.run_plan().items():
            labels = [stage.label for stage in stages]
            twice = [label for label in dict.fromkeys(labels) if labels.count(label) > 1]
            if twice:
                key = ("runs", name) if self.runs else ("stages",)
                yield key, f"two stages are called {twice[0]!r}; give one of them a `name`"
            rewards = [as_objective(stage.composition.objective).trains_reward for stage in stages]
            for stage, before, here in zip(stages[1:], rewards, rewards[1:], strict=False):
                if before and not here:
                    key = ("runs", name) if self.runs else ("stages",)
                    yield (
                        key,
                        f"{stage.label} would go on from a reward model, which writes no text; make it a run of its "
                        "own (runs:)",
                    )
        lists = {("stages",): self.stages, **{("runs", name): stages for name, stages in self.runs.items()}}
        for key, stages in lists.items():
            for index, stage in enumerate(stages):
                needed = {
                    name
                    for each in rounds_of(_card(stage.method), stage.options)
                    for name in as_objective(each.objective).needs
                    if name.startswith("ref_logp.")
                }
                lacking = sorted(needed - set(self.named_references()))
                if lacking:
                    name = lacking[0].removeprefix("ref_logp.")
                    yield (
                        (*key, index, "method"),
                        f"{stage.method} needs a further reference, {lacking[0]}; "
                        f"add one, such as references: [model, {{model: PATH, name: '{name}'}}]",
                    )

    def _objective_faults(self) -> Iterator[tuple[Key, str]]:
        from unipref.rewards import DesignerObjectives

        for name, objective in self.objectives.items():
            try:
                DesignerObjectives.from_config({name: objective.model_dump()})
            except UniprefError as err:
                yield ("objectives", name), str(err).removeprefix(f"objectives.{name}: ")

    def _control_faults(self) -> Iterator[tuple[Key, str]]:
        plan = self.run_plan()
        for run, others in self.controls.items():
            for name in (run, *others):
                if name not in plan:
                    yield ("controls", run), f"no run is called {name!r}{nearest(name, plan)}"
            if run in others:
                yield ("controls", run), "a run cannot be its own control"

    def _judge_faults(self) -> Iterator[tuple[Key, str]]:
        for name in self.judges:
            if name in self.objectives:
                yield ("judges", name), f"{name!r} is a designer objective, too; give the judge a name of its own"
            elif name == "reward":
                yield ("judges", name), "a judge cannot be called 'reward', the name of the combined score; rename it"

    def _front_faults(self) -> Iterator[tuple[Key, str]]:
        plan, metrics = self.run_plan(), metrics_of(self.scores)
        for front, asked in self.fronts.items():
            for i, axis in enumerate(asked.axes):
                if axis.metric not in metrics:
                    words = f"no metric is called {axis.metric!r}{nearest(axis.metric, metrics)}"
                    yield ("fronts", front, "axes", i, "metric"), words
                elif metrics[axis.metric][0] == 1 and not self.sampling.prompts:
                    words = f"{axis.metric} is measured on generations; set sampling.prompts above 0"
                    yield ("fronts", front, "axes", i, "metric"), words
            if len({axis.metric for axis in asked.axes}) < len(asked.axes):
                yield ("fronts", front, "axes"), "two axes have the same metric"
            seen: dict[str, str] = {}
            for family, runs in asked.families.items():
                for run in runs:
                    if run not in plan:
                        yield ("fronts", front, "families", family), f"no run is called {run!r}{nearest(run, plan)}"
                    elif run in seen:
                        words = f"the run {run!r} is in {seen[run]!r} already; a run is in one family"
                        yield ("fronts", front, "families", family), words
                    seen.setdefault(run, family)

    def _adapter_faults(self) -> Iterator[tuple[Key, str]]:
        if self.model_options.quantize is not None and self.model_options.lora is None:
            yield (
                ("model_options", "quantize"),
                "quantised weights cannot be trained, adapters over them can; give `lora` too, such as lora: {r: 16}",
            )
        if self.model_options.lora is None or self.model_options.lora.merge:
            return
        for run, stages in self.run_plan().items():
            if any(as_objective(stage.composition.objective).trains_reward for stage in stages):
                yield (
                    ("model_options", "lora", "merge"),
                    f"{run} trains a reward model, which is saved whole so that it loads by itself; set merge: true",
                )
            elif len(stages) > 1 or any(stage.composition.momentum for stage in stages):
                yield (
                    ("model_options", "lora", "merge"),
                    f"{run} has stages or rounds that go on from whole weights, and an adapter alone is none; "
                    "set merge: true",
                )

    def _reference_faults(self) -> Iterator[tuple[Key, str]]:
        mixed = [ref for ref in self.references if ref.name is None]
        weights = [ref.weight for ref in mixed if ref.weight is not None]
        names = [ref.name for ref in self.references if ref.name is not None]
        if not mixed:
            yield ("references",), "every reference has a name; one without, such as `model`, is `ref_logp`"
        if len(set(names)) < len(names):
            yield ("references",), f"two references are called {max(names, key=names.count)!r}"
        for ref in self.references:
            if ref.name is not None and ref.weight is not None:
                yield ("references",), f"the reference {ref.name!r} stands apart; a weight is for those that are mixed"
        if weights and len(weights) < len(mixed):
            yield ("references",), "give every reference a weight, or none"
        elif weights and not math.isclose(sum(weights), 1.0, rel_tol=1e-6):
            yield ("references",), f"the weights must add up to 1, got {sum(weights):g}"


def _card(key: str) -> Card:
    import unipref.data.catalogue
    import unipref.recipes.catalogue
    import unipref.rewards  # noqa: F401 (each fills the registry)

    return get_method(key)


def refuse(faults: Iterable[tuple[Key, str]]) -> None:
    """Raise `faults`, if there are any, each at its key below the model being validated."""
    found = list(faults)
    if found:
        raise PydanticCustomError("faults", "{faults}", {"faults": found})


_EXPECTED = {
    "string_pattern_mismatch": "a name of letters, digits and . _ + - (it becomes a folder)",
    "tuple_type": "a list",
    "dict_type": "`key: value` entries",
    "model_type": "`key: value` entries",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
}


def _faults(err: ValidationError, values: Any, keys: Callable[[Key], list[str]]) -> list[tuple[Key, str]]:
    """Key path and message of every fault, in the order of the recipe's keys."""
    faults: list[tuple[Key, str]] = []
    for item in err.errors(include_url=False):
        key = _written(item["loc"], values)
        if item["type"] == "faults":
            faults += [((*key, *below), words) for below, words in item["ctx"]["faults"]]
        elif item["type"] == "missing":
            faults.append(((*key, item["loc"][-1]), "this key is required"))
        elif item["type"] == "extra_forbidden":
            faults.append((key, f"unknown key{nearest(str(key[-1]), keys(key[:-1]))}"))
        elif item["type"] == "words":
            faults.append((key, item["msg"]))
        else:
            plain = item["msg"].removeprefix("Input should be ").replace("valid ", "")
            expected = _EXPECTED.get(item["type"], plain).format_map(item.get("ctx", {}))
            faults.append((key, f"expected {expected}, got {item['input']!r}"))
    return faults


def _written(loc: tuple[str | int, ...], values: Any) -> Key:
    """The longest part of `loc` that the recipe really has; pydantic adds names of union members and validators."""
    key: Key = ()
    for part in loc:
        in_mapping = isinstance(values, Mapping) and part in values
        in_list = isinstance(values, Sequence) and not isinstance(values, str) and isinstance(part, int)
        if not (in_mapping or in_list):
            break
        values, key = values[part], (*key, part)
    return key


def _known_keys(key: Key) -> list[str]:
    """Keys of the section at `key`, where names and numbers the user chose do not count."""
    known = {
        (): Recipe,
        ("model_options",): ModelOptions,
        ("model_options", "lora"): Lora,
        ("references",): Reference,
        ("data",): DataOptions,
        ("collect",): Collect,
        ("collect", "label"): ScorerChoice,
        ("objectives",): DesignerObjective,
        ("judges",): ScorerChoice,
        ("fronts",): Front,
        ("fronts", "axes"): Axis,
        ("train",): TrainOptions,
        ("train", "bounds"): Bounds,
        ("stages",): Stage,
        ("runs",): Stage,
        ("sampling",): Sampling,
    }
    sections = tuple(part for part in key if isinstance(part, str))
    if sections[:1] in (("runs",), ("objectives",), ("judges",), ("fronts",)):
        sections = (sections[0], *sections[2:])
    if sections[:1] in (("stages",), ("runs",)) and len(sections) > 1:
        sections = sections[1:]
    return list(known[sections].model_fields)


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("unipref"))) / "assets" / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str | Path) -> Path:
    """The recipe file `name`, or the bundled recipe of that name.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    bundled = bundled_recipes()
    if str(name) in bundled:
        return bundled[str(name)]
    if path.is_dir():
        raise ConfigError(f"{name} is a folder; a recipe is a YAML file")
    raise ConfigError(
        f"no recipe {str(name)!r}: it is neither a file nor a bundled recipe{nearest(str(name), bundled)}"
    )


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    full: bool = False,
    validate_files: bool = True,
) -> Recipe:
    """The recipe in `source` with `overrides`, validated; nothing else is loaded.

    Args:
        source: a YAML file, the name of a bundled recipe, or the recipe's values.
        overrides: "key.path=value" each, values as in YAML; they win over the file and its `full` section.
        full: lay the recipe's `full` section over the rest. The section is validated either way.
        validate_files: data and model files that are named must exist.

    Raises:
        ConfigError: one message with every fault found: file, line, key, what was expected and what arrived.
    """
    return load_as(
        Recipe, source, overrides, keys=_known_keys, missing=_missing_files if validate_files else None, full=full
    )


def load_as(
    kind: type[_Kind],
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    keys: Callable[[Key], list[str]],
    missing: Callable[[_Kind], list[tuple[Key, str]]] | None = None,
    full: bool = False,
) -> _Kind:
    """A recipe of another `kind` from `source`, as `load_recipe` reads one.

    Args:
        keys: the known keys of the section at a key.
        missing: files that are named and not there, by key; None: nothing is looked for.
    """
    raw = Source("recipe", source) if isinstance(source, Mapping) else read_yaml(find_recipe(source))
    name = {} if isinstance(source, Mapping) else {"name": find_recipe(source).stem}
    if full and "full" not in raw.values:
        raise ConfigError(f"{raw.name}: --full was asked for, and the recipe has no section `full`")
    recipe = None
    faults: dict[Key, str] = {}
    for apply in dict.fromkeys((full, "full" in raw.values)):
        variant = raw.with_section("full", apply=apply)
        for override in overrides:
            variant = variant.with_override(override)
        variant = replace(variant, values={**name, **variant.values})
        parsed, found = _validated(kind, variant, keys, missing)
        recipe = recipe or parsed
        faults = {**found, **faults}
    if faults:
        heading = f"{raw.name}: {len(faults)} fault{'s' if len(faults) > 1 else ''}; nothing was loaded"
        raise ConfigError("\n  ".join([heading, *(faults[key] for key in sorted(faults, key=raw.order))]))
    return recipe


def _validated(
    kind: type[_Kind],
    source: Source,
    keys: Callable[[Key], list[str]],
    missing: Callable[[_Kind], list[tuple[Key, str]]] | None,
) -> tuple[_Kind | None, dict[Key, str]]:
    """The recipe, or what is wrong by key, each with its place."""
    recipe, faults = None, []
    try:
        recipe = kind.model_validate(source.values)
        faults = [] if missing is None else missing(recipe)
    except ValidationError as err:
        faults = _faults(err, source.values, keys)
    told: dict[Key, str] = {}
    for key, words in faults:
        told.setdefault(key, ": ".join(filter(None, (source.place(key), dotted(key), words))))
    return recipe, told


_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz", ".txt", ".yaml")


def _missing_files(recipe: Recipe) -> list[tuple[Key, str]]:
    """Paths in the recipe that lead nowhere."""
    return not_there(
        [
            (("data", "train"), recipe.data.train),
            (("data", "eval"), recipe.data.eval),
            (("model",), recipe.model),
            *((("references", i, "model"), ref.model) for i, ref in enumerate(recipe.references)),
        ]
    )


def not_there(named: Iterable[tuple[Key, str | None]]) -> list[tuple[Key, str]]:
    """Of paths by key those that lead nowhere; what looks like a hub id is left alone."""
    return [
        (key, f"there is no file or folder {value!r}; paths start at the current folder")
        for key, value in named
        if value is not None
        and (value.startswith((".", "/", "~")) or value.endswith(_FILES))
        and not Path(value).expanduser().exists()
    ]
