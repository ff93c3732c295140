"""Counterfactuals out of real pairs."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import Citation, method
from unipref.explain.counterfactual import Counterfactual, counterfactual


@method(
    "tcol",
    kind="explanation",
    source="arXiv:2309.16146",
    status="reconstructed",
    formula="x -> prototype of the other verdict, concept by concept, greedily; then what is not needed is taken back",
    needs=("chosen", "rejected"),
    citation=Citation(
        "T-COL: Generating Counterfactual Explanations for General User Preferences on Variable Machine Learning "
        "Systems",
        ("Ming Wang", "Daling Wang", "Wenfang Wu", "Shi Feng", "Yifei Zhang"),
        2023,
        "2309.16146",
    ),
)
def tcol(
    *, condition: str = "nearest", prototypes: int = 20, confidence: float = 0.75
) -> Callable[..., Counterfactual]:
    """What would have turned a verdict under any model: changes to values that real pairs have.

    The page tells the fewest changes, which are exact for its linear model (`unipref.explain.local`); this is for other
    models and other wishes.

    Reconstructed: the abstract and a summary were read, and of them conditions, prototypes and local greedy trees; the
    scores and the stopping rule are ours.

    Args:
        condition: "nearest", "confident", "dense" or "robust".
        prototypes: tried at most.
        confidence: of the new verdict, for "confident".
    """
    return partial(counterfactual, condition=condition, prototypes=prototypes, confidence=confidence)
