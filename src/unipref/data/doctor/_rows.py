"""Checks of rows: what could not be read, what nothing reads, what stands there twice."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from unipref.core.findings import Finding
from unipref.core.records import Record, last_user_turn, plain_text
from unipref.data.doctor._checks import HALF, MANY, MOST, graded, worst
from unipref.data.doctor._near import NEAR, jaccard, near_pairs, normal
from unipref.data.doctor._view import N_PLACES, View, counted, ends, not_checked, percent, place
from unipref.data.operators import responses_of
from unipref.data.report import SetAside

__all__ = ["duplicates", "lost", "media", "near_duplicates", "overlap", "rows_set_aside", "unused_columns"]

_MEDIA = ("image", "images", "pixel_values", "video", "videos", "audio", "audios")
_TOOLS = ("tools", "tool_calls", "functions", "function_call")
_PLACEHOLDERS = ("<image>", "<|image|>", "<|image_pad|>", "<|vision_start|>", "<start_of_image>", "<audio>", "<video>")
_CARRIES = ("holds a message with more than text", "holds a message whose content is not text")
_TAIL = 200  # characters of the prompt that count for a row's near copies: in a long one the responses would not show


def rows_set_aside(view: View) -> Finding:
    lost_rows, report = view.report.set_aside, view.report
    n, of = len(lost_rows), report.n_read
    reasons = "; ".join(f"{count:,} x {reason}" for reason, count in report.counts.items())
    left_out = ", ".join(f"{count:,} left out ({why})" for why, count in report.left_out.items())
    says = f"{of:,} rows read, {n:,} of them set aside ({percent(n, of)})" if n else f"all {of:,} rows could be read"
    return Finding(
        "rows-set-aside",
        graded(n, of, error=MOST),
        says + (f": {reasons}" if reasons else "") + (f"; {left_out}" if left_out else ""),
        "mend these rows, or see whether what is left is what you meant to train on" if n else "",
        n,
        of,
        places=_places(lost_rows),
    )


def unused_columns(view: View) -> Finding:
    unused = {name: facts.get("unused", []) for name, facts in view.report.sources.items()}
    names = sorted({column for columns in unused.values() for column in columns})
    if not names:
        return Finding("unused-columns", "fine", "every column of the data is read", n=0)
    return Finding(
        "unused-columns",
        "note",
        f"nothing reads the columns {', '.join(names)}",
        "rename a column that should count; the formats are listed in the documentation of data",
        len(names),
        places=tuple(f"{source}: {', '.join(columns)}" for source, columns in unused.items() if columns)[:N_PLACES],
    )


def media(view: View) -> Finding:
    """Images, sound and tools. A column of images is an error: the model would be taught to answer without what the
    answer is about. One of tools is a warning: the text may stand without them."""
    unused = [column for facts in view.report.sources.values() for column in facts.get("unused", [])]
    columns = sorted({column for column in unused if column.lower() in (*_MEDIA, *_TOOLS)})
    carried = [row for row in view.report.set_aside if row.reason.endswith(_CARRIES)]
    spelled = [i for i, record in enumerate(view.records) if _mentions(record)]
    tally = counted(view, spelled)
    if not (columns or carried or spelled):
        return Finding("media", "fine", "the rows hold text alone", **tally)
    parts = [
        f"the columns {', '.join(columns)} hold what no text does" if columns else "",
        f"rows set aside because their messages hold more than text: {len(carried):,}" if carried else "",
        f"records that spell a place for an image or sound: {len(spelled):,}" if spelled else "",
    ]
    tally["places"] = (*_places(carried), *tally["places"])[:N_PLACES]
    tally["n"] = len(spelled) + len(carried)
    tally["of"] = len(view.records) + len(view.report.set_aside)
    return Finding(
        "media",
        worst(
            "fine" if not columns else "error" if any(column.lower() in _MEDIA for column in columns) else "warning",
            graded(len(spelled), len(view.records), error=MANY),
            graded(len(carried), view.report.n_read, error=MANY),
        ),
        "; ".join(part for part in parts if part),
        "training is on text alone; take these rows or columns out, or use text that stands for itself",
        **tally,
    )


def _mentions(record: Record) -> bool:
    return any(
        "<" in text and any(mark in text for mark in _PLACEHOLDERS)
        for item in record.items
        for text in (plain_text(item.context), plain_text(item.response))
    )


def lost(code: str, view: View, reasons: tuple[str, ...], still: Sequence[int], what: str, advice: str) -> Finding:
    """What the reader set aside for one of `reasons`, and the records that have it `still`."""
    aside = [row for row in view.report.set_aside if row.reason.startswith(reasons)]
    tally = counted(view, still)
    if not aside and not still:
        return Finding(code, "fine", f"no {what}", **tally)
    parts = [f"rows with {what}, set aside: {len(aside):,}" if aside else ""]
    parts.append(f"records with {what} but for white space: {len(still):,}" if still else "")
    tally |= {"n": len(aside) + len(still), "of": view.report.n_read}
    tally["places"] = (*_places(aside), *tally["places"])[:N_PLACES]
    level = worst(graded(len(aside), view.report.n_read), graded(len(still), len(view.records), error=MOST))
    return Finding(code, level, "; ".join(part for part in parts if part), advice, **tally)


def duplicates(view: View) -> tuple[Finding, list[int]]:
    """The finding, and the first record of every kind."""
    first: dict[Hashable, int] = {}
    again = []
    for row, record in enumerate(view.records):
        if first.setdefault(_identity(record), row) != row:
            again.append(row)
    tally = counted(view, again)
    n, of = tally["n"], tally["of"]
    says = f"{n:,} of {of:,} records stand{ends(n)} there a second time ({percent(n, of)})"
    advice = "leave them out, or give one of them a weight if they should count more" if n else ""
    found = Finding("duplicates", graded(n, of), says if n else "no record stands twice", advice, **tally)
    return found, list(first.values())


def _identity(record: Record) -> Hashable:
    items = tuple((i.context, plain_text(i.response).strip(), i.label, i.rank, i.role) for i in record.items)
    verdicts = tuple((c.winner, c.loser, c.preference, c.annotator) for c in record.comparisons)
    return items, verdicts, record.user


def near_duplicates(view: View, rows: Sequence[int], *, seed: int) -> tuple[Finding, Finding]:
    """Near copies among `rows`, and those of them whose verdicts are opposite."""
    texts = [_summary(view, row) for row in rows]
    parent = list(range(len(rows)))
    again, opposite = set(), set()
    for i, j in near_pairs(texts, seed=seed):
        if (i, j) in opposite or (_root(parent, i) == _root(parent, j) and j in again):
            continue
        same, turned = _alike(view, rows[i], rows[j])
        if turned:
            opposite.add((i, j))
        elif same:
            again.add(j)
            parent[_root(parent, j)] = _root(parent, i)
    near = counted(view, sorted(rows[j] for j in again))
    n, of = near["n"], near["of"]
    says = f"{n:,} of {of:,} records differ{ends(n)} from an earlier one by a few characters ({percent(n, of)})"
    first = Finding(
        "near-duplicates",
        graded(n, of),
        says if n else "no record is nearly another one",
        "keep one of each, or leave them if they are votes of several people" if n else "",
        **near,
    )
    involved = sorted({rows[k] for pair in opposite for k in pair})
    against = counted(view, involved) | {"n": len(opposite), "of": of}
    says = f"pairs of records that differ by a few characters but have opposite verdicts: {len(opposite):,}"
    second = Finding(
        "near-contradictions",
        graded(len(opposite), of, error=HALF),
        says if opposite else "no two records that are nearly the same have opposite verdicts",
        "look at these rows: one of the two is labelled wrongly, or the labels hang on a detail" if opposite else "",
        **against,
    )
    return first, second


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _prompt(view: View, row: int) -> str:
    return last_user_turn(view.records[row].items[0].context)


def _summary(view: View, row: int) -> str:
    return "\n".join([normal(_prompt(view, row))[-_TAIL:], *sorted(view.texts(row))])


def _alike(view: View, i: int, j: int) -> tuple[bool, bool]:
    """(nearly the same texts, and with opposite verdicts) of two records."""
    if _two_people(view.records[i], view.records[j]) or jaccard(_prompt(view, i), _prompt(view, j)) < NEAR:
        return False, False
    one, two = _sides(view, i), _sides(view, j)
    if len(one) != len(two):
        return False, False
    if one == two or one == two[::-1]:  # copies and contradictions to the letter have checks of their own
        return one == two, False
    if len(one) == 2:
        straight = min(jaccard(a, b) for a, b in zip(one, two, strict=True))
        crossed = min(jaccard(a, b) for a, b in zip(one, reversed(two), strict=True))
        ordered = all(len(view.records[row].comparisons) == 1 for row in (i, j))
        return max(straight, crossed) >= NEAR, ordered and crossed >= NEAR and crossed > straight
    same = jaccard("\n".join(sorted(one)), "\n".join(sorted(two))) >= NEAR
    labels = [[item.label for item in view.records[row].items if item.label is not None] for row in (i, j)]
    return same, same and len(labels[0]) == len(labels[1]) == 1 and labels[0] != labels[1]


def _two_people(one: Record, two: Record) -> bool:
    """Votes of two people who are named on one text are no copies."""
    names = [record.user or next((c.annotator for c in record.comparisons), None) for record in (one, two)]
    return None not in names and names[0] != names[1]


def _sides(view: View, row: int) -> list[str]:
    """Winner and loser of a comparison, or the responses as they stand."""
    record = view.records[row]
    if len(record.comparisons) == 1 and len(responses_of(record)) == 2:
        c = record.comparisons[0]
        order = (c.winner, c.loser) if c.preference >= 0.5 else (c.loser, c.winner)
        return [plain_text(record.items[k].response) for k in order]
    return view.texts(row)


def overlap(view: View, heldout: Sequence[Record] | None, *, seed: int) -> tuple[Finding, Finding]:
    """Evaluation conversations that stand in training, by their key and by near prompts."""
    if heldout is None:
        why = "no evaluation file was given; a share that is split off by conversation has none in common"
        return not_checked("eval-overlap", why), not_checked("eval-near-overlap", why)
    known = {record.conversation for record in view.records}
    both = [record for record in heldout if record.conversation in known]
    others = [record for record in heldout if record.conversation not in known]
    exact = Finding(
        "eval-overlap",
        graded(len(both), len(heldout), error=MANY),
        f"trained on as well: the conversations of {len(both):,} of {len(heldout):,} evaluation records "
        f"({percent(len(both), len(heldout))})"
        if both
        else "no evaluation conversation is trained on",
        "take them out of one file, or let `data.eval_share` split one file by conversation" if both else "",
        **_heldout_tally(both, heldout),
    )
    ours, theirs = sorted(known), [record.conversation for record in others]
    hit = {j for i, j in near_pairs(ours, theirs, seed=seed) if jaccard(ours[i], theirs[j]) >= NEAR}
    near = [others[j] for j in sorted(hit)]
    again = Finding(
        "eval-near-overlap",
        graded(len(near), len(heldout)),
        f"{len(near):,} of {len(heldout):,} evaluation prompts differ{ends(len(near))} from a training prompt by a few "
        f"characters ({percent(len(near), len(heldout))})"
        if near
        else "no evaluation prompt is nearly a training prompt",
        "the evaluation flatters where it repeats training; leave these rows out of it" if near else "",
        **_heldout_tally(near, heldout),
    )
    return exact, again


def _heldout_tally(hits: Sequence[Record], heldout: Sequence[Record]) -> dict[str, Any]:
    names = [record.domain or "no domain" for record in heldout]
    by_domain = {}
    if len(set(names)) > 1:
        found = defaultdict(int)
        for record in hits:
            found[record.domain or "no domain"] += 1
        by_domain = {name: {"n": found[name], "of": names.count(name)} for name in sorted(set(names))}
    return {"n": len(hits), "of": len(heldout), "by_domain": by_domain, "places": tuple(map(place, hits[:N_PLACES]))}


def _places(rows: Iterable[SetAside]) -> tuple[str, ...]:
    return tuple(row.source if row.line is None else f"{row.source}, line {row.line}" for row in rows)[:N_PLACES]
