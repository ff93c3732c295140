"""A classifier of one's own, fitted at run time to texts that people labelled."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Text, plain_text
from unipref.core.statistics import sigmoid
from unipref.data.corpora import LABELLED, Labelled, labelled
from unipref.data.report import RowFault
from unipref.data.sources import open_source
from unipref.data.split import conversation_key
from unipref.features.terms import UNITS, Vocabulary
from unipref.rewards.scorers._common import check_choice, check_number
from unipref.rewards.scorers._logistic import Fit, calibration, choose_penalty, fit

__all__ = ["TextClassifier"]

HALVES = ("first", "second", "all")
OUTPUTS = ("logit", "probability")
PENALTIES = (1.0, 0.125, 0.015625)  # tried where none is given
FOLDS = 4
ORDERS = {"words": 2, "characters": 4}
_BUNDLED = "bundled:"


@dataclass(frozen=True, eq=False)
class _Fitted:
    vocabulary: Vocabulary
    fit: Fit
    slope: float
    shift: float
    penalty: float
    n: int

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) calibrated log odds of the positive label; NaN where no term of the text is known."""
        rows = self.vocabulary.rows(texts)
        values = self.slope * self.fit.logits(rows) + self.shift
        known = np.bincount(rows.row, minlength=rows.n) > 0
        return np.where(known, values, np.nan)


@method(
    "text_classifier",
    kind="scorer",
    source="Wang and Manning 2012 (ACL P12-2018): binary n-grams, linear; here tf-idf weights and a logistic loss",
    formula="a (w . x(response) + b) + c: log odds of the positive label; x: binary n-grams by rarity, length 1",
    citation=Citation(
        "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification",
        ("Sida Wang", "Christopher D. Manning"),
        2012,
        url="https://aclanthology.org/P12-2018",
    ),
)
@dataclass(frozen=True)
class TextClassifier:
    """How surely a response has the positive label, by a classifier fitted to labelled texts when it is first used.

    Logistic regression on words and pairs of words. It is convex, fitted to its optimum, and without chance, so the
    same texts give the same scorer anywhere. The response alone is read. It counts words and understands none: a
    policy that is trained on it learns which words it likes, so grade with another (`half`).

    Args:
        data: a file with rows of `text` and `label`, or "bundled:movie-sentiment": 2,000 film reviews and 10,662
            sentences, each with its author's verdict, "pos" or "neg".
        half: "first" or "second" half of the texts, by a hash of the text whatever its white space and case, so that
            no text and no copy of it is in both; or "all". A user reward fitted on one half and a judge fitted on the
            other share no text.
        positive: the label that scores high; every other label counts as not it. "pos" for the bundled texts.
        unit: "words", or "characters" for pieces of words.
        order: longest run of words, or of characters; 2 words, 4 characters where not given.
        penalty: strength of the L2 penalty on the weights of a loss summed over texts; where not given, the one of
            1, 1/8, 1/64 with the least log loss in cross-validation inside the half.
        output: "logit", the log odds (without bounds; differences between two responses are what a Bradley-Terry label
            reads), or "probability". Both are calibrated on the cross-validation's held-out texts (Platt).
    """

    name: ClassVar[str] = "text_classifier"
    data: str = "bundled:movie-sentiment"
    half: str = "all"
    positive: str = "pos"
    unit: str = "words"
    order: int | None = None
    penalty: float | None = None
    output: str = "logit"

    def __post_init__(self) -> None:
        for option in ("data", "positive"):
            if not isinstance(getattr(self, option), str) or not getattr(self, option):
                raise ConfigError(f"text_classifier: {option} is a text, not {getattr(self, option)!r}")
        check_choice(self.name, "half", self.half, HALVES)
        check_choice(self.name, "unit", self.unit, UNITS)
        check_choice(self.name, "output", self.output, OUTPUTS)
        if self.penalty is not None:
            check_number(self.name, "penalty", self.penalty, above=0)
        if self.order is not None and (
            isinstance(self.order, bool) or not isinstance(self.order, int) or self.order < 1
        ):
            raise ConfigError(f"text_classifier: order is a whole number from 1 up, not {self.order!r}")
        if self.unit == "characters" and self.order == 1:
            raise ConfigError("text_classifier: pieces of words have 2 characters or more; give order 2 or more")
        if self.data.startswith(_BUNDLED):
            key = self.data.removeprefix(_BUNDLED)
            if key not in LABELLED:
                raise ConfigError(f"text_classifier: no bundled labelled texts named {key!r}{nearest(key, LABELLED)}")

    @property
    def version(self) -> str:
        """From the texts and the options that decide the number."""
        return f"1 {_texts(self.data)[1]} {self._settings} output={self.output}"

    @property
    def _settings(self) -> tuple[Any, ...]:
        return self.half, self.positive, self.unit, self.order or ORDERS[self.unit], self.penalty

    @cached_property
    def _fitted(self) -> _Fitted:
        return _fit(self.data, _texts(self.data)[1], *self._settings)

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) log odds or probabilities; NaN for a response without a term that the labelled texts have.

        Raises:
            ConfigError: the labelled texts cannot be read, or have one label only.
        """
        logits = self._fitted.logits([plain_text(response) for response in responses])
        if self.output == "logit":
            return logits
        return sigmoid(logits)

    def facts(self) -> dict[str, Any]:
        """What it was fitted to, and how well it does on the texts of the other half.

        Returns:
            data, half, texts (fitted to), terms, penalty; `held_out`: part of the data ("" where it has none) -> share
            of its texts judged rightly and their number. Empty with half "all", which leaves none.
        """
        fitted = self._fitted
        parts: dict[str, list[Labelled]] = {}
        other = {"first": "second", "second": "first"}.get(self.half)
        for text in _texts(self.data)[0]:
            if other is not None and half_of(text.text) == other:
                parts.setdefault(text.part, []).append(text)
        return {
            "data": self.data,
            "half": self.half,
            "texts": fitted.n,
            "terms": len(fitted.vocabulary.index),
            "penalty": fitted.penalty,
            "held_out": {part: self._accuracy(texts) for part, texts in parts.items()},
        }

    def _accuracy(self, texts: Sequence[Labelled]) -> dict[str, Any]:
        logits = self._fitted.logits([each.text for each in texts])
        truth = np.array([each.label == self.positive for each in texts])
        right = np.where(np.isnan(logits), 0.5, (logits > 0) == truth)  # without an opinion it is right half the time
        return {"accuracy": float(right.mean()), "n": len(texts)}

    def telling(self, n: int = 10) -> tuple[list[str], list[str]]:
        """The `n` terms that speak most for the positive label, and those most against it."""
        fitted = self._fitted
        pull = fitted.fit.weights * fitted.vocabulary.rarity
        terms = list(fitted.vocabulary.index)
        order = np.argsort(pull, kind="stable")
        return [terms[i] for i in order[::-1][:n]], [terms[i] for i in order[:n]]


def half_of(text: str) -> str:
    """The half that a text is in: "first" or "second"."""
    return "first" if _hash("half", text) % 2 == 0 else "second"


def _hash(what: str, text: str) -> int:
    digest = hashlib.sha256(
        f"unipref-classifier-1 {what}\x00{conversation_key(text)}".encode("utf-8", "replace")
    ).digest()
    return int.from_bytes(digest[:8], "big")


def _texts(data: str) -> tuple[tuple[Labelled, ...], str]:
    """The labelled texts of `data`, and a hash of them."""
    if data.startswith(_BUNDLED):
        return labelled(data.removeprefix(_BUNDLED))
    path = Path(data).expanduser()
    try:
        state = path.stat()
    except OSError as err:
        raise ConfigError(
            f"text_classifier: there is no file {data!r} of labelled texts; give the path of a .jsonl, .json, .csv or "
            f".parquet file with `text` and `label`, or {_BUNDLED}{LABELLED[0]}"
        ) from err
    return _read(str(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _read(path: str, changed: int, size: int) -> tuple[tuple[Labelled, ...], str]:
    source = open_source(path)
    texts = []
    for line, row in source.rows:
        if isinstance(row, RowFault):
            raise ConfigError(f"text_classifier: {path}, line {line}: {row}; mend the row")
        text, label = row.get("text"), row.get("label")
        if not isinstance(text, str) or not text.strip() or label is None or label == "":
            raise ConfigError(
                f"text_classifier: {path}, line {line}: expected `text` and `label`, found {', '.join(map(str, row))}; "
                "mend or remove the row"
            )
        texts.append(Labelled(text, _label(label), str(row.get("domain") or "")))
    return tuple(texts), source.sha256 or ""


def _label(value: Any) -> str:
    """A label as it is written: true and 1.0 are "true" and "1"."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


