"""Preference models as compositions of parts: head, encoder, mixing, loss, fit and adaptation."""

from unipref.rewards.models.descent import descent
from unipref.rewards.models.heads import difference, linear_head, mlp_head
from unipref.rewards.models.model import PreferenceModel, load_preference_model, make_model, preference_model
from unipref.rewards.models.parts import Adaptation, AddOn, Encoder, Fitting, Head, Mixing, Output, Rows, Sizes
from unipref.rewards.models.users import fit_codes, newcomers, simplex, user_table, weighted

__all__ = [
    "Adaptation",
    "AddOn",
    "Encoder",
    "Fitting",
    "Head",
    "Mixing",
    "Output",
    "PreferenceModel",
    "Rows",
    "Sizes",
    "descent",
    "difference",
    "fit_codes",
    "linear_head",
    "load_preference_model",
    "make_model",
    "mlp_head",
    "newcomers",
    "preference_model",
    "simplex",
    "user_table",
    "weighted",
]
