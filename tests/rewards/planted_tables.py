"""Planted worlds: comparisons whose makers are known, so that what a model recovers can be told from what it should."""

import numpy as np

from unipref.rewards import PreferenceTable

__all__ = ["linear", "ranked", "sigmoid"]


def sigmoid(z):
    return 0.5 * (1 + np.tanh(0.5 * z))


def linear(d, n, norm, seed=0, *, noise=True):
    """P(a > b) = sigmoid(w . (phi_a - phi_b)), phi ~ N(0, I), |w| = norm; without noise the better one always wins.

    Returns the table and w.
    """
    rng = np.random.default_rng(seed)
    w = rng.normal(size=d)
    w *= norm / np.linalg.norm(w)
    a, b = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    z = (a - b) @ w
    p = (rng.random(n) < sigmoid(z)) if noise else (z > 0)
    return PreferenceTable.of_arrays(a, b, p.astype(float)), w


def ranked(users, pairs, rank=3, d=12, seed=0, *, basis=None, first=0):
    """Users r_u = w_u . B phi, w_u ~ Dirichlet(0.3); the better one always wins. Returns the table and B.

    Args:
        basis: (rank, d) of an earlier call, for newcomers of the same world. first: number of the first user.
    """
    rng = np.random.default_rng(seed)
    if basis is None:
        basis = 2 * rng.normal(size=(rank, d))
    shares = rng.dirichlet([0.3] * len(basis), size=users)
    who = np.repeat(np.arange(users), pairs)
    a, b = rng.normal(size=(len(who), basis.shape[1])), rng.normal(size=(len(who), basis.shape[1]))
    z = np.einsum("nk,kd,nd->n", shares[who], basis, a - b)
    table = PreferenceTable.of_arrays(a, b, (z > 0).astype(float), user=[f"u{first + k}" for k in who])
    return table, basis
