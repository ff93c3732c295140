"""Whether verdicts depend on which response stands first: position where there is one, and pairs judged both ways."""

from collections import defaultdict
from typing import Any

import numpy as np

from unipref.core.statistics import mean
from unipref.data.pairs import Pairs

__all__ = ["both_orders", "follows_the_place", "ordered"]


def ordered(pairs: Pairs) -> np.ndarray:
    """(N,) bool, whether the pair's domain has an order: where the winner always stands first, as in files of chosen
    and rejected, there is no position to learn from.
    """
    found = {}
    for name in set(pairs.domain.tolist()):
        p = pairs.p[pairs.domain == name]
        found[name] = bool((p > 0.5).any() and (p < 0.5).any())
    return np.array([found[name] for name in pairs.domain.tolist()], dtype=bool)


def both_orders(pairs: Pairs) -> dict[str, Any]:
    """How often one mechanism's verdict on the same two responses changes with their order.

    Of pairs that stand in the data both ways round, in a domain that has an order. A tie in one order and a verdict in
    the other is a change, too.

    Returns:
        {"n": pairs asked in both orders, "changed": [share, low, high] over conversations, "first", "second": of how
        many the response in that place won both times}. Without such pairs n is 0 and the share None.
    """
    a, b = _twice(pairs)
    won, won_back = np.sign(pairs.p[a] - 0.5), np.sign(pairs.p[b] - 0.5)  # by whatever stood first
    changed = mean((won != -won_back).astype(float), clusters=pairs.group[a].tolist(), bounds=(0.0, 1.0))
    return {
        "n": len(a),
        "changed": changed.as_list(),
        "first": int(((won > 0) & (won_back > 0)).sum()),
        "second": int(((won < 0) & (won_back < 0)).sum()),
    }


def follows_the_place(pairs: Pairs) -> np.ndarray:
    """(N,) bool, whether the verdict on the pair was another one when the two stood the other way round."""
    a, b = _twice(pairs)
    changed = np.sign(pairs.p[a] - 0.5) != -np.sign(pairs.p[b] - 0.5)
    found = np.zeros(len(pairs), dtype=bool)
    found[a[changed]] = found[b[changed]] = True
    return found


def _twice(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Rows (M,) of pairs, and (M,) of the same pairs the other way round; in the order of the data where one is judged
    several times.
    """
    columns = (pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist(), ordered(pairs).tolist())
    there: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for i, (prompt, first, second, counts) in enumerate(zip(*columns, strict=True)):
        if counts:
            there[prompt, first, second].append(i)
    twice = [
        rows
        for (prompt, first, second), one in there.items()
        if first < second
        for rows in zip(one, there.get((prompt, second, first), ()), strict=False)
    ]
    a, b = np.array(twice, dtype=int).reshape(-1, 2).T
    return a, b
