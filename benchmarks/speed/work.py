"""The arithmetic that a step cannot do without, and the state that training cannot do without. No torch here.

One position that passes a layer's weights costs 2 operations a weight, one (ancestor, descendant) pair of positions 4 a
head's width, one position that is read 2 a weight of the vocabulary's matrix. A backward pass costs twice its forward,
and once where weights are frozen under adapters, whose own products are left out. Shared prefixes count once and
padding never: whoever computes more than this has the lower share.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.speed.cases import Setting, Shape

__all__ = ["Counts", "bound_of_lists", "count", "flops", "matrix_weights"]

Counts = dict[str, int]
Row = Mapping[str, Any]  # {"items": [[context, response], ...], "pairs": [[winner, loser], ...]}


def count(rows: Sequence[Row]) -> Counts:
    """What the pairs of `rows` are made of.

    Returns:
        "pairs"; "tokens" and "scored" of both sides of every pair, as rows without padding; and shared: "nodes", "seen"
        ((ancestor, descendant) pairs of positions, itself among them) and "read" (positions that predict a response's
        token).
    """
    found = dict.fromkeys(("pairs", "tokens", "scored", "nodes", "seen", "read"), 0)
    for row in rows:
        depth: dict[tuple[int, ...], int] = {}
        read: set[tuple[int, ...]] = set()
        for context, response in row["items"]:
            whole = (*context, *response)
            for n in range(1, len(whole) + 1):
                depth[whole[:n]] = n
            read |= {whole[:n] for n in range(len(context), len(whole))}
        for pair in row["pairs"]:
            found["pairs"] += 1
            for side in pair:
                context, response = row["items"][side]
                found["tokens"] += len(context) + len(response)
                found["scored"] += len(response)
        found["nodes"] += len(depth)
        found["seen"] += sum(depth.values())
        found["read"] += len(read)
    return found


def matrix_weights(shape: Shape) -> int:
    """Weights of the blocks that every position passes."""
    width = shape.hidden // shape.heads
    attention = 2 * shape.hidden * shape.heads * width + 2 * shape.hidden * shape.kv_heads * width
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def flops(shape: Shape, counts: Counts, *, lora: bool, reference: bool) -> float:
    """Operations of forward and backward over `counts`, and of a live reference's forward."""
    weights = 2 * matrix_weights(shape) * counts["nodes"]
    attention = 4 * shape.layers * shape.hidden * counts["seen"]
    head = 2 * shape.vocabulary * shape.hidden * counts["read"]
    passes = 2 if lora else 3
    total = passes * weights + 3 * attention + passes * head
    return float(total + (weights + attention + head if reference else 0))


def n_weights(shape: Shape) -> int:
    """All weights of the model, norms too."""
    return shape.vocabulary * shape.hidden + matrix_weights(shape) + (2 * shape.layers + 1) * shape.hidden


def state_bytes(setting: Setting, shape: Shape, *, reference: bool, trained: int) -> int:
    """Weights, gradients and AdamW's two moments, and a live reference's weights.

    Args:
        trained: numbers that are trained, as the side counted them.
        reference: a second model lies in memory; under adapters the first one is its own reference.
    """
    width = 4 if setting.weights == "float32" else 2
    adapters = trained if setting.lora else 0
    models = 2 if reference and not setting.lora else 1
    trained_width = 4 if setting.lora else width
    return models * width * n_weights(shape) + 4 * adapters + 3 * trained_width * trained


def bound_of_lists(prompt: int, response: int, k: int) -> float:
    """What sharing a prompt can gain where cost is proportional to tokens: k(P + R) / (P + kR)."""
    return k * (prompt + response) / (prompt + k * response)
