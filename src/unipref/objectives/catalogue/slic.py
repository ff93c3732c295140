"""Sequence likelihood calibration."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import hinge
from unipref.objectives.scores import logp
from unipref.objectives.terms import Objective, nll, pairwise


@method(
    "slic",
    source="arXiv:2305.10425, as in github.com/ContextualAI/HALOs",
    formula="max(0, delta - logp_c + logp_r) - lam * logp_c",
    needs=("chosen", "rejected"),
    citation=Citation(
        "SLiC-HF: Sequence Likelihood Calibration with Human Feedback",
        ("Yao Zhao", "Rishabh Joshi", "Tianqi Liu", "Misha Khalman", "Mohammad Saleh", "Peter J. Liu"),
        2023,
        "2305.10425",
    ),
    exceptions={
        "L2": "its anchor raises the chosen response's likelihood",
        "G1": "there is no reference",
        "G4": "its anchor raises the chosen response's likelihood",
    },
    golden=[({}, {"logp_chosen": -4.0, "logp_rejected": -4.5}, 0.9)],  # max(0, 1 - 0.5) + 0.1 * 4
)
def slic(*, delta: float = 1.0, lam: float = 0.1) -> Objective:
    """Hinge on log-probabilities without a reference, and likelihood (a sum over tokens) of the chosen response.

    The paper regularises towards a target that may be another response; as in HALOs, whose defaults these are, it is
    the chosen one. It is not TRL's `hinge`, which is RSO's max(0, 1 - beta * dh).
    """
    return pairwise("slic", score=logp(), link=hinge(at=delta)) + lam * nll(score=logp())
