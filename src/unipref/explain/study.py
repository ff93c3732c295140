"""What drives preferences over several domains: concepts chosen on some prompts, checked on others.

Prompts fall in three parts, by a hash and never by order. The n-grams of a domain are found on the first, weights are
fitted on the first two, and every number that is said to hold is taken from the third: accuracies, and intervals of an
unpenalised refit. Sign stability is of refits to resampled prompts of the first two.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.core.statistics import Interval, mean, mean_difference
from unipref.data import is_heldout
from unipref.explain.factors import associations
from unipref.data.pairs import Pairs
from unipref.explain.refit import refit
from unipref.explain.regression import HierarchicalPairRegressor
from unipref.explain.selection import Choice, choose_penalties, kept_signs, resampled_weights
from unipref.features.concepts import (
    Concept,
    PairValues,
    discriminative_ngrams,
    ngram_values,
    pair_differences,
    surface_values,
)

__all__ = ["Settings", "Study", "find_ngrams", "study"]

HELDOUT_SALT = "unipref-explain-heldout-1"
DISCOVERY_SALT = "unipref-explain-discovery-1"
STABLE = 0.9  # of resamples must agree on a sign before a concept is said to drive
ALIKE = 0.9  # concepts whose values correlate more are one group
FEW = 30  # decided pairs of a domain, fewer are said so and not modelled
RARE = 20  # held-out pairs that differ in a form, fewer say nothing of it
SIMPLEST = ("majority", "length_only")  # what a model must beat to be trusted
FORMAT = ("bullets", "numbered", "headings", "bold", "code", "tables", "links", "refusals")

_Intervals = tuple[np.ndarray, np.ndarray, list[str]]  # (C,) low and high, and why there is none


@dataclass(frozen=True)
class Settings:
    """How a study is made.

    Attributes:
        heldout_share: of the prompts, that every claim is checked on.
        discovery_share: of the other prompts, that n-grams are found on.
        n_grams: at most so many per domain; 0: none.
        n_folds: of the cross-validation that chooses penalties; by: "log_loss" or "accuracy".
        grid: (lambda_shared, lambda_specific); None: as `choose_penalties` makes it.
        resamples: refits for sign stability.
        seed: of folds and resamples.
    """

    heldout_share: float = 0.25
    discovery_share: float = 0.4
    n_grams: int = 20
    n_folds: int = 5
    by: str = "log_loss"
    grid: tuple[tuple[float, float], ...] | None = None
    resamples: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("heldout_share", "discovery_share"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")
        if self.n_grams < 0 or self.resamples < 1:
            raise ConfigError(
                f"n_grams is at least 0 and resamples at least 1, got {self.n_grams} and {self.resamples}"
            )


@dataclass(frozen=True, eq=False)
class Study:
    """One mechanism's model and what stands behind it.

    Attributes:
        pairs: those that were modelled. concepts: (C,) those that could have a weight, in the order of the columns.
        x: (N, C) in units of each concept's spread.
        heldout: (N,) bool.
        choice: the penalties that were tried and the model.
        resampled: (R, C) and (R, D, C), shared weights and each domain's, of refits to resampled prompts.
        told: what `explanation.json` says of this mechanism.
    """

    pairs: Pairs
    concepts: tuple[Concept, ...]
    x: np.ndarray
    heldout: np.ndarray
    choice: Choice
    resampled: tuple[np.ndarray, np.ndarray]
    told: dict[str, Any]

    @property
    def model(self) -> HierarchicalPairRegressor:
        return self.choice.model


def study(
    pairs: Pairs,
    tables: Sequence[PairValues] = (),
    *,
    settings: Settings = Settings(),
    ngrams: Mapping[str, Sequence[str]] | None = None,
) -> Study:
    """What drives the preferences of one mechanism.

    Args:
        pairs: of one mechanism, of one or more domains.
        tables: concept values of the same pairs besides the n-grams; none: the surface features.
        ngrams: n-gram -> domains where it was found, by `find_ngrams`, so that several mechanisms have the same; None:
            found here.

    Raises:
        DataError: too few pairs with a verdict, or pairs of several mechanisms.
    """
    if len(set(pairs.mechanism.tolist())) > 1:
        raise DataError(f"a study is of one mechanism, and these are of {sorted(set(pairs.mechanism.tolist()))}")
    notes: list[str] = []
    sizes = _sizes(pairs)
    small = [name for name, n in sizes.items() if n < FEW]
    if len(small) == len(sizes):
        raise DataError(
            f"no domain has {FEW} pairs with a verdict ({sizes}); give more pairs, or leave the domain out so that all "
            "are one"
        )
    if small:
        told = ", ".join(f"{name} ({sizes[name]})" for name in small)
        notes.append(f"domains with fewer than {FEW} decided pairs are left out: {told}.")
    kept = ~np.isin(pairs.domain, small)
    values = list(tables) or [surface_values(pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist())]
    pairs = pairs.take(kept)
    values = [table.take(kept) for table in values]

    heldout = _drawn(pairs.group, settings.heldout_share, HELDOUT_SALT)
    domains = sorted(set(pairs.domain.tolist()))
    for name in domains:
        for part, rows in (("training", ~heldout), ("held-out", heldout)):
            if not (rows & (pairs.domain == name) & (pairs.p != 0.5)).any():
                raise DataError(f"the domain {name!r} has no {part} pair with a verdict; give more prompts of it")
    values += _ngram_tables(pairs, domains, find_ngrams(pairs, settings) if ngrams is None else ngrams)
    concepts, x, spread, groups, dropped = _assembled(values, ~heldout)
    if dropped:
        notes.append(f"concepts with the same value in every training pair have no weight: {', '.join(dropped)}.")

    fitted = ~heldout
    shared, specific = _masks(concepts, domains)
    choice = choose_penalties(
        x[fitted],
        pairs.p[fitted],
        pairs.domain[fitted],
        groups=pairs.group[fitted],
        grid=settings.grid,
        n_folds=settings.n_folds,
        by=settings.by,
        seed=settings.seed,
        shared=shared,
        specific=specific,
    )
    model = choice.model
    accuracy = _accuracies(pairs, x, concepts, heldout, model, choice, settings)
    resampled = resampled_weights(
        model,
        x[fitted],
        pairs.p[fitted],
        pairs.domain[fitted],
        groups=pairs.group[fitted],
        resamples=settings.resamples,
        seed=settings.seed,
    )
    stable = kept_signs(model.shared_, resampled[0]), kept_signs(model.shared_ + model.specific_, resampled[1])
    trusted = _trusted(accuracy["differences"])
    trusted_in = {name: trusted and _trusted(each) for name, each in accuracy["differences_by_domain"].items()}
    marginal = associations(x[heldout], pairs.p[heldout], groups=pairs.group[heldout])
    told = {
        "mechanism": pairs.mechanism[0],
        "n": {
            "pairs": len(pairs),
            "ties": int((pairs.p == 0.5).sum()),
            "prompts": len(set(pairs.group.tolist())),
            "training": int(fitted.sum()),
            "heldout": int(heldout.sum()),
            "missing_values": int(np.isnan(x).sum()),
            "domains": {name: int((pairs.domain == name).sum()) for name in domains},
        },
        "model": {
            "lambda_shared": model.lambda_shared,
            "lambda_specific": model.lambda_specific,
            "alpha": 1 / len(domains) if model.alpha is None else model.alpha,
            "gap": model.gap_,
            "loss": "mean over each domain's rows",
            "path": choice.table,
            "chosen": choice.chosen,
        },
        "accuracy": accuracy,
        "trusted": trusted,
        "trusted_in": trusted_in,
        "shared": _told(
            concepts,
            model.shared_,
            stable[0],
            _intervals(pairs, x, model.shared_, heldout),
            trusted and _travels(accuracy, notes),
        ),
        "domains": {},
        "concepts": {
            concept.key: {
                **{name: value for name, value in asdict(concept).items() if name != "key"},
                "domains": list(concept.domains),
                "spread": float(spread[j]),
                "coverage": marginal[j].coverage,
                "alike": groups.get(concept.key, []),
                "alone": {
                    "share": marginal[j].share.as_list(),
                    "n": marginal[j].n,
                    "p_holm": marginal[j].p_holm,
                    "influence": marginal[j].influence,
                },
            }
            for j, concept in enumerate(concepts)
        },
        "bias": _bias(pairs, x, concepts, model, heldout),
        "settings": asdict(settings),
        "notes": notes,
    }
    for d, name in enumerate(domains):
        weight = model.weights(name)
        again = _intervals(pairs, x, weight, heldout & (pairs.domain == name))
        told["domains"][name] = _told(concepts, weight, stable[1][d], again, trusted_in[name], own=model.specific_[d])
    return Study(pairs, concepts, x, heldout, choice, resampled, told)


def _drawn(groups: np.ndarray, share: float, salt: str) -> np.ndarray:
    found = {group: is_heldout(group, share=share, salt=salt) for group in set(groups.tolist())}
    return np.array([found[group] for group in groups.tolist()], dtype=bool)


def _sizes(pairs: Pairs) -> dict[str, int]:
    """Pairs with a verdict, by domain."""
    decided = pairs.p != 0.5
    return {name: int((decided & (pairs.domain == name)).sum()) for name in sorted(set(pairs.domain.tolist()))}


def find_ngrams(pairs: Pairs, settings: Settings, *, most: int | None = None) -> dict[str, tuple[str, ...]]:
    """N-grams that tell winners from losers on the prompts of discovery, each with the domains where it does.

    Args:
        most: per domain; None: as `settings` say.
    """
    most = settings.n_grams if most is None else most
    found: dict[str, list[str]] = {}
    if most == 0:
        return {}
    known = ~_drawn(pairs.group, settings.heldout_share, HELDOUT_SALT)
    discovery = known & _drawn(pairs.group, settings.discovery_share, DISCOVERY_SALT)
    for name in [name for name, n in _sizes(pairs).items() if n >= FEW]:
        rows = discovery & (pairs.domain == name) & (pairs.p != 0.5)
        first_wins = pairs.p[rows] > 0.5
        winners = np.where(first_wins, pairs.first[rows], pairs.second[rows])
        losers = np.where(first_wins, pairs.second[rows], pairs.first[rows])
        for ngram, _ in discriminative_ngrams(winners.tolist(), losers.tolist(), most=most):
            found.setdefault(ngram, []).append(name)
    return {ngram: tuple(where) for ngram, where in found.items()}


def _ngram_tables(pairs: Pairs, domains: Sequence[str], found: Mapping[str, Sequence[str]]) -> list[PairValues]:
    """Values of the n-grams that were found in one of `domains`; one of two domains and half of all is shared."""
    places: dict[tuple[str, ...], list[str]] = {}
    for ngram, everywhere in found.items():
        where = tuple(name for name in domains if name in everywhere)
        if where:
            common = len(where) > 1 and 2 * len(where) >= len(domains)
            places.setdefault(() if common else where, []).append(ngram)
    allowed = {name: where for where, names in sorted(places.items()) for name in sorted(names)}
    if not allowed:
        return []
    return [ngram_values(list(allowed), pairs.first.tolist(), pairs.second.tolist(), domains=allowed)]


def _assembled(
    values: Sequence[PairValues], rows: np.ndarray
) -> tuple[tuple[Concept, ...], np.ndarray, np.ndarray, dict[str, list[str]], list[str]]:
    """One table: constant concepts left out, and of concepts that are nearly the same the first kept for all.

    Returns:
        The concepts, their (N, C) differences and (C,) spreads, by kept key the keys that it stands for, and the names
        of those left out.
    """
    concepts = [concept for table in values for concept in table.concepts]
    twice = [c.key for c in concepts if sum(other.key == c.key for other in concepts) > 1]
    if twice:
        raise DataError(f"two concepts have the key {twice[0]!r}; rename one of them")
    columns, spreads = zip(*(pair_differences(table, rows) for table in values), strict=True)
    x, spread = np.concatenate(columns, axis=1), np.concatenate(spreads)
    filled = np.nan_to_num(x[rows], nan=0.0)
    varies = (filled != 0).any(axis=0) & (spread > 0)
    # pairs are signed, so alikeness is of the values around 0
    length = np.linalg.norm(filled, axis=0)
    unit = np.divide(filled, length, out=np.zeros_like(filled), where=length > 0)
    alike = np.abs(unit.T @ unit) > ALIKE
    keep: list[int] = []
    groups: dict[str, list[str]] = {}
    for j in range(len(concepts)):
        if not varies[j]:
            continue
        before = next((k for k in keep if alike[j, k]), None)
        if before is None:
            keep.append(j)
        else:
            groups.setdefault(concepts[before].key, []).append(concepts[j].key)
    if not keep:
        raise DataError("every concept has the same value in every training pair; there is nothing to explain with")
    dropped = [concept.name for j, concept in enumerate(concepts) if not varies[j]]
    return tuple(concepts[j] for j in keep), x[:, keep], spread[keep], groups, dropped


def _masks(
    concepts: Sequence[Concept], domains: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray] | None]:  # fmt: skip
    shared = np.array([not concept.domains for concept in concepts])
    if len(domains) == 1:  # what only this domain could have is all there is
        return np.ones(len(concepts), bool), None
    own = {name: np.array([not c.domains or name in c.domains for c in concepts]) for name in domains}
    return shared, own


# ---- what is told ----


def _told(
    concepts: Sequence[Concept],
    weight: np.ndarray,
    stability: np.ndarray,
    again: _Intervals,
    trusted: bool,
    *,
    own: np.ndarray | None = None,
) -> dict[str, dict[str, Any]]:
    """Per concept with a weight, the largest first."""
    low, high, why = again
    found = {}
    for j in np.argsort(-np.abs(weight), kind="stable"):
        if weight[j] == 0:
            continue
        entry = {
            "weight": float(weight[j]),
            "lift": 50.0 * float(weight[j]),
            "low": _number(low[j]),
            "high": _number(high[j]),
            "stability": float(stability[j]),
            "drives": bool(trusted and stability[j] >= STABLE),
        }
        if own is not None:
            entry["specific"] = float(own[j])
        if why[j]:
            entry["no_interval"] = why[j]
        found[concepts[j].key] = entry
    return found


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _intervals(pairs: Pairs, x: np.ndarray, chosen: np.ndarray, rows: np.ndarray) -> _Intervals:
    """Of the weights `chosen` (C,) != 0, from a refit to `rows`, in which each domain counts the same.

    The refit holds at most a concept for every ten prompts, the largest first, and none that hardly ever differs there.
    """
    n = len(chosen)
    low, high, why = np.full(n, math.nan), np.full(n, math.nan), [""] * n
    even = pairs.weight.copy()
    for name in set(pairs.domain[rows].tolist()):
        mine = rows & (pairs.domain == name)
        even[mine] /= max(even[mine].sum(), 1e-300)
    differs = (np.nan_to_num(x[rows]) != 0).sum(axis=0)
    endless = _one_way(x[rows], pairs.p[rows])
    room = len(set(pairs.group[rows].tolist())) // 10
    inside: list[int] = []
    for j in np.argsort(-np.abs(chosen), kind="stable"):
        if chosen[j] == 0:
            continue
        if differs[j] < RARE:
            why[j] = f"only {differs[j]} held-out pairs differ in it"
        elif endless[j]:
            why[j] = "all held-out pairs that differ in it went the same way"
        elif len(inside) >= room:
            why[j] = "too few held-out prompts for so many concepts"
        else:
            inside.append(int(j))
    again = refit(x[rows][:, inside], pairs.p[rows], sample_weight=even[rows], groups=pairs.group[rows])
    low[inside], high[inside] = again.low, again.high
    for j in inside:
        why[j] = again.why_not
    return low, high, why


def _one_way(x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(C,) whether every pair that differs in the concept went the same way, so that a plain fit to it has no end."""
    more, less, first, second = x > 0, x < 0, (p > 0)[:, None], (p < 1)[:, None]
    up, down = (more & first) | (less & second), (more & second) | (less & first)
    return ~(up.any(axis=0) & down.any(axis=0))


