"""Scorers that only evaluate: what a response is graded by, and what never enters a reward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unipref.core.protocols import Scorer
from unipref.core.records import Record, Text
from unipref.rewards.designer import scores_of
from unipref.store import ScoreStore

__all__ = ["Judges"]


@dataclass(frozen=True)
class Judges:
    """Scorers by the names under which their scores stand in tables."""

    scorers: Mapping[str, Scorer]

    def score_records(self, records: Sequence[Record], *, store: ScoreStore | None = None) -> list[Record]:
        """`records` with every response's scores in columns of the judges' names; a missing score is absent.

        For held-out records: what is trained on must not have them, or a method could read them.
        """
        items = [item for record in records for item in record.items]
        at = [i for i, item in enumerate(items) if item.role == "response"]
        contexts, responses = [items[i].context for i in at], [items[i].response for i in at]
        columns = [dict(item.columns) for item in items]
        for name, scorer in self.scorers.items():
            for i, value in zip(at, scores_of(scorer, contexts, responses, store), strict=True):
                if not np.isnan(value):
                    columns[i][name] = float(value)
        scored = iter([replace(item, columns=found) for item, found in zip(items, columns, strict=True)])
        return [replace(record, items=tuple(next(scored) for _ in record.items)) for record in records]

    def score_texts(self, contexts: Sequence[Text], responses: Sequence[Text]) -> dict[str, np.ndarray]:
        """Judge -> (n,) float64 scores; NaN is missing."""
        return {name: scores_of(scorer, contexts, responses, None) for name, scorer in self.scorers.items()}

    def describe(self) -> dict[str, dict[str, Any]]:
        """As `DesignerObjectives.describe` says it of objectives, with `judge`: true."""
        plain = {"weight": 1.0, "clip": [None, None], "normalise": "none", "scale": None}
        return {
            name: {
                "description": repr(scorer),
                "scorer": scorer.name,
                **plain,
                "direction": "higher is better",
                "judge": True,
            }
            for name, scorer in self.scorers.items()
        }
