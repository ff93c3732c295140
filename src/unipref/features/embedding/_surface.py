"""The countable properties of a response as a vector."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unipref.features.concepts import surface_levels
from unipref.features.surface import RECIPE, SURFACE

__all__ = ["SurfaceVector"]

_EASE = 100.0  # Flesch's scale runs to about 100, every other column to about 10


@dataclass(frozen=True)
class SurfaceVector:
    """The features of `unipref.features.surface`, counts as log(1 + count), reading ease over 100.

    0 stands where a feature has nothing to stand on (English words in another script, a share of an empty text), so
    that between two responses in one script it makes no difference.
    """

    name: str = "surface"

    @property
    def identity(self) -> dict[str, object]:
        """Changes with the recipe of the counts."""
        return {"embedder": "surface", "recipe": [1, RECIPE]}

    @property
    def columns(self) -> tuple[str, ...]:
        """ "surface.characters", "surface.tokens", ..."""
        return tuple(f"{self.name}.{feature}" for feature in SURFACE)

    def of_responses(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(n, 30) float32."""
        levels = surface_levels(prompts, responses)
        levels[:, list(SURFACE).index("reading_ease")] /= _EASE
        return np.nan_to_num(levels, nan=0.0).astype(np.float32)
