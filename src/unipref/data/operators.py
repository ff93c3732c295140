"""Operators: records to records, with an account of every one they drop, change or add."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from unipref.core.columns import DATA_REWARD
from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison, Item, Record, Text
from unipref.data.report import DataReport, RowFault
from unipref.data.split import is_heldout

__all__ = [
    "Chain",
    "LeftOut",
    "Operator",
    "RecordOperator",
    "Step",
    "as_pairs",
    "chosen_only",
    "digest",
    "each",
    "goodness_of",
    "limit_records",
    "mismatch",
    "one_pair_each",
    "rated",
    "responses_of",
    "split_records",
    "strangers",
    "unused_id",
    "with_items",
    "with_pairs",
]

_RATINGS = ("score", "rating", DATA_REWARD, "reward")
Account = tuple[list[Record], DataReport]


@runtime_checkable
class Operator(Protocol):
    """Records to records, and the account of every one that was dropped, changed or added. The input stays as it is."""

    def __call__(self, records: Sequence[Record]) -> Account: ...


@dataclass(frozen=True)
class Step:
    """An operator with its name and options: equal to another where these are; the `repr` is the call that built it.

    Attributes:
        row_by_row: what becomes of a record depends on that record alone, so that data which do not fit in memory can
            be changed a part at a time.
    """

    key: str
    options: Mapping[str, Any]
    run: Callable[[Sequence[Record]], Account] = field(compare=False)
    row_by_row: bool = field(default=False, compare=False)

    def __call__(self, records: Sequence[Record]) -> Account:
        return self.run(records)

    def __repr__(self) -> str:
        values = {name: getattr(value, "__name__", repr(value)) for name, value in self.options.items()}
        return f"{self.key}({', '.join(f'{name}={value}' for name, value in values.items())})"


@dataclass(frozen=True)
class Chain:
    """Operators one after another, as one.

    Example:
        >>> Chain(())([])[1].n_read
        0
    """

    steps: tuple[Operator, ...]

    def __call__(self, records: Sequence[Record]) -> Account:
        found, report = list(records), DataReport(n_read=len(records), n_kept=len(records))
        for step in self.steps:
            found, later = step(found)
            report = report.then(later)
        return found, report


class LeftOut(Exception):
    """A sound record that the operator leaves out; the text says why."""


RecordOperator = Callable[[Record], Iterable[Record]]


def each(
    key: str, options: Mapping[str, Any], make: RecordOperator, *, changed: str = "", added: str = "further record"
) -> Step:
    """The operator that puts `make(record)` in the place of every record.

    Its first result is the record itself, counted as `changed` where it differs; others are counted as `added`.
    `make` raises `RowFault` to set a record aside and `LeftOut` to leave it out. An id that stands twice gets a number.
    """

    def run(records: Sequence[Record]) -> Account:
        report = DataReport(n_read=len(records))
        kept: list[Record] = []
        seen: dict[str, int] = {}
        for record in records:
            try:
                found = list(make(record))
                if not found:
                    raise LeftOut("nothing to make of it")
            except RowFault as fault:
                report.drop(fault, source=record.source or record.id, line=record.line, strict=False)
                continue
            except LeftOut as why:
                report.leave_out(str(why))
                continue
            report.change(changed, found[0] != record)
            report.add(added, len(found) - 1)
            kept += [replace(one, id=unused_id(one.id, seen)) for one in found]
        report.n_kept = len(kept)
        return kept, report

    return Step(key, options, run, row_by_row=True)


def with_pairs(
    record: Record,
    pairs: Mapping[tuple[int, int], float | None],
    *,
    keep: Iterable[int] | None = None,
    **changes: Any,
) -> Record:
    """`record` with comparisons for `pairs`, (winner, loser) -> margin, between its responses `keep` (those in a pair,
    where it is not given), in the order they stand in, and behind them every item of another role."""
    used = sorted({i for pair in pairs for i in pair} if keep is None else keep)
    place = {old: new for new, old in enumerate(used)}
    comparisons = tuple(Comparison(place[i], place[j], margin=margin) for (i, j), margin in pairs.items())
    return with_items(record, used, comparisons=comparisons, **changes)


def unused_id(name: str, seen: dict[str, int]) -> str:
    """`name`, or the first of name#2, name#3, ... that is not in `seen`, which learns it."""
    count = seen[name] = seen.get(name, 0) + 1
    return name if count == 1 else unused_id(f"{name}#{count}", seen)


