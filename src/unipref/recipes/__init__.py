"""Named runs as functions of a validated recipe.

What reads and checks recipes is here; `unipref.recipes.align` holds the main job, which imports transformers.
"""

from unipref.recipes.config import (
    Bounds,
    DataOptions,
    DesignerObjective,
    Lora,
    ModelOptions,
    Recipe,
    Reference,
    Sampling,
    Stage,
    TrainOptions,
    bundled_recipes,
    find_recipe,
    load_recipe,
)

__all__ = [
    "Bounds",
    "DataOptions",
    "DesignerObjective",
    "Lora",
    "ModelOptions",
    "Recipe",
    "Reference",
    "Sampling",
    "Stage",
    "TrainOptions",
    "bundled_recipes",
    "find_recipe",
    "load_recipe",
]
