"""A user's earlier choices before the question."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Comparison, Record, plain_text
from unipref.data.conditioning import PLACES, put_before
from unipref.data.few_shots import Shot, draw_shots, few_shot_words
from unipref.data.operators import Operator, Step, unused_id, with_items
from unipref.data.report import DataReport

FSPO = Citation(
    "FSPO: Few-Shot Preference Optimization of Synthetic Preference Data in LLMs Elicits Effective Personalization to "
    "Real Users",
    (
        "Anikait Singh",
        "Sheryl Hsu",
        "Kyle Hsu",
        "Eric Mitchell",
        "Stefano Ermon",
        "Tatsunori Hashimoto",
        "Archit Sharma",
        "Chelsea Finn",
    ),
    2025,
    "2502.19312",
)
FEWER = ("leave_out", "take")


@method(
    "few_shot",
    kind="operator",
    source="arXiv:2502.19312, as in github.com/Asap7772/fewshot-preference-optimization",
    formula="x -> (x1, y1 > y1') ... (xN, yN > yN') of the same user + x",
    needs=("chosen", "rejected", "user"),
    citation=FSPO,
)
def few_shot(
    *, shots: int = 4, where: str = "user", fewer: str = "leave_out", draws: int = 1, seed: int = 0
) -> Operator:
    """Each pair's prompt behind labelled pairs of the same user, which say whose taste is asked for.

    A pair is never among its own examples, nor is any other of its conversation; other users' pairs never are. With no
    shots nothing changes. The user of a pair is that of its row, or else who judged it. The authors' code has faults
    that are not here: examples and question need not be of one user there, the dispreferred heading of the last example
    is copied, and a row of each window is lost.

    Args:
        shots: examples per prompt; ties are none.
        where: "user" puts them at the start of the last user turn, "system" into the system message.
        fewer: what becomes of a pair whose user has fewer other pairs: "leave_out", or "take" those there are.
        draws: prompts per pair, each with examples and an order of its own.
        seed: of examples and their order.
    """
    if not isinstance(shots, int) or shots < 0 or not isinstance(draws, int) or draws < 1:
        raise ConfigError(f"few_shot(shots={shots!r}, draws={draws!r}): whole numbers, from 0 and from 1")
    if where not in PLACES:
        raise ConfigError(f"few_shot(where={where!r}){nearest(str(where), PLACES)}")
    if fewer not in FEWER:
        raise ConfigError(f"few_shot(fewer={fewer!r}){nearest(str(fewer), FEWER)}")

    def run(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
        report = DataReport(n_read=len(records))
        if shots == 0:
            report.n_kept = len(records)
            return list(records), report
        known: dict[str, list[Shot]] = defaultdict(list)
        for record in records:
            for comparison in record.comparisons:
                user = record.user or comparison.annotator
                if user is not None and comparison.preference != 0.5:
                    known[user].append(_shot(record, comparison))
        if not known:
            raise DataError(
                "few_shot puts pairs of the same user before a question, and no row names its user; give the column "
                "`user`"
            )
        kept: list[Record] = []
        seen: dict[str, int] = {}
        for record in records:
            made = []
            for number, comparison in enumerate(record.comparisons):
                user = record.user or comparison.annotator
                pair = with_items(
                    record,
                    (comparison.winner, comparison.loser),
                    comparisons=(replace(comparison, winner=0, loser=1),),
                    user=user,
                )
                for draw in range(draws):
                    key = f"few shots {seed} {draw} {record.id} {number}"
                    found = draw_shots(known.get(user or "", ()), _conversation(record), shots, key)
                    if len(found) == shots or (found and fewer == "take"):
                        made.append(_behind(pair, few_shot_words(found), where))
            if not made:
                report.leave_out(f"the user has fewer than {shots if fewer == 'leave_out' else 1} other pairs")
                continue
            report.change("examples of the user before the prompt")
            report.add("further prompt of a record", len(made) - 1)
            kept += [replace(one, id=unused_id(one.id, seen)) for one in made]
        report.n_kept = len(kept)
        return kept, report

    options = {"shots": shots, "where": where, "fewer": fewer, "draws": draws, "seed": seed}
    return Step("few_shot", options, run)


def _conversation(record: Record) -> str:
    return record.conversation or record.id


def _shot(record: Record, comparison: Comparison) -> Shot:
    up, down = comparison.winner, comparison.loser
    if comparison.preference < 0.5:
        up, down = down, up
    better, worse = record.items[up], record.items[down]
    return (
        _conversation(record),
        plain_text(better.context),
        plain_text(better.response),
        plain_text(worse.response),
    )


def _behind(record: Record, words: str, where: str) -> Record:
    items = tuple(
        replace(item, context=put_before(item.context, words, where=where)) if item.role == "response" else item
        for item in record.items
    )
    return replace(record, items=items)
