"""DPO on rankings."""

from unipref.core.cards import Limit, get_method, method
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.lists import plackett_luce
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.targets import reach
from unipref.objectives.terms import Term, groupwise


@method(
    "pl_dpo",
    source="arXiv:2305.18290 appendix, rankings",
    status="reconstructed",
    formula="sum_k [log sum_{j >= k} e^{s_j} - s_k] over ranks k, s = beta * h",
    needs=("group", "rank", "ref_logp"),
    citation=get_method(dpo.__name__).citation,
    # s = (1, 0.5, -0.2): log(e^1 + e^0.5 + e^-0.2) - 1 + log(1 + e^-0.7)
    golden=[
        (
            {"beta": 1.0},
            {
                "logp": [-1.0, -1.5, -2.2],
                "ref_logp": [-2.0, -2.0, -2.0],
                "rank": [1, 2, 3],
                "group": [0, 0, 0],
            },
            1.0490974,
        )
    ],
    limits=[Limit({}, "dpo", note="for two responses")],
)
def pl_dpo(*, beta: float = 0.1, top: int | None = None) -> Term:
    """-log-likelihood of a ranking under Plackett and Luce, with log-ratios to the reference as rewards.

    A record with an unranked response does not count. `top=1` is the softmax cross-entropy of the best response.

    Reconstructed: the formula is the standard one; ties are not in the source. Responses of equal rank are not compared
    with each other: each is drawn against itself and the strictly worse ones.

    Args:
        beta: as in DPO.
        top: read so many places of the ranking only, for long lists with a noisy end; None reads all.
    """
    return groupwise("pl_dpo", score=log_ratio(beta), link=plackett_luce(top), target=reach(column("rank"), -1.0))
