"""How far apart a model sees what people chose and what they rejected: which behaviours it will learn first.

Where the features of the two sides lie far apart, the loss of preference training falls sooner. So a group of data that
is told apart easily is learned before the others and, where they pull elsewhere, instead of them. The numbers describe
the data and one model's features before training; they say nothing of who is right.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unipref.core.errors import DataError, ShapeError
from unipref.core.records import Record, plain_text
from unipref.explain._ranks import ranks, spearman
from unipref.features.terms import Vocabulary

__all__ = [
    "Distinguishability",
    "Sides",
    "distinguishability",
    "distinguishability_by_group",
    "hidden_sides",
    "learning_order",
    "steps_to",
    "text_sides",
]


@dataclass(frozen=True, eq=False)
class Sides:
    """Features of the two responses of N pairs.

    Attributes:
        chosen, rejected: (N, H).
        group: (N,) the pair's domain, "all" where it has none. prompt: (N,) its conversation.
        n_ties: pairs without a verdict, which are left out.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    group: np.ndarray
    prompt: np.ndarray
    n_ties: int = 0


@dataclass(frozen=True)
class Distinguishability:
    """How far apart the two sides are, each number beside what swapping the sides at random gives.

    Attributes:
        dist: Euclidean distance of the two means, in units of the features.
        fisher: its square over the sum of both sides' variances; no unit.
        auc: how often, of one response of each side drawn at random, the chosen one lies further along the line from
            the rejected mean to the chosen one. Each response is judged by the line through the pairs of other prompts:
            on the line through all of them, responses in many dimensions lie apart without any difference, and with
            one no further. Without a difference it is at or somewhat below 1/2; NaN of a single prompt.
        by_chance: per number [mean, low, high]: over random swaps of the sides, all pairs of a prompt at once, their
            mean and between what 95 % of them lie.
        p: per number the share of swaps that reach it, itself among them.
        n: pairs. n_prompts: what is swapped.
    """

    dist: float
    fisher: float
    auc: float
    by_chance: dict[str, list[float]]
    p: dict[str, float]
    n: int
    n_prompts: int

    def told(self) -> dict[str, Any]:
        """As a report has it."""
        return asdict(self)


def distinguishability(
    chosen: np.ndarray,
    rejected: np.ndarray,
    *,
    prompts: Sequence[Hashable] | None = None,
    swaps: int = 200,
    seed: int = 0,
) -> Distinguishability:
    """How far apart the features of chosen and of rejected responses are.

    Multiplying all features by a number multiplies `dist` by it, and changes neither `fisher` nor `auc`.

    Source: the distance of the means is arXiv:2403.18742's. Reconstructed: summaries were read, and the paper's own
    scaling of it is not known; `fisher`, `auc` and the baselines are ours.

    Args:
        chosen, rejected: (N, H), row i of both from one pair.
        prompts: (N,); None: every pair is a prompt of its own.
        swaps: random exchanges of the two sides.

    Raises:
        ShapeError: the two are not of one shape. DataError: no pair, or a feature that is not finite.
    """
    a, b = np.asarray(chosen, dtype=float), np.asarray(rejected, dtype=float)
    if a.ndim != 2 or a.shape != b.shape:
        raise ShapeError(
            f"chosen and rejected are features of the same pairs; they have the shapes {a.shape}, {b.shape}"
        )
    if not a.size:
        raise DataError("there is no pair whose sides could be told apart")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("a feature is not finite; leave the pairs out whose responses the model gave no number")
    place = np.unique(np.arange(len(a)) if prompts is None else np.asarray(prompts), return_inverse=True)[1]
    if place.shape != (len(a),):
        raise ShapeError(f"there are {len(a)} pairs and {len(place)} prompts")
    rng = np.random.default_rng(seed)
    numbers = _Numbers(a, b, place)
    found = numbers.of(np.ones(len(numbers.sizes)))
    drawn = [numbers.of(rng.choice([-1.0, 1.0], len(numbers.sizes))) for _ in range(swaps)]
    by_chance, p = {}, {}
    for i, name in enumerate(("dist", "fisher", "auc")):
        values = np.array([each[i] for each in drawn])
        low, high = np.quantile(values, [0.025, 0.975]) if swaps else (math.nan, math.nan)
        by_chance[name] = [float(values.mean()) if swaps else math.nan, float(low), float(high)]
        reach = (values >= found[i] * (1 - 1e-12)).sum()
        p[name] = math.nan if math.isnan(found[i]) else float((1 + reach) / (1 + swaps))
    return Distinguishability(*found, by_chance, p, len(a), len(numbers.sizes))


def distinguishability_by_group(sides: Sides, *, swaps: int = 200, seed: int = 0) -> dict[str, Distinguishability]:
    """The same for each group of `sides`, by name."""
    return {
        name: distinguishability(
            sides.chosen[sides.group == name],
            sides.rejected[sides.group == name],
            prompts=sides.prompt[sides.group == name],
            swaps=swaps,
            seed=seed,
        )
        for name in sorted(set(sides.group.tolist()))
    }


