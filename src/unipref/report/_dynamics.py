"""What training did on the way to the responses' probabilities, a note per run and pattern."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DynamicsNote", "dynamics_notes"]


@dataclass(frozen=True)
class DynamicsNote:
    """A pattern that a run showed.

    Attributes:
        code: of the pattern. message: what happened in the first seed that shows it.
        where: which seed that is, and how many of them show it; "" where there is one.
    """

    run: str
    code: str
    message: str
    where: str


def dynamics_notes(summary: Mapping[str, Any]) -> tuple[list[DynamicsNote], str]:
    """The notes of all runs, and what can be done about them ("" where there are none)."""
    notes, remedy = [], ""
    for name, run in summary["runs"].items():
        seeds = run.get("dynamics", ())
        shown: dict[str, list[tuple[Any, str]]] = {}
        for each in seeds:
            remedy = each.get("remedy", remedy)
            for flag in each["flags"]:
                shown.setdefault(flag["code"], []).append((each["seed"], flag["message"]))
        for code, hits in shown.items():
            seed, message = hits[0]
            where = f"seed {seed}; {len(hits)} of {len(seeds)} seeds" if len(seeds) > 1 else ""
            notes.append(DynamicsNote(name, code, message, where))
    return notes, remedy if notes else ""
