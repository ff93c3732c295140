"""Several scorers as one, weighted so that it orders responses as people do."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, DataError, ShapeError, nearest
from unipref.core.io import to_json, write_json
from unipref.core.protocols import Scorer
from unipref.core.records import Record, Text
from unipref.data.operators import as_pairs

__all__ = ["Combination", "MetaMetrics", "Metric", "combine_metrics", "ordered_pairs"]

_KIND = "unipref-metametrics-1"
_RUNS_CODE = ("python",)  # scorers that a file must not name: reading it would import what it says
_NEAR = 1e-12


@dataclass(frozen=True)
class Metric:
    """One scorer of a combination, brought to [0, 1].

    Attributes:
        spec: {"scorer": name, "options": {...}}, as `make_scorer` takes it.
        low, high: its least and its greatest value on the responses it was fitted to; values beyond are held within.
        inverted: lower is better.
        weight: its share; those of a combination sum to 1.
    """

    name: str
    spec: Mapping[str, Any]
    low: float
    high: float
    inverted: bool
    weight: float

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values in [0, 1], higher is better; NaN stays NaN."""
        inside = np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)
        return 1.0 - inside if self.inverted else inside


@dataclass(frozen=True)
class Combination:
    """Fitted weights, and how well the combination orders responses.

    Attributes:
        tau: Kendall's tau with the people's order on the pairs it was fitted to: the share ordered as they are less the
            share ordered the other way, in [-1, 1]. Equal scores count neither way.
        held_out: the same on the pairs of conversations that a fit had not seen, over all folds; NaN where the
            conversations are too few.
        alone: the same of each metric by itself, on all pairs, whatever its weight.
        n_pairs: pairs that were used. n_missing: pairs of which a metric has no value on a side; they are left out.
    """

    metrics: tuple[Metric, ...]
    tau: float = math.nan
    held_out: float = math.nan
    alone: Mapping[str, float] = field(default_factory=dict)
    n_pairs: int = 0
    n_missing: int = 0

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """(n,) in [0, 1] of (n, M) values of the metrics; NaN where one that has a weight is NaN."""
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.metrics):
            raise ShapeError(f"the combination reads {len(self.metrics)} metrics; the values have shape {values.shape}")
        parts = [m.weight * m.scaled(values[:, k]) for k, m in enumerate(self.metrics) if m.weight > 0]
        return np.sum(parts, axis=0)

    def save(self, path: Path | str) -> None:
        """Write the JSON file that the scorer `metametrics` reads.

        Raises:
            ConfigError: a metric was given as an object, which a file cannot name.
        """
        for metric in self.metrics:
            if "scorer" not in metric.spec:
                raise ConfigError(
                    f"metametrics: {metric.name} was given without its scorer's name, so a file cannot say what it "
                    'is; fit with {"scorer": name, "options": {...}}'
                )
        rows = [
            {
                "name": m.name,
                "spec": dict(m.spec),
                "low": m.low,
                "high": m.high,
                "inverted": m.inverted,
                "weight": m.weight,
            }
            for m in self.metrics
        ]
        about = {name: getattr(self, name) for name in ("tau", "held_out", "alone", "n_pairs", "n_missing")}
        write_json(path, {"kind": _KIND, "metrics": rows, "about": about})

    @classmethod
    def load(cls, path: Path | str) -> "Combination":
        """The combination that `save` wrote; nothing in the file is run.

        Raises:
            ConfigError: there is no such file, or it is not one of these.
        """
        again = "write it with `Combination.save`"
        try:
            found = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as err:
            raise ConfigError(f"metametrics: {str(path)!r} cannot be read ({err}); {again}") from err
        except json.JSONDecodeError as err:
            raise ConfigError(f"metametrics: {path} is no JSON ({err}); {again}") from err
        kind = found.get("kind") if isinstance(found, dict) else None
        if kind != _KIND:
            raise ConfigError(f"metametrics: {path} is of the kind {kind!r}, not {_KIND!r}; {again}")
        rows, about = found.get("metrics"), found.get("about") or {}
        if not (isinstance(rows, list) and all(map(_is_metric, rows)) and any(row["weight"] for row in rows)):
            raise ConfigError(
                f"metametrics: {path}: each metric has a name, a spec, the finite numbers low < high, inverted, and a "
                f"weight from 0, not all of them 0; {again}"
            )
        total = sum(row["weight"] for row in rows)
        metrics = tuple(
            Metric(r["name"], r["spec"], float(r["low"]), float(r["high"]), r["inverted"], r["weight"] / total)
            for r in rows
        )
        said = {name: math.nan if about.get(name) is None else float(about[name]) for name in ("tau", "held_out")}
        counts = {name: int(about.get(name) or 0) for name in ("n_pairs", "n_missing")}
        return cls(metrics, **said, alone=about.get("alone") or {}, **counts)

    @classmethod
    def fit(
        cls,
        values: np.ndarray,
        better: np.ndarray,
        worse: np.ndarray,
        *,
        weight: np.ndarray | None = None,
        group: np.ndarray | None = None,
        names: Sequence[str] | None = None,
        specs: Sequence[Mapping[str, Any]] | None = None,
        inverted: Sequence[str] = (),
        starts: int = 8,
        folds: int = 5,
        seed: int = 0,
    ) -> "Combination":
        """The weights from 0 up that order most pairs as people do.

        The agreement is a step function of the weights, so there is no gradient. Along one weight all its steps are
        known, and the best value is found exactly; the weights take turns until none gains, from each metric alone,
        from equal weights, and from `starts` random points. Where several values are equally good, 0 is taken, else the
        middle of the widest range. No better point is on a line through the one returned that changes one weight; that
        no other point is better is not proven.

        Args:
            values: (N, M) of N responses.
            better, worse: (P,) rows of `values`: people prefer the former.
            weight: (P,) how much a pair counts.
            group: (N,) the conversation of each response; a fold holds whole conversations, so that `held_out` is
                measured on others than were fitted to. Each response is its own where not given.
            inverted: names of metrics of which lower is better.
            seed: of the random points, the order of the turns and the folds.

        Raises:
            ConfigError: a metric has the same value everywhere or nowhere one, or `inverted` names none.
            DataError: no pair has a value of every metric on both sides.
        """
        values = np.asarray(values, dtype=np.float64)
        names = tuple(names) if names is not None else tuple(f"metric {k + 1}" for k in range(values.shape[1]))
        specs = tuple(specs) if specs is not None else ({},) * len(names)
        better, worse = np.asarray(better, dtype=np.int64), np.asarray(worse, dtype=np.int64)
        weight = np.ones(len(better)) if weight is None else np.asarray(weight, dtype=np.float64)
        group = np.arange(len(values)) if group is None else np.asarray(group)
        for name in inverted:
            if name not in names:
                raise ConfigError(f"metametrics: inverted names no metric {name!r}{nearest(name, names)}")
        scales = [_scale(name, values[:, k]) for k, name in enumerate(names)]
        blank = [Metric(n, s, *scale, n in inverted, 0.0) for n, s, scale in zip(names, specs, scales, strict=True)]
        scaled = np.stack([metric.scaled(values[:, k]) for k, metric in enumerate(blank)], axis=1)
        gaps = scaled[better] - scaled[worse]
        there = ~np.isnan(gaps).any(axis=1) & (weight > 0)
        if not there.any():
            raise DataError(
                f"metametrics: none of {len(gaps)} pairs has a value of every metric on both sides; leave out the "
                "metrics that are often missing, or give more pairs"
            )
        gaps, weight, better, worse = gaps[there], weight[there], better[there], worse[there]
        shares, tau = _search(gaps, weight, starts, np.random.default_rng(seed))
        alone = {name: _agreement(gaps[:, k], weight) for k, name in enumerate(names)}
        metrics = tuple(
            Metric(m.name, m.spec, m.low, m.high, m.inverted, float(share))
            for m, share in zip(blank, shares, strict=True)
        )
        held_out = _held_out(gaps, weight, group[better], group[worse], starts, folds, seed)
        missing = int((~there).sum())
        return cls(metrics, tau, held_out, alone, len(gaps), missing)


