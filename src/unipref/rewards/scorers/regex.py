"""What a response says or leaves out, by regular expression."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError
from unipref.core.records import Text
from unipref.features.readability import words
from unipref.rewards.scorers._common import UNIPREF, check_choice, check_flag, score_responses, strings

__all__ = ["Regex"]

MEASURES = ("presence", "absence", "per_100_words")


@method(
    "regex",
    kind="scorer",
    source="unipref",
    formula="1[any pattern matches] | 1[none does] | 100 * matches / words",
    citation=UNIPREF,
)
@dataclass(frozen=True)
class Regex:
    """Whether, or how often, a response matches one of some patterns.

    Args:
        pattern: a regular expression of Python's `re`, or a list of them; it may match anywhere in the response.
        measure: "presence" (1 if any matches, else 0), "absence" (the reverse), or "per_100_words" (matches of all
            patterns, per 100 words; unbounded, so give the objective a clip).
        ignore_case: letters match in either case.
        inverted: the score turned round: 1 minus it, or for "per_100_words" its negative.
    """

    name: ClassVar[str] = "regex"
    pattern: str | tuple[str, ...]
    measure: str = "presence"
    ignore_case: bool = True
    inverted: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", strings(self.name, "pattern", self.pattern))
        check_choice(self.name, "measure", self.measure, MEASURES)
        check_flag(self.name, "ignore_case", self.ignore_case)
        check_flag(self.name, "inverted", self.inverted)
        if not self.pattern:
            raise ConfigError("regex: pattern is an empty list; give at least one")
        for pattern in self.pattern:
            try:
                re.compile(pattern)
            except re.error as err:
                raise ConfigError(f"regex: pattern {pattern!r} is no regular expression ({err})") from err

    @property
    def version(self) -> str:
        return f"1 {self!r}"

    @cached_property
    def _compiled(self) -> list[re.Pattern[str]]:
        return [re.compile(pattern, re.IGNORECASE if self.ignore_case else 0) for pattern in self.pattern]

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) 0 or 1, or matches per 100 words; NaN for an empty response, or for a share of no words."""
        if self.measure == "per_100_words":
            rate = score_responses(self._rate, responses)
            return -rate if self.inverted else rate
        found = score_responses(lambda text: any(pattern.search(text) for pattern in self._compiled), responses)
        return 1.0 - found if (self.measure == "absence") != self.inverted else found

    def _rate(self, text: str) -> float:
        matches = sum(1 for pattern in self._compiled for _ in pattern.finditer(text))
        n_words = len(words(text))
        return 100.0 * matches / n_words if n_words else np.nan
