"""Relevance that cannot be had by copying the question: regularized relevance reward."""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Message, Text, last_user_turn, plain_text
from unipref.data import conversation_key
from unipref.data.report import RowFault
from unipref.data.sources import open_source
from unipref.features.embedding import Embedder, default_embedder, make_embedder
from unipref.features.surface import RECIPE, tokens
from unipref.rewards.scorers._common import check_number

__all__ = ["RegularizedRelevance"]


@method(
    "r3",
    kind="scorer",
    status="reconstructed",
    source="arXiv:2402.03469, its abstract and a summary by others",
    formula="open: max(0, cos(x, y)) * n / per * R; closed: F(max cos(gold, y)) * R; R = distinct trigrams / trigrams",
    citation=Citation(
        "Preference-free Alignment Learning with Regularized Relevance Reward",
        ("Sungdong Kim", "Minjoon Seo"),
        2024,
        "2402.03469",
    ),
)
@dataclass(frozen=True)
class RegularizedRelevance:
    """How near a response is to what was asked, times how much it says, times how little it repeats itself.

    Nearness alone is best satisfied by the question itself; its words say little at little length, and a phrase said
    again and again loses by repetition. A prompt with a known answer (`references`) is closed: there nearness to that
    answer counts in place of nearness to the question, and length does not. Every other prompt is open. An empty
    response scores 0, since it says nothing.

    Length has no upper bound unless `cap` gives one, as in the source; without it an answer wins by going on for long
    enough, so set it wherever something is trained or selected by this score. What a word is follows the script, a
    letter being one where no spaces are written.

    Reconstructed: that relevance is regularized by a mixture of terms is the abstract's; the terms, their product, the
    division by 100 words and the distinction of open and closed prompts come from a summary by others. There a
    classifier says which prompts are closed, and here that an answer is known. The range of nearness to an answer, the
    bound at 0 (below it a longer answer would lose and a repeated one win) and the cap are ours.

    Args:
        embedder: what makes vectors of texts: a name or one name with its options, as the features of a reward model
            take it ({model: {model: org/retriever}}), or an object with `embed(texts)`. The sentence model of the extra
            `embeddings` where it is installed, else hashed words, which know no synonyms.
        per: words at which the length incentive is 1.
        cap: its largest value; None for none.
        references: a data file whose rows have `prompt` and `gold` (or `reference`). Prompts are matched by their text,
            whatever its case and white space; of several answers the nearest counts.
        reference_range: [low, high], the nearness to an answer that counts 0 and 1, straight between.
    """

    name: ClassVar[str] = "r3"
    embedder: str | Mapping[str, Any] | Embedder | None = None
    per: float = 100.0
    cap: float | None = None
    references: str | None = None
    reference_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_number(self.name, "per", self.per, above=0)
        if self.cap is not None:
            check_number(self.name, "cap", self.cap, above=0)
        bounds = self.reference_range
        if isinstance(bounds, str) or not isinstance(bounds, Sequence) or len(bounds) != 2:
            raise ConfigError(f"r3: reference_range is [low, high], not {bounds!r}")
        for bound in bounds:
            check_number(self.name, "reference_range", bound)
        if not bounds[0] < bounds[1]:
            raise ConfigError(f"r3: reference_range is [low, high] with low below high, not {list(bounds)}")
        object.__setattr__(self, "reference_range", tuple(bounds))
        if self.references is not None and (not isinstance(self.references, str) or not self.references):
            raise ConfigError(f"r3: references is the path of a data file with `gold` answers, not {self.references!r}")
        _ = self._embedder

    @property
    def version(self) -> str | None:
        """From the embedder, the options and the known answers; None with an embedder that does not say what it is."""
        identity = getattr(self._embedder, "identity", None)
        if identity is None:
            return None
        known = sorted((key, sorted(answers)) for key, answers in self._answers.items())
        digest = hashlib.sha256(repr(known).encode("utf-8", "replace")).hexdigest()[:32]
        return f"1 {RECIPE} {identity} {self.per} {self.cap} {self.reference_range} {digest}"

    @cached_property
    def _embedder(self) -> Embedder:
        choice = default_embedder() if self.embedder is None else self.embedder
        found = make_embedder(choice) if isinstance(choice, str | Mapping) else choice
        if not hasattr(found, "embed"):
            raise ConfigError(f"r3: {choice!r} makes no vectors of texts alone; take minilm, hashed or model")
        return found

    @cached_property
    def _answers(self) -> dict[str, tuple[str, ...]]:
        """Prompt -> the answers known to be right."""
        if self.references is None:
            return {}
        found: dict[str, set[str]] = defaultdict(set)
        for line, row in open_source(self.references).rows:
            if isinstance(row, RowFault):
                raise ConfigError(f"r3: references: {self.references}, line {line}: {row}; mend the row")
            prompt, answer = _prompt(row.get("prompt")), row.get("gold", row.get("reference"))
            if prompt is None or not (answer is None or isinstance(answer, str)):
                raise ConfigError(
                    f"r3: references: {self.references}, line {line}: expected the texts `prompt` and `gold`, found "
                    f"{', '.join(map(str, row)) or 'nothing'}; mend or remove the row"
                )
            if answer is not None and answer.strip():
                found[_key(prompt)].add(answer)
        if not found:
            raise ConfigError(f"r3: no row of {self.references} has an answer; give rows with `prompt` and `gold`")
        return {key: tuple(sorted(answers)) for key, answers in found.items()}

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) from 0 up; at most `cap` where there is one, at most 1 where an answer is known.

        Raises:
            ConfigError: the embedder is not there, or `references` cannot be read or hold no answer.
        """
        texts = [plain_text(response) for response in responses]
        answers = [self._answers.get(_key(context), ()) for context in contexts]
        wanted = [known or (last_user_turn(context),) for context, known in zip(contexts, answers, strict=True)]
        distinct = list(dict.fromkeys(itertools.chain(texts, *wanted)))
        vectors = _unit(self._embedder.embed(distinct)) if distinct else np.zeros((0, 1))
        row = {text: i for i, text in enumerate(distinct)}
        scores = np.zeros(len(texts))
        for i, (text, near, known) in enumerate(zip(texts, wanted, answers, strict=True)):
            said = tokens(text)
            if not said:
                continue
            relevance = max(0.0, float(max(vectors[row[text]] @ vectors[row[other]] for other in near)))
            if known:
                low, high = self.reference_range
                scores[i] = min(1.0, max(0.0, (relevance - low) / (high - low))) * distinct_trigrams(said)
            else:
                length = min(len(said) / self.per, np.inf if self.cap is None else self.cap)
                scores[i] = relevance * length * distinct_trigrams(said)
        return scores


def distinct_trigrams(said: Sequence[str]) -> float:
    """Distinct runs of three tokens as a share of all; 1 with fewer than three tokens.

    Example:
        >>> distinct_trigrams("a b c a b c".split())  # abc bca cab abc
        0.75
    """
    runs = list(zip(said, said[1:], said[2:], strict=False))
    return len(set(runs)) / len(runs) if runs else 1.0


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)


def _key(context: Text) -> str:
    return conversation_key(plain_text(context))


def _prompt(value: Any) -> Text | None:
    """A prompt as a row gives it, a text or a list of turns; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and all(isinstance(turn, Mapping) and "content" in turn for turn in value):
        return tuple(Message(str(turn.get("role")), str(turn["content"])) for turn in value)
    return None
