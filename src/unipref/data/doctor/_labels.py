"""Checks of what people said: contradictions, circles, biases, agreement, labels that say nothing."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.findings import Finding
from unipref.core.records import plain_text
from unipref.data.doctor._checks import HALF, graded
from unipref.data.doctor._view import N_PLACES, Verdict, View, counted, ends, not_checked, percent, share
from unipref.data.operators import goodness_of, responses_of

__all__ = ["annotators", "constant_columns", "contradictions", "intransitive", "krippendorff_alpha", "length_bias"]
__all__ += ["one_sided", "position_bias"]

BIAS = 0.1  # a share this far from one half is a warning: a policy learns it before it learns anything else
CYCLIC = 0.1  # of triples; verdicts by the toss of a coin give 2 of 8
LOPSIDED = 0.95  # labels of which so many say the same leave a batch of 32 without the other kind one time in five
TOLERABLE = 0.667  # Krippendorff 2004 (Content Analysis, 2nd ed., p. 241): below, no conclusion even with caution
_RESAMPLES = 1000


def contradictions(view: View) -> Finding:
    """Same prompt and the same texts, opposite verdicts; several annotators who are named may well differ."""
    said: dict[Hashable, dict[bool, list[tuple[int, str | None]]]] = defaultdict(lambda: defaultdict(list))
    for v in view.verdicts:
        if v.decided:
            one, two = v.winner.strip(), v.loser.strip()
            said[(v.context, min(one, two), max(one, two))][one < two].append((v.row, v.annotator))
    for row, record in enumerate(view.records):
        for i in responses_of(record):
            item = record.items[i]
            if item.label is not None:
                said[(item.context, plain_text(item.response).strip())][item.label].append((row, record.user))
    if not said:
        return not_checked("contradictions", "the data have neither comparisons nor labels")
    opposed = [kinds for kinds in said.values() if len(kinds) == 2]
    people = [kinds for kinds in opposed if _different_people(kinds)]
    rows = sorted({row for kinds in opposed for both in kinds.values() for row, _ in both})
    tally = counted(view, rows) | {"n": len(opposed), "of": len(said)}
    if not opposed:
        return Finding("contradictions", "fine", "no verdict contradicts another", **tally)
    alone = len(opposed) - len(people)
    says = (
        f"opposite verdicts on the same texts: {len(opposed):,} of {len(said):,} ({percent(len(opposed), len(said))})"
    )
    if people:
        says += f", {len(people):,} of them by different annotators"
    return Finding(
        "contradictions",
        graded(alone, len(said), error=HALF) if alone else "note",
        says,
        "keep one verdict of each, or their share as `preference`, so that training need not fit both",
        **tally,
    )


def _different_people(kinds: dict[bool, list[tuple[int, str | None]]]) -> bool:
    yes, no = ({who for _, who in kinds[kind]} for kind in (True, False))
    return None not in yes | no and not yes & no


def intransitive(view: View) -> Finding:
    """Circles of three among the responses to one prompt, over all records that share it."""
    groups: dict[Hashable, list[Verdict]] = defaultdict(list)
    for v in view.verdicts:
        if v.decided:
            groups[v.context].append(v)
    circles, triples, rows = 0, 0, []
    for group in groups.values():
        if len(group) < 3:
            continue
        votes: Counter[tuple[str, str]] = Counter()
        by_pair: dict[frozenset[str], list[int]] = defaultdict(list)
        for v in group:
            votes[v.winner.strip(), v.loser.strip()] += 1
            by_pair[frozenset((v.winner.strip(), v.loser.strip()))].append(v.row)
        beats: dict[str, set[str]] = defaultdict(set)
        meets: dict[str, set[str]] = defaultdict(set)
        for (one, two), n in votes.items():
            if n > votes[two, one]:  # a pair that stands as often each way is a contradiction, not a link of a circle
                beats[one].add(two)
                meets[one].add(two)
                meets[two].add(one)
        met = found = 0
        for one in list(beats):
            for two in list(beats[one]):
                met += len(meets[one] & meets[two])
                for three in beats[two]:
                    if one in beats[three]:
                        found += 1
                        for pair in ((one, two), (two, three), (three, one)):
                            rows += by_pair[frozenset(pair)]
        triples += met // 3  # each was met from its three sides
        circles += found // 3
    if not triples:
        return not_checked("intransitive", "no prompt has three responses that were all compared with each other")
    tally = counted(view, sorted(set(rows))) | {"n": circles, "of": triples}
    return Finding(
        "intransitive",
        graded(circles, triples, warning=CYCLIC),
        f"circles among three responses to one prompt: {circles:,} of {triples:,} triples "
        f"({percent(circles, triples)}; chance alone gives 25 %)"
        if circles
        else f"none of {triples:,} triples of responses goes in a circle",
        "no reward orders these; look whether the verdicts weigh different things" if circles else "",
        **tally,
    )


def length_bias(view: View) -> Finding:
    """In characters, which mean the same in every script and for every tokenizer."""
    decided = [v for v in view.verdicts if v.decided]
    counts = [v for v in decided if len(v.winner) != len(v.loser)]
    if not counts:
        return not_checked("length-bias", "the data have no comparison of responses that differ in length")
    longer = [float(len(v.winner) > len(v.loser)) for v in counts]
    ties = len(decided) - len(counts)
    return _bias(
        view,
        "length-bias",
        counts,
        longer,
        "the preferred response is the longer one in {share} of {n:,} comparisons, interval {low} to {high}"
        + (f" ({ties:,} of equal length left out)" if ties else ""),
        "a policy will learn the length first; use a method with a length term, or balance the lengths",
    )


def position_bias(view: View) -> Finding:
    decided = [v for v in view.verdicts if v.decided]
    counts = [v for v in decided if v.first_wins is not None]
    if not counts:
        return not_checked(
            "position-bias",
            "the columns name the preferred response, so the order in which the two were shown is not in the data",
        )
    first = [float(v.first_wins) for v in counts]
    lists = [v for v in counts if not view.records[v.row].comparisons]
    if len(lists) == len(counts) and len(set(first)) == 1:
        return not_checked("position-bias", "the responses stand in the order of their ranks or ratings")
    return _bias(
        view,
        "position-bias",
        counts,
        first,
        "the response that stands first wins {share} of {n:,} comparisons, interval {low} to {high}",
        "the judge looked at the place, or the rows are sorted by the verdict; show every pair in both orders",
    )


def _bias(
    view: View, code: str, verdicts: Sequence[Verdict], values: Sequence[float], says: str, advice: str
) -> Finding:
    """The finding about a share that should be one half: a note where the interval leaves it out, a warning where it
    is 10 points away from it as well."""
    value, low, high = share(values, [view.records[v.row].conversation for v in verdicts])
    apart = low is not None and not low <= 0.5 <= high
    level = "fine" if not apart else "warning" if abs(value - 0.5) >= BIAS else "note"
    by_domain = {}
    if view.domains:
        for name in sorted({view.domains[v.row] for v in verdicts}):
            mine = [k for k, v in enumerate(verdicts) if view.domains[v.row] == name]
            clusters = [view.records[verdicts[k].row].conversation for k in mine]
            by_domain[name] = {
                "n": int(sum(values[k] for k in mine)),
                "of": len(mine),
                "value": list(share([values[k] for k in mine], clusters)),
            }
    words = {"share": percent(value, 1), "low": percent(low, 1), "high": percent(high, 1), "n": len(values)}
    return Finding(
        code,
        level,
        says.format(**words),
        {"warning": advice, "note": "a slight one; keep an eye on it after training"}.get(level, ""),
        int(sum(values)),
        len(values),
        (value, low, high),
        by_domain,
    )


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha for nominal verdicts, with a 95 % interval over units drawn with replacement."""

    value: float
    low: float
    high: float
    units: int
    agreement: float  # of two annotators of one unit drawn at random


