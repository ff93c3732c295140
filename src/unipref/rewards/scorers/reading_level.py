"""Easy to read is good: the reading-level reward of UPO."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError
from unipref.core.records import Text
from unipref.features.readability import MIN_WORDS, RECIPE, reading_grade
from unipref.rewards.scorers._common import UPO, check_number, score_responses

__all__ = ["ReadingLevel"]


@method(
    "reading_level",
    kind="scorer",
    source="arXiv:2405.17956, reading-level reward",
    formula="clip((hardest - grade) / (hardest - easiest), 0, 1)",
    citation=UPO,
)
@dataclass(frozen=True)
class ReadingLevel:
    """How easy a response is to read: 1 at or below one school grade, 0 at or above another.

    The grade is `unipref.features.reading_grade`, which says where it departs from the paper's `textstat`.

    Args:
        easiest: the grade that still scores 1 (the paper's 4).
        hardest: the grade that scores 0 already (the paper's 9).
        min_words: a response of fewer words gets no score.
    """

    name: ClassVar[str] = "reading_level"
    easiest: float = 4.0
    hardest: float = 9.0
    min_words: int = MIN_WORDS

    def __post_init__(self) -> None:
        for option in ("easiest", "hardest"):
            check_number(self.name, option, getattr(self, option))
        check_number(self.name, "min_words", self.min_words, above=0)
        if not self.easiest < self.hardest:
            raise ConfigError(
                f"reading_level: easiest must lie below hardest: {self.easiest} and {self.hardest}; "
                "for texts that should be hard, give a negative weight"
            )

    @property
    def version(self) -> str:
        return f"{RECIPE} {self!r}"

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) in [0, 1]; NaN where the response has no grade."""
        grades = score_responses(lambda text: reading_grade(text, min_words=self.min_words), responses)
        return np.clip((self.hardest - grades) / (self.hardest - self.easiest), 0.0, 1.0)
