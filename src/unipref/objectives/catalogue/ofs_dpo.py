"""Online fast-slow chasing DPO."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.bounds import frozen
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import brier
from unipref.objectives.scores import log_ratio
from unipref.objectives.targets import win_probability
from unipref.objectives.terms import Objective, pairwise

_MODULES = ("fast", "slow")
_PARTNER = "ref_logp.partner"


@method(
    "ofs_dpo",
    source="arXiv:2406.05534, from its abstract and a secondary summary",
    status="reconstructed",
    formula="-log sigmoid(beta * dh) - lam * log sigmoid(beta * (dh - dh_partner)), h = logp - ref_logp",
    needs=("chosen", "rejected", "ref_logp", "ref_logp.partner"),
    citation=Citation(
        "Online DPO: Online Direct Preference Optimization with Fast-Slow Chasing",
        ("Biqing Qi", "Pengfei Li", "Fangyuan Li", "Junqi Gao", "Kaiyan Zhang", "Bowen Zhou"),
        2024,
        "2406.05534",
    ),
    exceptions={"G1": "the second term compares with the partner"},
    limits=[Limit({"lam": 0.0}, "dpo"), Limit({"module": "slow", "lam": 0.0}, "dpo")],
    # h = 20 and the partner's 10: ln(1 + e^-2) + ln(1 + e^-1)
    golden=[
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
        )
    ],
)
def ofs_dpo(*, beta: float = 0.1, lam: float = 1.0, module: str = "fast") -> Objective:
    """DPO of one of two modules that chase each other: the fast one stays ahead, the slow one closes the gap.

    Reconstructed: two modules of different learning rates whose gap in preference probability enters the loss are the
    paper's; both coupling terms and `lam` are our reading. The fast module has a logistic loss on its lead over the
    partner, which pulls by lam * beta / 2 at equality however far both are from the reference; the slow one has the
    squared gap of the two probabilities. The partner's log-probabilities are constants of the step and have to be taken
    anew as it moves.

    Args:
        beta: as in DPO.
        lam: coefficient of the coupling; 0 leaves two runs of DPO.
        module: "fast" or "slow", the module that this loss trains; the other one is the partner.
    """
    if module not in _MODULES:
        raise ConfigError(f"ofs_dpo(module={module!r}){nearest(str(module), _MODULES)}")
    if module == "fast":
        lead = log_ratio(beta, references={_PARTNER: 1.0})
        return dpo(beta=beta) + lam * pairwise("chase", score=lead, role="auxiliary")
    partner = win_probability(frozen(((_PARTNER, beta), ("ref_logp", -beta))))
    return dpo(beta=beta) + lam * pairwise(
        "chase", score=log_ratio(beta), target=partner, link=brier(), role="auxiliary"
    )
