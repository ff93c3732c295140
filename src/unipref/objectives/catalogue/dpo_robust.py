"""Provably robust DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.targets import denoised
from unipref.objectives.terms import Term, pairwise


@method(
    "dpo_robust",
    source="arXiv:2403.00409, as in TRL 1.16",
    formula="[(1 - flip) * l(beta * dh) - flip * l(-beta * dh)] / (1 - 2 flip), l = -log sigmoid",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "Provably Robust DPO: Aligning Language Models with Noisy Feedback",
        ("Sayak Ray Chowdhury", "Anush Kini", "Nagarajan Natarajan"),
        2024,
        "2403.00409",
    ),
    # (0.8 ln(1 + e^-2) - 0.2 ln(1 + e^2)) / 0.6
    limits=[Limit({"flip": 0.0}, "dpo")],
    golden=[
        (
            {"beta": 0.1, "flip": 0.2},
            {"logp_chosen": -1.0, "logp_rejected": -21.0, "ref_logp_chosen": -1.0, "ref_logp_rejected": -1.0},
            -0.5397387,
        )
    ],
)
def dpo_robust(*, beta: float = 0.1, flip: float = 0.1) -> Term:
    """DPO whose mean over labels wrong with probability `flip` is the clean loss; unbounded below on a single row.

    `flip` has no default in the paper; 0.1 is one of its settings.
    """
    return pairwise("dpo_robust", score=log_ratio(beta), target=denoised(flip), link=logistic())
