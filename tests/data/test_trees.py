"""Trees of steps: read whole or set aside with the reason, and turned into the pairs and lists of their papers."""

import json
import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Item, Record
from unipref.data import encode_records, read_records
from unipref.data.trees import (
    alphazero,
    leaf_list,
    prefix_pairs,
    puct,
    sibling_pairs,
    step_pairs,
    swapped_words,
    tree_of,
    visit_smoothing,
)


def node(name, parent, text, **facts):
    return {"id": name, "parent": parent, "text": text, **facts}


#        root - a (q .9, n 30) - a1 right
#                              - a2 wrong
#             - b (q .2, n 10) - b1 - b2 wrong, the only way on
NODES = [
    node("root", None, None, depth=0),
    node("a", "root", " A.", depth=1, q=0.9, v=3, n_visit=30),
    node("b", "root", " B.", depth=1, q=0.2, v=0, n_visit=10),
    node("a1", "a", " A1.", depth=2, q=1.0, n_visit=20, reward=1, is_terminal=True, is_correct=True),
    node("a2", "a", " A2.", depth=2, q=-1.0, n_visit=10, reward=-1, is_terminal=True, is_correct=False),
    node("b1", "b", " B1.", depth=2, q=0.1, v=1, n_visit=9),
    node("b2", "b1", " B2.", depth=3, q=0.0, n_visit=8, reward=-1, is_terminal=True, is_correct=False),
]


def read(nodes, prompt="Q:"):
    return read_records([{"prompt": prompt, "nodes": nodes}], strict=True)[0][0]


def tree(nodes=NODES):
    return tree_of(read(nodes))


def pairs(records) -> list[tuple[str, str, str]]:
    return [(r.items[0].context, r.items[0].response, r.items[1].response) for r in records]


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_node_is_an_item_in_the_context_of_the_accepted_steps_and_the_tree_comes_back_whole():
    record = read(NODES)
    assert [(item.context, item.response) for item in record.items] == [
        ("Q:", " A."),
        ("Q:", " B."),
        ("Q: A.", " A1."),
        ("Q: A.", " A2."),
        ("Q: B.", " B1."),
        ("Q: B. B1.", " B2."),
    ]
    found = tree_of(record)
    assert [n.parent for n in found.nodes] == [None, None, 0, 0, 1, 4]
    assert found.nodes[0].facts == {"q": 0.9, "v": 3.0, "n_visit": 30.0}
    assert found.nodes[2].facts["is_correct"] == 1.0
    assert found.leaves == [2, 3, 5]


@given(st.permutations(NODES))
def test_the_order_of_the_nodes_changes_nothing_but_the_order_of_siblings(nodes):
    found = tree(nodes)
    assert {found.text(leaf) for leaf in found.leaves} == {" A. A1.", " A. A2.", " B. B1. B2."}
    assert sorted(pairs(sibling_pairs(found))) == sorted(pairs(sibling_pairs(tree())))


def test_a_tree_may_start_with_its_first_steps_and_be_spelled_as_json():
    bare = [{**n, "parent": None if n["parent"] == "root" else n["parent"]} for n in NODES[1:]]
    assert read(bare).items == read(NODES).items
    assert read(json.dumps(NODES)).items == read(NODES).items


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node(1, None, "a"), node(1, None, "b")], "two nodes of the tree have one id"),
        ([node(1, 9, "a")], "a node of the tree has a parent that is not there"),
        ([node(1, 2, "a"), node(2, 1, "b")], "the nodes of the tree run in a circle"),
        ([node(1, None, "a"), node(2, 1, " ")], "a node of the tree has no text"),
        ([node(1, None, None), node(2, None, "a")], "the tree has several roots, one of them without a text"),
        ([node(1, None, "a", depth=1), node(2, 1, "b", depth=3)], "the depths of the tree's nodes contradict"),
        ([node(1, None, "a", q=float("nan"))], "a node's 'q' is not a number"),
        ([node(1, None, "a", q="0.5")], "a node's 'q' is not a number"),
        ([node(1, None, "a", is_correct=0.5)], "a node's 'is_correct' is not true or false"),
        ([node(1, None, "a", token_ids=["x"])], "a node's 'token_ids' are not a list of whole numbers"),
        ([{"parent": None, "text": "a"}], "a node of the tree has no id"),
        ([node(1, None, None)], "the tree has no step"),
    ],
)
def test_a_tree_that_is_none_is_set_aside_with_the_reason(nodes, reason):
    good = {"prompt": "Q:", "nodes": NODES}
    _, report = read_records([{"prompt": "p", "nodes": nodes}, good])
    assert (report.n_kept, len(report.set_aside)) == (1, 1)
    assert report.set_aside[0].reason.startswith(reason)


