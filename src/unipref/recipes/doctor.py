"""The doctor: data and recipes are looked at before anything is trained on them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from unipref.core.errors import ConfigError
from unipref.core.findings import Examination, Finding, TokenRow
from unipref.core.io import write_json
from unipref.core.records import Record
from unipref.data import CHECKS, examine_records, examine_tokens, read_records
from unipref.objectives import as_objective
from unipref.recipes._recipe_checks import RECIPE_CHECKS, WAITS, LoadedModel, check_recipe, load, waits
from unipref.recipes._run import RunData, quiet_transformers, read_data
from unipref.recipes.config import DataOptions, Recipe

__all__ = ["DOCTOR", "all_checks", "before_training", "examine_data", "examine_recipe", "refuse"]

DOCTOR = "doctor.json"  # what was found, in the run folder
MOST_WARNINGS = 5  # lines before training; the rest is counted
MOST_PLACES = 3
_OF_PROMPTS = frozenset({"rows-set-aside", "unused-columns", "media", "eval-overlap", "eval-near-overlap"})
_NO_MODEL = LoadedModel(fault="no model was named; give --model to look at the tokens")

Facts = dict[str, dict[str, Any]]


def all_checks() -> dict[str, str]:
    """Every check by its code, with what it asks."""
    return {**CHECKS, **RECIPE_CHECKS}


def examine_data(
    source: Any,
    *,
    model: str | None = None,
    evaluation: Any = None,
    max_length: int = DataOptions.model_fields["max_length"].default,
    format: str = "auto",
    trust_remote_code: bool = False,
) -> Examination:
    """What is found in the rows of `source` and, with a model, in their tokens.

    Args:
        source, format: as for `unipref.data.read_records`.
        model: whose tokenizer and chat template will be used; None leaves the questions about tokens open.
        evaluation: data that will be evaluated on, to be held against `source`.
        max_length: tokens of context and response that training would keep.

    Raises:
        DataError: no row can be read.
        ConfigError: the model is not there.
    """
    records, report = read_records(source, format=format)
    heldout = None if evaluation is None else read_records(evaluation, format=format)[0]
    with quiet_transformers():
        loaded = _NO_MODEL if model is None else load(model, trust_remote_code=trust_remote_code)
        if model is not None and loaded.tokenizer is None:
            raise ConfigError(loaded.fault)
        name = str(source) if isinstance(source, str | Path) else "rows in memory"
        name += "" if model is None else f", with the tokenizer of {model}"
        found = Examination(name, questions=CHECKS)
        _records(found, records, report, heldout, loaded, max_length)
    return found


def examine_recipe(recipe: Recipe, data: RunData | None = None, *, subject: str = "") -> Examination:
    """What is found in the rows that `recipe` trains on, in their tokens, and in what it asks of them.

    The weights of no model are loaded.

    Args:
        data: the recipe's records, where they are read already.
        subject: what messages call the recipe; default: its name.

    Raises:
        DataError: no row can be read.
        ConfigError: nothing is left to train on or to hold out.
    """
    fault = ""
    if data is None:
        data, fault = _read(recipe)
    with quiet_transformers():
        loaded = load(recipe.model, trust_remote_code=recipe.model_options.trust_remote_code)
        subject = subject or recipe.name
        if data.stream is not None:
            subject += f" (of its training records a sample, {len(data.train):,} of {data.n_train:,})"
        found = Examination(subject, accepted=recipe.data.accept, questions=all_checks())
        records = [*data.train, *data.validation]
        if waits(recipe, data):
            _prompts(found, records, data)
        else:
            _records(found, records, data.read, data.heldout, loaded, recipe.data.max_length)
            found.findings = [_for_methods(finding, recipe) for finding in found.findings]
        found.findings += check_recipe(recipe, data, loaded, designer_fault=fault)
    return found


def _for_methods(finding: Finding, recipe: Recipe) -> Finding:
    """`finding`, no error where none of the recipe's methods minds it: labels of one kind are demonstrations to sft."""
    if finding.code != "one-sided" or finding.level != "error":
        return finding
    stages = [stage for stages in recipe.run_plan().values() for stage in stages]
    for objective in (as_objective(stage.composition.objective) for stage in stages):
        # beside a divergence that is computed whole, labels of one kind have a best policy of their own
        if objective.unit_needs != "point" or ("label" in objective.needs and not objective.computed):
            return finding
    return replace(finding, level="note", advice="the methods of this recipe take them as they are")


