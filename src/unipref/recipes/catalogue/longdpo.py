"""LongDPO."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.tree_steps import tree_steps
from unipref.objectives.catalogue.dpo import dpo
from unipref.recipes.composition import Composition


@method(
    "longdpo",
    kind="recipe",
    source="arXiv:2502.02095, as in github.com/pingbowen23/LongDPO",
    formula="-log sigmoid(beta * dh) on (q + s_1..s_i, s_w > s_l), one row per depth",
    needs=("tree", "ref_logp"),
    citation=get_method("tree_steps").citation,
)
def longdpo(*, beta: float = 0.1, by: str = "v", swap: float = 0.3, seed: int = 0) -> Composition:
    """DPO on the steps of long texts: at every depth the selected step against a sibling, behind the accepted steps.

    The steps that are selected are those of the search that made the tree. A step without a sibling is compared with
    its own words in another order. Not built: rewriting weak steps after a critique, and leaving out steps that
    contradict a memory of facts; both happen before, and change the tree alone.

    Args:
        beta: 0.1 in the released configuration.
        by: fact of the nodes by which a step is selected.
        swap: chance of each two neighbouring words to be exchanged.
        seed: of the siblings and exchanges.
    """
    return Composition(dpo(beta=beta), (tree_steps(by=by, swap=swap, seed=seed),))
