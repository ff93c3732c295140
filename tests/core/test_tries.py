"""Tries share every prefix once and lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unipref.core.errors import ShapeError
from unipref.core.tries import SHARED, Segments, Trie, build_trie, merge_tries, pack

FIELDS = ("token", "parent", "depth", "end", "context", "last")

ids = st.lists(st.integers(0, 3), min_size=1, max_size=6)
item_lists = st.lists(st.tuples(ids, ids), min_size=1, max_size=5)


@st.composite
def families(draw, most=40):
    """Items of which many share a prefix with one before, are its beginning, or repeat it; some have no context."""
    rows = []
    for _ in range(draw(st.integers(1, most))):
        source = draw(st.sampled_from(rows)) if rows and draw(st.booleans()) else []
        own = draw(st.lists(st.integers(0, 2), max_size=5))
        rows.append([*source[: draw(st.integers(0, len(source)))], *own, 1, 2][: max(2, draw(st.integers(2, 9)))])
    cuts = [draw(st.integers(0, len(row) - 1)) for row in rows]
    return [(row[:cut], row[cut:]) for row, cut in zip(rows, cuts, strict=True)]


def token_by_token(items):
    """The slow twin of `build_trie`: a dictionary per node, a loop per token."""
    children, tokens, paths = [{}], [-1], []
    for context, response in items:
        node, path = 0, []
        for token in (*context, *response):
            if token not in children[node]:
                children[node][token] = len(tokens)
                tokens.append(token)
                children.append({})
            node = children[node][token]
            path.append(node)
        paths.append(path)
    place, token, parent, depth = {}, [], [], []

    def visit(node, above, level):
        place[node] = here = len(token)
        token.append(tokens[node])
        parent.append(above)
        depth.append(level)
        for child in children[node].values():
            visit(child, here, level + 1)

    for child in children[0].values():
        visit(child, -1, 0)
    end = list(range(1, len(token) + 1))
    for node in reversed(range(len(token))):
        if parent[node] >= 0:
            end[parent[node]] = max(end[parent[node]], end[node])
    starts = [max(len(context), 1) for context, _ in items]
    nodes = [[place[node] for node in path] for path in paths]
    return Trie(
        *(np.array(values, dtype=np.int32) for values in (token, parent, depth, end)),
        scored=tuple(np.array(path[start:], dtype=np.int64) for path, start in zip(nodes, starts, strict=True)),
        context=np.array([path[start - 1] for path, start in zip(nodes, starts, strict=True)], dtype=np.int64),
        last=np.array([path[-1] for path in nodes], dtype=np.int64),
    )


def assert_same(one, other):
    assert one.n_items == other.n_items
    pairs = [(getattr(one, name), getattr(other, name)) for name in FIELDS] + list(
        zip(one.scored, other.scored, strict=True)
    )
    for a, b in pairs:
        assert a.dtype == b.dtype
        assert a.tolist() == b.tolist()


def visible(trie):
    """The slow twin of `k <= q < end[k]`: k is q or an ancestor of q."""
    n = trie.n_nodes
    seen = np.zeros((n, n), dtype=bool)
    for q in range(n):
        k = q
        while k >= 0:
            seen[q, k] = True
            k = trie.parent[k]
    return seen


def test_a_pair_with_a_shared_prompt_and_a_shared_first_token_has_the_tokens_of_one_path_plus_the_branch():
    trie = build_trie([([1, 2, 3], [4, 5]), ([1, 2, 3], [4, 6, 7])])
    assert trie.token.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert trie.parent.tolist() == [-1, 0, 1, 2, 3, 3, 5]
    assert trie.depth.tolist() == [0, 1, 2, 3, 4, 4, 5]
    assert trie.end.tolist() == [7, 7, 7, 7, 5, 7, 7]
    assert [nodes.tolist() for nodes in trie.scored] == [[3, 4], [3, 5, 6]]
    assert trie.context.tolist() == [2, 2]
    assert trie.last.tolist() == [4, 6]
    assert trie.n_row_tokens == 5 + 6


def test_the_context_ends_where_the_item_says_even_where_no_branch_is():
    trie = build_trie([([1, 2], [3, 4]), ([1, 2, 3], [4])])
    assert trie.n_nodes == 4
    assert [nodes.tolist() for nodes in trie.scored] == [[2, 3], [3]]
    assert trie.context.tolist() == [1, 2]


def test_the_first_token_of_an_item_without_context_is_not_scored():
    trie = build_trie([([], [7, 8, 9])])
    assert [nodes.tolist() for nodes in trie.scored] == [[1, 2]]
    assert trie.context.tolist() == [0]


@pytest.mark.parametrize("items", [[], [([1], [])], [([], [1])]])
def test_an_item_without_a_token_to_predict_is_refused(items):
    with pytest.raises(ShapeError):
        build_trie(items)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(item_lists)
def test_every_path_spells_its_item_and_four_integers_say_who_sees_whom(items):
    trie = build_trie(items)
    for i, (context, response) in enumerate(items):
        path = trie.path(i)
        assert trie.token[path].tolist() == [*context, *response]
        assert trie.depth[path].tolist() == list(range(len(path)))
        assert trie.token[trie.scored[i]].tolist() == response
        assert path[len(context) - 1] == trie.context[i]
    k = np.arange(trie.n_nodes)
    interval = (k[None, :] <= k[:, None]) & (k[:, None] < trie.end[None, :])
    assert (interval == visible(trie)).all()
    siblings = set(zip(trie.parent.tolist(), trie.token.tolist(), strict=True))
    assert len(siblings) == trie.n_nodes  # no prefix is stored twice


@settings(max_examples=150, deadline=None, derandomize=True)
@given(families())
def test_whole_runs_compared_at_once_give_the_trie_of_single_tokens_in_every_field(items):
    assert_same(build_trie(items), token_by_token(items))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(families())
def test_segments_hold_a_trie_exactly_and_are_as_many_as_its_leaves(items):
    trie = build_trie(items)
    segments = trie.segments()
    assert len(segments.start) == trie.n_nodes - len(set(trie.parent.tolist()) - {-1})
    assert_same(segments.trie(), trie)
    wide = (np.asarray(getattr(segments, name), dtype=np.int64) for name in ("token", "start", "parent"))
    assert_same(Segments(*wide, segments.context.astype(np.uint32), segments.last).trie(), trie)


def test_the_segments_of_a_pair_by_hand():
    segments = build_trie([([1, 2, 3], [4, 5]), ([1, 2, 3], [4, 6, 7])]).segments()
    assert segments.token.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert (segments.start.tolist(), segments.parent.tolist()) == ([0, 5], [-1, 3])
    assert (segments.context.tolist(), segments.last.tolist()) == ([2, 2], [4, 6])


@settings(max_examples=50, deadline=None, derandomize=True)
@given(families(most=6))
def test_attention_over_a_trie_computes_each_pair_of_a_node_and_one_it_sees_once(items):
    trie = build_trie(items)
    assert trie.n_visible == visible(trie).sum() == (trie.end - np.arange(trie.n_nodes)).sum()


def test_ids_may_come_as_any_sequence_of_integers():
    plain = build_trie([([1, 2], [3, 4]), ([1, 2], [3])])
    assert_same(build_trie([(range(1, 3), (3, 4)), (np.array([1, 2]), np.array([3], dtype=np.uint8))]), plain)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(item_lists, min_size=1, max_size=4))
def test_packing_shifts_indices_and_nothing_else(records):
    tries = [build_trie(items) for items in records]
    batch = pack(tries)
    assert len(batch.token) == sum(trie.n_nodes for trie in tries)
    item = 0
    for r, (trie, items) in enumerate(zip(tries, records, strict=True)):
        start, stop = batch.start[r], batch.start[r + 1]
        assert batch.token[start:stop].tolist() == trie.token.tolist()
        assert (batch.end[start:stop] - start).tolist() == trie.end.tolist()
        for i, (_, response) in enumerate(items):
            nodes = batch.scored[batch.scored_item == item]
            assert batch.token[nodes].tolist() == response
            assert (nodes - start).tolist() == trie.scored[i].tolist()
            assert batch.length[item] == len(response)
            assert batch.trie[item] == r
            item += 1
    assert batch.n_items == item


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(families(most=5), min_size=1, max_size=4))
def test_merged_tries_are_the_trie_of_all_their_items_in_every_field(records):
    merged = merge_tries([build_trie(items) for items in records])
    assert_same(merged, build_trie([item for items in records for item in items]))


def stories():
    """Records that begin alike, one with what another's prompt goes on from, and others that do not."""
    header = list(range(SHARED))
    long, other = header + [3] * 5, [*header[:-1], 9, 9]
    return [
        [(long, [1, 2]), (long, [1, 3])],
        [(other, [4])],
        [([5], [6, 7]), ([8], [1])],
        [(long, [1, 2, 5])],
        [([*long, 1, 2], [7]), (header, [3, 3, 1])],
        [(other, [4, 4])],
        [(header[:-1], [2])],
    ]


