"""Self-guided DPO."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import detached, sides
from unipref.objectives.terms import Objective, pairwise
from unipref.objectives.tokens import random_subset, token_score


@method(
    "sgdpo",
    source="arXiv:2505.12435, as in github.com/WNQzhu/SGDPO (pdpo_trainer_v4.py)",
    formula="-1/2 log sigmoid(beta (h_c - sg p_r)) - 1/2 log sigmoid(beta (sg p_c - h_r)), p: h on random tokens",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "SGDPO: Self-Guided Direct Preference Optimization for Language Model Alignment",
        ("Wenqiao Zhu", "Ji Liu", "Lulu Wang", "Jun Wu", "Yulun Zhang"),
        2025,
        "2505.12435",
    ),
    exceptions={
        "L2": "each response is set against a part of the other one, which a shift moves less",
        "G4": "each response is set against a part of the other one, which a shift moves less",
    },
    # 2 tokens of log-ratio 1 against 5 of -1: the pilots have floor(.6 * 2) = floor(.9 * 2) = 1 token each, so that
    # z = .1 (2 + 1) = .3 and .1 (1 + 5) = .6: half of ln(1 + e^-.3) + ln(1 + e^-.6)
    golden=[
        (
            {},
            {
                "len_chosen": 2,
                "len_rejected": 5,
                "uid_chosen": 1,
                "uid_rejected": 2,
                "token_logp": [-1.0, -2.0, -3.0, -3.0, -4.0, -5.0, -3.0],
                "token_ref_logp": [-2.0, -3.0, -2.0, -2.0, -3.0, -4.0, -2.0],
            },
            0.4959216,
        )
    ],
)
def sgdpo(*, beta: float = 0.1, r_chosen: float = 0.6, r_rejected: float = 0.9, seed: int = 0) -> Objective:
    """DPO in two halves, each with the log-ratio of one response and a random part of the other one's: its pilot.

    A pilot has no gradient, so at the reference either response is pulled half as hard as by DPO. Later the chosen one
    is pulled harder than the rejected one is pushed where the tokens outside the rejected one's pilot have fallen by
    more than those outside the chosen one's have risen. Both pilots are drawn independently of each other and anew at
    every step, evaluation included. The shorter response sets their sizes: at least 1, and floor(r * its tokens); a
    response in several comparisons has one pilot in all of them, sized by the shortest response among them. Under a
    soft label the responses exchange their places, shares too; the code's label smoothing turns the sign of the same
    two margins instead.

    Args:
        beta: 0.1 in the code.
        r_chosen, r_rejected: shares of the pilots, 0.6 and 0.9 by the code's defaults; its released run sets the first
            to 0.7.
        seed: of the draws, which also depend on the step and on the response.
    """

    def pilot(share: float) -> detached:
        return detached(token_score(beta, weights=random_subset(share, seed)))

    whole, link = token_score(beta), logistic()
    chosen = pairwise("chosen", score=sides(chosen=whole, rejected=pilot(r_rejected)), link=link)
    rejected = pairwise("rejected", score=sides(chosen=pilot(r_chosen), rejected=whole), link=link)
    return 0.5 * chosen + 0.5 * rejected
