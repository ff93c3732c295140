"""A designer's own objectives: scorers with weights, made into one reward per response.

R = sum_i w_i r_i, where r_i is a scorer's value, clipped in the scorer's own units and then normalised.
Source: arXiv:2405.17956 (R = 0.05 reading level + 0.95 safety, both in [0, 1]).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from unipref.core import statistics
from unipref.core.columns import DATA_REWARD
from unipref.core.errors import ConfigError, nearest
from unipref.core.protocols import Scorer
from unipref.core.records import Item, Record, Text
from unipref.rewards.scorers import Column, make_scorer
from unipref.store import ScoreStore, text_key

__all__ = ["DesignerObjectives", "DesignerReport", "Part", "PartReport", "Scale", "scores_of"]

REWARD = "reward"  # the column of the combined score
MISSING = ("skip", "renormalise")
NORMALISE = ("none", "minmax", "zscore")
PART_KEYS = ("scorer", "options", "weight", "clip", "normalise", "scale")


@dataclass(frozen=True, slots=True)
class Scale:
    """(value - shift) / width: the least value and the range of the training responses, or their mean and deviation."""

    shift: float
    width: float


@dataclass(frozen=True)
class Part:
    """One objective.

    Attributes:
        name: the column its values get, and its name in tables.
        weight: what it counts in the reward; negative to turn it round.
        clip: (low, high) in the scorer's own units, before normalising; None for no bound on that side.
        normalise: "none"; "minmax": the training responses fill [0, 1], and others are held within; "zscore": the
            training responses have mean 0 and standard deviation 1.
        scale: what `normalise` was fitted to.
    """

    name: str
    scorer: Scorer
    weight: float = 1.0
    clip: tuple[float | None, float | None] = (None, None)
    normalise: str = "none"
    scale: Scale | None = None

    def __post_init__(self) -> None:
        if self.name == REWARD:
            raise ConfigError(f"an objective cannot be called {REWARD!r}, the name of the combined score; rename it")
        for option, value in (("weight", self.weight), *(("clip", bound) for bound in self.clip if bound is not None)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ConfigError(f"objectives.{self.name}: {option} takes finite numbers, not {value!r}")
        low, high = self.clip
        if low is not None and high is not None and not low < high:
            raise ConfigError(f"objectives.{self.name}: clip is [low, high] with low below high, not [{low}, {high}]")
        if self.normalise not in NORMALISE:
            raise ConfigError(
                f"objectives.{self.name}: normalise is one of {', '.join(NORMALISE)}, not "
                f"{self.normalise!r}{nearest(str(self.normalise), NORMALISE)}"
            )

    def fitted(self, raw: np.ndarray) -> "Part":
        """This part with the scale of `raw`, the scorer's values of the training responses."""
        if self.normalise == "none":
            return self
        values = self._clipped(raw[~np.isnan(raw)])
        shift, width = (values.min(), np.ptp(values)) if self.normalise == "minmax" else (values.mean(), values.std())
        if not width > 1e-12 * max(1.0, abs(float(shift))):
            raise ConfigError(
                f"objectives.{self.name}: every training response scores {float(values[0])}, so there is nothing to "
                f"normalise by {self.normalise}; set normalise: none, or choose another scorer"
            )
        return replace(self, scale=Scale(float(shift), float(width)))

    def values(self, raw: np.ndarray) -> np.ndarray:
        """(n,) r_i of the scorer's values; NaN stays NaN.

        Raises:
            ConfigError: it normalises, and was fitted to nothing yet.
        """
        clipped = self._clipped(raw)
        if self.normalise == "none":
            return clipped
        if self.scale is None:
            raise ConfigError(
                f"objectives.{self.name}: normalise {self.normalise} is fitted to training responses first; "
                "call fit_score with the training records"
            )
        scaled = (clipped - self.scale.shift) / self.scale.width
        return np.clip(scaled, 0.0, 1.0) if self.normalise == "minmax" else scaled

    def _clipped(self, raw: np.ndarray) -> np.ndarray:
        low, high = self.clip
        return raw if low is None and high is None else np.clip(raw, low, high)


