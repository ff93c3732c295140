"""Weights of concepts as a posterior: how sure one can be of each, where a sparse fit says only which it keeps."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.core.statistics import sigmoid
from unipref.explain._ranks import pearson, spearman
from unipref.explain.regression import HierarchicalPairRegressor, as_probabilities
from unipref.features.rules import length_label

__all__ = [
    "SIMILARITIES",
    "Posterior",
    "length_label",
    "mechanism_similarity",
    "most_probable",
    "posterior",
    "posteriors",
    "similarity",
]

SCALE = 0.1  # of the prior, in the authors' code
RHAT = 1.05  # chains that differ by more have not met
_ACCEPTED = 0.8  # share of proposals that the step size is tuned to
_PATH = 0.5 * math.pi  # of a trajectory: a quarter of a turn around a normal, where a draw owes least to the one before
_LONGEST = 64  # steps of a trajectory

SIMILARITIES = {
    "pearson": pearson,
    "spearman": spearman,
    "l1": lambda a, b: -float(np.abs(np.subtract(a, b)).sum()),
    "l2": lambda a, b: -float(np.linalg.norm(np.subtract(a, b))),
}


@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from the posterior of the weights.

    No weight is ever exactly 0 here, and none is selected: a small one is small, with an interval that says how small.

    Attributes:
        mean, sd: (C,).
        draws: (chains, draws, C).
        rhat: (C,) split R-hat; 1 where the halves of all chains agree, above 1.05 they have not met.
        ess: (C,) how many independent draws the mean is worth.
        accepted: share of the proposals.
        n: pairs. n_missing: concept values that were NaN and counted as no difference.
    """

    mean: np.ndarray
    sd: np.ndarray
    draws: np.ndarray = field(repr=False)
    rhat: np.ndarray
    ess: np.ndarray
    accepted: float
    n: int
    n_missing: int = 0

    @property
    def preference(self) -> np.ndarray:
        """(C,) 100 sigmoid(mean): how often, in per cent, a response is preferred that is one unit better in a concept
        and equal in all others."""
        return 100.0 * sigmoid(self.mean)

    @property
    def converged(self) -> bool:
        """Whether the chains tell the same: R-hat at most 1.05 everywhere."""
        return bool((self.rhat <= RHAT).all())

    def interval(self, level: float = 0.95) -> np.ndarray:
        """(C, 2) the weights between which the share `level` of the draws lies, as much of the rest on each side."""
        if not 0 < level < 1:
            raise ConfigError(f"level is a share between 0 and 1, such as 0.95, got {level}")
        flat = self.draws.reshape(-1, self.draws.shape[-1])
        return np.quantile(flat, [0.5 - level / 2, 0.5 + level / 2], axis=0).T

    def told(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Per concept what a report says of it, the largest first; `preference` is [per cent, low, high] at 95 %."""
        if len(names) != len(self.mean):
            raise ShapeError(f"the posterior is of {len(self.mean)} concepts, and there are {len(names)} names")
        at90, at95 = self.interval(0.9), self.interval(0.95)
        return {
            names[j]: {
                "weight": float(self.mean[j]),
                "sd": float(self.sd[j]),
                "interval_90": at90[j].tolist(),
                "interval_95": at95[j].tolist(),
                "preference": [float(self.preference[j]), *(100.0 * sigmoid(at95[j])).tolist()],
                "rhat": float(self.rhat[j]),
                "ess": float(self.ess[j]),
            }
            for j in np.argsort(-np.abs(self.mean), kind="stable")
        }


def posterior(
    X: np.ndarray,
    y: Sequence[float],
    *,
    scale: float = SCALE,
    draws: int = 2000,
    warm_up: int = 500,
    chains: int = 4,
    seed: int = 0,
) -> Posterior:
    """The posterior of y ~ Bernoulli(sigmoid(X a)) with every a_j ~ Laplace(0, scale), without an intercept.

    Swapping the two responses of any pair, label and all, changes nothing. The prior pulls hard: with the authors'
    scale, an effect of 1 is ten scales out, and what comes back is smaller. What is in the data must therefore be in
    comparable units (votes of -1, 0 and 1, or `features.pair_differences`).

    Source: the model, its scale and the counts of draws are the authors' code's for arXiv:2402.11296. They draw with
    NUTS and average ten fits to nine tenths of the rows each; here it is Hamiltonian Monte Carlo on all rows, with
    trajectories of fixed mean length in coordinates in which the posterior is nearly round (Neal 2011,
    arXiv:1206.1901). R-hat and the effective sample size are those of arXiv:1903.08008 without its rank
    transformation.

    Args:
        X: (N, C) concept values of the first response minus those of the second; NaN: nobody judged it.
        y: (N,) as `HierarchicalPairRegressor.fit` takes it; a tie speaks half for either side.
        scale: of the prior.
        draws: kept per chain, after `warm_up` that tune the step and are thrown away.

    Raises:
        ConfigError: a scale or counts that cannot be. DataError: no pair. ShapeError: X and y disagree.
    """
    if not scale > 0:
        raise ConfigError(f"scale, of the prior, is a number above 0, got {scale}")
    if draws < 4 or warm_up < 1 or chains < 1:
        raise ConfigError(f"draws are at least 4, warm_up and chains 1: {draws}, {warm_up}, {chains}")
    x, p = np.asarray(X, dtype=float), as_probabilities(y)
    if x.ndim != 2 or len(x) != len(p):
        raise ShapeError(f"X has the shape {x.shape}, and there are {len(p)} labels")
    if not x.size:
        raise DataError(f"a posterior needs pairs and concepts, and X has the shape {x.shape}")
    if np.isinf(x).any():
        raise DataError("X holds infinite values; concept values are finite, or NaN where nobody judged")
    missing = np.isnan(x)
    x = np.where(missing, 0.0, x)
    found, accepted = _sampled(x, p, scale, draws, warm_up, chains, np.random.default_rng(seed))
    flat = found.reshape(-1, x.shape[1])
    rhat, ess = _diagnosed(found)
    return Posterior(
        flat.mean(axis=0), flat.std(axis=0, ddof=1), found, rhat, ess, accepted, len(x), int(missing.sum())
    )


def posteriors(
    X: np.ndarray, y: Sequence[float], domains: Sequence[Hashable], **settings: Any
) -> dict[Hashable, Posterior]:
    """The posterior of each domain alone, by its name; nothing is shared between them.

    Args:
        settings: of `posterior`.
    """
    x, p, names = np.asarray(X, dtype=float), as_probabilities(y), np.asarray(domains)
    if names.shape != (len(p),):
        raise ShapeError(f"there are {len(p)} labels, and domains has the shape {names.shape}")
    return {name: posterior(x[names == name], p[names == name], **settings) for name in np.unique(names).tolist()}


def most_probable(X: np.ndarray, y: Sequence[float], *, scale: float = SCALE) -> HierarchicalPairRegressor:
    """The mode of the same posterior: L1 logistic regression whose penalty on the summed loss is 1 / scale.

    The mode has exact zeros, the mean has none: it is the mode, and not the posterior, that selects.
    """
    return HierarchicalPairRegressor(lambda_shared=1.0 / (scale * len(np.asarray(y))), alpha=0.0).fit(X, y)


# ---- two mechanisms ----


def similarity(a: Sequence[float], b: Sequence[float], *, by: str = "pearson") -> float:
    """How alike two mechanisms' weights of the same concepts are.

    Args:
        by: "pearson", "spearman" (NaN where one vector is constant), or "l1", "l2": the distance, negated.
    """
    if by not in SIMILARITIES:
        raise ConfigError(f"similarity is by {', '.join(SIMILARITIES)}, not {by!r}")
    if np.shape(a) != np.shape(b) or np.ndim(a) != 1:
        raise ShapeError(f"two weight vectors of the same concepts, got the shapes {np.shape(a)} and {np.shape(b)}")
    return SIMILARITIES[by](a, b)


def mechanism_similarity(
    a: Mapping[Hashable, Sequence[float]], b: Mapping[Hashable, Sequence[float]], *, by: str = "pearson"
) -> tuple[float, dict[Hashable, float]]:
    """Mean over the domains that both mechanisms have, and the similarity in each.

    Args:
        a, b: domain -> (C,) weights. A domain in which one of them is constant is NaN, and does not count in the mean.

    Raises:
        DataError: no domain is in both.
    """
    both = [name for name in a if name in b]
    if not both:
        raise DataError(f"the two mechanisms share no domain: {[*a]} and {[*b]}")
    found = {name: similarity(a[name], b[name], by=by) for name in both}
    known = [value for value in found.values() if not math.isnan(value)]
    return (float(np.mean(known)) if known else math.nan), found


# ---- drawing ----


def _sampled(
    x: np.ndarray, p: np.ndarray, scale: float, draws: int, warm_up: int, chains: int, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """(chains, draws, C) weights, and the share of accepted proposals."""
    n = x.shape[1]
    # Curvature at 0, with a normal of the Laplace's variance, 2 scale^2, for the prior; in u, a = root u, it is 1
    precision = 0.25 * x.T @ x + np.eye(n) / (2 * scale**2)
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    basis = x @ root

    def energy(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(chains,) -log posterior up to a constant, and its (chains, C) gradient."""
        z, a = u @ basis.T, u @ root.T
        value = (np.logaddexp(0.0, z) - p * z).sum(axis=1) + np.abs(a).sum(axis=1) / scale
        return value, (sigmoid(z) - p) @ basis + (np.sign(a) / scale) @ root

    u = rng.standard_normal((chains, n))
    value, slope = energy(u)
    step, log_step, mean_step = 0.5, math.log(0.5), 0.0
    kept, accepted = np.empty((chains, draws, n)), 0.0
    for i in range(-warm_up, draws):
        momentum = rng.standard_normal((chains, n))
        start = value + 0.5 * (momentum**2).sum(axis=1)
        jittered = step * rng.uniform(0.8, 1.2)  # no trajectory length is always a whole turn for some direction
        length = min(max(1, round(_PATH / jittered)), _LONGEST)
        at, at_value, at_slope = u, value, slope
        for _ in range(length):
            momentum = momentum - 0.5 * jittered * at_slope
            at = at + jittered * momentum
            at_value, at_slope = energy(at)
            momentum = momentum - 0.5 * jittered * at_slope
        change = start - at_value - 0.5 * (momentum**2).sum(axis=1)
        chance = np.exp(np.minimum(np.nan_to_num(change, nan=-np.inf), 0.0))
        moved = rng.random(chains) < chance
        u = np.where(moved[:, None], at, u)
        value, slope = np.where(moved, at_value, value), np.where(moved[:, None], at_slope, slope)
        if i < 0:  # Robbins and Monro; what is kept has one step size, so that the chain is a Markov chain
            k = i + warm_up
            log_step += (chance.mean() - _ACCEPTED) / math.sqrt(k + 1)
            mean_step += (log_step - mean_step) * (k + 1) ** -0.75
            step = math.exp(log_step if i < -1 else mean_step)
        else:
            accepted += float(chance.mean()) / draws
            kept[:, i] = u @ root.T
    return kept, accepted


def _diagnosed(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) split R-hat and effective sample size of (chains, draws, C)."""
    half = draws.shape[1] // 2
    split = np.concatenate([draws[:, :half], draws[:, -half:]])  # a chain that drifts disagrees with itself
    m, n, _ = split.shape
    within = split.var(axis=1, ddof=1).mean(axis=0)
    means = split.mean(axis=1)
    total = within * (n - 1) / n + means.var(axis=0, ddof=1)
    centred = split - means[:, None]
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(centred, size, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, size, axis=1)[:, :n].mean(axis=0) / n
    correlation = 1.0 - (within - covariance * n / (n - 1)) / total
    correlation[0] = 1.0
    pairs = correlation[: 2 * (n // 2)].reshape(-1, 2, split.shape[2]).sum(axis=1)
    # Geyer: sums of neighbours are positive and fall, for a reversible chain; from where noise breaks that, they end
    positive = np.cumprod(pairs > 0, axis=0)
    falling = np.minimum.accumulate(np.where(positive, pairs, 0.0), axis=0)
    time = np.maximum(2.0 * falling.sum(axis=0) - 1.0, 1.0 / math.log10(max(m * n, 10)))
    return np.sqrt(total / within), m * n / time
