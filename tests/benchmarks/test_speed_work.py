"""What the speed benchmark counts: operations, tokens and the bound, by hand; its data by their own definition."""

import itertools

import numpy as np
import pytest
from benchmarks.speed.cases import CASES, CUDA_CASES, DATA, GROWTHS, SETTINGS, SHAPES, SIDES, Data, Setting, Shape
from benchmarks.speed.data import rows_of
from benchmarks.speed.work import bound_of_lists, count, flops, matrix_weights, n_weights, state_bytes
from transformers import LlamaConfig, LlamaForCausalLM

from unipref.core.tries import build_trie

SHAPE = Shape(vocabulary=10, hidden=4, layers=2, intermediate=6, heads=2, kv_heads=1)
PAIR = {"items": [[[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 6, 7]]], "pairs": [[0, 1]]}


def test_counts_of_a_pair_are_those_of_a_sketch_of_its_trie():
    # 1 2 3 4 is shared; 5 follows it, and so does 6 7. Depths: 1 2 3 4, 5, 5 6.
    assert count([PAIR]) == {
        "pairs": 1,
        "tokens": 5 + 6,
        "scored": 2 + 3,
        "nodes": 7,
        "seen": 1 + 2 + 3 + 4 + 5 + 5 + 6,
        "read": 3,  # 3 predicts 4, 4 predicts 5 and 6, 6 predicts 7
    }


def test_shared_counts_are_those_of_the_trie_that_is_trained_on():
    rng = np.random.default_rng(0)
    for _ in range(20):
        context = rng.integers(0, 3, 5).tolist()
        items = [[context, rng.integers(0, 3, rng.integers(1, 6)).tolist()] for _ in range(4)]
        trie = build_trie(items)
        found = count([{"items": items, "pairs": [[0, 1], [2, 3]]}])
        assert found["nodes"] == trie.n_nodes
        assert found["seen"] == int((trie.end - np.arange(trie.n_nodes)).sum())
        assert found["read"] == len({int(trie.parent[node]) for nodes in trie.scored for node in nodes})


def test_operations_of_a_step_by_hand():
    block = 4 * 4 + 4 * 2 + 4 * 2 + 4 * 4 + 3 * 4 * 6  # queries, keys and values of one head, output, three of the MLP
    assert matrix_weights(SHAPE) == 2 * block
    weights, attention, head = 2 * 2 * block * 7, 4 * 2 * 4 * 26, 2 * 10 * 4 * 3
    forward = weights + attention + head
    assert flops(SHAPE, count([PAIR]), lora=False, reference=False) == 3 * forward
    assert flops(SHAPE, count([PAIR]), lora=False, reference=True) == 4 * forward
    assert flops(SHAPE, count([PAIR]), lora=True, reference=False) == 2 * weights + 3 * attention + 2 * head


def test_weights_are_those_of_the_model_that_is_built():
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=10,
            hidden_size=4,
            intermediate_size=6,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    )
    assert n_weights(SHAPE) == sum(p.numel() for p in model.parameters())


def test_state_is_weights_gradients_two_moments_and_a_live_references_weights():
    n, full = n_weights(SHAPE), Setting("tiny", "tiny", ())
    assert state_bytes(full, SHAPE, reference=False, trained=n) == 4 * 4 * n
    assert state_bytes(full, SHAPE, reference=True, trained=n) == 5 * 4 * n
    lora = Setting("tiny", "tiny", (), lora=True)
    assert state_bytes(lora, SHAPE, reference=True, trained=7) == 4 * n + 4 * 4 * 7
    half = Setting("tiny", "tiny", (), weights="bfloat16")
    assert state_bytes(half, SHAPE, reference=False, trained=n) == 4 * 2 * n


@pytest.mark.parametrize(("ratio", "bound"), [(2, 12 / 6), (8, 36 / 12), (16, 68 / 20)])
def test_the_bound_of_four_responses_is_four_rows_over_a_prompt_and_four_responses(ratio, bound):
    assert bound_of_lists(64 * ratio, 64, 4) == bound


def corpus(n=400):
    rng = np.random.default_rng(0)
    texts = [[rng.integers(0, 50, rng.integers(2, 40)).tolist() for _ in range(3)] for _ in range(n)]
    return [tuple(text) for text in texts]


