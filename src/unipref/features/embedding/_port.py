"""What the rooms above ask of anything that turns texts into vectors."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

__all__ = ["Embedder", "OfResponses", "embeds_texts"]


class Embedder(Protocol):
    """Vectors of texts, whatever they are: prompts, responses, passages.

    One that reads no more than the beginning of a long text may have a method `cut(texts)`, (n,) True for texts of
    which it leaves something out; they are counted and reported.

    Attributes:
        name: what its columns are called in tables: "minilm" gives "minilm.0", "minilm.1", ...
        identity: JSON that changes whenever the same text may get another vector: weights, settings, version. Vectors
            are stored under it. None: unknown, and nothing is stored.
        dimension: numbers per text.
    """

    name: str
    identity: Any
    dimension: int

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32, finite; a text's row does not depend on the other texts."""
        ...


class OfResponses(Protocol):
    """Vectors of responses, each read beside its prompt.

    Attributes:
        name, identity: as of an `Embedder`.
        columns: a name for each number.
    """

    name: str
    identity: Any
    columns: tuple[str, ...]

    def of_responses(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n, len(columns)) float32, finite; a row does not depend on the others."""
        ...


def embeds_texts(block: Embedder | OfResponses) -> bool:
    """Whether `block` is an `Embedder`: it reads texts alone, prompts as well as responses."""
    return hasattr(block, "embed")
