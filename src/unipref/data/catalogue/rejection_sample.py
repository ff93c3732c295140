"""Statistical rejection sampling of responses."""

import math
import random
from collections.abc import Mapping

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Record
from unipref.data.operators import LeftOut, Operator, digest, each, rated, with_pairs
from unipref.data.report import RowFault

PAIRINGS = ("first_round", "tournament", "best_worst", "none")


@method(
    "rejection_sample",
    kind="operator",
    source="arXiv:2309.06657; RS+ as arXiv:2410.04203 describes it",
    formula="accept y with probability exp((r(y) - r_max) / beta), r_max over those not yet accepted, until k are",
    needs=("reward",),
    citation=Citation(
        "Statistical Rejection Sampling Improves Preference Optimization",
        ("Tianqi Liu", "Yao Zhao", "Rishabh Joshi", "Misha Khalman", "Mohammad Saleh", "Peter J. Liu", "Jialu Liu"),
        2023,
        "2309.06657",
    ),
)
def rejection_sample(
    *,
    k: int = 8,
    beta: float = 0.5,
    by: str = "reward",
    variant: str = "rso",
    pairing: str | None = None,
    seed: int = 0,
) -> Operator:
    """The responses that survive rejection sampling, about distributed like policy * exp(reward / beta), and pairs.

    Candidates are told apart by their place, not by their text, so a response that was sampled twice counts twice;
    they are visited in random order; and the sampling stops at `k`, all of which public listings get wrong.

    Args:
        k: responses to keep of each record (the source: 8 of 64); "rs_plus" ignores it.
        beta: trust in the reward, in its units; infinity takes the first `k` visited, 0 the `k` best. For "rs_plus"
            the temperature tau of exp((percentile - 1) / tau), over one pass.
        by: the column of the reward.
        variant: "rso" or "rs_plus".
        pairing: how survivors are compared, by their reward, ties left: "first_round" (disjoint pairs, drawn at
            random; the default of "rso"), "tournament" (k - 1 pairs of an elimination), "best_worst" (the default of
            "rs_plus") or "none".
    """
    if variant not in ("rso", "rs_plus"):
        raise ConfigError(f"rejection sampling has no variant {variant!r}{nearest(variant, ('rso', 'rs_plus'))}")
    how = pairing or {"rso": "first_round", "rs_plus": "best_worst"}[variant]
    if how not in PAIRINGS:
        raise ConfigError(f"survivors are paired by no {how!r}{nearest(how, PAIRINGS)}")
    if not beta >= 0 or k < (1 if how == "none" else 2):
        raise ConfigError(f"beta must be 0 or more and k 2 or more: beta={beta}, k={k}")

    def make(record: Record) -> list[Record]:
        reward = rated(record, by)
        rng = random.Random(f"rejection {seed} {digest(record, seed).hex()}")
        if variant == "rs_plus":
            below = {i: sum(other <= r for other in reward.values()) / len(reward) for i, r in reward.items()}
            kept = [i for i in reward if rng.random() < _acceptance(below[i], 1.0, beta)]
        elif k > len(reward):
            raise RowFault(f"fewer than {k} candidates", f"{len(reward)}")
        else:
            kept = accepted(reward, k, beta, rng)
        pairs = _paired(kept, reward, how, rng)
        pairs = [(i, j) for i, j in pairs if record.items[i].response != record.items[j].response]
        if how != "none" and not pairs:
            raise LeftOut(f"no two survivors differ in {by}")
        return [with_pairs(record, {(i, j): reward[i] - reward[j] for i, j in pairs}, keep=kept)]

    options = {"k": k, "beta": beta, "by": by, "variant": variant, "pairing": how, "seed": seed}
    return each("rejection_sample", options, make, changed="responses drawn by rejection")


def accepted(reward: Mapping[int, float], k: int, beta: float, rng: random.Random) -> list[int]:
    """`k` keys of `reward` in the order of their acceptance."""
    left, kept = list(reward), []
    while len(kept) < k:
        best = max(reward[i] for i in left)
        for i in rng.sample(left, len(left)):
            if rng.random() < _acceptance(reward[i], best, beta):
                kept.append(i)
                if len(kept) == k:
                    break
        left = [i for i in left if i not in kept]
    return kept


def _acceptance(value: float, best: float, beta: float) -> float:
    if value == best:
        return 1.0
    return math.exp((value - best) / beta) if beta > 0 else 0.0


def _paired(kept: list[int], reward: Mapping[int, float], how: str, rng: random.Random) -> list[tuple[int, int]]:
    def ordered(i: int, j: int) -> tuple[int, int]:
        return (i, j) if reward[i] > reward[j] else (j, i)

    if how == "none":
        return []
    if how == "best_worst":
        pairs = [(max(kept, key=reward.__getitem__), min(kept, key=reward.__getitem__))]
    else:
        pairs, standing = [], rng.sample(kept, len(kept))
        while len(standing) > 1:
            games = [ordered(i, j) for i, j in zip(standing[::2], standing[1::2], strict=False)]
            pairs += games
            if how == "first_round":
                break
            standing = [*(winner for winner, _ in games), *standing[2 * len(games) :]]
    return [(i, j) for i, j in pairs if reward[i] > reward[j]]
