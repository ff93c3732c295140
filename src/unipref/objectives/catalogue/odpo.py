"""DPO with an offset."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import difference, required_leads
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.terms import Term, pairwise

_KINDS = ("log", "log-ratio", "identity")


@method(
    "odpo",
    source="arXiv:2402.10571, as in github.com/rycolab/odpo",
    formula="-log sigmoid(beta * dh - alpha * log(reward_c - reward_r))",
    needs=("chosen", "rejected", "ref_logp", "reward"),
    citation=Citation(
        "Direct Preference Optimization with an Offset",
        ("Afra Amini", "Tim Vieira", "Ryan Cotterell"),
        2024,
        "2402.10571",
    ),
    exceptions={"G1": "the offset asks for a lead that no policy has at the reference"},
    limits=[
        Limit({"alpha": 0.0}, "dpo"),
        Limit({}, "dpo", where={"reward": 0.4}, note="of equal rewards neither response has to lead"),
    ],
    # z = 0.1 * 20 - ln(e) = 1: ln(1 + e^-1)
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "reward_chosen": 3.718281828459045,
                "reward_rejected": 1.0,
            },
            0.3132617,
        )
    ],
)
def odpo(*, beta: float = 0.1, alpha: float = 1.0, of: str = "log") -> Term:
    """DPO in which the preferred response has to lead by an offset that grows with how much better it scored.

    A gap below 1 has a negative logarithm: such pairs are easier than DPO's, and a gap near 0 hardly pulls at all, so
    the rewards' unit matters (times c is alpha * log c more for every pair). A pair that is tied, unscored, or scored
    against its label keeps its plain DPO loss; in the released code it has loss 0 or NaN.

    Args:
        beta: 0.1 is DPO's; the authors ran 0.05 to 0.7.
        alpha: the offset's size, divided by neither beta nor length.
        of: "log" of the gap; "log-ratio" of the two rewards, which must be positive; or the gap's "identity", whose
            sign a pair scored against its label keeps.
    """
    if of not in _KINDS:
        raise ConfigError(f"odpo(of={of!r}){nearest(str(of), _KINDS)}")
    reward = column("reward")
    offset = (
        (difference(reward, -alpha),) if of == "identity" else required_leads(reward, alpha, ratio=of == "log-ratio")
    )
    return pairwise("odpo", score=log_ratio(beta), offset=offset, link=logistic())
