"""What a stage makes of records before it trains on them."""

from collections.abc import Iterator

from unipref.data import PARTNER_COLUMNS, Operator, as_pairs, chosen_only, one_pair_each
from unipref.objectives import Objective, as_objective, point
from unipref.recipes.config import Stage

__all__ = ["changes"]


def changes(stage: Stage) -> Iterator[tuple[str, Operator]]:
    """What makes of records those that `stage` trains on, in order and by name: its operators, then the form that its
    objective compares."""
    for i, operator in enumerate(stage.composition.operators):
        yield f"{i + 1}. {operator!r}", operator
    objective = as_objective(stage.composition.objective)
    if _imitates(objective):
        yield "chosen_only", chosen_only
    elif objective.unit_needs == "pair":
        yield "as_pairs", as_pairs
        if objective.token_needs & PARTNER_COLUMNS:
            yield "one_pair_each", one_pair_each


def _imitates(objective: Objective) -> bool:
    """Whether all that the objective does is to raise the likelihood of demonstrations."""
    return all(isinstance(term.unit, point) and term.unit.of == "demonstrations" for term in objective.terms)
