"""From tries to values: log-probabilities, entropies and head outputs of a causal language model."""

from unipref.engine.head import token_logp
from unipref.engine.loading import BUNDLED, fingerprint, load_model, load_tokenizer
from unipref.engine.policy import Head, Policy, Values, value_head
from unipref.engine.scoring import score
from unipref.engine.weights import load_weights

__all__ = [
    "BUNDLED",
    "Head",
    "Policy",
    "Values",
    "fingerprint",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "score",
    "token_logp",
    "value_head",
]
