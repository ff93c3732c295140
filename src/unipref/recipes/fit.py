"""Whether data have what a stage trains on, asked before any model is loaded."""

import math
from collections.abc import Sequence

from unipref.core.columns import how_to_make
from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Record
from unipref.data import PARTNER_COLUMNS, TOKEN_COLUMNS, responses_of
from unipref.objectives import HEADS, as_objective
from unipref.recipes.config import Recipe, Stage
from unipref.recipes.stage import live_reference, prepare

__all__ = ["check_data", "check_stage"]

_KNOWN = frozenset({"len", "weight", "group", "role", "preference", "margin", "uid", "embedding", *HEADS})


def check_data(recipe: Recipe, records: Sequence[Record]) -> None:
    """Refuse a recipe that asks `records` for something they do not have.

    Raises:
        ConfigError: the message names the stage, what its method needs, and how to make it.
    """
    seen: list[Stage] = []
    for stages in recipe.run_plan().values():
        for stage in stages:
            if stage not in seen:
                seen.append(stage)
                check_stage(recipe, stage, records)


def check_stage(recipe: Recipe, stage: Stage, records: Sequence[Record]) -> int:
    """How many records `stage` trains on, of `records`.

    Raises:
        ConfigError: as for `check_data`.
    """
    objective = as_objective(stage.composition.objective)
    name = stage.method
    live_reference(recipe, objective)
    try:
        prepared, reports = prepare(stage, records)
    except DataError as err:
        raise ConfigError(f"{name}: {err}") from err
    if not prepared:
        lost = [pair for report in reports.values() for pair in {**report.counts, **report.left_out}.items()]
        why = "; ".join(f"{count:,} x {reason}" for reason, count in lost)
        raise ConfigError(f"{name}: none of the {len(records)} training records is left for it to train on ({why})")
    lists = any(len(responses_of(record)) > 1 for record in prepared)
    if objective.unit_needs == "group" and not lists:
        raise ConfigError(
            f"{name} compares the responses of a record, and no training record holds two; give rows with `responses`, "
            "or use sft for demonstrations"
        )
    present = _present(prepared)
    needed = {n for n in objective.needs - _KNOWN if not n.startswith(("ref_logp", "kl_"))}
    needed |= set(objective.roles) | (objective.token_needs & frozenset(TOKEN_COLUMNS))
    missing = sorted(needed - present)
    if missing:
        told = "; ".join(f"`{column}`: {how_to_make(column)}" for column in missing)
        raise ConfigError(f"{name} needs {told}; or use another method, such as dpo")
    return len(prepared)


def _present(records: Sequence[Record]) -> set[str]:
    """What some record has: columns, roles of texts, and what follows from comparisons and segments."""
    items = [item for record in records for item in record.items]
    comparisons = [c for record in records for c in record.comparisons]
    found = {item.role for item in items}
    found |= {column for item in items for column, value in item.columns.items() if not math.isnan(value)}
    facts = {
        "rank": any(item.rank is not None for item in items),
        "label": any(item.label is not None for item in items) or any(c.preference != 0.5 for c in comparisons),
        "segment": any(item.spans for item in items),
        "segment_score": any(not math.isnan(span.score) for item in items for span in item.spans),
        **dict.fromkeys(PARTNER_COLUMNS, bool(comparisons)),
    }
    return found | {name for name, there in facts.items() if there}
