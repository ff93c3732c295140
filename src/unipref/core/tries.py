"""Token tries: items that share a prefix share its tokens.

Shapes: N nodes, I items, S segments, T scored tokens (of all items, item after item).
A record's items are a forest in depth-first order. Four integers per node say everything about visibility:
node k is seen from node q exactly where ``k <= q < end[k]``.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unipref.core.errors import ShapeError

__all__ = ["SHARED", "Segments", "Trie", "TrieBatch", "build_trie", "merge_tries", "pack", "prompt_key"]

SHARED = 8  # tokens that tries must have in common to be worth merging; a template's header alone is shorter


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

    @property
    def n_visible(self) -> int:
        """Pairs of a node and one that it sees, itself included: what attention over the trie computes."""
        return int(self.depth.sum(dtype=np.int64)) + len(self.depth)

    @property
    def stem(self) -> np.ndarray:
        """(L,) int32 tokens before the first place where two items part."""
        # A first node without the last node among its descendants is one of several roots.
        above_all = self.end == self.n_nodes
        beginning = self.depth == np.arange(self.n_nodes)
        both = above_all & beginning
        return self.token if both.all() else self.token[: both.argmin()]

    def path(self, item: int) -> np.ndarray:
        """(L,) nodes of `item` from its root to its last token."""
        start, parent = (part.tolist() for part in self._runs())
        return _between(-1, int(self.last[item]), start, parent)

    def paths(self) -> list[np.ndarray]:
        """`path` of every item."""
        start, parent = (part.tolist() for part in self._runs())
        return [_between(-1, node, start, parent) for node in self.last.tolist()]

    def _runs(self) -> tuple[np.ndarray, np.ndarray]:
        """First node of each segment, and the node that it hangs from."""
        starts = self.parent != np.arange(-1, self.n_nodes - 1)
        starts[:1] = True  # the first root comes after node -1, which is none
        start = np.flatnonzero(starts)
        return start, self.parent[start]

    def segments(self) -> "Segments":
        """The same trie as files hold it; `Segments.trie` gives it back."""
        start, parent = self._runs()
        return Segments(
            self.token,
            start.astype(np.int32),
            parent,
            self.context.astype(np.int32),
            self.last.astype(np.int32),
        )


@dataclass(frozen=True, eq=False)
class Segments:
    """A trie without what follows from its shape: one integer per node, two per segment and two per item.

    A segment is a run of nodes, each the child of the one before it. It goes on into the first child of a node that has
    several, so that a trie has as many segments as leaves.

    Attributes:
        token: (N,) vocabulary ids, depth-first.
        start: (S,) first node of each segment, ascending from 0.
        parent: (S,) node that the segment hangs from, -1 where it begins with a root.
        context: (I,) node of each item's last context token.
        last: (I,) node of each item's last token.
    """

    token: np.ndarray
    start: np.ndarray
    parent: np.ndarray
    context: np.ndarray
    last: np.ndarray

    def trie(self) -> Trie:
        """The trie, exactly as it was built; integer arrays of any width will do."""
        n = len(self.token)
        start, parent = self.start.tolist(), self.parent.tolist()
        index = np.arange(n, dtype=np.int32)
        end = np.full(n, n, dtype=np.int32)
        stop = [*start[1:], n]  # per segment one past its last node that may still get descendants
        shift = []  # per segment, depth minus index of its nodes
        way: list[int] = []  # segments from a root down to the present one
        for i, (here, at) in enumerate(zip(start, parent, strict=True)):
            while way and start[way[-1]] > at:  # what a new segment does not hang from ends where it starts
                above = way.pop()
                end[start[above] : stop[above]] = here
            if way:
                above = way[-1]
                end[at + 1 : stop[above]] = here
                stop[above] = at + 1
                shift.append(shift[above] + at + 1 - here)
            else:
                shift.append(-here)
            way.append(i)
        parents = index - 1
        parents[start] = parent
        context, last = self.context.tolist(), self.last.tolist()
        return Trie(
            token=np.asarray(self.token, dtype=np.int32),
            parent=parents,
            depth=index + np.repeat(np.array(shift, dtype=np.int32), np.diff(start, append=n)),
            end=end,
            scored=tuple(_between(a, b, start, parent) for a, b in zip(context, last, strict=True)),
            context=np.array(context, dtype=np.int64),
            last=np.array(last, dtype=np.int64),
        )


def _between(above: int, node: int, start: list[int], parent: list[int]) -> np.ndarray:
    """(L,) int64 nodes on the way from below `above` down to `node`, in segments that `start` and `parent` describe."""
    pieces = []
    while True:
        segment = bisect_right(start, node) - 1
        first = max(start[segment], above + 1)
        pieces.append(np.arange(first, node + 1))
        if first > start[segment] or parent[segment] <= above:
            return pieces[0] if len(pieces) == 1 else np.concatenate(pieces[::-1])
        node = parent[segment]


class _Edge:
    """A run of tokens that no known item leaves: those of `source` from `start` to `stop`, and what may follow.

    An item's token of depth d stands at d in its own tokens, so `start` is the depth as well.
    """

    __slots__ = ("children", "node", "source", "start", "stop")

    def __init__(self, source: np.ndarray, start: int, stop: int, children: "dict[int, _Edge]") -> None:
        self.source, self.start, self.stop, self.children = source, start, stop, children
        self.node = -1  # of its first token in depth-first order


def build_trie(items: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Trie:
    """The trie of `items`, each (context ids, response ids); equal prefixes are stored once, wherever contexts end.

    The first token of an item with an empty context has nothing to be predicted from and is not scored.

    Raises:
        ShapeError: there is no item, or an item has no scored token.
    """
    if not items:
        raise ShapeError("a trie needs at least one item")
    known: dict[int, np.ndarray] = {}  # contexts are often one object for all items of a record
    rows, ends = [], []
    for context, response in items:
        if len(response) == 0 or len(context) + len(response) < 2:
            raise ShapeError(f"an item needs a context token and a response token: {len(context)} and {len(response)}")
        if id(context) not in known:
            known[id(context)] = np.asarray(context, dtype=np.int32)
        rows.append(np.concatenate((known[id(context)], np.asarray(response, dtype=np.int32))))
        ends.append(max(len(context), 1))
    return _segments(rows, ends).trie()


def _segments(rows: Sequence[np.ndarray], ends: Sequence[int]) -> Segments:
    """The segments of `rows` of token ids, of which item i's first `ends[i]` are context.

    A radix tree: whole runs of tokens are compared at once, and a run is cut where a row leaves it.
    """
    roots: dict[int, _Edge] = {}
    for row in rows:
        children, depth, n = roots, 0, len(row)
        while depth < n:
            token = int(row[depth])
            edge = children.get(token)
            if edge is None:
                children[token] = _Edge(row, depth, n, {})
                break
            reach = min(edge.stop, n)
            differs = edge.source[depth:reach] != row[depth:reach]
            first = int(differs.argmax())
            depth = depth + first if differs[first] else reach
            if depth < edge.stop and depth < n:
                lower = _Edge(edge.source, depth, edge.stop, edge.children)
                edge.stop, edge.children = depth, {int(edge.source[depth]): lower}
            children = edge.children

    tokens, start, parent = [], [], []
    n = 0
    stack = [(edge, -1) for edge in reversed(roots.values())]
    while stack:
        edge, above = stack.pop()
        if above != n - 1 or not start:  # not the first child of the node before
            start.append(n)
            parent.append(above)
        edge.node = n
        tokens.append(edge.source[edge.start : edge.stop])
        n += edge.stop - edge.start
        if edge.children:
            stack.extend((child, n - 1) for child in reversed(edge.children.values()))

    context, last = [], []
    for row, end in zip(rows, ends, strict=True):
        for depth, found in ((end - 1, context), (len(row) - 1, last)):
            edge = roots[int(row[0])]
            while depth >= edge.stop:
                edge = edge.children[int(row[edge.stop])]
            found.append(edge.node + depth - edge.start)
    return Segments(
        np.concatenate(tokens), *(np.array(values, dtype=np.int32) for values in (start, parent, context, last))
    )


@dataclass(frozen=True, eq=False)
class TrieBatch:
    """Several tries side by side in one row of N nodes; all indices count in that row.

    Attributes:
        token, parent, depth, end: (N,) int64.
        start: (R + 1,) int64 offsets of the R forests that lie side by side; forest r holds nodes start[r] to
            start[r + 1] - 1. Each is one of the tries, in their order, unless `pack` was to share their prefixes.
        scored: (T,) int64 node of every scored token, item after item.
        scored_item: (T,) int64 item of every scored token.
        context: (I,) int64 last context node; last: (I,) int64 last node; length: (I,) int64 scored tokens.
        trie: (I,) int64 trie (record) of every item, as they were given.
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


