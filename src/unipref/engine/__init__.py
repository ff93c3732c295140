"""From tries to values: log-probabilities, entropies and head outputs of a causal language model."""

import os

# oneDNN keeps 1,024 compiled kernels, one per shape. Packed rows have a new length each step, so its cache grew by
# gigabytes in a long run (docs/log.md). A user's own setting stands.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


from unipref.engine.activations import activation_mask
from unipref.engine.classifier import (
    as_classifier,
    check_classifier,
    load_reward_head,
    load_reward_policy,
    padding_token,
)
from unipref.engine.embeddings import embed, embed_spans
from unipref.engine.head import token_logp
from unipref.engine.loading import BUNDLED, fingerprint, load_model, load_tokenizer
from unipref.engine.policy import Distribution, Policy, Values
from unipref.engine.quantising import (
    QUANTISED,
    WeightBytes,
    is_quantised,
    merged,
    n_weights,
    require_bitsandbytes,
    weight_bytes,
)
from unipref.engine.readouts import (
    READOUTS,
    Head,
    TokenMask,
    class_head,
    make_head,
    reward_head,
    step_value_head,
    value_head,
)
from unipref.engine.scoring import reference_distribution, score, score_items
from unipref.engine.skeleton import ModelFacts, model_facts
from unipref.engine.weights import average, extrapolate, load_weights

__all__ = [
    "BUNDLED",
    "QUANTISED",
    "READOUTS",
    "Distribution",
    "Head",
    "ModelFacts",
    "Policy",
    "TokenMask",
    "Values",
    "WeightBytes",
    "activation_mask",
    "as_classifier",
    "average",
    "check_classifier",
    "class_head",
    "embed",
    "embed_spans",
    "extrapolate",
    "fingerprint",
    "is_quantised",
    "load_model",
    "load_reward_head",
    "load_reward_policy",
    "load_tokenizer",
    "load_weights",
    "make_head",
    "merged",
    "model_facts",
    "n_weights",
    "padding_token",
    "reference_distribution",
    "require_bitsandbytes",
    "reward_head",
    "score",
    "score_items",
    "step_value_head",
    "token_logp",
    "value_head",
    "weight_bytes",
]
