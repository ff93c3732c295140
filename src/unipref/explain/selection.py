"""Penalties chosen by cross-validation, and what of a fit is stable; what is drawn are prompts, never pairs."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.explain.regression import HierarchicalPairRegressor, as_probabilities, largest_penalties

__all__ = ["Choice", "choose_penalties", "folds_of", "kept_signs", "resampled_weights", "sign_stability"]


@dataclass(frozen=True)
class Choice:
    """What cross-validation found.

    Attributes:
        model: fitted to all rows with the chosen penalties.
        table: per setting {"lambda_shared", "lambda_specific", "accuracy", "log_loss", "n_shared", "n_specific"}: means
            over folds on rows that were left out, log-loss in nats, and how many weights were not 0.
        chosen: index into the table.
    """

    model: HierarchicalPairRegressor
    table: list[dict[str, Any]]
    chosen: int


def folds_of(groups: Sequence[Hashable], n_folds: int, *, seed: int = 0) -> np.ndarray:
    """(N,) the fold of each row; rows of one group (a prompt) share a fold, and folds are of like size.

    Raises:
        DataError: there are fewer groups than folds.
    """
    names, place, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(names) < n_folds:
        raise DataError(f"{n_folds} folds need as many prompts, and there are {len(names)}; take fewer folds")
    order = np.random.default_rng(seed).permutation(len(names))
    sizes, fold = np.zeros(n_folds), np.empty(len(names), dtype=int)
    for group in order[np.argsort(-counts[order], kind="stable")]:  # the largest first, to the emptiest fold
        fold[group] = np.argmin(sizes)
        sizes[fold[group]] += counts[group]
    return fold[place]


def choose_penalties(
    X: np.ndarray,
    y: Sequence[float],
    domains: Sequence[Hashable] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    grid: Sequence[tuple[float, float]] | None = None,
    n_folds: int = 5,
    by: str = "log_loss",
    seed: int = 0,
    **settings: Any,
) -> Choice:
    """The penalties of `grid` that predict left-out prompts best, and the model that they give on all rows.

    Args:
        X, y, domains: as `HierarchicalPairRegressor.fit` takes them.
        groups: (N,) the prompt of each pair; None: every pair is a prompt of its own.
        grid: (lambda_shared, lambda_specific), such as the paper's `penalty_grid`; None: nine, 1/2, 1/5 and 1/12
            of the shared penalty at which all shared weights are 0, and from that to its D-th part for the deviations
            (with one domain, six from 1/2 to 1/40). Where the smallest shared penalty of these is the best one, there
            are smaller ones, as long as they are better: 1/30, 1/75 and 1/200 (1/80, 1/160 and 1/320).
        by: "log_loss" or "accuracy", the paper's; the larger penalties where two settings are equal.
        settings: of `HierarchicalPairRegressor`.
    """
    if by not in ("log_loss", "accuracy"):
        raise ConfigError(f"penalties are chosen by 'log_loss' or 'accuracy', not {by!r}")
    X, p = np.asarray(X), as_probabilities(y)
    names = np.zeros(len(p), dtype=int) if domains is None else np.asarray(domains)
    fold = folds_of(np.arange(len(p)) if groups is None else groups, n_folds, seed=seed)
    masks = {name: settings.get(name) for name in ("alpha", "shared", "specific")}
    first, smaller = _relative_grid(X, p, names, **masks) if grid is None else (list(grid), [])
    last: list[HierarchicalPairRegressor | None] = [None] * n_folds
    table: list[dict[str, Any]] = []
    for pairs in (first, *smaller):
        pairs = sorted(pairs, reverse=True)
        found = np.zeros((len(pairs), n_folds, 2))
        sizes = np.zeros(n_folds)
        for k in range(n_folds):
            inside, outside = fold != k, fold == k
            sizes[k] = outside.sum()
            for i, (shared, specific) in enumerate(pairs):  # from the sparsest on, each where the one before ended
                candidate = HierarchicalPairRegressor(lambda_shared=shared, lambda_specific=specific, **settings)
                start = _same_domains(last[k], names[inside])
                last[k] = model = candidate.fit(X[inside], p[inside], names[inside], start=start)
                z = model.decision_function(X[outside], names[outside])
                log_loss = np.mean(np.logaddexp(0.0, z) - p[outside] * z)
                found[i, k] = model.score(X[outside], p[outside], names[outside]), log_loss
        for i, (shared, specific) in enumerate(pairs):
            accuracy, log_loss = np.average(found[i], axis=0, weights=sizes).tolist()
            table.append(
                {"lambda_shared": shared, "lambda_specific": specific, "accuracy": accuracy, "log_loss": log_loss}
            )
        chosen = int(np.argmin([row["log_loss"] if by == "log_loss" else -row["accuracy"] for row in table]))
        if table[chosen]["lambda_shared"] > table[-1]["lambda_shared"]:
            break  # what is smaller still was tried and is no better
    models: list[HierarchicalPairRegressor] = []
    for row in table:
        model = HierarchicalPairRegressor(
            lambda_shared=row["lambda_shared"], lambda_specific=row["lambda_specific"], **settings
        )
        models.append(model.fit(X, p, names, start=models[-1] if models else None))
        row |= {"n_shared": int((model.shared_ != 0).sum()), "n_specific": int((model.specific_ != 0).sum())}
    return Choice(models[chosen], table, chosen)


def _relative_grid(
    X: np.ndarray, p: np.ndarray, names: np.ndarray, **masks: Any
) -> tuple[list[tuple[float, float]], list[list[tuple[float, float]]]]:
    """Nine settings, and smaller ones to go on with. A deviation never costs less than its part of a shared weight:
    otherwise what all domains have in common would be written into each of them."""
    largest, _ = largest_penalties(X, p, names, **masks)
    n = len(np.unique(names))
    if n == 1:
        first = [(largest * share, 1.0) for share in (0.5, 0.3, 0.18, 0.1, 0.05, 0.025)]
        return first, [[(largest / part, 1.0)] for part in (80, 160, 320)]

    def at(share: float) -> list[tuple[float, float]]:
        return [(largest * share, largest * share * part) for part in (1, n**-0.5, 1 / n)]

    return [*at(1 / 2), *at(1 / 5), *at(1 / 12)], [at(1 / 30), at(1 / 75), at(1 / 200)]


def _same_domains(model: HierarchicalPairRegressor | None, names: np.ndarray) -> HierarchicalPairRegressor | None:
    return model if model is not None and np.array_equal(model.domains_, np.unique(names)) else None


def sign_stability(
    model: HierarchicalPairRegressor,
    X: np.ndarray,
    y: Sequence[float],
    domains: Sequence[Hashable] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(C,) and (D, C): the share of refits to resampled prompts in which b_j, and b_j + s_dj, keeps its sign.

    A weight that is 0 here has the stability 0. Prompts are drawn within each domain, so none is ever empty.

    Args:
        model: fitted to these rows; the refits have its parameters.
    """
    shared, both = resampled_weights(model, X, y, domains, groups=groups, resamples=resamples, seed=seed)
    return kept_signs(model.shared_, shared), kept_signs(model.shared_ + model.specific_, both)


