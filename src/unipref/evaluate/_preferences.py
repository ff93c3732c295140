"""What a preference model is worth on held-out pairs: `evaluation.json`, from logits and labels alone.

Nothing here knows a model: it gets numbers per pair and adds them up. A number is therefore the same however the pairs
were cut into batches when they were scored, and in whatever order they come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.statistics import (
    agreements,
    effective_sample_size,
    holm,
    mean,
    sigmoid,
    swap_test,
)
from unipref.evaluate._best_of import best_of_n
from unipref.evaluate._calibration import log_sigmoid
from unipref.evaluate._reliability import reliability
from unipref.evaluate._sections import Sections, by_section
from unipref.evaluate._shares import between, share_interval, shares, worst
from unipref.evaluate._together import Together, triple_of

__all__ = ["HeldOutPairs", "Judgement", "evaluate_preferences"]

LEAST = 20  # pairs with a winner that a user has to have to be told by itself
SAME = 1e-6  # P(a > b) + P(b > a) may be so far from 1 before a pair counts as judged differently in the other order
SHARE, GAP = (0.0, 1.0), (-1.0, 1.0)
_BOUNDS = {"accuracy": SHARE, "agreement": SHARE, "nll": None, "brier": SHARE}
_DIFFERENCES = {"accuracy": GAP, "nll": None, "brier": GAP}
LONGER, SHORTER = "longer wins", "shorter wins"


@dataclass(frozen=True)
class HeldOutPairs:
    """What people said of N pairs that no model was fitted to.

    Attributes:
        p: (N,) the share of votes for the first side: 1, 0, 0.5 for a tie, or between.
        conversation: (N,) which pairs belong together; whole conversations are drawn for an interval. Where pairs are
            independent, a name of each.
        weight: (N,) at least 0; default 1.
        domain, user, subset: (N,) names, None for a pair that has none; default: nobody has one.
        length_difference: (N,) length of the first response minus the second's, in any one unit; NaN where unknown.
    """

    p: np.ndarray
    conversation: np.ndarray
    weight: np.ndarray | None = None
    domain: np.ndarray | None = None
    user: np.ndarray | None = None
    subset: np.ndarray | None = None
    length_difference: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.p)
        for name in ("p", "weight", "length_difference"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.weight is None:
            object.__setattr__(self, "weight", np.ones(n))
        for name in ("conversation", "domain", "user", "subset"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=object))
        for name in ("conversation", "weight", "domain", "user", "subset", "length_difference"):
            column = getattr(self, name)
            if column is not None and column.shape != (n,):
                raise DataError(f"the held-out pairs have {n} labels, but {name} has shape {column.shape}")
        bad = np.flatnonzero(~((self.p >= 0) & (self.p <= 1)))
        if len(bad):
            raise DataError(
                f"a label is the share of votes for the first side, from 0 to 1; {len(bad)} of {n} are not, the first "
                f"at row {bad[0]}: {self.p[bad[0]]}. Leave such pairs out, or mend their labels"
            )
        if not (np.isfinite(self.weight).all() and (self.weight >= 0).all()):
            raise DataError("weights of held-out pairs must be finite and at least 0")
        if not self.weight.any():
            raise DataError(f"nothing to evaluate on: none of {n} held-out pairs has a weight above 0")

    def __len__(self) -> int:
        return len(self.p)


@dataclass(frozen=True)
class Judgement:
    """What one model says of the same N pairs, in the same order.

    Attributes:
        logit: (N,) log-odds that the first side is preferred.
        swapped: (N,) the same asked with the sides exchanged, where the model was asked; a model that knows no order
            answers -logit.
        left_out: (N,) the logits of models that were fitted without the pair's domain; NaN where there is none.
        fallback: (N,) what the model did not know of a pair ("unseen user"), None or "" where it knew all.
        best_of: (proxy, gold): per prompt the samples' rewards by this model and by what is wanted; see `best_of_n`.
        seconds: of training.
    """

    logit: np.ndarray
    swapped: np.ndarray | None = None
    left_out: np.ndarray | None = None
    fallback: np.ndarray | None = None
    best_of: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]] | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("logit", "swapped", "left_out"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.fallback is not None:
            object.__setattr__(self, "fallback", np.asarray(self.fallback, dtype=object))


def evaluate_preferences(
    pairs: HeldOutPairs,
    models: Mapping[str, Judgement],
    *,
    baselines: Mapping[str, np.ndarray] | None = None,
    main: str | None = None,
    baseline: str | None = None,
    sections: Sections | None = None,
    least: int = LEAST,
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """What `evaluation.json` says; every [value, low, high] has a 95 % interval over conversations.

    Args:
        models: by name.
        baselines: margins of simple rules whose sign alone counts, such as a bag of words'. "longer wins" is made from
            `length_difference`, and "shorter wins" beside it where that is right more often.
        main: the model that is spoken of first; default the first.
        baseline: the model that the others are held against; default none.
        sections: of `pairs.subset`; see `by_section` and `REWARD_BENCH`.
        least: pairs with a winner that a user needs to be told by itself; those with fewer are told together.
        about: anything else that belongs in the file: name, created, version, split, notes.

    Returns:
        Per model
        accuracy: share of the pairs with a winner (p is not 0.5) whose winner gets the greater score; equal scores
            count half, and `ties` says how many there are.
        agreement: chance to agree with one vote, of all pairs: p where the first side is chosen, 1 - p where the second
            is, half for equal scores and for tied labels. `ceiling.agreement` is the most that labels leave possible.
        nll, brier: mean of -log P(vote), nats, and of (1 - P(vote))^2, over votes, all pairs; a coin has 0.693 and
            0.25, and `ceiling` what a model that knew every p would have.
        calibration: see `reliability`.
        by_domain: accuracy, nll, n and conversations. worst_domain, worst_user: see `worst`.
        left_out: accuracy in a domain that the model was fitted without, and by how much that is below or above the
            same model's with it, overall and by domain, on the pairs that have both; missing: pairs without one.
        by_user: users with at least `least` pairs with a winner by name (n, accuracy by Wilson's interval, shrunk), the
            others together; mean and sd of users' true accuracies, chance taken away (`between`).
        sections: see `by_section`. length: see below. best_of: see `best_of_n`.
        both_orders: asked; mean and largest |P(a > b) + P(b > a) - 1|; turned, share of verdicts that turn with the
            sides.
        fallback: pairs that the model knew all of and, per reason, those that it did not: n and accuracy.

        And
        baselines: accuracy. differences: a - b on the same pairs, with p (conversations exchanged at random) and
        p_holm, each metric against `baseline` a family, and each simple rule's.
        length (per model): chooses_longer, people_choose_longer and their difference; accuracy where people chose the
        longer, where they chose the shorter, and the gap; correlation of the logit with the length difference, both
        orders of each pair taken (so no mean is subtracted).

    Raises:
        DataError: columns differ in length, or a logit is not finite.
        ConfigError: there is no model, `main` or `baseline` is none of them, or a name stands twice.
    """
    rules = dict(baselines or {})
    if pairs.length_difference is not None:
        rules = {**_by_length(pairs), **rules}
    main = _check(pairs, models, rules, main, baseline)
    p, weight, group = pairs.p, pairs.weight, pairs.conversation
    draws = {"seed": seed, "resamples": resamples}
    winner = p - 0.5
    columns = {name: _columns(pairs, judged.logit) for name, judged in models.items()}
    columns |= {name: {"accuracy": agreements(np.nan_to_num(margin), winner)} for name, margin in rules.items()}
    joint = {
        metric: Together([c[metric] for c in columns.values() if metric in c], weight, group, draws)
        for metric in _BOUNDS
    }
    at = {name: i for i, name in enumerate(columns)}  # models stand before rules, so an index holds for every metric
    counted = weight > 0
    found: dict[str, Any] = {
        **(about or {}),
        "main": main,
        "baseline": baseline,
        "pairs": {
            "n": int(counted.sum()),
            "conversations": len({str(name) for name in group[counted]}),
            "effective": effective_sample_size(np.sort(weight)),
            "with_winner": int((counted & (p != 0.5)).sum()),
            "ties": int((counted & (p == 0.5)).sum()),
            "soft": int((counted & ~np.isin(p, (0.0, 0.5, 1.0))).sum()),
            "first_wins": mean(p, weights=weight, clusters=group, bounds=SHARE, **draws).as_list(),
            **{f"{name}s": _distinct(getattr(pairs, name), counted) for name in ("domain", "user", "subset")},
        },
        "ceiling": _ceiling(p, weight),
        "models": {},
        "baselines": {name: {"accuracy": joint["accuracy"].triple(at[name], SHARE)} for name in rules},
    }
    for name, judged in models.items():
        right = columns[name]["accuracy"]
        entry: dict[str, Any] = {metric: joint[metric].triple(at[name], _BOUNDS[metric]) for metric in _BOUNDS}
        entry["ties"] = int((counted & (judged.logit == 0)).sum())
        entry["calibration"] = reliability(judged.logit, p, weight, group, **draws)
        entry |= _domains(pairs, columns[name], draws)
        entry["left_out"] = _left_out(pairs, judged, right, draws)
        entry |= _users(pairs, right, least)
        entry["sections"] = (
            None if pairs.subset is None else
            by_section(right, np.where(_named(pairs.subset), weight, 0.0), group, pairs.subset, sections, **draws)
        )  # fmt: skip
        entry["length"] = _length(pairs, judged.logit, right, draws)
        entry["best_of"] = None if judged.best_of is None else best_of_n(*judged.best_of, **draws)
        entry["both_orders"] = _both_orders(judged, counted)
        entry["fallback"] = _fallback(judged, right, pairs, draws)
        entry["seconds"] = judged.seconds
        found["models"][name] = entry
    found["differences"] = _differences(list(models), list(rules), baseline, columns, joint, at, pairs, seed)
    found["settings"] = {"least": least, "confidence": 0.95, "same": SAME, **draws}
    return found


# ---- numbers per pair ----


def _by_length(pairs: HeldOutPairs) -> dict[str, np.ndarray]:
    longer = np.nan_to_num(pairs.length_difference)
    right = agreements(longer, pairs.p - 0.5)
    share = mean(right, weights=pairs.weight, clusters=pairs.conversation, resamples=1).value
    return {LONGER: longer, **({SHORTER: -longer} if share < 0.5 else {})}


def _columns(pairs: HeldOutPairs, logit: np.ndarray) -> dict[str, np.ndarray]:
    p = pairs.p
    q = sigmoid(logit)
    return {
        "accuracy": agreements(logit, p - 0.5),
        "agreement": np.where(logit == 0, 0.5, np.where(logit > 0, p, 1 - p)),
        "nll": -(p * log_sigmoid(logit) + (1 - p) * log_sigmoid(-logit)),
        "brier": p * (1 - q) ** 2 + (1 - p) * q**2,
    }


def _ceiling(p: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nan_to_num(p * np.log(p)) - np.nan_to_num((1 - p) * np.log1p(-p))
    columns = {"agreement": np.maximum(p, 1 - p), "nll": entropy, "brier": p * (1 - p)}
    return {
        name: mean(column, weights=weight, clusters=np.zeros(len(p)), resamples=1).value
        for name, column in columns.items()
    }


# ---- parts of a model's entry ----


def _domains(pairs: HeldOutPairs, columns: Mapping[str, np.ndarray], draws: Mapping[str, int]) -> dict[str, Any]:
    if pairs.domain is None:
        return {"by_domain": {}, "worst_domain": None}
    weight = np.where(_named(pairs.domain), pairs.weight, 0.0)
    told = {}
    for name, here in _each(pairs.domain, weight > 0):
        kept = [columns[key][here] for key in ("accuracy", "nll")]
        both = Together(kept, weight[here], pairs.conversation[here], draws)
        told[name] = {
            "accuracy": both.triple(0, SHARE),
            "nll": both.triple(1, None),
            "n": int((~np.isnan(columns["accuracy"]) & here).sum()),
            "conversations": both.conversations[0],
        }
    return {
        "by_domain": told,
        "worst_domain": worst(shares(columns["accuracy"], weight, pairs.conversation, pairs.domain)),
    }


def _users(pairs: HeldOutPairs, right: np.ndarray, least: int) -> dict[str, Any]:
    if pairs.user is None:
        return {"by_user": None, "worst_user": None}
    weight = np.where(_named(pairs.user), pairs.weight, 0.0)
    every = shares(right, weight, pairs.conversation, pairs.user)
    told = {name: share for name, share in every.items() if share.n >= least}
    few = [name for name in every if name not in told]
    pooled = np.isin(np.array([str(name) for name in pairs.user]), few)
    together = shares(right, np.where(pooled, weight, 0.0), pairs.conversation, np.full(len(pairs), "all"))
    average, sd, shrunk = between(list(told.values()))
    return {
        "by_user": {
            "users": {
                name: {"accuracy": _share(share), "shrunk": pulled, "n": share.n}
                for (name, share), pulled in zip(told.items(), shrunk, strict=True)
            },
            "few": {
                "users": len(few),
                "n": together["all"].n if few else 0,
                "accuracy": _share(together["all"]) if few else [None, None, None],
            },
            "mean": _known(average),
            "sd": _known(sd),
            "least": least,
        },
        "worst_user": worst(told),
    }


def _share(share: Any) -> list[float | None]:
    return [share.value, *share_interval(share.value, share.units)]


def _left_out(
    pairs: HeldOutPairs, judged: Judgement, right: np.ndarray, draws: Mapping[str, int]
) -> dict[str, Any] | None:
    if judged.left_out is None:
        return None
    if pairs.domain is None:
        raise ConfigError(
            "a model has logits with its pairs' domain left out, but the pairs have no domains; name them"
        )
    there = ~np.isnan(judged.left_out) & _named(pairs.domain)
    without = agreements(np.where(there, judged.left_out, np.nan), pairs.p - 0.5)
    within = np.where(there, right, np.nan)

    def told(here: np.ndarray) -> dict[str, Any]:
        both = Together([without[here], within[here]], pairs.weight[here], pairs.conversation[here], draws)
        n = int((~np.isnan(without[here]) & (pairs.weight[here] > 0)).sum())
        return {"accuracy": both.triple(0, SHARE), "difference": both.gap(0, 1, GAP), "n": n}

    known = there & (pairs.weight > 0) & ~np.isnan(right)
    if not known.any():
        raise DataError(
            "a model's logits with the domain left out are all missing; give at least one domain's, or none"
        )
    missing = int(((pairs.weight > 0) & ~there & ~np.isnan(right)).sum())
    return {**told(known), "by_domain": {name: told(here) for name, here in _each(pairs.domain, known)},
            "missing": missing}  # fmt: skip


def _length(
    pairs: HeldOutPairs, logit: np.ndarray, right: np.ndarray, draws: Mapping[str, int]
) -> dict[str, Any] | None:
    if pairs.length_difference is None:
        return None
    gap, p = pairs.length_difference, pairs.p
    side = np.sign(gap) * np.sign(p - 0.5)  # 1 where people chose the longer, NaN where the length is unknown
    differ = np.where(gap == 0, np.nan, gap)
    longer = np.where(np.isnan(differ), np.nan, np.where(differ > 0, p, 1 - p))
    scale, size = (float(np.abs(np.nan_to_num(x[pairs.weight > 0])).max()) or 1.0 for x in (gap, logit))
    x, y = gap / scale, np.where(np.isnan(gap), np.nan, logit / size)
    both = Together(
        [agreements(logit, differ), longer, np.where(side > 0, right, np.nan), np.where(side < 0, right, np.nan),
         x * y, x * x, y * y],
        pairs.weight, pairs.conversation, draws,
    )  # fmt: skip

    def correlation(of: np.ndarray) -> np.ndarray:
        below = np.sqrt(of[..., 5] * of[..., 6])
        return np.divide(of[..., 4], below, out=np.full(below.shape, np.nan), where=below > 0)

    known = pairs.weight > 0
    return {
        "chooses_longer": both.triple(0, SHARE),
        "people_choose_longer": both.triple(1, SHARE),
        "excess": both.gap(0, 1, GAP),
        "accuracy_longer_chosen": both.triple(2, SHARE),
        "accuracy_shorter_chosen": both.triple(3, SHARE),
        "gap": both.gap(2, 3, GAP),
        "correlation": triple_of(
            float(correlation(both.values)), correlation(both.drawn), min(both.conversations[4:]), None
        ),
        "n": {
            "longer_chosen": int((known & (side > 0)).sum()),
            "shorter_chosen": int((known & (side < 0)).sum()),
            "same_length": int((known & (gap == 0)).sum()),
            "unknown": int((known & np.isnan(gap)).sum()),
        },
    }


def _both_orders(judged: Judgement, counted: np.ndarray) -> dict[str, Any] | None:
    if judged.swapped is None:
        return None
    asked = counted & ~np.isnan(judged.swapped)
    one, other = judged.logit[asked], judged.swapped[asked]
    away = np.abs(sigmoid(one) + sigmoid(other) - 1)
    n = int(asked.sum())
    return {
        "asked": n,
        "largest": float(away.max()) if n else None,
        "mean": mean(away, resamples=1).value if n else None,
        "different": int((away > SAME).sum()),
        "turned": float((np.sign(one) != -np.sign(other)).mean()) if n else None,
    }


def _fallback(
    judged: Judgement, right: np.ndarray, pairs: HeldOutPairs, draws: Mapping[str, int]
) -> dict[str, Any] | None:
    if judged.fallback is None:
        return None
    reasons = np.array([str(reason) if reason else "" for reason in judged.fallback])
    told = {}
    for reason, here in _each(reasons, pairs.weight > 0):
        accuracy = mean(
            right[here], weights=pairs.weight[here], clusters=pairs.conversation[here], bounds=SHARE, **draws
        )
        told[reason] = {"pairs": int(here.sum()), "n": accuracy.n, "accuracy": accuracy.as_list()}
    nothing = {"pairs": 0, "n": 0, "accuracy": [None, None, None]}
    return {"known": told.pop("", nothing), "reasons": told}


def _differences(
    models: Sequence[str],
    rules: Sequence[str],
    baseline: str | None,
    columns: Mapping[str, Mapping[str, np.ndarray]],
    joint: Mapping[str, Together],
    at: Mapping[str, int],
    pairs: HeldOutPairs,
    seed: int,
) -> list[dict[str, Any]]:
    families = [
        *([(metric, baseline, [m for m in models if m != baseline]) for metric in _DIFFERENCES] if baseline else []),
        *(("accuracy", rule, list(models)) for rule in rules),
    ]
    entries = []
    for metric, b, others in families:
        family = []
        for a in others:
            one, other = columns[a][metric], columns[b][metric]
            both = {"weights": (pairs.weight, pairs.weight), "clusters": (pairs.conversation, pairs.conversation)}
            p = swap_test(one, other, seed=seed, **both)
            known = ~np.isnan(one) & (pairs.weight > 0)
            family.append(
                {
                    "a": a,
                    "b": b,
                    "metric": metric,
                    "value": joint[metric].gap(at[a], at[b], _DIFFERENCES[metric]),
                    "n": int(known.sum()),
                    "conversations": joint[metric].conversations[at[a]],
                    "p": _known(p),
                }
            )
        for entry, adjusted in zip(family, holm([entry["p"] for entry in family]), strict=True):
            entry["p_holm"] = _known(float(adjusted))
        entries += family
    return entries


# ---- help ----


def _check(
    pairs: HeldOutPairs,
    models: Mapping[str, Judgement],
    rules: Mapping[str, np.ndarray],
    main: str | None,
    baseline: str | None,
) -> str:
    if not models:
        raise ConfigError("there is no model to evaluate; name at least one, with its logits on the held-out pairs")
    main = next(iter(models)) if main is None else main
    for word, name in (("main", main), ("baseline", baseline)):
        if name is not None and name not in models:
            raise ConfigError(f"{word} is {name!r}, which is no model{nearest(name, models)}")
    twice = sorted(set(models) & set(rules))
    if twice:
        raise ConfigError(f"{twice[0]!r} is the name of a model and of a simple rule; give one of them another name")
    n = len(pairs)
    for name, judged in models.items():
        for key in ("logit", "swapped", "left_out", "fallback"):
            column = getattr(judged, key)
            if column is not None and column.shape != (n,):
                raise DataError(
                    f"{name} has {key} of shape {column.shape} for {n} held-out pairs; judge each pair once"
                )
        bad = np.flatnonzero(~np.isfinite(judged.logit))
        if len(bad):
            raise DataError(
                f"{name} has no finite logit for {len(bad)} of {n} held-out pairs, the first at row {bad[0]}; "
                "leave these pairs out for every model, or have them judged"
            )
    for name, margin in rules.items():
        if np.shape(margin) != (n,):
            raise DataError(f"{name} has margins of shape {np.shape(margin)} for {n} held-out pairs")
    return main


def _named(names: np.ndarray) -> np.ndarray:
    return np.array([name is not None and name == name for name in names], dtype=bool)  # NaN is no name


def _each(names: np.ndarray, counted: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Each name in sorted order with the rows that have it and are counted."""
    texts = np.array([str(name) for name in names])
    return [(str(name), counted & (texts == name)) for name in np.unique(texts[counted])]


def _distinct(names: np.ndarray | None, counted: np.ndarray) -> int:
    return 0 if names is None else len({str(name) for name in names[counted & _named(names)]})


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
