"""The doctor's look at records, before any tokenizer."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from unipref.core.findings import Finding
from unipref.core.records import Record, plain_text
from unipref.data.doctor import _labels, _rows, _texts
from unipref.data.doctor._checks import ASKED_OF_RECORDS
from unipref.data.doctor._view import View, view_of
from unipref.data.operators import responses_of
from unipref.data.report import DataReport

__all__ = ["examine_records"]

_LINES = 20  # line numbers of a reason that the table lists


def examine_records(
    records: Sequence[Record],
    report: DataReport,
    *,
    heldout: Sequence[Record] | None = None,
    seed: int = 0,
) -> tuple[list[Finding], dict[str, dict[str, Any]]]:
    """One finding for every check of records, in the order of `CHECKS`, and tables of facts.

    Nothing is changed or left out here. Shares are of records or comparisons as they stand, weights aside; a list
    counts as the comparisons of every two of its responses that differ in rank or rating.

    Args:
        records, report: what `read_records` gave.
        heldout: the records of an evaluation file, where there is one.
        seed: of the rows that stand for all where a check looks at a part of them, and of intervals.

    Returns:
        Tables are {heading: {row: value or {column: value}}} of plain JSON values.

    Example:
        >>> from unipref.data import read_records
        >>> records, report = read_records([{"prompt": "Hi", "chosen": " Hello!", "rejected": " Hello! "}])
        >>> findings, facts = examine_records(records, report)
        >>> [f.code for f in findings if f.level == "error"]
        ['identical-responses']
    """
    view = view_of(records, report)
    copies, first = _rows.duplicates(view)
    near, opposed = _rows.near_duplicates(view, first, seed=seed)
    spoken, mixed, table = _texts.languages(view, seed=seed)
    exact, similar = _rows.overlap(view, heldout, seed=seed)
    empty = [row for row in range(len(records)) if any(not text.strip() for text in view.texts(row))]
    found = [
        _rows.rows_set_aside(view),
        _rows.unused_columns(view),
        _rows.media(view),
        _rows.lost(
            "empty-responses",
            view,
            ("empty response", "no response"),
            empty if any(text for row in empty for text in view.texts(row)) else [],
            "empty responses",
            "write what was meant, or leave the rows out",
        ),
        _rows.lost(
            "identical-responses",
            view,
            ("identical responses",),
            _texts.same_but_for_space(view),
            "identical responses",
            "a response compared with itself says nothing; leave the rows out",
        ),
        copies,
        near,
        _labels.contradictions(view),
        opposed,
        _labels.intransitive(view),
        _texts.prompt_repeated(view),
        _texts.template_markers(view),
        _texts.other_speaker(view),
        _texts.shared_start(view),
        _labels.length_bias(view),
        _labels.position_bias(view),
        _labels.annotators(view, seed=seed),
        _labels.one_sided(view),
        _labels.constant_columns(view),
        spoken,
        mixed,
        exact,
        similar,
    ]
    assert [finding.code for finding in found] == list(ASKED_OF_RECORDS)
    return found, _facts(view, table)


def _facts(view: View, languages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    report = view.report
    facts: dict[str, dict[str, Any]] = {
        "Rows": {
            "read": report.n_read,
            "set aside": len(report.set_aside),
            **{f"left out ({why})": n for why, n in report.left_out.items()},
            **{f"changed: {what}": n for what, n in report.changed.items()},
            "records": len(view.records),
            "comparisons": sum(len(record.comparisons) for record in view.records),
            "labels": sum(item.label is not None for record in view.records for item in record.items),
            "conversations": len({record.conversation for record in view.records}),
        }
    }
    if report.set_aside:
        lines: dict[str, list[str]] = defaultdict(list)
        for row in report.set_aside:
            lines[row.reason].append("?" if row.line is None else str(row.line))
        facts["Rows set aside"] = {
            reason: {
                "rows": len(found),
                "lines": ", ".join(found[:_LINES]) + (", ..." if len(found) > _LINES else ""),
            }
            for reason, found in sorted(lines.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        }
    if view.domains:
        facts["Domains"] = _domains(view)
    facts["Length in characters"] = _lengths(view)
    facts["Languages of responses"] = languages
    return facts


def _domains(view: View) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    talks: dict[str, set[str]] = defaultdict(set)
    for name, record in zip(view.domains, view.records, strict=True):
        row = table.setdefault(name, {"records": 0, "comparisons": 0, "labels": 0, "conversations": 0})
        row["records"] += 1
        row["comparisons"] += len(record.comparisons)
        row["labels"] += sum(item.label is not None for item in record.items)
        talks[name].add(record.conversation)
    for name, row in table.items():
        row["conversations"] = len(talks[name])
    return dict(sorted(table.items()))


def _lengths(view: View) -> dict[str, dict[str, int]]:
    texts = {
        "prompts": [len(plain_text(record.items[0].context)) for record in view.records],
        "preferred": [len(v.winner) for v in view.verdicts],
        "not preferred": [len(v.loser) for v in view.verdicts],
        "other responses": [
            len(plain_text(record.items[i].response))
            for record in view.records
            if not record.comparisons and len(responses_of(record)) == 1
            for i in responses_of(record)
        ],
    }
    return {
        name: {
            "texts": len(found),
            "median": round(float(np.median(found))),
            "95 %": round(float(np.quantile(found, 0.95))),
            "longest": max(found),
        }
        for name, found in texts.items()
        if found
    }
