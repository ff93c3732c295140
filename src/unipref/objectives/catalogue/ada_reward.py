"""Adaptive preference scaling of a reward model."""

from unipref.core.cards import method
from unipref.objectives.catalogue.ada_dpo import ADAPTIVE_SCALING
from unipref.objectives.discrepancies import tempered
from unipref.objectives.scores import head
from unipref.objectives.terms import Term, pairwise


@method(
    "ada_reward",
    source="arXiv:2406.02764, as in github.com/IlgeeHong/Adaptive-Preference-Scaling",
    formula="-tau * log sigmoid(dr / tau), tau = clip(|dr| / c), H(sigmoid(c)) = log 2 - rho",
    needs=("chosen", "rejected", "reward_head"),
    citation=ADAPTIVE_SCALING,
    exceptions={"G1": "there is no reference"},
    # dr = 0.2 at rho 0.1: c = 0.9434431, tau = 0.2119895, loss tau * ln(1 + e^-c)
    golden=[
        (
            {},
            {"logp_chosen": -1.0, "logp_rejected": -1.0, "reward_head_chosen": 0.5, "reward_head_rejected": 0.3},
            0.0696999,
        )
    ],
)
def ada_reward(*, rho: float = 0.1, tau_min: float = 0.1, tau_max: float | None = 1.0, quadratic: bool = False) -> Term:
    """A reward model whose pairs have a temperature each, higher where the rewards are clear: see `ada_dpo`.

    With tau_min and tau_max at 1 it is Bradley-Terry's. A port that leaves out the factor tau before the logarithm
    multiplies every gradient by 1 / tau; here the factor stands.

    Args:
        rho: as in `ada_dpo`.
        tau_min, tau_max: bounds, as in the authors' code for robots; None for no upper one.
        quadratic: as in `ada_dpo`.
    """
    return pairwise("ada_reward", score=head("reward_head"), link=tempered(rho, tau_min, tau_max, quadratic))
