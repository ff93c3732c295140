"""A dry run says beforehand what a run reports afterwards, and leaves nothing behind."""

import json

import numpy as np
import pytest
import torch

from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.core.tries import build_trie
from unipref.engine import Policy, load_model
from unipref.recipes import _devices, _meters, load_recipe
from unipref.recipes._cost import size
from unipref.recipes._devices import DEVICES, Device, DeviceNeeds, find_device, on_device
from unipref.recipes._dry_judging import sample_batches
from unipref.recipes._work import (
    FORWARD,
    CostModel,
    ModelShape,
    Passes,
    TrieSize,
    Work,
    groups_of,
    saved_bytes,
    work_of,
)
from unipref.recipes.align import align
from unipref.recipes.estimate import estimate
from unipref.sampling._generate import _batches
from unipref.store import ScoreStore
from unipref.training import Example, split_by_tokens

SHAPE = ModelShape(matrix=100, attention=8, head=50, weights=200, trained=200, blocks=1)


def recipe(model, **changes):
    values = {
        "name": "small",
        "model": str(model),
        "data": {"train": "bundled:hh-harmless", "limit": 24, "eval_limit": 12, "max_length": 160},
        "objectives": {"detail": {"scorer": "length", "options": {"cap": 60}}},
        "train": {
            "learning_rate": 1e-3,
            "batch_size": 8,
            "epochs": 2,
            "precision": "float32",
            "eval_steps": 4,
            "logging_steps": 1,
            "max_tokens_per_forward": 1024,
        },
        "stages": [{"method": "sft", "train": {"epochs": 1, "eval_steps": None}}],
        "runs": {"kto": [{"method": "kto"}], "upo": [{"method": "upo", "options": {"base": "dpo"}}]},
        "sampling": {"prompts": 4, "max_new_tokens": 4},
    }
    return load_recipe({**values, **changes})


