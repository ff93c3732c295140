"""Step pairs of a search tree: a step against its sibling."""

from unipref.core.cards import Citation, method
from unipref.core.records import Record
from unipref.data.operators import LeftOut, Operator, each
from unipref.data.trees import extracted, known_fact, sibling_pairs, tree_of


@method(
    "tree_siblings",
    kind="operator",
    source="arXiv:2405.00451, released code; arXiv:2406.10858",
    formula="best > worst child of a node in context x + accepted steps; preference 1 - eps of the visits",
    citation=Citation(
        "Monte Carlo Tree Search Boosts Reasoning via Iterative Preference Learning",
        (
            "Yuxi Xie",
            "Anirudh Goyal",
            "Wenyue Zheng",
            "Min-Yen Kan",
            "Timothy P. Lillicrap",
            "Kenji Kawaguchi",
            "Michael Shieh",
        ),
        2024,
        "2405.00451",
    ),
)
def tree_siblings(
    *, by: str = "q", choose_worst: bool = True, smoothing: bool = False, min_visits: int = 1
) -> Operator:
    """A pair of sibling steps per branching of a tree (format "tree"); `unipref.data.trees.sibling_pairs` says how.

    Args:
        by: the fact of the nodes that orders siblings: "q", "n_visit", "v", "is_correct", ...
        choose_worst: against the worst sibling; else the second best.
        smoothing: soft labels from visit counts (MCTS-DPO's conservative variant).
        min_visits: with smoothing, least visits of the two together; the released code also takes unvisited pairs, as
            certain.
    """
    known_fact(by)

    def make(record: Record) -> list[Record]:
        found = sibling_pairs(
            tree_of(record), by=by, choose_worst=choose_worst, smoothing=smoothing, min_visits=min_visits
        )
        if not found:
            raise LeftOut("no siblings differ")
        return list(extracted(record, found))

    options = {"by": by, "choose_worst": choose_worst, "smoothing": smoothing, "min_visits": min_visits}
    return each("tree_siblings", options, make, changed="tree to a pair of steps", added="further pair of the tree")
