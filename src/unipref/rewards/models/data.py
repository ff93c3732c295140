"""A table of comparisons as tensors, batch by batch: scaled features, and users and domains by number."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unipref.core.errors import ConfigError, DataError, ShapeError, nearest
from unipref.rewards.models.parts import UNSEEN, Rows
from unipref.rewards.table import PreferenceTable

__all__ = ["SCALES", "Data", "Scaling", "numbers_of"]

SCALES = ("each", "all", "none")
_CHUNK = 4096  # rows of features that are read at a time; more would leave the processor's cache


@dataclass(frozen=True, eq=False)
class Scaling:
    """(features - centre) / spread; a constant feature becomes 0.

    Attributes:
        centre, spread: (D,) float64.
        constant: columns that did not vary.
    """

    centre: np.ndarray
    spread: np.ndarray
    constant: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, rows: np.ndarray, how: str, columns: tuple[str, ...] = ()) -> "Scaling":
        """From the `rows` of `features` that training reads, each once.

        Args:
            how: "each" feature by its own spread; "all" by one spread, which keeps angles; "none".

        Raises:
            DataError: a feature is not finite.
        """
        if how not in SCALES:
            raise ConfigError(f"scale={how!r}{nearest(str(how), SCALES)}")
        size = features.shape[1]
        total, squares, centre = np.zeros(size), np.zeros(size), np.zeros(size)
        rows = np.unique(rows)
        for k, start in enumerate(range(0, len(rows), _CHUNK)):
            values = np.asarray(features[rows[start : start + _CHUNK]], dtype=np.float64)
            bad = ~np.isfinite(values).all(axis=0)
            if bad.any():
                column = int(bad.argmax())
                name = columns[column] if columns else f"number {column}"
                raise DataError(
                    f"feature {name} is not finite for {int((~np.isfinite(values[:, column])).sum())} responses; "
                    "leave it out, or give those responses a value and a second feature that says it was missing"
                )
            if k == 0:
                centre = values.mean(axis=0)  # near the mean, so that squares lose no digits
            total += (values - centre).sum(axis=0)
            with np.errstate(over="ignore"):  # said below
                squares += ((values - centre) ** 2).sum(axis=0)
        count = max(len(rows), 1)
        large = ~np.isfinite(squares)
        if large.any():
            name = columns[int(large.argmax())] if columns else f"number {int(large.argmax())}"
            raise DataError(f"feature {name} is too large for its spread to be taken; divide it, or leave it out")
        shift = total / count
        variance = np.maximum(squares / count - shift**2, 0.0)
        centre = centre + shift
        constant = np.sqrt(variance) <= 1e-9 * np.maximum(np.abs(centre), 1e-30)
        if how == "none":
            return cls(np.zeros(size), np.ones(size), constant)
        spread = np.sqrt(variance if how == "each" else np.full(size, variance.mean()))
        return cls(centre, np.where(spread > 0, spread, 1.0), constant)

    def __call__(self, values: np.ndarray, dtype: torch.dtype) -> Tensor:
        """(n, D)"""
        given = torch.as_tensor(np.asarray(values)).to(dtype)
        spread = np.where(self.constant, np.inf, self.spread)
        return (given - torch.as_tensor(self.centre, dtype=dtype)) / torch.as_tensor(spread, dtype=dtype)


def numbers_of(names: np.ndarray, known: Mapping[str, int]) -> np.ndarray:
    """(N,) int64 numbers of names; UNSEEN for those that are not known."""
    return np.fromiter((known.get(str(name), UNSEEN) for name in names), dtype=np.int64, count=len(names))


class Data:
    """The comparisons of a table, as a model of known users and domains sees them.

    Args:
        users, domains: name -> number.
    """

    def __init__(
        self,
        table: PreferenceTable,
        scaling: Scaling,
        contexts: Scaling | None,
        users: Mapping[str, int],
        domains: Mapping[str, int],
        dtype: torch.dtype,
    ) -> None:
        if table.width != len(scaling.centre):
            raise ShapeError(f"the model reads {len(scaling.centre)} features, and the table has {table.width}")
        if contexts is not None and table.context_width != len(contexts.centre):
            raise ShapeError(
                f"the model reads {len(contexts.centre)} numbers of a prompt, and the table has {table.context_width}"
            )
        self.table, self.scaling, self.context_scaling, self.dtype = table, scaling, contexts, dtype
        self.user = torch.from_numpy(numbers_of(table.user, users))
        self.domain = torch.from_numpy(numbers_of(table.domain, domains))
        self.p = torch.from_numpy(table.p).to(dtype)
        self.weight = torch.from_numpy(table.weight).to(dtype)
        self.margin = torch.from_numpy(table.margin).to(dtype)

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, index: np.ndarray) -> Rows:
        """The comparisons at `index`, (n,) int64."""
        table, dtype, where = self.table, self.dtype, torch.from_numpy(index)
        first, second = table.first[index], table.second[index]
        attributes = None
        if table.attributes is not None:
            attributes = tuple(torch.as_tensor(table.attributes[side]).to(dtype) for side in (first, second))
        context = None
        if self.context_scaling is not None:
            context = self.context_scaling(table.contexts[table.context[index]], dtype)
        return Rows(
            first=self.scaling(table.features[first], dtype),
            second=self.scaling(table.features[second], dtype),
            user=self.user[where],
            domain=self.domain[where],
            p=self.p[where],
            weight=self.weight[where],
            margin=self.margin[where],
            index=where,
            context=context,
            attributes=attributes,
        )

    def batches(self, size: int, generator: np.random.Generator | None = None) -> Iterator[Rows]:
        """All comparisons in batches of `size`, shuffled where a generator is given."""
        order = np.arange(len(self)) if generator is None else generator.permutation(len(self))
        for start in range(0, len(order), size):
            yield self.rows(order[start : start + size])
