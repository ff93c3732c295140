"""Concepts that a language model finds."""

from collections.abc import Callable
from functools import partial

from unipref.core.cards import method
from unipref.explain.catalogue.hmdr import EXPLAINABILITY
from unipref.explain.discovery import Discovery, discover


@method(
    "hmdr_discovery",
    kind="explanation",
    source="arXiv:2505.20088 §3.1 and App. C.1",
    formula="batches of pairs -> names of properties -> joined by stem and judge -> shared if in half of the domains",
    needs=("chosen", "rejected"),
    citation=EXPLAINABILITY,
)
def hmdr_discovery(*, n_batches: int = 300, batch: int = 5, per_batch: int = 10) -> Callable[..., Discovery]:
    """Concepts that a judge names when it is shown what was preferred and what was not (`--discover`).

    The wording of the questions is ours, and the stem of a name is ours, too, where the paper takes Snowball's; one
    question is about all names of a stem.

    Args:
        n_batches: of each domain.
        batch: pairs shown at a time.
        per_batch: properties asked for.
    """
    return partial(discover, n_batches=n_batches, batch=batch, per_batch=per_batch)
