"""Triple preference optimization, length-controlled."""

from unipref.core.cards import Limit, method
from unipref.objectives.catalogue.tpo_triple import CITATION
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import margin
from unipref.objectives.scores import logp, mean_logp
from unipref.objectives.terms import Objective, nll, pairwise


@method(
    "tpo_l",
    source="arXiv:2405.16681, as in the authors' code and TRL 1.16",
    formula="-log sigmoid(beta * (logp_c / |c| - logp_r / |r|) - gamma) - alpha * sum(logp_gold) / sum(|gold|)",
    needs=("chosen", "rejected", "gold", "len"),
    citation=CITATION,
    exceptions={
        "L2": "its anchor raises the gold response's likelihood",
        "G1": "there is no reference",
        "G4": "a constant is shared unequally by two lengths, and its anchor raises the gold likelihood",
    },
    golden=[
        (
            {"beta": 2.0, "gamma": 1.0, "alpha": 0.5},
            {
                "logp_chosen": -2.0,
                "logp_rejected": -8.0,
                "logp_gold": -6.0,
                "len_chosen": 2,
                "len_rejected": 4,
                "len_gold": 3,
            },
            1.3132617,
        )
    ],  # z = 2 (-1 + 2) - 1 = 1; ln(1 + e^-1) + 0.5 * 6/3
    limits=[Limit({"alpha": 0.0, "beta": 2.0, "gamma": 1.0}, "simpo", {"beta": 2.0, "gamma": 1.0})],
)
def tpo_l(*, beta: float = 10.0, gamma: float = 3.0, alpha: float = 0.05) -> Objective:
    """Logistic loss on mean log-probabilities with a margin, and likelihood of a third, gold response.

    Args:
        beta: scale of the mean log-probabilities. The defaults are the authors' for Llama-3-Instruct; for Mistral they
            give beta 2, gamma 1.6 and alpha 0.05 to 1.
        gamma: the margin, in the logistic's own units.
        alpha: coefficient of the gold likelihood, a mean over the step's gold tokens.
    """
    anchor = nll(of="gold", score=logp(), per="token")
    return pairwise("tpo_l", score=mean_logp(beta), offset=(margin(gamma),), link=logistic()) + alpha * anchor
