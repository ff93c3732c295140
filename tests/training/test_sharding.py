"""Two processes that share the weights out (FSDP2) train as one; checkpoints pass between any number of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sharded_runs import BEST, CASES, LORA, RESUMED, SAVED, SAVING, saved, train
from transformers import AutoModelForCausalLM

from unipref.core.errors import ConfigError
from unipref.training import sharding
from unipref.training.sharding import Sharding, asked_sharding

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All runs, of this process and of two; the folder has one part for each way to run."""
    folder = tmp_path_factory.mktemp("runs")
    found = {
        f"alone/{name}": train(name, folder / "alone" / name, **SAVING if name in SAVED else {})[1] for name in CASES
    }
    found["alone/best"] = train("dpo", folder / "alone" / "best", **BEST)[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(HERE)}
    words = [sys.executable, str(HERE.parent / "two_ranks.py"), "sharded_runs", str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found |= json.loads((folder / "result.json").read_text())
    for way, name, origin in RESUMED:
        if way == "alone":
            resume = saved(folder, origin, name)
            found[f"{way}/{name}/from {origin}"] = train(name, folder / "resumed", resume=resume)[1]
    return folder, found


def agree(one, two, rel=1e-5, abs=1e-7):
    assert len(one["rows"]) == len(two["rows"]) > 0
    for a, b in zip(one["rows"], two["rows"], strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if not key.startswith("upo/"):  # means over forwards, which the ranks cut otherwise
                assert b[key] == pytest.approx(a[key], rel=rel, abs=abs), key
    assert two["eval"] == pytest.approx(one["eval"], rel=rel, abs=abs)


@pytest.mark.parametrize("name", [name for name in CASES if name != "bfloat16"])
def test_two_ranks_that_share_the_weights_out_follow_the_run_of_one(runs, name):
    one, two = runs[1][f"alone/{name}"], runs[1][f"sharded/{name}"]
    agree(one, two)
    trained = two["weights"]
    assert set() < trained.keys() <= one["weights"].keys()
    assert trained == pytest.approx({key: one["weights"][key] for key in trained}, rel=1e-9, abs=1e-12)
    assert two["held"] <= 0.55 * one["held"]


def test_in_bfloat16_sharded_weights_give_the_losses_of_one_process_up_to_its_rounding(runs):
    one, two = runs[1]["alone/bfloat16"], runs[1]["sharded/bfloat16"]
    for a, b in zip(one["rows"], two["rows"], strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=2e-2)


@pytest.mark.parametrize(("way", "name", "origin"), RESUMED)
def test_a_checkpoint_of_any_way_to_run_goes_on_in_any_other_as_without_the_stop(runs, way, name, origin):
    straight, resumed = runs[1][f"alone/{name}"], runs[1][f"{way}/{name}/from {origin}"]
    agree(straight, resumed)
    common = straight["weights"].keys() & resumed["weights"].keys()
    assert {k: resumed["weights"][k] for k in common} == pytest.approx(
        {k: straight["weights"][k] for k in common}, rel=1e-9, abs=1e-12
    )


def test_the_best_model_of_a_sharded_run_is_that_of_one_process(runs):
    one, two = runs[1]["alone/best"], runs[1]["sharded/best"]
    assert two["best"] == one["best"] != "checkpoint-4"
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-9, abs=1e-12)


def test_a_sharded_run_saves_what_transformers_loads(runs):
    folder, found = runs
    loaded = AutoModelForCausalLM.from_pretrained(folder / "sharded" / "upo-model").state_dict()
    trained = found["sharded/upo"]["weights"]
    squares = {f"model.{name}": value.double().pow(2).sum().item() for name, value in loaded.items()}
    assert {key: squares[key] for key in squares} == pytest.approx({key: trained[key] for key in squares}, rel=1e-12)
    assert (folder / "sharded" / "upo-model" / "heads.safetensors").exists()
    assert (folder / "sharded" / f"{LORA}-model" / "adapter_model.safetensors").exists()


def test_checkpoints_of_shards_hold_the_whole_model_only_where_that_is_asked_for(runs):
    folder, _ = runs
    assert not list((folder / "sharded" / "upo" / "checkpoint-2").glob("*.safetensors"))
    assert (folder / "sharded" / "best" / "checkpoint-2" / "model.safetensors").exists()


def test_a_sharded_policy_scores_as_the_same_weights_in_one_module(runs):
    found = runs[1]["scores"]
    for values in (found["shared"], found["kept"]):
        for items, plain in zip(values, found["plain"], strict=True):
            for a, b in zip(items, plain, strict=True):
                assert a == pytest.approx(b, rel=1e-6)
    assert found["fingerprints"][0] == found["fingerprints"][1]


def environment(**settings):
    return {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **settings}


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr(sharding, "n_processes", lambda: 2)


def test_nothing_is_sharded_unasked_or_in_one_process(two_processes, monkeypatch):
    assert asked_sharding({}) is None
    assert asked_sharding(environment()) == Sharding()
    monkeypatch.setattr(sharding, "n_processes", lambda: 1)
    assert asked_sharding(environment()) is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"FSDP_VERSION": "1"}, "set it to 2"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading: false"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, "TRANSFORMER_BASED_WRAP"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"}, "tp is not supported"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_DP_REPLICATE_SIZE": "3"}, "not the number"),
    ],
)
def test_a_configuration_that_would_go_wrong_is_refused_with_the_line_to_change(two_processes, setting, said):
    with pytest.raises(ConfigError, match=said):
        asked_sharding(environment(**setting))
