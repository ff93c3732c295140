"""Whole solutions of a tree as a scored list."""

from unipref.core.cards import Citation, method
from unipref.core.records import Record
from unipref.data.operators import LeftOut, Operator, each
from unipref.data.trees import extracted, known_fact, leaf_list, tree_of


@method(
    "tree_leaves",
    kind="operator",
    source="arXiv:2410.12854",
    formula="tree -> (y_1, v_1), ..., (y_K, v_K), y_k from the root to leaf k, its steps as spans",
    citation=Citation(
        "TPO: Aligning Large Language Models with Multi-branch & Multi-step Preference Trees",
        ("Weibin Liao", "Xu Chu", "Yasha Wang"),
        2024,
        "2410.12854",
    ),
)
def tree_leaves(*, by: str = "reward") -> Operator:
    """The solutions of a tree (format "tree") as one list with column "score" and their steps as parts.

    Args:
        by: the fact of a leaf that scores its solution.
    """
    known_fact(by)

    def make(record: Record) -> list[Record]:
        found = leaf_list(tree_of(record), by=by)
        if found is None:
            raise LeftOut(f"fewer than two leaves have a {by}")
        return list(extracted(record, [found]))

    return each("tree_leaves", {"by": by}, make, changed="tree to a list of solutions")
