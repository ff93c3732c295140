"""Comparisons of responses that are given as vectors: what a preference model is fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from unipref.core.errors import DataError, ShapeError
from unipref.data.pairs import UNNAMED, Pairs

__all__ = ["PreferenceTable"]


@dataclass(frozen=True, eq=False)
class PreferenceTable:
    """N comparisons of M responses in D features each.

    A response that stands in several comparisons is one row of `features`, which may be memory-mapped: rows are read as
    they are needed. What is left out is filled in: every comparison counts once, is a group of its own, and has no
    user, domain or strength.

    Attributes:
        features: (M, D) numbers of a response in its context.
        first, second: (N,) rows of `features`.
        p: (N,) probability that the first is preferred; one half is a tie. weight: (N,) example weights.
        contexts: (C, E) numbers of a prompt, and context: (N,) rows of it; None where prompts are not given.
        user, domain: (N,) names, UNNAMED where there are none.
        group: (N,) the conversation; rows of one are never parted between training and evaluation.
        margin: (N,) how strongly the preferred one is preferred, at least 0, in the data's units; NaN: nobody said.
        attributes: (M, A) ratings of a response, NaN where missing, by `attribute_names`; None where there are none.
        columns: names of the features; () where they have none.

    Raises:
        ShapeError: lengths that do not fit. DataError: a label outside [0, 1], a row that is not there, a negative
            weight, numbers that are not finite (looked for in the labels; features are looked at where they are read).
    """

    features: np.ndarray
    first: np.ndarray
    second: np.ndarray
    p: np.ndarray
    weight: np.ndarray | None = None
    contexts: np.ndarray | None = None
    context: np.ndarray | None = None
    user: np.ndarray | None = None
    domain: np.ndarray | None = None
    group: np.ndarray | None = None
    margin: np.ndarray | None = None
    attributes: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    _checked: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self._checked:
            return
        n = len(self.p)
        filled: dict[str, Any] = {
            "first": np.asarray(self.first, dtype=np.int64),
            "second": np.asarray(self.second, dtype=np.int64),
            "p": np.asarray(self.p, dtype=np.float64),
            "weight": np.ones(n) if self.weight is None else np.asarray(self.weight, dtype=np.float64),
            "user": _names(self.user, n),
            "domain": _names(self.domain, n),
            "group": np.arange(n) if self.group is None else np.asarray(self.group),
            "margin": np.full(n, np.nan) if self.margin is None else np.asarray(self.margin, dtype=np.float64),
            "context": None if self.context is None else np.asarray(self.context, dtype=np.int64),
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)
        self._check(n)
        object.__setattr__(self, "_checked", True)

    def _check(self, n: int) -> None:
        if self.features.ndim != 2:
            raise ShapeError(f"features are (responses, numbers); they arrived as {self.features.shape}")
        for name, values in (("features", self.features), ("contexts", self.contexts)):
            if values is not None and np.asarray(values[:0]).dtype.kind not in "fiub":
                raise DataError(f"{name} are real numbers; they arrived as {values.dtype}")
        sizes = {name: len(value) for name in _PER_PAIR if (value := getattr(self, name)) is not None}
        if set(sizes.values()) != {n}:
            raise ShapeError(f"columns of one table have one length: {sizes}")
        if (self.contexts is None) != (self.context is None):
            raise ShapeError("contexts (the vectors of prompts) and context (which one a comparison has) come together")
        if self.columns and len(self.columns) != self.features.shape[1]:
            raise ShapeError(f"{len(self.columns)} names for {self.features.shape[1]} features")
        if self.attributes is not None and self.attributes.shape != (len(self.features), len(self.attribute_names)):
            expected = (len(self.features), len(self.attribute_names))
            raise ShapeError(f"attributes are (responses, names) = {expected}; they arrived as {self.attributes.shape}")
        pointers = [("first", len(self.features)), ("second", len(self.features))]
        pointers += [("context", len(self.contexts))] if self.contexts is not None else []
        for name, size in pointers:
            rows = getattr(self, name)
            if n and (rows.min() < 0 or rows.max() >= size):
                raise DataError(f"{name} points at row {rows.max()} (or below 0) of {size}")
        odd = ~((self.p >= 0) & (self.p <= 1))
        if odd.any():
            raise DataError(
                f"the label of comparison {int(odd.argmax())} is {self.p[odd][0]}; a label is the probability that the "
                "first is preferred: 1, 0, one half for a tie, or anything between"
            )
        if not (np.isfinite(self.weight) & (self.weight >= 0)).all():
            raise DataError("example weights are finite and at least 0")
        odd = ~(np.isnan(self.margin) | (np.isfinite(self.margin) & (self.margin >= 0)))
        if odd.any():
            raise DataError(
                f"the strength (margin) of comparison {int(odd.argmax())} is {self.margin[odd][0]}; it is finite and "
                "at least 0, the label says which side it is for, and NaN stands where nobody said"
            )

    def __len__(self) -> int:
        return len(self.p)

    @property
    def width(self) -> int:
        """D, numbers per response."""
        return int(self.features.shape[1])

    @property
    def context_width(self) -> int:
        """E, numbers per prompt; 0 where prompts are not given."""
        return 0 if self.contexts is None else int(self.contexts.shape[1])

    @property
    def users(self) -> tuple[str, ...]:
        """Names of the users, sorted; without UNNAMED."""
        return tuple(sorted({str(name) for name in self.user} - {UNNAMED}))

    @property
    def domains(self) -> tuple[str, ...]:
        """Names of the domains, sorted; without UNNAMED."""
        return tuple(sorted({str(name) for name in self.domain} - {UNNAMED}))

    def take(self, rows: np.ndarray | Sequence[int]) -> "PreferenceTable":
        """The comparisons at `rows`, a mask or indices; features stay where they are."""
        taken = {name: value[rows] for name in _PER_PAIR if (value := getattr(self, name)) is not None}
        return replace(self, **taken)

    def swapped(self, rows: np.ndarray | None = None) -> "PreferenceTable":
        """The same comparisons with both responses exchanged, all or where the mask `rows` says so."""
        turn = np.ones(len(self), dtype=bool) if rows is None else np.asarray(rows)
        return replace(
            self,
            first=np.where(turn, self.second, self.first),
            second=np.where(turn, self.first, self.second),
            p=np.where(turn, 1.0 - self.p, self.p),
        )

    def with_columns(self, **values: Any) -> "PreferenceTable":
        """The same comparisons with other labels, weights, users, ..., checked anew."""
        return replace(self, **values, _checked=False)

    @classmethod
    def of_arrays(
        cls, first: np.ndarray, second: np.ndarray, p: Sequence[float] | None = None, **columns: Any
    ) -> "PreferenceTable":
        """A table of N pairs from the two sides' vectors, each (N, D).

        Args:
            p: where not given, the first was always preferred.
            columns: `weight`, `user`, `domain`, ... per pair; `contexts` (N, E), one row per pair.
        """
        first, second = np.asarray(first), np.asarray(second)
        if first.shape != second.shape or first.ndim != 2:
            raise ShapeError(f"both sides are (pairs, numbers); they arrived as {first.shape} and {second.shape}")
        n = len(first)
        if columns.get("contexts") is not None:
            columns.setdefault("context", np.arange(n))
        return cls(
            np.concatenate([first, second]),
            np.arange(n),
            np.arange(n, 2 * n),
            np.ones(n) if p is None else np.asarray(p, dtype=np.float64),
            **columns,
        )

    @classmethod
    def of_pairs(
        cls, pairs: Pairs, features: np.ndarray, first: np.ndarray, second: np.ndarray, **more: Any
    ) -> "PreferenceTable":
        """The comparisons of `pairs`, whose texts' vectors are `features` at the rows `first` and `second`."""
        columns = {name: getattr(pairs, name) for name in ("p", "weight", "user", "domain", "group", "margin")}
        return cls(features, first, second, **columns, **more)


_PER_PAIR = ("first", "second", "p", "weight", "context", "user", "domain", "group", "margin")
assert set(_PER_PAIR) <= {each.name for each in fields(PreferenceTable)}


def _names(values: np.ndarray | None, n: int) -> np.ndarray:
    if values is None:
        return np.full(n, UNNAMED, dtype=object)
    return np.array([UNNAMED if value is None else str(value) for value in values], dtype=object)