class _Numbers:
    """dist, fisher and auc for any exchange of the two sides of prompts; what no exchange changes is computed once."""

    def __init__(self, a: np.ndarray, b: np.ndarray, place: np.ndarray) -> None:
        self.half, self.centre, self.place = (a - b) / 2, (a + b) / 2, place
        self.sizes = np.bincount(place)
        self.sums = np.zeros((len(self.sizes), a.shape[1]))  # of a - b, per prompt
        np.add.at(self.sums, place, 2 * self.half)
        own = self.sums[place]
        self.centre_own, self.half_own = (self.centre * own).sum(axis=1), (self.half * own).sum(axis=1)
        middle = self.centre.mean(axis=0)
        self.total = 2 * float((self.half**2).sum() + ((self.centre - middle) ** 2).sum()) / len(a)

    def of(self, sign: np.ndarray) -> tuple[float, float, float]:
        """Where `sign`, 1 or -1 per prompt, says which are exchanged."""
        n, mine = len(self.place), sign[self.place]
        whole = sign @ self.sums
        between = float(whole @ whole) / n**2
        turned = mine * (self.half @ whole)
        middle = self.centre @ whole
        # the line without one's own prompt, whose part of `whole` is sign * sums
        rest = n - self.sizes[self.place]
        auc = math.nan
        if (rest > 0).all():
            chosen = (middle + turned - mine * self.centre_own - self.half_own) / rest
            rejected = (middle - turned - mine * self.centre_own + self.half_own) / rest
            auc = float((ranks(np.concatenate([chosen, rejected]))[:n].sum() - n * (n + 1) / 2) / n**2)
        # a side's mean is the middle and half of the way between the means: so far as to be in neither variance
        variance = self.total - between / 2
        # of equal points the variances are a rounding of 0
        return math.sqrt(between), between / variance if variance > 1e-12 * self.total else math.nan, auc


# ---- features ----


def text_sides(records: Iterable[Record], *, terms: int = 2000) -> Sides:
    """Features from the words alone: the `terms` most common words and pairs of words, rare ones weighing more.

    For data without a model. What differs here is wording; a model may see more, or less.

    Raises:
        DataError: no pair has a verdict.
    """
    chosen, rejected, group, prompt, n_ties = _decided(list(records))
    texts = [[plain_text(record.items[i].response) for record, i in side] for side in (chosen, rejected)]
    vocabulary = Vocabulary.of([*texts[0], *texts[1]])
    rows = [vocabulary.rows(side) for side in texts]
    counts = sum(np.bincount(side.column, minlength=len(vocabulary.index)) for side in rows)
    column = np.full(len(vocabulary.index), -1)
    kept = np.argsort(-counts, kind="stable")[:terms]
    column[kept] = np.arange(len(kept))
    features = []
    for side in rows:
        dense = np.zeros((side.n, max(len(kept), 1)))
        inside = column[side.column] >= 0
        dense[side.row[inside], column[side.column[inside]]] = side.value[inside]
        features.append(dense)
    return Sides(*features, group, prompt, n_ties)


def hidden_sides(
    records: Iterable[Record], policy: Any, tokenizer: Any, *, max_length: int | None = None, max_tokens: int = 16384
) -> Sides:
    """Features from a model: the mean of its last hidden states over each response's tokens.

    Args:
        policy: an `engine.Policy`. tokenizer: its own.
        max_length, max_tokens: as for `data.encode_records` and `engine.embed`.

    Raises:
        DataError: no pair has a verdict, or a record cannot be encoded.
    """
    from unipref.data import encode_records
    from unipref.engine.embeddings import embed

    kept = [record for record in records if any(c.preference != 0.5 for c in record.comparisons)]
    chosen, rejected, group, prompt, n_ties = _decided(kept)
    encoded, _ = encode_records(kept, tokenizer, max_length=max_length, strict=True)
    vectors = embed(policy, [e.trie for e in encoded], of="response", normalise=False, max_tokens=max_tokens)
    of = {id(record): found for record, found in zip(kept, vectors, strict=True)}
    features = [np.stack([of[id(record)][i] for record, i in side]) for side in (chosen, rejected)]
    return Sides(*features, group, prompt, n_ties)


_Side = list[tuple[Record, int]]


def _decided(records: Sequence[Record]) -> tuple[_Side, _Side, np.ndarray, np.ndarray, int]:
    chosen, rejected, group, prompt, n_ties = [], [], [], [], 0
    for record in records:
        for comparison in record.comparisons:
            if comparison.preference == 0.5:
                n_ties += 1
                continue
            better, worse = comparison.winner, comparison.loser
            if comparison.preference < 0.5:
                better, worse = worse, better
            chosen.append((record, better))
            rejected.append((record, worse))
            group.append(record.domain or "all")
            prompt.append(record.conversation or record.id)
    if not chosen:
        raise DataError(f"no pair has a verdict ({n_ties} ties), so there are no two sides to tell apart")
    return chosen, rejected, np.array(group), np.array(prompt), n_ties


# ---- beside a training run ----


def steps_to(rows: Iterable[Mapping[str, Any]], level: float, *, column: str = "loss") -> float:
    """The first step at which `column` of a training log is at most `level`; inf where it never is."""
    for row in rows:
        value = row.get(column)
        if value is not None and math.isfinite(value) and value <= level:
            return float(row["step"])
    return math.inf


def learning_order(distance: Mapping[Hashable, float], steps: Mapping[Hashable, float]) -> tuple[float, int]:
    """Rank correlation of groups' distinguishability with how long each took to reach a loss, and of how many groups.

    Near -1: what is easier to tell apart was learned sooner. Of n groups, chance alone gives -1 once in n! orders.

    Args:
        distance: group -> `dist`, `fisher` or `auc`. steps: group -> `steps_to`; groups that never reached the loss
            come last together.

    Raises:
        DataError: fewer than three groups are in both.
    """
    both = [name for name in distance if name in steps]
    if len(both) < 3:
        raise DataError(
            f"an order needs three groups or more with features and a log, and there are {len(both)}: {both}"
        )
    return spearman([distance[name] for name in both], [steps[name] for name in both]), len(both)
