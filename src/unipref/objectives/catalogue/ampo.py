"""AMPO: active multi-preference optimization, its loss."""

from unipref.core.cards import Citation, method
from unipref.objectives.catalogue.swepo import set_contrastive
from unipref.objectives.lists import set_contrast
from unipref.objectives.scores import mean_logp
from unipref.objectives.terms import Term


@method(
    "ampo",
    source="arXiv:2502.18293",
    status="reconstructed",
    formula="-log [e^u_best / (e^u_best + gamma * sum of the others' e^u)], u = beta * logp / |y| + alpha (r - mean r)",
    needs=("group", "len", "reward"),
    citation=Citation(
        "AMPO: Active Multi-Preference Optimization for Self-play Preference Selection",
        ("Taneesh Gupta", "Rahul Madhavan", "Xuchao Zhang", "Chetan Bansal", "Saravan Rajmohan"),
        2025,
        "2502.18293",
    ),
    exceptions={
        "G1": "there is no reference",
        "G4": "scores are means over tokens, so a shift of sums differs with length",
    },
    # means (-1, -2, -3), u = (-5 + 1, -10, -15 - 1): log(1 + e^-6 + e^-12)
    golden=[
        (
            {},
            {"logp": [-4.0, -4.0, -6.0], "len": [4, 2, 2], "reward": [2.0, 1.0, 0.0], "group": [0, 0, 0]},
            0.0024818,
        )
    ],
)
def ampo(*, beta: float = 5.0, alpha: float = 1.0, gamma: float = 1.0) -> Term:
    """The best-rewarded response against all that were kept, without a reference, lengths normalised.

    Which responses are kept is chosen before, as data; without a choice every response is. A constant in the rewards
    changes nothing. Responses of equal best reward are all accepted; a record whose rewards are all equal, or with one
    missing, does not count.

    Reconstructed: the loss is as a summary of the paper transcribes it, which has no gamma. The experiments tune one
    from 1 to 3; that it is the factor on the rejected set of REFA (arXiv:2412.16378v4 Eq. 6), by the same group, is an
    inference.

    Args:
        beta: of mean log-probabilities; 5 to 10 were explored.
        alpha: inverse unit of the rewards; 1 is not from the source.
        gamma: how much the other responses count beside the best; of two responses it asks a lead of log gamma. 1
            leaves it out.
    """
    return set_contrastive("ampo", mean_logp(beta), set_contrast(alpha, "signed", "best", gamma))
