"""Triple preference optimization."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import logp
from unipref.objectives.terms import Objective, nll, pairwise

CITATION = Citation(
    "Triple Preference Optimization: Achieving Better Alignment using a Single Step Optimization",
    ("Amir Saeidi", "Shivanshu Verma", "Aswin RRV", "Kashif Rasul", "Chitta Baral"),
    2024,
    "2405.16681",
)


@method(
    "tpo_triple",
    source="arXiv:2405.16681, as in the authors' code and TRL 1.16",
    formula="-log sigmoid(beta * (logp_c - logp_r)) - alpha * sum(logp_gold) / sum(|gold|)",
    needs=("chosen", "rejected", "gold", "len"),
    citation=CITATION,
    exceptions={
        "L2": "its anchor raises the gold response's likelihood",
        "G1": "there is no reference",
        "G4": "its anchor raises the gold response's likelihood",
    },
    golden=[
        (
            {"beta": 0.1},
            {
                "logp_chosen": -4.0,
                "logp_rejected": -24.0,
                "logp_gold": -6.0,
                "len_chosen": 8,
                "len_rejected": 8,
                "len_gold": 3,
            },
            2.1269280,
        )
    ],  # ln(1 + e^-2) + 6/3
    limits=[Limit({"alpha": 0.0, "beta": 0.1}, "cpo", {"alpha": 0.0})],
)
def tpo_triple(*, beta: float = 0.01, alpha: float = 1.0) -> Objective:
    """Logistic loss on log-probabilities without a reference, and likelihood of a third, gold response.

    The contrast sums log-probabilities and the likelihood averages them over the step's gold tokens, so what alpha
    means depends on length. The authors' code and TRL average over a micro-batch's tokens instead.

    Args:
        beta: scale of the log-probabilities; 0.01 as in the second version of the paper (the first had 0.1 and 0.2).
        alpha: coefficient of the gold likelihood: 1 for base models, 0.05 for Llama-3-Instruct. The authors' trainer
            says 1 and has 0.05.
    """
    anchor = nll(of="gold", score=logp(), per="token")
    return pairwise("tpo_triple", score=logp(beta), link=logistic()) + alpha * anchor
