"""Simulated users: real responses, judged by people who are mixtures of scorers.

Source: PersonalLLM, arXiv:2409.20296, where users are Dirichlet mixtures of ten reward models.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.core.statistics import sigmoid
from unipref.rewards.table import PreferenceTable

__all__ = ["SimulatedUsers", "simulate_users", "standardised"]


@dataclass(frozen=True, eq=False)
class SimulatedUsers:
    """What simulated users chose.

    Attributes:
        seen, newcomers: their comparisons; users are called "simulated.0", "simulated.1", ...
        shares: (seen users + newcomers, S) how much each scorer counts for each user, in the order of their numbers.
        scorers: names of the S scorers.
        ties: comparisons of which a user has equal utilities on both sides; their labels are one half.
    """

    seen: PreferenceTable
    newcomers: PreferenceTable
    shares: np.ndarray
    scorers: tuple[str, ...]
    ties: int


def standardised(scores: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
    """(M, S) scores with mean 0 and spread 1 each.

    Raises:
        DataError: a score is not finite, or a scorer gives all responses the same.
    """
    scores = np.asarray(scores, dtype=np.float64)
    for k in range(scores.shape[1]):
        name = names[k] if len(names) else f"number {k}"
        odd = int((~np.isfinite(scores[:, k])).sum())
        if odd:
            raise DataError(f"the scorer {name} has no finite score for {odd} responses; leave it or these pairs out")
        if not scores[:, k].std() > 1e-12 * max(1.0, np.abs(scores[:, k]).max()):
            raise DataError(f"the scorer {name} gives all {len(scores)} responses the same score; leave it out")
    return (scores - scores.mean(axis=0)) / scores.std(axis=0)


def simulate_users(
    table: PreferenceTable,
    scores: np.ndarray,
    *,
    seen: int = 100,
    newcomers: int = 40,
    pairs: int = 40,
    alpha: float = 0.1,
    temperature: float = 0.0,
    apart: bool = True,
    scorers: Sequence[str] = (),
    seed: int = 0,
) -> SimulatedUsers:
    """Users whose utility is a mixture of scorers, each asked about some of the table's pairs; its labels are not read.

    A user's shares are drawn from Dirichlet(alpha, ..., alpha): towards 0 every user follows one scorer, towards
    infinity all are alike. Scores are first standardised over the responses of the table, each counted once, so that no
    scorer counts more for its unit. The response of the greater utility is preferred.

    Args:
        scores: (M, S), one row per row of `table.features`; only rows that the table compares are read.
        seen, newcomers, pairs: users of either kind, and comparisons of each.
        temperature: above 0 a choice is drawn with probability sigmoid(difference of utilities / temperature).
        apart: newcomers judge conversations that no seen user judged, half of all; otherwise all judge all. A model
            that looks for users who judged the same responses needs the latter.
        scorers: names.

    Raises:
        DataError: fewer comparisons than `pairs`, or a scorer that says nothing.
    """
    scores = np.asarray(scores)
    if scores.ndim != 2 or len(scores) != len(table.features):
        raise ShapeError(f"scores are ({len(table.features)} responses, scorers); they arrived as {scores.shape}")
    names = tuple(scorers) or tuple(f"scorer {k}" for k in range(scores.shape[1]))
    if len(names) != scores.shape[1]:
        raise ShapeError(f"{len(names)} names for {scores.shape[1]} scorers")
    if not alpha > 0 or temperature < 0 or min(seen, newcomers, pairs) < 1:
        raise ConfigError(
            f"alpha={alpha}, temperature={temperature}, seen={seen}, newcomers={newcomers}, pairs={pairs}: the "
            "first is above 0, the second at least 0, the others at least 1"
        )
    rng = np.random.default_rng(seed)
    used = np.unique(np.concatenate([table.first, table.second]))
    z = np.zeros(scores.shape)
    z[used] = standardised(scores[used], names)
    shares = rng.dirichlet(np.full(len(names), float(alpha)), size=seen + newcomers)
    groups = np.unique(table.group)
    for_new = np.isin(table.group, rng.permutation(groups)[: len(groups) // 2])
    pools = [np.flatnonzero(~for_new), np.flatnonzero(for_new)] if apart else [np.arange(len(table))] * 2
    least = min(len(pool) for pool in pools)
    if least < pairs:
        told = "half of the conversations have" if apart else "the table has"
        raise DataError(f"{told} {least} comparisons, and a user is asked about {pairs}; take fewer pairs")
    tables, ties = [], 0
    for pool, users in zip(pools, (range(seen), range(seen, seen + newcomers)), strict=True):
        rows = np.concatenate([rng.choice(pool, pairs, replace=False) for _ in users])
        who = np.repeat(np.array(users), pairs)
        asked = table.take(rows)
        gap = (shares[who] * (z[asked.first] - z[asked.second])).sum(axis=1)
        if temperature > 0:
            p = (rng.random(len(gap)) < sigmoid(gap / temperature)).astype(np.float64)
        else:
            p = (np.sign(gap) + 1) / 2
        ties += int((p == 0.5).sum())
        user = np.array([f"simulated.{k}" for k in who], dtype=object)
        tables.append(asked.with_columns(p=p, user=user, weight=np.ones(len(gap)), margin=np.full(len(gap), np.nan)))
    return SimulatedUsers(*tables, shares, names, ties)
