"""Refined DPO."""

from unipref.core.cards import get_method, method
from unipref.core.errors import ConfigError, nearest
from unipref.data.catalogue.soft_labels import soft_labels
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.terms import pairwise
from unipref.objectives.weights import signed
from unipref.recipes.composition import Composition

_WAYS = ("soft", "weight")


@method(
    "dpo_refined",
    kind="recipe",
    status="reconstructed",
    source="arXiv:2402.08005",
    formula="-p log sigmoid(beta * dh) - (1 - p) log sigmoid(-beta * dh), p = sigmoid(kappa * (s_c - s_r))",
    needs=("chosen", "rejected", "score", "ref_logp"),
    citation=get_method("soft_labels").citation,
)
def dpo_refined(*, beta: float = 0.1, how: str = "soft", kappa: float = 1.0, by: str = "score") -> Composition:
    """DPO on a model's revisions of its own answers, in which a judge's scores say how far each revision succeeded.

    `chosen` is the revision and `rejected` the first answer. A failed revision, with the lower score, turns its pair
    around; equal scores teach nothing.

    Reconstructed: that the judge's scores enter the loss is the paper's; the equation is not released, and both forms
    here are our reading.

    Args:
        beta: not from the source.
        how: "soft" makes the scores a label between 0 and 1. "weight" multiplies DPO's loss by s_c - s_r; below 0 that
            is unbounded, so it pushes a failed revision down without end.
        kappa: steepness of the label per unit of score; infinity gives hard ones. Only with "soft"; ours.
        by: column of the score.
    """
    if how not in _WAYS:
        raise ConfigError(f"dpo_refined(how={how!r}){nearest(str(how), _WAYS)}")
    if how == "soft":
        return Composition(dpo(beta=beta), (soft_labels(how="scores", by=by, kappa=kappa),))
    return Composition(pairwise("dpo_refined", score=log_ratio(beta), link=logistic(), weight=signed(column(by))))
