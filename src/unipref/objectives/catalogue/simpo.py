"""Simple preference optimization."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import margin
from unipref.objectives.scores import mean_logp
from unipref.objectives.terms import Term, pairwise


@method(
    "simpo",
    source="arXiv:2405.14734, as in github.com/princeton-nlp/SimPO",
    formula="-log sigmoid(beta * (logp_c / |c| - logp_r / |r|) - gamma)",
    needs=("chosen", "rejected", "len"),
    citation=Citation(
        "SimPO: Simple Preference Optimization with a Reference-Free Reward",
        ("Yu Meng", "Mengzhou Xia", "Danqi Chen"),
        2024,
        "2405.14734",
    ),
    exceptions={
        "G1": "there is no reference, and a margin",
        "G4": "scores are means over tokens, so a common shift of sums counts more in the shorter response",
    },
    golden=[
        (
            {"beta": 2.0, "gamma": 1.0},
            {"logp_chosen": -2.0, "logp_rejected": -8.0, "len_chosen": 2, "len_rejected": 4},
            0.3132617,
        )
    ],  # z = 2 (-1 + 2) - 1 = 1; ln(1 + e^-1)
)
def simpo(*, beta: float = 2.0, gamma_ratio: float | None = None, gamma: float | None = None) -> Term:
    """Logistic loss on mean log-probabilities, with a margin and without a reference.

    Args:
        beta: scale of the mean log-probability.
        gamma_ratio: the margin over beta, as in the authors' configuration; 0.5 where neither margin is given (their
            setting for Llama-3-Base, with beta 2).
        gamma: the margin itself, as in the paper's equation.
    """
    if gamma is not None and gamma_ratio is not None:
        raise ConfigError(f"simpo takes gamma or gamma_ratio, not both: {gamma} and {gamma_ratio}")
    if gamma is None:
        gamma = beta * (0.5 if gamma_ratio is None else gamma_ratio)
    return pairwise("simpo", score=mean_logp(beta), offset=(margin(gamma),), link=logistic())
