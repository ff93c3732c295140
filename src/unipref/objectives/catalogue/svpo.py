"""Step-level value preference optimization."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import expectile, hinge
from unipref.objectives.scores import column, head
from unipref.objectives.targets import reach
from unipref.objectives.terms import Objective, pairwise, pointwise


@method(
    "svpo",
    source="arXiv:2406.10858; the value head as in github.com/MARIO-Math-Reasoning/Super_MARIO",
    status="reconstructed",
    formula="-log sigmoid(beta * dh) + c_V * (V - q)^2 + c_R * max(0, gamma - (V_c - V_r)), V at a step's last token",
    needs=("chosen", "rejected", "ref_logp", "q", "step_value"),
    citation=Citation(
        "Step-level Value Preference Optimization for Mathematical Reasoning",
        ("Guoxin Chen", "Minpeng Liao", "Chengxi Li", "Kai Fan"),
        2024,
        "2406.10858",
    ),
    exceptions={"G1": "the value head's two terms are added"},
    golden=[
        (
            {"gamma": 1.5},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "q_chosen": 1.0,
                "q_rejected": -1.0,
                "step_value_chosen": 0.5,
                "step_value_rejected": -0.5,
            },
            0.8769280,
        )
    ],  # ln(1 + e^-2) + (0.25 + 0.25) / 2 + (1.5 - 1)
    limits=[Limit({"value_coefficient": 0.0, "rank_coefficient": 0.0}, "dpo")],
)
def svpo(
    *,
    beta: float = 0.1,
    gamma: float = 0.1,
    value_coefficient: float = 1.0,
    rank_coefficient: float = 1.0,
) -> Objective:
    """DPO on sibling steps of a search tree, and a value head that fits the steps' Q-values and ranks the siblings.

    The two responses are steps that follow one prefix; the value is read at a step's last token and nowhere else, in
    (-1, 1) like the tree's Q. A step without a Q enters the comparison only. The value's gradient reaches the model.

    Reconstructed: tree, head and its square loss are read in code of the same group, the ranking term in a review; the
    step loss is taken to be DPO's, and gamma, beta and both coefficients are chosen by us.

    Args:
        beta: as in DPO.
        gamma: by how much the better step's value should lead.
        value_coefficient: c_V.
        rank_coefficient: c_R.
    """
    value = head("step_value")
    fit = pointwise("step_value", score=value, target=reach(column("q")), link=expectile(0.5), role="state")
    rank = pairwise("step_rank", score=value, link=hinge(at=gamma), role="state")
    return dpo(beta=beta) + 2.0 * value_coefficient * fit + rank_coefficient * rank  # 2 * u^2 / 2