@method(
    "metametrics",
    kind="scorer",
    source="arXiv:2410.02381, its abstract, and the authors' code",
    formula="sum_i w_i clip((m_i - low_i) / (high_i - low_i), 0, 1), w = argmax tau(score, people)",
    citation=Citation(
        "MetaMetrics: Calibrating Metrics For Generation Tasks Using Human Preferences",
        ("Genta Indra Winata", "David Anugraha", "Lucky Susanto", "Garry Kuwanto", "Derry Tanti Wijaya"),
        2024,
        "2410.02381",
    ),
)
@dataclass(frozen=True)
class MetaMetrics:
    """A weighted mean of other scorers, each brought to [0, 1], as it was fitted to people's preferences.

    `combine_metrics` fits one to records and `Combination.save` writes the file. A scorer with weight 0 is not run; a
    response that lacks a score with a weight has none. The released code searches the weights by Bayesian optimisation
    (5 random points, 100 steps) and leaves them as they come; here they are searched along exact lines, which finds
    more in less time on a function of steps, and sum to 1, which changes no order. Its other way, boosted trees on the
    metrics, is not here.

    Args:
        model: the file.
        scorers: name -> {scorer, options} in place of what the file says of that metric. A file may not name the
            scorer `python`, nor trust a model's code: give such a metric here.
    """

    name: ClassVar[str] = "metametrics"
    model: str
    scorers: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"metametrics: model is the path of a fitted combination's file, not {self.model!r}")
        if self.scorers is not None and not isinstance(self.scorers, Mapping):
            raise ConfigError(f"metametrics: scorers is a mapping from names to {{scorer, options}}: {self.scorers!r}")

    @property
    def version(self) -> str | None:
        """From the weights, the scales and the scorers' own versions; None where one of these says none."""
        versions = [(metric.name, scorer.version) for metric, scorer in self._parts]
        if any(version is None for _, version in versions):
            return None
        numbers = [(m.name, m.low, m.high, m.inverted, m.weight) for m in self._fitted.metrics]
        return f"1 {hashlib.sha256(to_json([numbers, versions]).encode()).hexdigest()[:32]}"

    @cached_property
    def _fitted(self) -> Combination:
        return Combination.load(self.model)

    @cached_property
    def _parts(self) -> tuple[tuple[Metric, Scorer], ...]:
        """The metrics that have a weight, and their scorers."""
        from unipref.rewards.scorers import make_scorer

        given = dict(self.scorers or {})
        known = [metric.name for metric in self._fitted.metrics]
        for name in given:
            if name not in known:
                raise ConfigError(f"metametrics: {self.model} has no metric {name!r}{nearest(str(name), known)}")
        parts = []
        for metric in self._fitted.metrics:
            if metric.weight > 0:
                spec = given.get(metric.name, metric.spec)
                if metric.name not in given:
                    _refuse_code(self.model, metric)
                try:
                    parts.append((metric, make_scorer(spec)))
                except ConfigError as err:
                    raise ConfigError(f"metametrics: {metric.name}: {err}") from err
        return tuple(parts)

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) in [0, 1]; NaN where a scorer with a weight has no score.

        Raises:
            ConfigError: the file cannot be read, or names a scorer or option that there is not.
        """
        return np.sum(
            [metric.weight * metric.scaled(scorer.score(contexts, responses)) for metric, scorer in self._parts], axis=0
        )


def combine_metrics(
    metrics: Mapping[str, Mapping[str, Any] | Scorer],
    records: Sequence[Record],
    *,
    by: str | None = None,
    inverted: Sequence[str] = (),
    max_pairs: int = 20_000,
    starts: int = 8,
    folds: int = 5,
    seed: int = 0,
) -> Combination:
    """The combination of `metrics` that orders the responses of `records` as people do.

    Args:
        metrics: name -> {"scorer": name, "options": {...}}, or a scorer, which cannot be saved.
        records: with comparisons, ranks or thumbs; with `by`, with a rating of each response in that column.
        by: compare all responses by their ratings, also those to different prompts, as for a metric of whole systems;
            where not given only responses that somebody compared, each comparison by how sure it is (|2p - 1|).
        max_pairs: of more pairs so many are drawn at random.

    Raises:
        ConfigError: a metric cannot be made or says nothing of these responses.
        DataError: there are no comparisons, or no response has a rating.
    """
    from unipref.rewards.scorers import make_scorer

    if not metrics:
        raise ConfigError("metametrics: there is no metric to combine; name at least one scorer")
    scorers = {name: make_scorer(m) if isinstance(m, Mapping) else m for name, m in metrics.items()}
    specs = [dict(m) if isinstance(m, Mapping) else {} for m in metrics.values()]
    paired = list(records) if by is not None else as_pairs(records)[0]
    items = [(record, item) for record in paired for item in record.items if item.role == "response"]
    if not items:
        raise DataError("metametrics: the records hold no response")
    contexts, responses = [item.context for _, item in items], [item.response for _, item in items]
    values = np.stack([np.asarray(s.score(contexts, responses), np.float64) for s in scorers.values()], axis=1)
    group = np.array([record.conversation or record.id for record, _ in items], dtype=object)
    if by is not None:
        human = np.array([item.columns.get(by, math.nan) for _, item in items])
        better, worse = ordered_pairs(human, most=max_pairs, seed=seed)
        weight = np.sqrt([items[i][0].weight * items[j][0].weight for i, j in zip(better, worse, strict=True)])
    else:
        better, worse, weight = _compared(paired)
        if len(better) > max_pairs:
            kept = np.sort(np.random.default_rng(seed).choice(len(better), max_pairs, replace=False))
            better, worse, weight = better[kept], worse[kept], weight[kept]
    return Combination.fit(
        values,
        better,
        worse,
        weight=weight,
        group=group,
        names=list(scorers),
        specs=specs,
        inverted=inverted,
        starts=starts,
        folds=folds,
        seed=seed,
    )


def ordered_pairs(human: np.ndarray, *, most: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(better, worse): rows of which people rate the former higher; of more than `most` so many, drawn at random.

    Raises:
        DataError: no two ratings differ.

    Example:
        >>> better, worse = ordered_pairs(np.array([2.0, 5.0, 2.0, np.nan]))
        >>> better.tolist(), worse.tolist()
        ([1, 1], [0, 2])
    """
    human = np.asarray(human, dtype=np.float64)
    rated = np.flatnonzero(~np.isnan(human))
    n = len(rated)
    if n < 2 or np.ptp(human[rated]) == 0:
        raise DataError(f"metametrics: {n} responses have a rating, and no two differ; there is no order to fit to")
    if n * (n - 1) // 2 <= 4 * most:
        first, second = (rated[side] for side in np.triu_indices(n, 1))
    else:
        drawn = np.random.default_rng(seed).integers(n, size=(2, 4 * most))
        drawn = np.unique(np.sort(drawn[:, drawn[0] != drawn[1]], axis=0), axis=1)
        first, second = rated[drawn[0]], rated[drawn[1]]
    better = np.where(human[first] > human[second], first, second)
    worse = np.where(human[first] > human[second], second, first)
    differ = np.flatnonzero(human[better] > human[worse])
    if len(differ) > most:
        differ = np.sort(np.random.default_rng(seed).choice(differ, most, replace=False))
    return better[differ], worse[differ]


