"""DPO on steps that follow one prefix."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import logistic, square
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise
from unipref.objectives.tokens import token_column, token_mean

_LOSSES = ("sigmoid", "ipo")


@method(
    "step_dpo",
    source="arXiv:2405.00451, as in github.com/YuxiXie/MCTS-DPO",
    formula="-p log sigmoid(beta * dh) - (1 - p) log sigmoid(-beta * dh), p = the column preference",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning",
        (
            "Yuxi Xie",
            "Anirudh Goyal",
            "Wenyue Zheng",
            "Min-Yen Kan",
            "Timothy P. Lillicrap",
            "Kenji Kawaguchi",
            "Michael Shieh",
        ),
        2024,
        "2405.00451",
    ),
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "preference": 0.75,
            },
            0.6269280,
        ),  # ln(1 + e^-2) + 0.25 * 2
        (
            {"loss": "ipo"},
            {
                "len_chosen": 3,
                "len_rejected": 2,
                "token_logp": [-9.0, -1.0, -2.0, -9.0, -3.0],
                "token_ref_logp": [-1.0, -2.0, -3.0, -1.0, -1.0],
                "token_fresh": [0.0, 1.0, 1.0, 0.0, 1.0],
            },
            4.0,
        ),  # (1 + 1) / 2 - (-2) = 3, and (3 - 5)^2
    ],
    limits=[
        Limit({}, "dpo"),
        Limit({"loss": "ipo"}, "ipo", {"tau": 0.1, "norm": "mean"}, where={"fresh": 1.0}),
    ],
)
def step_dpo(*, beta: float = 0.1, loss: str = "sigmoid") -> Term:
    """DPO on sibling steps of a search tree, with labels as soft as the search was undecided.

    The logistic form is DPO on the steps, since a shared prefix cancels in the difference of sums; what is new is where
    pairs and labels come from. `preference` is 1 - eps, eps = min(1/2, N_r / (max(1, N_c) + N_r)) from the visits of
    the two steps; at 1/2 the pair says nothing, and elsewhere the optimum is at beta * dh = log((1 - eps) / eps).

    Args:
        beta: as in DPO; 0.1 as in the authors' scripts.
        loss: "sigmoid", or "ipo": (dm - 1 / (2 beta))^2 on log-ratios averaged over each response's own tokens, those
            from the first on which the two differ (the token column `fresh`).
    """
    if loss not in _LOSSES:
        raise ConfigError(f"step_dpo(loss={loss!r}){nearest(str(loss), _LOSSES)}")
    if loss == "ipo":
        return pairwise("step_dpo", score=token_mean(token_column("fresh")), link=square(at=1 / (2 * beta)))
    return pairwise("step_dpo", score=log_ratio(beta), link=logistic())