def test_a_shared_batch_has_every_item_where_it_was_and_common_beginnings_once():
    tries = [build_trie(items) for items in stories()]
    plain, shared = pack(tries), pack(tries, share=True)
    for name in ("scored_item", "length", "trie"):
        assert getattr(shared, name).tolist() == getattr(plain, name).tolist()
    for batch in (plain, shared):
        for i, (context, response) in enumerate(item for items in stories() for item in items):
            spelled, node = [], int(batch.last[i])
            while node >= 0:
                spelled.append(int(batch.token[node]))
                if node == batch.context[i]:
                    assert len(spelled) == len(response) + 1
                node = int(batch.parent[node])
            assert spelled[::-1] == [*context, *response]
            assert batch.token[batch.scored[batch.scored_item == i]].tolist() == response
    # the long prompt and its two continuations: 13 + (1 2 5 7, 3) and 1 below the header's own end; 3 is shared
    forests = [build_trie([i for r in (0, 3, 4) for i in stories()[r]]), build_trie(stories()[1] + stories()[5])]
    rest = [tries[2], tries[6]]
    sizes = [forests[0].n_nodes, forests[1].n_nodes, *(trie.n_nodes for trie in rest)]
    assert shared.start.diff().tolist() == sizes
    assert len(plain.token) == sum(trie.n_nodes for trie in tries)
    k, q = np.arange(len(shared.token)), np.arange(len(shared.token))[:, None]
    parents = Trie(shared.token.numpy(), shared.parent.numpy(), shared.depth.numpy(), shared.end.numpy(), (), k, k)
    assert (((k <= q) & (q < shared.end.numpy())) == visible(parents)).all()


def test_a_shared_batch_of_tries_that_begin_differently_is_the_plain_batch():
    tries = [build_trie([([i, *range(20)], [1, 2]), ([i, *range(20)], [3])]) for i in range(4)]
    plain, shared = pack(tries), pack(tries, share=True)
    for name, value in vars(plain).items():
        assert value.dtype == getattr(shared, name).dtype
        assert value.tolist() == getattr(shared, name).tolist(), name


def test_the_stem_goes_down_to_where_two_items_part():
    assert build_trie([([1, 2, 3], [4, 5]), ([1, 2, 3], [4, 6, 7])]).stem.tolist() == [1, 2, 3, 4]
    assert build_trie([([1, 2], [3])]).stem.tolist() == [1, 2, 3]
    assert build_trie([([1, 2], [3]), ([1], [2])]).stem.tolist() == [1, 2, 3]  # one item is the beginning of the other
    assert build_trie([([1, 2], [3]), ([2], [3])]).stem.tolist() == []
