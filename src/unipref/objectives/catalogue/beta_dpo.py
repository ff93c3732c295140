"""Beta-DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.coupled import dynamic, outlier_filter
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.states import moving
from unipref.objectives.terms import Term, pairwise


@method(
    "beta_dpo",
    source="arXiv:2407.08639, as in github.com/junkangwu/beta-DPO",
    formula="mean over kept pairs of -log sigmoid(b * dh), b = max(0.001, beta (1 + a (their mean dh - running mean)))",
    needs=("chosen", "rejected", "ref_logp"),
    coupling="full",
    citation=Citation(
        "beta-DPO: Direct Preference Optimization with Dynamic beta",
        (
            "Junkang Wu",
            "Yuexiang Xie",
            "Zhengyi Yang",
            "Jiancan Wu",
            "Jinyang Gao",
            "Bolin Ding",
            "Xiang Wang",
            "Xiangnan He",
        ),
        2024,
        "2407.08639",
    ),
    exceptions={
        "G5": "beta and the choice of pairs are the whole step's",
        "W1": "a pair is kept or left out as one, however heavy it is",
    },
    limits=[Limit({"a": 0.0, "rho": 0.0}, "dpo")],
    # one pair, dh = 3 against a running mean of 1: b = 0.1 (1 + 0.6 * 2) = 0.22, z = 0.66
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -4.0,
                "ref_logp_chosen": -2.0,
                "ref_logp_rejected": -2.0,
                "uid_chosen": 1,
                "uid_rejected": 2,
                "beta_dpo_mean": 1.0,
                "beta_dpo_std": 2.0,
            },
            0.4166367,
        )
    ],
)
def beta_dpo(
    *,
    beta: float = 0.1,
    a: float = 0.6,
    rho: float = 0.2,
    momentum: float = 0.9,
    seed: int = 0,
    compat: bool = False,
) -> Term:
    """DPO whose beta grows with the mean gap of the kept pairs and which leaves out a random share of outlying pairs.

    The gap is dh itself, without beta, as in the released code; it takes no gradient. A larger gap than usual means a
    larger beta, so a more cautious step. Of n pairs floor(n (1 - rho)) are kept, at least one, rather those near the
    running mean. While the running deviation is 0, as at the first step from the reference, all are alike. The released
    code starts its running numbers at 0 without correction, filters in evaluation too and averages by local counts.

    Args:
        a: how much beta follows the gap; 0 in the released configuration file, 0.6 in its runs.
        rho: share of pairs left out.
        momentum: share of the past in the running numbers.
        seed: of the choice of pairs, which also depends on the step and on the pair, not on the order of rows.
        compat: running numbers as released, without correction of their start.
    """
    watched = moving("beta_dpo", log_ratio(), momentum=momentum, corrected=not compat)
    keep = outlier_filter(watched, rho, seed)
    score = dynamic(log_ratio(), watched, keep, beta=beta, slope=a)
    return pairwise("beta_dpo", score=score, weight=keep, link=logistic())
