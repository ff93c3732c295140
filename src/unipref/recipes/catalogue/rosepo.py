"""Preference optimization of recommenders with a doubt per pair."""

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.data.catalogue.soft_labels import soft_labels
from unipref.objectives.catalogue.dpo import dpo
from unipref.objectives.discrepancies import logistic
from unipref.objectives.scores import log_ratio
from unipref.objectives.targets import undoubted
from unipref.objectives.terms import pairwise
from unipref.recipes.composition import Composition

_LINKS = ("conservative", "robust")


@method(
    "rosepo",
    kind="recipe",
    status="reconstructed",
    source="arXiv:2410.12519",
    formula="-(1 - eps) log sigmoid(beta * dh) - eps * log sigmoid(-beta * dh), eps a column of the pair",
    needs=("chosen", "rejected", "epsilon", "ref_logp"),
    citation=Citation(
        "RosePO: Aligning LLM-based Recommenders with Human Values",
        (
            "Jiayi Liao",
            "Xiangnan He",
            "Ruobing Xie",
            "Jiancan Wu",
            "Yancheng Yuan",
            "Xingwu Sun",
            "Zhanhui Kang",
            "Xiang Wang",
        ),
        2024,
        "2410.12519",
    ),
)
def rosepo(
    *, beta: float = 0.1, link: str = "conservative", epsilon: float | None = None, by: str = "epsilon"
) -> Composition:
    """DPO on recommended items against items that were not, each pair as certain as an oracle is of it.

    Margins stop at log((1 - eps) / eps) / beta; a pair of which the oracle knows nothing (eps = 1/2) stays where it
    is. eps = 0 is DPO, one eps for all is `cdpo`, or `dpo_robust` with the robust link. How rejected items are
    drawn (near misses, unfitting or too popular ones) is the data's.

    Reconstructed: smoothing by an oracle's doubt is the abstract's; the equation was not read.

    Args:
        beta: not from the source.
        link: "conservative", the formula; or "robust", which divides by 1 - 2 eps with the second term negative, so
            that the mean over wrong labels is the clean loss. A pair at eps = 1/2 says nothing in either.
        epsilon: one doubt for all pairs instead of the column.
        by: column of the preferred response with eps, in [0, 1/2].
    """
    if link not in _LINKS:
        raise ConfigError(f"rosepo(link={link!r}){nearest(str(link), _LINKS)}")
    softened = soft_labels(how="epsilon", by=by, epsilon=epsilon)
    if link == "conservative":
        return Composition(dpo(beta=beta), (softened,))
    robust = pairwise("rosepo", score=log_ratio(beta), target=undoubted(), link=logistic())
    return Composition(robust, (softened,))
