"""A number that the data bring along."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError
from unipref.core.records import Item, Text
from unipref.rewards.scorers._common import UNIPREF

__all__ = ["Column"]


@method("column", kind="scorer", source="unipref", formula="the column's value", citation=UNIPREF)
@dataclass(frozen=True)
class Column:
    """A column of the data, by name (a rating, a judge's score, a reward computed elsewhere).

    It knows nothing of texts that the data do not hold: generations have no score.

    Args:
        column: its name among the items' columns.
    """

    name: ClassVar[str] = "column"
    version: ClassVar[str | None] = None
    column: str

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise ConfigError(f"column: column is a name, not {self.column!r}")

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) of NaN: a text alone has no column."""
        return np.full(len(responses), np.nan)

    def of_items(self, items: Iterable[Item]) -> np.ndarray:
        """(n,) the items' values; NaN where an item lacks the column."""
        return np.array([item.columns.get(self.column, np.nan) for item in items], dtype=np.float64)
