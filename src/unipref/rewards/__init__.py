"""Declared and fitted models of what is good: scorers, the designer's objectives made of them, preference models."""

import importlib
import pkgutil

from unipref.rewards import catalogue
from unipref.rewards.designer import DesignerObjectives, DesignerReport, Part, PartReport, Scale, scores_of
from unipref.rewards.judges import Judges
from unipref.rewards.models import PreferenceModel, load_preference_model, make_model
from unipref.rewards.scorers import make_scorer
from unipref.rewards.table import PreferenceTable

__all__ = [
    "DesignerObjectives",
    "DesignerReport",
    "Judges",
    "Part",
    "PartReport",
    "PreferenceModel",
    "PreferenceTable",
    "Scale",
    "load_preference_model",
    "make_model",
    "make_scorer",
    "scores_of",
]

# Discovery: one file per preference model, as in `objectives`.
for _module in pkgutil.iter_modules(catalogue.__path__):
    importlib.import_module(f"{catalogue.__name__}.{_module.name}")
