"""Contrastive preference optimization."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import logp
from unipref.objectives.terms import Objective, nll, pairwise


@method(
    "cpo",
    source="arXiv:2401.08417, as in TRL 1.16",
    formula="-log sigmoid(beta * (logp_c - logp_r)) - alpha * logp_c / |c|",
    needs=("chosen", "rejected", "len"),
    citation=Citation(
        "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine Translation",
        (
            "Haoran Xu",
            "Amr Sharaf",
            "Yunmo Chen",
            "Weiting Tan",
            "Lingfeng Shen",
            "Benjamin Van Durme",
            "Kenton Murray",
            "Young Jin Kim",
        ),
        2024,
        "2401.08417",
    ),
    exceptions={
        "L2": "its anchor raises the chosen response's likelihood",
        "G1": "there is no reference",
        "G4": "its anchor raises the chosen response's likelihood",
    },
    golden=[
        ({}, {"logp_chosen": -4.0, "logp_rejected": -24.0, "len_chosen": 8, "len_rejected": 8}, 0.6269280)
    ],  # ln(1 + e^-2) + 4/8
)
def cpo(*, beta: float = 0.1, alpha: float = 1.0) -> Objective:
    """Logistic loss on log-probabilities without a reference, and likelihood of the chosen response.

    The authors' code averages the likelihood over the tokens of a micro-batch, prompt included; here each response's
    tokens are averaged, prompt excluded, so that micro-batches change nothing.
    """
    return pairwise("cpo", score=logp(beta), link=logistic()) + alpha * nll()