def test_a_record_without_nodes_is_no_tree():
    with pytest.raises(DataError, match="read its source with format='tree'"):
        tree_of(Record("r", (Item("p", "a"),)))


def test_only_the_end_of_a_solution_gets_an_end_token(make_tokenizer):
    tokenizer = make_tokenizer()
    encoded, _ = encode_records([read(NODES)], tokenizer)
    ends = [encoded[0].ids(i)[1][-1] == tokenizer.eos_token_id for i in range(6)]
    assert ends == [False, False, True, True, False, True]


# ----------------------------------------------------------------------------------------------------------- anchors


def test_puct_and_smoothing_have_the_values_of_their_papers():
    assert puct(0.2, 0.4, 9, 2, c=1.5) == pytest.approx(0.8, abs=1e-15)
    smoothed = [visit_smoothing(*n) for n in ((30, 10), (10, 30), (0, 0), (1, 1), (10, 0), (3, 1))]
    assert smoothed == [0.25, 0.5, 0.0, 0.5, 0.0, 0.25]
    assert alphazero(0.3, 0.5, 16, 1) == pytest.approx(0.3 + 0.5 * (math.log(19669 / 19652) + 1.25) * 4 / 2)


# ---------------------------------------------------------------------------------------------------------- siblings


def test_siblings_are_compared_in_the_context_of_their_steps_and_single_children_are_joined():
    assert pairs(sibling_pairs(tree())) == [("Q:", " A.", " B. B1. B2."), ("Q: A.", " A1.", " A2.")]
    margins = [r.comparisons[0].margin for r in sibling_pairs(tree())]
    assert margins == [pytest.approx(0.7), 2.0]
    by_right = sibling_pairs(tree(), by="is_correct")
    assert pairs(by_right) == [("Q: A.", " A1.", " A2.")]  # at the root only one side is known to be right or wrong


def test_a_first_step_without_siblings_becomes_prompt():
    chain = [node(0, None, " S."), node(1, 0, " x", q=1), node(2, 0, " y", q=0)]
    assert pairs(sibling_pairs(tree(chain))) == [("Q: S.", " x", " y")]


def test_the_loser_is_the_worst_or_the_second_best():
    three = [node(i, None, text, q=q) for i, (text, q) in enumerate(((" x", 0.5), (" y", 1), (" z", 0)))]
    assert pairs(sibling_pairs(tree(three))) == [("Q:", " y", " z")]
    assert pairs(sibling_pairs(tree(three), choose_worst=False)) == [("Q:", " y", " x")]


def test_equal_values_and_equal_steps_give_no_pair():
    assert sibling_pairs(tree([node(1, None, " x", q=1), node(2, None, " y", q=1)])) == []
    assert sibling_pairs(tree([node(1, None, " x", q=1), node(2, None, " x", q=0)])) == []


def test_smoothing_takes_its_preference_from_visits_and_leaves_unvisited_pairs():
    found = sibling_pairs(tree(), smoothing=True)
    assert [r.comparisons[0].preference for r in found] == [0.75, 1 - (1 - 1 / 1.5)]
    unvisited = [node(1, None, " x", q=1), node(2, None, " y", q=0)]
    assert sibling_pairs(tree(unvisited), smoothing=True) == []
    certain = sibling_pairs(tree(unvisited), smoothing=True, min_visits=0)  # as the released code
    assert certain[0].comparisons[0].preference == 1.0