@dataclass(frozen=True, slots=True)
class PartReport:
    """What one objective, or the combined reward, looks like on some records.

    Attributes:
        weight: what it counts in the reward; 1 for the reward itself.
        missing: responses without a value.
        mean, deviation, low, high: of the values r_i; NaN where there is none.
        at_low, at_high: share of the values at the clip's (or minmax's) lower and upper bound; 0 without a bound.
        agreement: [share, low, high]: how often the preferred response has the higher value, a tie counting half, with
            its 95 % interval; below a half, or above it with a negative weight, the objective conflicts with the
            preferences. Comparisons at 0.5 and those with a missing value do not count. Thumbs count where there are
            no comparisons: the share of pairs of one response with thumbs up and one with thumbs down in which the
            former has the higher value, without interval.
        n_agreement: comparisons (or pairs of thumbs) that count.
        ties: share of these with equal values.
    """

    weight: float
    missing: int
    mean: float
    deviation: float
    low: float
    high: float
    at_low: float
    at_high: float
    agreement: tuple[float, float, float]
    n_agreement: int
    ties: float


@dataclass(frozen=True, slots=True)
class DesignerReport:
    """What scoring some records found.

    Attributes:
        responses: how many were scored.
        parts: name -> report, in the order of the objectives; "reward" last.
        correlations: (name, name) -> Pearson's r over responses that have both; NaN where one is constant.
        data_rewards: responses that the data gave a reward of their own, which is "data_reward" now.
    """

    responses: int
    parts: Mapping[str, PartReport]
    correlations: Mapping[tuple[str, str], float]
    data_rewards: int = 0

    @property
    def conflicts(self) -> list[str]:
        """A sentence for each objective that the preferences go against, beyond chance."""
        return [
            f"{name} conflicts with the preferences: it wants {'higher' if part.weight > 0 else 'lower'} values, and "
            f"the preferred response has the higher value in {100 * part.agreement[0]:.1f} % of {part.n_agreement:,} "
            f"comparisons (95 % interval {100 * part.agreement[1]:.1f} to {100 * part.agreement[2]:.1f} %)"
            for name, part in self.parts.items()
            if (part.weight > 0 and part.agreement[2] < 0.5) or (part.weight < 0 and part.agreement[1] > 0.5)
        ]

    @property
    def notes(self) -> list[str]:
        """What a user should know, one sentence each: the conflicts, and what became of the data's own rewards."""
        kept = (
            f"the data have a reward for {self.data_rewards:,} of {self.responses:,} responses; it is kept as "
            f"`{DATA_REWARD}` and still orders lists, and methods that need `reward` read that of the objectives"
        )
        return [*self.conflicts, *([kept] if self.data_rewards else [])]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "responses": self.responses,
            "data_rewards": self.data_rewards,
            "parts": {name: {**asdict(part), "agreement": list(part.agreement)} for name, part in self.parts.items()},
            "correlations": [{"a": a, "b": b, "value": r} for (a, b), r in self.correlations.items()],
            "conflicts": self.conflicts,
        }


