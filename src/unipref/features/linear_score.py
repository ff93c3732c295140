"""A number for one response: a weighted sum of its features, kept in a file that is data and no code."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unipref.core.errors import ConfigError, ShapeError
from unipref.core.io import write_json
from unipref.features.concepts import surface_levels
from unipref.features.surface import RECIPE, SURFACE

__all__ = ["LinearScore"]

_KIND = "unipref-linear-score-1"


@dataclass(frozen=True)
class LinearScore:
    """r(y) = sum_j weight_j (value_j(y) - centre_j) / spread_j.

    Attributes:
        keys: of the features, in the order of the weights.
        about: what stands beside the weights in the file, for people.
    """

    keys: tuple[str, ...]
    weight: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        sizes = [len(values) for values in (self.keys, self.weight, self.centre, self.spread)]
        if len(set(sizes)) > 1:
            raise ShapeError(f"keys, weight, centre and spread are of the lengths {sizes}")

    def of_values(self, values: np.ndarray) -> np.ndarray:
        """(N,) scores of (N, C) feature values; NaN where a value that has a weight is NaN."""
        values = np.asarray(values, dtype=float)
        if values.ndim != 2 or values.shape[1] != len(self.keys):
            raise ShapeError(f"the score reads {len(self.keys)} features, and the values have the shape {values.shape}")
        counts = np.array(self.weight) != 0
        scaled = (values[:, counts] - np.array(self.centre)[counts]) / np.array(self.spread)[counts]
        return scaled @ np.array(self.weight)[counts]

    def of_texts(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """(N,) scores of texts, by the features that can be counted in them; an empty response has none.

        Raises:
            ConfigError: a feature with a weight is no surface feature.
        """
        judged = [key for key, weight in zip(self.keys, self.weight, strict=True) if weight and key not in SURFACE]
        if judged:
            raise ConfigError(
                f"the score reads {judged[0]!r}, which cannot be counted in a text; score a table of its values, or "
                "fit the model to surface features alone"
            )
        if not len(responses):
            return np.zeros(0)
        found = surface_levels(prompts, responses)
        place = {name: i for i, name in enumerate(SURFACE)}
        blank = np.full(len(found), math.nan)
        scores = self.of_values(np.stack([found[:, place[k]] if k in place else blank for k in self.keys], axis=1))
        return np.where([not text.strip() for text in responses], math.nan, scores)

    def save(self, path: Path | str) -> None:
        """Write a JSON file that `load` reads."""
        columns = zip(self.keys, self.weight, self.centre, self.spread, strict=True)
        names = ("key", "weight", "centre", "spread")
        features = [dict(zip(names, row, strict=True)) for row in columns]
        write_json(path, {"kind": _KIND, "surface": RECIPE, "features": features, "about": dict(self.about)})

    @classmethod
    def load(cls, path: Path | str) -> "LinearScore":
        """The score that `save` wrote; nothing in the file is run.

        Raises:
            ConfigError: there is no such file, it is not one of these, or its features were counted by other rules.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as err:
            raise ConfigError(f"the score {str(path)!r} cannot be read: {err}") from err
        except json.JSONDecodeError as err:
            raise ConfigError(f"{path} is no JSON ({err}); write it with `LinearScore.save`") from err
        kind = found.get("kind") if isinstance(found, dict) else None
        if kind != _KIND:
            raise ConfigError(f"{path} is of the kind {kind!r}, not {_KIND!r}; write it with `LinearScore.save`")
        rows = found.get("features")
        if not isinstance(rows, list) or not rows or not all(map(_is_feature, rows)):
            raise ConfigError(
                f"{path}: features is a list of one or more, each with a key and the finite numbers weight, centre and "
                f"spread (above 0); write the file again with `LinearScore.save`"
            )
        if found.get("surface") != RECIPE and any(row["key"] in SURFACE for row in rows):
            raise ConfigError(
                f"{path} was fitted to surface features of version {found.get('surface')}, and these are of version "
                f"{RECIPE}; fit it again"
            )
        numbers = (tuple(float(row[name]) for row in rows) for name in ("weight", "centre", "spread"))
        return cls(tuple(row["key"] for row in rows), *numbers, about=found.get("about", {}))


def _is_feature(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("key"), str):
        return False
    numbers = [row.get(name) for name in ("weight", "centre", "spread")]
    there = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    return there and row["spread"] > 0
