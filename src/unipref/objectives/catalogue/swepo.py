"""SWEPO: simultaneous weighted preference optimization."""

from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.objectives.lists import contested, set_contrast
from unipref.objectives.parts import Part
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.targets import reach
from unipref.objectives.terms import Term, groupwise


def set_contrastive(name: str, score: Part, link: set_contrast) -> Term:
    """A contrast of two sets, by the reward, over records whose rewards differ."""
    term = groupwise(name, score=score, link=link, target=reach(column("reward")))
    return replace(term, unit=contested("reward"))


@method(
    "swepo",
    source="arXiv:2412.04628 (SWEPO in its versions 1 to 3, MPO in version 4)",
    status="reconstructed",
    formula="-log [sum over r_i > mean r of e^u_i / sum over all of e^u_i], u = beta * h + alpha * |r - mean r|",
    needs=("group", "ref_logp", "reward"),
    citation=Citation(
        "Multi-Preference Optimization: Generalizing DPO via Set-Level Contrasts",
        ("Taneesh Gupta", "Rahul Madhavan", "Xuchao Zhang", "Nagarajan Natarajan", "Chetan Bansal", "Saravan Rajmohan"),
        2024,
        "2412.04628",
    ),
    # s = (.2, -.1, .4, 0), r = (5, 3, 2, 2), mean 3, u = (1.2, -.1, .9, .5): log(1 + e^-1.3 + e^-.3 + e^-.7)
    golden=[
        (
            {"beta": 1.0, "alpha": 0.5},
            {
                "logp": [-1.8, -2.1, -1.6, -2.0],
                "ref_logp": [-2.0, -2.0, -2.0, -2.0],
                "reward": [5.0, 3.0, 2.0, 2.0],
                "group": [0, 0, 0, 0],
            },
            0.9202570,
        )
    ],
)
def swepo(*, beta: float = 0.1, alpha: float = 1.0, bonus: str = "absolute") -> Term:
    """The responses above the record's mean reward against all, each weighted by how far it is from that mean.

    It says nothing of the order within either set. A record whose rewards are all equal, or with one missing, does not
    count.

    Reconstructed: the weights of accepted responses and the split were read; those of rejected ones and the place of
    beta are inferred. Of the rejected ones sources disagree: a review of version 4 has the absolute deviation, in line
    with the abstract, where responses far from the mean weigh more; REFA (arXiv:2412.16378v4 Eq. 5), by the same group,
    has e^(alpha (r - mean r)) on both sets. The first is the default, since it speaks of this paper.

    Args:
        beta: as in DPO; 0.1 is not from the source.
        alpha: inverse unit of the rewards; 1 is not from the source.
        bonus: "absolute" weighs the worst responses most among the rejected; "signed" least, as `ampo`.
    """
    return set_contrastive("swepo", log_ratio(beta), set_contrast(alpha, bonus))