def responses_of(record: Record) -> list[int]:
    """Indices of the items that are sides of comparisons, members of a list or labelled: of role "response"."""
    return [i for i, item in enumerate(record.items) if item.role == "response"]


def rated(record: Record, by: str) -> dict[int, float]:
    """The number in column `by` of every response.

    Raises:
        RowFault: there are fewer than two responses, or one has none.
    """
    responses = responses_of(record)
    if len(responses) < 2:
        raise RowFault("fewer than two responses", f"{len(responses)}")
    for i in responses:
        if math.isnan(record.items[i].columns.get(by, math.nan)):
            raise RowFault(f"a response has no {by!r}", f"response {i + 1}")
    return {i: record.items[i].columns[by] for i in responses}


def with_items(record: Record, keep: Sequence[int], **changes: Any) -> Record:
    """`record` with the responses `keep` alone, in that order, and behind them every item of another role.

    Comparisons between kept responses stay, unless `changes` gives others (in the new order).
    """
    place = {old: new for new, old in enumerate(keep)}
    others = [item for item in record.items if item.role != "response"]
    kept = tuple(
        replace(c, winner=place[c.winner], loser=place[c.loser])
        for c in record.comparisons
        if c.winner in place and c.loser in place
    )
    items = (*(record.items[i] for i in keep), *others)
    return replace(record, **{"items": items, "comparisons": kept, **changes})


def split_records(records: Sequence[Record], *, share: float) -> tuple[list[Record], list[Record]]:
    """(training, held-out) records. A conversation is on one side only, whatever else is in the data.

    Raises:
        ValueError: `share` is not in [0, 1).
    """
    sides: tuple[list[Record], list[Record]] = ([], [])
    for record in records:
        sides[is_heldout(record.conversation, share=share)].append(record)
    return sides


def limit_records(records: Sequence[Record], n: int, *, seed: int = 0) -> tuple[list[Record], DataReport]:
    """At most `n` of `records`, in their order, chosen by a hash of their texts and `seed`.

    The order of a file does not matter, and a larger `n` contains every smaller one.

    Raises:
        ConfigError: `n` is below one.
    """
    if n < 1:
        raise ConfigError(f"a limit of {n} records leaves nothing; give 1 or more, or no limit")
    report = DataReport(n_read=len(records), n_kept=min(n, len(records)))
    if n >= len(records):
        return list(records), report
    report.left_out["limit"] = len(records) - n
    order = sorted(range(len(records)), key=lambda i: (digest(records[i], seed), records[i].id))
    return [records[i] for i in sorted(order[:n])], report


def digest(record: Record, seed: int) -> bytes:
    """A hash of the record's responses with their contexts, and of `seed`: what a choice by chance goes by, so that
    the order of a file does not matter."""
    texts = [(record.items[i].context, record.items[i].response) for i in responses_of(record)]
    return hashlib.sha256(repr((seed, texts)).encode("utf-8", "backslashreplace")).digest()


