"""A first recipe for somebody's data: a method that they can feed, and settings of the right size, each with a reason.

The numbers are starting points. Where one comes from a paper or a measurement, its comment says which; the others are
chosen by us, and their comments say so.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.cards import REQUIRED, Card, get_method, list_methods
from unipref.core.columns import DATA_REWARD
from unipref.core.errors import ConfigError, UniprefError, nearest
from unipref.core.records import Record
from unipref.data import DataReport, encode_records, limit_records, read_records, responses_of, split_records
from unipref.engine import BUNDLED, load_tokenizer, model_facts
from unipref.recipes._source import yaml_value
from unipref.recipes._written import Entry, Items, Part, Section, written
from unipref.recipes.config import Recipe, load_recipe
from unipref.recipes.fit import check_data

__all__ = ["Start", "next_steps", "run_name", "start_recipe"]

SAMPLE = 2000  # records whose tokens are counted, and that other methods are tried on
LENGTH = 1024  # data.max_length where no tokenizer could be asked
HELD_OUT = 500  # rows to judge on, where there are enough: a share of them is known to 4 points
STEPS = 100  # optimiser steps that the passes over the data should come to
LARGE = 10**9  # parameters from which adapters are proposed
BYTES = 16  # per parameter of full fine-tuning: weights, gradients and two moments of AdamW in float32


@dataclass(frozen=True)
class Start:
    """A recipe that was written, and what is to be told of it.

    Attributes:
        text: the YAML file.
        recipe: the same, validated.
        found: what the data have, one sentence each.
        why: the method, and why it was taken.
        notes: what could not be found out.
    """

    text: str
    recipe: Recipe
    found: tuple[str, ...]
    why: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Choice:
    """A method, the reason, and what the recipe needs besides."""

    method: str
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)
    operators: tuple[str, ...] = ()
    rating: str | None = None  # a column that an objective makes the reward of


@dataclass(frozen=True)
class _Model:
    """What is known of the model before it is loaded; None where it could not be asked."""

    name: str
    n_parameters: int | None = None
    positions: int | None = None
    adapter: bool = False
    tokenizer: Any = None


@dataclass(frozen=True)
class _Lengths:
    """Tokens of context and longest response, per record."""

    most: int  # 99 % of the records have no more
    longest: int
    response: int  # 95 % of the responses have no more
    n: int


def run_name(source: str) -> str:
    """A run's name for what is trained on `source`.

    Example:
        >>> run_name("bundled:hh-harmless"), run_name("data/My pairs.jsonl.gz"), run_name("org/name:test")
        ('hh-harmless', 'My-pairs', 'name')
    """
    stem = source.removeprefix("bundled:").rstrip("/").rsplit("/", 1)[-1].split(":")[0]
    stem = re.sub(r"\.(gz|jsonl|ndjson|json|csv|parquet|ya?ml)\b", "", stem)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", stem).strip("-._+") or "recipe"


def next_steps(file: str, folder: str) -> list[str]:
    """The commands to go on with, each with what it is for; `folder` is the run's."""
    width = len(f"unipref align {file} --dry-run")
    steps = (
        (f"unipref doctor {file}", "what is in the data, before anything is trained"),
        (f"unipref align {file} --dry-run", "steps, time and memory to expect"),
        (f"unipref align {file}", f"train, evaluate, write {folder}/report.html"),
    )
    return [f"  {command:<{width}}  {purpose}" for command, purpose in steps]


