"""How long a response is, as it is or by how near it comes to a target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError
from unipref.core.records import Text
from unipref.features.readability import words
from unipref.rewards.scorers._common import UNIPREF, check_choice, check_flag, check_number, score_responses

__all__ = ["Length"]

UNITS = {"words": lambda text: len(words(text)), "characters": lambda text: len(text.strip())}


@method(
    "length",
    kind="scorer",
    source="unipref",
    formula="n | min(n, cap) / cap | max(0, 1 - |n - target| / width)",
    citation=UNIPREF,
)
@dataclass(frozen=True)
class Length:
    """The length of a response, capped to [0, 1] or as nearness to a target where one is given.

    Without cap and target the score is the number itself; an empty response has no score.

    Args:
        unit: "words" or "characters".
        cap: score min(n, cap) / cap, which is 1 from `cap` up.
        target: score 1 at `target`, falling in a straight line to 0 at a distance of `width`.
        width: with `target` only; `target` itself where not given.
        inverted: score 1 minus that, so that shorter (or farther from the target) is better; needs cap or target.
    """

    name: ClassVar[str] = "length"
    unit: str = "words"
    cap: float | None = None
    target: float | None = None
    width: float | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        check_choice(self.name, "unit", self.unit, UNITS)
        check_flag(self.name, "inverted", self.inverted)
        for option in ("cap", "target", "width"):
            if getattr(self, option) is not None:
                check_number(self.name, option, getattr(self, option), above=0)
        if self.cap is not None and self.target is not None:
            raise ConfigError("length: give cap or target, not both")
        if self.width is not None and self.target is None:
            raise ConfigError("length: width belongs to target, and there is none")
        if self.inverted and self.cap is None and self.target is None:
            raise ConfigError("length: inverted needs cap or target; for shorter is better, give a negative weight")

    @property
    def version(self) -> str:
        return f"1 {self!r}"

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) in [0, 1] with cap or target, else in `unit`; NaN for an empty response."""
        size = score_responses(UNITS[self.unit], responses)
        if self.cap is not None:
            size = np.minimum(size, self.cap) / self.cap
        elif self.target is not None:
            size = np.maximum(0.0, 1.0 - np.abs(size - self.target) / (self.width or self.target))
        return 1.0 - size if self.inverted else size
