"""What drives preferences: sparse models of named concepts over several domains."""

from unipref.explain.factors import Association, Strengths, associations, factor_strengths
from unipref.explain.regression import (
    HierarchicalPairRegressor,
    as_probabilities,
    largest_penalties,
    penalty_grid,
)
from unipref.explain.selection import Choice, choose_penalties, folds_of, sign_stability

__all__ = [
    "Association",
    "Choice",
    "HierarchicalPairRegressor",
    "Strengths",
    "as_probabilities",
    "associations",
    "choose_penalties",
    "factor_strengths",
    "folds_of",
    "largest_penalties",
    "penalty_grid",
    "sign_stability",
]
