"""How much of a response is words of a list."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError
from unipref.core.records import Text
from unipref.features import readability
from unipref.rewards.scorers._common import UNIPREF, check_flag, score_responses, strings

__all__ = ["WordList"]


@method(
    "word_list",
    kind="scorer",
    source="unipref",
    formula="words of the response in the list / words of the response",
    citation=UNIPREF,
)
@dataclass(frozen=True)
class WordList:
    """The share of a response's words that are in a list, whatever their case.

    Args:
        words: the list; every form that counts, since nothing is stemmed.
        file: a UTF-8 text file with one word a line, in place of `words` or beside it; empty lines and lines that begin
            with "#" are left out. A relative path is looked up from where the command runs.
        inverted: the share of the words that are not in the list.
    """

    name: ClassVar[str] = "word_list"
    words: tuple[str, ...] = ()
    file: str | None = None
    inverted: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", strings(self.name, "words", self.words))
        check_flag(self.name, "inverted", self.inverted)
        if not self.listed:
            raise ConfigError("word_list: the list is empty; give words, or a file with one word a line")
        for word in sorted(self.listed):
            if [_plain(found) for found in readability.words(word)] != [word]:
                raise ConfigError(f"word_list: {word!r} is not one word; for phrases and patterns use the scorer regex")

    @cached_property
    def listed(self) -> frozenset[str]:
        """The list, in lower case."""
        lines: list[str] = []
        if self.file is not None:
            try:
                lines = Path(self.file).expanduser().read_text(encoding="utf-8").splitlines()
            except OSError as err:
                raise ConfigError(f"word_list: the file {self.file} cannot be read ({err.strerror})") from err
            except UnicodeDecodeError as err:
                raise ConfigError(f"word_list: the file {self.file} is not UTF-8 ({err}); save it as UTF-8") from err
        kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        return frozenset(_plain(word) for word in (*self.words, *kept))

    @property
    def version(self) -> str:
        digest = hashlib.sha256("\n".join(sorted(self.listed)).encode()).hexdigest()
        return f"1 {digest} inverted={self.inverted}"

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) in [0, 1]; NaN where the response holds no word."""
        share = score_responses(self._share, responses)
        return 1.0 - share if self.inverted else share

    def _share(self, text: str) -> float:
        found = [_plain(word) for word in readability.words(text)]
        return sum(word in self.listed for word in found) / len(found) if found else np.nan


def _plain(word: str) -> str:
    return word.lower().replace("\u2019", "'")