def krippendorff_alpha(units: Sequence[Sequence[Hashable]], *, seed: int = 0) -> Alpha:
    """Agreement beyond chance of the ratings of `units`, each by two people or more.

    1 - observed / expected disagreement; 0 is chance, 1 is perfect. NaN where all ratings are the same.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section B and C.

    Example:
        >>> meg, owen = "0100000010", "1110010000"  # the paper's first example: 0.095
        >>> round(krippendorff_alpha(list(zip(meg, owen))).value, 3)
        0.095
    """
    kinds = {kind: k for k, kind in enumerate(sorted({rating for unit in units for rating in unit}, key=str))}
    counts = np.zeros((len(units), len(kinds)))
    for row, unit in zip(counts, units, strict=True):
        for rating in unit:
            row[kinds[rating]] += 1
    size = counts.sum(1)
    apart = (size**2 - (counts**2).sum(1)) / (size - 1)  # ordered pairs that disagree, over raters - 1

    def alpha(total: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
        n = total.sum(-1)
        expected = n**2 - (total**2).sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(expected > 0, 1 - (n - 1) * disagreement / expected, np.nan)

    value = float(alpha(counts.sum(0), apart.sum()))
    patterns, where, times = np.unique(counts, axis=0, return_index=True, return_counts=True)  # alike units are alike
    draws = np.random.default_rng(seed).multinomial(len(units), times / len(units), size=_RESAMPLES)
    drawn = alpha(draws @ patterns, draws @ apart[where])
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (math.nan, math.nan)
    pairs = size * (size - 1)
    return Alpha(value, float(low), float(high), len(units), float(1 - (apart * (size - 1)).sum() / pairs.sum()))


def annotators(view: View, *, seed: int) -> Finding:
    """Agreement of annotators who are named; verdicts without a name could be one person's, entered twice."""
    said: dict[Hashable, dict[str, Hashable]] = defaultdict(dict)
    rows: dict[Hashable, int] = {}
    for v in view.verdicts:
        if v.annotator is not None:
            one, two = v.winner.strip(), v.loser.strip()
            unit = (v.context, min(one, two), max(one, two))
            said[unit][v.annotator] = "tie" if not v.decided else one < two
            rows.setdefault(unit, v.row)
    for row, record in enumerate(view.records):
        for i in responses_of(record) if record.user is not None else ():
            item = record.items[i]
            if item.label is not None:
                unit = (item.context, plain_text(item.response).strip())
                said[unit][record.user] = item.label
                rows.setdefault(unit, row)
    several = {unit: list(votes.values()) for unit, votes in said.items() if len(votes) > 1}
    if not several:
        return _vote_shares(view) or not_checked(
            "annotators", "no text was judged by two annotators who are named (columns `annotator`, `user`)"
        )
    found = krippendorff_alpha(list(several.values()), seed=seed)
    by_domain = {}
    if view.domains:
        names: dict[str, list[list[Hashable]]] = defaultdict(list)
        for unit, votes in several.items():
            names[view.domains[rows[unit]]].append(votes)
        for name in sorted(names):
            alpha = krippendorff_alpha(names[name], seed=seed)
            value = [None if math.isnan(x) else x for x in (alpha.value, alpha.low, alpha.high)]
            by_domain[name] = {"n": alpha.units, "value": value}
    if math.isnan(found.value):
        says = f"all annotators of {found.units:,} texts gave the same verdict everywhere"
        return Finding("annotators", "note", says, n=found.units, of=len(said), by_domain=by_domain)
    level = "warning" if found.low <= 0 else "note" if found.value < TOLERABLE else "fine"
    return Finding(
        "annotators",
        level,
        f"two annotators of one text agree in {percent(found.agreement, 1)}; Krippendorff's alpha {found.value:.2f}, "
        f"interval {found.low:.2f} to {found.high:.2f}, over {found.units:,} texts with several verdicts",
        {
            "warning": "this cannot be told from chance; ask what the annotators were told before training on it",
            "note": "a label is wrong often enough that a method with soft labels (cdpo, dpo_robust) may fit better",
            "fine": "",
        }[level],
        found.units,
        len(said),
        (found.value, found.low, found.high),
        by_domain,
    )


def _vote_shares(view: View) -> Finding | None:
    split = [v for v in view.verdicts if 0.5 < v.preference < 1]
    if not split:
        return None
    mean = sum(v.preference for v in view.verdicts) / len(view.verdicts)
    return Finding(
        "annotators",
        "note",
        f"not unanimous: {len(split):,} of {len(view.verdicts):,} comparisons; the preferred response has "
        f"{percent(mean, 1)} of the votes on average (agreement beyond chance needs every vote with its annotator)",
        "",
        len(split),
        len(view.verdicts),
    )


def one_sided(view: View) -> Finding:
    labels = [item.label for record in view.records for item in record.items if item.label is not None]
    lists = [
        row
        for row, record in enumerate(view.records)
        if not record.comparisons
        and len(goodness_of(record.items)) > 1
        and len({record.items[i].context for i in responses_of(record)}) == 1  # not the steps of a tree
    ]
    decided = {v.row for v in view.verdicts if v.decided}
    if labels:
        ups = sum(labels)
        n = max(ups, len(labels) - ups)
        which = "up" if ups >= len(labels) - ups else "down"
        level = "error" if n == len(labels) else "warning" if n / len(labels) >= LOPSIDED else "fine"
        says = f"{n:,} of {len(labels):,} labels are thumbs {which} ({percent(n, len(labels))})"
        advice = "methods for thumbs need both kinds; add the other, or train on these as demonstrations (sft)"
        return Finding("one-sided", level, says, "" if level == "fine" else advice, n, len(labels))
    judged = sorted({v.row for v in view.verdicts} | set(lists))
    if not judged:
        return not_checked("one-sided", "the data have no labels, ranks, ratings or comparisons")
    ties = [row for row in judged if row not in decided]
    tally = counted(view, ties, judged)
    n, of = len(ties), len(judged)
    says = f"{n:,} of {of:,} records prefer{ends(n)} neither response ({percent(n, of)})"
    level = "error" if n == of else "fine" if n == 0 else "warning" if n / of >= 0.5 else "note"
    advice = "a tie teaches a pairwise method that both are equal; leave ties out if they mean 'not judged'"
    return Finding("one-sided", level, says if n else "every record prefers one", advice if n else "", **tally)


def constant_columns(view: View) -> Finding:
    """Numbers that tell no row from another, and numbers that are none."""
    columns: dict[str, list[float]] = defaultdict(list)
    for record in view.records:
        for item in record.items:
            for name, value in item.columns.items():
                columns[name].append(value)
        for c in record.comparisons:
            if c.margin is not None:
                columns["margin"].append(c.margin)
    weights = [record.weight for record in view.records]
    if any(w != 1.0 for w in weights):
        columns["weight"] = weights
    broken = [row for row in view.report.set_aside if row.reason.endswith("is NaN or infinite")]
    infinite = [name for name, values in columns.items() if any(math.isinf(v) for v in values)]
    missing = [name for name, values in columns.items() if all(math.isnan(v) for v in values)]
    same = {
        name: values[0]
        for name, values in columns.items()
        if name not in infinite and name not in missing and len(values) > 1 and len(set(values)) == 1
    }
    places = tuple(row.source if row.line is None else f"{row.source}, line {row.line}" for row in broken)[:N_PLACES]
    parts = [f"{name} is {value:g} everywhere" for name, value in sorted(same.items())]
    parts += [f"{name} is missing everywhere" for name in sorted(missing)]
    parts += [f"{name} holds infinite numbers" for name in sorted(infinite)]
    if broken:
        parts.append(f"rows set aside because a number is NaN or infinite: {len(broken):,}")
    n = len(same) + len(missing) + len(infinite) + len(broken)
    if not n:
        if not columns:
            return not_checked("constant-columns", "the data have no column of weights, margins or scores")
        says = f"{', '.join(sorted(columns))} differ from row to row" if len(columns) > 1 else f"{next(iter(columns))} "
        return Finding("constant-columns", "fine", says + ("" if len(columns) > 1 else "differs from row to row"), n=0)
    wrong = infinite or same.get("weight") == 0
    level = "error" if wrong else "warning" if same or missing else graded(len(broken), view.report.n_read)
    advice = "a weight of 0 everywhere trains nothing; " if same.get("weight") == 0 else ""
    return Finding(
        "constant-columns", level, "; ".join(parts), advice + "check how the column was made", n, places=places
    )
