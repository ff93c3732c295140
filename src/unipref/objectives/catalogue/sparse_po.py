"""Sparse preference optimization."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.scores import plus
from unipref.objectives.terms import Objective, Term, as_objective, pairwise, pointwise
from unipref.objectives.tokens import token_column, token_score, token_sum

SPARSE_PO = Citation(
    "SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks",
    ("Fenia Christopoulou", "Ronald Cardenas", "Gerasimos Lampouras", "Haitham Bou-Ammar", "Jun Wang"),
    2024,
    "2410.05102",
)
EXCEPTIONS = dict.fromkeys(("L2", "G4"), "a shift reaches the tokens, which weigh differently")
ONE_TOKEN = {  # one token each, the first and the second of rho = (.5, .25, .25), pi = (.6, .3, .1) and (.2, .5, .3)
    "len_chosen": 1,
    "len_rejected": 1,
    "token_logp": [-0.5108256238, -0.6931471806],
    "token_ref_logp": [-0.6931471806, -1.386294361],
    "token_kl": [0.0923315, 0.2392782],
}
_MASKS = ("common", "independent")


def masked(name: str, beta: float, reward: token_column, kl: token_column) -> Term:
    """A pair of masked log-ratios with the masked divergence of each response to the reference, in nats times beta."""
    divergence = token_sum(token_column("kl", live=True), beta, kl)
    return pairwise(name, score=plus(token_score(beta, reward), divergence))


@method(
    "sparse_po",
    source="arXiv:2410.05102, as in github.com/huawei-noah/HEBO (SparsePO, sparse_trainer.py)",
    formula="-log sigmoid(beta (du + dd)) + lam_u |m_u| + lam_d |m_d|, u = sum m_u (logp - ref_logp), d = sum m_d KL",
    needs=("chosen", "rejected", "ref_logp", "kl", "reward_mask"),
    citation=SPARSE_PO,
    exceptions=EXCEPTIONS,
    # one token each, rho = (.5, .25, .25), pi = (.6, .3, .1) and (.2, .5, .3), beta .8, masks 1:
    # dl = ln(.6/.5) - ln(.5/.25) = -0.5108256, KL = 0.0923315 and 0.2392782, so z = .8 (-0.5108256 - 0.1469467)
    golden=[
        (
            {"beta": 0.8},
            {**ONE_TOKEN, "token_reward_mask": [1.0, 1.0]},
            0.9904771,
        )
    ],
)
def sparse_po(*, beta: float = 0.1, masks: str = "common", lam_u: float = 0.0, lam_d: float = 0.0) -> Term | Objective:
    """Token-level DPO in which a small network on the reference's hidden states says how much each token counts.

    The networks end in a ReLU, so they can say exactly 0. They are trained with the policy and saved beside it. The
    reference is run live, since its hidden states and whole distributions are read. What is logged as implicit reward
    contains the masked divergence.

    With masks of 1 it is the first form of TDPO; with a divergence mask of 0 besides, DPO.

    Args:
        beta: 0.1 for dialogue in the authors' README, 0.8 for sentiment and summaries.
        masks: "common" weighs log-ratios and divergences alike, "independent" trains a mask for each.
        lam_u: coefficient of the sum of the weights on log-ratios; 0.001 in the authors' dialogue runs.
        lam_d: the same for the divergence. With one common mask, half of both sums is taken.
    """
    if masks not in _MASKS:
        raise ConfigError(f"sparse_po(masks={masks!r}){nearest(str(masks), _MASKS)}")
    reward = token_column("reward_mask", live=True)
    kl = reward if masks == "common" else token_column("kl_mask", live=True)
    found = as_objective(masked("sparse_po", beta, reward, kl))
    share = 0.5 if masks == "common" else 1.0
    for name, lam, mask in (("reward_sparsity", lam_u, reward), ("kl_sparsity", lam_d, kl)):
        if lam:  # weights are at least 0; both responses of a pair count, and a row is a response
            found = found + 2 * share * lam * pointwise(name, score=token_sum(mask, -1.0), role="state")
    return found if len(found.terms) > 1 else found.terms[0]
