"""Self-supervised preference optimization, variants and loss."""

from collections.abc import Mapping
from typing import Any

from unipref.core.cards import get_method, method
from unipref.data.catalogue.degrade import degrade
from unipref.objectives.catalogue.spo_degree import spo_degree
from unipref.recipes.composition import Composition


@method(
    "spo_degree_variants",
    kind="recipe",
    status="reconstructed",
    source="arXiv:2409.17791",
    formula="base + gamma * cross-entropy(degree head, degree) on n + 1 variants of every chosen response",
    needs=("chosen", "rejected", "ref_logp"),
    citation=get_method("spo_degree").citation,
)
def spo_degree_variants(
    *,
    base: str = "dpo",
    base_options: Mapping[str, Any] | None = None,
    gamma: float = 0.1,
    n: int = 3,
    of: str = "chosen",
) -> Composition:
    """A preference loss with `spo_degree`'s classifier, on variants that are made of the responses themselves.

    Pairs are enough. Sentences go first that have the rarest words; what is left is still sentences. A response of
    fewer parts than degrees has no variants and takes part in the preference loss alone.

    Reconstructed: how the source builds its variants is not published.

    Args:
        base: the preference loss, a method's name.
        base_options: options of the base.
        gamma: coefficient of the classifier's loss; 0 is the base. Ours.
        n: largest degree; ours.
        of: "chosen" makes variants of preferred responses, "all" of every response.
    """
    return Composition(spo_degree(base=base, base_options=base_options, gamma=gamma), (degrade(n=n, of=of),))
