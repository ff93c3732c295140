"""Length-normalised DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise


@method(
    "ln_dpo",
    source="arXiv:2407.15229, the same as TRL's sigmoid_norm",
    formula="-log sigmoid(beta * (h_c / |c| - h_r / |r|)), h = logp - ref_logp",
    needs=("chosen", "rejected", "len", "ref_logp"),
    citation=Citation(
        "A Practical Analysis of Human Alignment with *PO",
        ("Kian Ahrabian", "Xihui Lin", "Barun Patra", "Vishrav Chaudhary", "Alon Benhaim", "Jay Pujara", "Xia Song"),
        2024,
        "2407.15229",
    ),
    exceptions={"G4": "scores are means over tokens, so a common shift of sums counts more in the shorter response"},
    limits=[Limit({"beta": 2.0}, "dpo", {"beta": 0.5}, where={"len": 4.0})],
    # h / |y| = 0.5 and 0.25: z = 5 * 0.25 = 1.25
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -3.0,
                "ref_logp_chosen": -2.0,
                "ref_logp_rejected": -4.0,
                "len_chosen": 2,
                "len_rejected": 4,
            },
            0.2519291,
        )
    ],
)
def ln_dpo(*, beta: float = 5.0) -> Term:
    """DPO on log-ratios per token, so that a response does not win by its length.

    Subtracting a length penalty is another method, `dpo_length_reg`.

    Args:
        beta: of a mean over tokens, so about as many times DPO's as responses have tokens; 5 is Tulu 3's
            (arXiv:2411.15124).
    """
    return pairwise("ln_dpo", score=log_ratio(beta, eta=1), link=logistic())
