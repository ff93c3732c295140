"""What the scorers share: where their card points to, and checks of options."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from unipref.core.cards import UNIPREF as UNIPREF
from unipref.core.cards import Citation
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Text, plain_text

UPO = Citation(
    "Unified Preference Optimization: Language Model Alignment Beyond the Preference Frontier",
    ("Anirudhan Badrinath", "Prabhat Agarwal", "Jiajing Xu"),
    2024,
    "2405.17956",
)


def check_choice(scorer: str, option: str, value: Any, known: Iterable[str]) -> None:
    """Refuse a value that is none of `known`, with the nearest."""
    known = list(known)
    if value not in known:
        raise ConfigError(f"{scorer}: {option} is one of {', '.join(known)}, not {value!r}{nearest(str(value), known)}")


def check_number(scorer: str, option: str, value: Any, *, above: float | None = None) -> None:
    """Refuse what is no number, or not above `above`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ConfigError(f"{scorer}: {option} is a number, not {value!r}")
    if above is not None and not value > above:
        raise ConfigError(f"{scorer}: {option} is a number above {above}, not {value!r}")


def check_flag(scorer: str, option: str, value: Any) -> None:
    """Refuse what is neither true nor false."""
    if not isinstance(value, bool):
        raise ConfigError(f"{scorer}: {option} is true or false, not {value!r}")


def strings(scorer: str, option: str, value: Any) -> tuple[str, ...]:
    """`value` as a tuple of strings: one string or a sequence of them."""
    listed = (value,) if isinstance(value, str) else value
    if not isinstance(listed, Sequence) or not all(isinstance(entry, str) and entry for entry in listed):
        raise ConfigError(f"{scorer}: {option} is a text or a list of texts, not {value!r}")
    return tuple(listed)


def score_responses(score: Callable[[str], float], responses: Sequence[Text]) -> np.ndarray:
    """(n,) float64: `score` of each response as plain text; NaN where it is empty."""
    texts = [plain_text(response) for response in responses]
    return np.array([score(text) if text.strip() else np.nan for text in texts], dtype=np.float64)
