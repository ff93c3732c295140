"""Direct preference optimization."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise


@method(
    "dpo",
    source="arXiv:2305.18290 Eq. 7",
    formula="-log sigmoid(beta * dh), h = logp - ref_logp, dh = h(chosen) - h(rejected)",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        (
            "Rafael Rafailov",
            "Archit Sharma",
            "Eric Mitchell",
            "Stefano Ermon",
            "Christopher D. Manning",
            "Chelsea Finn",
        ),
        2023,
        "2305.18290",
    ),
    golden=[
        (
            {"beta": 0.1},
            {"logp_chosen": -1.0, "logp_rejected": -21.0, "ref_logp_chosen": -1.0, "ref_logp_rejected": -1.0},
            0.1269280,
        )
    ],  # ln(1 + e^-2)
)
def dpo(*, beta: float = 0.1) -> Term:
    """Logistic loss on the difference of two reference log-ratios.

    A soft label, the column `preference`, weighs the pair and its swap.
    """
    return pairwise("dpo", score=log_ratio(beta), link=logistic())
