"""Stepwise DPO's parts of the data."""

from collections.abc import Sequence

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Record
from unipref.data.operators import Operator, Step, digest, responses_of
from unipref.data.report import DataReport, RowFault


@method(
    "chunk",
    kind="operator",
    source="arXiv:2403.19270",
    formula="D = D_1 + ... + D_T; D_i holds records i*n//T to (i+1)*n//T in order of difficulty",
    citation=Citation(
        "sDPO: Don't Use Your Data All at Once",
        ("Dahyun Kim", "Yungi Kim", "Wonho Song", "Hyeonwoo Kim", "Yunsu Kim", "Sanghoon Kim", "Chanjun Park"),
        2024,
        "2403.19270",
    ),
)
def chunk(*, part: int, parts: int = 2, by: str | None = None, hardest_first: bool = False, seed: int = 0) -> Operator:
    """One of several equal parts of the records; together the parts are all of them, each once.

    Args:
        part: 0 to parts - 1.
        parts: 2 in the source's main run.
        by: column of difficulty (of the preferred response where the two differ); the source orders easy to hard by
            the reward accuracy of the starting model. Without it the order is by a hash of the texts.
        hardest_first: the largest difficulty comes first.
        seed: of the hash.
    """
    if parts < 1 or not 0 <= part < parts:
        raise ConfigError(f"part must be 0 to parts - 1: part {part} of {parts}")

    def difficulty(record: Record) -> float:
        if by is None:
            return 0.0
        first = [c.winner for c in record.comparisons[:1]]
        for i in (*first, *responses_of(record)):
            if by in record.items[i].columns:
                value = record.items[i].columns[by]
                return -value if hardest_first else value
        raise RowFault(f"no response has a {by!r}")

    def run(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
        report = DataReport(n_read=len(records))
        keys = []
        for at, record in enumerate(records):
            try:
                keys.append((difficulty(record), digest(record, seed), record.id, at))
            except RowFault as fault:
                report.drop(fault, source=record.source or record.id, line=record.line, strict=False)
        keys.sort()
        start, end = (len(keys) * i // parts for i in (part, part + 1))
        report.leave_out("in another part", len(keys) - (end - start))
        report.n_kept = end - start
        return [records[key[-1]] for key in keys[start:end]], report

    options = {"part": part, "parts": parts, "by": by, "hardest_first": hardest_first, "seed": seed}
    return Step("chunk", options, run)