def start_recipe(
    data: str,
    *,
    model: str = BUNDLED,
    eval: str | None = None,
    method: str | None = None,
    goals: Sequence[str] = (),
    command: str = "unipref init",
    file: str = "recipe.yaml",
) -> Start:
    """A commented recipe that trains `model` on `data`, and fits them.

    Args:
        data, eval: as a recipe's `data.train` and `data.eval`.
        method: a method's key; by default one is chosen from what the data have.
        goals: scorers of the designer's own objectives, each KEY or KEY:option=value;option=value.
        command: what the user typed, and `file`, the recipe's own name: for its first lines.

    Raises:
        UniprefError: the data cannot be read, or do not have what the method needs.
    """
    designer = _designer(goals)
    records, report = read_records(data)
    choice = _chosen(records, report, goals=bool(goals)) if method is None else _given(method, records, report)
    if choice.rating is not None and not designer:
        scorer = {"scorer": "column", "options": {"column": choice.rating}, "normalise": "zscore"}
        designer = {choice.rating: {"weight": 1.0, **scorer}}
    train, heldout, share = _split(data, records, eval)
    known, notes = _asked(model)
    lengths, told = _counted(records, known)
    name = run_name(data)
    base, stages = _stages(choice, records, goals=bool(goals))
    parts: list[Part] = [
        Entry("name", name, f"the run folder is runs/{name}"),
        *_model_parts(known),
        _data_part(data, eval, share, len(heldout), lengths, known),
        *_designer_parts(designer),
        _train_part(base, len(train), known),
        *stages,
        _sampling_part(len(heldout), lengths),
    ]
    found = (report.describe(), *_described(records, report, choice))
    heading = [f"Written by `{command}`.", "Every line is yours to change; docs/recipe.md has all keys. Next:"]
    text = written([*heading, *next_steps(file, f"runs/{name}"), "", *found[1:]], parts)
    recipe = load_recipe(yaml_value(text, "the recipe"))
    check_data(recipe, _scored(records) if designer else records)
    return Start(text, recipe, found, choice.why, (*notes, *told))


# ---- what the data are, and which method they can feed ----


def _shape(record: Record) -> str:
    items = [record.items[i] for i in responses_of(record)]
    if record.comparisons:
        return "pairs"
    if any(item.label is not None for item in items):
        return "thumbs"
    if len(items) > 1:
        if sum(item.rank is not None for item in items) > 1:
            return "ranked lists"
        return "rated lists" if any(item.columns for item in items) else "lists that nobody judged"
    return "demonstrations" if items and items[0].response else "prompts"


def _shapes(records: Sequence[Record], report: DataReport) -> Counter[str]:
    if any(facts["format"] == "tree" for facts in report.sources.values()):
        return Counter({"trees of steps": len(records)})
    return Counter(map(_shape, records))


def _chosen(records: Sequence[Record], report: DataReport, *, goals: bool) -> _Choice:
    """The method that docs/choosing.md starts from, for the shape that most records have.

    Args:
        goals: the recipe's objectives make the reward, so a number in the data cannot be it too.
    """
    shape = _shapes(records, report).most_common(1)[0][0]
    if shape == "trees of steps":
        return _Choice(
            "step_dpo",
            "the rows are trees of steps: the operator tree_siblings makes a pair of every branching, and step_dpo "
            "compares the steps behind what both share (held-out rows are judged as they are: give pairs with --eval)",
            operators=("tree_siblings",),
        )
    if shape == "pairs":
        soft = sum(0 < c.preference < 1 for record in records for c in record.comparisons)
        if soft:
            return _Choice(
                "dpo",
                f"the rows are pairs, {soft:,} of them with soft labels (a probability or votes), which dpo reads as "
                "they are: its loss is the cross-entropy against them",
            )
        return _Choice("dpo", "the rows are pairs, one response better than the other")
    if shape == "ranked lists":
        return _Choice("pl_dpo", "the rows are lists in order, and pl_dpo is the likelihood of the whole order")
    if shape == "rated lists" and goals:
        return _Choice("dpo", "the rows are lists with numbers, which order them in pairs; the reward is of your goals")
    if shape == "rated lists":
        return _rated(records)
    if shape == "thumbs":
        return _thumbs(records)
    if shape == "demonstrations":
        if goals or any("reward" in item.columns for record in records for item in record.items):
            whose = "of your goals" if goals else "in the data"
            return _Choice("a_lol", f"the rows are single responses, with a reward {whose}: likelihood by advantage")
        return _Choice("sft", "the rows are single responses that nobody compared, so they can be imitated")
    raise ConfigError(
        f"most rows are {shape}: nothing in them says which response is better, and no method can train on that; give "
        "rows with `chosen` and `rejected`, with `label`, with `ranks` or `scores`, or with a `completion` to imitate"
    )


def _rated(records: Sequence[Record]) -> _Choice:
    columns = Counter(
        name for r in records for i in responses_of(r) for name, v in r.items[i].columns.items() if not math.isnan(v)
    )
    known = [name for name in ("reward", "score", "rating") if columns[name]]
    column = known[0] if known else columns.most_common(1)[0][0]
    why = (
        f"the rows are lists with a number for each response (`{column}`), and rpo fits the differences of all of them"
    )
    if column != "reward":
        why += "; an objective makes the reward of it, to mean 0 and deviation 1"
    return _Choice("rpo", why, {"unit": "group"}, rating=None if column == "reward" else column)


