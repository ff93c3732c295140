"""Creative preference optimization."""

from collections.abc import Mapping

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.terms import Term, pairwise
from unipref.objectives.weights import preferred_mix

_SCORES = ("diversity", "novelty", "quality", "surprise")


@method(
    "crpo_creative",
    source="arXiv:2505.14442, weights from a review and the project page",
    status="reconstructed",
    formula="-w * log sigmoid(beta * dh), w = sum_k lam_k * score_k(chosen)",
    needs=("chosen", "rejected", "ref_logp", "diversity", "novelty", "surprise", "quality"),
    citation=Citation(
        "Creative Preference Optimization",
        (
            "Mete Ismayilzada",
            "Antonio Laverghetta Jr.",
            "Simone A. Luchini",
            "Reet Patel",
            "Antoine Bosselut",
            "Lonneke van der Plas",
            "Roger Beaty",
        ),
        2025,
        "2505.14442",
    ),
    exceptions={"G1": "pairs weigh what their chosen response scores: the loss at the reference is that times log 2"},
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "diversity_chosen": 0.4,
                "novelty_chosen": 0.8,
                "surprise_chosen": 0.0,
                "quality_chosen": 0.8,
                "diversity_rejected": 0.9,
                "novelty_rejected": 0.9,
                "surprise_rejected": 0.9,
                "quality_rejected": 0.9,
            },
            0.0634640,
        )
    ],  # (0.4 + 0.8 + 0 + 0.8) / 4 = 0.5 times ln(1 + e^-2)
    limits=[Limit({}, "dpo", where={"diversity": 1.0, "novelty": 1.0, "surprise": 1.0, "quality": 1.0})],
)
def crpo_creative(*, beta: float = 0.1, weights: Mapping[str, float] | None = None) -> Term:
    """DPO in which a pair counts as much as its chosen response is diverse, novel, surprising and good.

    Scores are data, normalised to [0, 1] on the training split; both sides need them, since a soft label weighs either
    side by its own. A pair without them does not count. Twice the weights are twice the gradient, a learning rate.

    Reconstructed: the weighted sum is read in a review and confirmed by the project page; the weights per variant are
    not known, and equal ones that add up to 1 are chosen by us, so that scores of 1 give DPO.

    Args:
        beta: as in DPO.
        weights: column -> weight, not negative; default 1/4 for each of diversity, novelty, surprise and quality.
    """
    weights = dict.fromkeys(_SCORES, 0.25) if weights is None else weights
    negative = [name for name, weight in weights.items() if weight < 0]
    if negative or not weights:
        raise ConfigError(f"crpo_creative needs weights that are not negative, got {dict(weights)}")
    names = sorted(weights)
    mix = preferred_mix(tuple(map(column, names)), tuple(float(weights[name]) for name in names))
    return pairwise("crpo_creative", score=log_ratio(beta), link=logistic(), weight=mix)
