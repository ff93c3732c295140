"""Declared and fitted models of what is good: scorers, the designer's objectives made of them, preference models."""

import importlib
import pkgutil

from unipref.rewards import catalogue
from unipref.rewards._features import FeatureReport, Features, FeatureSpec, make_features, preference_table
from unipref.rewards.designer import DesignerObjectives, DesignerReport, Part, PartReport, Scale, scores_of
from unipref.rewards.judges import Judges
from unipref.rewards.left_out import leave_one_domain_out
from unipref.rewards.models import PreferenceModel, load_preference_model, make_model
from unipref.rewards.newcomers import adaptation_curve
from unipref.rewards.scorers import make_scorer
from unipref.rewards.simulated import simulate_users
from unipref.rewards.table import PreferenceTable
from unipref.rewards.trained import TextPreferenceModel

__all__ = [
    "DesignerObjectives",
    "DesignerReport",
    "FeatureReport",
    "FeatureSpec",
    "Features",
    "Judges",
    "Part",
    "PartReport",
    "PreferenceModel",
    "PreferenceTable",
    "Scale",
    "TextPreferenceModel",
    "adaptation_curve",
    "leave_one_domain_out",
    "load_preference_model",
    "make_features",
    "make_model",
    "make_scorer",
    "preference_table",
    "scores_of",
    "simulate_users",
]

# Discovery: one file per preference model, as in `objectives`.
for _module in pkgutil.iter_modules(catalogue.__path__):
    importlib.import_module(f"{catalogue.__name__}.{_module.name}")