def _compared(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(better, worse, weight) of all comparisons that are no ties; rows count responses through all records."""
    rows, start = [], 0
    for record in records:
        responses = [i for i, item in enumerate(record.items) if item.role == "response"]
        place = {i: start + k for k, i in enumerate(responses)}
        for c in record.comparisons:
            better, worse = (c.winner, c.loser) if c.preference > 0.5 else (c.loser, c.winner)
            if c.preference != 0.5:
                rows.append((place[better], place[worse], record.weight * abs(2 * c.preference - 1)))
        start += len(responses)
    if not rows:
        raise DataError("metametrics: every comparison is a tie; there is no order to fit to")
    better, worse, weight = zip(*rows, strict=True)
    return np.array(better), np.array(worse), np.array(weight)


def _scale(name: str, values: np.ndarray) -> tuple[float, float]:
    there = values[~np.isnan(values)]
    if not len(there):
        raise ConfigError(f"metametrics: {name} has no value for any of {len(values)} responses; leave it out")
    low, high = float(there.min()), float(there.max())
    if not high - low > _NEAR * max(1.0, abs(low)):
        raise ConfigError(f"metametrics: {name} gives every response {low}; leave it out, or choose another scorer")
    return low, high


def _agreement(gap: np.ndarray, weight: np.ndarray) -> float:
    """Kendall's tau of pairs in the people's order, from the score's gaps: (as they say - the other way) / all."""
    return float((weight * np.sign(np.where(np.abs(gap) > _NEAR, gap, 0.0))).sum() / weight.sum())


def _search(gaps: np.ndarray, weight: np.ndarray, starts: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(M,) weights that sum to 1, and their agreement."""
    size = gaps.shape[1]
    best, best_value = np.full(size, 1 / size), -math.inf
    for start in (*np.eye(size), np.full(size, 1 / size), *rng.dirichlet(np.ones(size), starts)):
        point, value, before = start.copy(), _agreement(gaps @ start, weight), -math.inf
        while value > before + _NEAR:
            before = value
            for k in rng.permutation(size):
                others = point.copy()
                others[k] = 0.0
                if not others.any():
                    continue  # its weight alone is the only one: any value gives the same order
                found, reached = _best_on_line(gaps @ others, gaps[:, k], weight)
                if reached > value + _NEAR:
                    others[k] = found
                    point, value = others / others.sum(), reached
        if value > best_value + _NEAR:
            best, best_value = point, value
    return best, best_value


def _best_on_line(rest: np.ndarray, slope: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """(t, agreement): t >= 0 with the largest agreement of rest + t slope, which changes only where a pair turns."""
    rest = np.where(np.abs(rest) > _NEAR, rest, 0.0)
    at_zero = _agreement(rest, weight)
    turns = (slope != 0) & (rest * slope < 0)
    where = -rest[turns] / slope[turns]
    order = np.argsort(where)
    gain = np.cumsum(2 * (weight[turns] * np.sign(slope[turns]))[order])
    beginning = (weight * np.sign(np.where(rest != 0, rest, slope))).sum()
    values = np.concatenate([[beginning], beginning + gain]) / weight.sum()
    where = where[order]
    edges = np.concatenate([[0.0], where, [2 * where[-1] + 1 if len(where) else 1.0]])
    width = np.diff(edges)
    values = np.where(width > _NEAR * (1 + edges[1:]), values, -math.inf)
    best = values.max()
    if at_zero >= best - _NEAR:
        return 0.0, at_zero
    equal = np.flatnonzero(values >= best - _NEAR)
    k = equal[np.argmax(width[equal])]
    return float((edges[k] + edges[k + 1]) / 2), float(best)


def _held_out(
    gaps: np.ndarray,
    weight: np.ndarray,
    of_better: np.ndarray,
    of_worse: np.ndarray,
    starts: int,
    folds: int,
    seed: int,
) -> float:
    """The agreement of weights fitted to the other folds, over the pairs that lie in one fold whole."""
    names, inverse = np.unique(np.concatenate([of_better, of_worse]), return_inverse=True)
    if folds < 2 or len(names) < 2 * folds:
        return math.nan
    fold = np.random.default_rng(seed).permutation(len(names)) % folds
    first, second = fold[inverse[: len(gaps)]], fold[inverse[len(gaps) :]]
    total = counted = 0.0
    for k in range(folds):
        seen, unseen = (first != k) & (second != k), (first == k) & (second == k)
        if seen.any() and unseen.any():
            shares, _ = _search(gaps[seen], weight[seen], starts, np.random.default_rng(seed))
            total += _agreement(gaps[unseen] @ shares, weight[unseen]) * weight[unseen].sum()
            counted += weight[unseen].sum()
    return total / counted if counted else math.nan


def _is_metric(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not isinstance(row.get("spec"), dict):
        return False
    numbers = [row.get(name) for name in ("low", "high", "weight")]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        return False
    return isinstance(row.get("inverted"), bool) and row["low"] < row["high"] and row["weight"] >= 0


def _refuse_code(path: str, metric: Metric) -> None:
    """A file is data: what it names, at any depth, must not run code of its own."""
    asked = _code_in(metric.spec)
    if asked:
        raise ConfigError(
            f"metametrics: {path} asks for {asked} ({metric.name}), which would run code; if you trust it, give "
            f"scorers: {{{metric.name}: {{scorer: ..., options: ...}}}}"
        )


def _code_in(spec: Any) -> str:
    """What of `spec` would run code that came with it or that it names; "" where nothing would."""
    if isinstance(spec, list):
        return next(filter(None, map(_code_in, spec)), "")
    if not isinstance(spec, Mapping):
        return ""
    if spec.get("scorer") in _RUNS_CODE:
        return f"the scorer {spec['scorer']!r}"
    if spec.get("trust_remote_code"):
        return "a model's own code"
    return next(filter(None, map(_code_in, spec.values())), "")
