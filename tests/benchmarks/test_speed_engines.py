"""unipref, TRL and the plain loop do the same work on the same rows; a side's process that ends is said to have."""

import json
from dataclasses import replace

import pytest
import torch
from benchmarks.speed.by_loop import loop_repeat
from benchmarks.speed.by_trainers import same_adapters, trl_repeat, unipref_repeat
from benchmarks.speed.cases import SETTINGS, SHAPES, SIDES, Data
from benchmarks.speed.data import make_model, rows_of
from benchmarks.speed.result import unequal
from benchmarks.speed.run import NO_FLASH_PREF, Bench
from benchmarks.speed.work import count

pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and datasets' own
TINY = SETTINGS["tiny"]
LISTS, TREES = Data("lists", 2, 2, prompt=12, response=6, k=4), Data("trees", 1, 2, branches=(2, 3))
MORE_ROWS = Data("pairs", 2, 1, rows=20)  # than are trained on
REPEATS = {"unipref": unipref_repeat, "trl": trl_repeat, "loop": loop_repeat}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "model"
    make_model(TINY, path)
    return path


def made(data):
    generator = torch.Generator().manual_seed(0)
    texts = [[torch.randint(3, 120, (n,), generator=generator).tolist() for n in (9, 20, 14)] for _ in range(99)]
    return rows_of(data, [tuple(text) for text in texts])


def run(setting, name, data, model, folder):
    side = SIDES[name]
    rows, steps = made(data)
    told = {"model": str(model), "output": str(folder), "device": "cpu", "steps": steps["warm"] + steps[side.order]}
    expected = [count([rows[i] for i in step]) for step in told["steps"]]
    return REPEATS[side.engine](setting, side, told, rows), expected


@pytest.mark.parametrize("data", [LISTS, TREES, MORE_ROWS], ids=["lists", "trees", "more_rows"])
@pytest.mark.parametrize("reference", ["live", "cached"])
def test_every_side_sees_the_same_tokens_and_trains_alike(data, reference, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    end = "_cached" if reference == "cached" else ""
    ours, expected = run(TINY, f"ours{end}", data, model, tmp_path)
    assert ours["path"] == "tries"
    for name in (f"trl{end}", f"loop{end}"):
        found, _ = run(TINY, name, data, model, tmp_path)
        assert unequal(found, expected, ours, "float32") == "", name
        assert found["trained"] == ours["trained"]
    assert unequal(ours, expected, ours, "float32") == ""


def test_adapters_start_alike_on_both_sides(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    setting = replace(TINY, lora=True)
    ours, expected = run(setting, "ours", LISTS, model, tmp_path)
    found, _ = run(setting, "trl", LISTS, model, tmp_path)
    assert unequal(found, expected, ours, "float32") == ""
    assert ours["trained"] == found["trained"] < 30_000


def test_adapters_numbers_depend_on_their_names_alone():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleDict({"0": torch.nn.ModuleDict({"lora_A": torch.nn.Linear(4, 2, bias=False)})})

    one, two = Layer(), Layer()
    for layer in (one, two):
        same_adapters(layer)
    assert torch.equal(one.layers["0"]["lora_A"].weight, two.layers["0"]["lora_A"].weight)


def test_sides_take_turns_in_processes_and_one_that_ends_is_named(model, tmp_path):
    rows, steps = made(LISTS)
    (tmp_path / "model-tiny-float32").symlink_to(model)
    counts = {order: [count([rows[i] for i in step]) for step in found] for order, found in steps.items()}
    held = {"rows": rows, "steps": steps, "counts": counts}
    (tmp_path / f"rows-tiny-{SHAPES['tiny'].vocabulary}.json").write_text(json.dumps(held))
    said = []
    with Bench(tmp_path, threads=1, tell=said.append, matrix_size=256) as bench:
        bench.engine("unipref").process.kill()  # as the system does where memory is short
        found = bench.measure("tiny", ["loop_cached", "ours_cached", "loop", "flash_pref_cached"], repeats=2)
    sides = found["sides"]
    assert [len(sides[name]) for name in ("loop_cached", "loop")] == [2, 2]
    assert [words.split(":")[0].strip() for words in said] == ["loop_cached", "loop"] * 2
    assert "unipref does not start" in sides["ours_cached"]["failed"]
    assert sides["flash_pref_cached"]["failed"] == NO_FLASH_PREF
    one = sides["loop"][0]
    assert unequal(one, counts["warm"] + counts["given"], sides["loop_cached"][1], "float32") == ""
    assert one["peak_mb"] > one["libraries_mb"] > 50
    rates = found["rates"]  # before the first repeat, and after each; one that failed has none
    assert len(rates) == 5
    assert min(rates) > 1e8
    assert [r["rate"] for r in sides["loop"]] == [max(rates[1:3]), max(rates[3:5])]
