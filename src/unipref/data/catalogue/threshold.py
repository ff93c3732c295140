"""Thumbs from ratings."""

from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.records import Record
from unipref.data.operators import Operator, each, rated, responses_of
from unipref.data.report import RowFault


@method(
    "threshold",
    kind="operator",
    source="arXiv:2412.04628 (the mean)",
    formula="label = reward > at, or reward > mean reward of the prompt",
    needs=("reward",),
    citation=Citation(
        "Multi-Preference Optimization: Generalizing DPO via Set-Level Contrasts",
        ("Taneesh Gupta", "Rahul Madhavan", "Xuchao Zhang", "Nagarajan Natarajan", "Chetan Bansal", "Saravan Rajmohan"),
        2024,
        "2412.04628",
    ),
)
def threshold(*, by: str = "reward", at: float | None = None) -> Operator:
    """Every response labelled good where its reward lies above a number, bad otherwise; comparisons are dropped.

    Args:
        by: the column of the reward.
        at: the number; the mean of the record's responses where it is not given. A response at it is bad.
    """

    def make(record: Record) -> list[Record]:
        if at is None:
            values = rated(record, by)
            limit = sum(values.values()) / len(values)
        else:
            values = {i: record.items[i].columns.get(by) for i in responses_of(record)}
            limit = at
            if None in values.values():
                raise RowFault(f"a response has no {by!r}")
        items = tuple(
            replace(item, label=values[i] > limit) if i in values else item for i, item in enumerate(record.items)
        )
        return [replace(record, items=items, comparisons=())]

    return each("threshold", {"by": by, "at": at}, make, changed="labelled by a threshold")
