"""Responses in sentence-like parts."""

from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.records import Item, Record, Span, plain_text
from unipref.data.operators import Operator, each
from unipref.data.segments import sentences


@method(
    "segment",
    kind="operator",
    source="code published with arXiv:2505.01706, for arXiv:2410.19720",
    formula="y = segments: fenced code; else cut after . ! ? : and before numbered items",
    citation=Citation(
        "2D-DPO: Scaling Direct Preference Optimization with 2-Dimensional Supervision",
        (
            "Shilong Li",
            "Yancheng He",
            "Hui Huang",
            "Xingyuan Bu",
            "Jiaheng Liu",
            "Hangyu Guo",
            "Weixun Wang",
            "Jihao Gu",
            "Wenbo Su",
            "Bo Zheng",
        ),
        2024,
        "2410.19720",
    ),
)
def segment(*, score: str | None = None) -> Operator:
    """Every response that has no parts yet gets its sentences as parts (`unipref.data.segments.sentences`).

    Args:
        score: column of the response whose number each part gets, as one score for all; none where it is not given.
    """

    def split(item: Item) -> Item:
        if item.role != "response" or item.spans:
            return item
        value = item.columns.get(score, float("nan")) if score is not None else float("nan")
        return replace(item, spans=tuple(Span(*part, value) for part in sentences(plain_text(item.response))))

    def make(record: Record) -> list[Record]:
        return [replace(record, items=tuple(split(item) for item in record.items))]

    return each("segment", {"score": score}, make, changed="split into segments")