def test_the_ancestor_of_the_right_leaf_is_preferred_at_every_depth_of_a_searched_tree():
    nodes, right = [], "111"
    for depth in (1, 2, 3):
        for number in range(2**depth):
            name = format(number, f"0{depth}b")
            on_path = right.startswith(name)
            nodes.append(node(name, name[:-1] or None, f" {name}", q=float(on_path) - 0.5, n_visit=9 if on_path else 1))
    best = [r for r in sibling_pairs(tree(nodes)) if right.startswith(r.items[0].response.strip())]
    assert [r.items[0].response for r in best] == [" 1", " 11", " 111"]


# ----------------------------------------------------------------------------------------- leaves, prefixes and steps


def test_whole_solutions_are_a_list_with_scores_and_their_steps_as_spans():
    record = leaf_list(tree())
    assert [(item.response, item.columns["score"]) for item in record.items] == [
        (" A. A1.", 1.0),
        (" A. A2.", -1.0),
        (" B. B1. B2.", -1.0),
    ]
    steps = [[item.response[s.start : s.end] for s in item.spans] for item in record.items]
    assert steps == [[" A.", " A1."], [" A.", " A2."], [" B.", " B1.", " B2."]]
    assert [s.score for s in record.items[2].spans] == [0.2, 0.1, 0.0]


def test_one_solution_alone_is_no_list():
    assert leaf_list(tree(NODES[:2])) is None
    assert leaf_list(tree(), by="prior") is None


def test_sampled_ids_of_all_steps_are_the_ids_of_the_solution():
    nodes = [
        node(0, None, " a", token_ids=[5, 6]),
        node(1, 0, " b", token_ids=[7], reward=1),
        node(2, 0, " c", reward=0),
    ]
    assert [item.response_ids for item in leaf_list(tree(nodes)).items] == [(5, 6, 7), None]


@pytest.mark.parametrize(("inclusive", "good"), [(False, [" A."]), (True, [" A.", " B. B1."])])
def test_a_beginning_at_the_threshold_is_good_only_where_it_is_included(inclusive, good):
    record = prefix_pairs(tree(), threshold=1, inclusive=inclusive)
    assert sorted({record.items[c.winner].response for c in record.comparisons}) == good
    assert {item.columns["continues"] for item in record.items} == {1.0}
    assert {item.context for item in record.items} == {"Q:"}


def test_beginnings_end_within_the_first_steps_and_one_side_alone_gives_no_pair():
    record = prefix_pairs(tree(), first=0.5)
    assert [item.response for item in record.items] == [" A.", " B."]
    assert prefix_pairs(tree(), threshold=99) is None
    assert len(prefix_pairs(tree(), max_prefixes=3).items) == 3


def test_the_best_step_of_every_depth_is_preferred_to_a_sibling_in_one_shared_context():
    found = step_pairs(tree(), by="q", seed=3)
    assert pairs(found) == [("Q:", " A.", " B."), ("Q: A.", " A1.", " A2.")]
    assert all(r.items[0].context == r.items[1].context for r in found)
    assert step_pairs(tree(), by="q", seed=3) == found


def test_a_step_without_siblings_is_preferred_to_its_own_words_in_disorder():
    found = step_pairs(tree([node(0, None, " one two three\nfour", v=1)]))
    better, worse = (item.response for item in found[0].items)
    assert better != worse
    assert Counter(better.split()) == Counter(worse.split())
    assert step_pairs(tree([node(0, None, " one", v=1)])) == []


@given(st.text(alphabet="ab \n", max_size=12), st.integers(0, 9), st.sampled_from([0.0, 0.3, 1.0]))
def test_exchanged_words_are_the_same_words_in_another_order_with_the_white_space_in_place(text, seed, share):
    mixed = swapped_words(text, share, random.Random(seed))
    assert Counter(mixed.split()) == Counter(text.split())
    if len(set(text.split())) > 1:
        assert mixed != text
    same_lengths = len({len(word) for word in text.split()}) < 2
    if same_lengths:
        assert [c.isspace() for c in mixed] == [c.isspace() for c in text]


def test_an_unknown_fact_gets_the_nearest():
    for extract in (sibling_pairs, leaf_list, prefix_pairs, step_pairs):
        with pytest.raises(ConfigError, match="did you mean 'n_visit'"):
            extract(tree(), by="n_visits")
