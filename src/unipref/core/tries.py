"""Token tries: items that share a prefix share its tokens.

Shapes: N nodes, I items, T scored tokens (of all items, item after item).
A record's items are a forest in depth-first order. Four integers per node say everything about visibility:
node k is seen from node q exactly where ``k <= q < end[k]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unipref.core.errors import ShapeError

__all__ = ["Trie", "TrieBatch", "build_trie", "pack"]


@dataclass(frozen=True, eq=False)
class Trie:
    """The token forest of one record.

    Attributes:
        token: (N,) int32 vocabulary ids, depth-first.
        parent: (N,) int32 index of the parent node, -1 for a root.
        depth: (N,) int32 tokens before this one on its path; the position id.
        end: (N,) int32 one past the last descendant.
        scored: per item the node indices of its scored (response) tokens, in order; every one has a parent.
        context: per item the node of its last context token.
        last: per item the node of its last token.
    """

    token: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    scored: tuple[np.ndarray, ...]
    context: np.ndarray
    last: np.ndarray

    @property
    def n_nodes(self) -> int:
        return len(self.token)

    @property
    def n_items(self) -> int:
        return len(self.scored)

    @property
    def n_row_tokens(self) -> int:
        """Tokens that the same items cost as separate rows."""
        return int((self.depth[self.last] + 1).sum())

    def path(self, item: int) -> np.ndarray:
        """(L,) nodes of `item` from its root to its last token."""
        nodes = [int(self.last[item])]
        while self.parent[nodes[-1]] >= 0:
            nodes.append(int(self.parent[nodes[-1]]))
        return np.array(nodes[::-1], dtype=np.int64)


def build_trie(items: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Trie:
    """The trie of `items`, each (context ids, response ids); equal prefixes are stored once, wherever contexts end.

    The first token of an item with an empty context has nothing to be predicted from and is not scored.

    Raises:
        ShapeError: there is no item, or an item has no scored token.
    """
    if not items:
        raise ShapeError("a trie needs at least one item")
    children: list[dict[int, int]] = [{}]  # insertion node 0 is a virtual root above the forest
    tokens: list[int] = [-1]
    paths = []
    for context, response in items:
        node, path = 0, []
        for token in (*context, *response):
            token = int(token)
            child = children[node].get(token)
            if child is None:
                child = len(tokens)
                children[node][token] = child
                children.append({})
                tokens.append(token)
            node = child
            path.append(node)
        paths.append(path)

    n = len(tokens)
    order = np.full(n, -1, dtype=np.int32)  # insertion index -> depth-first index
    token, parent, depth = (np.empty(n - 1, dtype=np.int32) for _ in range(3))
    stack = [(child, -1, 0) for child in reversed(children[0].values())]
    count = 0
    while stack:
        node, above, level = stack.pop()
        order[node] = count
        token[count], parent[count], depth[count] = tokens[node], above, level
        stack.extend((child, count, level + 1) for child in reversed(children[node].values()))
        count += 1
    end = np.arange(1, n, dtype=np.int32)
    for node in range(n - 2, -1, -1):  # children come after their parent, so one backward sweep suffices
        if parent[node] >= 0:
            end[parent[node]] = max(end[parent[node]], end[node])

    scored, context_end, last = [], [], []
    for (context, response), path in zip(items, paths, strict=True):
        start = max(len(context), 1)
        nodes = order[path[start:]]
        if len(response) == 0 or len(nodes) == 0:
            raise ShapeError(f"an item needs a context token and a response token: {len(context)} and {len(response)}")
        scored.append(nodes.astype(np.int64))
        context_end.append(order[path[start - 1]])
        last.append(order[path[-1]])
    return Trie(token, parent, depth, end, tuple(scored), np.array(context_end, np.int64), np.array(last, np.int64))


@dataclass(frozen=True, eq=False)
class TrieBatch:
    """Several tries side by side in one row of N nodes; all indices count in that row.

    Attributes:
        token, parent, depth, end: (N,) int64.
        start: (R + 1,) int64 offsets of the R tries; trie r holds nodes start[r] to start[r + 1] - 1.
        scored: (T,) int64 node of every scored token, item after item.
        scored_item: (T,) int64 item of every scored token.
        context: (I,) int64 last context node; last: (I,) int64 last node; length: (I,) int64 scored tokens.
        trie: (I,) int64 trie (record) of every item.
    """

    token: torch.Tensor
    parent: torch.Tensor
    depth: torch.Tensor
    end: torch.Tensor
    start: torch.Tensor
    scored: torch.Tensor
    scored_item: torch.Tensor
    context: torch.Tensor
    last: torch.Tensor
    length: torch.Tensor
    trie: torch.Tensor

    @property
    def n_items(self) -> int:
        return len(self.last)

    def to(self, device: torch.device | str) -> "TrieBatch":
        """The same batch on `device`."""
        return TrieBatch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def pack(tries: Sequence[Trie]) -> TrieBatch:
    """`tries` laid side by side: no padding, no token of one visible from another."""
    start = np.cumsum([0, *(trie.n_nodes for trie in tries)])
    item_start = np.cumsum([0, *(trie.n_items for trie in tries)])

    def join(name: str) -> torch.Tensor:
        return torch.from_numpy(
            np.concatenate([getattr(t, name).astype(np.int64) + s for t, s in zip(tries, start, strict=False)])
        )

    token = torch.from_numpy(np.concatenate([t.token for t in tries]).astype(np.int64))
    depth = torch.from_numpy(np.concatenate([t.depth for t in tries]).astype(np.int64))
    parent = np.concatenate(
        [np.where(t.parent >= 0, t.parent.astype(np.int64) + s, -1) for t, s in zip(tries, start, strict=False)]
    )
    spans = [nodes + s for t, s in zip(tries, start, strict=False) for nodes in t.scored]
    length = np.array([len(span) for span in spans], dtype=np.int64)
    return TrieBatch(
        token=token,
        parent=torch.from_numpy(parent),
        depth=depth,
        end=join("end"),
        start=torch.from_numpy(start.astype(np.int64)),
        scored=torch.from_numpy(np.concatenate(spans)),
        scored_item=torch.from_numpy(np.repeat(np.arange(len(spans)), length)),
        context=join("context"),
        last=join("last"),
        length=torch.from_numpy(length),
        trie=torch.from_numpy(np.repeat(np.arange(len(tries)), np.diff(item_start))),
    )
