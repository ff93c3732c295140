"""The Bradley-Terry loss of a reward model."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.discrepancies import logistic, square
from unipref.objectives.offsets import margin as constant_margin
from unipref.objectives.offsets import strength_margin
from unipref.objectives.scores import affine, head, sides
from unipref.objectives.targets import labels, smoothed
from unipref.objectives.terms import Objective, as_objective, pairwise
from unipref.objectives.weights import one, strength_weight

STRENGTHS = ("ignore", "margin", "scale")


@method(
    "bt",
    source="Bradley and Terry 1952; strengths as in NVIDIA/NeMo-Aligner; centring arXiv:2312.09244",
    formula="-|s| log sigmoid((dr - m - k s) / tau) + lambda (r_chosen + r_rejected)^2, s a strength where it is used",
    needs=("chosen", "rejected", "reward_head"),
    citation=Citation(
        "Rank Analysis of Incomplete Block Designs: I. The Method of Paired Comparisons",
        ("Ralph Allan Bradley", "Milton E. Terry"),
        1952,
        url="https://doi.org/10.2307/2334029",
    ),
    exceptions={"G1": "there is no reference"},
    golden=[
        (
            {},
            {"logp_chosen": -1.0, "logp_rejected": -1.0, "reward_head_chosen": 2.0, "reward_head_rejected": 0.0},
            0.1269280,  # ln(1 + e^-2)
        ),
        (
            {"margin": 1.0, "centring": 0.01},
            {"logp_chosen": -1.0, "logp_rejected": -1.0, "reward_head_chosen": 2.0, "reward_head_rejected": 0.0},
            0.3532617,  # ln(1 + e^-1) + 0.01 * 2^2
        ),
    ],
)
def bt(
    *,
    margin: float = 0.0,
    strength: str = "ignore",
    strength_factor: float = 1.0,
    centring: float = 0.0,
    smoothing: float = 0.0,
    temperature: float = 1.0,
) -> Objective:
    """Logistic loss on the difference of two rewards, with margins, strengths, soft labels and centring.

    A soft label, the column `preference`, weighs the pair and its swap; a tie is one half. A margin is asked of
    whichever side is labelled the winner, so a contested pair keeps its optimum at 0; it is no part of a prediction.

    Centring pulls the mean of the two rewards to 0, which the difference leaves open. It shrinks the rewards too,
    since their sum varies from pair to pair.

    Args:
        margin: lead that is asked of the winner, in rewards.
        strength: what the column `margin` of a pair is used for: nothing; as a margin times `strength_factor`; or as
            the pair's weight, its size times `strength_factor` (a pair of strength 0 then counts nothing). A pair
            without one has margin 0 and weight 1.
        strength_factor: see `strength`.
        centring: factor of the squared sum of both rewards.
        smoothing: share of labels that are taken to be wrong.
        temperature: divides the difference.
    """
    if strength not in STRENGTHS:
        raise ConfigError(f"bt(strength={strength!r}){nearest(str(strength), STRENGTHS)}")
    if not temperature > 0 or centring < 0:
        raise ConfigError(
            f"bt(temperature={temperature!r}, centring={centring!r}): the first is above 0, the second at least 0"
        )
    reward = head("reward_head")
    offset = (constant_margin(float(margin) / temperature),) if margin else ()
    if strength == "margin":
        offset += (strength_margin(float(strength_factor) / temperature),)
    loss = as_objective(
        pairwise(
            "bt",
            score=reward if temperature == 1 else affine(reward, 1.0 / temperature),
            link=logistic(),
            offset=offset,
            target=smoothed(smoothing) if smoothing else labels(),
            weight=strength_weight(float(strength_factor)) if strength == "scale" else one(),
        )
    )
    if centring:
        both = sides(chosen=reward, rejected=affine(reward, -1.0))
        loss = loss + centring * pairwise("centring", score=both, link=square(0.0), role="anchor")
    return loss
