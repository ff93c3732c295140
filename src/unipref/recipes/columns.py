"""Columns that a model says of the data before it is trained: embeddings, activation masks, weights of steps."""

from collections.abc import Sequence

import numpy as np

from unipref.engine import Policy, activation_mask, embed, embed_spans
from unipref.objectives import Objective
from unipref.training import Example

__all__ = ["add_columns"]


def add_columns(examples: Sequence[Example], objective: Objective, policy: Policy, *, max_tokens: int) -> None:
    """Give every example the columns that `objective` reads and that `policy`, before it is trained, can say.

    "embedding": mean last hidden state of the context, of length 1. "mask": how active the network is at each token
    (`activation_mask`). "step_weight": for each segment of a response 1 + its cosine with the same segment of the
    record's best response, 2 where there is none to compare with.
    """
    tries = [example.trie for example in examples]
    if "embedding" in objective.needs:
        for example, vectors in zip(examples, embed(policy, tries, of="context", max_tokens=max_tokens), strict=True):
            example.vectors["embedding"] = vectors
    if "mask" in objective.token_needs:
        for example, masks in zip(examples, activation_mask(policy, tries, max_tokens=max_tokens), strict=True):
            example.tokens["mask"] = masks
    if "step_weight" in objective.token_needs:
        _add_step_weights(examples, policy, max_tokens)


def _add_step_weights(examples: Sequence[Example], policy: Policy, max_tokens: int) -> None:
    numbers = [[np.unique(item[item >= 0]) for item in example.tokens["segment"]] for example in examples]
    spans = [
        [
            [(int(at.min()), int(at.max()) + 1) for at in (np.flatnonzero(item == n) for n in own)]
            for item, own in zip(example.tokens["segment"], numbers[i], strict=True)
        ]
        for i, example in enumerate(examples)
    ]
    found = embed_spans(policy, [example.trie for example in examples], spans, max_tokens=max_tokens)
    for example, own, vectors in zip(examples, numbers, found, strict=True):
        best = _best(example)
        weights = []
        for item, (segment, ids) in enumerate(zip(example.tokens["segment"], own, strict=True)):
            weight = np.full(len(segment), 2.0, dtype=np.float32)
            for step, number in enumerate(ids[: len(vectors[best])]):
                one, other = vectors[item][step], vectors[best][step]
                cosine = float(one @ other / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-12))
                weight[segment == number] = 1.0 + cosine
            weights.append(weight)
        example.tokens["step_weight"] = weights


def _best(example: Example) -> int:
    """The record's best response: first in rank, or with the highest reward, or the winner, or the first one."""
    items = example.record.items
    ranks = [np.inf if item.rank is None else item.rank for item in items]
    if np.isfinite(ranks).any():
        return int(np.argmin(ranks))
    rewards = [item.columns.get("reward", np.nan) for item in items]
    if not np.isnan(rewards).all():
        return int(np.nanargmax(rewards))
    return example.record.comparisons[0].winner if example.record.comparisons else 0