def _thumbs(records: Sequence[Record]) -> _Choice:
    labels = Counter(item.label for record in records for item in record.items if item.label is not None)
    up, down = labels[True], labels[False]
    if not down:
        return _Choice("sft", f"all {up:,} thumbs point up, so there is nothing to push away from; sft imitates them")
    if not up:
        return _Choice(
            "pmpo", f"all {down:,} thumbs point down, and pmpo lowers their likelihood, held by a divergence (see beta)"
        )
    options = {"beta": 0.1, "lambda_d": round(max(1.0, down / up), 2), "lambda_u": round(max(1.0, up / down), 2)}
    return _Choice("kto", f"the rows are thumbs on single responses: {up:,} up, {down:,} down", options)


def _given(method: str, records: Sequence[Record], report: DataReport) -> _Choice:
    """The method the user named, with what the shape of the data asks for besides."""
    card = get_method(method)
    lacking = [name for name, default in card.options.items() if default == REQUIRED]
    if lacking:
        raise ConfigError(
            f"{method} needs the option {lacking[0]!r}, which init cannot guess; see unipref methods {method}"
        )
    own = _shapes(records, report).most_common(1)[0][0]
    found = _Choice(method, "you named it with --method")
    if own == "trees of steps" and card.kind == "objective":
        return replace(found, operators=("tree_siblings",))
    if own == "rated lists" and "reward" in card.needs:
        return replace(found, rating=_rated(records).rating)
    if own == "thumbs" and method == "kto":
        return replace(found, options=_thumbs(records).options)
    return found


def _described(records: Sequence[Record], report: DataReport, choice: _Choice) -> list[str]:
    """What else a user should know of the data: shapes, domains, and columns that other methods read."""
    shapes = _shapes(records, report)
    told = [
        "Found " + ", ".join(f"{n:,} {shape}" for shape, n in shapes.most_common()) + f"; format {_formats(report)}."
    ]
    if len(shapes) > 1:
        told.append("The method is the one for the first of these; it uses of the others what it can.")
    domains = Counter(record.domain for record in records if record.domain is not None)
    if domains:
        more = f" and {len(domains) - 5} more" if len(domains) > 5 else ""
        told.append("Domains: " + ", ".join(f"{name} {n:,}" for name, n in domains.most_common(5)) + more + ".")
    told.append(f"Method {choice.method}: {choice.why}.")
    for methods, columns in _alternatives(records, choice).items():
        names = ", ".join(methods[:4]) + (f" and {len(methods) - 4} more" if len(methods) > 4 else "")
        told.append(f"The data also have {', '.join(f'`{name}`' for name in columns)}, read by {names}.")
    return told


def _formats(report: DataReport) -> str:
    return ", ".join(dict.fromkeys(str(facts["format"]) for facts in report.sources.values()))