@lru_cache(maxsize=8)
def _fit(data: str, sha256: str, half: str, positive: str, unit: str, order: int, penalty: float | None) -> _Fitted:
    """Once per process for the same texts and options, whichever scorer asks."""
    kept: dict[str, Labelled] = {}
    for text in _texts(data)[0]:
        if half == "all" or half_of(text.text) == half:
            kept.setdefault(conversation_key(text.text), text)  # a copy would count twice, and on both sides of a fold
    texts = [kept[key] for key in sorted(kept)]  # the order of the rows does not matter
    labels = np.array([text.label == positive for text in texts], dtype=bool)
    if labels.all() or not labels.any():
        known = {text.label for text in texts}
        raise ConfigError(
            f"text_classifier: {data} ({half}): {'every' if len(texts) and labels.all() else 'no'} text has the label "
            f"{positive!r}; it has {', '.join(sorted(known)) or 'none'}{nearest(positive, known)}; set positive"
        )
    if min(labels.sum(), (~labels).sum()) < FOLDS:
        raise ConfigError(
            f"text_classifier: {data} ({half}): a label with fewer than {FOLDS} texts cannot be learned; give more"
        )
    vocabulary = Vocabulary.of([text.text for text in texts], unit=unit, order=order)
    rows, size = vocabulary.rows([text.text for text in texts]), len(vocabulary.index)
    fold = np.array([_hash("fold", text.text) % FOLDS for text in texts])
    tried = PENALTIES if penalty is None else (penalty,)
    chosen, unseen = choose_penalty(rows, labels, fold, size=size, penalties=tried)
    slope, shift = calibration(unseen, labels)
    found = fit(rows, labels, size=size, penalty=chosen)
    return _Fitted(vocabulary, found, slope, shift, chosen, len(texts))
