"""What the rooms ask of each other."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from unipref.core.records import Text

__all__ = ["Scorer"]


@runtime_checkable
class Scorer(Protocol):
    """Anything that gives a response a number.

    Attributes:
        name: what the score is called in tables.
        version: changes when the same text may get another number; None means unknown, and such scores are not stored.
    """

    name: str
    version: str | None

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) float64 scores, NaN where this scorer has no opinion (never a zero in its place)."""
        ...
