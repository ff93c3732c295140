"""What the doctor found, as one HTML file with rows shown token by token."""

import time
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import unipref
from unipref.core.io import write_text
from unipref.report._doctor import KINDS, doctor_view, table_of, visible
from unipref.report._page import environment

__all__ = ["write_doctor_page"]


def write_doctor_page(found: Mapping[str, Any], path: Path | str) -> Path:
    """Write what was found to `path` as one HTML file that loads nothing; its path.

    Every finding carries data attributes (data-code, data-level, data-n, data-of, data-value, data-low, data-high)
    with the numbers of the JSON.
    """
    page = environment().get_template("doctor.html.j2").render(**_view(found))
    write_text(path, page)
    return Path(path)


def _view(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": f"doctor: {found['subject']}",
        "subject": found["subject"],
        "version": unipref.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "found": doctor_view(found),
        "facts": {heading: table_of(rows) for heading, rows in found["facts"].items()},
        "tokens": [_pieces(row) for row in found["tokens"]],
        "kinds": KINDS,
    }


def _pieces(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of tokens in pieces of one kind."""
    pieces = [
        {"kind": kind, "tokens": [{"text": visible(text), "id": i} for text, i, _ in run]}
        for kind, run in ((kind, list(run)) for kind, run in groupby(row["tokens"], key=lambda token: token[2]))
    ]
    counts = {kind: sum(token[2] == kind for token in row["tokens"]) for kind in KINDS}
    return {"place": row["place"], "item": row["item"], "boundary": row["boundary"], "pieces": pieces, "counts": counts}
