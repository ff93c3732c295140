"""Conservative DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.targets import smoothed
from unipref.objectives.terms import Term, pairwise


@method(
    "cdpo",
    source="E. Mitchell, A note on DPO with noisy preferences & relationship to IPO (2023)",
    formula="-(1 - flip) log sigmoid(beta * dh) - flip * log sigmoid(-beta * dh)",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "A note on DPO with noisy preferences & relationship to IPO",
        ("Eric Mitchell",),
        2023,
        url="https://ericmitchell.ai/cdpo.pdf",
    ),
    # 0.8 ln(1 + e^-2) + 0.2 ln(1 + e^2)
    limits=[Limit({"flip": 0.0}, "dpo")],
    golden=[
        (
            {"beta": 0.1, "flip": 0.2},
            {"logp_chosen": -1.0, "logp_rejected": -21.0, "ref_logp_chosen": -1.0, "ref_logp_rejected": -1.0},
            0.5269280,
        )
    ],
)
def cdpo(*, beta: float = 0.1, flip: float = 0.2) -> Term:
    """DPO as if every label were wrong with probability `flip`: margins stop at logit(1 - flip) / beta.

    The default of `flip` is that of the HALOs configuration; the note gives none.
    """
    return pairwise("cdpo", score=log_ratio(beta), target=smoothed(flip), link=logistic())
