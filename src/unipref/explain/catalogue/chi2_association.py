"""Sign tests of single features."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import method
from unipref.explain.factors import Association, associations
from unipref.features.concept_cards import AD_PARAPHRASE


@method(
    "chi2_association",
    kind="explanation",
    source="arXiv:2502.04674",
    status="reconstructed",
    formula="chi2 = (2 wins - n)^2 / n over the n pairs that differ in a feature; p adjusted by Holm's method",
    needs=("chosen", "rejected"),
    citation=AD_PARAPHRASE,
)
def chi2_association(*, seed: int = 0) -> Callable[..., list[Association]]:
    """Whether the response with more of a feature is preferred more often than by chance.

    It is the column "alone" of the page's table of concepts, with p. The test takes pairs as independent; the interval
    of the share is over prompts.

    Reconstructed: that the authors test features by chi-square, with a correction for their number, was read; which
    correction was not, and Holm's is ours.

    Args:
        seed: of the interval's bootstrap.
    """
    return partial(associations, seed=seed)
