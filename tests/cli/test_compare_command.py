"""`unipref compare` reads its words, prints the table, and leaves with the right code."""

import json
from pathlib import Path

import pytest

import unipref.recipes.compare as comparing
from unipref.cli import main
from unipref.recipes.stage import Interrupted

RECIPE = "model: bundled\ndata: {train: bundled:hh-harmless}\nstages: [{method: dpo}]\n"


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """What `compare` was called with; instead of training it writes a comparison of methods that did not fail."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    seen = []

    def compare(recipe, methods, **options):
        seen.append({"recipe": recipe, "methods": methods, **options})
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        (folder / "comparison.json").write_text(json.dumps({"methods": {"dpo": {"state": "done"}}}))
        return folder

    monkeypatch.setattr(comparing, "compare", compare)
    monkeypatch.setattr("unipref.report.render_comparison", lambda comparison: f"the table of {comparison}")
    return seen


def test_the_words_reach_the_comparison_and_the_table_is_printed(calls, capsys):
    words = [
        "compare", "mine.yaml", "--methods", "dpo:beta=0.3,simpo", "--learning-rates", "1e-6,1e-5", "--seeds", "3,4",
        "--select", "log_score", "--baseline", "simpo", "--validation-share", "0.1", "--set", "data.limit=64",
        "--output", "there", "--resume", "--keep-models",
    ]  # fmt: skip
    assert main(words) == 0
    [call] = calls
    assert [method.name for method in call["methods"]] == ["dpo-beta-0.3", "simpo"]
    assert call["recipe"].data.limit == 64
    assert (call["learning_rates"], call["seeds"]) == ([1e-6, 1e-5], [3, 4])
    assert (call["select"], call["baseline"], call["validation_share"]) == ("log_score", "simpo", 0.1)
    assert (call["output"], call["resume"], call["keep_models"]) == (Path("there"), True, True)
    out, err = capsys.readouterr()
    assert "the table of" in out
    assert "out/report.html" in out
    assert err == ""


def test_the_command_that_is_kept_is_the_one_that_makes_the_table_again(calls, monkeypatch):
    words = [
        "compare",
        "mine.yaml",
        "--methods",
        "dpo:beta=0.3;x y",
        "--seeds",
        "0,1",
        "--set",
        "data.limit=64",
        "--full",
    ]
    monkeypatch.setattr("unipref.recipes.load_recipe", lambda *args, **options: "recipe")
    monkeypatch.setattr(comparing, "parse_methods", lambda text: [])
    assert main([*words, "--full"]) == 0
    command = calls[0]["command"]
    assert command == ("unipref compare mine.yaml --methods 'dpo:beta=0.3;x y' --seeds 0,1 --full --set data.limit=64")


def test_a_method_that_failed_is_exit_code_one(calls, monkeypatch):
    failed = {"methods": {"dpo": {"state": "done"}, "ipo": {"state": "failed"}}}
    monkeypatch.setattr("unipref.cli.compare.json.loads", lambda text: failed)
    assert main(["compare", "mine.yaml", "--methods", "dpo,ipo", "--quiet"]) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--methods", "simp"], "did you mean 'simpo'"),
        (["--methods", "dpo", "--learning-rates", "fast"], "expected numbers by commas, such as 1e-6,3e-6,1e-5"),
        (["--methods", "dpo", "--seeds", "0.5"], "expected numbers by commas, such as 0,1,2"),
        (["--methods", "dpo", "--validation-share", "2"], "between 0 and 1, got 2"),
    ],
)
def test_faults_in_the_words_are_code_two_and_one_block(calls, capsys, words, told):
    assert main(["compare", "mine.yaml", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert told in err
    assert calls == []


@pytest.mark.parametrize(
    ("stop", "told"),
    [
        (Interrupted("stopped at step 3 of 9"), "stopped at step 3 of 9\n"),
        (KeyboardInterrupt(), "stopped; finished runs are kept, continue with --resume\n"),
    ],
)
def test_ctrl_c_is_code_130_and_says_that_nothing_is_lost(calls, capsys, monkeypatch, stop, told):
    def compare(*args, **options):
        raise stop

    monkeypatch.setattr(comparing, "compare", compare)
    assert main(["compare", "mine.yaml", "--methods", "dpo"]) == 130
    assert capsys.readouterr().err == told


def test_quiet_prints_nothing(calls, capsys):
    assert main(["compare", "mine.yaml", "--methods", "dpo", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


# ---- finished runs ----


@pytest.fixture
def pairs_of_runs(tmp_path, monkeypatch):
    """What `side_by_side` was called with; instead of reading runs it writes an empty comparison."""
    monkeypatch.chdir(tmp_path)
    seen = []

    def side_by_side(names, **options):
        seen.append({"names": names, **options})
        folder = tmp_path / "both"
        folder.mkdir(exist_ok=True)
        (folder / "runs.json").write_text(json.dumps({"runs": {"a": {}, "b": {}}}))
        return folder

    monkeypatch.setattr("unipref.recipes.side_by_side.side_by_side", side_by_side)
    monkeypatch.setattr("unipref.report.render_runs", lambda comparison: f"the table of {comparison}")
    return seen


def test_without_methods_run_folders_are_compared(pairs_of_runs, capsys):
    words = [
        "compare", "one", "two/upo", "--baseline", "one/dpo", "--output", "there",
        "--families", "a=one/dpo;b=upo", "--fronts", "kl,-;aux.detail.generations,+", "kl,-;accuracy,+",
    ]  # fmt: skip
    assert main(words) == 0
    [call] = pairs_of_runs
    assert call["names"] == ["one", "two/upo"]
    assert call["axes"] == [(("kl", -1), ("aux.detail.generations", 1)), (("kl", -1), ("accuracy", 1))]
    assert call["families"] == {"a": ["one/dpo"], "b": ["upo"]}
    assert (call["baseline"], call["output"]) == ("one/dpo", Path("there"))
    assert call["command"] == (
        "unipref compare one two/upo --baseline one/dpo --families 'a=one/dpo;b=upo' "
        "--fronts 'kl,-;aux.detail.generations,+' 'kl,-;accuracy,+'"
    )
    out, err = capsys.readouterr()
    assert "the table of" in out
    assert "both/report.html" in out
    assert err == ""


def test_json_prints_the_numbers_and_nothing_else(pairs_of_runs, capsys):
    assert main(["compare", "one", "two", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"runs": {"a": {}, "b": {}}}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["one", "two", "--seeds", "0,1"], "--seeds trains methods on a recipe, and needs --methods"),
        (["one", "two", "--set", "data.limit=8"], "--set trains methods on a recipe"),
        (["one", "two", "--resume"], "--resume trains methods on a recipe"),
        (["one", "two", "--fronts", "kl"], "such as 'kl,-;accuracy,+'"),
        (["mine.yaml", "--methods", "dpo", "--fronts", "kl,-;accuracy,+"], "--fronts is for finished runs"),
        (["mine.yaml", "--methods", "dpo", "--json"], "--json is for finished runs"),
        (["mine.yaml", "quickstart", "--methods", "dpo"], "--methods trains on one recipe, got 2"),
        (
            ["done", "--methods", "dpo"],
            "done is a finished run, and --methods trains on a recipe: give done/recipe.yaml",
        ),
    ],
)
def test_words_of_the_other_form_are_refused(calls, pairs_of_runs, tmp_path, capsys, words, told):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "summary.json").write_text("{}")
    assert main(["compare", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert told in err
    assert calls == pairs_of_runs == []


def test_a_recipe_alone_is_told_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "quickstart"]) == 2
    assert "give --methods dpo,simpo to train methods on it" in capsys.readouterr().err
