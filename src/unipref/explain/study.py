"""What drives preferences over several domains: concepts chosen on some prompts, checked on others.

Prompts fall in three parts, by a hash and never by order. The n-grams of a domain are found on the first, weights are
fitted on the first two, and every number that is said to hold is taken from the third: accuracies, and intervals of an
unpenalised refit. Sign stability is of refits to resampled prompts of the first two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError
from unipref.data import is_heldout
from unipref.data.pairs import Pairs
from unipref.explain._accuracy import FEW, accuracies
from unipref.explain._bias import bias
from unipref.explain._intervals import ALIKE, Intervals, intervals, number
from unipref.explain._order import both_orders
from unipref.explain.factors import associations
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

__all__ = ["FEW", "Settings", "Study", "find_ngrams", "study"]

HELDOUT_SALT = "unipref-explain-heldout-1"
DISCOVERY_SALT = "unipref-explain-discovery-1"
STABLE = 0.9  # of resamples must agree on a sign before a concept is said to drive
SIMPLEST = ("majority", "length_only")  # what a model must beat to be trusted


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
    kept = _large_enough(pairs, notes)
    values = list(tables) or [surface_values(pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist())]
    pairs, values = pairs.take(kept), [table.take(kept) for table in values]
    heldout = _drawn(pairs.group, settings.heldout_share, HELDOUT_SALT)
    fitted = ~heldout
    domains = _with_verdicts(pairs, heldout)
    values += _ngram_tables(pairs, domains, find_ngrams(pairs, settings) if ngrams is None else ngrams)
    concepts, x, spread, groups = _assembled(values, fitted, notes)

    training = (x[fitted], pairs.p[fitted], pairs.domain[fitted])
    drawn = {"groups": pairs.group[fitted], "seed": settings.seed}
    shared, specific = _masks(concepts, domains)
    choice = choose_penalties(
        *training,
        **drawn,
        grid=settings.grid,
        n_folds=settings.n_folds,
        by=settings.by,
        shared=shared,
        specific=specific,
    )
    resampled = resampled_weights(choice.model, *training, **drawn, resamples=settings.resamples)
    accuracy = accuracies(pairs, x, concepts, heldout, choice.model)
    trusted = _trusted(accuracy["differences"])
    told = {
        "mechanism": pairs.mechanism[0],
        "n": _counts(pairs, x, heldout, domains),
        "order": both_orders(pairs),
        "model": _model_told(choice),
        "accuracy": accuracy,
        "trusted": trusted,
        "trusted_in": {name: trusted and _trusted(each) for name, each in accuracy["differences_by_domain"].items()},
        "concepts": _concepts_told(pairs, x, concepts, spread, groups, heldout),
        "bias": bias(pairs, x, concepts, choice.model, heldout, groups),
        "settings": asdict(settings),
        "notes": notes,
    }
    found = Study(pairs, concepts, x, heldout, choice, resampled, told)
    told |= _weights_told(found, trusted and _travels(accuracy, notes), notes)
    return found


def _large_enough(pairs: Pairs, notes: list[str]) -> np.ndarray:
    """(N,) bool, pairs of the domains that have enough with a verdict; the others are named in `notes`."""
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
    return ~np.isin(pairs.domain, small)


def _with_verdicts(pairs: Pairs, heldout: np.ndarray) -> list[str]:
    """The domains in order; each has verdicts to learn from and verdicts to check on."""
    domains = sorted(set(pairs.domain.tolist()))
    for name in domains:
        for part, rows in (("training", ~heldout), ("held-out", heldout)):
            if not (rows & (pairs.domain == name) & (pairs.p != 0.5)).any():
                raise DataError(f"the domain {name!r} has no {part} pair with a verdict; give more prompts of it")
    return domains


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
    values: Sequence[PairValues], rows: np.ndarray, notes: list[str]
) -> tuple[tuple[Concept, ...], np.ndarray, np.ndarray, dict[str, list[str]]]:
    """One table: constant concepts left out, and of concepts that are nearly the same the first kept for all.

    Returns:
        The concepts, their (N, C) differences and (C,) spreads, and by kept key the keys that it stands for.
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
    r = unit.T @ unit
    keep: list[int] = []
    groups: dict[int, list[int]] = {}
    for j in range(len(concepts)):
        if not varies[j]:
            continue
        before = next((k for k in keep if abs(r[j, k]) > ALIKE), None)
        if before is None:
            keep.append(j)
        else:
            groups.setdefault(before, []).append(j)
    if not keep:
        raise DataError("every concept has the same value in every training pair; there is nothing to explain with")
    if dropped := [concept.name for j, concept in enumerate(concepts) if not varies[j]]:
        notes.append(f"concepts with the same value in every training pair have no weight: {', '.join(dropped)}.")
    stands = [
        f"{concepts[k].name} for "
        + ", ".join(("" if r[k, j] > 0 else "the opposite of ") + concepts[j].name for j in js)
        for k, js in groups.items()
    ]
    if stands:
        notes.append(
            f"concepts whose values go together (|r| > {ALIKE}) have one weight, which is that of their sum. The first "
            f"stands for all: {'; '.join(stands)}."
        )
    alike = {concepts[k].key: [concepts[j].key for j in js] for k, js in groups.items()}
    return tuple(concepts[j] for j in keep), x[:, keep], spread[keep], alike


