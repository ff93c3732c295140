"""Moving weights: the one trainer, its examples, cached references."""

from unipref.training.examples import Example, assemble, data_batch, split_by_tokens
from unipref.training.precision import autocast, resolve_precision
from unipref.training.ranks import alone, leave_group, n_processes, processes
from unipref.training.references import cache_references
from unipref.training.sharding import asked_sharding, make_whole, placed, score_shared
from unipref.training.trainer import NonFiniteLossError, PreferenceTrainer, last_checkpoint

__all__ = [
    "Example",
    "NonFiniteLossError",
    "PreferenceTrainer",
    "alone",
    "asked_sharding",
    "assemble",
    "autocast",
    "cache_references",
    "data_batch",
    "last_checkpoint",
    "leave_group",
    "make_whole",
    "n_processes",
    "placed",
    "processes",
    "resolve_precision",
    "score_shared",
    "split_by_tokens",
]
