"""Records from anybody's preference data, with an account of every row."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Record
from unipref.data._names import UniqueNames
from unipref.data.formats import Columns, Format, choose_format, number
from unipref.data.operators import limit_records
from unipref.data.prompts import first_user_turn
from unipref.data.report import DataReport, RowFault
from unipref.data.sources import Row, Rows, Source, open_source, stream_source
from unipref.data.split import conversation_key

__all__ = ["CHUNK", "READING", "read_records", "stream_records"]

READING = 1  # to be raised when the same rows become other records than before: what was prepared is then made again
CHUNK = 2048  # records of a stream that are in memory at a time


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
    records: list[Record] = []
    reports = []
    names = UniqueNames()
    for one in _sources(source):
        opened = open_source(one)
        found, report = _Reader(opened, format, strict, domain_field, user_field).read(opened.rows, last=True)
        reports.append(report)
        records += _renamed(found, names)
    report = DataReport.merged(reports)
    if limit is not None:
        records, cut = limit_records(records, limit, seed=seed)
        report = report.then(cut)
    return records, report


def stream_records(
    source: Any,
    *,
    format: str = "auto",
    strict: bool = False,
    domain_field: str = "domain",
    user_field: str = "user",
    chunk: int = CHUNK,
) -> Iterator[tuple[list[Record], DataReport]]:
    """The records of `source` in chunks, each with the account of its rows, of which one chunk is in memory at a time.

    Records and `DataReport.merged` of the reports are those of `read_records`, but for what needs all rows at once:

    - Format and columns are those of the first rows: of the first chunk that has a sound one. A column that appears
      later is read from there on. Where it would have had the earlier rows read differently (another format, a prompt
      where none was) the stream stops with a DataError that names the column and the row.
    - Whether a column holds numbers or lists of them is what most rows of the first chunk say that has the column.
      Where the rows of a later one say otherwise the report has a note.
    - A file's fault as a whole (a line that is not UTF-8, an archive that is cut off) is raised where it stands, when
      the chunks before it have been given. That no row can be read is known at the end.
    - There is no `limit`: to choose by texts, all must be known.

    Ids are unique over all sources, by a table of 8 bytes per record; a given id that stands again gets a number.
    Up to the last chunk of a source its report lacks the hash and the notes on the source as a whole, and counts the
    rows read so far.

    Args:
        source: whatever `stream_source` takes, a generator too, or a list of such; a list of mappings is a list of
            rows.
        format, strict, domain_field, user_field: as of `read_records`.
        chunk: rows at a time. A chunk may have no record, if all its rows were set aside.

    Raises:
        DataError, ConfigError, MissingExtraError: as `read_records` does, and see above.

    Example:
        >>> rows = ({"prompt": "Hi", "chosen": f"Hello, {n}!", "rejected": "Go away."} for n in range(5))
        >>> [len(records) for records, _ in stream_records(rows, chunk=2)]
        [2, 2, 1]
    """
    if chunk < 1:
        raise ConfigError(f"a chunk holds one row or more: {chunk} is below 1")
    names = UniqueNames()
    for one in _sources(source):
        stream = stream_source(one)
        reader = _Reader(stream, format, strict, domain_field, user_field)
        rows = list(islice(stream.rows, chunk))
        while True:
            following = list(islice(stream.rows, chunk))  # read ahead, to know which chunk is the last
            records, report = reader.read(rows, last=not following)
            yield _renamed(records, names), report
            if not following:
                break
            rows = following


def _sources(source: Any) -> list[Any]:
    many = isinstance(source, Sequence) and not isinstance(source, str | Path) and not _are_rows(source)
    sources = list(source) if many else [source]
    if not sources:
        raise DataError("the list of data sources is empty; name one or more")
    return sources


def _are_rows(source: Sequence[Any]) -> bool:
    return any(isinstance(row, Mapping) for row in source)


def _renamed(records: list[Record], names: UniqueNames) -> list[Record]:
    ids = names.unused([record.id for record in records])
    return [
        record if record.id == name else replace(record, id=name) for record, name in zip(records, ids, strict=True)
    ]


class _Reader:
    """Rows of one source to records, in one chunk or several that are read alike."""

    def __init__(self, source: Source | Rows, format: str, strict: bool, domain_field: str, user_field: str) -> None:
        self.source = source
        self.asked = format
        self.strict = strict
        self.domain_field = domain_field
        self.user_field = user_field
        self.stem = source.name if source.name.startswith("bundled:") else Path(source.name).name
        self.columns = Columns(frozenset(), frozenset(), frozenset(), source.typed)
        self.format: Format | None = None
        self.head: list[Mapping[str, Any]] = []  # the rows that the format was told from
        self.n_read = 0
        self.notes = list(source.notes)
        self.turned: set[str] = set()  # columns whose later rows hold something else than the first
        self.fruitless = DataReport()  # of all chunks up to the first record
        self.further: Counter[str] = Counter()

    def read(self, rows: Sequence[Row], *, last: bool) -> tuple[list[Record], DataReport]:
        """The records of the next rows and the account of these rows.

        Raises:
            DataError: schema fault, with `strict` a faulty row, or with `last` there was no usable row.
        """
        name = self.source.name
        sound = [(line, row) for line, row in rows if not isinstance(row, RowFault)]
        if sound or last:
            self._look_at(sound)
        report = DataReport(n_read=len(rows), notes=self.notes)
        self.notes = []
        self.n_read += len(rows)
        records = []
        for line, row in rows:
            try:
                records.append(self._record(line, row, report))
            except RowFault as fault:
                report.drop(fault, source=name, line=line, strict=self.strict)
        report.n_kept = len(records)
        self.further.update(item.role for record in records for item in record.items if item.role != "response")
        if not self.fruitless.n_kept:
            self.fruitless = DataReport.merged([self.fruitless, report])
        if self.format is not None:
            report.sources[name] = {"rows": self.n_read, "format": self.format.name, "sha256": None}
        if last:
            self._close(report)
        return records, report

    def _look_at(self, sound: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Learn the columns of further rows.

        Raises:
            DataError: they fit no format, or have earlier rows read differently.
        """
        rows = [row for _, row in sound]
        found = Columns.of(rows, typed=self.source.typed, names_only=self._names)
        known = self.columns
        if self.format is None:
            self.columns, self.head = found, rows[:100]
            self.format = choose_format(self.asked, found, rows, self.source.name)
            return
        new = found.names - known.names
        if new:
            self.columns = Columns(
                known.names | new, known.numeric | found.numeric & new, known.lists | found.lists & new, known.typed
            )
            self._check_alike(known, new, sound)
        turned = (self.format.facts(found) ^ self.format.facts(known)) & found.names & known.names - self.turned
        for column in sorted(turned):
            held = "numbers" if column in self.format.facts(known) else "no numbers"
            self.notes.append(
                f"{self.source.name}: the first rows of the column {column!r} hold {held}, and all are read so; most "
                f"of the {len(rows):,} rows from {sound[0][0]:,} on do not."
            )
        self.turned |= turned

    def _check_alike(
        self, before: Columns, new: frozenset[str], sound: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> None:
        try:
            same = choose_format(self.asked, self.columns, self.head, self.source.name) is self.format
        except DataError:
            same = False
        same = same and self.format.used(self.columns) & before.names == self.format.used(before)
        if same and not (self.format.name == "preference" and "prompt" in new):
            return
        line, row = next((line, row) for line, row in sound if new & {*map(str, row)})
        column = min(new & {*map(str, row)})
        raise DataError(
            f"{self.source.name}, line {line}: the column {column!r} stands here for the first time, and with it the "
            f"rows before would not be read as {self.format.name!r} in the way they were; give rows that have it a "
            "file of their own, or leave the column out"
        )

    def _record(self, line: int, row: dict[str, Any] | RowFault, report: DataReport) -> Record:
        if isinstance(row, RowFault):
            raise row
        parsed = self.format.parse(row, self.columns)
        weight = number(row, "weight", self.columns)
        if weight is not None and weight < 0:
            raise RowFault("field 'weight' is negative", str(weight))
        for change in parsed.changed:
            report.change(change)
        first = parsed.items[0]
        return Record(
            id=_text(row.get("id")) or f"{self.stem}:{line}",
            items=tuple(parsed.items),
            comparisons=tuple(parsed.comparisons),
            weight=1.0 if weight is None else weight,
            domain=_text(row.get(self.domain_field)),
            user=_text(row.get(self.user_field)),
            source=self.source.name,
            line=line,
            conversation=conversation_key(first_user_turn(first.context, first.response)),
        )

    def _close(self, report: DataReport) -> None:
        """Add to the last chunk's `report` what is known of the source as a whole."""
        name = self.source.name
        if not self.fruitless.n_kept:
            raise DataError(
                f"{name}: none of the {self.n_read} rows can be read as {self.format}. {_reasons(self.fruitless)}"
            )
        sha256 = self.source.sha256
        facts = report.sources[name]
        facts["sha256"] = sha256() if callable(sha256) else sha256
        if self.further:
            counts = ", ".join(f"{count:,} x {role}" for role, count in sorted(self.further.items()))
            report.notes.append(f"{name}: texts beside the responses: {counts}.")
        unused = self.columns.names - self.format.used(self.columns) - {"weight", *self._names}
        if unused:
            facts["unused"] = sorted(unused)
            report.notes.append(f"{name}: columns not used: {', '.join(sorted(unused))}.")

    @property
    def _names(self) -> tuple[str, str, str]:
        return ("id", self.domain_field, self.user_field)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _reasons(report: DataReport) -> str:
    reasons = "; ".join(f"{count} x {reason}" for reason, count in report.counts.items())
    return f"{reasons}. The first is {report.set_aside[0]}. Mend the column, or name another format"
