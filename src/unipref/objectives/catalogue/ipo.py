"""Identity preference optimization."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import square
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise

_LENGTH_EXPONENT = {"sum": 0.0, "mean": 1.0}


@method(
    "ipo",
    source="arXiv:2310.12036 Eq. 17",
    formula="(dh - 1 / (2 tau))^2, h summed or averaged over tokens",
    needs=("chosen", "rejected", "ref_logp"),
    citation=Citation(
        "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        (
            "Mohammad Gheshlaghi Azar",
            "Mark Rowland",
            "Bilal Piot",
            "Daniel Guo",
            "Daniele Calandriello",
            "Michal Valko",
            "Rémi Munos",
        ),
        2023,
        "2310.12036",
    ),
    exceptions={"G1": "the loss at the reference is 1 / (4 tau^2), from its square link"},
    golden=[
        (
            {"tau": 0.1},
            {"logp_chosen": -1.0, "logp_rejected": -4.0, "ref_logp_chosen": -2.0, "ref_logp_rejected": -2.0},
            4.0,
        ),  # (3 - 5)^2
        (
            {"tau": 0.1, "norm": "mean"},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -4.0,
                "ref_logp_chosen": -2.0,
                "ref_logp_rejected": -2.0,
                "len_chosen": 2,
                "len_rejected": 4,
            },
            16.0,
        ),
    ],  # (1/2 + 2/4 - 5)^2
)
def ipo(*, tau: float = 0.1, norm: str = "sum") -> Term:
    """Square loss that pulls the difference of log-ratios to 1 / (2 tau), and no further.

    Written as (tau * dh - 1/2)^2 / tau^2, so that tau * h is the implicit reward, as beta * h is for DPO.

    Args:
        tau: regularisation; the default is that of the HALOs configuration.
        norm: "sum" takes h as printed in the paper, where its closed-form optimum holds and 1 / (2 tau) counts nats of
            a response; "mean" divides h by the response's tokens, as TRL does with the authors' word for it. A tau
            tuned for one does not fit the other.
    """
    if norm not in _LENGTH_EXPONENT:
        raise ConfigError(f"ipo(norm={norm!r}){nearest(str(norm), _LENGTH_EXPONENT)}")
    return (1 / tau**2) * pairwise("ipo", score=log_ratio(tau, eta=_LENGTH_EXPONENT[norm]), link=square(at=0.5))
