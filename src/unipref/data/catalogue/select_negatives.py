"""AMPO's negatives: the worst, or those that stand for the others."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, ShapeError, nearest
from unipref.core.records import Record, plain_text
from unipref.data.operators import Operator, each, rated, with_items
from unipref.data.report import RowFault
from unipref.data.selection import distances, hashed_tfidf, k_medoids, k_medoids_exact

WAYS = ("bottomk", "coreset", "optselect")


@method(
    "select_negatives",
    kind="operator",
    status="reconstructed",
    source="arXiv:2502.18293",
    formula="optselect: S = argmin_{|S|=k} sum_i w_i min_{j in S} |e_i - e_j|, w_i = exp(mean r - r_i)",
    needs=("reward",),
    citation=Citation(
        "AMPO: Active Multi-Preference Optimization for Self-play Preference Selection",
        ("Taneesh Gupta", "Rahul Madhavan", "Xuchao Zhang", "Chetan Bansal", "Saravan Rajmohan"),
        2025,
        "2502.18293",
    ),
)
def select_negatives(
    *,
    how: str = "optselect",
    k: int = 3,
    by: str = "reward",
    embed: Callable[[Sequence[str]], np.ndarray] = hashed_tfidf,
    standardize: bool = True,
    cover_positive: bool = False,
    exact: bool = False,
) -> Operator:
    """The response with the highest reward, labelled good, and `k` of the others, labelled bad.

    Of equal costs the choice with the lower rewards wins.

    Reconstructed: that negatives are selected in these ways is the abstract's; the formulas are from notes of others
    on the paper, and k was not read.

    Args:
        how: "bottomk" takes the lowest rewards; "coreset" the lowest reward of each of k clusters (k-medoids);
            "optselect" the weighted k-medoids of the formula, by exchanges that improve it.
        k: not in the source. A record with fewer others is set aside.
        by: the column of the reward.
        embed: texts -> one row of numbers each; a hashed bag of words and word pairs where it is not given (the
            source uses a model's embeddings).
        standardize: divide the rewards of a prompt by their standard deviation before the weights, which grow
            exponentially with them. Not in the source.
        cover_positive: the best response is a point to be covered too, though it is never chosen.
        exact: try every choice; for few candidates.
    """
    if how not in WAYS:
        raise ConfigError(f"negatives are selected by no {how!r}{nearest(how, WAYS)}")
    if k < 1:
        raise ConfigError(f"k={k} selects no negative; give 1 or more")
    search = k_medoids_exact if exact else k_medoids

    def make(record: Record) -> list[Record]:
        reward = rated(record, by)
        best = max(reward, key=reward.__getitem__)
        others = sorted((i for i in reward if i != best), key=reward.__getitem__)  # so that ties take the lower reward
        if len(others) < k:
            raise RowFault(f"fewer than {k} responses beside the best", f"{len(others)}")
        chosen = others[:k]
        if how != "bottomk" and len(others) > k:
            points = [*others, best] if cover_positive else others
            embedded = np.asarray(embed([plain_text(record.items[i].response) for i in points]), dtype=np.float64)
            if embedded.ndim != 2 or len(embedded) != len(points):
                raise ShapeError(f"embed gave {embedded.shape} for {len(points)} texts; expected ({len(points)}, d)")
            distance = distances(embedded)
            chosen = [others[j] for j in _chosen(distance, np.array([reward[i] for i in points]), len(others))]
        part = with_items(record, [best, *sorted(chosen)], comparisons=())
        labels = [replace(item, label=at == 0) for at, item in enumerate(part.items[: k + 1])]
        return [replace(part, items=(*labels, *part.items[k + 1 :]))]

    def _chosen(distance: np.ndarray, rewards: np.ndarray, n: int) -> list[int]:
        if how == "coreset":
            medoids = search(distance, np.ones(len(rewards)), k, range(n))
            nearest_medoid = distance[:n, list(medoids)].argmin(axis=1)
            nearest_medoid[list(medoids)] = range(k)  # of equal points each is in a cluster of its own medoid
            return [int(np.flatnonzero(nearest_medoid == cluster)[0]) for cluster in range(k)]
        spread = rewards.std() if standardize else 1.0
        weights = np.exp((rewards.mean() - rewards) / (spread if spread > 0 else 1.0))
        return list(search(distance, weights, k, range(n)))

    options = {
        "how": how,
        "k": k,
        "by": by,
        "embed": embed,
        "standardize": standardize,
        "cover_positive": cover_positive,
        "exact": exact,
    }
    return each("select_negatives", options, make, changed="one response against selected negatives")
