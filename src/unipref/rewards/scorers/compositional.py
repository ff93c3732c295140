"""A preference model over readable features, fitted beforehand and read from a file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from unipref.core.cards import Citation, method
from unipref.core.errors import ConfigError
from unipref.core.records import Text, plain_text
from unipref.features.linear_score import LinearScore
from unipref.features.surface import RECIPE

__all__ = ["Compositional"]


@method(
    "cpm",
    kind="scorer",
    source="arXiv:2310.13011, its abstract and the authors' code, with counted features in place of judged ones",
    formula="sum_j w_j (f_j(y) - mu_j) / sigma_j",
    citation=Citation(
        "Compositional preference models for aligning LMs",
        ("Dongyoung Go", "Tomasz Korbak", "Germán Kruszewski", "Jos Rozen", "Marc Dymetman"),
        2023,
        "2310.13011",
    ),
)
@dataclass(frozen=True)
class Compositional:
    """What a compositional preference model gives a response: a weighted sum of features that can be read.

    `unipref.explain.compositional.CompositionalPreferenceModel` fits one to pairs and writes the file. The file is
    data, and nothing in it is run. A response that lacks a feature with a weight (a reading ease in Chinese) has no
    score, nor has an empty one.

    Args:
        model: the file that `CompositionalPreferenceModel.reward_.save` wrote.
    """

    name: ClassVar[str] = "cpm"
    model: str

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"cpm: model is the path of a fitted model's file, not {self.model!r}")

    @property
    def version(self) -> str:
        """From the rules that count features and the weights, wherever the file lies."""
        return f"{RECIPE} {hashlib.sha256(repr(self._fitted).encode()).hexdigest()}"

    @cached_property
    def _fitted(self) -> LinearScore:
        return LinearScore.load(Path(self.model))

    def score(self, contexts: Sequence[Text], responses: Sequence[Text]) -> np.ndarray:
        """(n,) log odds, up to a constant that no comparison sees; NaN where a feature with a weight is missing.

        Raises:
            ConfigError: the file cannot be read, or its model reads features that only a judge can give.
        """
        return self._fitted.of_texts([plain_text(text) for text in contexts], [plain_text(text) for text in responses])
