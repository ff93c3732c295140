"""Minor DPO."""

from unipref.core.cards import Citation, method
from unipref.objectives.bounds import kinked
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio, sides
from unipref.objectives.terms import Term, pairwise


@method(
    "minor_dpo",
    source="arXiv:2408.09834, as in an independent implementation",
    formula="-log sigmoid(beta * (h_c - max(0, h_r))), h = logp - ref_logp",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "Minor DPO reject penalty to increase training robustness",
        ("Shiming Xie", "Hong Chen", "Fred Yu", "Zeye Sun", "Xiuyu Wu", "Yingfan Hu"),
        2024,
        "2408.09834",
    ),
    exceptions={
        "L2": "a rejected response below its reference does not count",
        "G4": "a rejected response below its reference does not count",
    },
    # h = 3 and -5, which counts as 0: z = 0.3
    golden=[
        (
            {},
            {"logp_chosen": -1.0, "logp_rejected": -9.0, "ref_logp_chosen": -4.0, "ref_logp_rejected": -4.0},
            0.5543552,
        )
    ],
)
def minor_dpo(*, beta: float = 0.1) -> Term:
    """DPO that stops pushing a rejected response once it is less likely than under the reference.

    At equality, where every pair starts, it is still pushed: the first step is DPO's. Other readings of the formula's
    corner (relu, maximum) would leave it alone, or half so.
    """
    score = sides(chosen=log_ratio(beta), rejected=kinked(log_ratio(beta), below=0.0))
    return pairwise("minor_dpo", score=score, link=logistic())
