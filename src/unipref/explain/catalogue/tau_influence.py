"""How far a factor goes with being preferred."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import method
from unipref.explain.factors import Association, associations
from unipref.features.concept_cards import PROFILE


@method(
    "tau_influence",
    kind="explanation",
    source="arXiv:2410.06965",
    status="reconstructed",
    formula="tau(f) = (concordant - discordant) / (concordant + discordant + ties in f)",
    needs=("chosen", "rejected"),
    citation=PROFILE,
)
def tau_influence(*, seed: int = 0) -> Callable[..., list[Association]]:
    """How much more often the response with more of a factor is preferred than the other one.

    It is the column τ of the page's table of concepts. Of two factors that go together both look strong: read it beside
    the weights.

    Reconstructed: a summary of the paper was read, which names the score and not its formula; what ties do is ours.

    Args:
        seed: of the interval's bootstrap over prompts.
    """
    return partial(associations, seed=seed)
