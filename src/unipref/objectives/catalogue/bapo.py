"""Base-anchored preference optimization."""

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import hinge, logistic
from unipref.objectives.scores import affine, beside, log_ratio, plus, shortfall, sides
from unipref.objectives.terms import Objective, Term, pairwise, pointwise

_PLACES = ("outside", "inside")


@method(
    "bapo",
    source="arXiv:2407.00693, structure",
    status="reconstructed",
    formula="-log sigmoid(beta * dh) + lam * max(0, ref_logp_base - logp_base)",
    needs=("chosen", "rejected", "ref_logp", "base"),
    citation=Citation(
        "BAPO: Base-Anchored Preference Optimization for Overcoming Forgetting in Large Language Models "
        "Personalization",
        ("Gihun Lee", "Minchan Jeong", "Yujin Kim", "Hojung Jung", "Jaehoon Oh", "Sangmook Kim", "Se-Young Yun"),
        2024,
        "2407.00693",
    ),
    exceptions={
        "L2": "its anchor keeps the base answer's likelihood from falling",
        "G1": "its anchor is added; where the base answer too stands at its reference it is 0",
        "G4": "its anchor keeps the base answer's likelihood from falling",
    },
    golden=[
        (
            {},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "logp_base": -3.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "ref_logp_base": -1.0,
            },
            2.1269280,
        ),  # ln(1 + e^-2) + 2
        (
            {"place": "inside", "lam": 0.5},
            {
                "logp_chosen": -1.0,
                "logp_rejected": -21.0,
                "logp_base": -3.0,
                "ref_logp_chosen": -1.0,
                "ref_logp_rejected": -1.0,
                "ref_logp_base": -1.0,
            },
            0.3132617,
        ),  # z = 2 - 0.5 * 2 = 1; ln(1 + e^-1)
    ],
    limits=[Limit({"lam": 0.0}, "dpo"), Limit({"lam": 0.0, "place": "inside"}, "dpo")],
)
def bapo(*, beta: float = 0.1, lam: float = 1.0, place: str = "outside") -> Term | Objective:
    """DPO, and a hinge that keeps the reference model's own answer as likely as it was.

    The answer in the role `base` is generated before training. It is the dataset's chosen response in DPOP, which is
    another method. Log-probabilities are sums, so lam weighs long answers more. At the first step the hinge stands at
    its corner, where its gradient is 0: the step is DPO's.

    Reconstructed: that an anchor on the base model's own answer is added to DPO is read in the abstract; its form, its
    place, lam and beta are inferred, and the place is an option.

    Args:
        beta: as in DPO.
        lam: coefficient of the anchor, chosen by us.
        place: "outside": a term of its own; "inside": -log sigmoid(beta * dh - lam * hinge), whose pull fades as the
            pair is won.
    """
    if place not in _PLACES:
        raise ConfigError(f"bapo(place={place!r}){nearest(str(place), _PLACES)}")
    if lam < 0:
        raise ConfigError(f"lam must not be negative: {lam} would push the base answer down")
    if place == "outside":
        anchor = pointwise("base_anchor", score=log_ratio(), of="base", link=hinge(at=0.0), role="anchor")
        return dpo(beta=beta) + lam * anchor
    hold = affine(beside(shortfall(log_ratio()), "base"), -lam)
    return pairwise("bapo", score=sides(plus(log_ratio(beta), hold), log_ratio(beta)), link=logistic())
