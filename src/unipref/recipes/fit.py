"""Whether data have what a stage trains on, asked before any model is loaded."""

from collections.abc import Sequence

from unipref.core.columns import how_to_make
from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Record
from unipref.objectives import HEADS, as_objective
from unipref.recipes.config import Recipe, Stage
from unipref.recipes.stage import prepare

__all__ = ["check_data"]

_KNOWN = frozenset({"len", "label", "weight", "group", "role", "preference", "margin", "uid", "embedding", *HEADS})
_SPANS = frozenset({"segment", "segment_score"})


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
                _check(stage, records)


def _check(stage: Stage, records: Sequence[Record]) -> None:
    objective = as_objective(stage.composition.objective)
    name = stage.method
    try:
        prepared, _ = prepare(stage, records)
    except DataError as err:
        raise ConfigError(f"{name}: {err}") from err
    if not prepared:
        raise ConfigError(f"{name}: none of the {len(records)} training records is left for it to train on")
    items = [item for record in prepared for item in record.items]
    lists = any(sum(item.role == "response" for item in record.items) > 1 for record in prepared)
    if objective.unit_needs == "group" and not lists:
        raise ConfigError(
            f"{name} compares the responses of a record, and no training record holds two; give rows with `responses`, "
            "or use sft for demonstrations"
        )
    roles = {item.role for item in items}
    spans = any(item.spans for item in items)
    present = {column for item in items for column in item.columns} | (
        {"rank"} if any(item.rank is not None for item in items) else set()
    )
    missing = [column for column in objective.needs - _KNOWN - present if not column.startswith(("ref_logp", "kl_"))]
    missing += [role for role in objective.roles if role not in roles]
    missing += [column for column in objective.token_needs & _SPANS if not spans]
    if missing:
        column = min(missing)
        raise ConfigError(f"{name} needs `{column}`: {how_to_make(column)}; or use another method, such as dpo")
