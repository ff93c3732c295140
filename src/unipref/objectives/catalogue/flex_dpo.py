"""Flex-DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio, sides
from unipref.objectives.terms import Term, pairwise

PROPERTIES = Citation(
    "3D-Properties: Identifying Challenges in DPO and Charting a Path Forward",
    ("Yuzi Yan", "Yibo Miao", "Jialian Li", "Yipin Zhang", "Jian Xie", "Zhijie Deng", "Dong Yan"),
    2024,
    "2406.07327",
)


@method(
    "flex_dpo",
    source="arXiv:2406.07327, as its reviews have it",
    status="reconstructed",
    formula="-log sigmoid(beta_chosen * h_c - beta_rejected * h_r), h = logp - ref_logp",
    needs=("chosen", "rejected", "ref_logp"),
    citation=PROPERTIES,
    exceptions={
        "L2": "the two sides count differently",
        "G4": "the two sides count differently",
    },
    limits=[
        Limit({"beta_chosen": 0.1, "beta_rejected": 0.1}, "dpo"),
        Limit({"beta_chosen": 0.1, "beta_rejected": 0.03}, "dpo_shift", {"lam": 0.3}),
    ],
    # h = 3 and 2: z = 0.3 - 0.16 = 0.14
    golden=[
        (
            {},
            {"logp_chosen": -1.0, "logp_rejected": -2.0, "ref_logp_chosen": -4.0, "ref_logp_rejected": -4.0},
            0.6255952,
        )
    ],
)
def flex_dpo(*, beta_chosen: float = 0.1, beta_rejected: float = 0.08) -> Term:
    """DPO with a beta of its own for each side; a smaller one spares the rejected response.

    Margins of runs with different betas are not comparable.

    Reconstructed: the paper itself was not read. Its reviews confirm that the betas are constants and that, with the
    chosen side's held, the best one for the rejected side is near 0.08; that the chosen side's is then 0.1 is ours.
    """
    score = sides(chosen=log_ratio(beta_chosen), rejected=log_ratio(beta_rejected))
    return pairwise("flex_dpo", score=score, link=logistic())
