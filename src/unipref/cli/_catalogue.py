"""Every card there is: the modules that hold cards, imported when a command needs them."""

import importlib

__all__ = ["load"]

_CATALOGUES = (
    "unipref.data.catalogue",
    "unipref.objectives",
    "unipref.recipes.catalogue",
    "unipref.rewards",
    "unipref.explain.catalogue",
    "unipref.features.concept_cards",
)


def load() -> None:
    """Fill the registry of cards."""
    for module in _CATALOGUES:
        importlib.import_module(module)
