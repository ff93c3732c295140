"""A preference model that is a sum over readable features, so that it scores single responses and can be read."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.core.statistics import both_sides, sigmoid
from unipref.explain.regression import HierarchicalPairRegressor, as_probabilities
from unipref.explain.selection import folds_of
from unipref.features.concepts import Concept, PairValues
from unipref.features.linear_score import LinearScore

__all__ = ["STRENGTHS", "CompositionalPreferenceModel"]

STRENGTHS = tuple(np.logspace(-5, 5, 12).tolist())  # C of the authors' code
_FLOOR = 1e-7  # added to every spread, as theirs
_STEPS = 100


class CompositionalPreferenceModel:
    """Logistic regression on the differences of two responses' scaled features: P(a > b) = sigmoid(r(a) - r(b)).

    The features of both responses are pooled, centred and scaled together. Scaled side by side instead they would
    have two zeros, and swapping the responses would not mirror the prediction.

    Signs belong to how a feature was asked for, not to its name. Of the paper's thirteen, a high score of `biased`,
    `repetitive`, `too-long` and `fail-to-consider-context` is *good* by its anchors, and one of
    `fail-to-consider-individual-preferences` is *bad*.

    Source: the authors' code for arXiv:2310.13011; its abstract alone was read of the paper. The code chooses the
    penalty by the accuracy in 8 folds of pairs; here a fold never parts the pairs of a prompt.

    Args:
        penalty: "l1" (exact zeros) or "l2".
        form: "g", the model above; "f": weights of the first and of the second response apart, fitted without saying
            that they mirror each other, then w = (first - second) / 2. What differs between the two halves is a
            preference for a place.
        strengths: values of C in penalty(w) + C * summed loss; the least that reaches the best accuracy is taken.

    Attributes:
        reward_: the `LinearScore` r, which a recipe reads from a file (`save`) with the scorer `cpm`.
        concepts_: of its weights. weight_: (C,) per spread of a feature.
        strength_: the chosen C. table_: {"strength", "accuracy"} per setting, on pairs that were left out.
        place_: (C,) of form "f": (first + second) / 2, the weight of a feature wherever it stands; else None.
        left_out_: keys of features that are constant or that nobody judged. n_dropped_: pairs with a value missing.
    """

    def __init__(
        self,
        *,
        penalty: str = "l2",
        form: str = "g",
        strengths: Sequence[float] = STRENGTHS,
        n_folds: int = 8,
        seed: int = 0,
    ) -> None:
        if penalty not in ("l1", "l2"):
            raise ConfigError(f"penalty is 'l1' or 'l2', not {penalty!r}")
        if form not in ("g", "f"):
            raise ConfigError(f"form is 'g' (differences) or 'f' (both responses), not {form!r}")
        if not len(strengths) or not all(c > 0 for c in strengths):
            raise ConfigError(f"strengths are numbers above 0, got {list(strengths)}")
        self.penalty, self.form = penalty, form
        self.strengths, self.n_folds, self.seed = tuple(sorted(strengths)), n_folds, seed

    def fit(
        self, values: PairValues, y: Sequence[float], *, groups: Sequence[Hashable] | None = None
    ) -> "CompositionalPreferenceModel":
        """Learn from pairs.

        Args:
            values: of both responses, such as `features.surface_values` gives. A pair with a value missing is
                dropped, and counted in `n_dropped_`.
            y: as for `HierarchicalPairRegressor.fit`.
            groups: (N,) the prompt of each pair; None: every pair is a prompt of its own.

        Raises:
            DataError: only differences are known, nothing varies, or no pair is complete.
        """
        a, b = _sides(values)
        p = as_probabilities(y)
        if len(p) != len(a):
            raise ShapeError(f"there are values of {len(a)} pairs and {len(p)} labels")
        pooled = np.concatenate([a, b])
        judged = ~np.isnan(pooled).all(axis=0)
        complete = ~np.isnan(np.concatenate([a[:, judged], b[:, judged]], axis=1)).any(axis=1)
        self.n_dropped_ = int((~complete).sum())
        if not complete.any() or not judged.any():
            scarce = int(np.argmax(np.isnan(pooled[:, judged]).sum(axis=0))) if judged.any() else 0
            named = [c.key for c, kept in zip(values.concepts, judged, strict=True) if kept]
            raise DataError(
                f"no pair of {len(p)} has a value of every feature"
                + (f"; {named[scarce]!r} is missing most often: leave it out" if named else "; none was judged")
            )
        a, b, p = a[complete], b[complete], p[complete]
        pooled = np.concatenate([a, b])
        centre, spread = pooled.mean(axis=0), pooled.std(axis=0)
        with np.errstate(invalid="ignore"):
            use = judged & (spread > 1e-12 * np.maximum(np.abs(centre), 1.0))
        if not use.any():
            raise DataError("every feature has the same value in every response; there is nothing to learn from")
        self.concepts_: tuple[Concept, ...] = tuple(c for c, used in zip(values.concepts, use, strict=True) if used)
        self.left_out_ = [c.key for c, used in zip(values.concepts, use, strict=True) if not used]
        centre, spread = centre[use], spread[use] + _FLOOR
        a, b = (a[:, use] - centre) / spread, (b[:, use] - centre) / spread
        x = a - b if self.form == "g" else np.concatenate([a, b], axis=1)
        prompts = np.arange(len(complete)) if groups is None else np.asarray(groups)
        self.strength_, self.table_ = self._chosen(x, p, prompts[complete])
        w = self._fitted(x, p, self.strength_)
        self.place_ = None
        if self.form == "f":
            first, second = np.split(w, 2)
            w, self.place_ = (first - second) / 2, (first + second) / 2
        self.weight_ = w
        about = {
            "model": f"compositional preference model, form {self.form}, {self.penalty}",
            "pairs": len(p),
            "dropped": self.n_dropped_,
            "strength": self.strength_,
            "accuracy in cross-validation": max(row["accuracy"] for row in self.table_),
        }
        columns = (tuple(values.tolist()) for values in (w, centre, spread))
        self.reward_ = LinearScore(tuple(c.key for c in self.concepts_), *columns, about=about)
        return self

    def reward(self, values: np.ndarray, concepts: Sequence[Concept]) -> np.ndarray:
        """(N,) r of single responses; NaN where a value that has a weight is missing.

        Args:
            values: (N, C) in the units of `fit`. concepts: of the columns, in any order.
        """
        place = {concept.key: i for i, concept in enumerate(concepts)}
        absent = [key for key in self.reward_.keys if key not in place]
        if absent:
            raise DataError(f"the model reads {absent[0]!r}, and the values are of {[*place]}")
        return self.reward_.of_values(np.asarray(values)[:, [place[key] for key in self.reward_.keys]])

    def decision_function(self, values: PairValues) -> np.ndarray:
        """(N,) r(first) - r(second), exactly negated where the two are swapped."""
        a, b = _sides(values)
        return self.reward(a, values.concepts) - self.reward(b, values.concepts)

    def predict_proba(self, values: PairValues) -> np.ndarray:
        """(N, 2) probabilities that the second and that the first response is preferred."""
        return both_sides(self.decision_function(values))

    def score(self, values: PairValues, y: Sequence[float]) -> float:
        """Accuracy over the pairs that are no ties and have all values; an equal score is half right."""
        return _accuracy(self.decision_function(values), as_probabilities(y))

    # ---- within ----

    def _chosen(self, x: np.ndarray, p: np.ndarray, groups: np.ndarray) -> tuple[float, list[dict[str, Any]]]:
        fold = folds_of(groups, self.n_folds, seed=self.seed)
        table = []
        for strength in self.strengths:
            z = np.zeros(len(p))
            for k in range(self.n_folds):
                w = self._fitted(x[fold != k], p[fold != k], strength)
                if self.form == "f":  # judged as it will be used
                    w = np.concatenate([w[: len(w) // 2] - w[len(w) // 2 :], w[len(w) // 2 :] - w[: len(w) // 2]]) / 2
                z[fold == k] = x[fold == k] @ w
            table.append({"strength": strength, "accuracy": _accuracy(z, p)})
        best = max(table, key=lambda row: row["accuracy"])  # of equals the first, which is penalised most
        return best["strength"], table

    def _fitted(self, x: np.ndarray, p: np.ndarray, strength: float) -> np.ndarray:
        if self.penalty == "l2":
            return _ridge(x, p, strength)
        # it takes the mean where this takes the sum
        return HierarchicalPairRegressor(lambda_shared=1.0 / (strength * len(p)), alpha=0.0).fit(x, p).shared_


def _sides(values: PairValues) -> tuple[np.ndarray, np.ndarray]:
    if values.first is None or values.second is None:
        raise DataError(
            "a compositional model scores single responses, and of these concepts only differences are known; give the "
            "values of each response, or use HierarchicalPairRegressor"
        )
    return values.first, values.second


def _accuracy(z: np.ndarray, p: np.ndarray) -> float:
    counts = (p != 0.5) & ~np.isnan(z)
    if not counts.any():
        return float("nan")
    return float((1.0 - np.abs(0.5 * (1.0 + np.sign(z[counts])) - (p[counts] > 0.5))).mean())


def _ridge(x: np.ndarray, p: np.ndarray, strength: float) -> np.ndarray:
    """The minimiser of |w|^2 / 2 + strength * sum of -p log q - (1 - p) log(1 - q), q = sigmoid(x w)."""

    def objective(w: np.ndarray) -> float:
        z = x @ w
        return 0.5 * float(w @ w) + strength * float((np.logaddexp(0.0, z) - p * z).sum())

    w = np.zeros(x.shape[1])
    value = objective(w)
    for _ in range(_STEPS):
        q = sigmoid(x @ w)
        gradient = w + strength * (x.T @ (q - p))
        hessian = np.eye(len(w)) + strength * (x.T @ (x * (q * (1 - q))[:, None]))
        step = np.linalg.solve(hessian, gradient)
        decrement, size = float(gradient @ step), 1.0
        if decrement <= 1e-12 * max(abs(value), 1e-300):
            return w
        while (moved := objective(w - size * step)) > value - 0.25 * size * decrement and size > 1e-10:
            size /= 2
        w, value = w - size * step, moved
    raise ConfigError(f"no optimum after {_STEPS} steps at strength {strength:g}; leave the largest strengths out")
