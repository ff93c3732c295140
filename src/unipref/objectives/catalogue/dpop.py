"""DPO-Positive."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError
from unipref.objectives.bounds import kinked
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio, sides
from unipref.objectives.terms import Term, pairwise


@method(
    "dpop",
    source="arXiv:2402.13228, as in github.com/LuJunru/SamPO",
    formula="-log sigmoid(beta * (dh - lam * max(0, ref_logp_c - logp_c)))",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive",
        ("Arka Pal", "Deep Karkhanis", "Samuel Dooley", "Manley Roberts", "Siddartha Naidu", "Colin White"),
        2024,
        "2402.13228",
    ),
    exceptions={
        "L2": "the chosen response must not fall below its reference",
        "G4": "the chosen response must not fall below its reference",
    },
    limits=[Limit({"lam": 0.0}, "dpo")],
    # h = -0.5 and -2: z = 0.1 * (1.5 - 50 * 0.5) = -2.35
    golden=[
        (
            {},
            {"logp_chosen": -4.5, "logp_rejected": -6.0, "ref_logp_chosen": -4.0, "ref_logp_rejected": -4.0},
            2.4410914,
        )
    ],
)
def dpop(*, beta: float = 0.1, lam: float = 50.0) -> Term:
    """DPO with a heavy penalty, inside the sigmoid, on a chosen response that became less likely than its reference.

    The penalty is multiplied by beta, as in SamPO's implementation. At the reference the gradient is DPO's.

    Args:
        beta: DPO's, not from the source.
        lam: how many times a fall of the chosen response counts beside the margin.
    """
    if lam < 0:
        raise ConfigError(f"lam must not be negative: {lam} would reward a fall of the chosen response")
    score = sides(chosen=kinked(log_ratio(beta), below=1 + lam), rejected=log_ratio(beta))
    return pairwise("dpop", score=score, link=logistic())
