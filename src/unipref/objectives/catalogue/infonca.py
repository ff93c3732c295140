"""InfoNCA: noise contrastive alignment by a softmax over a prompt's responses."""

from dataclasses import replace

from unipref.core.cards import Citation, Limit, method
from unipref.core.errors import ConfigError, nearest
from unipref.objectives.lists import ListLoss, compared, cross_entropy
from unipref.objectives.scores import column, log_ratio
from unipref.objectives.targets import boltzmann, labels
from unipref.objectives.terms import Term, groupwise

NCA = Citation(
    "Noise Contrastive Alignment of Language Models with Explicit Rewards",
    ("Huayu Chen", "Guande He", "Lifan Yuan", "Ganqu Cui", "Hang Su", "Jun Zhu"),
    2024,
    "2402.05369",
)


def contrastive(name: str, link: ListLoss, beta: float, alpha: float, target: str) -> Term:
    """A contrast of a record's responses with the shares that rewards or labels give them."""
    if target not in ("rewards", "labels"):
        raise ConfigError(f"{name}(target={target!r}){nearest(str(target), ('rewards', 'labels'))}")
    term = groupwise(name, score=log_ratio(beta), link=link, target=boltzmann(column("reward"), alpha))
    return term if target == "rewards" else replace(term, unit=compared(), target=labels())


@method(
    "infonca",
    source="arXiv:2402.05369, as in github.com/thu-ml/Noise-Contrastive-Alignment",
    formula="-sum_i q_i log softmax(beta * h)_i, q = softmax(reward / alpha), h = logp - ref_logp",
    needs=("group", "ref_logp", "reward"),
    citation=NCA,
    # s = (0.1, 0, -0.1), q = (2, 1, 1) / 4: log(e^0.1 + 1 + e^-0.1) - (0.1 * 2 - 0.1) / 4
    golden=[
        (
            {"beta": 0.1, "alpha": 1.0},
            {
                "logp": [-1.0, -2.0, -3.0],
                "ref_logp": [-2.0, -2.0, -2.0],
                "reward": [0.6931471805599453, 0.0, 0.0],
                "group": [0, 0, 0],
            },
            1.0769428,
        )
    ],
    limits=[Limit({"beta": 0.3, "target": "labels"}, "dpo", {"beta": 0.3}, note="for pairs")],
)
def infonca(*, beta: float = 0.01, alpha: float = 1e-4, target: str = "rewards") -> Term:
    """Cross-entropy of the softmax of rewards against the softmax of log-ratios, over all responses to a prompt.

    It compares responses, so all of their likelihoods may fall together; `nca` holds them. Of two responses it is DPO
    with the label sigmoid((r_1 - r_2) / alpha). A record with a missing reward does not count.

    Args:
        beta: as in DPO; the authors' value.
        alpha: unit of the rewards. The authors' runs divide rewards by 1e-4 and add 0.01 to the first response's,
            which makes the target almost the best response alone; responses of equal best reward share it here. Raise
            it to the size of a reward gap that should matter.
        target: "rewards", or "labels": each response's share of the record's comparisons won; of plain pairs, where the
            loss is DPO, the label.
    """
    return contrastive("infonca", cross_entropy(), beta, alpha, target)
