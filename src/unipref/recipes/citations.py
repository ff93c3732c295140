"""What a run rests on: the sources of everything that its stages and scorers use."""

from collections.abc import Iterable, Iterator

from unipref.core.cards import UNIPREF, Card, bibtex, get_method
from unipref.recipes.config import DesignerObjective, Recipe, ScorerChoice, Stage
from unipref.rewards.trained import method_of

__all__ = ["bibliography", "keys_used"]


def bibliography(recipe: Recipe, stages: Iterable[Stage] | None = None) -> str:
    """BibTeX of unipref and of what `stages` (None: all stages of the recipe) and the recipe's scorers use."""
    return bibtex([UNIPREF, *map(get_method, keys_used(recipe, stages)), *_fitted(recipe)])


def keys_used(recipe: Recipe, stages: Iterable[Stage] | None = None) -> list[str]:
    """Keys of the stages' methods, of what these build upon by name, of operators and of scorers, each once."""
    if stages is None:
        stages = (stage for run in recipe.run_plan().values() for stage in run)
    scorers = (each.scorer for each in _scorers(recipe))
    return list(dict.fromkeys([*(key for stage in stages for key in _of_stage(stage)), *scorers]))


def _scorers(recipe: Recipe) -> list[DesignerObjective | ScorerChoice]:
    labels = [] if recipe.collect is None else [recipe.collect.label]
    return [*recipe.objectives.values(), *labels, *recipe.judges.values()]


def _fitted(recipe: Recipe) -> Iterator[Card]:
    """Cards of the preference models that scorers of the recipe read from folders."""
    for each in _scorers(recipe):
        if each.scorer == "preference_model":
            yield get_method(method_of(each.options["model"]), "reward")


def _of_stage(stage: Stage) -> Iterator[str]:
    yield stage.method
    base = {**get_method(stage.method).options, **stage.options}.get("base")
    if isinstance(base, str):
        yield base
    yield from (each.operator for each in stage.operators)
