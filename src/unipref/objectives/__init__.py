"""Preference objectives as sums of terms, each made of parts for seven slots, and the catalogue of published methods.

Every method of `catalogue` is here by its key: `unipref.objectives.dpo(beta=0.1)`.
"""

import importlib
import pkgutil

from unipref.core.cards import get_method, list_methods
from unipref.objectives import catalogue
from unipref.objectives.discrepancies import expectile, hinge, linear, linex, logistic, saturating, square
from unipref.objectives.offsets import difference, length_gap, margin, shift
from unipref.objectives.lists import ListLoss, cross_entropy
from unipref.objectives.parts import Part
from unipref.objectives.schedules import gate, ramp
from unipref.objectives.scores import (
    advantage,
    column,
    group_mean,
    log1mexp,
    log_odds,
    log_ratio,
    logp,
    mean_logp,
    scaled,
    sequence,
    sides,
    value_head,
)
from unipref.objectives.states import State, moving
from unipref.objectives.statistics import kl_baseline
from unipref.objectives.targets import denoised, labels, reach, smoothed
from unipref.objectives.terms import HEADS, Loss, Objective, Term, as_objective, groupwise, nll, pairwise, pointwise
from unipref.objectives.tokens import token_column, token_score
from unipref.objectives.units import Unit, group, pair, point
from unipref.objectives.weights import class_weights, exp_advantage, one

__all__ = [
    "HEADS",
    "ListLoss",
    "Loss",
    "Objective",
    "Part",
    "State",
    "Term",
    "Unit",
    "advantage",
    "as_objective",
    "class_weights",
    "column",
    "cross_entropy",
    "denoised",
    "difference",
    "exp_advantage",
    "expectile",
    "gate",
    "get_method",
    "group",
    "group_mean",
    "groupwise",
    "hinge",
    "kl_baseline",
    "labels",
    "length_gap",
    "linear",
    "linex",
    "list_methods",
    "log1mexp",
    "log_odds",
    "log_ratio",
    "logistic",
    "logp",
    "margin",
    "mean_logp",
    "moving",
    "nll",
    "one",
    "pair",
    "pairwise",
    "point",
    "pointwise",
    "ramp",
    "reach",
    "saturating",
    "scaled",
    "sequence",
    "shift",
    "sides",
    "smoothed",
    "square",
    "token_column",
    "token_score",
    "value_head",
]

# Discovery: one file per method. A file that does not import is an error of the package, not a method less.
for _module in pkgutil.iter_modules(catalogue.__path__):
    importlib.import_module(f"{catalogue.__name__}.{_module.name}")
_methods = {card.key: card.function for card in list_methods("objective")}
globals().update(_methods)
__all__ += list(_methods)
