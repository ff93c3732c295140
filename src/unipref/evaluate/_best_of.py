"""Over-optimisation: what the choice of a proxy reward is worth to a gold reward, the more it may choose from."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import DataError
from unipref.core.statistics import interval_of, joint_means

__all__ = ["best_of_n", "chosen_of"]

SHOWN = 16  # numbers of samples that are told: all up to here, then powers of two


def best_of_n(
    proxy: Sequence[Sequence[float]],
    gold: Sequence[Sequence[float]],
    *,
    conversation: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """The mean gold (and proxy) reward of the response that the proxy likes best among n samples, for n = 1 ... k.

    Exact for the samples at hand: every choice of n of a prompt's k samples counts once (`chosen_of`), none is drawn.
    What varies is the prompts, and the intervals are over them.

    Args:
        proxy: per prompt its samples' rewards by the model that chooses.
        gold: the same samples' rewards by what is wanted. It should not be what the proxy was fitted to.
        conversation: of each prompt, so that prompts of one stay together; default: every prompt alone.

    Returns:
        k: the fewest samples of a prompt, the largest n. prompts. n: 1 ... 16, then powers of two, and k.
        kl: per n log n - (n - 1) / n, nats: how far best-of-n is from plain sampling at most. It is the divergence only
            where no two samples are alike; an upper bound otherwise (arXiv:2401.01879 §3), and far above it for n
            beyond the number of different answers.
        gold, proxy: per n [value, low, high].
        peak: n where gold is greatest, its gold [value, low, high], and n_range, where 95 % of resamples have it.
        fall: [peak's gold - gold at k, low, high] of the n that shows it best: the interval holds for all n at once, so
            that the luck of picking a peak is in it. overoptimised: whether its low is above 0.
        fit: alpha and beta of gold(n) - gold(1) = d (alpha - beta d), d = sqrt(kl) (arXiv:2210.10760 §3.1), by least
            squares over the n told, each [value, low, high]; None for fewer than three.
        ties: share of samples whose proxy reward another sample of the prompt has, too.

    Raises:
        DataError: there is no prompt, the two differ in shape, or a reward is not a finite number.
    """
    scores = _checked(proxy, gold)
    names = [str(i) for i in range(len(scores))] if conversation is None else [str(name) for name in conversation]
    if len(names) != len(scores):
        raise DataError(f"best-of-n has {len(scores)} prompts and {len(names)} conversations; give one for each prompt")
    k = min(len(p) for p, _ in scores)
    told = sorted({*range(1, min(k, SHOWN) + 1), *(2**i for i in range(k.bit_length()) if 2**i <= k), k})
    kl = [math.log(n) - (n - 1) / n for n in told]
    columns = [np.array([chosen_of(p, value, told) for p, value in pairs]) for pairs in
               (scores, [(p, p) for p, _ in scores])]  # fmt: skip
    joint = joint_means(
        [(curve[:, i], None, names) for curve in columns for i in range(len(told))], seed=seed, resamples=resamples
    )
    size = len(told)
    value, drawn = joint.values[:size], joint.drawn[:, :size]

    def triple(number: float, resampled: np.ndarray) -> list[float | None]:
        return _triple(number, interval_of(number, resampled, joint.clusters))

    top = int(np.argmax(value))
    at = np.sort(np.array(told)[np.argmax(drawn, axis=1)])
    return {
        "k": k,
        "prompts": len(scores),
        "n": told,
        "kl": kl,
        "gold": [triple(value[i], drawn[:, i]) for i in range(size)],
        "proxy": [triple(joint.values[size + i], joint.drawn[:, size + i]) for i in range(size)],
        "peak": {
            "n": told[top],
            "gold": triple(value[top], drawn[:, top]),
            "n_range": [int(np.quantile(at, q, method="nearest")) for q in (0.025, 0.975)],
        },
        **_fall(value, drawn),
        "fit": _fit(np.sqrt(kl), value, drawn, triple) if size > 2 else None,
        "ties": sum(len(p) - _alone(p) for p, _ in scores) / sum(len(p) for p, _ in scores),
    }


def chosen_of(proxy: np.ndarray, gold: np.ndarray, ns: Sequence[int]) -> list[float]:
    """Mean of `gold` at the sample of greatest `proxy`, over all choices of n of the samples, for each n of `ns`.

    The sample that is j-th from below is chosen by C(j - 1, n - 1) of the C(k, n) choices. Samples of equal proxy share
    theirs, as if a fair coin had decided.

    Example:
        >>> chosen_of(np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 6.0]), [1, 2, 3])  # of two: 3, 6 and 6
        [3.0, 5.0, 6.0]
    """
    levels, at, counts = np.unique(proxy, return_inverse=True, return_counts=True)
    means = np.array([math.fsum(gold[at == level]) / counts[level] for level in range(len(levels))])
    k, below = len(proxy), np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    found, held, n = [], np.ones(len(below)), 0  # held: the share of choices that lie within the lowest so many samples
    for wanted in ns:
        while n < wanted:
            held = held * np.maximum(below - n, 0.0) / (k - n)
            n += 1
        found.append(math.fsum(np.diff(held) * means))
    return found


def _alone(proxy: np.ndarray) -> int:
    return int((np.unique(proxy, return_counts=True)[1] == 1).sum())


def _fall(value: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """Gold at n above gold at k, for the n whose lower end, simultaneous over n, is highest."""
    if len(value) < 2:
        return {"fall": [0.0, None, None], "overoptimised": False}
    gaps, resampled = value[:-1] - value[-1], drawn[:, :-1] - drawn[:, -1:]
    spread = resampled.std(axis=0)
    known = spread > 1e-12 * max(1.0, float(np.abs(value).max()))
    if not known.any():
        return {"fall": [float(gaps.max()), None, None], "overoptimised": False}
    away = np.abs(resampled[:, known] - gaps[known]) / spread[known]
    reach = float(np.quantile(away.max(axis=1), 0.95)) * spread[known]
    best = int(np.argmax(gaps[known] - reach))
    number = float(gaps[known][best])
    low, high = number - float(reach[best]), number + float(reach[best])
    return {"fall": [number, low, high], "overoptimised": low > 0}


def _fit(d: np.ndarray, value: np.ndarray, drawn: np.ndarray, triple: Any) -> dict[str, Any]:
    solve = np.linalg.pinv(np.stack([d, -(d**2)], axis=1))  # gold(n) - gold(1) = alpha d - beta d^2
    number, resampled = solve @ (value - value[0]), (drawn - drawn[:, :1]) @ solve.T
    return {name: triple(float(number[i]), resampled[:, i]) for i, name in enumerate(("alpha", "beta"))}


def _checked(proxy: Any, gold: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    sides = [[np.asarray(row, dtype=np.float64) for row in rows] for rows in (proxy, gold)]
    if not sides[0]:
        raise DataError("best-of-n needs prompts with samples that both the proxy and the gold reward have scored")
    if [row.shape for row in sides[0]] != [row.shape for row in sides[1]]:
        raise DataError("proxy and gold scores differ in their numbers of prompts or samples; score the same samples")
    for name, rows in zip(("proxy", "gold"), sides, strict=True):
        for i, row in enumerate(rows):
            if row.ndim != 1 or not len(row) or not np.isfinite(row).all():
                raise DataError(
                    f"the {name} scores of prompt {i} are not one finite number per sample; "
                    "score every sample again, or leave the prompt out"
                )
    return list(zip(*sides, strict=True))


def _triple(value: float, ends: tuple[float, float]) -> list[float | None]:
    return [None if math.isnan(x) else float(x) for x in (value, *ends)]