def pack(tries: Sequence[Trie], *, share: bool = False) -> TrieBatch:
    """`tries` laid side by side: no padding, no token of one visible from another.

    Items come in the order of `tries` either way.

    Args:
        share: tries that begin with the same SHARED tokens become one, so that what they share is there once.
    """
    forests: Sequence[Trie] = tries
    of_trie, first = range(len(tries)), [0] * len(tries)  # per trie its forest, and its first item's place there
    if share:
        forests, of_trie, first = _merged(tries)
    start = np.cumsum([0, *(len(forest.token) for forest in forests)])
    n_items = [len(trie.scored) for trie in tries]
    item_start = np.repeat(start[:-1][list(of_trie)], n_items)
    spans, context, last = [], [], []
    for forest, at, n in zip((forests[i] for i in of_trie), first, n_items, strict=True):
        spans.extend(forest.scored[at : at + n])
        context.append(forest.context[at : at + n])
        last.append(forest.last[at : at + n])
    length = np.fromiter(map(len, spans), dtype=np.int64, count=len(spans))
    node_start = np.repeat(start[:-1], np.diff(start))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(forest, name) for forest in forests], dtype=np.int64)

    parent = joined("parent")
    return TrieBatch(
        token=torch.from_numpy(joined("token")),
        parent=torch.from_numpy(np.where(parent >= 0, parent + node_start, -1)),
        depth=torch.from_numpy(joined("depth")),
        end=torch.from_numpy(joined("end") + node_start),
        start=torch.from_numpy(start.astype(np.int64)),
        scored=torch.from_numpy(np.concatenate(spans) + np.repeat(item_start, length)),
        scored_item=torch.from_numpy(np.repeat(np.arange(len(spans)), length)),
        context=torch.from_numpy(np.concatenate(context) + item_start),
        last=torch.from_numpy(np.concatenate(last) + item_start),
        length=torch.from_numpy(length),
        trie=torch.from_numpy(np.repeat(np.arange(len(tries)), n_items)),
    )


