"""Pairs of responses that were written for different conditions."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Comparison, Record, Text
from unipref.data.operators import Operator, Step, digest, responses_of, unused_id, with_items
from unipref.data.report import DataReport, RowFault


@method(
    "cross_pairs",
    kind="operator",
    status="reconstructed",
    source="arXiv:2405.17977, arXiv:2410.14184",
    formula="(x, y_c, c), (x, y_d, d) -> (c + x, y_c > y_d), (d + x, y_d > y_c)",
    citation=Citation(
        "Aligning to Thousands of Preferences via System Message Generalization",
        ("Seongyun Lee", "Sue Hyun Park", "Seungone Kim", "Minjoon Seo"),
        2024,
        "2405.17977",
    ),
)
def cross_pairs(*, by: str = "domain", draws: int | None = None, seed: int = 0) -> Operator:
    """Each response preferred, under its own condition, to responses to the same prompt for other conditions.

    The records hold one response each and name their condition in a fact; `conditioned` then writes the words of the
    conditions. The loser answers another wish well, so such pairs say nothing once their conditions are removed.

    Reconstructed: that losers were written for another condition is the sources'; how they are drawn is recalled, not
    read.

    Args:
        by: the fact that names the condition: "domain" or "user".
        draws: losers per response, drawn at random; all of other conditions where it is not given, which makes
            k (k - 1) pairs of k conditions.
    """
    if by not in ("domain", "user"):
        raise ConfigError(f"a record has no fact {by!r} that names a condition{nearest(by, ('domain', 'user'))}")
    if draws is not None and draws < 1:
        raise ConfigError(f"{draws} draws leave nothing; give 1 or more, or none for all")

    def run(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
        report = DataReport(n_read=len(records))
        groups: dict[Text, list[Record]] = defaultdict(list)
        sound = []
        for record in records:
            sides = responses_of(record)
            if len(sides) == 1 and getattr(record, by) is not None:
                sound.append(with_items(record, sides))
                groups[record.items[sides[0]].context].append(sound[-1])
            else:
                fault = RowFault(f"not one response with a {by}", f"{len(sides)} responses")
                report.drop(fault, source=record.source or record.id, line=record.line, strict=False)
        kept: list[Record] = []
        seen: dict[str, int] = {}
        for record in sound:
            own = record.items[0]
            others = [
                other.items[0]
                for other in groups[own.context]
                if getattr(other, by) != getattr(record, by) and other.items[0].response != own.response
            ]
            if draws is not None and len(others) > draws:
                others.sort(key=lambda item: repr(item.response))  # the order of the file does not matter
                others = random.Random(f"cross {seed} {digest(record, seed).hex()}").sample(others, draws)
            if not others:
                report.leave_out("no response to its prompt for another condition")
                continue
            items = tuple(replace(item, label=None) for item in (own, *others))
            pairs = tuple(Comparison(0, i + 1) for i in range(len(others)))
            made = replace(record, items=(*items, *record.items[1:]), comparisons=pairs)
            kept.append(replace(made, id=unused_id(made.id, seen)))
            report.change("compared with responses for other conditions")
        report.n_kept = len(kept)
        return kept, report

    return Step("cross_pairs", {"by": by, "draws": draws, "seed": seed}, run)
