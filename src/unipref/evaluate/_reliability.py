"""Is a preference model as sure as it should be: how often it is right where it says so, and what chance makes of that.

Which side of a pair stands first means nothing, so every pair is looked at in both orders, half each: whatever is said
here is the same where sides are exchanged.
"""

import math
from typing import Any

import numpy as np

from unipref.core.statistics import mean, sigmoid
from unipref.evaluate._calibration import equal_mass, fit_temperature

__all__ = ["BINS", "CURVE", "debiased_square", "reliability"]

BINS = (5, 10, 20)  # equal-width bins, as arXiv:2312.07401 has them
CURVE = 10  # equal-mass bins of the curve
AT_ONCE = 2_000_000


def reliability(
    logit: np.ndarray,
    p: np.ndarray,
    weight: np.ndarray,
    conversation: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Calibration of sigmoid(logit) as the probability of a vote for the first side.

    Args:
        p: labels, which may be shares of votes.
        conversation: rows of one belong together.

    Returns:
        equal_width: per number of bins over [0, 1], ece (mean |share - probability| of the bins, by weight), ace (the
            mean over bins that are not empty, each the same; the name's "adaptive" reading is `ece` below) and mce (the
            greatest). A probability on an edge belongs to the bin below. The definition is that of arXiv:2312.07401's
            code, which looks at both orders too.
        curve: bins of equal weight by confidence max(p, 1 - p): confidence, right [value, low, high], n.
        ece: mean |right - confidence| over these bins. It is above 0 for any sample.
        ece_by_chance: [mean, upper 95 %] of what a calibrated model would get here, and ece_p, how often it would get
            as much as this one: residuals of whole conversations change their sign at random, around their bin's mean.
        squared: the mean square of the same gaps without that excess (`debiased_square`); it can be below 0 by chance.
            None where a bin has one conversation only.
        debiased: the square root of `squared`, 0 where that is below 0: the root mean square calibration error.
        temperature: what the logits are best divided by, on these rows themselves; above 1 the model claims too much.
            None where no temperature makes it better than a coin.
    """
    order = np.lexsort((weight, p, logit))  # so that no order of rows moves a last digit
    order = order[weight[order] > 0]
    logit, p, weight, conversation = (a[order] for a in (logit, p, weight, conversation))
    both = np.concatenate([sigmoid(logit), sigmoid(-logit)])
    labels, mass = np.concatenate([p, 1 - p]), np.concatenate([weight, weight])
    temperature = fit_temperature(np.concatenate([logit, -logit]), np.concatenate([weight * p, weight * (1 - p)]))
    confidence = sigmoid(np.abs(logit))
    right = np.where(logit == 0, 0.5, np.where(logit > 0, p, 1 - p))
    bins = equal_mass(confidence, weight, CURVE)
    gaps, masses = _by_conversation(right - confidence, weight, conversation, bins)
    total = masses.sum()
    ece = float(np.abs(gaps.sum(axis=0)).sum() / total)
    drawn = _by_chance(gaps, masses, seed, resamples)
    squared = debiased_square(gaps, masses)
    return {
        "equal_width": {str(k): _equal_width(both, labels, mass, k) for k in BINS},
        "curve": [
            {
                "confidence": float(_sum(weight[here] * confidence[here]) / _sum(weight[here])),
                "right": mean(right[here], weights=weight[here], clusters=conversation[here], bounds=(0.0, 1.0),
                              seed=seed, resamples=resamples).as_list(),
                "n": int(here.sum()),
            }
            for here in (bins == k for k in np.unique(bins))
        ],
        "ece": ece,
        "ece_by_chance": [float(drawn.mean()), float(np.quantile(drawn, 0.95))],
        "ece_p": float((1 + (drawn >= ece * (1 - 1e-9)).sum()) / (1 + len(drawn))),
        "squared": squared,
        "debiased": None if squared is None else math.sqrt(max(0.0, squared)),
        "temperature": temperature if math.isfinite(temperature) else None,
    }  # fmt: skip


def debiased_square(gaps: np.ndarray, masses: np.ndarray) -> float | None:
    """Mean over bins, by weight, of the squared mean gap, without what chance adds to a square.

    The square of a mean of noisy gaps is too large by their variance. The products of gaps of two *different*
    conversations are not: their mean is the estimate. With one pair a conversation, equal weights and one probability
    a bin, it is (y - p)^2 - y (1 - y) / (n - 1), y the bin's share.

    Source: Broecker 2012, Climate Dynamics 39; Ferro and Fricker 2012, Quarterly Journal of the Royal Meteorological
    Society 138; Kumar, Liang and Ma 2019, arXiv:1909.10155 §4.1. For weights, soft labels and conversations of several
    pairs, in which the sources have none, products run over different conversations (our generalisation).

    Args:
        gaps: (conversations, bins) sums of weight * (right - confidence).
        masses: (conversations, bins) sums of weight.

    Returns:
        None where a bin that is not empty has one conversation: it cannot be told there.
    """
    total, found = masses.sum(), []
    for gap, mass in zip(gaps.T, masses.T, strict=True):
        if not mass.any():
            continue
        if (mass > 0).sum() < 2:
            return None
        share = _sum(mass) / total
        found.append(share * (_sum(gap) ** 2 - _sum(gap**2)) / (_sum(mass) ** 2 - _sum(mass**2)))
    return math.fsum(found)


def _equal_width(probability: np.ndarray, labels: np.ndarray, weight: np.ndarray, bins: int) -> dict[str, float]:
    at = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], probability, side="left")  # an edge belongs below
    gaps = np.array([_sum((weight * (labels - probability))[at == k]) for k in range(bins)])
    masses = np.array([_sum(weight[at == k]) for k in range(bins)])
    each = np.abs(gaps[masses > 0] / masses[masses > 0])
    return {
        "ece": float(np.abs(gaps).sum() / masses.sum()),
        "ace": float(each.mean()),
        "mce": float(each.max()),
    }


def _by_conversation(
    gap: np.ndarray, weight: np.ndarray, conversation: np.ndarray, bins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(conversations, bins) sums of weight * gap and of weight, conversations in sorted order."""
    names, row = np.unique(conversation.astype(str), return_inverse=True)
    gaps, masses = np.zeros((2, len(names), CURVE))
    np.add.at(gaps, (row, bins), weight * gap)
    np.add.at(masses, (row, bins), weight)
    return gaps, masses


def _by_chance(gaps: np.ndarray, masses: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """(resamples,) ECE of a calibrated model: each conversation's gaps, around their bin's mean, with a random sign."""
    mass = masses.sum(axis=0)
    n = (masses > 0).sum(axis=0)
    means = np.divide(gaps.sum(axis=0), mass, out=np.zeros_like(mass), where=mass > 0)
    # centred on an estimated mean, n conversations show (n - 1) / n of their variance
    around = (gaps - means * masses) * np.sqrt(np.divide(n, n - 1, out=np.ones(len(n)), where=n > 1))
    generator = np.random.default_rng(seed)
    at_once = max(1, AT_ONCE // len(gaps))
    drawn = []
    for start in range(0, resamples, at_once):
        signs = generator.integers(0, 2, size=(min(at_once, resamples - start), len(gaps))) * 2.0 - 1
        drawn.append(np.abs(signs @ around).sum(axis=1) / mass.sum())
    return np.concatenate(drawn)


def _sum(values: np.ndarray) -> float:
    return math.fsum(values)
