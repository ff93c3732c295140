"""What happened to every row: read, kept, changed, added, left out, set aside and why."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unipref.core.errors import DataError

__all__ = ["DataReport", "RowFault", "SetAside"]


class RowFault(Exception):
    """One row cannot be used. `reason` is the same for all rows with this fault; `detail` says what this row has."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class SetAside:
    """A row that is not used. `line` is 1-based: a line of a text file, a row number of a table, None where unknown."""

    source: str
    line: int | None
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}, line {self.line}"
        return f"{where}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class DataReport:
    """An account of rows. Always ``n_read + sum(added) == n_kept + len(set_aside) + sum(left_out)``, of their values.

    Attributes:
        n_read: rows that came in.
        n_kept: records that went out.
        set_aside: faulty rows, in order.
        left_out: sound rows that were asked to be left out, by reason ("limit", ...).
        changed: kept rows that differ from what was read, by what changed.
        added: records made beside those that were read, by what they are.
        notes: what a reader should know, one sentence each.
        sources: per source its number of rows, format and content hash.
    """

    n_read: int = 0
    n_kept: int = 0
    set_aside: list[SetAside] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Rows set aside by reason, most frequent first."""
        return dict(Counter(row.reason for row in self.set_aside).most_common())

    @classmethod
    def merged(cls, reports: Iterable["DataReport"]) -> "DataReport":
        """One report of several sources that were read side by side."""
        total = cls()
        for report in reports:
            total.n_read += report.n_read
            total.n_kept += report.n_kept
            total._absorb(report)
        return total

    def then(self, later: "DataReport") -> "DataReport":
        """One report of two steps of which `later` worked on what this one kept.

        Raises:
            ValueError: `later` did not start from as many rows as this one kept.
        """
        if later.n_read != self.n_kept:
            raise ValueError(f"the later step read {later.n_read} rows, but the earlier one kept {self.n_kept}")
        both = DataReport(n_read=self.n_read, n_kept=later.n_kept)
        both._absorb(self)
        both._absorb(later)
        return both

    def _absorb(self, other: "DataReport") -> None:
        self.set_aside += other.set_aside
        for name in ("left_out", "changed", "added"):
            mine = getattr(self, name)
            for key, count in getattr(other, name).items():
                mine[key] = mine.get(key, 0) + count
        self.notes += [note for note in other.notes if note not in self.notes]
        self.sources.update(other.sources)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "n_read": self.n_read,
            "n_kept": self.n_kept,
            "n_set_aside": len(self.set_aside),
            "counts": self.counts,
            "set_aside": [
                {"source": row.source, "line": row.line, "reason": row.reason, "detail": row.detail}
                for row in self.set_aside
            ],
            "left_out": dict(self.left_out),
            "changed": dict(self.changed),
            "added": dict(self.added),
            "notes": list(self.notes),
            "sources": {name: dict(facts) for name, facts in self.sources.items()},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataReport":
        """The report that `to_dict` gave."""
        return cls(
            **{name: values[name] for name in ("n_read", "n_kept", "left_out", "changed", "added", "notes", "sources")},
            set_aside=[SetAside(**row) for row in values["set_aside"]],
        )

    def describe(self) -> str:
        """The report as one paragraph."""
        parts = [f"Read {_rows(self.n_read)}, kept {self.n_kept:,}."]
        if self.set_aside:
            reasons = "; ".join(f"{count:,} x {reason}" for reason, count in self.counts.items())
            parts.append(f"Set aside {_rows(len(self.set_aside))}: {reasons}. The first is {self.set_aside[0]}.")
        if self.left_out:
            parts.append("Left out " + ", ".join(f"{_rows(n)} ({why})" for why, n in self.left_out.items()) + ".")
        if self.changed:
            parts.append("Changed: " + "; ".join(f"{n:,} x {what}" for what, n in self.changed.items()) + ".")
        if self.added:
            parts.append("Added: " + "; ".join(f"{n:,} x {what}" for what, n in self.added.items()) + ".")
        return " ".join([*parts, *self.notes])

    def drop(self, fault: RowFault, *, source: str, line: int | None, strict: bool) -> None:
        """Count a faulty row.

        Raises:
            DataError: `strict` is set, so the row stops the run.
        """
        row = SetAside(source, line, fault.reason, fault.detail)
        if strict:
            raise DataError(f"{row}; mend or remove the row, or leave strict off to set such rows aside") from fault
        self.set_aside.append(row)

    def leave_out(self, why: str, count: int = 1) -> None:
        """Count `count` sound rows that were asked to be left out."""
        if count:
            self.left_out[why] = self.left_out.get(why, 0) + count

    def add(self, what: str, count: int = 1) -> None:
        """Count `count` records made beside those that were read."""
        if count:
            self.added[what] = self.added.get(what, 0) + count

    def change(self, what: str, count: int = 1) -> None:
        """Count `count` kept rows that differ from what was read."""
        if count:
            self.changed[what] = self.changed.get(what, 0) + count


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"
