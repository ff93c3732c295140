"""Beginnings of solutions, compared by how often they can be completed."""

from unipref.core.cards import Citation, method
from unipref.core.records import Record
from unipref.data.operators import LeftOut, Operator, each
from unipref.data.trees import extracted, known_fact, prefix_pairs, tree_of


@method(
    "tree_prefixes",
    kind="operator",
    status="reconstructed",
    source="arXiv:2411.16345, released code (pDPO)",
    formula="prefixes with v > threshold are preferred to those without, no EOS behind them",
    citation=Citation(
        "Preference Optimization for Reasoning with Pseudo Feedback",
        ("Fangkai Jiao", "Geyang Guo", "Xingxing Zhang", "Nancy F. Chen", "Shafiq Joty", "Furu Wei"),
        2024,
        "2411.16345",
    ),
)
def tree_prefixes(
    *,
    by: str = "v",
    threshold: float = 1.0,
    inclusive: bool = False,
    first: float = 0.7,
    max_prefixes: int = 10,
    seed: int = 0,
) -> Operator:
    """Beginnings of solutions (format "tree") that often reach the pseudo label against those that do not.

    Reconstructed: shares, counts and the value of the threshold were read in the released code; whether a beginning at
    the threshold is a good one was not, and here it is none unless `inclusive`.

    Args:
        by: the fact that holds how many completions of a beginning agree with the pseudo label.
        threshold: 1 in the source, of 3 completions.
        inclusive: a beginning at the threshold is good.
        first: share of the steps that a beginning may have; 0.8 for programs.
        max_prefixes: per problem.
    """
    known_fact(by)

    def make(record: Record) -> list[Record]:
        found = prefix_pairs(
            tree_of(record),
            by=by,
            threshold=threshold,
            inclusive=inclusive,
            first=first,
            max_prefixes=max_prefixes,
            seed=seed,
        )
        if found is None:
            raise LeftOut("no good or no bad beginning")
        return list(extracted(record, [found]))

    options = {
        "by": by,
        "threshold": threshold,
        "inclusive": inclusive,
        "first": first,
        "max_prefixes": max_prefixes,
        "seed": seed,
    }
    return each("tree_prefixes", options, make, changed="tree to pairs of beginnings")
