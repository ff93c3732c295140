"""NCA: noise contrastive alignment, response by response."""

from unipref.core.cards import method
from unipref.objectives.catalogue.infonca import NCA, contrastive
from unipref.objectives.lists import noise_contrast
from unipref.objectives.terms import Term


@method(
    "nca",
    source="arXiv:2402.05369, as in github.com/thu-ml/Noise-Contrastive-Alignment",
    formula="-sum_i [q_i log sigmoid(s_i) + log sigmoid(-s_i) / K], s = beta * h, q = softmax(reward / alpha)",
    needs=("group", "ref_logp", "reward"),
    citation=NCA,
    exceptions={
        "L2": "responses are judged one by one",
        "G1": "two binary questions: the loss at the reference is 2 log 2",
        "G4": "responses are judged one by one; a common fall is what it prevents",
    },
    # s = (1, 0, -1), q = (2, 1, 1) / 4, sp(z) = log(1 + e^z):
    # (2 sp(-1) + sp(0) + sp(1)) / 4 + (sp(1) + sp(0) + sp(-1)) / 3
    golden=[
        (
            {"beta": 1.0, "alpha": 1.0},
            {
                "logp": [-1.0, -2.0, -3.0],
                "ref_logp": [-2.0, -2.0, -2.0],
                "reward": [0.6931471805599453, 0.0, 0.0],
                "group": [0, 0, 0],
            },
            1.4314566,
        )
    ],
)
def nca(*, beta: float = 0.01, alpha: float = 1e-4, target: str = "rewards") -> Term:
    """Is a response the policy's or the reference's: asked of the rewarded ones, and of all as noise, one by one.

    It is least at s_i = log(K q_i), so a chosen response's likelihood has a finite aim above the reference's, where DPO
    and `infonca` are indifferent to a fall of all. With hard labels a pair's aim is log 2 for the chosen side, and the
    rejected side falls on. A record with a missing reward does not count.

    Args:
        beta: as in DPO; the authors' value.
        alpha: unit of the rewards, as in `infonca`.
        target: "rewards", or "labels": each response's share of the record's comparisons won; of plain pairs the label.
    """
    return contrastive("nca", noise_contrast(), beta, alpha, target)
