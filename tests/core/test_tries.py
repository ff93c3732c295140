"""Tries share every prefix once and lose nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unipref.core.errors import ShapeError
from unipref.core.tries import build_trie, pack

ids = st.lists(st.integers(0, 3), min_size=1, max_size=6)
item_lists = st.lists(st.tuples(ids, ids), min_size=1, max_size=5)


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
