"""Preferences over several domains as shared and domain-specific weights of named concepts."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.core.statistics import both_sides
from unipref.explain._problem import Domain, Problem
from unipref.explain._solvers import newton

__all__ = ["HierarchicalPairRegressor", "as_probabilities", "largest_penalties", "penalty_grid"]


_SEPARABLE = 15.0  # a probability of 3e-7 for what was seen: it would go on growing


class HierarchicalPairRegressor:
    """Sparse logistic regression on signed concept values, with a weight vector that all domains share and deviations.

    In domain d the logit that the first response of a pair is preferred is (b + s_d) x, without an intercept, so that
    swapping the two responses mirrors the prediction. In a domain that was not in training it is b x. `alpha` makes
    b a good predictor alone; with `alpha` = 0 the split between b and s_d is whatever the penalties make cheapest (the
    "dirty model").

    Follows scikit-learn's manner: parameters in the constructor, what was learned in attributes with a final
    underscore, `fit`, `predict_proba`, `predict`, `score`, `get_params`, `set_params`.

    Source: arXiv:2505.20088 Eq. 1 and footnote 3. L_d is the mean over a domain's rows where the paper prints a sum;
    the paper's penalties give sparse weights with the mean alone. The paper minimises with Adam, which has no exact
    zeros; here the optimum is exact, and `gap_` bounds how far the objective can be from it.

    Args:
        lambda_shared: penalty of |b|; lambda_specific: of every |s_d|. The defaults are those of the paper's two
            application tests at eight domains.
        alpha: weight of the loss of b alone; None: 1 / number of domains.
        shared: (C,) bool, concepts that may have a shared weight; None: all.
        specific: domain -> (C,) bool, concepts that may have a weight of that domain's own; None: all, of a single
            domain none (there is nothing to deviate from).
        tolerance: how far a weight may be from its optimality condition, as a share of the largest gradient at zero.
        max_iter: Newton steps; an error is raised where they do not suffice.

    Attributes:
        domains_: names in sorted order. shared_: (C,) b. specific_: (D, C) s.
        objective_, gap_, n_iter_: at the end; `gap_` is inf where a penalty is 0.
        n_missing_: concept values that were NaN; they count as 0, no difference.
        classes_: [0, 1], 1 where the first response is preferred.
    """

    def __init__(
        self,
        *,
        lambda_shared: float = 0.125,
        lambda_specific: float = 0.0625,
        alpha: float | None = None,
        shared: np.ndarray | None = None,
        specific: dict[Hashable, np.ndarray] | None = None,
        tolerance: float = 1e-8,
        max_iter: int = 200,
    ) -> None:
        self.lambda_shared = lambda_shared
        self.lambda_specific = lambda_specific
        self.alpha = alpha
        self.shared = shared
        self.specific = specific
        self.tolerance = tolerance
        self.max_iter = max_iter

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, as scikit-learn's `clone` asks for them."""
        names = ("lambda_shared", "lambda_specific", "alpha", "shared", "specific", "tolerance", "max_iter")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> "HierarchicalPairRegressor":
        """Change arguments of the constructor."""
        for name, value in params.items():
            if name not in self.get_params():
                raise ConfigError(f"HierarchicalPairRegressor has no parameter {name!r}; it has {[*self.get_params()]}")
            setattr(self, name, value)
        return self

    def fit(
        self,
        X: np.ndarray,
        y: Sequence[float],
        domains: Sequence[Hashable] | None = None,
        *,
        sample_weight: Sequence[float] | None = None,
        start: "HierarchicalPairRegressor | None" = None,
    ) -> "HierarchicalPairRegressor":
        """Learn from pairs.

        Args:
            X: (N, C) concept values of the first response minus those of the second; NaN: nobody judged it.
            y: (N,) probability that the first is preferred (0.5 for a tie), or -1, 0, 1 where a value is below 0.
            domains: (N,) names; None: one domain.
            sample_weight: (N,) weight 2 is a row that stands twice.
            start: a model fitted to the same concepts and domains, to go on from; changes the time, not the result.

        Raises:
            ShapeError: the arguments disagree. DataError: nothing to learn from. ConfigError: penalties below 0, or
            the optimum was not reached.
        """
        problem, self.domains_, self.n_missing_ = self._problem(X, y, domains, sample_weight)
        begin = (None, None) if start is None else (start.shared_, start.specific_)
        point, self.n_iter_ = newton(problem, *begin, tolerance=self.tolerance, max_iter=self.max_iter)
        self.shared_, self.specific_ = point.b, point.s
        self.objective_, self.gap_ = point.objective, max(problem.gap(point), 0.0)
        self.classes_ = np.array([0, 1])
        free = self.lambda_shared == 0 or self.lambda_specific == 0
        furthest = max(float(np.abs(np.log(q) - np.log1p(-q)).max()) for q in map(_inside, point.both))
        if free and furthest > _SEPARABLE:
            raise ConfigError(
                f"without a penalty a logit grew to {furthest:.0f}: the pairs are separable, and no finite weights are "
                "best; give both penalties a value above 0"
            )
        if self.n_iter_ >= self.max_iter:
            raise ConfigError(f"no optimum after {self.max_iter} steps; raise the penalties, max_iter or tolerance")
        return self

    def weights(self, domain: Hashable) -> np.ndarray:
        """(C,) b + s_d; b alone for a domain that was not in training."""
        known = np.flatnonzero(self.domains_ == domain)
        return self.shared_ + self.specific_[known[0]] if len(known) else self.shared_.copy()

    def decision_function(self, X: np.ndarray, domains: Sequence[Hashable] | None = None) -> np.ndarray:
        """(N,) logits that the first response is preferred; exactly negated where the two are swapped."""
        x, names = self._rows(X, domains)
        z = np.empty(len(x))
        for domain in np.unique(names):
            rows = names == domain
            z[rows] = x[rows] @ self.weights(domain)
        return z

    def predict_proba(self, X: np.ndarray, domains: Sequence[Hashable] | None = None) -> np.ndarray:
        """(N, 2) probabilities that the second and that the first response is preferred."""
        return both_sides(self.decision_function(X, domains))

    def predict(self, X: np.ndarray, domains: Sequence[Hashable] | None = None) -> np.ndarray:
        """(N,) 1.0 where the first response is preferred, 0.0 where the second is, 0.5 where the logit is exactly 0."""
        return 0.5 * (1.0 + np.sign(self.decision_function(X, domains)))

    def score(
        self,
        X: np.ndarray,
        y: Sequence[float],
        domains: Sequence[Hashable] | None = None,
        *,
        sample_weight: Sequence[float] | None = None,
    ) -> float:
        """Accuracy over the pairs that are no ties; a predicted tie is half right. NaN where all are ties."""
        p = as_probabilities(y)
        decided = p != 0.5
        weight = np.ones(len(p)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        right = 1.0 - np.abs(self.predict(X, domains) - (p > 0.5))
        total = weight[decided].sum()
        return float((weight * right)[decided].sum() / total) if total > 0 else float("nan")

    def contributions(self, X: np.ndarray, domains: Sequence[Hashable] | None = None) -> np.ndarray:
        """(N, C) what each concept adds to the logit; rows sum to `decision_function` exactly."""
        x, names = self._rows(X, domains)
        return x * np.stack([self.weights(domain) for domain in names])

    def lift(self, domain: Hashable | None = None) -> np.ndarray:
        """(C,) change of the probability by one more unit of a concept, in per cent of it, to first order around 1/2.

        50 * b shared and 50 * s_d specific, which add up (arXiv:2505.20088 App. C.3). None: the shared part.
        """
        return 50.0 * (self.shared_ if domain is None else self.weights(domain))

    # ---- within ----

    def _problem(
        self, X: np.ndarray, y: Sequence[float], domains: Sequence[Hashable] | None, sample_weight: Any
    ) -> tuple[Problem, np.ndarray, int]:
        for name in ("lambda_shared", "lambda_specific"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.alpha is not None and not self.alpha >= 0:
            raise ConfigError(f"alpha must be at least 0, got {self.alpha}")
        x, missing = _filled(X)
        p = as_probabilities(y)
        names = np.zeros(len(x), dtype=int) if domains is None else np.asarray(domains)
        weight = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        for what, found in (("y", p), ("domains", names), ("sample_weight", weight)):
            if found.shape != (len(x),):
                raise ShapeError(f"X has {len(x)} rows, and {what} has the shape {found.shape}")
        if (weight < 0).any() or not np.isfinite(weight).all():
            raise DataError("sample_weight holds values that are negative or not finite; weights are 0 or more")
        known = np.unique(names)
        parts = []
        for domain in known:
            rows = names == domain
            total = weight[rows].sum()
            if total == 0:
                raise DataError(f"every row of the domain {domain!r} has weight 0; leave the domain out")
            everything = len(known) == 1
            parts.append(Domain(x if everything else x[rows], p[rows], weight[rows] / total))
        may_b, may_s = self._masks(known, x.shape[1])
        alpha = 1.0 / len(known) if self.alpha is None else float(self.alpha)
        return Problem(parts, alpha, self.lambda_shared, self.lambda_specific, may_b, may_s), known, missing

    def _masks(self, known: np.ndarray, n_concepts: int) -> tuple[np.ndarray, np.ndarray]:
        may_b = np.ones(n_concepts, bool) if self.shared is None else np.asarray(self.shared, dtype=bool)
        may_s = np.full((len(known), n_concepts), len(known) > 1)
        if self.specific is not None:
            unknown = [name for name in self.specific if name not in known.tolist()]
            if unknown:
                raise ConfigError(f"specific names {unknown[0]!r}, and the domains are {known.tolist()}")
            may_s[:] = False
            for d, name in enumerate(known.tolist()):
                may_s[d] = self.specific.get(name, False)
        if may_b.shape != (n_concepts,):
            raise ShapeError(f"X has {n_concepts} concepts, and shared has the shape {may_b.shape}")
        if not (may_b.any() or may_s.any()):
            raise ConfigError("no weight may differ from 0; let some concept be shared or specific")
        return may_b, may_s

    def _rows(self, X: np.ndarray, domains: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
        x, _ = _filled(X)
        if x.shape[1] != len(self.shared_):
            raise ShapeError(f"the model knows {len(self.shared_)} concepts, and X has {x.shape[1]}")
        if domains is None:
            if len(self.domains_) > 1:
                raise ShapeError(f"the model knows {len(self.domains_)} domains; say which one each row is of")
            return x, np.full(len(x), self.domains_[0])
        names = np.asarray(domains)
        if names.shape != (len(x),):
            raise ShapeError(f"X has {len(x)} rows, and domains has the shape {names.shape}")
        return x, names


def as_probabilities(y: Sequence[float]) -> np.ndarray:
    """(N,) P(first preferred) of labels in [0, 1], or of -1, 0 (a tie) and 1 where one is below 0.

    Raises:
        DataError: a value is none of these.
    """
    p = np.asarray(y, dtype=float)
    if (p < 0).any():
        if not np.isin(p, (-1.0, 0.0, 1.0)).all():
            raise DataError("labels with values below 0 are -1, 0 (a tie) or 1; others are probabilities in [0, 1]")
        p = 0.5 * (1.0 + p)
    if not ((p >= 0) & (p <= 1)).all():  # false for NaN, too
        raise DataError("labels are probabilities in [0, 1] that the first response is preferred, or -1, 0, 1")
    return p


def largest_penalties(
    X: np.ndarray, y: Sequence[float], domains: Sequence[Hashable] | None = None, **settings: Any
) -> tuple[float, float]:
    """The least (lambda_shared, lambda_specific) at which all weights are 0: where a path of penalties starts.

    Args:
        settings: of `HierarchicalPairRegressor`: alpha, shared, specific.
    """
    problem, *_ = HierarchicalPairRegressor(**settings)._problem(X, y, domains, None)
    zero = problem.at(np.zeros(problem.may_b.shape), np.zeros(problem.may_s.shape))
    shared = np.abs(zero.grad_b)[problem.may_b].max(initial=0.0)
    return float(shared), float(np.abs(zero.grad_s)[problem.may_s].max(initial=0.0))


def penalty_grid(n_domains: int) -> list[tuple[float, float]]:
    """(lambda_shared, lambda_specific) as the paper tries them for its eight domains, nine settings there.

    2/D^2, 1/(2D) and 1/D shared, those and 1/D^2 specific, the specific one never the larger (arXiv:2505.20088
    App. C.2; the layout there is damaged, and this is the reading that gives its nine).
    """
    d = n_domains
    return [
        (shared, specific)
        for shared in sorted({2 / d**2, 1 / (2 * d), 1 / d}, reverse=True)
        for specific in sorted({1 / d**2, 2 / d**2, 1 / (2 * d), 1 / d}, reverse=True)
        if specific <= shared
    ]


def _inside(q: np.ndarray) -> np.ndarray:
    return np.clip(q, 1e-12, 1 - 1e-12)


def _filled(X: np.ndarray) -> tuple[np.ndarray, int]:
    """X with 0 where nobody judged, and how many these are."""
    x = np.asarray(X)
    if x.ndim != 2 or not len(x):
        raise ShapeError(f"X is a table of pairs by concepts with at least one row, not of the shape {x.shape}")
    if not np.issubdtype(x.dtype, np.floating):
        x = x.astype(np.float64)
    missing = int(np.isnan(x).sum())
    if missing:
        x = np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if not np.isfinite(x).all():
        raise DataError("X holds infinite values; mend the concept that makes them")
    return x, missing
