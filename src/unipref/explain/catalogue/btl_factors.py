"""Strengths of factors against each other."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import method
from unipref.explain.factors import Strengths, factor_strengths
from unipref.features.concept_cards import DECIPHER


@method(
    "btl_factors",
    kind="explanation",
    source="arXiv:2305.14702",
    status="reconstructed",
    formula="P(i beats j) = pi_i / (pi_i + pi_j), i of the winner alone, j of the loser alone",
    needs=("chosen", "rejected"),
    citation=DECIPHER,
)
def btl_factors(*, share_votes: bool = True) -> Callable[..., Strengths]:
    """Bradley-Terry-Luce strengths of labels: each that only the winner has beats each that only the loser has.

    Every two labels that meet are given a tenth of a win each way, so that one without a defeat has a finite strength.

    Reconstructed: how a pair's contests are counted is inferred from a summary; that a pair's vote is shared among them
    is ours.

    Args:
        share_votes: otherwise a pair of long lists counts many times.
    """
    return partial(factor_strengths, share_votes=share_votes)
