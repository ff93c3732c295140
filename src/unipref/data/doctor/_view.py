"""Records as the checks look at them: verdicts between two texts, rows with a place and a domain, shares of them."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unipref.core.findings import Finding
from unipref.core.records import Record, Text, plain_text
from unipref.core.statistics import mean
from unipref.data.doctor._checks import CHECKS
from unipref.data.operators import goodness_of, responses_of
from unipref.data.report import DataReport

__all__ = ["N_PLACES", "Verdict", "View", "counted", "ends", "not_checked", "percent", "place", "share", "view_of"]

N_PLACES = 8  # enough to look up what kind of row it is; the numbers say how many there are
_BOOTSTRAP = 2_000  # clusters up to which an interval is bootstrapped; above, the normal one is as good and cheap
_LONGEST_LIST = 10  # a list of more responses is compared neighbour by neighbour: its pairs grow with the square
_CHOSEN_FIRST = ("preference", "joint", "hh")  # formats whose columns name the winner, so order says nothing


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison as texts.

    Attributes:
        row: index of its record.
        preference: of the winner; 0.5 is a tie.
        first_wins: the winner stood first; None where the data's order follows the verdict, or is not known.
    """

    row: int
    context: Text
    winner: str
    loser: str
    preference: float = 1.0
    margin: float | None = None
    annotator: str | None = None
    first_wins: bool | None = None

    @property
    def decided(self) -> bool:
        return self.preference != 0.5


@dataclass(frozen=True)
class View:
    """What every check needs of the records, worked out once.

    Attributes:
        domains: per record the name of its domain; empty where there are not several.
        verdicts: of comparisons as they stand, of lists for every two responses that differ in rank or rating.
    """

    records: Sequence[Record]
    report: DataReport
    domains: Sequence[str]
    verdicts: Sequence[Verdict] = field(repr=False)

    def place(self, row: int) -> str:
        return place(self.records[row])

    def texts(self, row: int) -> list[str]:
        """The responses of a record."""
        record = self.records[row]
        return [plain_text(record.items[i].response) for i in responses_of(record)]


def view_of(records: Sequence[Record], report: DataReport) -> View:
    """`records` with their verdicts; preferences below 0.5 turned round, so that the winner is whom more preferred."""
    names = [record.domain or "no domain" for record in records]
    formats = {name: facts.get("format") for name, facts in report.sources.items()}
    verdicts = []
    for row, record in enumerate(records):
        ordered = formats.get(record.source) not in (*_CHOSEN_FIRST, None)
        verdicts += _verdicts(row, record, ordered)
    return View(records, report, names if len(set(names)) > 1 else (), verdicts)


def _verdicts(row: int, record: Record, ordered: bool) -> Iterable[Verdict]:
    texts = [plain_text(item.response) for item in record.items]
    if record.comparisons:
        for c in record.comparisons:
            winner, loser = (c.winner, c.loser) if c.preference >= 0.5 else (c.loser, c.winner)
            yield Verdict(
                row,
                record.items[winner].context,
                texts[winner],
                texts[loser],
                max(c.preference, 1 - c.preference),
                c.margin,
                c.annotator or record.user,
                winner < loser if ordered else None,
            )
        return
    good = goodness_of(record.items)
    order = sorted(good)
    far = len(order) if len(order) <= _LONGEST_LIST else 2
    for at, i in enumerate(order):
        for j in order[at + 1 : at + far]:
            alike = record.items[i].context == record.items[j].context  # not so for the steps of a tree
            if alike and good[i] != good[j] and texts[i] != texts[j]:
                winner, loser = (i, j) if good[i] > good[j] else (j, i)
                context = record.items[winner].context
                yield Verdict(row, context, texts[winner], texts[loser], annotator=record.user, first_wins=winner == i)


def place(record: Record) -> str:
    """Where a record stands: "FILE, line N"."""
    return record.id if record.line is None else f"{record.source}, line {record.line}"


def percent(n: float, of: float) -> str:
    """A share in words.

    Example:
        >>> percent(1, 3), percent(1, 5000), percent(0, 5), percent(4999, 5000)
        ('33 %', '0.02 %', '0 %', '99.98 %')
    """
    x = 100 * n / of if of else 0.0
    digits = 0 if x in (0, 100) or 1 <= x <= 99 else 2 if x < 0.1 or x > 99.9 else 1
    return f"{x:.{digits}f} %"


def ends(n: int) -> str:
    """The ending of a verb after a count: "1 record stands", "2 records stand"."""
    return "s" if n == 1 else ""


def counted(view: View, hits: Iterable[int], among: Iterable[int] | None = None) -> dict[str, Any]:
    """`n`, `of`, `by_domain` and `places` of a finding about rows.

    Args:
        hits: rows that have it, one entry for each time they do.
        among: rows that could; all records where not given.
    """
    hits, among = list(hits), list(range(len(view.records)) if among is None else among)
    by_domain = {}
    if view.domains:
        total, found = Counter(view.domains[row] for row in among), Counter(view.domains[row] for row in hits)
        by_domain = {name: {"n": found[name], "of": total[name]} for name in sorted(total)}
    places = dict.fromkeys(view.place(row) for row in sorted(set(hits)))
    return {"n": len(hits), "of": len(among), "by_domain": by_domain, "places": tuple(places)[:N_PLACES]}


def not_checked(code: str, why: str, advice: str = "") -> Finding:
    """The finding of a check that could not be asked."""
    assert code in CHECKS, code
    return Finding(code, "not_checked", why, advice)


def share(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float | None, float | None, float | None]:
    """(mean, low, high) of numbers in [0, 1], 95 %, clusters drawn whole.

    Up to 2,000 clusters the bootstrap of `core.statistics`, above them the normal interval of a ratio of cluster sums
    (the same to a hundredth of its width there, at a thousandth of the time).
    """
    sums: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        both = sums.setdefault(cluster, [0.0, 0.0])
        both[0] += value
        both[1] += 1
    if len(sums) <= _BOOTSTRAP:
        low_middle_high = mean(values, clusters=[str(c) for c in clusters], bounds=(0.0, 1.0)).as_list()
        return tuple(low_middle_high)
    total, count = np.array(list(sums.values())).T
    value = total.sum() / count.sum()
    spread = math.sqrt(((total - value * count) ** 2).sum() * len(sums) / (len(sums) - 1)) / count.sum()
    return float(value), float(max(value - 1.959964 * spread, 0.0)), float(min(value + 1.959964 * spread, 1.0))
