"""ORPO with the likelihood of a rationale."""

from unipref.core.cards import Limit, method
from unipref.objectives.catalogue.orpo import orpo
from unipref.objectives.catalogue.rationale_dpo import CITATION
from unipref.objectives.terms import Objective, nll


@method(
    "rationale_orpo",
    source="arXiv:2407.14477, as in the authors' code",
    formula="-logp_c / |c| - beta * log sigmoid(o_c - o_r) - gamma * logp(rationale) / |rationale|",
    needs=("chosen", "rejected", "len", "rationale"),
    citation=CITATION,
    exceptions={
        "L2": "odds are not linear in log-probabilities, and likelihoods are raised",
        "G1": "there is no reference",
        "G4": "odds are not linear in log-probabilities, and likelihoods are raised",
    },
    # p = 1/2 and 1/4: odds 1 and 1/3, so ln 2 + 0.1 ln(1 + 1/3) + 3/2
    golden=[
        (
            {},
            {
                "logp_chosen": -1.3862944,
                "logp_rejected": -2.7725887,
                "logp_rationale": -3.0,
                "len_chosen": 2,
                "len_rejected": 2,
                "len_rationale": 2,
            },
            2.2219154,
        )
    ],
    limits=[Limit({"gamma": 0.0}, "orpo")],
)
def rationale_orpo(*, beta: float = 0.1, gamma: float = 1.0) -> Objective:
    """ORPO, and mean likelihood of a text that says why the chosen response is better, given both responses.

    Here the rationale's log-probability is a mean over its tokens, where `rationale_dpo` sums it.

    Args:
        beta: weight of the log odds ratio.
        gamma: weight of the rationale's likelihood.
    """
    return orpo(lam=beta) + gamma * nll("rationale", of="rationale")