def _accuracies(
    pairs: Pairs,
    x: np.ndarray,
    concepts: Sequence[Concept],
    heldout: np.ndarray,
    model: HierarchicalPairRegressor,
    choice: Choice,
    settings: Settings,
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
                "predicted": float(np.average(_sigmoid(np.abs(logits[rows])), weights=np.array(weights)[rows])),
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


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))


def _majority(pairs: Pairs, fitted: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The side that wins more often in training, domain by domain; 0 where neither does."""
    side = {
        name: np.sign((pairs.p[fitted & (pairs.domain == name)] - 0.5).sum()) for name in set(pairs.domain.tolist())
    }
    return np.array([side[name] for name in pairs.domain[test].tolist()]) * _ordered(pairs)[test]


def _length(pairs: Pairs) -> np.ndarray:
    """(N, 1) the difference of the lengths, where no concept is the length: the gate holds for any concepts."""
    a, b = (np.log1p([len(text) for text in texts.tolist()]) for texts in (pairs.first, pairs.second))
    return (a - b)[:, None]


def _ordered(pairs: Pairs) -> np.ndarray:
    """(N,) bool, whether the pair's domain has an order: where the winner always stands first, as in files of chosen
    and rejected, there is no position to learn from.
    """
    found = {}
    for name in set(pairs.domain.tolist()):
        p = pairs.p[pairs.domain == name]
        found[name] = bool((p > 0.5).any() and (p < 0.5).any())
    return np.array([found[name] for name in pairs.domain.tolist()], dtype=bool)


def _plain_fit(pairs: Pairs, columns: np.ndarray, fitted: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Logits of a fit on these few columns, each domain for itself, as good as without a penalty."""
    own = HierarchicalPairRegressor(lambda_shared=1e6, lambda_specific=1e-4, alpha=0.0)
    if len(set(pairs.domain.tolist())) == 1:
        own = HierarchicalPairRegressor(lambda_shared=1e-4, alpha=0.0)
    own.fit(columns[fitted], pairs.p[fitted], pairs.domain[fitted])
    return own.decision_function(columns[test], pairs.domain[test])


def _trusted(differences: Mapping[str, Sequence[float | None]]) -> bool:
    """Whether the model predicts held-out pairs better than the majority and than length alone, beyond chance."""
    lower = [differences[name][1] for name in SIMPLEST if name in differences]
    return all(low is not None and low > 0 for low in lower)


def _travels(accuracy: Mapping[str, Any], notes: list[str]) -> bool:
    """Whether shared weights predict pairs of domains that they were not fitted to, beyond chance."""
    if "left_out_domains" not in accuracy:
        return True
    value, low, high = accuracy["left_out_domains"]
    if low is not None and low > 0.5:
        return True
    shown = f"{100 * value:.1f} %" + ("" if low is None else f" ({100 * low:.1f} to {100 * high:.1f} %)")
    notes.append(
        f"no concept is said to drive in all domains: weights shared by the other domains are right on {shown} of a "
        "left-out domain's held-out pairs, which is not better than a coin."
    )
    return False


def _bias(
    pairs: Pairs, x: np.ndarray, concepts: Sequence[Concept], model: HierarchicalPairRegressor, heldout: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Weights of length, form and position on held-out pairs, alone and beside the content that the model has.

    Each [weight, low, high] in units of the concept's spread; position is the first response's advantage.
    """
    at = {concept.key: j for j, concept in enumerate(concepts)}
    form = [key for key in ("characters", "tokens") if key in at][:1] + [key for key in FORMAT if key in at]
    columns = [x[:, at[key]] for key in form]
    ordered = _ordered(pairs)
    if ordered.any():
        form, columns = ["position", *form], [ordered.astype(float), *columns]
    if not form:
        return {}
    own = np.stack(columns, axis=1)
    # as many as an interval has room for, and none that would take the other weights' intervals with it
    differs = (np.nan_to_num(x[heldout]) != 0).sum(axis=0)
    largest = np.argsort(-np.abs(model.shared_), kind="stable")
    usable = (model.shared_ != 0) & (differs >= RARE) & ~_one_way(x[heldout], pairs.p[heldout])
    content = [j for j in largest if usable[j] and concepts[j].key not in form]
    varies = (np.nan_to_num(own[heldout]) != 0).sum(axis=0) >= RARE
    names = [name for name, there in zip(form, varies, strict=True) if there]
    own = own[:, varies]
    content = content[: max(0, len(set(pairs.group[heldout].tolist())) // 10 - len(names))]
    alone = refit(own[heldout], pairs.p[heldout], sample_weight=pairs.weight[heldout], groups=pairs.group[heldout])
    beside = refit(
        np.concatenate([own, x[:, content]], axis=1)[heldout],
        pairs.p[heldout],
        sample_weight=pairs.weight[heldout],
        groups=pairs.group[heldout],
    )
    return {
        name: {
            "alone": [_number(alone.weight[i]), _number(alone.low[i]), _number(alone.high[i])],
            "beside_content": [_number(beside.weight[i]), _number(beside.low[i]), _number(beside.high[i])],
        }
        for i, name in enumerate(names)
    }
