"""Concept values that a user already has: a table with a row for each pair and concept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipref.core.errors import DataError, nearest
from unipref.data import RowFault
from unipref.data.pairs import Pairs
from unipref.data.sources import Source, open_source
from unipref.features.concepts import Concept, PairValues

__all__ = ["COLUMNS", "ConceptTable", "read_concept_table"]

COLUMNS = ("id", "concept", "value")
OPTIONAL = ("domain", "name", "high", "low")
_NOTHING = frozenset({"", "na", "nan", "n/a", "none", "null"})  # of a cell: nobody judged
_NAMED = 5  # ids that a note spells out


@dataclass(frozen=True, eq=False)
class ConceptTable:
    """Values of concepts for pairs, first response minus second (chosen minus rejected where the data have those).

    Attributes:
        values: (domain or "", id) -> concept key -> value; NaN where the cell is empty.
        source: the file. sha256: of its bytes.
        domains: whether the table has the column `domain`.
    """

    concepts: tuple[Concept, ...]
    values: Mapping[tuple[str, str], Mapping[str, float]]
    source: str
    sha256: str | None
    domains: bool

    def of(self, pairs: Pairs) -> tuple[PairValues, dict[str, Any]]:
        """The values of `pairs`, and what became of the table's rows.

        A pair that the table does not have, or has without a value, is NaN: it counts as no difference and is counted.
        A record's id is also that of its further comparisons (`id#1`, …) of the same two responses; those of other
        responses have another difference, and rows with an id of their own.

        Returns:
            The values and {"source", "sha256", "concepts", "pairs", "further", "values", "missing", "unknown",
            "notes"}: pairs with a value of some concept, those among them that have it from their record's first
            comparison, values that were found and that were not, and ids that no pair has.

        Raises:
            DataError: no id of the table is a pair's, or an id means pairs of several domains and the table does not
                say which.
        """
        ids, domains = pairs.ids.tolist(), pairs.domain.tolist()
        if not self.domains:
            self._one_domain_each(ids, domains)
        column = {concept.key: j for j, concept in enumerate(self.concepts)}
        found = np.full((len(pairs), len(self.concepts)), math.nan)
        keys, further, other = self._matched(pairs)
        for row, key in zip(found, keys, strict=True):
            for concept, value in self.values.get(key, {}).items():
                row[column[concept]] = value
        used = set(keys) & set(self.values)
        if not used:
            theirs = next(iter(self.values))[1]
            raise DataError(
                f"{self.source}: no id of the table is the id of a pair; it has {theirs!r}, and the data have "
                f"{ids[0]!r}. Give the data a column `id`, or write these ids into the table"
            )
        unknown = [key[1] for key in self.values if key not in used]
        known = ~np.isnan(found)
        notes = []
        if further:
            notes.append(
                f"{self.source}: {further:,} further comparisons of a record's two responses have the values of its id."
            )
        if other:
            told = ", ".join(other[:_NAMED]) + (", …" if len(other) > _NAMED else "")
            notes.append(
                f"{self.source}: {len(other):,} further comparisons of records are of other responses than the first, "
                f"and their values are missing: {told}. Give the table rows with these ids."
            )
        if unknown:
            told = ", ".join(unknown[:_NAMED]) + (", …" if len(unknown) > _NAMED else "")
            notes.append(f"{self.source}: {len(unknown):,} ids are of no pair and were not used: {told}.")
        if missing := int((~known).sum()):
            notes.append(
                f"{self.source}: {missing:,} of {known.size:,} values are missing ({missing / known.size:.0%}); each "
                "counts as no difference."
            )
        account = {
            "source": self.source,
            "sha256": self.sha256,
            "concepts": len(self.concepts),
            "pairs": int(known.any(axis=1).sum()),
            "further": further,
            "values": int(known.sum()),
            "missing": missing,
            "unknown": len(unknown),
            "notes": notes,
        }
        return PairValues(self.concepts, found), account

    def _matched(self, pairs: Pairs) -> tuple[list[tuple[str, str]], int, list[str]]:
        """The key of each pair's values, how many have their record's, and the ids of those that cannot have it."""
        keys, further, other = [], 0, []
        texts: dict[tuple[str, str, str], tuple[str, str]] = {}
        columns = (pairs.ids, pairs.domain, pairs.place, pairs.first, pairs.second)
        for id_, domain, place, first, second in zip(*(column.tolist() for column in columns), strict=True):
            texts[place, domain, id_] = first, second
            where = domain if self.domains else ""
            record, _, number = id_.rpartition("#")
            key = (where, id_)
            if key not in self.values and number.isdecimal() and (where, record) in self.values:
                if texts.get((place, domain, record)) == (first, second):
                    key = (where, record)
                    further += 1
                else:
                    other.append(id_)
            keys.append(key)
        return keys, further, other

    def _one_domain_each(self, ids: list[str], domains: list[str]) -> None:
        where: dict[str, set[str]] = {}
        for id_, domain in zip(ids, domains, strict=True):
            where.setdefault(id_, set()).add(domain)
        for _, id_ in self.values:
            if len(where.get(id_, ())) > 1:
                raise DataError(
                    f"{self.source}: the id {id_!r} is a pair in several domains ({', '.join(sorted(where[id_]))}); "
                    "add a column `domain` to the table"
                )


def read_concept_table(path: Any) -> ConceptTable:
    """The concept table in the file `path` (CSV, JSON lines or Parquet), or of rows.

    Columns: `id` of a pair, `concept`, `value` (first response minus second), and perhaps `domain` of the pair, and
    `name`, `high` and `low`, what the concept is called and what a high and a low value mean.

    Raises:
        DataError: a column is missing, a value is no number, a pair has a concept twice, or a concept has two
            definitions; each with the line.
    """
    source = open_source(path)
    names = _columns(source)
    values: dict[tuple[str, str], dict[str, float]] = {}
    told: dict[str, dict[str, str]] = {}
    lines: dict[tuple[str, str, str], int] = {}
    for line, row in source.rows:
        where = f"{source.name}, line {line}"
        if isinstance(row, RowFault):
            raise DataError(f"{where}: {row}; mend the row")
        id_, concept = (_word(row, name, where) for name in ("id", "concept"))
        domain = _word(row, "domain", where) if "domain" in names else ""
        if (before := lines.setdefault((domain, id_, concept), line)) != line:
            raise DataError(
                f"{where}: the pair {id_!r} has a value of {concept!r} already, in line {before}; leave one of the two"
            )
        values.setdefault((domain, id_), {})[concept] = _value(row.get("value"), where)
        _define(told.setdefault(concept, {}), row, concept, where)
    concepts = tuple(_concept(key, definition, source.name) for key, definition in told.items())
    return ConceptTable(concepts, values, source.name, source.sha256, "domain" in names)


def _columns(source: Source) -> set[str]:
    names = {str(name) for _, row in source.rows if not isinstance(row, RowFault) for name in row}
    for needed in COLUMNS:
        if needed not in names:
            raise DataError(
                f"{source.name}: a concept table has the columns {', '.join(COLUMNS)}, and {needed!r} is missing; "
                f"found {', '.join(sorted(names))}"
            )
    for name in sorted(names - {*COLUMNS, *OPTIONAL}):
        raise DataError(
            f"{source.name}: a concept table has no column {name!r}{nearest(name, [*COLUMNS, *OPTIONAL])}; leave it out"
        )
    return names


def _word(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if value is None or not str(value).strip():
        raise DataError(f"{where}: {name!r} is empty; every row names its pair and its concept")
    return str(value).strip()


def _value(value: Any, where: str) -> float:
    if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
        return math.nan
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or math.isinf(number):
        raise DataError(f"{where}: the value {value!r} is no finite number; leave the cell empty where nobody judged")
    return number


def _define(definition: dict[str, str], row: Mapping[str, Any], concept: str, where: str) -> None:
    for name in ("name", "high", "low"):
        text = str(row.get(name) or "").strip()
        if text and definition.setdefault(name, text) != text:
            raise DataError(
                f"{where}: {name!r} of the concept {concept!r} is {text!r}, and was {definition[name]!r} before; give "
                "a concept one definition"
            )


def _concept(key: str, definition: Mapping[str, str], source: str) -> Concept:
    return Concept(
        key=key,
        name=definition.get("name", key.replace("_", " ")),
        high=definition.get("high", f"more “{key}” in the user's table"),
        low=definition.get("low", ""),
        kind="table",
        source=source,
    )
