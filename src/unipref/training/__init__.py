"""Moving weights: the one trainer, its examples, cached references."""

from unipref.training.examples import Example, assemble, data_batch, split_by_tokens
from unipref.training.precision import autocast, resolve_precision
from unipref.training.ranks import leave_group, processes
from unipref.training.references import cache_references
from unipref.training.trainer import NonFiniteLossError, PreferenceTrainer, last_checkpoint

__all__ = [
    "Example",
    "NonFiniteLossError",
    "PreferenceTrainer",
    "assemble",
    "autocast",
    "cache_references",
    "data_batch",
    "last_checkpoint",
    "leave_group",
    "processes",
    "resolve_precision",
    "split_by_tokens",
]