def _read(recipe: Recipe) -> tuple[RunData, str]:
    """The records of `recipe`, and why its objectives could not score them, if they could not."""
    try:
        return read_data(recipe, None, None), ""
    except ConfigError as err:
        if not recipe.objectives:
            raise
        fault = str(err)
    return read_data(recipe.model_copy(update={"objectives": {}}), None, None), fault


def _records(
    found: Examination,
    records: Sequence[Record],
    report: Any,
    heldout: Sequence[Record] | None,
    model: LoadedModel,
    max_length: int,
) -> None:
    findings, facts = examine_records(records, report, heldout=heldout)
    asked = {finding.code for finding in findings}
    tokens, token_facts, rows = _tokens([code for code in CHECKS if code not in asked], records, model, max_length)
    found.findings += [*findings, *tokens]
    found.facts |= {**facts, **token_facts}
    found.tokens += rows


def _prompts(found: Examination, records: Sequence[Record], data: RunData) -> None:
    """Of prompts whose answers are still to be written, only what prompts have."""
    findings, _ = examine_records(records, data.read, heldout=data.heldout)
    asked = {finding.code: finding for finding in findings if finding.code in _OF_PROMPTS}
    found.findings += [asked.get(code, Finding(code, "not_checked", WAITS)) for code in CHECKS]


def _tokens(
    codes: Sequence[str], records: Sequence[Record], model: LoadedModel, max_length: int
) -> tuple[list[Finding], Facts, list[TokenRow]]:
    if model.tokenizer is None:
        return [Finding(code, "not_checked", model.fault) for code in codes], {}, []
    stops = () if model.facts is None else model.facts.stop_ids
    return examine_tokens(records, model.tokenizer, max_length=max_length, stop_ids=stops)


# ---- before training ----


def before_training(recipe: Recipe, data: RunData, folder: Path, console: Console | None) -> None:
    """Examine `recipe`, write what was found into `folder`, and say the warnings.

    Raises:
        ConfigError: training would be wrong, and the recipe does not accept it.
    """
    found = examine_recipe(recipe, data)
    write_json(folder / DOCTOR, found.to_dict())
    refuse(found)
    if console is not None:
        for line in _lines(found):
            console.print(line, highlight=False)


def refuse(found: Examination) -> None:
    """Raise ConfigError where training would be wrong; the message names each reason and the two ways on."""
    errors = found.errors
    if not errors:
        return
    reasons = [
        f"{one.code}: {one.says}"
        + (f" ({', '.join(one.places[:MOST_PLACES])})" if one.places else "")
        + (f"; {one.advice}" if one.advice else "")
        for one in errors
    ]
    codes = ", ".join(finding.code for finding in errors)
    n = f"{len(errors)} reason{'s' * (len(errors) > 1)} why"
    raise ConfigError(
        "\n  ".join([f"{found.subject}: {n} training would be wrong; nothing was trained", *reasons])
        + "\nMend the data or the recipe (`unipref doctor RECIPE --html doctor.html` shows the rows), or train in "
        f"spite of it: data: {{accept: [{codes}]}}"
    )


def _lines(found: Examination) -> list[Text]:
    """What is said before training: accepted errors and warnings, a line each, and how many there are."""
    accepted = [f for f in found.findings if f.level == "error"]
    warnings = [f for f in found.findings if f.level == "warning"]
    lines = [Text.assemble(("accepted", "bold red"), f" {f.code}: {f.says}") for f in accepted]
    lines += [Text.assemble(("warning", "bold yellow"), f" {f.code}: {f.says}") for f in warnings[:MOST_WARNINGS]]
    n_notes = sum(f.level == "note" for f in found.findings)
    more = len(warnings) - MOST_WARNINGS
    rest = [f"{more} more warnings"] if more > 0 else []
    rest += [f"{n_notes} note{'s' * (n_notes > 1)}"] if n_notes else []
    told = f"{', '.join(rest)} in {DOCTOR}" if rest else f"all in {DOCTOR}"
    n = len(found.findings)
    return [*lines, Text(f"doctor: {n} checks, {len(accepted) + len(warnings)} to look at; {told}.")]
