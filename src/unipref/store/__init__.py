"""Per-token log-probs, rewards and verdicts, found again by what they were computed from."""

from unipref.store._scores import ScoreStore, StoreError, text_key, tokens_key

__all__ = ["ScoreStore", "StoreError", "text_key", "tokens_key"]
