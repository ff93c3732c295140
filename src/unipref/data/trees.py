"""Trees of solution steps: read, kept as records of one item per step, and turned into pairs and lists.

A tree's record has an item per node: the context is the prompt and the accepted steps before it, the response is the
step. What the search knows of a node stands in the item's columns (`FACTS`), "node" is its number in the record and
"parent" that of the node it continues (absent at the first steps), so nothing is lost and `tree_of` gives the tree
back. Steps are joined as they are: the white space between two of them belongs to one of them.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unipref.core.errors import ConfigError, DataError, nearest
from unipref.core.records import Comparison, Item, Record, Span
from unipref.data.encode import CONTINUES
from unipref.data.report import RowFault

__all__ = [
    "FACTS",
    "Node",
    "Tree",
    "alphazero",
    "extracted",
    "known_fact",
    "leaf_list",
    "node_items",
    "prefix_pairs",
    "puct",
    "sibling_pairs",
    "step_pairs",
    "swapped_words",
    "tree_of",
    "visit_smoothing",
]

FACTS = ("prior", "n_visit", "q", "v", "reward", "is_terminal", "is_correct")
_FLAGS = ("is_terminal", "is_correct")


@dataclass(frozen=True)
class Node:
    """One step.

    Attributes:
        text: of this step alone.
        parent: index of the node it continues; None for a first step.
        facts: numbers known of it, by the names in `FACTS`; a flag is 1 or 0, what is unknown is absent.
        token_ids: of this step as it was sampled; None where unknown.
    """

    text: str
    parent: int | None
    facts: Mapping[str, float]
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Tree:
    """A prompt and the steps of its solutions; a node stands behind its parent."""

    prompt: str
    nodes: tuple[Node, ...]

    def children(self, node: int | None) -> list[int]:
        """Nodes that continue `node`; the first steps for None."""
        return [i for i, other in enumerate(self.nodes) if other.parent == node]

    def path(self, node: int | None) -> list[int]:
        """Nodes from the first step up to and with `node`."""
        found = []
        while node is not None:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]

    def text(self, node: int | None) -> str:
        """All steps up to and with `node`, joined."""
        return "".join(self.nodes[i].text for i in self.path(node))

    @property
    def leaves(self) -> list[int]:
        """Nodes that nothing continues, in order."""
        inner = {node.parent for node in self.nodes}
        return [i for i in range(len(self.nodes)) if i not in inner]

    def merged(self) -> "Tree":
        """The same tree with every node that has one child joined to it: such a step is no choice.

        The joined step keeps the facts of its first node, by which it is compared with its siblings, and takes
        whether it ends and is right from its last. A first step without siblings becomes part of the prompt.
        """
        kept: list[Node] = []
        index: dict[int | None, int | None] = {None: None}
        prompt = self.prompt
        top: int | None = None
        while len(only := self.children(top)) == 1 and self.children(only[0]):
            top = only[0]
            prompt += self.nodes[top].text
        index[top] = None
        queue = [(child, None) for child in self.children(top)]
        while queue:
            first, above = queue.pop(0)
            chain = [first]
            while len(only := self.children(chain[-1])) == 1:
                chain += only
            nodes = [self.nodes[i] for i in chain]
            ends = {name: nodes[-1].facts[name] for name in _FLAGS if name in nodes[-1].facts}
            ids = [node.token_ids for node in nodes]
            joined = None if None in ids else tuple(token for part in ids for token in part or ())
            kept.append(Node("".join(n.text for n in nodes), above, {**nodes[0].facts, **ends}, joined))
            queue += [(child, len(kept) - 1) for child in self.children(chain[-1])]
        return Tree(prompt, tuple(kept))


# ------------------------------------------------------------------------------------------------ reading and records


def node_items(prompt: str, nodes: Sequence[Any]) -> list[Item]:
    """An item per node of a row ``{prompt, nodes: [{id, parent, text, ...}]}``.

    A node has an `id`, the `parent`'s id (null or absent at a first step) and its `text`; `depth`, `token_ids` and the
    names in `FACTS` where they are known. A root without a text stands for the prompt. The order is free.

    Raises:
        RowFault: an id stands twice, a parent is missing or the nodes run in a circle, a depth contradicts the
            parents, or a value has the wrong type.
    """
    rows: dict[Any, Mapping[str, Any]] = {}
    for k, node in enumerate(nodes):
        if not isinstance(node, Mapping) or not isinstance(node.get("id"), int | str):
            raise RowFault("a node of the tree has no id", f"node {k + 1}")
        if node["id"] in rows:
            raise RowFault("two nodes of the tree have one id", repr(node["id"]))
        rows[node["id"]] = node
    depths: dict[Any, int] = {}
    for name in rows:
        chain, at = [], name
        while at is not None and at not in depths:
            if at not in rows:
                raise RowFault("a node of the tree has a parent that is not there", repr(at))
            if at in chain:
                raise RowFault("the nodes of the tree run in a circle", repr(at))
            chain.append(at)
            at = rows[at].get("parent")
        for step in reversed(chain):
            above = rows[step].get("parent")
            depths[step] = 0 if above is None else depths[above] + 1
    roots = [name for name, depth in depths.items() if depth == 0]
    bare = [name for name in roots if not rows[name].get("text")]
    if bare and len(roots) > 1:
        raise RowFault("the tree has several roots, one of them without a text", repr(bare[0]))
    first_depths = {rows[name]["depth"] - depths[name] for name in rows if isinstance(rows[name].get("depth"), int)}
    if len(first_depths) > 1:
        raise RowFault("the depths of the tree's nodes contradict their parents")
    index: dict[Any, int | None] = dict.fromkeys(bare)
    built: list[Node] = []
    for name in sorted(rows, key=depths.__getitem__):  # stable: siblings keep the order of the row
        if name not in index:
            above = rows[name].get("parent")
            index[name] = len(built)
            built.append(_node(rows[name], None if above is None else index[above]))
    if not built:
        raise RowFault("the tree has no step")
    tree = Tree(prompt, tuple(built))
    return [_step_item(tree, i, prompt + tree.text(node.parent)) for i, node in enumerate(tree.nodes)]


def _node(row: Mapping[str, Any], parent: int | None) -> Node:
    where = f"node {row['id']!r}"
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise RowFault("a node of the tree has no text", where)
    ids = row.get("token_ids")
    if ids is not None and not (isinstance(ids, list | tuple) and ids and all(type(i) is int for i in ids)):
        raise RowFault("a node's 'token_ids' are not a list of whole numbers", where)
    facts = {}
    for name in FACTS:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, int | float) or not math.isfinite(value) or (name in _FLAGS and value not in (0, 1)):
            raise RowFault(f"a node's {name!r} is not {'true or false' if name in _FLAGS else 'a number'}", where)
        facts[name] = float(value)
    return Node(text, parent, facts, None if ids is None else tuple(ids))


def _step_item(tree: Tree, node: int, context: str) -> Item:
    step = tree.nodes[node]
    columns = {"node": float(node), **step.facts}
    if step.parent is not None:
        columns["parent"] = float(step.parent)
    return Item(context, step.text, columns=_open(tree, node, columns), response_ids=step.token_ids)


def _open(tree: Tree, node: int, columns: Mapping[str, float]) -> dict[str, float]:
    """`columns`, and that more follows the step where it is not an end."""
    ends = tree.nodes[node].facts.get("is_terminal", float(node in tree.leaves))
    return {**columns, CONTINUES: 1.0 - ends}


def tree_of(record: Record) -> Tree:
    """The tree that the record of a row in the format "tree" holds.

    Raises:
        DataError: the record is not of that kind.
    """
    items = [item for item in record.items if "node" in item.columns]
    if not items or not all(isinstance(item.context, str) for item in items):
        raise DataError(f"the record {record.id!r} holds no tree; read its source with format='tree'")
    nodes = []
    for item in items:
        parent = item.columns.get("parent")
        facts = {name: item.columns[name] for name in FACTS if name in item.columns}
        nodes.append(Node(item.response, None if parent is None else int(parent), facts, item.response_ids))
    first = next(item for item in items if "parent" not in item.columns)
    return Tree(first.context, tuple(nodes))


# ---------------------------------------------------------------------------------------------------------- the search


def puct(q: float, prior: float, n_parent: float, n: float, *, c: float = 1.5) -> float:
    """q + c * prior * sqrt(n_parent) / (1 + n): what the search of arXiv:2406.10858 follows (c as in its code).

    Example:
        >>> puct(0.2, 0.4, 9, 2)
        0.8
    """
    return q + c * prior * math.sqrt(n_parent) / (1 + n)


def alphazero(
    value: float, prior: float, n_parent: float, n: float, *, base: float = 19652.0, init: float = 1.25
) -> float:
    """value + prior * (log((n_parent + base + 1) / base) + init) * sqrt(n_parent) / (n + 1).

    What the code of arXiv:2502.02095 selects by; a note on its paper gives another exploration term.
    """
    return value + prior * (math.log((n_parent + base + 1) / base) + init) * math.sqrt(n_parent) / (n + 1)


def visit_smoothing(n_winner: float, n_loser: float) -> float:
    """min(1 - conf, 1/2) with conf = 1 / (1 + n_loser / max(1, n_winner)), as in the code of arXiv:2405.00451.

    Example:
        >>> visit_smoothing(30, 10), visit_smoothing(10, 30), visit_smoothing(0, 0)
        (0.25, 0.5, 0.0)
    """
    return min(1.0 - 1.0 / (1.0 + n_loser / max(1.0, n_winner)), 0.5)


# ------------------------------------------------------------------------------------------------------ tree to records


def sibling_pairs(
    tree: Tree, *, by: str = "q", choose_worst: bool = True, smoothing: bool = False, min_visits: int = 1
) -> list[Record]:
    """A record per node with two continuations or more: the best of them against another, in the same context.

    Chains of single children are joined first (`Tree.merged`). Siblings that lack the fact, and pairs that agree in it
    or spell the same step, are left.

    Args:
        by: one of `FACTS`, higher is better. The code of arXiv:2405.00451 sorts by Q, then by visits.
        choose_worst: against the worst; else against the second best.
        smoothing: the comparison's preference is 1 - `visit_smoothing` of the two nodes; a pair with fewer than
            `min_visits` visits in all is left, for two unvisited nodes would count as a certain comparison.

    Raises:
        ConfigError: there is no such fact.
    """
    known_fact(by)
    tree = tree.merged()
    found = []
    for parent in [None, *range(len(tree.nodes))]:
        rated = [i for i in tree.children(parent) if by in tree.nodes[i].facts]
        order = sorted(rated, key=lambda i: (tree.nodes[i].facts[by], tree.nodes[i].facts.get("n_visit", 0.0)))
        if len(order) < 2:
            continue
        winner, loser = order[-1], order[0] if choose_worst else order[-2]
        better, worse = tree.nodes[winner], tree.nodes[loser]
        margin = better.facts[by] - worse.facts[by]
        if margin <= 0 or better.text == worse.text:
            continue
        preference = 1.0
        if smoothing:
            visits = [node.facts.get("n_visit", 0.0) for node in (better, worse)]
            if sum(visits) < min_visits:
                continue
            preference = 1.0 - visit_smoothing(*visits)
        found.append(_pair(tree, winner, loser, Comparison(0, 1, preference, margin)))
    return found


def leaf_list(tree: Tree, *, by: str = "reward") -> Record | None:
    """One record whose items are the whole solutions, from the first step to a leaf, with their score and their steps.

    Column "score" is the leaf's fact `by`; each step is a span, whose score is its own `q` where it has one. None
    where fewer than two leaves have the fact.

    Raises:
        ConfigError: there is no such fact.
    """
    known_fact(by)
    items = []
    for leaf in tree.leaves:
        if by not in tree.nodes[leaf].facts:
            continue
        spans: list[Span] = []
        at = 0
        steps = [tree.nodes[i] for i in tree.path(leaf)]
        for step in steps:
            spans.append(Span(at, at + len(step.text), step.facts.get("q", math.nan)))
            at += len(step.text)
        ids = [step.token_ids for step in steps]
        whole = None if None in ids else tuple(token for part in ids for token in part or ())
        facts = tree.nodes[leaf].facts
        columns = _open(tree, leaf, {**facts, "score": facts[by]})
        items.append(Item(tree.prompt, tree.text(leaf), columns=columns, response_ids=whole, spans=tuple(spans)))
    return Record("leaves", tuple(items)) if len(items) > 1 else None


def prefix_pairs(
    tree: Tree,
    *,
    by: str = "v",
    threshold: float = 1.0,
    inclusive: bool = False,
    first: float = 0.7,
    max_prefixes: int = 10,
    seed: int = 0,
) -> Record | None:
    """One record that compares every good beginning of a solution with every bad one; None where a side is empty.

    A beginning is good where its fact `by` (how many of its completions reach the pseudo label) lies above
    `threshold`, with `inclusive` at it too. Whether the code of arXiv:2411.16345 includes the threshold was not read.

    Args:
        first: only beginnings within this share of the steps of some solution through them (0.8 for programs).
        max_prefixes: drawn at random of the others, both sides together.

    Raises:
        ConfigError: there is no such fact.
    """
    known_fact(by)
    reach = [0] * len(tree.nodes)  # steps of the longest solution through each node
    for leaf in tree.leaves:
        path = tree.path(leaf)
        for node in path:
            reach[node] = max(reach[node], len(path))
    ends = set(tree.leaves)
    known = [
        i
        for i, node in enumerate(tree.nodes)
        if by in node.facts and i not in ends and len(tree.path(i)) <= first * reach[i]
    ]
    if len(known) > max_prefixes:
        known = sorted(random.Random(f"prefixes {seed} {tree.prompt}").sample(known, max_prefixes))
    good = [i for i in known if _above(tree.nodes[i].facts[by], threshold, inclusive)]
    bad = [i for i in known if i not in good]
    if not good or not bad:
        return None
    items = [
        Item(tree.prompt, tree.text(i), columns=_open(tree, i, {by: tree.nodes[i].facts[by]})) for i in (*good, *bad)
    ]
    pairs = [Comparison(i, len(good) + j) for i in range(len(good)) for j in range(len(bad))]
    return Record("prefixes", tuple(items), tuple(pairs))


def step_pairs(tree: Tree, *, by: str = "v", seed: int = 0, swap: float = 0.3) -> list[Record]:
    """A record per depth of the best path: its step against a random sibling, or against its own words in disorder
    where it has none (`swapped_words`).

    The next step is the continuation with the largest `by`.

    Raises:
        ConfigError: there is no such fact.
    """
    known_fact(by)
    rng = random.Random(f"steps {seed} {tree.prompt}")
    found: list[Record] = []
    at: int | None = None
    while rated := [i for i in tree.children(at) if by in tree.nodes[i].facts]:
        best = max(rated, key=lambda i: tree.nodes[i].facts[by])
        others = [i for i in tree.children(at) if tree.nodes[i].text != tree.nodes[best].text]
        if others:
            found.append(_pair(tree, best, rng.choice(others), Comparison(0, 1)))
        elif (disorder := swapped_words(tree.nodes[best].text, swap, rng)) != tree.nodes[best].text:
            item = _step_item(tree, best, tree.prompt + tree.text(at))
            worse = replace(item, response=disorder, response_ids=None, columns={CONTINUES: item.columns[CONTINUES]})
            found.append(Record(f"{best}~words", (item, worse), (Comparison(0, 1),)))
        at = best
    return found


def swapped_words(text: str, share: float, rng: random.Random) -> str:
    """`text` with neighbouring words exchanged, each pair with probability `share`, and one at least where two
    neighbours differ; the white space stays where it is."""
    words = text.split()
    places = [i for i in range(len(words) - 1) if words[i] != words[i + 1]]
    if not places:
        return text
    chosen = [i for i in places if rng.random() < share] or [rng.choice(places)]
    for i in chosen:
        words[i], words[i + 1] = words[i + 1], words[i]
    if words == text.split():  # exchanges that undid each other
        words[places[0]], words[places[0] + 1] = words[places[0] + 1], words[places[0]]
    parts, at = [], 0
    for old, new in zip(text.split(), words, strict=True):
        start = text.index(old, at)
        parts.append(text[at:start] + new)
        at = start + len(old)
    return "".join([*parts, text[at:]])


def _above(value: float, threshold: float, inclusive: bool) -> bool:
    return value >= threshold if inclusive else value > threshold


def known_fact(fact: str) -> None:
    """Refuse the name of a fact that no node has.

    Raises:
        ConfigError: see above.
    """
    if fact not in FACTS:
        raise ConfigError(f"a tree's nodes have no fact {fact!r}{nearest(fact, FACTS)}")


def _pair(tree: Tree, winner: int, loser: int, comparison: Comparison) -> Record:
    context = tree.prompt + tree.text(tree.nodes[winner].parent)
    items = tuple(_step_item(tree, i, context) for i in (winner, loser))
    return Record(f"{winner}>{loser}", items, (comparison,))


def extracted(record: Record, found: Sequence[Record]) -> Iterator[Record]:
    """`found`, made of the tree of `record`, with what is known of the whole record; the first keeps its id."""
    for k, part in enumerate(found):
        name = f"{record.id}/{part.id}" if k else record.id
        yield replace(record, id=name, items=part.items, comparisons=part.comparisons)
