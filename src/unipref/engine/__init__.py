"""From tries to values: log-probabilities, entropies and head outputs of a causal language model."""

import os

# oneDNN keeps 1,024 compiled kernels, one per shape. Packed rows have a new length each step, so its cache grew by
# gigabytes in a long run (docs/log.md). A user's own setting stands.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


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
