"""Log-probabilities of many tries, forward only."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from unipref.core.errors import ConfigError
from unipref.core.tries import Trie, pack
from unipref.engine.policy import Policy, reference_context

__all__ = ["score"]


def score(
    policy: Policy,
    tries: Sequence[Trie],
    *,
    max_tokens: int = 16384,
    reference: bool = False,
) -> list[list[np.ndarray]]:
    """Per trie and item: (len,) float32 log-probabilities of its scored tokens, in nats.

    Tries are sorted by size, so that a batch holds like with like, and scored in batches of at most `max_tokens` nodes
    (one trie where it alone is larger). The order of the answer is the order of `tries`.

    Args:
        reference: switch the adapters off (`Policy.reference_mode`).
    """
    if max_tokens < 1:
        raise ConfigError(f"max_tokens must be at least 1: {max_tokens}")
    results: list[list[np.ndarray]] = [[] for _ in tries]
    device, training = policy.device, policy.training
    policy.eval()
    try:
        with torch.no_grad(), reference_context(policy, reference):
            for chunk in _chunks(tries, max_tokens):
                batch = pack([tries[i] for i in chunk])
                logp = policy(batch.to(device), want=("logp",)).logp.float().cpu().numpy()
                items = iter(np.split(logp, np.cumsum(batch.length.numpy())[:-1]))
                for i in chunk:
                    results[i] = [next(items).copy() for _ in range(tries[i].n_items)]
    finally:
        policy.train(training)
    return results


def _chunks(tries: Sequence[Trie], max_tokens: int) -> Iterator[list[int]]:
    """Indices of `tries`, longest first, in groups of at most `max_tokens` nodes."""
    order = sorted(range(len(tries)), key=lambda i: -tries[i].n_nodes)
    chunk: list[int] = []
    used = 0
    for i in order:
        if chunk and used + tries[i].n_nodes > max_tokens:
            yield chunk
            chunk, used = [], 0
        chunk.append(i)
        used += tries[i].n_nodes
    if chunk:
        yield chunk
