"""Several mechanisms explained side by side: what `explanation.json` says of all of them together."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.statistics import mean
from unipref.data.pairs import UNNAMED, Pairs, shared_rows
from unipref.explain.applications import guidance, tie_break
from unipref.explain.local import fewest_changes
from unipref.explain.selection import kept_signs
from unipref.explain.study import FEW, Settings, Study, find_ngrams, study
from unipref.features.concepts import PairValues, surface_values

__all__ = ["PEOPLE", "Evidence", "Explanation", "explain", "main_mechanism"]

PEOPLE = ("people", UNNAMED)  # names of mechanisms that stand first where no other is asked for
FEWEST_NGRAMS = 5  # per domain and mechanism, where several mechanisms share the room
OVERLOOKED = 10  # concepts told in each direction
ONE_SIDED = 0.6  # share of wins of one side that is told of
MOST_WRONG = 0.1  # of the pairs shown, so many are the held-out ones that the model is most wrong about
SHOW_SALT = "unipref-explain-shown-1"
LIMITS = (
    "Weights say what goes with being preferred in these data. They do not say what causes it: changing a response in "
    "a concept alone need not change a verdict.",
    "A concept that is not in the list can be behind one that is. What all concepts leave unexplained is the distance "
    "of the held-out accuracy from 100 %, part of which is that judges do not agree with themselves.",
    "Intervals hold for one concept at a time; they are not adjusted for the number of concepts.",
)


Evidence = Mapping[tuple[str, str, str], str]  # (mechanism, place, id) of a pair -> what was said to the verdict


@dataclass(frozen=True, eq=False)
class Explanation:
    """All mechanisms.

    Attributes:
        studies: by mechanism, the main one first.
        told: what `explanation.json` holds, without what only a caller knows (name, data, command).
    """

    studies: dict[str, Study]
    told: dict[str, Any]


def explain(
    pairs: Pairs,
    tables: Sequence[PairValues] = (),
    *,
    settings: Settings | None = None,
    main: str | None = None,
    show: int = 200,
    evidence: Evidence | None = None,
    tell: Callable[[str], None] | None = None,
) -> Explanation:
    """Explain every mechanism of `pairs` by the same concepts, and compare them.

    Args:
        pairs: of one or more mechanisms, told apart by `pairs.mechanism`.
        tables: concept values of these pairs besides the n-grams; none: the surface features.
        main: the mechanism whose numbers stand at the top; None: people where there are any, or else the one with the
            most pairs.
        show: about so many held-out pairs with all they need to be read one by one.
        evidence: what judges said to their verdicts, to be read beside these pairs.
        tell: is told what is being worked on.

    Raises:
        DataError: no mechanism has enough pairs. ConfigError: there is no mechanism `main`.
    """
    settings = settings or Settings()
    tell = tell or (lambda _: None)
    names = sorted(set(pairs.mechanism.tolist()))
    if main is not None and main not in names:
        raise ConfigError(f"no mechanism is called {main!r}{nearest(main, names)}")
    rows = {name: pairs.mechanism == name for name in names}
    notes = []
    few = [name for name in names if not _enough(pairs.take(rows[name]))]
    if few and len(few) < len(names) and main not in few:
        told = ", ".join(f"{name} ({int(rows[name].sum())})" for name in few)
        notes.append(f"mechanisms without a domain of {FEW} decided pairs are left out: {told}.")
        names = [name for name in names if name not in few]
    main = main or main_mechanism(pairs.take(np.isin(pairs.mechanism, names)))
    names.sort(key=lambda name: (name != main, name))
    if not tables:
        tell(f"counting in the responses of {len(pairs):,} pairs")
        tables = [surface_values(pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist())]
    most = settings.n_grams and max(FEWEST_NGRAMS, -(-settings.n_grams // len(names)))
    ngrams: dict[str, tuple[str, ...]] = {}
    for name in names:
        tell(f"{name}: words that tell winners from losers")
        for ngram, where in find_ngrams(pairs.take(rows[name]), settings, most=most).items():
            ngrams[ngram] = tuple(sorted({*ngrams.get(ngram, ()), *where}))
    studies: dict[str, Study] = {}
    for name in names:
        tell(f"{name}: modelling {int(rows[name].sum()):,} pairs")
        own = [table.take(rows[name]) for table in tables]
        try:
            studies[name] = study(pairs.take(rows[name]), own, settings=settings, ngrams=ngrams)
        except DataError as err:
            if len(names) == 1:
                raise
            raise DataError(f"the mechanism {name!r}: {err}") from err
    shown, total = [], 0
    for found in studies.values():
        shown += _shown(found, max(1, show // len(studies)), evidence or {})
        total += int(found.heldout.sum())
    tell("comparing")
    told = {
        "main": main,
        **{key: studies[main].told[key] for key in ("shared", "domains", "accuracy", "bias", "trusted")},
        "concepts": _glossary(studies),
        "mechanisms": {name: found.told for name, found in studies.items()},
        "between": [_between(a, b, studies[a], studies[b]) for a, b in combinations(names, 2)],
        "pairs": shown,
        "pairs_shown": {"shown": len(shown), "heldout": total},
        "applications": {"guidance": guidance(studies), "tie_break": tie_break(studies, main)},
        "limits": [*LIMITS, *_own_limits(studies)],
        "settings": studies[main].told["settings"],
        "notes": [*notes, *(_prefixed(name, note, studies) for name in names for note in studies[name].told["notes"])],
    }
    return Explanation(studies, told)


def _enough(pairs: Pairs) -> bool:
    decided = pairs.p != 0.5
    return any(int((decided & (pairs.domain == name)).sum()) >= FEW for name in set(pairs.domain.tolist()))


def main_mechanism(pairs: Pairs) -> str:
    """People where there are any, or else the mechanism with the most pairs."""
    names = sorted(set(pairs.mechanism.tolist()))
    people = [name for name in PEOPLE if name in names]
    return people[0] if people else max(names, key=lambda name: int((pairs.mechanism == name).sum()))


def _prefixed(name: str, note: str, studies: Mapping[str, Study]) -> str:
    return f"{name}: {note}" if len(studies) > 1 else note


def _own_limits(studies: Mapping[str, Study]) -> list[str]:
    found = []
    not_trusted = [name for name, one in studies.items() if not one.told["trusted"]]
    if not_trusted:
        found.append(
            f"Of {', '.join(not_trusted)} the model does not predict held-out verdicts better than the baselines do, "
            "beyond chance: its weights describe the training pairs, and none of them is said to drive anything."
        )
    for name, one in studies.items():
        value = one.told["accuracy"]["baselines"]["majority"][0]
        if value is not None and value >= ONE_SIDED:
            found.append(
                f"{name}: one side wins {100 * value:.0f} % of the held-out pairs. If the same system wrote that side "
                "of every pair, this baseline knows who wrote a response, which no concept may know."
            )
    alone = [name for name, one in studies.items() if len(one.model.domains_) == 1]
    if alone:
        found.append(f"{', '.join(alone)}: one domain, so nothing is known of what would hold elsewhere.")
    return found


def _glossary(studies: Mapping[str, Study]) -> dict[str, dict[str, Any]]:
    """Every concept of any mechanism, as the first that has it tells it; the main one stands first."""
    found: dict[str, dict[str, Any]] = {}
    for one in studies.values():
        for key, concept in one.told["concepts"].items():
            found.setdefault(key, concept)
    return found


# ---- two mechanisms ----


def _between(name_a: str, name_b: str, a: Study, b: Study) -> dict[str, Any]:
    """How alike two mechanisms weigh concepts, what each overlooks of the other's, and how often they agree."""
    known = {concept.key: j for j, concept in enumerate(b.concepts)}
    keys = [concept.key for concept in a.concepts if concept.key in known]
    at_a = np.array([j for j, concept in enumerate(a.concepts) if concept.key in known], dtype=int)
    at_b = np.array([known[key] for key in keys], dtype=int)
    common = [name for name in a.model.domains_ if name in set(b.model.domains_)]
    weights = [
        {name: one.model.weights(name)[at] for name in common} if common else {"": one.model.shared_[at]}
        for one, at in ((a, at_a), (b, at_b))
    ]
    by_domain = {name: _pearson(weights[0][name], weights[1][name]) for name in weights[0]}
    measured = [r for r in by_domain.values() if r is not None]
    means, drawn = [], []
    for one, at, own in ((a, at_a, weights[0]), (b, at_b, weights[1])):
        means.append(np.mean(list(own.values()), axis=0))
        places = [list(one.model.domains_).index(name) for name in common]
        again = one.resampled[1][:, places].mean(axis=1) if common else one.resampled[0]
        drawn.append(again[:, at])
    difference = means[0] - means[1]
    stability = kept_signs(difference, drawn[0] - drawn[1])
    order = np.argsort(-difference, kind="stable")
    told = [j for j in order[:OVERLOOKED] if difference[j] > 0]
    told += [j for j in order[-OVERLOOKED:] if difference[j] < 0]
    rows_a, rows_b, swapped = shared_rows(a.pairs, b.pairs)
    p_a, p_b = a.pairs.p[rows_a], b.pairs.p[rows_b]
    p_b = np.where(swapped, 1 - p_b, p_b)
    decided = (p_a != 0.5) & (p_b != 0.5)
    agreement = mean(
        ((p_a > 0.5) == (p_b > 0.5))[decided].astype(float),
        clusters=a.pairs.group[rows_a][decided].tolist(),
        bounds=(0.0, 1.0),
    )
    found = {
        "a": name_a,
        "b": name_b,
        "of": "domains" if common else "shared weights",
        "n_concepts": len(keys),
        "similarity": float(np.mean(measured)) if measured else None,
        "by_domain": by_domain if common else {},
        "same_pairs": int(decided.sum()),
        "agreement": agreement.as_list() if decided.any() else None,
        "overlooked": [
            {
                "concept": keys[j],
                "a": float(means[0][j]),
                "b": float(means[1][j]),
                "difference": float(difference[j]),
                "stability": float(stability[j]),
            }
            for j in told
        ],
    }
    if not measured:
        found["why_not"] = "one of the two has no weight, or fewer than three concepts are common to both"
    return found


