"""How single factors go with preferences, one at a time: shares, chi-square tests, strengths of factor against factor.

What is here is marginal: of two factors that go together both look strong. Read it beside the joint weights of
`HierarchicalPairRegressor`.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import DataError, ShapeError
from unipref.core.statistics import Interval, holm, mean
from unipref.explain.regression import as_probabilities

__all__ = ["Association", "Strengths", "associations", "factor_strengths"]

_VIRTUAL = 0.1  # wins that each of two factors is given against the other, so that strengths are finite


@dataclass(frozen=True, slots=True)
class Association:
    """One factor and the preferences.

    Attributes:
        n: pairs with a verdict (no tie) in which the responses differ in the factor.
        coverage: these as a share of the pairs with a verdict.
        share: of these, in how many the preferred response has more of the factor, with a 95 % interval over prompts.
        influence: (concordant - discordant) / pairs with a verdict, in [-1, 1]: (2 share - 1) * coverage.
        chi2, p: Pearson's test, 1 degree of freedom, that the share is 1/2; NaN where n is 0. It takes pairs as
            independent.
        p_holm: p adjusted for the number of factors that were tested.
    """

    n: int
    coverage: float
    share: Interval
    influence: float
    chi2: float
    p: float
    p_holm: float


def associations(
    X: np.ndarray, y: Sequence[float], *, groups: Sequence[Hashable] | None = None, seed: int = 0
) -> list[Association]:
    """How each factor goes with the preferences; swapping responses and labels of any pair changes nothing.

    Ties in a factor are no evidence and lower its coverage; ties in the preference do not count. Source: the share and
    its chi-square test are arXiv:2502.04674's, the influence is arXiv:2410.06965's, reconstructed from a summary.

    Args:
        X: (N, C) the factor in the first response minus that in the second; NaN: not known, not counted.
        y: (N,) as `HierarchicalPairRegressor.fit` takes it; of a probability the side of 1/2 counts.
        groups: (N,) the prompt of each pair.

    Raises:
        DataError: every pair is a tie.
    """
    x, p = np.asarray(X, dtype=float), as_probabilities(y)
    if x.ndim != 2 or len(x) != len(p):
        raise ShapeError(f"X has the shape {x.shape}, and there are {len(p)} labels")
    prompts = np.arange(len(p)) if groups is None else np.asarray(groups)
    decided = p != 0.5
    if not decided.any():
        raise DataError("every pair is a tie, so no factor can go with the preferences")
    verdict = np.sign(p - 0.5)
    found = []
    for values in x.T:
        known = decided & ~np.isnan(values)
        differs = known & (values != 0)
        wins = (np.sign(values[differs]) == verdict[differs]).astype(float)
        n, total = len(wins), int(known.sum())
        share = mean(wins, clusters=prompts[differs].tolist(), bounds=(0.0, 1.0), seed=seed)
        chi2 = (2 * wins.sum() - n) ** 2 / n if n else math.nan
        tested = math.erfc(math.sqrt(chi2 / 2)) if n else math.nan
        coverage = n / total if total else math.nan
        influence = (2 * wins.sum() - n) / total if total else math.nan
        found.append((n, coverage, share, float(influence), float(chi2), tested))
    p_values = np.array([row[-1] for row in found])
    adjusted, there = np.full(len(found), math.nan), ~np.isnan(p_values)
    if there.any():
        adjusted[there] = holm(p_values[there])
    return [Association(*row, float(p_holm)) for row, p_holm in zip(found, adjusted, strict=True)]


@dataclass(frozen=True)
class Strengths:
    """Factors against each other.

    Attributes:
        names: in sorted order.
        strength: (F,) positive, adding up to 1; a factor beats another with the probability of its share of the two.
        wins: (F,) what each has won, a pair's vote shared by all contests that it decides.
    """

    names: list[str]
    strength: np.ndarray
    wins: np.ndarray


def factor_strengths(
    first: Sequence[Sequence[str]],
    second: Sequence[Sequence[str]],
    y: Sequence[float],
    *,
    share_votes: bool = True,
    tolerance: float = 1e-8,
    max_iter: int = 10_000,
) -> Strengths:
    """Bradley-Terry-Luce strengths: each factor that only the winner has beats each that only the loser has.

    Every two factors that meet are given a tenth of a win each way, so that a factor without a defeat has a finite
    strength. Source: arXiv:2305.14702; how contests are counted is inferred from a summary. The minorisation is
    Hunter 2004, Annals of Statistics 32(1).

    Args:
        first, second: per pair the factors of each response.
        y: as for `associations`; a tie decides no contest.
        share_votes: a pair's vote is divided among its contests; otherwise a pair of long lists counts many times.

    Raises:
        DataError: no pair decides a contest.
    """
    p = as_probabilities(y)
    names = sorted({name for side in (first, second) for factors in side for name in factors})
    index = {name: i for i, name in enumerate(names)}
    won = np.zeros((len(names), len(names)))
    for a, b, probability in zip(first, second, p, strict=True):
        winner, loser = (a, b) if probability > 0.5 else (b, a)
        up = [index[name] for name in set(winner) - set(loser)]
        down = [index[name] for name in set(loser) - set(winner)]
        if probability == 0.5 or not up or not down:
            continue
        won[np.ix_(up, down)] += 1 / (len(up) * len(down)) if share_votes else 1.0
    met = won + won.T > 0
    if not met.any():
        raise DataError("no pair has a factor that only the winner has and one that only the loser has")
    wins = won.sum(axis=1)
    won = won + _VIRTUAL * met
    contests, total = won + won.T, won.sum(axis=1)
    strength = np.full(len(names), 1 / len(names))
    alone = ~met.any(axis=1)
    for _ in range(max_iter):
        below = np.where(met, contests / (strength[:, None] + strength[None, :]), 0.0).sum(axis=1)
        renewed = np.where(alone, strength, total / np.where(alone, 1.0, below))
        renewed /= renewed.sum()
        done = np.abs(renewed - strength).max() <= tolerance
        strength = renewed
        if done:
            break
    strength = np.where(alone, math.nan, strength)
    return Strengths(names, strength / np.nansum(strength), wins)
