"""Odds ratio preference optimization."""

from unipref.core.cards import Citation, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_odds
from unipref.objectives.terms import Objective, nll, pairwise


@method(
    "orpo",
    source="arXiv:2403.07691, as in github.com/xfactlab/orpo",
    formula="-logp_c / |c| - lam * log sigmoid(o_c - o_r), o = log(p / (1 - p)), p = exp(logp / |y|)",
    needs=("chosen", "rejected", "len"),
    citation=Citation(
        "ORPO: Monolithic Preference Optimization without Reference Model",
        ("Jiwoo Hong", "Noah Lee", "James Thorne"),
        2024,
        "2403.07691",
    ),
    exceptions={
        "L2": "odds are not linear in log-probabilities, and its anchor raises the chosen response's likelihood",
        "G1": "there is no reference",
        "G4": "odds are not linear in log-probabilities, and its anchor raises the chosen response's likelihood",
    },
    # p = 1/2 and 1/4: odds 1 and 1/3, so ln 2 + 0.1 ln(1 + 1/3)
    golden=[
        ({}, {"logp_chosen": -1.3862944, "logp_rejected": -2.7725887, "len_chosen": 2, "len_rejected": 2}, 0.7219154)
    ],
)
def orpo(*, lam: float = 0.1) -> Objective:
    """Likelihood of the chosen response and the log odds ratio of the two, without a reference.

    The authors' code takes the likelihood over prompt and response and never trains the end token; here it is the
    response with its end token, averaged per response.
    """
    return nll() + lam * pairwise("orpo", score=log_odds(), link=logistic())