def chosen_only(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
    """The responses worth imitating, for supervised fine-tuning: of a comparison the preferred side, of a list the
    best-ranked (or best-rated) response, of labelled responses those with thumbs up, and every unjudged response.
    Items of other roles are left behind.
    """
    report = DataReport(n_read=len(records))
    kept = []
    for record in records:
        keep = _worth_imitating(record)
        if not keep:
            report.leave_out("no response with thumbs up")
            continue
        report.change("only preferred responses kept", len(keep) < len(record.items))
        kept.append(replace(record, items=tuple(record.items[i] for i in keep), comparisons=()))
    report.n_kept = len(kept)
    return kept, report


def _worth_imitating(record: Record) -> list[int]:
    items = record.items
    responses = responses_of(record)
    if record.comparisons:
        return sorted({c.winner if c.preference >= 0.5 else c.loser for c in record.comparisons})
    if any(items[i].label is not None for i in responses):
        return [i for i in responses if items[i].label]
    goodness = goodness_of(items) if len(responses) > 1 else {}
    if goodness:
        best = max(goodness.values())
        return [i for i, value in goodness.items() if value == best][:1]
    return responses


def goodness_of(items: Sequence[Item], by: str | None = None) -> dict[int, float]:
    """How good each ranked or rated response is, higher is better; those without a rank or rating are absent."""
    items = [item if item.role == "response" else replace(item, rank=None, columns={}) for item in items]
    if by is None and any(item.rank is not None for item in items):
        return {i: -float(item.rank) for i, item in enumerate(items) if item.rank is not None}
    name = by or next((name for name in _RATINGS if any(name in item.columns for item in items)), None)
    return {i: item.columns[name] for i, item in enumerate(items) if name is not None and name in item.columns}


def as_pairs(
    records: Sequence[Record], *, which: str = "all", by: str | None = None
) -> tuple[list[Record], DataReport]:
    """The same responses with comparisons between them, for methods that need pairs. No text is copied.

    Lists get a comparison for every two responses that differ in rank or rating ("all"), or one of the best against
    the worst ("best_worst"); a difference in rating becomes the comparison's margin. Labelled responses to one prompt
    become one record that compares every thumbs up with every thumbs down. Records with comparisons stay as they are.
    A record's weight holds for each of its comparisons. Items of other roles come along, each once.

    Args:
        which: "all" or "best_worst"; of labelled responses "best_worst" takes the first of each label.
        by: the column to rate by; where it is not named the rank, or else a column "score", "rating" or "reward" (of
            two rewards the data's own, not that of a recipe's `objectives:`).

    Raises:
        ConfigError: `which` is neither.
        DataError: no record gives a pair.
    """
    if which not in ("all", "best_worst"):
        raise ConfigError(f"pairs of a list are 'all' or 'best_worst', not {which!r}")
    report = DataReport(n_read=len(records))
    paired: list[Record] = []
    thumbs: dict[Text, list[Record]] = defaultdict(list)
    for record in records:
        if record.comparisons:
            paired.append(record)
        elif len(found := responses_of(record)) == 1 and record.items[found[0]].label is not None:
            thumbs[record.items[found[0]].context].append(record)
        else:
            try:
                paired.append(_compare_list(record, which, by))
            except RowFault as fault:
                report.drop(fault, source=record.source or record.id, line=record.line, strict=False)
            else:
                report.change("list compared in pairs")
    for group in thumbs.values():
        record = _compare_labels(group, which)
        if record is None:
            fault = RowFault("no other response of the other label to the same prompt")
            for member in group:
                report.drop(fault, source=member.source or member.id, line=member.line, strict=False)
            continue
        paired.append(record)
        report.leave_out("joined with another response to its prompt", len(group) - 1)
    if not paired:
        raise DataError(
            f"no pair can be made of {len(records)} records: {report.counts or 'there are none'}; give rows with "
            "`chosen` and `rejected`, or lists with `ranks` or `scores`, or use a method for unpaired data, such as kto"
        )
    report.n_kept = len(paired)
    return paired, report


def _compare_labels(group: list[Record], which: str) -> Record | None:
    group = [with_items(record, responses_of(record)) for record in group]
    ups = [record for record in group if record.items[0].label]
    downs = [record for record in group if not record.items[0].label]
    if which == "best_worst":
        ups, downs = ups[:1], downs[:1]
    pairs = tuple(
        Comparison(i, len(ups) + j)
        for i, up in enumerate(ups)
        for j, down in enumerate(downs)
        if up.items[0].response != down.items[0].response
    )
    if not pairs:
        return None
    members = [*ups, *downs]
    others = [item for member in members for item in member.items[1:]]
    others = [item for i, item in enumerate(others) if item not in others[:i]]
    return replace(
        group[0],
        items=(*(replace(member.items[0], label=None) for member in members), *others),
        comparisons=pairs,
        weight=sum(member.weight for member in members) / len(members),
    )


def _compare_list(record: Record, which: str, by: str | None) -> Record:
    goodness = goodness_of(record.items, by)
    if len(goodness) < 2:
        raise RowFault("fewer than two responses have a rank or rating")
    ranked = by is None and any(record.items[i].rank is not None for i in responses_of(record))
    order = sorted(goodness, key=lambda i: (-goodness[i], i))
    pairs = [(i, j) for at, i in enumerate(order) for j in order[at + 1 :]]
    if which == "best_worst":
        pairs = [(order[0], order[-1])]
    pairs = [
        (i, j) for i, j in pairs if goodness[i] > goodness[j] and record.items[i].response != record.items[j].response
    ]
    if not pairs:
        raise RowFault("no two responses differ in rank or rating")
    return with_pairs(record, {(i, j): None if ranked else goodness[i] - goodness[j] for i, j in pairs})


def one_pair_each(records: Sequence[Record]) -> Account:
    """A record of its own for every comparison, for methods that read what sets the two sides of a pair apart.

    Losses stay as they are: a record's weight holds for each of its comparisons. A record without any stays too.
    """

    def make(record: Record) -> list[Record]:
        if len(record.comparisons) < 2 and len(responses_of(record)) < 3:
            return [record]
        return [
            with_items(record, (c.winner, c.loser), comparisons=(replace(c, winner=0, loser=1),))
            for c in record.comparisons
        ] or [record]

    return each("one_pair_each", {}, make, changed="one pair of several kept", added="pair of a record of several")(
        records
    )


def mismatch(records: Sequence[Record], *, seed: int, epoch: int) -> list[Record]:
    """For every response, in order, a record of its context with a response to another context.

    KTO's baseline is the mean log-ratio over these. They are fixed by (seed, epoch) over the whole data set, so
    they depend neither on batches nor on ranks. Every response is used once, unless one prompt holds more than half
    of the items: then the responses of the others are drawn with replacement.

    Raises:
        DataError: fewer than two different prompts, so that no response is a stranger's.
    """
    items = [(record, k) for record in records for k in responses_of(record)]
    contexts = [record.items[k].context for record, k in items]
    donor = np.empty(len(items), dtype=np.int64)
    for is_text in (True, False):  # a response of messages does not fit a context of text
        chosen = np.array([i for i, context in enumerate(contexts) if isinstance(context, str) == is_text], np.int64)
        if len(chosen):
            donor[chosen] = chosen[strangers([contexts[i] for i in chosen], seed=seed, epoch=epoch)]
    return [
        replace(
            record,
            id=f"{record.id}~{k}",
            items=(
                replace(record.items[k], label=None, rank=None, columns={}, spans=(), **_response(items[donor[i]])),
            ),
            comparisons=(),
        )
        for i, (record, k) in enumerate(items)
    ]


def _response(owner: tuple[Record, int]) -> dict[str, object]:
    item = owner[0].items[owner[1]]
    return {"response": item.response, "response_ids": item.response_ids}


def strangers(groups: Sequence[Hashable] | np.ndarray, *, seed: int, epoch: int = 0) -> np.ndarray:
    """(n,) for every place in `groups` one whose group is another; every place once where no group has more than half.

    What a group is called does not count, only which places share one: rows in memory, whose prompts are texts, and
    prepared ones, whose prompts are numbers, get the same strangers.

    Raises:
        DataError: there is one group, or none.

    Example:
        >>> strangers(["a", "b", "a", "b"], seed=0).tolist() in ([1, 0, 3, 2], [1, 2, 3, 0], [3, 0, 1, 2], [3, 2, 1, 0])
        True
    """
    group = _numbered(groups)
    n, sizes = len(group), np.bincount(group)
    if len(sizes) < 2:
        raise DataError("mismatched pairs need two different prompts or more, found one; add rows with other prompts")
    draw = np.random.default_rng([seed, epoch, n])
    row = np.lexsort((draw.random(n), draw.permutation(len(sizes))[group]))  # group after group, shuffled
    donor = np.empty(n, dtype=np.int64)
    if 2 * sizes.max() <= n:  # a step as long as the largest group leaves every group
        donor[row] = np.roll(row, -int(sizes.max()))
        return donor
    of_row = group[row]
    begins = np.flatnonzero(np.r_[True, of_row[1:] != of_row[:-1]])
    begin = np.repeat(begins, np.diff(np.r_[begins, n]))
    place = draw.integers(0, n - sizes[of_row])  # among those of other groups
    donor[row] = row[np.where(place < begin, place, place + sizes[of_row])]
    return donor


def _numbered(groups: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """(n,) the number of each place's group, by first appearance."""
    if isinstance(groups, np.ndarray):  # of millions of rows: no object for each
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        number = np.empty(len(first), dtype=np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        return number[group]
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(name, len(numbers)) for name in groups), np.int64, len(groups))
