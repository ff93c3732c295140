"""Records from anybody's preference data, with an account of every row."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unipref.core.errors import DataError
from unipref.core.records import Record
from unipref.data.formats import Columns, choose_format, number
from unipref.data.operators import limit_records, unused_id
from unipref.data.prompts import first_user_turn
from unipref.data.report import DataReport, RowFault
from unipref.data.sources import Source, open_source
from unipref.data.split import conversation_key

__all__ = ["read_records"]


def read_records(
    source: Any,
    *,
    format: str = "auto",
    strict: bool = False,
    limit: int | None = None,
    seed: int = 0,
    domain_field: str = "domain",
    user_field: str = "user",
) -> tuple[list[Record], DataReport]:
    """The records of `source`, and what happened to every row.

    A fault of the schema (a missing column, a broken file) stops. A faulty row (an empty or identical response, a NaN
    score, a wrong type) is counted, reported with its line and set aside.

    Args:
        source: whatever `open_source` takes, or a list of such; a list of mappings is a list of rows.
        format: a name from `FORMATS`, or "auto" to tell it from the columns.
        strict: a faulty row stops as well.
        limit: take at most so many records, chosen by `limit_records`.
        seed: of that choice.
        domain_field: the column that names a row's domain.
        user_field: the column that names its user.

    Returns:
        Records in the order of the rows, and the report.

    Raises:
        DataError: schema fault, no usable row, or with `strict` a faulty row.
        ConfigError: there is no format of that name.
        MissingExtraError: the source needs a package that is not installed.

    Example:
        >>> records, report = read_records([{"prompt": "Hi", "chosen": " Hello!", "rejected": " Go away."}])
        >>> records[0].items[0].response, report.n_kept
        (' Hello!', 1)
    """
    many = isinstance(source, Sequence) and not isinstance(source, str | Path) and not _are_rows(source)
    sources = list(source) if many else [source]
    if not sources:
        raise DataError("the list of data sources is empty; name one or more")
    records: list[Record] = []
    reports = []
    seen: dict[str, int] = {}
    for one in sources:
        found, report = _read(open_source(one), format, strict, domain_field, user_field)
        reports.append(report)
        records += [replace(record, id=unused_id(record.id, seen)) for record in found]
    report = DataReport.merged(reports)
    if limit is not None:
        records, cut = limit_records(records, limit, seed=seed)
        report = report.then(cut)
    return records, report


def _are_rows(source: Sequence[Any]) -> bool:
    return any(isinstance(row, Mapping) for row in source)


def _read(
    source: Source, format: str, strict: bool, domain_field: str, user_field: str
) -> tuple[list[Record], DataReport]:
    sound = [row for _, row in source.rows if not isinstance(row, RowFault)]
    names = ("id", domain_field, user_field)
    columns = Columns.of(sound, typed=source.typed, names_only=names)
    chosen = choose_format(format, columns, sound, source.name)
    report = DataReport(n_read=len(source.rows), notes=list(source.notes))
    report.sources[source.name] = {"rows": len(source.rows), "format": chosen.name, "sha256": source.sha256}
    stem = source.name if source.name.startswith("bundled:") else Path(source.name).name
    records = []
    for line, row in source.rows:
        try:
            if isinstance(row, RowFault):
                raise row
            parsed = chosen.parse(row, columns)
            weight = number(row, "weight", columns)
            if weight is not None and weight < 0:
                raise RowFault("field 'weight' is negative", str(weight))
        except RowFault as fault:
            report.drop(fault, source=source.name, line=line, strict=strict)
            continue
        for change in parsed.changed:
            report.change(change)
        first = parsed.items[0]
        records.append(
            Record(
                id=_text(row.get("id")) or f"{stem}:{line}",
                items=tuple(parsed.items),
                comparisons=tuple(parsed.comparisons),
                weight=1.0 if weight is None else weight,
                domain=_text(row.get(domain_field)),
                user=_text(row.get(user_field)),
                source=source.name,
                line=line,
                conversation=conversation_key(first_user_turn(first.context, first.response)),
            )
        )
    if not records:
        raise DataError(
            f"{source.name}: none of the {len(source.rows)} rows can be read as {chosen}. {_reasons(report)}"
        )
    report.n_kept = len(records)
    further = Counter(item.role for record in records for item in record.items if item.role != "response")
    if further:
        counts = ", ".join(f"{count:,} x {role}" for role, count in sorted(further.items()))
        report.notes.append(f"{source.name}: texts beside the responses: {counts}.")
    unused = columns.names - chosen.used(columns) - {"weight", *names}
    if unused:
        report.sources[source.name]["unused"] = sorted(unused)
        report.notes.append(f"{source.name}: columns not used: {', '.join(sorted(unused))}.")
    return records, report


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _reasons(report: DataReport) -> str:
    reasons = "; ".join(f"{count} x {reason}" for reason, count in report.counts.items())
    return f"{reasons}. The first is {report.set_aside[0]}. Mend the column, or name another format"