def kept_signs(weights: np.ndarray, again: np.ndarray) -> np.ndarray:
    """The share of `again` (R, ...) that has the sign of `weights` (...); 0 where a weight is 0."""
    return ((np.sign(again) == np.sign(weights)) & (weights != 0)).mean(axis=0)


def resampled_weights(
    model: HierarchicalPairRegressor,
    X: np.ndarray,
    y: Sequence[float],
    domains: Sequence[Hashable] | None = None,
    *,
    groups: Sequence[Hashable] | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """(R, C) b and (R, D, C) b + s_d of refits to resampled prompts; see `sign_stability`.

    Prompts that two calls have in common are drawn alike where all prompts of a domain are the same.
    """
    X, p = np.asarray(X), as_probabilities(y)
    names = np.zeros(len(p), dtype=int) if domains is None else np.asarray(domains)
    prompts = np.unique(np.arange(len(p)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    per_domain = [np.unique(prompts[names == domain]) for domain in model.domains_]
    shared = np.zeros((resamples, *model.shared_.shape))
    both = np.zeros((resamples, *model.specific_.shape))
    for i in range(resamples):
        weight = np.zeros(len(p))
        for domain, members in zip(model.domains_, per_domain, strict=True):
            drawn = np.zeros(prompts.max() + 1)
            np.add.at(drawn, rng.choice(members, len(members)), 1.0)
            rows = names == domain
            weight[rows] = drawn[prompts[rows]]
        again = HierarchicalPairRegressor(**model.get_params()).fit(X, p, names, sample_weight=weight, start=model)
        shared[i], both[i] = again.shared_, again.shared_ + again.specific_
    return shared, both