@pytest.fixture(scope="module")
def foreseen_and_done(small_model, tmp_path_factory):
    """The estimate of a run, what lay beside the run folder after it, and the folder of the run made then."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    made = recipe(small_model)
    found = estimate(made, output=folder)
    left = list(folder.parent.iterdir())
    return found, left, align(made, output=folder)


def n_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# ---- against a run ----


def test_nothing_is_left_behind_where_the_run_will_be(foreseen_and_done):
    _, left, _ = foreseen_and_done
    assert left == []


def test_every_stage_of_the_run_is_foreseen_with_its_steps(foreseen_and_done):
    found, _, folder = foreseen_and_done
    done = {str(path.parent.relative_to(folder)): json.loads(path.read_text()) for path in folder.rglob("done.json")}
    assert {cost.place: cost.left for cost in found.stages} == {place: stage["steps"] for place, stage in done.items()}


def test_tokens_are_those_that_the_run_counts_mismatched_responses_and_validation_included(foreseen_and_done):
    found, _, folder = foreseen_and_done
    for cost in found.stages:
        logged = max(row.get("tokens", 0) for row in read_jsonl(folder / cost.place / "metrics.jsonl"))
        assert cost.tokens["shared"] == logged, cost.place
        assert cost.tokens["policy"] == json.loads((folder / cost.place / "done.json").read_text())["tokens"]


def test_what_is_written_is_foreseen_within_five_percent(foreseen_and_done):
    found, _, folder = foreseen_and_done
    disk = found.to_dict()["totals"]["disk"]
    assert disk["total"] == pytest.approx(n_bytes(folder) + n_bytes(folder.parent / ".scores"), rel=0.05)
    assert disk["models"] == pytest.approx(sum(n_bytes(path) for path in folder.rglob("model")), rel=0.05)
    assert disk["checkpoints"] == pytest.approx(sum(n_bytes(path) for path in folder.rglob("checkpoints")), rel=0.05)


def test_a_method_that_scores_more_per_step_costs_more_tokens(foreseen_and_done):
    found, _, _ = foreseen_and_done
    kto, upo = (next(cost for cost in found.stages if cost.run == run) for run in ("kto", "upo"))
    assert kto.tokens["shared"] == upo.tokens["shared"]
    assert kto.tokens["policy"] > 1.5 * upo.tokens["policy"]
    assert upo.disk["checkpoints"] > kto.disk["checkpoints"]  # its value head and that head's optimiser


def test_all_numbers_are_plain_and_finite_and_the_parts_add_up(foreseen_and_done):
    found, _, _ = foreseen_and_done
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    totals = said["totals"]
    value, low, high = totals["seconds"]
    assert 0 < low < value < high
    assert value == pytest.approx(sum(totals["parts"].values()))
    expected = {"reading", "doctor", "loading", "encoding", "references", "training", "validation", "writing"}
    assert set(totals["parts"]) >= {*expected, "evaluation", "sampling", "report"}
    assert totals["steps"] == sum(stage["steps"] for stage in said["stages"])
    assert [cost["run"] for cost in said["judged"]] == ["kto", "upo", "reference"]
    assert totals["memory"][0] == max(totals["memory_by_phase"].values()) > 0


def test_a_finished_run_costs_no_training_to_resume(foreseen_and_done, small_model):
    _, _, folder = foreseen_and_done
    before = sorted(folder.parent.rglob("*"))
    found = estimate(recipe(small_model), output=folder, resume=True)
    assert [cost.left for cost in found.stages] == [0, 0, 0]
    assert found.memory == {"training": 0.0, "evaluation": 0.0}  # nothing was measured, either
    assert not any(cost.seconds for cost in (*found.stages, *found.judged))
    assert found.to_dict()["totals"]["disk"]["models"] == 0
    assert sorted(folder.parent.rglob("*")) == before


def test_what_the_store_holds_or_an_earlier_stage_will_put_there_is_not_counted_again(tmp_path):
    store = ScoreStore(tmp_path)
    space = {"kind": "logp", "weights": "w", "precision": "float32", "path": "tries"}
    store.put_many(space, [b"a", b"b"], [np.zeros(3, np.float32), np.zeros(4, np.float32)])
    ledger = _meters.Ledger(_meters.Peek(tmp_path), row=10)
    keys, lengths = [[b"a", b"b"], [b"b", b"c"], [b"d", b"d"]], [[3, 4], [4, 5], [6, 6]]
    assert ledger.missing(space, keys, lengths) == [1, 2]
    assert ledger.bytes == (4 * 5 + 10) + (4 * 6 + 10)  # c and d, once
    assert ledger.missing(space, keys, lengths) == []
    assert ledger.missing({**space, "weights": "after a stage"}, keys, lengths) == [0, 1, 2]
    assert store.get_many(space, [b"c"]) == [None]


# ---- when it cannot be ----


def test_what_does_not_fit_in_memory_here_says_so_with_what_to_change(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(_meters.Peak, "available", lambda self: 10_000_000.0)
    with pytest.raises(ConfigError, match=r"not even its smallest forward fits here.*max_tokens_per_forward"):
        estimate(recipe(small_model), output=tmp_path / "small")


def test_a_device_that_is_too_small_is_a_fault_that_names_what_to_change(small_model, tmp_path, monkeypatch):
    toy = Device("Toy", memory=0.5, bf16=1, fp32=1, bandwidth=1)
    monkeypatch.setitem(_devices.DEVICES, "Toy", toy)
    one = recipe(small_model, stages=[], runs={"dpo": [{"method": "dpo"}]})
    found = estimate(one, output=tmp_path / "small", device="toy")
    assert found.device["fits"] == "no"
    [fault] = found.faults
    assert "will be needed and it has 500 MB" in fault
    assert "gradient_checkpointing=true" in fault
    assert "model_options.lora" in fault


def test_an_unknown_device_names_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r"no device named 'h10'.*'H100'.*Known: A10G, A100-40"):
        find_device("h10")
    assert find_device("rtx 4090") is find_device("RTX_4090") is DEVICES["RTX-4090"]
    with pytest.raises(ConfigError, match="trains on the CPU"):
        find_device("M3")


def test_pairs_that_the_run_samples_itself_cannot_be_measured(small_model, tmp_path):
    collecting = recipe(small_model).model_copy(update={"collect": object()})
    with pytest.raises(ConfigError, match="collect: a dry run measures the pairs"):
        estimate(collecting, output=tmp_path / "small")


# ---- the arithmetic ----


def test_the_operations_of_a_forward_by_hand():
    # a pair of 4 and 3 tokens that share 2: 1 + 2 + 3 + 4 for the first item, 3 for the other's own token
    pair = TrieSize(nodes=5, sources=3, pairs=13, rows=(4, 3))
    alone = TrieSize(nodes=2, sources=1, pairs=3, rows=(2,))
    work = work_of(SHAPE, [[pair, alone]], FORWARD, path="tries")
    assert work == Work(1, 7, 2 * 100 * 7, 4 * 8 * (13 + 3), 2 * 50 * 4)
    rows = work_of(SHAPE, [[pair, alone]], FORWARD, path="rows")  # three rows as long as the longest
    assert rows == Work(1, 12, 2 * 100 * 12, 4 * 8 * 3 * (1 + 2 + 3 + 4), 2 * 50 * 4)


def test_a_backward_is_two_forwards_and_one_where_the_weights_are_frozen():
    pair = [[TrieSize(nodes=5, sources=3, pairs=13, rows=(4, 3))]]
    once = work_of(SHAPE, pair, FORWARD, path="tries")
    whole = work_of(SHAPE, pair, Passes.of_training(frozen=False, checkpointing=False), path="tries")
    assert whole.flops == 3 * once.flops
    frozen = work_of(SHAPE, pair, Passes.of_training(frozen=True, checkpointing=True), path="tries")
    assert (frozen.matrix, frozen.attention, frozen.head) == (3 * once.matrix, 4 * once.attention, 2 * once.head)


def test_a_trie_has_its_shared_tokens_once_and_its_rows_whole():
    trie = build_trie([([1, 2, 3], [4, 5]), ([1, 2, 3], [4, 6, 7])])
    # nodes 1 2 3 4 5 6 7; read from 3 (gives 4), from 4 (gives 5 and 6) and from 6 (gives 7)
    # every node sees its depth and itself: 1 + 2 + 3 + 4, then 5, 5 and 6
    assert TrieSize.of(trie) == TrieSize(nodes=7, sources=3, pairs=26, rows=(5, 6))


def test_the_shape_of_a_small_llama_by_hand(small_model):
    shape = ModelShape.of(Policy(load_model(small_model, dtype="float32")))
    block = 4 * 16 * 16 + 3 * 16 * 32  # q, k, v, o and the three of the MLP
    vocabulary = load_model(small_model).config.vocab_size
    assert (shape.matrix, shape.attention, shape.head) == (block, 16, 16 * vocabulary)
    assert shape.weights == shape.trained == block + 16 * vocabulary + 3 * 16  # head tied; two norms and the last


def test_the_cost_model_finds_planted_coefficients():
    planted = CostModel(per_forward=0.02, per_flop=3e-9, per_attention_flop=7e-9)
    works = [
        Work(1, 10, 1e8, 1e7, 0.0),
        Work(2, 10, 4e8, 3e8, 1e8),
        Work(1, 30, 9e8, 2e7, 1e7),
        Work(3, 9, 1e7, 1e7, 0.0),
    ]
    found = CostModel.fit(works, [planted.seconds(work) for work in works])
    assert [found.per_forward, found.per_flop, found.per_attention_flop] == pytest.approx(
        [planted.per_forward, planted.per_flop, planted.per_attention_flop], rel=1e-6
    )


def test_no_coefficient_is_negative_even_where_larger_works_took_less():
    found = CostModel.fit([Work(1, 1, 1e6, 0.0, 0.0), Work(1, 1, 2e6, 0.0, 0.0)], [0.2, 0.1])
    assert min(found.per_forward, found.per_flop, found.per_attention_flop) >= 0
    assert 0.1 < found.seconds(Work(1, 1, 1.5e6, 0.0, 0.0)) < 0.2


def test_forwards_and_batches_are_cut_as_the_trainer_and_the_sampler_cut_them():
    lengths = [5, 9, 2, 7, 7, 30, 1]
    tries = [build_trie([([i], list(range(n)))]) for i, n in enumerate(lengths)]
    examples = [Example(None, trie) for trie in tries]
    for options in ({}, {"pair_cost": 0.5}, {"alike": True}):
        real = [[examples.index(e) for e in group] for group in split_by_tokens(examples, 16, **options)]
        assert groups_of([TrieSize.of(trie) for trie in tries], 16, **options) == real
    widths = [300, 12, 700, 700, 45, 3000] * 9
    assert list(sample_batches(widths, 96)) == list(_batches(widths, 96, 16_384))


def test_what_a_forward_keeps_is_counted_once_and_without_the_weights():
    weight = torch.ones(3, 3, requires_grad=True)
    x = torch.ones(2, 3, requires_grad=True)
    kept = saved_bytes(lambda: (x @ weight, x.t() @ x), [weight])
    assert kept == 2 * 3 * 4  # x, however often; the weight is there anyway


def test_a_device_of_twice_the_peak_takes_half_the_time_of_what_arithmetic_bounds():
    needs = DeviceNeeds(
        train_flops=1e18,
        forward_flops=0.0,
        train_passes=1.0,
        forward_passes=0.0,
        updates=0,
        update_bytes=0.0,
        drawn_tokens=0,
        weights=10,
        blocks=1,
        state_bytes=1e9,
        activations=2e9,
        elsewhere=0.0,
        precision="auto",
    )
    one, two = (on_device(Device("D", 80, peak, 10, 1000), needs)["seconds"]["training"] for peak in (100, 200))
    assert one == pytest.approx([1e18 / (100e12 * 0.45), 1e18 / (100e12 * 0.15)])
    assert two == pytest.approx([one[0] / 2, one[1] / 2])
    without = on_device(DEVICES["T4"], needs)  # it has no bfloat16
    assert without["precision"] == "float32"
    assert without["memory"][0] > on_device(DEVICES["L4"], needs)["memory"][0]  # activations are not halved there


def test_sizes_are_said_in_units_of_a_thousand():
    assert [size(n) for n in (999, 1_500_000, 2.34e9, 4e12)] == ["1 kB", "1.5 MB", "2.3 GB", "4.0 TB"]
