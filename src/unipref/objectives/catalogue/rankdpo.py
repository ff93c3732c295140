"""RankDPO, for text."""

from collections.abc import Sequence

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.objectives.lists import ndcg_gap, pair_logistic
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.targets import win_rate
from unipref.objectives.terms import Term, groupwise


@method(
    "rankdpo",
    source="arXiv:2410.18013",
    status="reconstructed",
    formula="-sum over g_i > g_j of |2^g_i - 2^g_j| |1/log(1 + t_i) - 1/log(1 + t_j)| log sigmoid(beta (h_i - h_j))",
    needs=("group", "ref_logp", "reward"),
    citation=Citation(
        "Scalable Ranked Preference Optimization for Text-to-Image Generation",
        ("Shyamgopal Karthik", "Huseyin Coskun", "Zeynep Akata", "Sergey Tulyakov", "Jian Ren", "Anil Kag"),
        2024,
        "2410.18013",
    ),
    exceptions={"G1": "pairs are weighted by what their swap changes in DCG"},
    # g = (1, 1/2, 0), so lipo's own number: s = (.3, -.1, .2)
    golden=[
        (
            {"beta": 1.0},
            {
                "logp": [-1.7, -2.1, -1.8],
                "ref_logp": [-2.0, -2.0, -2.0],
                "reward": [9.0, 7.0, -3.0],
                "group": [0, 0, 0],
            },
            0.6267363,
        )
    ],
)
def rankdpo(*, beta: float = 0.1, rewards: Sequence[str] = ("reward",), discount: bool = True) -> Term:
    """DPO on every two responses of a list, weighted by what a swap of the two changes in DCG.

    A response's gain is the share of the list that it beats, the mean over several reward models, so only their orders
    count. The weights carry no gradient. The paper's method is for images and diffusion; its loss is read here on
    log-ratios. A record with a missing reward does not count.

    Reconstructed: the formula follows the figure and text that were read, not the paper's equations. Ties count half a
    win.

    Args:
        beta: as in DPO; 0.1 is not from the source.
        rewards: columns of the reward models.
        discount: False weighs by gains alone, the paper's ablation.
    """
    if isinstance(rewards, str) or not rewards:
        raise ConfigError(f"rankdpo(rewards={rewards!r}) takes the names of one or more columns, such as ('reward',)")
    return groupwise(
        "rankdpo",
        score=log_ratio(beta),
        link=pair_logistic(ndcg_gap(discount)),
        target=win_rate(tuple(map(column, rewards))),
    )
