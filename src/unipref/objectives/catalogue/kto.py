"""Kahneman-Tversky optimization."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import saturating
from unipref.objectives.offsets import shift
from unipref.objectives.scores import log_ratio
from unipref.objectives.statistics import kl_baseline
from unipref.objectives.terms import Term, pointwise
from unipref.objectives.weights import class_weights


@method(
    "kto",
    source="arXiv:2402.01306 Eq. 7",
    formula="lambda_d (1 - sigmoid(beta (h - z0))) desirable, lambda_u (1 - sigmoid(beta (z0 - h))) undesirable",
    needs=("label", "ref_logp"),
    coupling="statistic",
    citation=Citation(
        "KTO: Model Alignment as Prospect Theoretic Optimization",
        ("Kawin Ethayarajh", "Winnie Xu", "Niklas Muennighoff", "Dan Jurafsky", "Douwe Kiela"),
        2024,
        "2402.01306",
    ),
    exceptions={
        "L2": "responses are judged one by one, against z0",
        "G1": "the loss at the reference is lambda / 2, from its saturating link",
        "G4": "responses are judged one by one; a common shift is drift, which z0 answers",
    },
    golden=[
        ({}, {"logp": [-1.0, -21.0], "ref_logp": [-11.0, -11.0], "label": [1, 0], "kl_baseline": 5.0}, 0.2799831)
    ],  # (sigmoid(-0.5) + sigmoid(-1.5)) / 2
)
def kto(*, beta: float = 0.1, lambda_d: float = 1.0, lambda_u: float = 1.0) -> Term:
    """Responses with a thumb up or down, each against the policy's mean drift z0, by a value that saturates.

    z0 is the positive part of the mean log-ratio of mismatched responses, taken over the whole step and without
    gradient. Responses without a label do not count. Keep lambda_d * n_desirable near lambda_u * n_undesirable.
    """
    return pointwise(
        "kto",
        score=log_ratio(beta),
        of="labelled",
        offset=(shift(kl_baseline(), -beta),),
        link=saturating(),
        weight=class_weights(lambda_d, lambda_u),
    )