def merge_tries(tries: Sequence[Trie]) -> Trie:
    """One trie of the items of all `tries`, in their order: what `build_trie` makes of all these items."""
    rows, ends = [], []
    for trie in tries:
        rows.extend(trie.token[path] for path in trie.paths())
        ends.extend((trie.depth[trie.context] + 1).tolist())
    return _segments(rows, ends).trie()


def prompt_key(trie: Trie, conversation: str = "") -> int:
    """A 64-bit number that rows of one conversation share or, where it has no name, rows of one prompt.

    The prompt is the context of the first item, as it was cut. Turns of one conversation begin alike, so that a name
    ties more rows than the tokens of whole prompts would.
    """
    name = conversation.encode("utf-8", "backslashreplace")
    if not name:
        context = _between(-1, int(trie.context[0]), *(part.tolist() for part in trie._runs()))
        name = trie.token[context].astype("<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=True)


def _merged(tries: Sequence[Trie]) -> tuple[list[Trie], list[int], list[int]]:
    """`tries` with those that begin alike made one; of each its place among them, and its first item's place in that.

    What comes first stays first.
    """
    families: dict[bytes | int, list[int]] = {}
    for i, trie in enumerate(tries):
        at = SHARED - 1  # the node at this place, where it is that deep and above all others, ends a common beginning
        common = trie.n_nodes > at and trie.depth[at] == at and trie.end[at] == trie.n_nodes
        families.setdefault(trie.token[:SHARED].tobytes() if common else i, []).append(i)
    forests, of_trie, first = [], [0] * len(tries), [0] * len(tries)
    for members in families.values():
        at = 0
        for i in members:
            of_trie[i], first[i] = len(forests), at
            at += tries[i].n_items
        forests.append(tries[members[0]] if len(members) == 1 else merge_tries([tries[i] for i in members]))
    return forests, of_trie, first
