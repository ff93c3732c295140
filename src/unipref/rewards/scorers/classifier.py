"""Probabilities of any text-classification model, toxicity above all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from unipref.core.cards import method
from unipref.core.errors import ConfigError, nearest
from unipref.core.records import Text, plain_text
from unipref.core.statistics import sigmoid
from unipref.rewards.scorers._common import UPO, check_choice, strings
from unipref.rewards.scorers._models import SequenceModel, check_model_options, load_sequence_model

__all__ = ["Classifier"]

# (n, labels) probabilities -> (n,)
AGGREGATIONS = {
    "max": lambda p: p.max(1),
    "mean": lambda p: p.mean(1),
    "one_minus_max": lambda p: 1.0 - p.max(1),
    "one_minus_mean": lambda p: 1.0 - p.mean(1),
    "paper_printed": lambda p: (1.0 - p).max(1),
}
ACTIVATIONS = ("auto", "sigmoid", "softmax", "none")


@method(
    "classifier",
    kind="scorer",
    source="arXiv:2405.17956, safety reward",
    formula="1 - max_i p_i (one_minus_max), or another aggregation of the labels' probabilities",
    citation=UPO,
)
@dataclass(frozen=True)
class Classifier:
    """What a text-classification model says of a response, as one number from its labels' probabilities.

    The response alone is read, without its context. An empty one has no score.

    Args:
        model: hub id or folder.
        labels: the labels that count, by the model's names; all of them where not given.
        aggregation: "one_minus_max" (safe is 1; the usable form of the paper's safety reward), "max", "mean",
            "one_minus_mean", or "paper_printed": max_i (1 - p_i), literally what the paper prints, which is close to 1
            for any text, since some category is always improbable.
        activation: "sigmoid" (several labels may hold), "softmax" (one does), "none" (the outputs as they are), or
            "auto": what the model's configuration says, else sigmoid for one output and softmax for more.
        max_length: longer responses are cut at the end; what the model can read where not given.
        dtype: "auto" keeps the checkpoint's own precision.
    """

    name: ClassVar[str] = "classifier"
    model: str
    labels: tuple[str, ...] = ()
    aggregation: str = "one_minus_max"
    activation: str = "auto"
    batch_size: int = 32
    max_length: int | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        check_model_options(self.name, self.model, self.batch_size, self.max_length, self.dtype)
        object.__setattr__(self, "labels", strings(self.name, "labels", self.labels))
        check_choice(self.name, "aggregation", self.aggregation, AGGREGATIONS)
        check_choice(self.name, "activation", self.activation, ACTIVATIONS)

    @property
    def version(self) -> str:
        """From the weights, the tokenizer and the options that decide the number (not from the batch size)."""
        options = (self._columns, self.aggregation, self._activation, self._loaded.max_length)
        return f"1 {self._loaded.identity} {options}"

    @cached_property
    def _loaded(self) -> SequenceModel:
        return load_sequence_model(
            self.name,
            self.model,
            dtype=self.dtype,
            max_length=self.max_length,
            trust_remote_code=self.trust_remote_code,
        )

    @cached_property
    def _activation(self) -> str:
        if self.activation != "auto":
            return self.activation
        config: Any = self._loaded.config
        kinds = {
            "regression": "none",
            "multi_label_classification": "sigmoid",
            "single_label_classification": "softmax",
        }
        return kinds.get(config.problem_type) or ("sigmoid" if config.num_labels == 1 else "softmax")

    @cached_property
    def _columns(self) -> tuple[int, ...]:
        known = {name: index for index, name in self._loaded.config.id2label.items()}
        if not self.labels:
            if self._activation == "softmax":
                raise ConfigError(
                    f"classifier: the probabilities of {self.model!r} sum to 1, so labels must say which count: "
                    f"{', '.join(known)}"
                )
            return tuple(sorted(known.values()))
        for label in self.labels:
            if label not in known:
                raise ConfigError(f"classifier: {self.model!r} has no label {label!r}{nearest(label, known)}")
        return tuple(known[label] for label in self.labels)

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) in [0, 1] unless `activation` is "none"; NaN for an empty response.

        Raises:
            ConfigError: the model cannot be loaded or lacks a label.
        """
        texts = [plain_text(response) for response in responses]
        some = [i for i, text in enumerate(texts) if text.strip()]
        scores = np.full(len(texts), np.nan)
        columns = list(self._columns)
        if some:
            encoded = self._loaded.tokenizer(
                [texts[i] for i in some], truncation=True, max_length=self._loaded.max_length
            )["input_ids"]
            probabilities = _activate(self._loaded.logits(encoded, self.batch_size), self._activation)
            scores[some] = AGGREGATIONS[self.aggregation](probabilities[:, columns])
        return scores


def _activate(logits: np.ndarray, activation: str) -> np.ndarray:
    if activation == "sigmoid":
        return sigmoid(logits)
    if activation == "softmax":
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)
    return logits
