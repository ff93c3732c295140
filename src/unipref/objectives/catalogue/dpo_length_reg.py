"""Length-regularised DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import length_gap
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise


@method(
    "dpo_length_reg",
    source="arXiv:2403.19159 and arXiv:2406.11817, the sign as in github.com/LuJunru/SamPO",
    formula="-log sigmoid(beta * dh + alpha * (|c| - |r|))",
    needs=("chosen", "rejected", "len", "ref_logp"),
    citation=Citation(
        "Iterative Length-Regularized Direct Preference Optimization: A Case Study on Improving 7B Language Models to "
        "GPT-4 Level",
        ("Jie Liu", "Zhanhui Zhou", "Jiaheng Liu", "Xingyuan Bu", "Chao Yang", "Han-Sen Zhong", "Wanli Ouyang"),
        2024,
        "2406.11817",
    ),
    exceptions={"G1": "the length difference shifts the pair"},
    limits=[Limit({"alpha": 0.0}, "dpo"), Limit({}, "dpo", where={"len": 7.0})],
    # z = 0.1 * 20 + 0.01 * (3 - 103) = 1
    golden=[
        (
            {"alpha": 0.01},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "len_chosen": 3,
                "len_rejected": 103,
            },
            0.3132617,
        )
    ],
)
def dpo_length_reg(*, beta: float = 0.1, alpha: float = 0.01) -> Term:
    """DPO in which length explains a part of the preference, so that the policy need not become longer for it.

    Its optimum weighs a response by e^(-alpha * tokens / beta) beside DPO's: maximising E[R - alpha * tokens] less the
    divergence gives beta * h = R - alpha * tokens, and a preference speaks of R. The other sign rewards length. Tokens
    are those that are trained on, the end token among them.

    Args:
        alpha: nats per token. Not read in either paper; 0.01, our choice, lets 100 tokens count a nat. SamPO's code has
            0.1.
    """
    return pairwise("dpo_length_reg", score=log_ratio(beta), offset=(length_gap(alpha),), link=logistic())
