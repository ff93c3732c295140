"""Multi-objective DPO."""

from collections.abc import Mapping

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import difference
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.terms import Term, pairwise


@method(
    "modpo",
    source="arXiv:2310.03708, as in github.com/ZHZisZZ/modpo",
    formula="-log sigmoid((beta * dh - sum_i w_i * dr_i) / w0), dr = reward(chosen) - reward(rejected)",
    needs=("chosen", "rejected", "ref_logp", "reward"),
    citation=Citation(
        "Beyond One-Preference-Fits-All Alignment: Multi-Objective Direct Preference Optimization",
        ("Zhanhui Zhou", "Jie Liu", "Jing Shao", "Xiangyu Yue", "Chao Yang", "Wanli Ouyang", "Yu Qiao"),
        2023,
        "2310.03708",
    ),
    exceptions={"G1": "rewards shift the pair: the loss at the reference is log 2 only where they are equal"},
    limits=[Limit({"w0": 1.0}, "dpo")],
    golden=[
        (
            {"w0": 0.5},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -3.0,
                "ref_logp_chosen": -2.0,
                "ref_logp_rejected": -2.0,
                "reward_chosen": 0.3,
                "reward_rejected": 0.0,
            },
            0.6443967,
        )
    ],  # z = 2 (0.2 - 0.15) = 0.1
)
def modpo(*, beta: float = 0.1, w0: float = 0.5, weights: Mapping[str, float] | None = None) -> Term:
    """DPO on one objective's preferences, minus the margin that the other objectives' rewards already explain.

    A pair whose reward is missing on a side keeps its plain loss.

    Args:
        beta: as in DPO, for the weighted sum of all rewards.
        w0: weight of the objective that the preferences speak for, above 0.
        weights: column -> weight of the other objectives' rewards; default {"reward": 1 - w0}. By convention all
            weights add up to 1.
    """
    if w0 <= 0:
        raise ConfigError(f"w0 must be above 0: with {w0} the preferences would say nothing")
    weights = {"reward": 1 - w0} if weights is None else weights
    margins = tuple(difference(column(name), -weight / w0) for name, weight in sorted(weights.items()))
    return pairwise("modpo", score=log_ratio(beta / w0), offset=margins, link=logistic())
