"""What a model makes of somebody's first choices: accuracy after 1, 2, 4, ... of them, beside baselines."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.core.statistics import Interval, agreements, mean, mean_difference
from unipref.rewards.models import PreferenceModel, descent, make_model
from unipref.rewards.models.descent import Problem
from unipref.rewards.table import PreferenceTable

__all__ = ["ALONE", "POOLED", "AdaptationCurve", "adaptation_curve"]

POOLED = "bt on everybody"
ALONE = "bt on the newcomer alone"


@dataclass(frozen=True)
class Point:
    """A model after `choices` of each newcomer; 0 is its answer to somebody unknown.

    Attributes:
        accuracy: mean over newcomers of each one's accuracy, with an interval over newcomers.
        over_pooled: the same minus that of Bradley-Terry's model of everybody, newcomer by newcomer.
    """

    model: str
    choices: int
    accuracy: Interval
    over_pooled: Interval


@dataclass(frozen=True)
class AdaptationCurve:
    """Points of all models, and whom they are about.

    Attributes:
        users: newcomers. left_out: those with too few choices to learn from the most and be judged by at least one.
        judged: comparisons that the newcomers are judged by, on average over draws.
        draws: times that the choices to learn from were drawn.
    """

    points: tuple[Point, ...]
    users: int
    left_out: tuple[str, ...]
    judged: float
    draws: int

    def at(self, model: str, choices: int) -> Point:
        """The point of a model.

        Raises:
            ConfigError: there is none.
        """
        for point in self.points:
            if (point.model, point.choices) == (model, choices):
                return point
        raise ConfigError(f"no point of {model!r} after {choices} choices")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: intervals as [value, low, high]."""
        return {
            "users": self.users,
            "left_out": list(self.left_out),
            "judged": self.judged,
            "draws": self.draws,
            "points": [
                {
                    "model": point.model,
                    "choices": point.choices,
                    "accuracy": point.accuracy.as_list(),
                    "over_pooled": point.over_pooled.as_list(),
                }
                for point in self.points
            ],
        }


def adaptation_curve(
    models: Mapping[str, PreferenceModel],
    seen: PreferenceTable,
    newcomers: PreferenceTable,
    *,
    counts: Sequence[int] = (1, 2, 4, 8, 16),
    seeds: Sequence[int] = (0, 1, 2),
    ridge: float = 0.1,
) -> AdaptationCurve:
    """Accuracy on newcomers' further choices after some of them, against two models that adapt to nobody and alone.

    Of every newcomer the same choices are learned from and the same ones judged by, whatever the model; those of 2
    choices hold those of 1. No conversation is on both sides, and what is judged is the same after each count.

    Args:
        models: fitted to `seen` already, or not yet: then they are. One without an adaptation has its answer to
            somebody unknown alone.
        seeds: one draw of each newcomer's choices per seed; accuracies are means over draws.
        ridge: of the newcomers' own models. Their features are scaled as `seen` says.

    Raises:
        DataError: a newcomer is in `seen`, or no newcomer has enough choices.
    """
    counts = tuple(sorted(set(counts)))
    if not counts or counts[0] < 1 or not seeds:
        raise ConfigError(f"counts={counts}: choices to learn from are at least 1, and seeds at least one")
    if {POOLED, ALONE} & set(models):
        raise ConfigError(f"{POOLED!r} and {ALONE!r} are names of the baselines; call a model otherwise")
    both = sorted(set(seen.users) & set(newcomers.users))
    if both:
        raise DataError(f"{len(both)} newcomers are in the comparisons that models are trained on: {both[:3]}")
    pooled = make_model("bt").fit(seen)
    fitted = {name: model if hasattr(model, "net_") else model.fit(seen) for name, model in models.items()}
    draws = [_draw(newcomers, counts[-1], seed) for seed in seeds]
    users = tuple(draws[0])
    if not users:
        raise DataError(f"no newcomer has {counts[-1]} choices and one more in another conversation; take lower counts")
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for drawn in draws:
        judged = newcomers.take(np.concatenate([outside for _, outside in drawn.values()]))
        found.setdefault((POOLED, 0), []).append(_by_user(pooled, judged, users))
        for name, model in fitted.items():
            found.setdefault((name, 0), []).append(_by_user(model, judged, users))
        for n in counts:
            known = newcomers.take(np.concatenate([inside[:n] for inside, _ in drawn.values()]))
            for name, model in fitted.items():
                if model.adaptation is not None:
                    found.setdefault((name, n), []).append(_by_user(model.adapt(known), judged, users))
            own = [_alone(pooled, newcomers.take(inside[:n]), ridge) for inside, _ in drawn.values()]
            parts = zip(own, drawn.items(), strict=True)
            right = [_by_user(model, newcomers.take(outside), (user,))[0] for model, (user, (_, outside)) in parts]
            found.setdefault((ALONE, n), []).append(np.array(right))
    baseline = np.mean(found[POOLED, 0], axis=0)
    points = []
    order = [POOLED, ALONE, *fitted]
    for name, n in sorted(found, key=lambda key: (order.index(key[0]), key[1])):
        each = np.mean(found[name, n], axis=0)
        over = mean_difference(each, baseline, clusters=(users, users), bounds=(-1, 1))
        points.append(Point(name, n, mean(each, clusters=users, bounds=(0, 1)), over))
    left_out = tuple(sorted(set(newcomers.users) - set(users)))
    size = float(np.mean([sum(len(outside) for _, outside in drawn.values()) for drawn in draws]))
    return AdaptationCurve(tuple(points), len(users), left_out, size, len(draws))


def _draw(table: PreferenceTable, most: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """User -> (rows to learn from, in their order; rows to be judged by); ties are neither."""
    rng = np.random.default_rng(seed)
    counts = (table.p != 0.5) & (table.weight > 0)
    found = {}
    for user in table.users:
        own = np.flatnonzero((table.user == user) & counts)
        _, conversation = np.unique(table.group[own], return_inverse=True)
        place = rng.permutation(conversation.max(initial=-1) + 1)
        own = own[np.lexsort((rng.random(len(own)), place[conversation]))]
        inside = own[:most]
        outside = own[most:][~np.isin(table.group[own[most:]], table.group[inside])]
        if len(inside) == most and len(outside):
            found[user] = (inside, outside)
    return found


def _by_user(model: PreferenceModel, table: PreferenceTable, users: tuple[str, ...]) -> np.ndarray:
    """(users,) accuracy of each, an even verdict half right."""
    right = agreements(model.decision_function(table), table.p - 0.5)
    number = {name: k for k, name in enumerate(users)}
    who = np.array([number[name] for name in table.user])
    return np.bincount(who, table.weight * right, len(users)) / np.bincount(who, table.weight, len(users))


def _alone(pooled: PreferenceModel, table: PreferenceTable, ridge: float) -> PreferenceModel:
    """Bradley-Terry's model of these comparisons, with the pooled model's scaling: a few choices have no spread."""
    own = copy(pooled)
    problem = Problem(lambda seed: pooled._net(seed), pooled.objective, convex=True)
    own.net_, own.told_ = descent(ridge=ridge).fit(problem, pooled._data(table))
    own.net_.requires_grad_(False)
    return own
