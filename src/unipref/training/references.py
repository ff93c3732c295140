"""What references say of the data, computed once and kept."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from unipref.engine import Policy, fingerprint, score
from unipref.training.examples import Example
from unipref.training.precision import autocast

__all__ = ["cache_references"]


class Store(Protocol):
    """The part of `unipref.store.ScoreStore` that is used here."""

    def get_many(self, space: dict[str, Any], keys: Sequence[bytes]) -> list[np.ndarray | None]: ...

    def put_many(self, space: dict[str, Any], keys: Sequence[bytes], values: Sequence[np.ndarray]) -> None: ...


def cache_references(
    examples: Sequence[Example],
    reference: Policy,
    *,
    name: str = "ref_logp",
    adapters_off: bool = False,
    store: Store | None = None,
    precision: str = "float32",
    max_tokens: int = 16384,
    put_every: int = 2048,
) -> dict[str, int]:
    """Fill `ref_logp[name]` of `examples` and of their mismatched responses with log-probabilities under `reference`.

    The key of a stored value is the token ids of context and response; its space is what else decided it: the
    fingerprint of the weights, the precision and the path. Neither β nor a learning rate nor a folder is part of it,
    and truncation, template or weights change it.

    Returns:
        How many items were "stored" already and how many "computed".
    """
    everything = [*examples, *(e.mismatched for e in examples if e.mismatched is not None)]
    space = {
        "kind": "logp",
        "weights": fingerprint(reference, reference=adapters_off),
        "precision": precision,
        "path": reference.path,
    }
    keys = [_item_keys(example) for example in everything] if store is not None else []
    found: list[list[np.ndarray | None]]
    if store is not None:
        flat = iter(store.get_many(space, [key for row in keys for key in row]))
        found = [[next(flat) for _ in row] for row in keys]
    else:
        found = [[None] * example.trie.n_items for example in everything]
    missing = [i for i, values in enumerate(found) if any(value is None for value in values)]
    device = next(reference.parameters()).device
    for start in range(0, len(missing), put_every):  # a killed run keeps what was computed so far
        rows = missing[start : start + put_every]
        with autocast(device, precision):
            scored = score(reference, [everything[i].trie for i in rows], max_tokens=max_tokens, reference=adapters_off)
        for i, values in zip(rows, scored, strict=True):
            found[i] = values
        if store is not None:
            store.put_many(space, [key for i in rows for key in keys[i]], [value for i in rows for value in found[i]])
    for example, values in zip(everything, found, strict=True):
        example.ref_logp[name] = values
    computed = sum(everything[i].trie.n_items for i in missing)
    return {"stored": sum(e.trie.n_items for e in everything) - computed, "computed": computed}


def _item_keys(example: Example) -> list[bytes]:
    from unipref.store import tokens_key

    trie = example.trie
    keys = []
    for item in range(trie.n_items):
        path = trie.path(item)
        n_response = len(trie.scored[item])
        tokens = trie.token[path]
        keys.append(tokens_key(tokens[: len(path) - n_response], tokens[len(path) - n_response :]))
    return keys