def _pearson(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


# ---- single pairs ----


def _shown(found: Study, most: int, evidence: Evidence) -> list[dict[str, Any]]:
    """Held-out pairs to be read one by one: some by a hash of their ids, and those the model is most wrong about."""
    heldout = np.flatnonzero(found.heldout)
    pairs = found.pairs
    logits = found.model.decision_function(found.x[heldout], pairs.domain[heldout])
    wrong = np.where(pairs.p[heldout] == 0.5, 0.0, -np.sign(pairs.p[heldout] - 0.5) * logits)
    worst = [i for i in np.argsort(-wrong, kind="stable")[: max(1, round(MOST_WRONG * most))] if wrong[i] > 0]
    order = sorted(range(len(heldout)), key=lambda i: _draw(pairs.ids[heldout[i]], pairs.domain[heldout[i]]))
    chosen = worst + [i for i in order if i not in set(worst)][: max(0, most - len(worst))]
    reach = {name: _reach(found, name) for name in found.model.domains_}
    return [
        _one(found, int(heldout[i]), float(logits[i]), *reach[pairs.domain[heldout[i]]])
        | {"evidence": evidence.get(_key(pairs, heldout[i]), ""), "wrong": n < len(worst)}
        for n, i in enumerate(chosen)
    ]


def _key(pairs: Pairs, row: int) -> tuple[str, str, str]:
    return pairs.mechanism[row], pairs.place[row], pairs.ids[row]


def _draw(id_: str, domain: str) -> str:
    return hashlib.sha256(f"{SHOW_SALT}\x00{domain}\x00{id_}".encode()).hexdigest()


def _reach(found: Study, domain: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(C,) how far each concept goes in the domain's training pairs, in either direction, and whether it takes whole
    steps.

    Of values that come in whole steps the largest difference, of others one that is passed once in a hundred pairs: an
    advertisement is not told that a numbered list would have won, where none has one.
    """
    seen = np.nan_to_num(found.x[~found.heldout & (found.pairs.domain == domain)])
    whole = (seen == np.round(seen)).all(axis=0)
    far = np.where(whole, np.abs(seen).max(axis=0), np.quantile(np.abs(seen), 0.99, axis=0))
    return -far, far, whole


def _one(found: Study, row: int, logit: float, low: np.ndarray, high: np.ndarray, whole: np.ndarray) -> dict[str, Any]:
    pairs, concepts = found.pairs, found.concepts
    weights = found.model.weights(pairs.domain[row])
    x = np.nan_to_num(found.x[row])
    parts = weights * x
    order = [j for j in np.argsort(-np.abs(parts), kind="stable") if parts[j] != 0]
    flip = fewest_changes(weights, x, low, high)
    changes = []
    for j, old, new in flip.changes:
        if whole[j]:  # half a word cannot be said; further on is still turned round
            new = float(math.ceil(new - 1e-9) if new > old else math.floor(new + 1e-9))
        changes.append([concepts[j].key, old, new])
    p = float(pairs.p[row])
    return {
        "id": pairs.ids[row],
        "place": pairs.place[row],
        "domain": pairs.domain[row],
        "mechanism": pairs.mechanism[row],
        "prompt": pairs.prompt[row],
        "first": pairs.first[row],
        "second": pairs.second[row],
        "p": p,
        "predicted": float(1 / (1 + math.exp(-logit))),
        "logit": logit,
        "correct": None if p == 0.5 or logit == 0 else (p > 0.5) == (logit > 0),
        "contributions": [[concepts[j].key, float(x[j]), float(parts[j])] for j in order],
        "flip": {"changes": changes, "found": flip.found},
    }
