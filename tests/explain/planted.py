"""Pairs whose preferences follow known weights."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Planted:
    X: np.ndarray
    y: np.ndarray  # 0 or 1
    domains: np.ndarray
    b: np.ndarray
    s: np.ndarray


def planted(
    seed: int, *, n_domains: int = 6, n_concepts: int = 24, n_rows: int = 200, shared: int = 5, specific: int = 3
) -> Planted:
    """Votes -1, 0 or 1 on each concept; weights of size 0.6 to 1.2 on a few of them, shared or of one domain."""
    rng = np.random.default_rng(seed)

    def weights(n: int) -> np.ndarray:
        found = np.zeros(n_concepts)
        size = rng.uniform(0.6, 1.2, n) * rng.choice([-1, 1], n)
        found[rng.choice(n_concepts, n, replace=False)] = size
        return found

    b = weights(shared)
    s = np.stack([weights(specific) for _ in range(n_domains)])
    X = rng.choice([-1.0, 0.0, 1.0], p=[0.3, 0.4, 0.3], size=(n_domains, n_rows, n_concepts))
    logits = np.einsum("dnc,dc->dn", X, b + s)
    y = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
    domains = np.repeat(np.arange(n_domains), n_rows)
    return Planted(X.reshape(-1, n_concepts), y.ravel(), domains, b, s)
