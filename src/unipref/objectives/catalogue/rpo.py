"""Reward-aware preference optimization."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.lists import kl_bwd, kl_fwd, squared_gaps
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.targets import log_ratio_of, reach
from unipref.objectives.terms import Objective, Term, groupwise, nll, pairwise

_DISTANCES = {"bwd": kl_bwd(), "fwd": kl_fwd(), "sq": squared_gaps()}
_UNITS = {"pair": pairwise, "group": groupwise}


@method(
    "rpo",
    source="arXiv:2502.00203, as in github.com/NVIDIA/NeMo-Aligner",
    status="reconstructed",
    formula="D[beta * dh || eta * dr], bwd: KL(sigmoid(eta dr) || sigmoid(beta dh)), fwd: the other way, sq: squared",
    needs=("chosen", "rejected", "ref_logp", "reward"),
    citation=Citation(
        "Reward-aware Preference Optimization: A Unified Mathematical Framework for Model Alignment",
        (
            "Shengyang Sun",
            "Yian Zhang",
            "Alexander Bukharin",
            "David Mosallanezhad",
            "Jiaqi Zeng",
            "Soumye Singhal",
            "Gerald Shen",
            "Adithya Renduchintala",
            "Tugrul Konuk",
            "Yi Dong",
            "Zhilin Wang",
            "Dmitry Chichkov",
            "Olivier Delalleau",
            "Oleksii Kuchaiev",
        ),
        2025,
        "2502.00203",
    ),
    exceptions={"G1": "the loss at the reference is the distance to the rewards' gap, 0 where they are equal"},
    # a = 0.2 * 5 = 1, b = 0: KL(1/2 || sigmoid(1)) = -log 2 + (log(1 + e^-1) + log(1 + e)) / 2; squared 1
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -6.0,
                "ref_logp_chosen": -2.0,
                "ref_logp_rejected": -2.0,
                "reward_chosen": 0.5,
                "reward_rejected": 0.5,
            },
            0.1201145,
        ),
        (
            {"distance": "sq", "eta": 2.0},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -6.0,
                "ref_logp_chosen": -2.0,
                "ref_logp_rejected": -2.0,
                "reward_chosen": 1.0,
                "reward_rejected": 0.0,
            },
            1.0,
        ),
    ],
)
def rpo(
    *,
    beta: float = 0.2,
    eta: float = 1.0,
    distance: str = "bwd",
    unit: str = "pair",
    rewards: str = "explicit",
    target_beta: float = 0.2,
    norm: str = "sum",
    sft_weight: float = 0.0,
) -> Term | Objective:
    """The gap of implicit rewards is brought to the gap of rewards, by one of three distances.

    A pair with a small reward gap keeps a small margin, where DPO drives every margin up. A pair (with "group", a
    record) with a missing reward does not count; the authors' code takes 1 and 0 there. "RPO" also names other methods.

    Reconstructed: pairs are as in the authors' code; the form for whole lists is ours, chosen so that a list of two is
    a pair: softmaxes instead of sigmoids, and for "sq" the mean over the list's pairs, 2 K / (K - 1) times the variance
    of beta * h - eta * r.

    Args:
        beta: as in DPO; 0.2 in the authors' code.
        eta: scale of the rewards.
        distance: "bwd" puts the target first in the KL and covers its mass, "fwd" the policy, "sq" squares the
            difference; the words are the authors'.
        unit: "pair": every comparison of the data; "group": all responses of a record at once.
        rewards: "explicit": the column `reward`; "implicit": target_beta * (ref_logp.target - ref_logp), the reward
            that another model, the reference named `target`, implies.
        target_beta: the beta with which that model was trained; 0.2 is not from the source.
        norm: of log-probabilities (explicit rewards stay): "sum", or "mean" over each response's tokens.
        sft_weight: of the chosen responses' likelihood (mean over tokens) as a further term; 0 leaves it out.
    """
    known = {"sum": 0.0, "mean": 1.0}
    for name, choice, choices in (
        ("distance", distance, _DISTANCES),
        ("unit", unit, _UNITS),
        ("rewards", rewards, ("explicit", "implicit")),
        ("norm", norm, known),
    ):
        if choice not in choices:
            raise ConfigError(f"rpo({name}={choice!r}){nearest(str(choice), choices)}")
    implicit = log_ratio_of("ref_logp.target", mean=norm == "mean")
    term = _UNITS[unit](
        "rpo",
        score=log_ratio(beta, eta=known[norm]),
        link=_DISTANCES[distance],
        target=reach(column("reward"), eta) if rewards == "explicit" else reach(implicit, eta * target_beta),
    )
    return term if sft_weight == 0 else term + sft_weight * nll()
