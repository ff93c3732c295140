"""Listwise preference optimization."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import expectile, logistic
from unipref.objectives.lists import cross_entropy, each, ndcg_gap, pair_logistic, plackett_luce
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.targets import boltzmann, reach
from unipref.objectives.terms import Term, groupwise

_LOSSES = ("lambda", "pair_logistic", "list_mle", "softmax", "pointwise_mse", "pointwise_ce")


@method(
    "lipo",
    source="arXiv:2402.01878",
    status="reconstructed",
    formula="-sum over r_i > r_j of |2^r_i - 2^r_j| |1/log(1 + t_i) - 1/log(1 + t_j)| log sigmoid(beta (h_i - h_j))",
    needs=("group", "ref_logp", "reward"),
    citation=Citation(
        "LiPO: Listwise Preference Optimization through Learning-to-Rank",
        (
            "Tianqi Liu",
            "Zhen Qin",
            "Junru Wu",
            "Jiaming Shen",
            "Misha Khalman",
            "Rishabh Joshi",
            "Yao Zhao",
            "Mohammad Saleh",
            "Simon Baumgartner",
            "Jialu Liu",
            "Peter J. Liu",
            "Xuanhui Wang",
        ),
        2024,
        "2402.01878",
    ),
    exceptions={"G1": "pairs are weighted by what their swap changes in DCG"},
    # s = (.3, -.1, .2), r = (1, .5, 0); ranks (1, 3, 2), D = (1/log 2, 1/log 4, 1/log 3):
    # .4225556 log(1 + e^-.4) + .5324558 log(1 + e^-.1) + .0782415 log(1 + e^.3)
    golden=[
        (
            {"beta": 1.0},
            {
                "logp": [-1.7, -2.1, -1.8],
                "ref_logp": [-2.0, -2.0, -2.0],
                "reward": [1.0, 0.5, 0.0],
                "group": [0, 0, 0],
            },
            0.6267363,
        )
    ],
)
def lipo(*, beta: float = 0.1, loss: str = "lambda", reduction: str = "sum") -> Term:
    """Learning to rank with log-ratios to the reference as scores and rewards as labels, by one of six list losses.

    Labels belong in [0, 1]. The lambda weights carry no gradient, so the loss is smooth only while no two scores change
    places; at the reference all scores are equal, and ranks follow the data's order. A list of equal labels gives 0 in
    the losses of orders; a record with a missing label does not count.

    Reconstructed: the losses are the standard ones of their names. The paper's labels may be probabilities of a ranking
    model; whether it divides by the number of pairs was not read.

    Args:
        beta: as in DPO; 0.1 is not from the source.
        loss: "lambda" (the paper's choice), "pair_logistic" (all pairs, unweighted), "list_mle" (`pl_dpo` with the
            labels' order), "softmax" (cross-entropy against the softmax of the labels), "pointwise_mse" (score against
            label), or "pointwise_ce" (sigmoid of the score against the label).
        reduction: "sum" over a list's pairs (its responses in pointwise losses), or their "mean"; a loss of whole lists
            has no parts to average.
    """
    if loss not in _LOSSES:
        raise ConfigError(f"lipo(loss={loss!r}){nearest(str(loss), _LOSSES)}")
    if loss in ("list_mle", "softmax") and reduction != "sum":
        raise ConfigError(f"lipo(loss={loss!r}) is one number per list; reduction={reduction!r} has nothing to average")
    reward = column("reward")
    link, target = {
        "lambda": lambda: (pair_logistic(ndcg_gap(), reduction), reach(reward)),
        "pair_logistic": lambda: (pair_logistic(None, reduction), reach(reward)),
        "list_mle": lambda: (plackett_luce(), reach(reward)),
        "softmax": lambda: (cross_entropy(), boltzmann(reward, 1.0)),
        "pointwise_mse": lambda: (each(expectile(0.5), reduction), reach(reward)),
        "pointwise_ce": lambda: (each(logistic(), reduction), reach(reward)),
    }[loss]()
    term = groupwise("lipo", score=log_ratio(beta), link=link, target=target)
    return 2.0 * term if loss == "pointwise_mse" else term  # expectile(0.5) is half the square
