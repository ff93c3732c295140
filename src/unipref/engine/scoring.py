"""What a policy or a reference says of tries, forward only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch

from unipref.core.errors import ConfigError
from unipref.core.tries import Trie, TrieBatch, pack
from unipref.engine.policy import Distribution, Policy

__all__ = ["chunks", "forward_only", "reference_distribution", "score", "score_items"]


@contextmanager
def forward_only(policy: Policy, *, reference: bool) -> Iterator[None]:
    """No gradient, eval mode, and with `reference` the adapters off; ends with the mode that the policy was in."""
    training = policy.training
    policy.eval()
    try:
        with torch.no_grad(), policy.reference_mode() if reference else nullcontext():
            yield
    finally:
        policy.train(training)


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
    results: list[list[np.ndarray]] = [[] for _ in tries]
    device = policy.device
    with forward_only(policy, reference=reference):
        for chunk in chunks(tries, max_tokens):
            batch = pack([tries[i] for i in chunk])
            logp = policy(batch.to(device), want=("logp",)).logp.float().cpu().numpy()
            items = iter(np.split(logp, np.cumsum(batch.length.numpy())[:-1]))
            for i in chunk:
                results[i] = [next(items).copy() for _ in range(tries[i].n_items)]
    return results


def score_items(
    policy: Policy, tries: Sequence[Trie], *, head: str = "reward_head", max_tokens: int = 16384
) -> list[np.ndarray]:
    """Per trie (n_items,) float32, or (n_items, C): what the policy's `head` says of each item, without gradient."""
    results: list[np.ndarray] = [np.empty(0)] * len(tries)
    with forward_only(policy, reference=False):
        for chunk in chunks(tries, max_tokens):
            batch = pack([tries[i] for i in chunk]).to(policy.device)
            values = policy(batch, want=(head,)).heads[head].float().cpu().numpy()
            ends = np.cumsum([tries[i].n_items for i in chunk])
            for i, part in zip(chunk, np.split(values, ends[:-1]), strict=True):
                results[i] = part.copy()
    return results


def reference_distribution(
    policy: Policy, batch: TrieBatch, *, reference: bool = False, layers: bool = False
) -> Distribution:
    """What `policy` says wherever a scored token of `batch` is predicted, to be given to another's forward.

    It carries no gradient and lives as long as the weights it was made with. Its `logp` is the reference's
    log-probabilities of the scored tokens, so that a live reference is run once for both.

    Args:
        policy: the reference, or, with `reference`, the policy that is trained itself.
        batch: on the policy's device.
        reference: switch the adapters off (`Policy.reference_mode`).
        layers: keep the outputs of every block too, which token masks read.
    """
    with forward_only(policy, reference=reference):
        said = policy(batch, want=("layers" if layers else "distribution",)).distribution
    return replace(said, head=said.head.without_adapter()) if reference else said


def chunks(tries: Sequence[Trie], max_tokens: int) -> Iterator[list[int]]:
    """Indices of `tries`, longest first, in groups of at most `max_tokens` nodes.

    Raises:
        ConfigError: `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise ConfigError(f"max_tokens must be at least 1: {max_tokens}")
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
