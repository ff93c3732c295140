"""What a check of data or of a recipe found, before anything is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from unipref.core.errors import nearest

__all__ = ["LEVELS", "Examination", "Finding", "TokenRow"]

LEVELS = {
    "error": "training would be wrong",
    "warning": "look at it before training",
    "note": "worth knowing",
    "fine": "checked, nothing found",
    "not_checked": "could not be asked of these data",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer of one check. Every check that is made gives one, also where it found nothing.

    Attributes:
        code: stable name of the check, such as "bos-twice"; what a recipe's `data.accept` lists.
        level: a key of LEVELS.
        says: one sentence with the numbers in it.
        advice: the next step; "" where there is none.
        n, of: how many there are, among how many; None where that is not the question.
        value: [value, low, high] with a 95 % interval where the finding is an estimate.
        by_domain: the same per domain, {"n": ..., "of": ..., "value": [...]}; empty with one domain or none.
        places: the first few rows it is about, as "FILE, line N".
    """

    code: str
    level: str
    says: str
    advice: str = ""
    n: int | None = None
    of: int | None = None
    value: tuple[float | None, float | None, float | None] | None = None
    by_domain: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"{self.code}: no level {self.level!r}{nearest(self.level, LEVELS)}")


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One response as the model will see it.

    Attributes:
        place: where its row stands.
        item: "chosen", "rejected", "response", ...
        boundary: how the end of its context was found (`unipref.data.encode`).
        tokens: (text, id, kind), kind one of "context", "scored", and "cut" for what `max_length` cuts away.
    """

    place: str
    item: str
    boundary: str
    tokens: tuple[tuple[str, int, str], ...]


@dataclass
class Examination:
    """All that was found.

    Attributes:
        subject: the data file or the recipe, as it was named.
        facts: tables by heading, each {row: value} or {row: {column: value}}; plain JSON values.
        tokens: a few rows, token by token.
        accepted: codes whose errors somebody looked at and lives with.
        questions: what each check asks, by its code.
    """

    subject: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: list[TokenRow] = field(default_factory=list)
    accepted: tuple[str, ...] = ()
    questions: Mapping[str, str] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """The findings with which training would be wrong, without those that are accepted."""
        return [f for f in self.findings if f.level == "error" and f.code not in self.accepted]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, findings in the order of LEVELS."""
        order = list(LEVELS)
        found = sorted(self.findings, key=lambda finding: order.index(finding.level))
        return {
            "subject": self.subject,
            "accepted": list(self.accepted),
            "counts": {level: sum(f.level == level for f in found) for level in LEVELS},
            "findings": [{"question": self.questions.get(f.code, ""), **asdict(f)} for f in found],
            "facts": self.facts,
            "tokens": [asdict(row) for row in self.tokens],
        }
