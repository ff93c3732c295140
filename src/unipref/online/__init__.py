"""Loops that sample and label: preference pairs from a model's own answers."""

from unipref.online.pairs import PAIRS, PREFERENCES, Pairing, pair_rows_of, paired
from unipref.online.responses import answered

__all__ = ["PAIRS", "PREFERENCES", "Pairing", "answered", "pair_rows_of", "paired"]
