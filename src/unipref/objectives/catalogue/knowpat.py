"""KnowPAT: knowledgeable preference alignment."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.lists import best_likelihood, ranked_likelihood
from unipref.objectives.scores import column, logp, mean_logp
from unipref.objectives.targets import reach
from unipref.objectives.terms import Objective, groupwise


@method(
    "knowpat",
    source="arXiv:2311.06503, as in github.com/zjukg/KnowPAT",
    formula="lam / (K - 1) sum_i w_i [sp(-s_i) + mean over worse j of sp(s_j)] - s_best, s = logp / |y|, sp = softplus",
    needs=("group", "len", "rank"),
    citation=Citation(
        "Knowledgeable Preference Alignment for LLMs in Domain-specific Question Answering",
        ("Yichi Zhang", "Zhuo Chen", "Yin Fang", "Yanxi Lu", "Fangming Li", "Wen Zhang", "Huajun Chen"),
        2023,
        "2311.06503",
    ),
    exceptions={
        "L2": "likelihoods are raised and lowered one by one, and the best response's is an anchor",
        "G1": "there is no reference",
        "G4": "likelihoods are raised and lowered one by one, and the best response's is an anchor",
    },
    # s = (-1, -2, -3), w = (1, 1/2, 0), sp of 1, 2, -2, -3:
    # 0.1 / 2 [sp(1) + (sp(-2) + sp(-3)) / 2 + (sp(2) + sp(-3)) / 2] + 1
    golden=[
        (
            {},
            {"logp": [-2.0, -2.0, -6.0], "len": [2, 1, 2], "rank": [1, 2, 3], "group": [0, 0, 0]},
            1.1244389,
        )
    ],
    limits=[Limit({"lam": 0.0}, "sft", note="for pairs, where the chosen responses are the demonstrations")],
)
def knowpat(*, lam: float = 0.1, p: float = 1.0) -> Objective:
    """Likelihood of the best answer, and of each ranked answer against the worse ones, weighted by its present score.

    A response that now scores lowest has weight 0, whatever its rank, and the weights carry no gradient. As scores are
    log-probabilities the first part has a floor above 0. Where all scores are equal, 0/0 in the authors' code, weights
    are 0. A record with an unranked response does not count; responses of equal rank are not compared.

    Lengths are each response's own. The authors' code overwrites the labels before it counts them, so that it divides
    every answer by the padded width of its batch, and the likelihood term likewise; a width is no property of a
    response, so there is no option for it. Their constant 3 is K - 1 for lists of four.

    Args:
        lam: weight of the ranking part: 0.1 on the authors' CPQA, 0.01 on RJUA.
        p: length exponent of its scores.
    """
    target = reach(column("rank"), -1.0)
    ranking = groupwise("knowpat", score=logp(eta=p), link=ranked_likelihood(), target=target)
    best = groupwise("nll", score=mean_logp(), link=best_likelihood(), target=target, role="anchor")
    return lam * ranking + best
