"""Active multi-preference optimization, selection and loss."""

from unipref.core.cards import get_method, method
from unipref.data.catalogue.select_negatives import select_negatives
from unipref.objectives.catalogue.ampo import ampo
from unipref.recipes.composition import Composition


@method(
    "ampo_selected",
    kind="recipe",
    status="reconstructed",
    source="arXiv:2502.18293",
    formula="-log [e^u_best / (e^u_best + sum_{i in S} e^u_i)], S = k negatives that stand for the others",
    needs=("group", "len", "reward"),
    citation=get_method("ampo").citation,
)
def ampo_selected(
    *,
    beta: float = 5.0,
    alpha: float = 1.0,
    how: str = "optselect",
    k: int = 3,
    standardize: bool = True,
    cover_positive: bool = False,
    exact: bool = False,
) -> Composition:
    """The best response against k others, chosen so that every response is near one of them.

    With as many others as there are, every way of choosing is `ampo` on the whole list. Texts are compared as bags of
    words and word pairs; for a model's embeddings give a stage of `ampo` the operator `select_negatives`.

    Reconstructed: the formulas are from a summary of the paper; k was not read.

    Args:
        beta, alpha: of `ampo`.
        how: "bottomk" (lowest rewards), "coreset" (the lowest of each cluster) or "optselect" (weighted k-medoids).
        k: negatives per prompt.
        standardize: divide a prompt's rewards by their deviation before they become weights; ours.
        cover_positive: the best response is to be covered too.
        exact: try every choice.
    """
    selected = select_negatives(how=how, k=k, standardize=standardize, cover_positive=cover_positive, exact=exact)
    return Composition(ampo(beta=beta, alpha=alpha), (selected,))
