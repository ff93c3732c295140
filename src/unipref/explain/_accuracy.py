"""Held-out accuracy of a model of preferences, beside that of simpler ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unipref.core.statistics import Interval, mean, mean_difference, sigmoid
from unipref.data.pairs import Pairs
from unipref.explain._order import ordered
from unipref.explain.regression import HierarchicalPairRegressor
from unipref.features.concepts import Concept

__all__ = ["FEW", "accuracies"]

FEW = 30  # decided pairs, fewer are not modelled as a domain, nor told as a part


def accuracies(
    pairs: Pairs,
    x: np.ndarray,
    concepts: Sequence[Concept],
    heldout: np.ndarray,
    model: HierarchicalPairRegressor,
) -> dict[str, Any]:
    """Held-out accuracy of the model and of simpler ones, each [value, low, high], over conversations.

    A predicted tie is half right. Each domain's share of the rows is what it is in the data.
    """
    test = heldout & (pairs.p != 0.5)
    truth, groups = pairs.p[test] > 0.5, pairs.group[test].tolist()
    weights = pairs.weight[test].tolist()

    def right(logits: np.ndarray) -> list[float]:
        return (1.0 - np.abs(0.5 * (1 + np.sign(logits)) - truth)).tolist()

    everywhere = np.ones(len(truth), dtype=bool)

    def at(values: Sequence[Any], rows: np.ndarray) -> list[Any]:
        return [values[i] for i in np.flatnonzero(rows)]

    def interval(correct: list[float], rows: np.ndarray = everywhere) -> Interval:
        return mean(at(correct, rows), weights=at(weights, rows), clusters=at(groups, rows), bounds=(0.0, 1.0))

    def gain(correct: list[float], rows: np.ndarray = everywhere) -> Interval:
        pair, same = (at(weights, rows),) * 2, (at(groups, rows),) * 2
        return mean_difference(at(ours, rows), at(correct, rows), weights=pair, clusters=same, bounds=(-1.0, 1.0))

    logits = model.decision_function(x[test], pairs.domain[test])
    ours = right(logits)
    penalties = {"lambda_shared": model.lambda_shared, "lambda_specific": model.lambda_specific}
    baselines: dict[str, list[float]] = {"majority": right(_majority(pairs, ~heldout, test))}
    lengths = [j for j, concept in enumerate(concepts) if concept.key in ("characters", "tokens")][:1]
    column = x[:, lengths] if lengths else _length(pairs)
    if column.any():
        baselines["length_only"] = right(_plain_fit(pairs, column, ~heldout, test))
    several = len(model.domains_) > 1
    if several:
        settings_of = {"shared": model.shared, "specific": model.specific}
        variants: dict[str, dict[str, Any]] = {
            "shared_only": {**settings_of, "lambda_specific": 1e6},
            "specific_only": {**settings_of, "lambda_shared": 1e6, "alpha": 0.0},
            "dirty": {**settings_of, "alpha": 0.0},
        }
        for name, change in variants.items():
            other = HierarchicalPairRegressor(**{**penalties, **change})
            other.fit(x[~heldout], pairs.p[~heldout], pairs.domain[~heldout])
            baselines[name] = right(other.decision_function(x[test], pairs.domain[test]))
    of_domain = {name: pairs.domain[test] == name for name in sorted(set(pairs.domain.tolist()))}
    found: dict[str, Any] = {
        "heldout": interval(ours).as_list(),
        "baselines": {name: interval(correct).as_list() for name, correct in baselines.items()},
        "differences": {name: gain(correct).as_list() for name, correct in baselines.items()},
        "by_domain": {name: interval(ours, rows).as_list() for name, rows in of_domain.items()},
        "calibration": [
            {
                "predicted": float(np.average(sigmoid(np.abs(logits[rows])), weights=np.array(weights)[rows])),
                "right": interval(ours, rows).as_list(),
                "n": int(rows.sum()),
            }
            for rows in _by_confidence(logits)
        ],
        "baselines_by_domain": {
            name: {key: interval(correct, rows).as_list() for key, correct in baselines.items()}
            for name, rows in of_domain.items()
        },
        "differences_by_domain": {
            name: {key: gain(correct, rows).as_list() for key, correct in baselines.items()}
            for name, rows in of_domain.items()
        },
        "leave_one_domain_out": {},
    }
    elsewhere = np.zeros(len(truth))
    for name, there in of_domain.items() if several else ():
        inside = pairs.domain != name
        other = HierarchicalPairRegressor(**penalties, shared=model.shared).fit(
            x[inside & ~heldout], pairs.p[inside & ~heldout], pairs.domain[inside & ~heldout]
        )
        elsewhere[there] = other.decision_function(x[test][there], pairs.domain[test][there])
        found["leave_one_domain_out"][name] = interval(right(elsewhere), there).as_list()
    if several:
        found["left_out_domains"] = interval(right(elsewhere)).as_list()
    return found


def _by_confidence(logits: np.ndarray) -> list[np.ndarray]:
    """(N,) masks of up to four parts of one size, the least sure first; none has fewer than FEW pairs."""
    parts = np.array_split(np.argsort(np.abs(logits), kind="stable"), max(1, min(4, len(logits) // FEW)))
    return [np.isin(np.arange(len(logits)), part) for part in parts]


def _majority(pairs: Pairs, fitted: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The side that wins more often in training, domain by domain; 0 where neither does."""
    side = {
        name: np.sign((pairs.p[fitted & (pairs.domain == name)] - 0.5).sum()) for name in set(pairs.domain.tolist())
    }
    return np.array([side[name] for name in pairs.domain[test].tolist()]) * ordered(pairs)[test]


def _length(pairs: Pairs) -> np.ndarray:
    """(N, 1) the difference of the lengths, where no concept is the length: the gate holds for any concepts."""
    a, b = (np.log1p([len(text) for text in texts.tolist()]) for texts in (pairs.first, pairs.second))
    return (a - b)[:, None]


def _plain_fit(pairs: Pairs, columns: np.ndarray, fitted: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Logits of a fit on these few columns, each domain for itself, as good as without a penalty."""
    own = HierarchicalPairRegressor(lambda_shared=1e6, lambda_specific=1e-4, alpha=0.0)
    if len(set(pairs.domain.tolist())) == 1:
        own = HierarchicalPairRegressor(lambda_shared=1e-4, alpha=0.0)
    own.fit(columns[fitted], pairs.p[fitted], pairs.domain[fitted])
    return own.decision_function(columns[test], pairs.domain[test])
