"""`unipref align --dry-run` prints what it found, for people or as JSON, and its exit code says whether it fits."""

import json
from pathlib import Path

import pytest

import unipref.recipes.align
import unipref.recipes.estimate
from unipref.cli import main
from unipref.recipes._cost import Estimate, JudgeCost, StageCost

RECIPE = "model: bundled\ndata: {train: bundled:hh-harmless}\nstages: [{method: dpo}]\n"


def planted(**changes):
    stage = StageCost("dpo", 0, "dpo", "dpo", "dpo/dpo", records=200, steps=40, left=30, epochs=1.6)
    stage.tokens = {"plain": 40_000, "shared": 10_000, "policy": 12_000}
    stage.flops = {"matrix": 6e12, "attention": 1e12, "head": 1e12, "forward": 2e12}
    stage.seconds = {"training": 80.0, "loading": 2.0}
    stage.memory, stage.disk = 1.5e9, {"models": 26e6, "checkpoints": 78e6}
    judge = JudgeCost("dpo", 0, seconds={"sampling": 18.0})
    values = {
        "recipe": "mine",
        "folder": "runs/mine",
        "machine": {"kind": "cpu", "name": "x86_64", "cores": 2, "threads": 2},
        "model": {"name": "bundled", "path": "tries", "weights": 6.5e6, "trained": 6.5e6, "blocks": 6},
        "precision": "float32",
        "stages": [stage],
        "judged": [judge],
        "shared": {"reading": 1.0},
        "memory": {"training": 1.5e9, "evaluation": 1.2e9},
        "disk": {"models": 26e6, "checkpoints": 78e6, "score store": 1e6, "evaluation and report": 5e5},
        "available": {"memory": 8e9, "disk": 9e10},
        "spread": 0.15,
        **changes,
    }
    return Estimate(**values)


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What `estimate` was asked for, in a folder with a recipe; training is an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    Path("mine.yaml").write_text(RECIPE)
    seen = []

    def estimate(recipe, **words):
        seen.append({"recipe": recipe, **words})
        return planted()

    def align(*args, **words):
        raise AssertionError("a dry run trained")

    monkeypatch.setattr(unipref.recipes.estimate, "estimate", estimate)
    monkeypatch.setattr(unipref.recipes.align, "align", align)
    return seen


def test_a_dry_run_trains_nothing_and_says_steps_tokens_time_memory_and_disk(asked, capsys):
    assert main(["align", "mine.yaml", "--dry-run", "--set", "train.epochs=3", "--resume", "--device", "H100"]) == 0
    [call] = asked
    assert call["recipe"].train.epochs == 3
    assert (call["output"], call["resume"], call["device"]) == (Path("runs/mine"), True, "H100")
    said = capsys.readouterr().out
    for words in ("30 of 40", "10 k", "40 k", "75 %", "82 s", "1.5 GB", "104 MB", "nothing was written"):
        assert words in said
    # 80 + 2 + 18 + 1 seconds, and 15 % on either side
    assert "2 min" in said
    assert "86 s to 2 min" in said
    assert "memory  1.5 GB (1.4 GB to 1.7 GB) of the process at its peak: training 1.5 GB, evaluation 1.2 GB" in said
    assert "100 GFLOP/s" in said  # 8 T operations in 80 s
    assert list(Path().iterdir()) == [Path("mine.yaml")]


def test_json_has_every_number_and_nothing_else_on_stdout(asked, capsys):
    assert main(["align", "mine.yaml", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["totals"]["seconds"] == pytest.approx([101.0, 101 * 0.85, 101 * 1.15])
    assert said["totals"]["disk"]["total"] == pytest.approx(105.5e6)
    assert said["stages"][0]["saved"] == 0.75
    assert set(said) == {
        *("recipe", "folder", "machine", "model", "precision", "stages", "judged", "totals", "available", "device"),
        *("faults", "notes", "took"),
    }


def test_what_does_not_fit_gives_exit_code_one_and_what_to_change(asked, capsys, monkeypatch):
    monkeypatch.setattr(unipref.recipes.estimate, "estimate", lambda recipe, **words: planted(faults=["disk: buy one"]))
    assert main(["align", "mine.yaml", "--dry-run"]) == 1
    assert "will not fit disk: buy one" in capsys.readouterr().out


def test_quiet_prints_nothing_and_the_exit_code_still_speaks(asked, capsys, monkeypatch):
    monkeypatch.setattr(unipref.recipes.estimate, "estimate", lambda recipe, **words: planted(faults=["memory"]))
    assert main(["align", "mine.yaml", "--dry-run", "--quiet"]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", [["--json"], ["--device", "H100"]])
def test_words_of_a_dry_run_are_refused_without_it(asked, words, capsys):
    assert main(["align", "mine.yaml", *words]) == 2
    assert f"{words[0]} belongs to --dry-run" in capsys.readouterr().err
    assert asked == []


def test_an_unknown_device_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(RECIPE)

    def read_data(*args, **words):
        raise AssertionError("data were read")

    monkeypatch.setattr(unipref.recipes.estimate, "read_data", read_data)
    assert main(["align", "mine.yaml", "--dry-run", "--device", "A100"]) == 2
    assert "no device named 'A100'" in capsys.readouterr().err


def test_too_much_for_the_disk_or_the_memory_is_a_fault_with_what_to_change():
    from unipref.recipes import load_recipe
    from unipref.recipes._cost import faults

    recipe = load_recipe({"model": "bundled", "data": {"train": "bundled:hh-harmless"}, "stages": [{"method": "dpo"}]})
    assert list(faults(planted(), recipe)) == []
    memory, disk = faults(planted(available={"memory": 1.6e9, "disk": 1.1e8}), recipe)
    assert memory.startswith("memory: about 1.5 GB will be needed and 1.6 GB are available here")
    for key in ("max_tokens_per_forward (now 8192", "gradient_checkpointing=true", "model_options.lora"):
        assert key in memory
    assert disk.startswith("disk: 106 MB will be written and 110 MB are free")
    assert "merge: false" in disk
