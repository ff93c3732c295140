"""DPO with a likelihood term."""

from unipref.core.cards import Limit, method
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.catalogue.flex_dpo import PROPERTIES
from unipref.objectives.terms import Objective, nll


@method(
    "dpo_sft",
    source="arXiv:2406.07327, from a secondary summary",
    status="reconstructed",
    formula="-log sigmoid(beta * dh) - lam * logp_c / |c|",
    needs=("chosen", "rejected", "len", "ref_logp"),
    citation=PROPERTIES,
    exceptions={
        "L2": "its anchor raises the chosen response's likelihood",
        "G1": "its anchor is no contrast",
        "G4": "its anchor raises the chosen response's likelihood",
    },
    limits=[Limit({"lam": 0.0}, "dpo")],
    # z = 2 and half a nat per token: ln(1 + e^-2) + 0.5
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "len_chosen": 2,
                "len_rejected": 3,
            },
            0.6269280,
        )
    ],
)
def dpo_sft(*, beta: float = 0.1, lam: float = 1.0) -> Objective:
    """DPO plus the chosen response's negative log-likelihood, the mean over its tokens, against likelihood's fall.

    Reconstructed: that a likelihood term is added is the paper's; its unit, a token mean, and `lam` are ours. Other
    libraries call it RPO.
    """
    return dpo(beta=beta) + lam * nll()
