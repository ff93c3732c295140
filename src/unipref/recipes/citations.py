"""What a run rests on: the sources of everything that its stages and scorers use."""

from collections.abc import Iterable, Iterator

from unipref.core.cards import UNIPREF, bibtex, get_method
from unipref.recipes.config import Recipe, Stage

__all__ = ["bibliography", "keys_used"]


def bibliography(recipe: Recipe, stages: Iterable[Stage] | None = None) -> str:
    """BibTeX of unipref and of what `stages` (None: all stages of the recipe) and the recipe's scorers use."""
    return bibtex([UNIPREF, *map(get_method, keys_used(recipe, stages))])


def keys_used(recipe: Recipe, stages: Iterable[Stage] | None = None) -> list[str]:
    """Keys of the stages' methods, of what these build upon by name, of operators and of scorers, each once."""
    if stages is None:
        stages = (stage for run in recipe.run_plan().values() for stage in run)
    labels = [] if recipe.collect is None else [recipe.collect.label]
    scorers = (each.scorer for each in (*recipe.objectives.values(), *labels, *recipe.judges.values()))
    return list(dict.fromkeys([*(key for stage in stages for key in _of_stage(stage)), *scorers]))


def _of_stage(stage: Stage) -> Iterator[str]:
    yield stage.method
    base = {**get_method(stage.method).options, **stage.options}.get("base")
    if isinstance(base, str):
        yield base
    yield from (each.operator for each in stage.operators)
