"""Per-token log-probs, rewards, verdicts and vectors of texts, found again by what they were computed from."""

from unipref.store._columns import Column, ColumnStore
from unipref.store._database import StoreError, text_key, tokens_key
from unipref.store._features import FeatureStore, Found
from unipref.store._scores import ScoreStore

__all__ = ["Column", "ColumnStore", "FeatureStore", "Found", "ScoreStore", "StoreError", "text_key", "tokens_key"]
