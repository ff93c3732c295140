"""Sequential preference optimization."""

from collections.abc import Sequence

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError
from unipref.objectives.bounds import frozen
from unipref.objectives.discrepancies import logistic
from unipref.objectives.offsets import difference
from unipref.objectives.scores import log_ratio
from unipref.objectives.terms import Term, pairwise


@method(
    "spo_sequential",
    source="arXiv:2405.12739, its constraints from a review",
    status="reconstructed",
    formula="-log sigmoid(beta * dh - sum_i mu_i * dR_i), R_i = beta_i * log(pi_i / pi_i-1) - sum_k<i mu_k * R_k",
    needs=("chosen", "rejected", "ref_logp", "ref_logp.0"),
    citation=Citation(
        "SPO: Multi-Dimensional Preference Sequential Alignment With Implicit Reward Modeling",
        ("Xingzhou Lou", "Junge Zhang", "Jian Xie", "Lifeng Liu", "Dong Yan", "Kaiqi Huang"),
        2024,
        "2405.12739",
    ),
    exceptions={"G1": "earlier rewards shift the pair"},
    limits=[Limit({"mu": (0.0,)}, "dpo")],
    # beta dh = 2; R_1 = 0.1 (-1 + 11) = 1 ahead, of which mu takes half: z = 1.5
    golden=[
        (
            {"mu": (0.5,)},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "ref_logp.0_chosen": -11.0,
                "ref_logp.0_rejected": -1.0,
            },
            0.2014133,
        )
    ],
)
def spo_sequential(*, beta: float = 0.1, mu: Sequence[float] = (0.1,), betas: Sequence[float] | None = None) -> Term:
    """DPO from the last round's policy that keeps the rewards of earlier rounds, each implicit in its round's policy.

    Round n maximises R_n + sum_i mu_i * R_i within a divergence from pi_n-1, so beta * log(pi / pi_n-1) is that sum.
    A preference of dimension n speaks of R_n alone, so the earlier rewards are subtracted. A pair that agrees with them
    starts below 0 and pulls harder; one that goes against them pulls less. The last round's policy is "ref_logp", those
    before it are "ref_logp.0" (the start), "ref_logp.1" and so on.

    Reconstructed: the constraints are as a review of the paper tells them; the loss is derived from them, and the value
    of mu is ours.

    Args:
        mu: weight of the reward of each earlier round, from the first; n - 1 of them in round n.
        betas: beta of each earlier round; `beta` for all where not given. Earlier rounds have had the same mu.
    """
    weights = tuple(float(m) for m in mu)
    past = (float(beta),) * len(weights) if betas is None else tuple(float(b) for b in betas)
    if not weights or len(past) != len(weights):
        raise ConfigError(
            f"mu has a number for each earlier round, at least one, and betas as many: {len(weights)} and {len(past)}"
        )
    policies = (*(f"ref_logp.{i}" for i in range(len(weights))), "ref_logp")
    rewards: list[dict[str, float]] = []  # of each earlier round, as weights of the policies
    for i, b in enumerate(past):
        reward = {policies[i + 1]: b, policies[i]: -b}
        for m, earlier in zip(weights, rewards, strict=False):
            for name, weight in earlier.items():
                reward[name] = reward.get(name, 0.0) - m * weight
        rewards.append(reward)
    total = {name: sum(m * r.get(name, 0.0) for m, r in zip(weights, rewards, strict=True)) for name in policies}
    kept = difference(frozen(tuple(total.items())), -1.0)
    return pairwise("spo_sequential", score=log_ratio(beta), offset=(kept,), link=logistic())