@dataclass(frozen=True)
class DesignerObjectives:
    """Objectives that are added up to one reward.

    Args:
        parts: their names differ.
        missing: what becomes of the reward where a part has no value. "skip": it is missing, too; "renormalise": the
            weights of the parts that are there are scaled up to the whole, sum|w| of all over sum|w| of these. Where
            all are missing, so is the reward. Never is a zero put in the place of a missing value.

    Example:
        >>> designer = DesignerObjectives.from_config({"short": {"scorer": "length", "options": {"cap": 4}}})
        >>> designer.score_texts(["", ""], ["one two", " "])["reward"].tolist()
        [0.5, nan]
    """

    parts: tuple[Part, ...]
    missing: str = "skip"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        names = [part.name for part in self.parts]
        if not names:
            raise ConfigError("objectives: there is none; name at least one scorer")
        if len(set(names)) < len(names):
            raise ConfigError(f"objectives: two have the same name: {', '.join(names)}")
        if self.missing not in MISSING:
            raise ConfigError(
                f"objectives: missing is one of {', '.join(MISSING)}, not {self.missing!r}"
                f"{nearest(str(self.missing), MISSING)}"
            )

    @classmethod
    def from_config(cls, objectives: Mapping[str, Mapping[str, Any]], *, missing: str = "skip") -> "DesignerObjectives":
        """From a recipe's `objectives`: name -> {scorer, options, weight, clip, normalise, scale}.

        Raises:
            ConfigError: an unknown key, scorer or option; the message names the objective and the nearest.
        """
        parts = []
        for name, spec in objectives.items():
            if not isinstance(spec, Mapping):
                raise ConfigError(f"objectives.{name}: give {{scorer: ..., weight: ...}}, not {spec!r}")
            for key in spec:
                if key not in PART_KEYS:
                    raise ConfigError(f"objectives.{name} has no key {key!r}{nearest(str(key), PART_KEYS)}")
            try:
                scorer = make_scorer({key: spec[key] for key in ("scorer", "options") if key in spec})
            except ConfigError as err:
                raise ConfigError(f"objectives.{name}: {err}") from err
            clip = spec.get("clip") or (None, None)
            if isinstance(clip, str) or not isinstance(clip, Sequence) or len(clip) != 2:
                raise ConfigError(f"objectives.{name}: clip is [low, high], not {clip!r}")
            scale = spec.get("scale")
            if scale is not None and set(scale) != {"shift", "width"}:
                raise ConfigError(f"objectives.{name}: scale is {{shift: ..., width: ...}}, not {scale!r}")
            parts.append(
                Part(
                    name=name,
                    scorer=scorer,
                    weight=spec.get("weight", 1.0),
                    clip=tuple(clip),
                    normalise=spec.get("normalise", "none"),
                    scale=None if scale is None else Scale(**scale),
                )
            )
        return cls(tuple(parts), missing)

    def describe(self) -> dict[str, dict[str, Any]]:
        """name -> {description, scorer, weight, clip, normalise, scale, direction}, for reports."""
        return {
            part.name: {
                "description": repr(part.scorer),
                "scorer": part.scorer.name,
                "weight": part.weight,
                "clip": list(part.clip),
                "normalise": part.normalise,
                "scale": None if part.scale is None else asdict(part.scale),
                "direction": "higher is better" if part.weight >= 0 else "lower is better",
            }
            for part in self.parts
        }

    def score_texts(
        self, contexts: Sequence[Text], responses: Sequence[Text], *, store: ScoreStore | None = None
    ) -> dict[str, np.ndarray]:
        """Part name -> (n,) float64 values r_i, and "reward" -> (n,) their weighted sum; NaN is missing.

        For texts that the data do not hold, such as generations: objectives from a column are missing.
        """
        return self._combined([scores_of(part.scorer, contexts, responses, store) for part in self.parts])

    def score_records(
        self, records: Sequence[Record], *, store: ScoreStore | None = None
    ) -> tuple[list[Record], DesignerReport]:
        """The records with every response's values in its columns, by part name and "reward", and what was found.

        Texts beside the responses (a gold answer, a rationale, samples) are not scored and nothing is fitted to them.

        A missing value is absent from the columns. A "reward" that the data bring along is kept as "data_reward": it
        goes on ordering lists, and a part may read it. Score records as they were read, once: a part from a column of
        the name "reward" would read the combined score the second time.

        Raises:
            ConfigError: a part normalises and is not fitted, or has a value for no response at all; or the data have a
                column of a part's name, which is not the one that it reads.
        """
        return self._scored(records, self._raw(records, store))

    def fit_score(
        self, records: Sequence[Record], *, store: ScoreStore | None = None
    ) -> tuple["DesignerObjectives", list[Record], DesignerReport]:
        """These objectives with what they normalise by fitted to `records`, and `score_records` of the same.

        Fit to the training records alone, and score the others with what comes back.
        """
        raw = self._raw(records, store)
        fitted = self.fitted(raw)
        return fitted, *fitted._scored(records, raw)

    def fitted(self, raw: Sequence[np.ndarray]) -> "DesignerObjectives":
        """These objectives with what they normalise by fitted to `raw`, each scorer's own values (`raw_part`)."""
        return replace(self, parts=tuple(part.fitted(value) for part, value in zip(self.parts, raw, strict=True)))

    def raw_part(self, records: Sequence[Record], *, store: ScoreStore | None = None) -> list[np.ndarray]:
        """Each scorer's own values of the responses of some of many records: an objective may have none among them."""
        raw = self._raw(records, store, part_of_more=True)
        responses = np.array([item.role == "response" for record in records for item in record.items], dtype=bool)
        return [values[responses] for values in raw]

    def score_part(self, records: Sequence[Record], *, store: ScoreStore | None = None) -> list[Record]:
        """As `score_records` of some of many records: no account of them, and an objective may have no value here."""
        return self._with_columns(records, self._combined(self._raw(records, store, part_of_more=True)))

    def _raw(
        self, records: Sequence[Record], store: ScoreStore | None, *, part_of_more: bool = False
    ) -> list[np.ndarray]:
        """Each scorer's own values of all items, in the order of the records; NaN of texts that are no responses."""
        everything = [item for record in records for item in record.items]
        scored = np.array([item.role == "response" for item in everything], dtype=bool)
        items = [item for item in everything if item.role == "response"]
        contexts, responses = [item.context for item in items], [item.response for item in items]
        raw = []
        for part in self.parts:
            if isinstance(part.scorer, Column):
                values = part.scorer.of_items(items)
            else:
                values = scores_of(part.scorer, contexts, responses, store)
            if len(values) and np.isnan(values).all() and not part_of_more:
                raise ConfigError(f"objectives.{part.name}: {_why_all_missing(part.scorer, items)}")
            whole = np.full(len(everything), np.nan)
            whole[scored] = values
            raw.append(whole)
        return raw

    def _scored(self, records: Sequence[Record], raw: Sequence[np.ndarray]) -> tuple[list[Record], DesignerReport]:
        columns = self._combined(raw)
        return self._with_columns(records, columns), self._report(records, raw, columns)

    def _with_columns(self, records: Sequence[Record], columns: Mapping[str, np.ndarray]) -> list[Record]:
        self._refuse_taken(records)
        scored, at = [], 0
        for record in records:
            items = []
            for item in record.items:
                known = {name: value for name, value in item.columns.items() if name not in columns}
                if REWARD in item.columns:
                    known[DATA_REWARD] = item.columns[REWARD]
                found = {name: float(values[at]) for name, values in columns.items() if not np.isnan(values[at])}
                items.append(replace(item, columns={**known, **found}))
                at += 1
            scored.append(replace(record, items=tuple(items)))
        return scored

    def _refuse_taken(self, records: Sequence[Record]) -> None:
        known = {name for record in records for item in record.items for name in item.columns}
        for part in self.parts:
            reads = part.scorer.column if isinstance(part.scorer, Column) else None
            if part.name in known and reads != part.name:
                raise ConfigError(
                    f"objectives.{part.name}: the data have a column {part.name!r} of their own, which would be lost; "
                    "give the objective another name, or take the column out of the data"
                )

    def _combined(self, raw: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        columns = {part.name: part.values(values) for part, values in zip(self.parts, raw, strict=True)}
        weights = np.array([part.weight for part in self.parts])
        stacked = np.stack(list(columns.values()))
        if self.missing == "skip":
            columns[REWARD] = weights @ stacked
        else:
            present = ~np.isnan(stacked)
            there = np.abs(weights) @ present
            total = weights @ np.where(present, stacked, 0.0)  # a weight of zero is put here, not a value
            whole = np.abs(weights).sum()
            columns[REWARD] = np.divide(total * whole, there, out=np.full(len(total), np.nan), where=there > 0)
        return columns

    def _report(
        self, records: Sequence[Record], raw: Sequence[np.ndarray], columns: Mapping[str, np.ndarray]
    ) -> DesignerReport:
        weights = {part.name: part.weight for part in self.parts}
        bounds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for part, values in zip(self.parts, raw, strict=True):
            low, high = part.clip
            if part.normalise == "minmax":
                low, high = 0.0, 1.0
                values = columns[part.name]
            bounds[part.name] = tuple(
                np.zeros(len(values), bool) if bound is None else beyond
                for bound, beyond in ((low, values <= (low or 0.0)), (high, values >= (high or 0.0)))
            )
        n_responses = sum(item.role == "response" for record in records for item in record.items)
        parts = {
            name: _part_report(records, values, n_responses, weights.get(name, 1.0), *bounds.get(name, (None, None)))
            for name, values in columns.items()
        }
        names = list(weights)
        return DesignerReport(
            responses=n_responses,
            parts=parts,
            correlations={(a, b): _correlation(columns[a], columns[b]) for a, b in combinations(names, 2)},
            data_rewards=sum(REWARD in item.columns for record in records for item in record.items),
        )


def scores_of(
    scorer: Scorer, contexts: Sequence[Text], responses: Sequence[Text], store: ScoreStore | None
) -> np.ndarray:
    """(n,) the scorer's values, from the store where it has them; what it lacks is computed and put there."""
    if len(contexts) != len(responses):
        raise ConfigError(
            f"one context per response was expected: {len(contexts)} contexts, {len(responses)} responses"
        )
    version = scorer.version
    if store is None or version is None:
        return _checked(scorer, scorer.score(contexts, responses), len(responses))
    space = {"kind": "scorer", "scorer": scorer.name, "version": version}
    keys = [text_key(context, response) for context, response in zip(contexts, responses, strict=True)]
    found = store.get_many(space, keys)
    lacking = list({key: i for i, (key, value) in enumerate(zip(keys, found, strict=True)) if value is None}.values())
    if lacking:
        fresh = _checked(
            scorer, scorer.score([contexts[i] for i in lacking], [responses[i] for i in lacking]), len(lacking)
        )
        store.put_many(space, [keys[i] for i in lacking], list(fresh))
        by_key = dict(zip((keys[i] for i in lacking), fresh, strict=True))
        found = [by_key[key] if value is None else value for key, value in zip(keys, found, strict=True)]
    return np.array([float(value) for value in found], dtype=np.float64)


def _checked(scorer: Scorer, values: np.ndarray, size: int) -> np.ndarray:
    """What a scorer returned, as (n,) float64; anyone may write a scorer."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (size,):
        raise ConfigError(f"the scorer {scorer.name} returned shape {values.shape} for {size} responses")
    if np.isinf(values).any():
        raise ConfigError(f"the scorer {scorer.name} returned an infinite score; NaN is for where there is none")
    return values


def _why_all_missing(scorer: Scorer, items: Sequence[Item]) -> str:
    if isinstance(scorer, Column):
        known = {name for item in items for name in item.columns}
        hint = nearest(scorer.column, known) if known else " (the data hold no columns)"
        return f"no response has a value in the column {scorer.column!r}{hint}"
    return (
        f"the scorer {scorer.name} has no score for any of the {len(items):,} responses"
        + (" (each is too short)" if scorer.name == "reading_level" else "")
        + "; choose another scorer or other data"
    )


def _part_report(
    records: Sequence[Record],
    values: np.ndarray,
    n_responses: int,
    weight: float,
    at_low: np.ndarray | None,
    at_high: np.ndarray | None,
) -> PartReport:
    there = values[~np.isnan(values)]
    some = len(there) > 0
    (share, low, high), n, ties = _agreement(records, values)
    return PartReport(
        weight=weight,
        missing=n_responses - len(there),
        mean=float(there.mean()) if some else math.nan,
        deviation=float(there.std()) if some else math.nan,
        low=float(there.min()) if some else math.nan,
        high=float(there.max()) if some else math.nan,
        at_low=float(at_low.sum() / len(there)) if some and at_low is not None else 0.0,
        at_high=float(at_high.sum() / len(there)) if some and at_high is not None else 0.0,
        agreement=(share, low, high),
        n_agreement=n,
        ties=ties,
    )


def _agreement(records: Sequence[Record], values: np.ndarray) -> tuple[tuple[float, float, float], int, float]:
    """(share, low, high), how many comparisons count, and the share of ties among them."""
    margins, weights, clusters, up, down = [], [], [], [], []
    start = 0
    for record in records:
        for comparison in record.comparisons:
            direction = math.copysign(1.0, comparison.preference - 0.5) if comparison.preference != 0.5 else math.nan
            margins.append(direction * (values[start + comparison.winner] - values[start + comparison.loser]))
            weights.append(record.weight)
            clusters.append(record.conversation or record.id)
        for item, value in zip(record.items, values[start : start + len(record.items)], strict=True):
            if item.label is not None and not np.isnan(value):
                (up if item.label else down).append(value)
        start += len(record.items)
    if margins:
        wins = statistics.wins(margins)
        found = statistics.mean(wins, weights=weights, clusters=clusters, bounds=(0.0, 1.0))
        ties = float((wins == 0.5).sum() / found.n) if found.n else math.nan
        return (found.value, found.low, found.high), found.n, ties
    if not (up and down):
        return (math.nan, math.nan, math.nan), 0, math.nan
    lower = np.sort(down)
    below, not_above = np.searchsorted(lower, up, "left"), np.searchsorted(lower, up, "right")
    pairs = len(up) * len(down)
    return (
        (float((below + not_above).sum() / 2 / pairs), math.nan, math.nan),
        pairs,
        float((not_above - below).sum() / pairs),
    )


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = ~np.isnan(a) & ~np.isnan(b)
    if both.sum() < 2 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return math.nan
    return float(np.corrcoef(a[both], b[both])[0, 1])
