"""Labels that say how sure they are."""

import math
from dataclasses import replace

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Comparison, Record
from unipref.data.operators import Operator, each
from unipref.data.report import RowFault


@method(
    "soft_labels",
    kind="operator",
    status="reconstructed",
    source="arXiv:2405.14103 (judge), 2402.08005 (scores), 2410.12519 (epsilon)",
    formula="preference = (p_w + 1 - p_l) / 2 | sigmoid(kappa * (s_w - s_l)) | 1 - epsilon",
    needs=("chosen", "rejected", "score"),
    citation=Citation(
        "Refined Direct Preference Optimization with Synthetic Data for Behavioral Alignment of LLMs",
        ("Víctor Gallego",),
        2024,
        "2402.08005",
    ),
)
def soft_labels(
    *, how: str = "scores", by: str | None = None, kappa: float = 1.0, epsilon: float | None = None
) -> Operator:
    """Preferences between 0 and 1 from a judge's probabilities, from scores, or from what an oracle doubts.

    A loser with the higher score turns its pair around, so a failed revision teaches nothing wrong.

    Reconstructed: the three equations are inferred. Of OSP and RosePO the abstracts were read, and Refined DPO's
    training code is not released.

    Args:
        how: "scores" (Refined DPO): sigmoid(kappa * (s_w - s_l)). "judge" (OSP): each side's column is P(it is
            better) as judged with it shown first, and both orders are averaged, so the place does not count.
            "epsilon" (RosePO): 1 - epsilon, of the winner's column or the same for all.
        by: the column; "score", "judge" or "epsilon" where it is not named.
        kappa: steepness, per unit of score. Not in the source; infinity gives hard labels.
        epsilon: in [0, 1/2], instead of the column.
    """
    if how not in ("scores", "judge", "epsilon"):
        raise ConfigError(f"labels are softened by no {how!r}{nearest(how, ('scores', 'judge', 'epsilon'))}")
    if not kappa >= 0:
        raise ConfigError(f"kappa must be 0 or more: {kappa} would prefer the lower score")
    if epsilon is not None and (how != "epsilon" or not 0 <= epsilon <= 0.5):
        raise ConfigError(f"epsilon is in [0, 1/2] and goes with how='epsilon': {epsilon} with how={how!r}")
    column = by or {"scores": "score"}.get(how, how)

    def probability(record: Record, comparison: Comparison) -> float:
        def value(side: int) -> float:
            found = record.items[side].columns.get(column)
            if found is None:
                raise RowFault(f"a side of the comparison has no {column!r}")
            return found

        if how == "epsilon":
            doubt = value(comparison.winner) if epsilon is None else epsilon
            if not 0 <= doubt <= 0.5:
                raise RowFault(f"{column!r} is not in [0, 1/2]", f"{doubt}")
            return 1.0 - doubt
        first, second = value(comparison.winner), value(comparison.loser)
        if how == "judge":
            if not (0 <= first <= 1 and 0 <= second <= 1):
                raise RowFault(f"{column!r} is not a probability", f"{first} and {second}")
            return (first + 1.0 - second) / 2.0
        if first == second:
            return 0.5
        return _sigmoid(kappa * (first - second))

    def make(record: Record) -> list[Record]:
        if not record.comparisons:
            raise RowFault("no comparison to soften")
        softened = tuple(replace(c, preference=probability(record, c)) for c in record.comparisons)
        return [replace(record, comparisons=softened)]

    options = {"how": how, "by": column, "kappa": kappa, "epsilon": epsilon}
    return each("soft_labels", options, make, changed="preference softened")


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))
