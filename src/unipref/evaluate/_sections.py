"""Subsets of a benchmark and the sections they make up, as RewardBench has them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, nearest
from unipref.core.statistics import joint_means
from unipref.evaluate._together import triple_of

__all__ = ["REWARD_BENCH", "by_section"]

# Sections of RewardBench 1 and how much each subset counts in its section: its number of pairs there, but math-prm at
# 984 instead of 447, as much as the six code subsets. Source: allenai/reward-bench, rewardbench/constants.py.
REWARD_BENCH: dict[str, dict[str, float]] = {
    "Chat": {"alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28,
             "mt-bench-med": 40},
    "Chat Hard": {"mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
                  "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46},
    "Safety": {"refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 250,
               "xstest-should-respond": 154, "donotanswer": 136},
    "Reasoning": {"math-prm": 984, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164,
                  "hep-rust": 164},
}  # fmt: skip

Sections = Mapping[str, Mapping[str, float] | Sequence[str]]


def by_section(
    right: np.ndarray,
    weight: np.ndarray,
    conversation: np.ndarray,
    subset: np.ndarray,
    sections: Sections | None,
    *,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Accuracy of subsets, of the sections they make up, and of all sections.

    Args:
        right: 1, 0.5 for equal scores, 0, and NaN for a pair without a winner.
        sections: per section its subsets, with how much each counts (`REWARD_BENCH`), or their names alone, which then
            count by their pairs. None: no sections.

    Returns:
        subsets: per subset accuracy [value, low, high], n, and ties, its pairs of equal score. sections: per section
            weighted (its subsets' accuracies, each as much as it counts), unweighted (each the same), strict (as
            weighted, equal scores wrong, which is how RewardBench 1 counts them), subsets (those that the data have)
            and absent (those that they have not; they count nowhere). overall: the mean of the sections that have a
            subset, each the same: weighted, unweighted, strict. elsewhere: subsets of no section.

    Raises:
        ConfigError: no subset of any section is in the data.
    """
    known = ~np.isnan(right) & (weight > 0)
    names = sorted({str(name) for name in subset[known]})
    at = np.array([str(name) for name in subset])
    columns = [
        (np.where(at == name, scores, np.nan), weight, conversation)
        for scores in (right, np.where(right == 0.5, 0.0, right))
        for name in names
    ]
    joint = joint_means(columns, seed=seed, resamples=resamples)
    half, strict = (
        {name: (joint.values[i + start], joint.drawn[:, i + start]) for i, name in enumerate(names)}
        for start in (0, len(names))
    )
    conversations = {name: len({str(c) for c in conversation[known & (at == name)]}) for name in names}

    def told(parts: Sequence[tuple[Any, float]], clusters: int) -> list[float | None]:
        value, drawn = _joined(parts)
        return triple_of(float(value), drawn, clusters, (0.0, 1.0))

    found: dict[str, Any] = {
        "subsets": {
            name: {
                "accuracy": told([(half[name], 1.0)], conversations[name]),
                "n": int((known & (at == name)).sum()),
                "ties": int((right[known & (at == name)] == 0.5).sum()),
            }
            for name in names
        },
        "sections": {},
        "overall": None,
        "elsewhere": names,
    }
    if sections is None:
        return found
    parts: dict[str, list[list[tuple[Any, float]]]] = {}
    for section, members in sections.items():
        counts = dict(members) if isinstance(members, Mapping) else {
            name: float(weight[known & (at == name)].sum()) for name in members
        }  # fmt: skip
        here = [name for name in counts if name in half]
        if not here:
            found["sections"][section] = {"subsets": [], "absent": list(counts)}
            continue
        parts[section] = [
            [(half[name], counts[name]) for name in here],
            [(half[name], 1.0) for name in here],
            [(strict[name], counts[name]) for name in here],
        ]
        clusters = min(conversations[name] for name in here)
        found["sections"][section] = {
            **{key: told(part, clusters) for key, part in zip(_WAYS, parts[section], strict=True)},
            "subsets": here,
            "absent": [name for name in counts if name not in half],
        }
    inside = {name for entry in found["sections"].values() for name in entry["subsets"]}
    if not inside:
        wanted = next(name for members in sections.values() for name in members)
        raise ConfigError(
            f"the data have no subset of any section, such as {wanted!r}{nearest(wanted, names)}; "
            "name the sections' subsets as the data do"
        )
    fewest = min(conversations[name] for name in inside)
    found["overall"] = {
        key: told([(_joined(each[i]), 1.0) for each in parts.values()], fewest) for i, key in enumerate(_WAYS)
    }
    found["elsewhere"] = [name for name in names if name not in inside]
    return found


_WAYS = ("weighted", "unweighted", "strict")


def _joined(parts: Sequence[tuple[Any, float]]) -> tuple[float, np.ndarray]:
    total = sum(mass for _, mass in parts)
    return sum(mass * part[0] for part, mass in parts) / total, sum(mass * part[1] for part, mass in parts) / total
