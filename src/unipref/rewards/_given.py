"""Numbers that the data carry for each response, found again by prompt and response."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Record, plain_text
from unipref.data.encode import CONTINUES
from unipref.store import text_key

__all__ = ["Columns", "Given"]


@dataclass(frozen=True, eq=False)
class Given:
    """Numbers of responses in the data, by prompt and response; of several for one response their mean."""

    names: tuple[str, ...]
    found: Mapping[bytes, np.ndarray]

    @classmethod
    def of(cls, records: Sequence[Record], names: Sequence[str] | None) -> "Given":
        known = {name for r in records for item in r.items if item.role == "response" for name in item.columns}
        known.discard(CONTINUES)
        for name in names or ():
            if name not in known:
                hint = nearest(name, known) if known else " (the data carry none)"
                raise ConfigError(f"no response has a number called {name!r}{hint}")
        chosen = tuple(sorted(known) if names is None else names)
        lists: dict[bytes, list[list[float]]] = {}
        for record in records:
            for item in record.items:
                if item.role == "response":
                    key = text_key(plain_text(item.context), plain_text(item.response))
                    lists.setdefault(key, []).append([item.columns.get(name, np.nan) for name in chosen])
        return cls(chosen, {key: _means(np.array(rows, dtype=np.float64)) for key, rows in lists.items()})

    def values(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n, len(names)) float64, NaN where there is none."""
        nothing = np.full(len(self.names), np.nan)
        rows = [self.found.get(text_key(*texts), nothing) for texts in zip(prompts, responses, strict=True)]
        return np.array(rows, dtype=np.float64).reshape(-1, len(self.names))


def _means(rows: np.ndarray) -> np.ndarray:
    there = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        return np.where(there, rows, 0.0).sum(0) / there.sum(0)


@dataclass(frozen=True, eq=False)
class Columns:
    """The block `columns`: numbers that the data carry for every response. They are never stored."""

    given: Given
    name: str = "columns"
    identity: None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{name}" for name in self.given.names)

    def of_responses(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        values = self.given.values(prompts, responses)
        missing = np.isnan(values).sum(0)
        if missing.any():
            j = int(missing.argmax())
            raise DataError(
                f"columns: {missing[j]:,} of {len(values):,} responses have no number in {self.given.names[j]!r}; give "
                "them one in the data, or leave the column out"
            )
        return values.astype(np.float32)
