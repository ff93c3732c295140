"""What references say of the data, computed once and kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unipref.core.errors import ConfigError
from unipref.engine import Policy, fingerprint
from unipref.store import Column, ColumnStore, tokens_key
from unipref.training.examples import Example
from unipref.training.precision import autocast
from unipref.training.prepared import PreparedExamples, Rows
from unipref.training.ranks import anywhere, n_processes, processes
from unipref.training.sharding import score_shared

__all__ = ["cache_references", "reference_space"]

WINDOW = 4096  # rows of prepared data that are sorted by length together, and in memory at a time
PUT_EVERY = 2048  # examples of a list between two writes
PUT_ROWS = 512  # of prepared data


class Store(Protocol):
    """The part of `unipref.store.ScoreStore` that is used here."""

    folder: Path

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
    put_every: int | None = None,
    show: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Fill `ref_logp[name]` of `examples` and of their mismatched responses with log-probabilities under `reference`.

    The key of a stored value is the token ids of context and response; its space is what else decided it: the
    fingerprint of the weights, the precision and the path. Neither β nor a learning rate nor a folder is part of it,
    and truncation, template or weights change it.

    Of prepared data the values lie in a column beside the score store, named by the same space and by the data's token
    ids; rows are scored in windows of the file, sorted by length within each. Of several ranks each scores a share, so
    all of them must call this.

    Args:
        store: a list's values are kept without one too, in its examples; prepared data need it.
        put_every: examples between two writes, which is what a killed run has to compute again.
        show: is told how many examples are done, and of how many.

    Returns:
        How many items were "stored" already and how many "computed"; of prepared data, rows.

    Raises:
        ConfigError: prepared data, and no store.
    """
    if isinstance(examples, PreparedExamples):
        return _fill_columns(examples, reference, name, adapters_off, store, precision, max_tokens, put_every, show)
    everything = [*examples, *(e.mismatched for e in examples if e.mismatched is not None)]
    space = reference_space(reference, adapters_off, precision)
    keys = [_item_keys(example) for example in everything] if store is not None else []
    found: list[list[np.ndarray | None]]
    if store is not None:
        flat = iter(store.get_many(space, [key for row in keys for key in row]))
        found = [[next(flat) for _ in row] for row in keys]
    else:
        found = [[None] * example.trie.n_items for example in everything]
    missing = np.flatnonzero(anywhere([any(value is None for value in values) for values in found])).tolist()
    writes = n_processes() == 1 or processes().is_main_process
    device = reference.device
    put_every = put_every or PUT_EVERY
    for start in range(0, len(missing), put_every):  # a killed run keeps what was computed so far
        rows = missing[start : start + put_every]
        with autocast(device, precision):
            tries = [everything[i].trie for i in rows]
            scored = score_shared(reference, tries, max_tokens=max_tokens, reference=adapters_off)
        for i, values in zip(rows, scored, strict=True):
            found[i] = values
        if store is not None and writes:
            store.put_many(space, [key for i in rows for key in keys[i]], [value for i in rows for value in found[i]])
        if show is not None:
            show(start + len(rows), len(missing))
    for example, values in zip(everything, found, strict=True):
        example.ref_logp[name] = values
    computed = sum(everything[i].trie.n_items for i in missing)
    return {"stored": sum(e.trie.n_items for e in everything) - computed, "computed": computed}


def reference_space(reference: Policy, adapters_off: bool = False, precision: str = "float32") -> dict[str, Any]:
    """What decides a log-probability under `reference` besides the tokens: the space it is kept in."""
    return {
        "kind": "logp",
        "weights": fingerprint(reference, reference=adapters_off),
        "precision": precision,
        "path": reference.path,
    }


def _fill_columns(
    examples: PreparedExamples,
    reference: Policy,
    name: str,
    adapters_off: bool,
    store: Store | None,
    precision: str,
    max_tokens: int,
    put_every: int | None,
    show: Callable[[int, int], None] | None,
) -> dict[str, int]:
    if store is None:
        raise ConfigError("log-probabilities of prepared data lie in files; give cache_references a score store")
    space, columns = reference_space(reference, adapters_off, precision), ColumnStore(store.folder)
    found = {"stored": 0, "computed": 0}
    for one in (examples, examples.mismatched):
        if one is None:
            continue
        column = columns.column(space, data=one.data.digest, lengths=one.data.n_scored)
        todo = np.zeros(len(one), bool)
        todo[column.missing()] = True
        missing = np.flatnonzero(anywhere(todo))  # ranks that start while another writes see different states of it
        options = {"adapters_off": adapters_off, "precision": precision, "max_tokens": max_tokens, "show": show}
        _score_rows(column, one.data, missing, reference, put_every=put_every or PUT_ROWS, **options)
        if n_processes() > 1:
            processes().wait_for_everyone()  # one rank writes for all
        one.add_reference(name, column)
        found["computed"] += len(missing)
        found["stored"] += len(one) - len(missing)
    return found


def _score_rows(
    column: Column,
    data: Rows,
    missing: np.ndarray,
    reference: Policy,
    *,
    adapters_off: bool,
    precision: str,
    max_tokens: int,
    put_every: int,
    show: Callable[[int, int], None] | None,
) -> None:
    """Put what `reference` says of the rows `missing` into `column`, in windows, longest first within each."""
    writes = n_processes() == 1 or processes().is_main_process
    device = reference.device
    done = 0
    for start in range(0, len(missing), WINDOW):
        tries = {row: data.trie(row) for row in missing[start : start + WINDOW].tolist()}
        rows = sorted(tries, key=lambda row: -tries[row].n_nodes)
        for at in range(0, len(rows), put_every):
            some = rows[at : at + put_every]
            with autocast(device, precision):
                scored = score_shared(
                    reference, [tries[row] for row in some], max_tokens=max_tokens, reference=adapters_off
                )
            if writes:
                column.put(some, [np.concatenate(values) for values in scored])
            done += len(some)
            if show is not None:
                show(done, len(missing))


def _item_keys(example: Example) -> list[bytes]:
    trie = example.trie
    keys = []
    for item in range(trie.n_items):
        path = trie.path(item)
        n_response = len(trie.scored[item])
        tokens = trie.token[path]
        keys.append(tokens_key(tokens[: len(path) - n_response], tokens[len(path) - n_response :]))
    return keys
