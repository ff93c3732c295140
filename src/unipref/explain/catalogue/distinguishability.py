"""How far apart chosen and rejected responses lie."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import Citation, method
from unipref.explain.distinguishability import Distinguishability, distinguishability


@method(
    "distinguishability",
    kind="explanation",
    source="arXiv:2403.18742",
    status="reconstructed",
    formula="|mean of chosen features - mean of rejected features|, per group of the data",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Understanding the Learning Dynamics of Alignment with Human Feedback",
        ("Shawn Im", "Yixuan Li"),
        2024,
        "2403.18742",
    ),
)
def how_distinguishable(*, swaps: int = 200, seed: int = 0) -> Callable[..., Distinguishability]:
    """Which behaviours a model will learn first: those whose two sides lie furthest apart before training.

    Reconstructed: summaries were read, and the paper's own scaling of the distance is not known; the ratio to the
    spread, the area under the curve and the baseline of exchanged sides are ours.

    Args:
        swaps: random exchanges of the two sides.
        seed: of these.
    """
    return partial(distinguishability, swaps=swaps, seed=seed)