def _alternatives(records: Sequence[Record], choice: _Choice) -> dict[tuple[str, ...], list[str]]:
    """Columns that the chosen method leaves unread, by the methods whose card asks for them and that the data feed."""
    some, _ = limit_records(records, SAMPLE // 10)
    items = [item for record in some for item in record.items]
    there = {name for item in items for name, value in item.columns.items() if not math.isnan(value)}
    there |= {item.role for item in items if item.role != "response"}
    there |= {"segment_score"} if any(not math.isnan(span.score) for item in items for span in item.spans) else set()
    there -= {*get_method(choice.method).needs, choice.rating}
    readers: dict[str, list[str]] = {}
    for card in list_methods("objective"):
        columns = sorted(set(card.needs) & there)
        if columns and _feeds(card, choice, some):
            for column in columns:
                readers.setdefault(column, []).append(card.key)
    found: dict[tuple[str, ...], list[str]] = {}
    for column, methods in sorted(readers.items()):
        found.setdefault(tuple(methods), []).append(column)
    return found


def _feeds(card: Card, choice: _Choice, records: Sequence[Record]) -> bool:
    stage = {"method": card.key, "operators": list(choice.operators)}
    try:
        recipe = load_recipe({"model": "model", "data": {"train": "data"}, "stages": [stage]}, validate_files=False)
        check_data(recipe, records)
    except UniprefError:
        return False
    return True


# ---- the designer's goals ----


def _designer(goals: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The recipe's `objectives` for the scorers in `goals`, of equal weights."""
    import unipref.rewards  # noqa: F401 (fills the registry)

    known = [card.key for card in list_methods("scorer")]
    found: dict[str, dict[str, Any]] = {}
    for goal in goals:
        key, _, settings = goal.partition(":")
        if key not in known:
            raise ConfigError(f"--goal {goal}: no scorer named {key!r}{nearest(key, known)}")
        card, options = get_method(key), {}
        for setting in filter(None, (each.strip() for each in settings.split(";"))):
            name, equals, value = setting.partition("=")
            if not equals or name not in card.options:
                raise ConfigError(
                    f"--goal {goal}: expected {key}:option=value;option=value, got {setting!r}; the options of {key} "
                    f"are {', '.join(card.options)}"
                )
            options[name] = yaml_value(value, f"--goal {goal}")
        lacking = [name for name, default in card.options.items() if default == REQUIRED and name not in options]
        if lacking:
            raise ConfigError(f"--goal {goal}: {key} needs {lacking[0]}; give it as --goal '{key}:{lacking[0]}=...'")
        name = next(n for n in (key, *(f"{key}_{i}" for i in range(2, 100))) if n not in found)
        found[name] = {"scorer": key, "weight": round(1 / len(goals), 3), "options": options}
    return found


def _designer_parts(designer: Mapping[str, Mapping[str, Any]]) -> list[Part]:
    if not designer:
        return []
    sections = []
    for name, objective in designer.items():
        card = get_method(objective["scorer"], "scorer")
        given = objective["options"]
        plain = {n: v for n, v in card.options.items() if n not in given and isinstance(v, bool | int | float | str)}
        entries = [
            Entry("scorer", card.key, f"{card.title.rstrip('.')}; see unipref methods {card.key}"),
            Entry("weight", objective["weight"], "its share in the reward; negative: less is better"),
        ]
        entries += [Entry("options", {**given, **plain})] if given or plain else []
        if "normalise" in objective:
            entries.append(Entry("normalise", objective["normalise"], "training responses have mean 0 and deviation 1"))
        sections.append(Section(name, entries))
    return [
        Section("objectives", sections, "Your own goals. Their weighted sum is the reward of a response."),
        Entry("missing_rewards", "renormalise", "where one cannot score a response, the others count for it"),
    ]


def _scored(records: Sequence[Record]) -> list[Record]:
    """The records as if the objectives had scored them: whether they fit the method is asked before scorers are run."""

    def scored(columns: Mapping[str, float]) -> dict[str, float]:
        before = {DATA_REWARD: columns["reward"]} if "reward" in columns else {}
        return {**columns, **before, "reward": 0.0}

    return [
        replace(record, items=tuple(replace(item, columns=scored(item.columns)) for item in record.items))
        for record in records
    ]


# ---- sizes ----


def _split(data: str, records: Sequence[Record], eval: str | None) -> tuple[list[Record], list[Record], float | None]:
    """Training rows, held-out rows and the share of conversations that are held out (None with data of their own)."""
    if eval is not None:
        heldout, _ = read_records(eval)
        inside = {record.conversation for record in heldout}
        return [record for record in records if record.conversation not in inside], heldout, None
    usual = min(0.2, max(0.02, math.ceil(100 * HELD_OUT / len(records)) / 100))
    for share in (usual, 0.3, 0.5):
        train, heldout = split_records(records, share=share)
        if train and heldout:
            return train, heldout, share
    raise ConfigError(
        f"{data}: {len(records)} row{'s' if len(records) > 1 else ''} of too few conversations to hold some out and "
        "train on the others; give more rows, or held-out ones with --eval FILE"
    )


def _asked(model: str) -> tuple[_Model, list[str]]:
    try:
        facts = model_facts(model)
    except ConfigError as err:
        if Path(model).expanduser().exists() or model == BUNDLED:
            raise
        return _Model(model), [f"{err}. Learning rate, adapters and max_length are guesses until it can be read."]
    found = _Model(model, facts.n_parameters, facts.positions, facts.adapter)
    try:
        return replace(found, tokenizer=load_tokenizer(model)), []
    except ConfigError as err:
        return found, [f"{err}. max_length is a guess until it can be loaded."]


def _counted(records: Sequence[Record], model: _Model) -> tuple[_Lengths | None, list[str]]:
    if model.tokenizer is None:
        return None, []
    some, _ = limit_records(records, SAMPLE)
    try:
        encoded, _ = encode_records(some, model.tokenizer)
    except UniprefError as err:
        return None, [f"Tokens could not be counted: {err}. Training would stop at the same place."]
    whole = [max(len(one.trie.path(i)) for i in range(len(one.record.items))) for one in encoded]
    responses = [n for one in encoded for n in one.n_response]
    most, response = np.percentile(whole, 99), np.percentile(responses, 95)
    return _Lengths(math.ceil(most), max(whole), math.ceil(response), len(whole)), []


def _up(number: float, to: int) -> int:
    return to * math.ceil(number / to)


# ---- the sections ----


def _model_parts(model: _Model) -> list[Part]:
    n = model.n_parameters
    if model.name == BUNDLED:
        says = f"a toy of {n / 1e6:.1f} million parameters, to try things out: put a hub id or a folder here"
    elif n is None:
        says = "its size could not be read when this was written"
    else:
        says = f"{n / 1e9:.2f} billion parameters" if n >= 1e9 else f"{n / 1e6:,.0f} million parameters"
    parts: list[Part] = [Entry("model", model.name, says)]
    if n is not None and n >= LARGE and not model.adapter:
        entries = [
            Entry("r", 16, "rank: more learns more and takes more memory; 8 to 64 are usual"),
            Entry("alpha", 32.0, "scale: the adapter counts alpha / r"),
            Entry("merge", True, "write the merged model; false writes the adapter alone"),
        ]
        says = (
            f"Low-rank adapters: training all {n / 1e9:.1f} billion weights takes about {BYTES * n / 1e9:,.0f} GB "
            f"before activations ({BYTES} bytes each). `lora: null` trains all of them."
        )
        parts.append(Section("model_options", [Section("lora", entries)], says))
    return parts


def _data_part(
    data: str, eval: str | None, share: float | None, n_heldout: int, lengths: _Lengths | None, model: _Model
) -> Section:
    entries: list[Part] = [Entry("train", data)]
    count = f"{n_heldout:,} row{'s' if n_heldout > 1 else ''}"
    rows = f"{count}, on which accuracy is known to ±{_half_width(n_heldout)} points"
    if share is None:
        entries.append(Entry("eval", eval, rows))
    else:
        entries.append(Entry("eval_share", share, f"share of conversations held out: {rows}"))
    if lengths is None:
        says = "a guess: the tokenizer could not be asked. Tokens of prompt and response together; longer ones are cut"
        entries.append(Entry("max_length", LENGTH, says))
        return Section("data", entries)
    length = _up(lengths.most, 64)
    of = f"99 % of {lengths.n:,} rows have at most {lengths.most:,} tokens, the longest {lengths.longest:,}"
    says = f"tokens of prompt and response together, longer ones are cut and counted; {of}"
    if model.positions is not None and length > model.positions:
        length, says = model.positions, f"the most that the model was made for; {of}"
    return Section("data", [*entries, Entry("max_length", length, says)])


def _half_width(n: int) -> str:
    """Half the widest 95 % interval of a share of `n` rows, in points.

    Example:
        >>> _half_width(500)  # 1.96 * sqrt(1 / 4 / 500)
        '4.4'
    """
    return f"{100 * 1.96 * math.sqrt(0.25 / n):.1f}"


def _train_part(method: str, n_train: int, model: _Model) -> Section:
    rate, says = _learning_rate(method, model)
    batch = next((size for size in (128, 64, 32, 16) if n_train >= STEPS * size), 8)
    batch = min(batch, n_train)
    steps = math.ceil(n_train / batch)
    epochs = min(3, math.ceil(STEPS / steps))
    large = model.n_parameters is not None and model.n_parameters >= LARGE
    return Section(
        "train",
        [
            Entry("learning_rate", rate, says),
            Entry("batch_size", batch, f"records per step: {steps * epochs:,} steps in all. Papers took 64 to 128"),
            Entry("epochs", float(epochs), "passes over the data; more than 3 rarely helps and often overfits"),
            Entry("warmup_share", 0.1, "share of the steps in which the learning rate rises"),
            Entry("schedule", "cosine", "how it falls afterwards: cosine, linear or constant"),
            Entry("max_tokens_per_forward", 8192, "halve it when memory runs out; what is learned stays the same"),
            Entry("gradient_checkpointing", large, "true: less memory, about a third more time"),
        ],
    )


def _learning_rate(method: str, model: _Model) -> tuple[float, str]:
    """A peak rate and its source. Tuning it matters more than the choice of method (docs/choosing.md)."""
    likelihood = 10.0 if method == "sft" else 1.0  # imitation bears more; chosen by us
    tune = "try a third of it and three times it: `unipref compare` does"
    n = model.n_parameters
    if n is None:
        return 1e-6 * likelihood, f"for a model of some billion parameters; small ones take more; {tune}"
    if n < 50e6:
        return 2e-4, f"as in the quickstart, for a model of this size; {tune}"
    if n < LARGE:
        return 5e-6 * likelihood, f"chosen by us for models below a billion parameters; {tune}"
    if not model.adapter and n >= LARGE:
        return 1e-5 * likelihood, (
            "for adapters, ten times what all weights take (DPO's paper 1e-6, arXiv:2305.18290; Tulu 3 5e-7, "
            f"arXiv:2411.15124); {tune}"
        )
    return 1e-5 * likelihood, f"for an adapter; {tune}"


def _stages(choice: _Choice, records: Sequence[Record], *, goals: bool) -> tuple[str, list[Part]]:
    """The method whose learning rate counts, and the recipe's `stages`, or with goals its `runs` and `controls`."""
    card = get_method(choice.method)
    if not goals or (choice.method != "upo" and "reward" in card.needs):
        return choice.method, [Items("stages", [_stage(choice.method, choice)])]
    base = choice
    if choice.method == "upo":
        base = _Choice("dpo", "") if any(record.comparisons for record in records) else _Choice("kto", "")
    given = {"base": base.method} | ({"base_options": dict(base.options)} if base.options else {})
    below = f"upo_{base.method}"
    runs = [
        Items(base.method, [_stage(base.method, base)], "people's labels alone"),
        Items(
            "control",
            [[Entry("method", "upo"), Entry("options", {**given, "lam": 0.0}), *_operators(base)]],
            "what UPO does without looking at the reward: its gains are to be measured against this",
        ),
        Items(
            below,
            [[Entry("method", "upo"), Section("options", _upo_options(given)), *_operators(base)]],
            "labels and your goals",
        ),
    ]
    controls = Section("controls", [Entry(below, ["control", base.method]), Entry("control", base.method)])
    return base.method, [Section("runs", runs), replace(controls, says="which runs are compared in the report")]


def _upo_options(given: Mapping[str, Any]) -> list[Part]:
    return [
        *(Entry(name, value) for name, value in given.items()),
        Entry("gamma", 0.5, "how much your goals count beside the labels; 0 leaves them out"),
        Entry("lam", 5.0, "how sharply better responses are preferred; 0 imitates all alike"),
    ]


def _stage(method: str, choice: _Choice) -> list[Part]:
    card = get_method(method)
    shown = dict(choice.options)
    shown |= {name: v for name, v in card.options.items() if name == "beta" and name not in shown}
    shown |= {
        name: value
        for name, value in card.options.items()
        if name not in shown and isinstance(value, float) and not choice.options
    }
    entries = [Entry(name, value, _meaning(card, name)) for name, value in shown.items()]
    parts: list[Part] = [Entry("method", method, f"{card.title.rstrip('.')}; see unipref methods {method}")]
    parts += [Section("options", entries)] if entries else []
    return [*parts, *_operators(choice)]


def _operators(choice: _Choice) -> list[Part]:
    return [Entry("operators", list(choice.operators))] if choice.operators else []


def _meaning(card: Card, name: str) -> str:
    if name == "beta" and "ref_logp" in card.needs and "len" not in card.needs:
        return "smaller lets the model move further from where it starts; 0.01 to 0.5 are usual"
    if card.key == "kto" and name in ("lambda_d", "lambda_u"):
        return f"weight of thumbs {'up' if name == 'lambda_d' else 'down'}: both sides then count alike"
    return card.meanings.get(name, "")


def _sampling_part(n_heldout: int, lengths: _Lengths | None) -> Section:
    length = 128 if lengths is None else min(512, max(32, _up(lengths.response, 32)))
    says = "longest answer in tokens"
    says += "" if lengths is None else f"; 95 % of the responses have at most {lengths.response:,}"
    return Section(
        "sampling",
        [
            Entry("prompts", min(64, n_heldout), "held-out prompts that the trained models answer for the report"),
            Entry("max_new_tokens", length, says),
        ],
    )
