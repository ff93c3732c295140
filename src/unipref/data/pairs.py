"""Comparisons as rows of a table: two texts, who won, where, and who judged."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from unipref.core.errors import DataError
from unipref.core.records import Record, plain_text

__all__ = ["UNNAMED", "Pairs", "shared_rows"]

UNNAMED = "all"  # the domain, mechanism or user of rows that have none


@dataclass(frozen=True, eq=False)
class Pairs:
    """N compared pairs in the order of the data.

    Attributes:
        ids: (N,) the record's id, with "#k" behind it for a record's further comparisons.
        prompt, first, second: (N,) texts; first is the item that stands first in the record.
        p: (N,) probability that the first is preferred. weight: (N,) example weights.
        domain, mechanism: (N,) names, "all" where the data name none.
        user: (N,) whose taste it is: the record's user, else the comparison's annotator; "all" where nobody is named.
        margin: (N,) how strongly it was preferred, in the data's units; NaN where nobody said.
        group: (N,) the conversation; rows of one are never parted between training and evaluation.
        place: (N,) where the row stands, for people.
    """

    ids: np.ndarray
    prompt: np.ndarray
    first: np.ndarray
    second: np.ndarray
    p: np.ndarray
    weight: np.ndarray
    domain: np.ndarray
    mechanism: np.ndarray
    user: np.ndarray
    margin: np.ndarray
    group: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, records: Iterable[Record], *, mechanism: str | None = None) -> "Pairs":
        """The comparisons of `records`.

        Args:
            mechanism: the name of who judged all of them; None: each comparison's annotator, where one is named.

        Raises:
            DataError: there is no comparison.
        """
        rows = []
        for record in records:
            for k, comparison in enumerate(record.comparisons):
                first, second = sorted((comparison.winner, comparison.loser))
                wins = comparison.winner == first
                a, b = record.items[first], record.items[second]
                where = record.source or record.id
                rows.append(
                    (
                        f"{record.id}#{k}" if k else record.id,
                        plain_text(a.context),
                        plain_text(a.response),
                        plain_text(b.response),
                        comparison.preference if wins else 1.0 - comparison.preference,
                        record.weight,
                        record.domain or UNNAMED,
                        mechanism or comparison.annotator or UNNAMED,
                        record.user or comparison.annotator or UNNAMED,
                        np.nan if comparison.margin is None else comparison.margin,
                        record.conversation or record.id,
                        where if record.line is None else f"{where}, line {record.line}",
                    )
                )
        if not rows:
            raise DataError(
                "no record compares two responses; give rows with `chosen` and "
                "`rejected`, votes, or ratings of several responses (the reader makes comparisons of ratings)"
            )
        names = [field.name for field in fields(cls)]
        numbers = {"p", "weight", "margin"}
        columns = zip(*rows, strict=True)
        return cls(
            **{
                name: np.array(column, dtype=float if name in numbers else object)
                for name, column in zip(names, columns, strict=True)
            }
        )

    @classmethod
    def joined(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """All pairs of `parts`, in their order."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def take(self, rows: np.ndarray | Sequence[int]) -> "Pairs":
        """The pairs at `rows`, a mask or indices."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def swapped(self, rows: np.ndarray) -> "Pairs":
        """The same pairs with the two responses exchanged where the mask `rows` says so."""
        return replace(
            self,
            first=np.where(rows, self.second, self.first),
            second=np.where(rows, self.first, self.second),
            p=np.where(rows, 1.0 - self.p, self.p),
        )


def shared_rows(a: Pairs, b: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (M,) of `a` and of `b` that compare the same two responses to the same prompt, and (M,) whether b's stand
    the other way round.

    A pair that a mechanism judged more than once is matched in its order.
    """
    places: dict[tuple[str, frozenset[str]], list[int]] = {}
    for i, key in enumerate(_keys(b)):
        places.setdefault(key, []).append(i)
    left, right = [], []
    for i, key in enumerate(_keys(a)):
        if places.get(key):
            left.append(i)
            right.append(places[key].pop(0))
    rows_a, rows_b = np.array(left, dtype=int), np.array(right, dtype=int)
    return rows_a, rows_b, a.first[rows_a] != b.first[rows_b]


def _keys(pairs: Pairs) -> list[tuple[str, frozenset[str]]]:
    columns = (pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist())
    return [(prompt, frozenset((first, second))) for prompt, first, second in zip(*columns, strict=True)]
