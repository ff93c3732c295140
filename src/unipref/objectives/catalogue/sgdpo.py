"""Self-guided DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import sides
from unipref.objectives.terms import Term, pairwise
from unipref.objectives.tokens import random_subset, token_score


@method(
    "sgdpo",
    source="arXiv:2505.12435, from a secondary summary",
    status="reconstructed",
    formula="-log sigmoid(beta * (sum_t (1 + [t in S_c]) h_c,t - sum_t (1 - [t in S_r]) h_r,t)), |S| = floor(r |y|)",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "SGDPO: Self-Guided Direct Preference Optimization for Language Model Alignment",
        ("Wenqiao Zhu", "Ji Liu", "Lulu Wang", "Jun Wu", "Yulun Zhang"),
        2025,
        "2505.12435",
    ),
    exceptions={
        "L2": "chosen tokens count more than rejected ones",
        "G4": "chosen tokens count more than rejected ones",
    },
    limits=[Limit({"r_chosen": 0.0, "r_rejected": 0.0}, "dpo")],
    # all tokens are drawn: weights 2 and 0, so z = 0.1 * 2 * (-1 + 2) = 0.2
    golden=[
        (
            {"r_chosen": 1.0, "r_rejected": 1.0},
            {
                "len_chosen": 1,
                "len_rejected": 1,
                "uid_chosen": 1,
                "uid_rejected": 2,
                "token_logp": [-1.0, -3.0],
                "token_ref_logp": [-2.0, -2.0],
            },
            0.5981389,
        )
    ],
)
def sgdpo(*, beta: float = 0.1, r_chosen: float = 0.3, r_rejected: float = 0.3, seed: int = 0) -> Term:
    """DPO in which a random part of the chosen tokens counts twice and a random part of the rejected ones not at all.

    Reconstructed: a summary says that rewards of random sub-sequences of both responses enter the logit, so that the
    chosen side gets more of the gradient and the rejected one does not collapse; how they enter, the sub-sequences'
    sizes and the defaults are our reading. Both responses draw independently of each other, the variant that the paper
    adopts. No code is released.

    Args:
        r_chosen, r_rejected: share of a response's tokens that is drawn, exactly floor(r * tokens) of them; 0.3 is our
            choice.
        seed: of the draws, which also depend on the step and on the response, not on the batch.
    """
    chosen = token_score(beta, weights=random_subset(r_chosen, 1.0, seed))
    rejected = token_score(beta, weights=random_subset(r_rejected, -1.0, seed))
    return pairwise("sgdpo", score=sides(chosen=chosen, rejected=rejected), link=logistic())
