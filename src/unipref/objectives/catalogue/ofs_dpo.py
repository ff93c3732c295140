"""Online fast-slow chasing DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import held, logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Objective, pairwise

_MODULES = {"leader": 1.0, "chaser": -1.0}


@method(
    "ofs_dpo",
    source="arXiv:2406.05534 Eq. 6 and Algorithm 1, as cited by a re-implementation",
    status="reconstructed",
    formula="-log sigmoid(beta * dh) - alpha * log sigmoid(beta * (dh - dh_partner)), h = logp - ref_logp",
    needs=("chosen", "rejected", "ref_logp", "ref_logp.partner"),
    citation=Citation(
        "Online DPO: Online Direct Preference Optimization with Fast-Slow Chasing",
        ("Biqing Qi", "Pengfei Li", "Fangyuan Li", "Junqi Gao", "Kaiyan Zhang", "Bowen Zhou"),
        2024,
        "2406.05534",
    ),
    exceptions={"G1": "the second term compares with the partner"},
    limits=[Limit({"alpha": 0.0}, "dpo"), Limit({"module": "chaser", "alpha": 0.0}, "dpo")],
    golden=[
        # h = 20 and the partner's 10: ln(1 + e^-2) + ln(1 + e^-1)
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "ref_logp.partner_chosen": -1.0,
                "ref_logp.partner_rejected": -11.0,
            },
            0.4401897,
        ),
        # h = 10 and the leader's 20: ln(1 + e^-1) - 1/2 ln(1 + e^-1)
        (
            {"module": "chaser", "alpha": 0.5},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -11.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "ref_logp.partner_chosen": -1.0,
                "ref_logp.partner_rejected": -21.0,
            },
            0.1566308,
        ),
    ],
)
def ofs_dpo(*, beta: float = 0.1, alpha: float = 1.0, module: str = "leader", clamp: float | None = None) -> Objective:
    """DPO of one of two modules that chase each other: the leader stays ahead, the chaser takes its lead away.

    With L = -log sigmoid(beta * (dh of the leader - dh of the chaser)), the leader has DPO's loss plus alpha * L, the
    chaser DPO's minus alpha * L. So the leader is pulled by alpha * beta / 2 at equality, however far both are from the
    reference; the chaser likewise, but the further it has passed the leader the harder, up to alpha * beta: without
    `clamp` its loss has no lower bound. The partner's log-probabilities are constants of the step and have to be taken
    anew as it moves. After every interval the module with the lower mean DPO loss leads.

    Reconstructed: equation and algorithm are known from a re-implementation that cites them. It clamps margins at 10;
    that this is the margin of L, beta included, is our reading, and no clamp, as in the equation, is the default.

    Args:
        beta: as in DPO.
        alpha: coefficient of the chase; 0 leaves two runs of DPO. 1 is our choice.
        module: "leader" or "chaser", the module that this loss trains; the other one is the partner.
        clamp: the margin of L counts within this of 0, and has no gradient beyond; None lets it go on.
    """
    if module not in _MODULES:
        raise ConfigError(f"ofs_dpo(module={module!r}){nearest(str(module), _MODULES)}")
    sign = _MODULES[module]
    lead = log_ratio(sign * beta, references={"ref_logp.partner": 1.0})
    link = logistic() if clamp is None else held(logistic(), clamp)
    return dpo(beta=beta) + sign * alpha * pairwise("chase", score=lead, link=link, role="auxiliary")
