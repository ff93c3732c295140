"""What stages share is made once, and nobody can spoil it for the next."""

import numpy as np
import torch

from unipref.data import read_records
from unipref.engine import Policy, load_model, load_tokenizer
from unipref.recipes.stage import examples_of
from unipref.recipes.workbench import MOST_LISTS, Workbench


def bench_of(model):
    loads = []

    def load():
        loads.append(model)
        return Policy(load_model(str(model), dtype="float32"))

    return Workbench(keep=True), load, loads


def test_a_model_is_loaded_once_and_training_one_copy_leaves_the_next_untouched(small_model):
    bench, load, loads = bench_of(small_model)
    first = bench.policy("start", load)
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(1.0)
    second = bench.policy("start", load)
    assert len(loads) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.state_dict().items())
    assert second.path == load().path


def test_a_copy_scores_as_a_policy_that_was_loaded(small_model):
    from unipref.engine import score

    bench, load, _ = bench_of(small_model)
    records, _ = read_records("bundled:hh-harmless")
    examples, _ = examples_of(records[:4], load_tokenizer("bundled"), max_length=96)
    tries = [example.trie for example in examples]
    for mine, theirs in zip(score(bench.policy("a", load), tries), score(load(), tries), strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert np.array_equal(one, other)
    assert bench.tokens == sum(trie.n_nodes for trie in tries)


def test_equal_records_are_tokenised_once_and_what_models_said_of_them_is_not_shared():
    bench, tokenizer = Workbench(keep=True), load_tokenizer("bundled")
    records = read_records("bundled:hh-harmless")[0][:6]
    calls = []

    def encode():
        calls.append(1)
        return examples_of(records, tokenizer, max_length=96)

    first, _ = bench.examples(records, ("m", 96), encode)
    first[0].ref_logp["ref_logp"] = [np.zeros(3)]
    first[0].tokens["mask"] = [np.ones(3)]
    again, _ = bench.examples(list(records), ("m", 96), encode)
    assert len(calls) == 1
    assert again[0].trie is first[0].trie
    assert again[0].ref_logp == {}
    assert again[0].tokens == {}
    assert (bench.tokenised, bench.reused) == (6, 6)


def test_other_records_or_another_encoding_are_not_taken_for_the_same():
    bench = Workbench(keep=True)
    records = read_records("bundled:hh-harmless")[0][:6]
    made = [bench.examples(rows, settings, lambda: ([], None)) for rows, settings in (
        (records, ("m", 96)), (records[:5], ("m", 96)), (records[::-1], ("m", 96)), (records, ("m", 64)),
    )]  # fmt: skip
    assert len(made) == 4
    assert bench.reused == 0


def test_only_the_latest_lists_are_held():
    bench = Workbench(keep=True)
    records = read_records("bundled:hh-harmless")[0][: MOST_LISTS + 1]
    for i in range(MOST_LISTS + 1):
        bench.examples(records[i : i + 1], "m", lambda: ([], None))
    bench.examples(records[:1], "m", lambda: ([], None))
    assert bench.reused == 0
    bench.examples(records[-1:], "m", lambda: ([], None))
    assert bench.reused == 1


def test_a_bench_that_keeps_nothing_makes_everything_anew(small_model):
    _, load, loads = bench_of(small_model)
    bench = Workbench()
    bench.policy("start", load)
    bench.policy("start", load)
    assert len(loads) == 2
