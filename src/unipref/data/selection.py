"""Choosing some responses that stand for the others: embeddings of texts and weighted k-medoids.

Shapes: N points, k chosen.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence

import numpy as np

from unipref.core.errors import ConfigError

__all__ = ["cover_cost", "distances", "hashed_tfidf", "k_medoids", "k_medoids_exact"]

_WORD = re.compile(r"\w+")


def hashed_tfidf(texts: Sequence[str], *, n_buckets: int = 512) -> np.ndarray:
    """(N, n_buckets) float64 rows of length 1 (0 for a text without words): words and pairs of words, hashed.

    A term's weight is log(1 + count) * (1 + log((1 + N) / (1 + texts that have it))). The hash is fixed, so a text's
    terms meet the same buckets in every process.
    """
    counts = np.zeros((len(texts), n_buckets))
    for row, text in zip(counts, texts, strict=True):
        words = _WORD.findall(text.casefold())
        for term in (*words, *map(" ".join, itertools.pairwise(words))):
            digest = hashlib.blake2b(term.encode("utf-8", "replace"), digest_size=8).digest()
            row[int.from_bytes(digest, "big") % n_buckets] += 1
    document = np.count_nonzero(counts, axis=0)
    weighted = np.log1p(counts) * (1 + np.log((1 + len(texts)) / (1 + document)))
    norm = np.linalg.norm(weighted, axis=1, keepdims=True)
    return weighted / np.where(norm > 0, norm, 1.0)


def distances(points: np.ndarray) -> np.ndarray:
    """(N, N) Euclidean distances between the rows of `points`."""
    return np.linalg.norm(points[:, None, :] - points[None, :, :], axis=-1)


def cover_cost(distance: np.ndarray, weight: np.ndarray, chosen: Sequence[int]) -> float:
    """Sum over all points of weight times the distance to the nearest of `chosen`."""
    return float(weight @ distance[:, list(chosen)].min(axis=1))


def k_medoids_exact(distance: np.ndarray, weight: np.ndarray, k: int, allowed: Sequence[int]) -> tuple[int, ...]:
    """The `k` of `allowed` with the smallest cover cost, by trying all; the first in order where several have it."""
    _fits(k, allowed)
    return min(itertools.combinations(allowed, k), key=lambda chosen: cover_cost(distance, weight, chosen))


def k_medoids(distance: np.ndarray, weight: np.ndarray, k: int, allowed: Sequence[int]) -> tuple[int, ...]:
    """`k` of `allowed` that no exchange of one for another improves, from the first `k` of `allowed` on."""
    _fits(k, allowed)
    chosen = list(allowed[:k])
    cost = cover_cost(distance, weight, chosen)
    while True:
        best = cost, chosen
        for place, new in itertools.product(range(k), allowed):
            if new not in chosen:
                other = [*chosen[:place], new, *chosen[place + 1 :]]
                best = min(best, (cover_cost(distance, weight, other), other))
        if best[0] >= cost - 1e-12 * max(abs(cost), 1.0):
            return tuple(sorted(chosen))
        cost, chosen = best


def _fits(k: int, allowed: Sequence[int]) -> None:
    if not 1 <= k <= len(allowed):
        raise ConfigError(f"{k} of {len(allowed)} points cannot be chosen; k is 1 to {len(allowed)}")
