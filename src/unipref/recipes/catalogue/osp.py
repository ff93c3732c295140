"""Self-preferring with soft labels."""

from unipref.core.cards import Citation, method
from unipref.data.catalogue.soft_labels import soft_labels
from unipref.objectives.catalogue.dpo import dpo
from unipref.recipes.composition import Composition


@method(
    "osp",
    kind="recipe",
    status="reconstructed",
    source="arXiv:2405.14103",
    formula="-p log sigmoid(beta * dh) - (1 - p) log sigmoid(-beta * dh), p = (p_c + 1 - p_r) / 2",
    needs=("chosen", "rejected", "judge", "ref_logp"),
    citation=Citation(
        "Online Self-Preferring Language Models",
        (
            "Yuanzhao Zhai",
            "Zhuo Zhang",
            "Kele Xu",
            "Hanyang Peng",
            "Yue Yu",
            "Dawei Feng",
            "Cheng Yang",
            "Bo Ding",
            "Huaimin Wang",
        ),
        2024,
        "2405.14103",
    ),
)
def osp(*, beta: float = 0.1, by: str = "judge") -> Composition:
    """DPO with labels as strong as the model's own judgement of the pair.

    The judge sees each pair in both orders; p averages the two, so that the place does not count. The optimum is at
    beta * dh = log(p / (1 - p)): a pair of which the judge is unsure is not pushed apart. Labels of 1 and 0 are DPO.
    Responses and judgements are the model's own in the source, and are columns here.

    Reconstructed: the soft cross-entropy and its ingredients are the abstract's; the equation is the standard one.
    How ranks become pairs was not read: here the pairs are the data's.

    Args:
        beta: not from the source.
        by: column of each side: P(it is better) as judged with it shown first.
    """
    return Composition(dpo(beta=beta), (soft_labels(how="judge", by=by),))
