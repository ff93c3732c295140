"""Adaptive preference scaling."""

from unipref.core.cards import Citation, Limit, method
from unipref.objectives.discrepancies import tempered
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise

ADAPTIVE_SCALING = Citation(
    "Adaptive Preference Scaling for Reinforcement Learning with Human Feedback",
    (
        "Ilgee Hong",
        "Zichong Li",
        "Alexander Bukharin",
        "Yixiao Li",
        "Haoming Jiang",
        "Tianbao Yang",
        "Tuo Zhao",
    ),
    2024,
    "2406.02764",
)


@method(
    "ada_dpo",
    source="arXiv:2406.02764, as in github.com/IlgeeHong/Adaptive-Preference-Scaling",
    formula="-tau * log sigmoid(beta * dh / tau), tau = clip(|beta * dh| / c), H(sigmoid(c)) = log 2 - rho",
    needs=("chosen", "rejected", "ref_logp"),
    citation=ADAPTIVE_SCALING,
    exceptions={"G1": "at the reference tau stands at its lower bound, and the loss is tau_min * log 2"},
    limits=[Limit({"tau_min": 1.0, "tau_max": 1.0}, "dpo")],
    # z = 2 at rho 0.1: c = 0.9434431, tau = 2 / c = 2.1198946, loss 2.1198946 * ln(1 + e^-c)
    golden=[
        (
            {},
            {"logp_chosen": -1.0, "logp_rejected": -21.0, "ref_logp_chosen": -1.0, "ref_logp_rejected": -1.0},
            0.6969988,
        )
    ],
)
def ada_dpo(
    *,
    beta: float = 0.1,
    rho: float = 0.1,
    tau_min: float = 0.1,
    tau_max: float | None = 5.0,
    quadratic: bool = False,
) -> Term:
    """DPO with a temperature per pair: clear pairs keep pulling, doubtful ones pull less.

    The temperature solves its inner problem exactly, where the released code takes five Newton steps that need not
    arrive unless rho is near 0.1; it takes no gradient. Between the bounds the loss is linear in the margin. The two
    terms of the inner problem without a gradient are left out, as in the authors' code for language models.

    Args:
        rho: radius of the inner problem, the paper's rho_0; log 2 or more makes every temperature tau_min (where
            quadratic, log 2 / (2 tau_min) or more). The authors' runs have 0.1, their trainer's own default is 0.2.
        tau_min, tau_max: bounds; None for no upper one.
        quadratic: rho * tau^2 in place of rho * tau in the inner problem; bounded in the authors' code for language
            models, without upper bound in that for robots.
    """
    return pairwise("ada_dpo", score=log_ratio(beta), link=tempered(rho, tau_min, tau_max, quadratic))
