"""Texts as vectors: means of a policy's last hidden states over the tokens of a context, a response or a span."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import normalize

from unipref.core.errors import ConfigError, ShapeError
from unipref.core.tries import Trie, pack
from unipref.engine.policy import Policy
from unipref.engine.scoring import chunks, forward_only

__all__ = ["embed", "embed_spans"]


def embed(
    policy: Policy,
    tries: Sequence[Trie],
    *,
    of: Literal["context", "response"],
    normalise: bool = True,
    max_tokens: int = 16384,
    reference: bool = False,
) -> list[np.ndarray]:
    """Per trie: (I, H) float32, the mean last hidden state over each item's context or response tokens.

    The state is the one *at* a token, which has seen it. A response begins after the last context token, whether or
    not the context is scored too. Tries are batched as in `score`.

    Args:
        normalise: divide each vector by its Euclidean length, so that a product of two is their cosine.
        reference: switch the adapters off (`Policy.reference_mode`).
    """
    if of not in ("context", "response"):
        raise ConfigError(f"embed reads the 'context' or the 'response', not {of!r}")

    def part(i: int, item: int) -> list[np.ndarray]:
        path = tries[i].path(item)
        cut = int(tries[i].depth[tries[i].context[item]]) + 1
        return [path[:cut] if of == "context" else path[cut:]]

    pooled = _pooled(policy, tries, part, max_tokens=max_tokens, reference=reference)
    vectors = [torch.cat(items) for items in pooled]
    return [(normalize(v, dim=1) if normalise else v).numpy() for v in vectors]


def embed_spans(
    policy: Policy,
    tries: Sequence[Trie],
    spans: Sequence[Sequence[Sequence[tuple[int, int]]]],
    *,
    max_tokens: int = 16384,
    reference: bool = False,
) -> list[list[np.ndarray]]:
    """Per trie and item: (n_spans, H) float32, the mean last hidden state over each span's tokens, not normalised.

    Args:
        spans: per trie and item (start, end): positions among the item's scored tokens, `end` excluded. An item
            without a span gives (0, H).

    Raises:
        ShapeError: the nesting is not that of `tries`, or a span is empty or reaches past its item.
    """
    counts, given = [trie.n_items for trie in tries], [len(items) for items in spans]
    if counts != given:
        raise ShapeError(f"spans are given per trie and item: the tries have {counts} items and the spans {given}")

    def part(i: int, item: int) -> list[np.ndarray]:
        scored = tries[i].scored[item]
        for start, end in spans[i][item]:
            if not 0 <= start < end <= len(scored):
                raise ShapeError(f"the span ({start}, {end}) does not fit an item of {len(scored)} scored tokens")
        return [scored[start:end] for start, end in spans[i][item]]

    pooled = _pooled(policy, tries, part, max_tokens=max_tokens, reference=reference)
    return [[vectors.numpy() for vectors in items] for items in pooled]


def _pooled(
    policy: Policy,
    tries: Sequence[Trie],
    parts: Callable[[int, int], list[np.ndarray]],
    *,
    max_tokens: int,
    reference: bool,
) -> list[list[torch.Tensor]]:
    """Per trie and item: (n, H) float32 means over the n groups of nodes that `parts` gives."""
    results: list[list[torch.Tensor]] = [[] for _ in tries]
    with forward_only(policy, reference=reference):
        for chunk in chunks(tries, max_tokens):
            batch = pack([tries[i] for i in chunk]).to(policy.device)
            hidden, begin = policy.hidden(batch)
            item_of_batch = 0
            for i, first_node in zip(chunk, batch.start.tolist(), strict=False):
                for item in range(tries[i].n_items):
                    means = [hidden.new_zeros(0, hidden.shape[1])]
                    for nodes in parts(i, item):
                        index = torch.from_numpy(nodes.astype(np.int64)).to(hidden.device) + first_node
                        if begin is not None:
                            index = begin[item_of_batch] + batch.depth[index]
                        means.append(hidden[index].float().mean(0, keepdim=True))
                    results[i].append(torch.cat(means).float().cpu())
                    item_of_batch += 1
    return results
