"""DPO-Shift."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import logistic
from unipref.objectives.schedules import ramp
from unipref.objectives.scores import log_ratio, scaled, sides
from unipref.objectives.terms import Term, pairwise

_SCHEDULES = ("fixed", "increase_linear", "decrease_linear")


@method(
    "dpo_shift",
    source="arXiv:2502.07599, as in github.com/Meaquadddd/DPO-Shift",
    formula="-log sigmoid(beta * (h_c - lam * h_r)), h = logp - ref_logp",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "DPO-Shift: Shifting the Distribution of Direct Preference Optimization",
        ("Xiliang Yang", "Feng Jiang", "Qianen Zhang", "Lei Zhao", "Xiao Li"),
        2025,
        "2502.07599",
    ),
    exceptions={
        "L2": "the rejected response counts less than the chosen one",
        "G4": "the rejected response counts less than the chosen one",
    },
    limits=[
        Limit({"lam": 1.0}, "dpo"),
        Limit({"lam": 0.4}, "flex_dpo", {"beta_chosen": 0.1, "beta_rejected": 0.04}),
    ],
    # h = 3 and 2: z = 0.1 * (3 - 0.7 * 2) = 0.16
    golden=[
        (
            {},
            {"logp_chosen": -1.0, "logp_rejected": -2.0, "ref_logp_chosen": -4.0, "ref_logp_rejected": -4.0},
            0.6163438,
        )
    ],
)
def dpo_shift(
    *, beta: float = 0.1, lam: float = 0.7, schedule: str = "fixed", lam_min: float = 0.5, lam_max: float = 1.0
) -> Term:
    """DPO in which the rejected log-ratio counts `lam` times: less margin, and less fall of the chosen response.

    From the reference the rejected response gets exactly `lam` times the chosen one's gradient.

    Args:
        beta: the trainer's default; the authors' UltraFeedback recipe has 0.01.
        lam: of the fixed schedule, in [0, 1]; 0.7 is that recipe's, the trainer's own default of 1 is DPO.
        schedule: "fixed"; "increase_linear" from lam_min to lam_max over the run; "decrease_linear" back.
        lam_min, lam_max: ends of the linear schedules.
    """
    if schedule not in _SCHEDULES:
        raise ConfigError(f"dpo_shift(schedule={schedule!r}){nearest(str(schedule), _SCHEDULES)}")
    for name, value in (("lam", lam), ("lam_min", lam_min), ("lam_max", lam_max)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} must be in [0, 1], got {value}; above 1 the rejected response would count more")
    rejected = {
        "fixed": log_ratio(beta * lam),
        "increase_linear": scaled(log_ratio(beta), by=ramp(lam_min, lam_max)),
        "decrease_linear": scaled(log_ratio(beta), by=ramp(lam_max, lam_min)),
    }[schedule]
    return pairwise("dpo_shift", score=sides(chosen=log_ratio(beta), rejected=rejected), link=logistic())
