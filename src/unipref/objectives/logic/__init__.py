"""Preference losses as logic: a propositional formula over model predictions compiles to a loss, and back.

A proposition such as `M("w")`, "the model says the winner", is true with the probability that the model gives. A
preference structure is two formulas over propositions, and its log ratio rho is the log of how likely the one is over
how likely the other is (weighted model counting). A function of rho is the loss.

>>> from unipref.objectives.logic import M, Structure, implies, symbolic
>>> likes = Structure(implies(M("l"), M("w")), M("w") | M("l"), M("w") & M("l"))
>>> likes.truth_table(), likes.numerator, likes.denominator
('ND,N,D,·', p_w, p_l)
>>> loss = symbolic(likes, beta=0.1)  # a Term like any other: `loss + 0.5 * nll()`

Source: arXiv:2412.17696, read as the ICLR 2025 submission "Declarative characterizations of direct preference
alignment algorithms".
"""

from unipref.objectives.logic.counting import Chance, Polynomial, count_worlds, wmc
from unipref.objectives.logic.formulas import FALSE, TRUE, Formula, M, Proposition, Ref, implies
from unipref.objectives.logic.structures import (
    SINGLE_MODEL,
    STRUCTURES,
    Structure,
    between,
    decompile,
    definable,
    entails,
    equivalent,
    from_truth_table,
    lattice,
)
from unipref.objectives.logic.symbolic import SYMBOLIC, Form, counted, symbolic, symbolic_form

__all__ = [
    "FALSE",
    "SINGLE_MODEL",
    "STRUCTURES",
    "SYMBOLIC",
    "TRUE",
    "Chance",
    "Form",
    "Formula",
    "M",
    "Polynomial",
    "Proposition",
    "Ref",
    "Structure",
    "between",
    "count_worlds",
    "counted",
    "decompile",
    "definable",
    "entails",
    "equivalent",
    "from_truth_table",
    "implies",
    "lattice",
    "symbolic",
    "symbolic_form",
    "wmc",
]
