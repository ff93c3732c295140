"""Weights for one persona: a question counts more, the more of the others answer it differently."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Record, Text
from unipref.data.operators import Operator, Step
from unipref.data.report import DataReport


@method(
    "persona_weights",
    kind="operator",
    source="arXiv:2505.11861, released notebook",
    formula="T_i = (i / K)^a * (1 / N_i)^b, tier i = 1 + personas that answer differently; mean weight 1",
    needs=("chosen", "rejected"),
    citation=Citation(
        "Fair-PP: A Synthetic Dataset for Aligning LLM with Personalized Preferences of Social Equity",
        ("Qi Zhou", "Jie Zhang", "Dongxia Wang", "Qiang Liu", "Tianlin Li", "Jin Song Dong", "Wenhai Wang", "Qing Guo"),
        2025,
        "2505.11861",
    ),
)
def persona_weights(*, target: str, a: float = 1.0, b: float = 1.0, personas: int | None = None) -> Operator:
    """The target persona's pairs, weighted by how many other personas disagree on the same prompt.

    A persona is a comparison's annotator, and its answer to a prompt is what it prefers. The source's weights sum to 1
    over tiers; here the mean weight is 1, or the learning rate would fall with the number of rows. A tier that no row
    is in takes no part (the released loop reads tiers by position and breaks there). How the weight enters the
    authors' training is not published; here it is an example weight and multiplies the one that the row has.

    Args:
        target: the annotator to align with; the rows of others say what they prefer and are left out.
        a: how fast disagreement counts.
        b: 1 gives a tier the same mass whatever its size; 0 leaves its rows their own.
        personas: K; as many as the data have where it is not given.
    """

    def answers(record: Record, persona: str) -> set[Text]:
        """What `persona` prefers in `record`; empty where it is undecided or silent."""
        sides = {
            c.winner if c.preference > 0.5 else c.loser
            for c in record.comparisons
            if c.annotator == persona and c.preference != 0.5
        }
        return {record.items[i].response for i in sides}

    def run(records: Sequence[Record]) -> tuple[list[Record], DataReport]:
        names = sorted({c.annotator for record in records for c in record.comparisons if c.annotator is not None})
        if target not in names:
            raise DataError(f"no comparison is by the persona {target!r}{nearest(target, names)}; name an annotator")
        count = len(names) if personas is None else personas
        if count < len(names):
            raise ConfigError(f"personas={count}, but the data have {len(names)} annotators")
        voices: dict[Text, dict[str, set[Text]]] = defaultdict(lambda: defaultdict(set))
        for record in records:
            for name in names:
                if found := answers(record, name):
                    voices[record.items[0].context][name] |= found
        report = DataReport(n_read=len(records))
        kept: list[Record] = []
        tiers: list[int] = []
        before: list[Record] = []
        for record in records:
            own = [c for c in record.comparisons if c.annotator == target]
            if not own:
                report.leave_out("judged by another persona")
                continue
            heard = voices[record.items[0].context]
            mine = heard.get(target, set())
            tiers.append(1 + sum(1 for name, theirs in heard.items() if name != target and theirs != mine))
            before.append(record)
            kept.append(replace(record, comparisons=tuple(own)))
        sizes = Counter(tiers)
        raw = [(tier / count) ** a * (1.0 / sizes[tier]) ** b for tier in tiers]
        scale = len(raw) / sum(raw)
        weighted = [
            replace(record, weight=record.weight * weight * scale) for record, weight in zip(kept, raw, strict=True)
        ]
        differ = sum(new != old for new, old in zip(weighted, before, strict=True))
        report.change("weighted by the disagreement of other personas", differ)
        report.n_kept = len(weighted)
        return weighted, report

    return Step("persona_weights", {"target": target, "a": a, "b": b, "personas": personas}, run)