def test_both_orders_hold_the_same_rows_and_steps_by_length_are_even():
    rows, steps = rows_of(Data("pairs", 8, 4), corpus())
    size = [count([row])["nodes"] for row in rows]
    for order in ("given", "length"):
        assert sorted(itertools.chain(*steps[order])) == list(range(32))
        assert [len(step) for step in steps[order]] == [8] * 4
    assert steps.pop("warm") == steps["length"][-1:]  # what a run has met by then, and the memory for it
    sizes = {order: [[size[i] for i in step] for step in steps[order]] for order in steps}
    spread = {order: [max(step) - min(step) for step in found] for order, found in sizes.items()}
    assert max(spread["length"]) < min(spread["given"])


def test_a_sample_by_strata_is_as_large_as_the_corpus_in_the_mean():
    whole = corpus()
    rows, _ = rows_of(Data("pairs", 8, 5), whole)
    assert len(rows) == 40
    mean = sum(len(p) + len(c) + len(r) for p, c, r in whole) / len(whole)
    sample = np.mean([len(row["items"][0][0]) + len(row["items"][0][1]) + len(row["items"][1][1]) for row in rows])
    assert sample == pytest.approx(mean, rel=0.05)


def test_further_rows_fill_a_data_set_and_no_step_trains_on_them():
    rows, steps = rows_of(Data("pairs", 8, 1, rows=900), corpus())
    assert len(rows) == 900
    assert max(itertools.chain(*steps["given"], *steps["length"])) == 7
    assert sorted(steps["warm"][0]) == list(range(8))


def test_lists_have_their_exact_lengths_and_share_the_prompt_and_nothing_else():
    rows, _ = rows_of(Data("lists", 2, 1, prompt=30, response=7, k=4), corpus())
    assert len(rows) == 2
    for row in rows:
        assert row["pairs"] == [[0, 1], [2, 3]]
        assert count([row]) | {"seen": 0, "read": 0} == {
            **{"pairs": 2, "tokens": 4 * 37, "scored": 4 * 7, "nodes": 30 + 4 * 7},
            **{"seen": 0, "read": 0},
        }


def test_a_tree_has_a_pair_less_than_leaves_and_its_steps_lie_on_each_other():
    (row,), _ = rows_of(Data("trees", 1, 1, branches=(2, 3, 2)), corpus())
    assert len(row["items"]) == 2 + 6 + 12
    assert len(row["pairs"]) == 12 - 1
    assert count([row])["nodes"] == 96 + 24 * (2 + 6 + 12)


def test_long_prompts_are_as_long_as_they_should_be():
    rows, _ = rows_of(Data("long", 2, 1, prompt=(200, 300)), corpus())
    assert all(200 <= len(row["items"][0][0]) < 300 + 80 for row in rows)
    assert all(row["items"][0][0] == row["items"][1][0] for row in rows)


def test_every_case_asks_a_setting_that_has_its_sides():
    for case in (*CASES, *CUDA_CASES):
        sides = SETTINGS[case.setting].sides
        assert case.ours in sides, case.name
        assert set(case.peers) <= set(sides), case.name
        assert SIDES[case.ours].engine == "unipref", case.name
        if case.target is not None:
            assert set(case.target.against) <= set(case.peers), case.name
    for setting in SETTINGS.values():
        assert setting.shape in SHAPES
        assert setting.data in DATA
    assert all(point in SETTINGS for growth in GROWTHS for point in growth.points.values())
    names = [case.name for case in (*CASES, *CUDA_CASES)]
    assert len(names) == len(set(names))


def test_the_two_sides_of_a_judged_ratio_differ_in_the_engine_alone_unless_the_case_says_so():
    free = {"hh_best", "hh_cached"}  # each in its own order as well, as the question says
    for case in (*CASES, *CUDA_CASES):
        if case.target is None or case.target.of not in ("speed", "memory") or case.name in free:
            continue
        for peer in case.target.against:
            a, b = SIDES[case.ours], SIDES[peer]
            assert (a.order, a.reference, a.checkpointing) == (b.order, b.reference, b.checkpointing), case.name
