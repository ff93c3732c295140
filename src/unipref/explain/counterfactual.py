"""What would have turned a verdict round, under any model: changes that real pairs show to be possible."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from unipref.core.errors import ConfigError, ShapeError, nearest
from unipref.explain.regression import HierarchicalPairRegressor, as_probabilities

__all__ = ["CONDITIONS", "Counterfactual", "Decide", "counterfactual", "refits_of"]

Decide = Callable[[np.ndarray], np.ndarray]  # (N, C) concept values -> (N,) logits that the first response wins

CONDITIONS = {
    "nearest": "few changes: the verdict has turned",
    "confident": "the model gives the new verdict a probability of at least `confidence`",
    "dense": "and the changed pair lies no further from the centre of the pairs with the new verdict than nine in ten",
    "robust": "every one of `refits` gives the new verdict too",
}
_TYPICAL = 0.9


@dataclass(frozen=True)
class Counterfactual:
    """Changes of concepts after which the other verdict is given.

    Attributes:
        changes: (concept index, old value, new value), in the order of the concepts; empty where none was needed, and
            where none was found.
        found: whether the condition holds after them.
        logit: after them, that the first response wins. distance: summed changes in units of each concept's spread.
        robustness: share of the refits that give the new verdict; NaN without refits.
        condition: a key of CONDITIONS.
    """

    changes: tuple[tuple[int, float, float], ...]
    found: bool
    logit: float
    distance: float
    robustness: float
    condition: str

    @property
    def n_changes(self) -> int:
        return len(self.changes)


def counterfactual(
    decide: Decide,
    x: np.ndarray,
    data: np.ndarray,
    *,
    condition: str = "nearest",
    towards: int | None = None,
    refits: Sequence[Decide] = (),
    fixed: np.ndarray | None = None,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
    prototypes: int = 20,
    confidence: float = 0.75,
) -> Counterfactual:
    """A small set of changes, each to a value of one real pair, that gives the other verdict.

    From pairs of `data` with the wanted verdict, those that suit the condition best become prototypes. On the way from
    `x` to a prototype each concept either stays or takes the prototype's value; the one that helps most is taken first,
    until the condition holds, and then each change that is not needed is taken back. The prototype that gives the
    fewest changes, and of these the shortest way, is used. No change can then be taken back alone; a smaller set of
    other changes may exist (`local.fewest_changes` finds the smallest for a linear model).

    Source: T-COL, arXiv:2309.16146. Reconstructed: the abstract and a summary were read, and of them conditions,
    prototypes and local greedy trees; the scores and the stopping rule are ours. What a refit is, and that a condition
    has to hold at the end and not only to guide, is ours too.

    Args:
        decide: the model, such as `model.decision_function` of one domain.
        x: (C,) of one pair. data: (N, C) of other pairs, to learn from what is possible.
        condition: a key of CONDITIONS.
        towards: the wanted verdict, 1 the first response and -1 the second; None: the one that `x` does not have. A
            pair that has it already, and satisfies the condition, is left as it is.
        refits: models of resampled pairs, for "robust" (`refits_of`).
        fixed: (C,) bool, concepts that cannot change.
        low, high: (C,) bounds of new values; None: the range of `data`.
        prototypes: tried at most.

    Raises:
        ConfigError: an unknown condition, or "robust" without refits. ShapeError: the arguments disagree.
    """
    if condition not in CONDITIONS:
        raise ConfigError(
            f"no condition {condition!r}{nearest(condition, CONDITIONS)}; there are {', '.join(CONDITIONS)}"
        )
    if condition == "robust" and not refits:
        raise ConfigError("the condition 'robust' needs models of resampled pairs; give refits=refits_of(model, ...)")
    if towards not in (None, 1, -1):
        raise ConfigError(f"towards is 1 (the first response), -1 (the second) or None, not {towards!r}")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence is a probability from 0.5 to 1, got {confidence}")
    x, data = np.nan_to_num(np.asarray(x, dtype=float)), np.nan_to_num(np.asarray(data, dtype=float))
    if x.ndim != 1 or data.ndim != 2 or data.shape[1] != len(x):
        raise ShapeError(f"x is one pair and data are pairs of the same concepts; they have {x.shape} and {data.shape}")
    if not len(data):
        raise ShapeError("data has no pair to take values from")
    free = np.ones(len(x), bool) if fixed is None else ~np.asarray(fixed, dtype=bool)
    low = data.min(axis=0) if low is None else np.asarray(low, dtype=float)
    high = data.max(axis=0) if high is None else np.asarray(high, dtype=float)
    for name, values in (("fixed", free), ("low", low), ("high", high)):
        if values.shape != x.shape:
            raise ShapeError(f"x has {len(x)} concepts, and {name} has the shape {values.shape}")
    if (low > high).any():
        raise ConfigError(f"low is above high for concept {int(np.argmax(low > high))}")
    sign = float(towards or (-1 if _one(decide, x) > 0 else 1))
    won = data[sign * decide(data) > 0]
    search = _Search(decide, sign, condition, refits, confidence, data, won)

    best: tuple[tuple[int, float], np.ndarray] | None = None
    if search.value(x[None])[0] > 0:
        best = (0, 0.0), x
    elif len(won):
        for prototype in search.prototypes(x, free, prototypes):
            end = search.walk(x, np.where(free, np.clip(prototype, low, high), x))
            if end is not None:
                rank = (int((end != x).sum()), search.distance(x, end))
                best = (rank, end) if best is None or rank < best[0] else best
    end = x if best is None else best[1]
    changes = tuple((int(j), float(x[j]), float(end[j])) for j in np.flatnonzero(end != x))
    votes = [float(sign * _one(each, end) > 0) for each in refits]
    robustness = float(np.mean(votes)) if votes else float("nan")
    distance = search.distance(x, end)
    return Counterfactual(changes, best is not None, _one(decide, end), distance, robustness, condition)


class _Search:
    """One model, one wanted verdict and one condition."""

    def __init__(
        self,
        decide: Decide,
        sign: float,
        condition: str,
        refits: Sequence[Decide],
        confidence: float,
        data: np.ndarray,
        won: np.ndarray,
    ) -> None:
        self.decide, self.sign, self.condition, self.refits = decide, sign, condition, refits
        self.goal = float(np.log(confidence / (1 - confidence)))
        self.won = won
        spread = data.std(axis=0)
        self.spread = np.where(spread > 0, spread, 1.0)
        self.centre = won.mean(axis=0) if len(won) else np.zeros(data.shape[1])
        self.radius = float(np.quantile(self._away(won), _TYPICAL)) if len(won) else 0.0

    def _away(self, x: np.ndarray) -> np.ndarray:
        return np.linalg.norm((x - self.centre) / self.spread, axis=1)

    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        return float((np.abs(a - b) / self.spread).sum())

    def value(self, x: np.ndarray) -> np.ndarray:
        """(N,) above 0 where the condition holds, and the greater below, the nearer to that."""
        margin = self.sign * np.asarray(self.decide(x), dtype=float)
        if self.condition == "confident":
            return np.where(margin >= self.goal, 1.0, np.minimum(margin - self.goal, -1e-300))
        if self.condition == "robust":
            votes = [self.sign * np.asarray(each(x), dtype=float) for each in self.refits]
            return np.min([margin, *votes], axis=0)
        if self.condition == "dense":
            missing = np.minimum(margin, 0.0) - np.maximum(self._away(x) - self.radius, 0.0)
            holds = (margin > 0) & (self._away(x) <= self.radius)
            return np.where(holds, 1.0, np.minimum(missing, -1e-300))
        return margin

    def prototypes(self, x: np.ndarray, free: np.ndarray, most: int) -> np.ndarray:
        """(K, C) pairs with the wanted verdict, the most suitable first."""
        changed = self.won[:, free] != x[free]
        way = (np.abs(self.won - x) / self.spread)[:, free].sum(axis=1)
        last = {
            "nearest": changed.sum(axis=1),
            "confident": -self.sign * np.asarray(self.decide(self.won), dtype=float),
            "dense": self._away(self.won),
            "robust": -self.value(self.won) if self.condition == "robust" else way,
        }[self.condition]
        return self.won[np.lexsort((way, last))[:most]]

    def walk(self, x: np.ndarray, aim: np.ndarray) -> np.ndarray | None:
        """`x` with some values of `aim`, so that the condition holds and would not with one of them less."""
        at = x.copy()
        left = np.flatnonzero(aim != x).tolist()
        while self.value(at[None])[0] <= 0:
            if not left:
                return None
            tried = np.repeat(at[None], len(left), axis=0)
            tried[np.arange(len(left)), left] = aim[left]
            value = self.value(tried)
            cost = (np.abs(aim - x) / self.spread)[left]
            chosen = left[int(np.lexsort((cost, -value))[0])]
            at[chosen] = aim[chosen]
            left.remove(chosen)
        while True:
            changed = np.flatnonzero(at != x)
            if not len(changed):
                return at
            tried = np.repeat(at[None], len(changed), axis=0)
            tried[np.arange(len(changed)), changed] = x[changed]
            value = self.value(tried)
            if not (value > 0).any():
                return at
            at = tried[int(np.argmax(value))]


def refits_of(
    model: HierarchicalPairRegressor,
    X: np.ndarray,
    y: Sequence[float],
    domains: Sequence[Hashable] | None = None,
    *,
    domain: Hashable | None = None,
    groups: Sequence[Hashable] | None = None,
    n: int = 10,
    seed: int = 0,
) -> list[Decide]:
    """`n` models with the parameters of `model`, each fitted to resampled prompts, as functions of one domain's pairs.

    Args:
        model: fitted to these rows. domain: whose weights decide; None: the shared ones, or those of the only domain.
        groups: (N,) prompts; None: every pair is a prompt of its own.
    """
    x, p = np.asarray(X, dtype=float), as_probabilities(y)
    names = np.zeros(len(p), dtype=int) if domains is None else np.asarray(domains)
    prompts = np.unique(np.arange(len(p)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    found: list[Decide] = []
    for _ in range(n):
        weight = np.zeros(len(p))
        for name in np.unique(names):  # within each domain, so that none is ever empty
            rows = names == name
            members = np.unique(prompts[rows])
            drawn = np.bincount(rng.choice(members, len(members)), minlength=prompts.max() + 1)
            weight[rows] = drawn[prompts[rows]]
        again = HierarchicalPairRegressor(**model.get_params()).fit(x, p, names, sample_weight=weight)
        one = len(again.domains_) == 1 and domain is None
        found.append(_linear(again.weights(again.domains_[0] if one else domain)))
    return found


def _linear(weights: np.ndarray) -> Decide:
    return lambda values: np.asarray(values) @ weights


def _one(decide: Decide, x: np.ndarray) -> float:
    return float(np.asarray(decide(x[None]))[0])