def _masks(
    concepts: Sequence[Concept], domains: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray] | None]:  # fmt: skip
    shared = np.array([not concept.domains for concept in concepts])
    if len(domains) == 1:  # what only this domain could have is all there is
        return np.ones(len(concepts), bool), None
    own = {name: np.array([not c.domains or name in c.domains for c in concepts]) for name in domains}
    return shared, own


# ---- what is told ----


def _counts(pairs: Pairs, x: np.ndarray, heldout: np.ndarray, domains: Sequence[str]) -> dict[str, Any]:
    return {
        "pairs": len(pairs),
        "ties": int((pairs.p == 0.5).sum()),
        "prompts": len(set(pairs.group.tolist())),
        "training": int((~heldout).sum()),
        "heldout": int(heldout.sum()),
        "missing_values": int(np.isnan(x).sum()),
        "domains": {name: int((pairs.domain == name).sum()) for name in domains},
    }


def _model_told(choice: Choice) -> dict[str, Any]:
    model = choice.model
    return {
        "lambda_shared": model.lambda_shared,
        "lambda_specific": model.lambda_specific,
        "alpha": 1 / len(model.domains_) if model.alpha is None else model.alpha,
        "gap": model.gap_,
        "loss": "mean over each domain's rows",
        "path": choice.table,
        "chosen": choice.chosen,
    }


def _concepts_told(
    pairs: Pairs,
    x: np.ndarray,
    concepts: Sequence[Concept],
    spread: np.ndarray,
    groups: Mapping[str, Sequence[str]],
    heldout: np.ndarray,
) -> dict[str, dict[str, Any]]:
    """What each concept is, and how it goes with being preferred by itself."""
    marginal = associations(x[heldout], pairs.p[heldout], groups=pairs.group[heldout])
    return {
        concept.key: {
            **{name: value for name, value in asdict(concept).items() if name != "key"},
            "domains": list(concept.domains),
            "spread": float(spread[j]),
            "coverage": marginal[j].coverage,
            "alike": list(groups.get(concept.key, [])),
            "alone": {
                "share": marginal[j].share.as_list(),
                "n": marginal[j].n,
                "p_holm": marginal[j].p_holm,
                "influence": marginal[j].influence,
            },
        }
        for j, concept in enumerate(concepts)
    }


def _weights_told(found: Study, everywhere: bool, notes: list[str]) -> dict[str, Any]:
    """{"shared", "domains"}: every weight with its interval. `everywhere`: whether shared weights may drive."""
    model, pairs, concepts = found.model, found.pairs, found.concepts
    several = len(model.domains_) > 1
    again = intervals(pairs, found.x, concepts, model.shared_, found.heldout)
    notes += _undivided(concepts, again, "in all domains: " if several else "")
    stability = kept_signs(model.shared_, found.resampled[0])
    stable_here = kept_signs(model.shared_ + model.specific_, found.resampled[1])
    told: dict[str, Any] = {"shared": _told(concepts, model.shared_, stability, again, everywhere), "domains": {}}
    for d, name in enumerate(model.domains_):
        weight, rows = model.weights(name), found.heldout & (pairs.domain == name)
        again = intervals(pairs, found.x, concepts, weight, rows)
        notes += _undivided(concepts, again, f"in {name}: ") if several else []
        told["domains"][name] = _told(
            concepts, weight, stable_here[d], again, found.told["trusted_in"][name], own=model.specific_[d]
        )
    return told


def _undivided(concepts: Sequence[Concept], again: Intervals, where: str) -> list[str]:
    """A note for each concept that is nearly a mixture of others, and for each group of which only the sum is known."""
    names = {concept.key: concept.name for concept in concepts}
    found, told = [f"{where}{concepts[j].name} is {said}." for j, said in again.caution.items()], set()
    for j, of_sum in again.together.items():
        group = frozenset([concepts[j].key, *(key for key, _ in of_sum["with"])])
        if group in told:
            continue
        told.add(group)
        others = " and ".join(("" if sign > 0 else "less ") + names[key] for key, sign in of_sum["with"])
        low, high = of_sum["low"], of_sum["high"]
        interval = "which has no interval either" if low is None else f"{low:+.2f} to {high:+.2f}"
        found.append(
            f"{where}{concepts[j].name} goes together with {others} on held-out pairs (|r| up to {of_sum['r']:.2f}, "
            f"above {ALIKE}), so that none of them has an interval of its own; the sum of their weights is "
            f"{of_sum['weight']:+.2f}, {interval}."
        )
    return found


def _told(
    concepts: Sequence[Concept],
    weight: np.ndarray,
    stability: np.ndarray,
    again: Intervals,
    trusted: bool,
    *,
    own: np.ndarray | None = None,
) -> dict[str, dict[str, Any]]:
    """Per concept with a weight, the largest first."""
    found = {}
    for j in np.argsort(-np.abs(weight), kind="stable"):
        if weight[j] == 0:
            continue
        entry = {
            "weight": float(weight[j]),
            "lift": 50.0 * float(weight[j]),
            "low": number(again.low[j]),
            "high": number(again.high[j]),
            "stability": float(stability[j]),
            "drives": bool(trusted and stability[j] >= STABLE),
        }
        if own is not None:
            entry["specific"] = float(own[j])
        if again.why[j]:
            entry["no_interval"] = again.why[j]
        if int(j) in again.caution:
            entry["caution"] = again.caution[int(j)]
        if int(j) in again.together:
            entry["together"] = again.together[int(j)]
        found[concepts[j].key] = entry
    return found


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
