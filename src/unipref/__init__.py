"""Unified preference optimization for language models.

The main job from Python is `unipref.align(unipref.load_recipe("recipe.yaml"))`; its parts are here by name, each
imported when it is first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "Example": "unipref.training",
    "Policy": "unipref.engine",
    "PreferenceTrainer": "unipref.training",
    "Recipe": "unipref.recipes",
    "align": "unipref.recipes.align",
    "as_objective": "unipref.objectives",
    "cache_references": "unipref.training",
    "encode_records": "unipref.data",
    "generate": "unipref.sampling",
    "get_method": "unipref.objectives",
    "list_methods": "unipref.objectives",
    "load_model": "unipref.engine",
    "load_recipe": "unipref.recipes",
    "load_tokenizer": "unipref.engine",
    "make_scorer": "unipref.rewards",
    "read_records": "unipref.data",
    "split_records": "unipref.data",
}
_ROOMS = ("core", "data", "engine", "evaluate", "features", "objectives", "recipes", "report", "rewards", "sampling",
          "store", "training")  # fmt: skip

__all__ = ["__version__", *sorted(_WHERE)]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"unipref.{name}")
    raise AttributeError(f"module 'unipref' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
