"""Scorers: what a designer may ask of a response, each a frozen dataclass under a name of its own."""

from collections.abc import Mapping
from typing import Any

from unipref.core.cards import list_methods
from unipref.core.errors import ConfigError, nearest
from unipref.core.protocols import Scorer
from unipref.rewards.scorers.cdr import DensityRatio
from unipref.rewards.scorers.classifier import Classifier
from unipref.rewards.scorers.column import Column
from unipref.rewards.scorers.compositional import Compositional
from unipref.rewards.scorers.flr import FollowUpLikelihood
from unipref.rewards.scorers.length import Length
from unipref.rewards.scorers.metametrics import Combination, MetaMetrics, Metric, combine_metrics
from unipref.rewards.scorers.preference_model import FittedPreferenceModel
from unipref.rewards.scorers.python import PythonFunction
from unipref.rewards.scorers.r3 import RegularizedRelevance
from unipref.rewards.scorers.reading_level import ReadingLevel
from unipref.rewards.scorers.regex import Regex
from unipref.rewards.scorers.reward_model import RewardModel
from unipref.rewards.scorers.text_classifier import TextClassifier
from unipref.rewards.scorers.word_list import WordList

__all__ = [
    "Classifier",
    "Column",
    "Combination",
    "Compositional",
    "DensityRatio",
    "FittedPreferenceModel",
    "FollowUpLikelihood",
    "Length",
    "MetaMetrics",
    "Metric",
    "PythonFunction",
    "ReadingLevel",
    "Regex",
    "RegularizedRelevance",
    "RewardModel",
    "TextClassifier",
    "WordList",
    "combine_metrics",
    "make_scorer",
]


def make_scorer(spec: Mapping[str, Any]) -> Scorer:
    """The scorer that `spec` names, with its options.

    Args:
        spec: {"scorer": name, "options": {...}}; options may be absent.

    Raises:
        ConfigError: no such scorer, option or value; nothing is loaded or computed before it is known.

    Example:
        >>> make_scorer({"scorer": "length", "options": {"cap": 100}})
        Length(unit='words', cap=100, target=None, width=None, inverted=False)
    """
    known = {card.key: card for card in list_methods("scorer")}
    for key in spec:
        if key not in ("scorer", "options"):
            raise ConfigError(f"a scorer has no key {key!r}{nearest(str(key), ['scorer', 'options'])}")
    name = spec.get("scorer")
    if name not in known:
        raise ConfigError(f"no scorer named {name!r}{nearest(str(name), known)}")
    options = spec.get("options") or {}
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise ConfigError(f"{name}: options are a mapping from names to values, not {options!r}")
    return known[name].build(**options)
