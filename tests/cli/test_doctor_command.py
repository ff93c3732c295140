"""`unipref doctor`: data or a recipe by its name, the exit code, and three ways to read what was found."""

import json
import sys
from pathlib import Path

import pytest

from unipref.cli import main
from unipref.recipes import bundled_recipes

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
from data_files import COLUMNS, pairs, without, write

LACKING = [f"{side}_{name}" for name in COLUMNS for side in ("chosen", "rejected")]
RECIPE = "model: bundled\ndata: {train: d.jsonl, eval_share: 0.4}\nstages: [{method: %s}]\ntrain: {batch_size: 1}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: twelve pairs without rewards, a recipe that they feed, and one that they do not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    write(tmp_path / "d.jsonl", without(pairs(), *LACKING))
    (tmp_path / "fits.yaml").write_text(RECIPE % "dpo")
    (tmp_path / "lacks.yaml").write_text(RECIPE % "upo")
    return tmp_path


def test_the_exit_code_is_one_where_training_would_be_wrong_and_zero_otherwise(folder, capsys):
    assert main(["doctor", "fits.yaml"]) == 0
    assert "Nothing that would make training wrong" in capsys.readouterr().out
    assert main(["doctor", "lacks.yaml"]) == 1
    said = capsys.readouterr().out
    assert "Training would be wrong: 1 error" in said
    assert "method-needs: upo needs `reward`" in said
    assert "--html FILE" in said


def test_an_accepted_error_does_not_change_the_exit_code(folder, capsys):
    assert main(["doctor", "lacks.yaml", "--set", "data.accept=[method-needs]"]) == 0
    assert "Accepted in spite of an error: method-needs" in capsys.readouterr().out


def test_data_are_looked_at_by_themselves_and_their_tokens_with_a_model(folder, capsys):
    assert main(["doctor", "d.jsonl", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main(["doctor", "d.jsonl", "--model", "bundled", "--max-length", "24", "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert alone["tokens"] == []
    assert alone["counts"]["not_checked"] > shown["counts"]["not_checked"]
    cut = next(one for one in shown["findings"] if one["code"] == "cut-responses")
    assert cut["level"] == "error"  # of about 45 tokens a response, 24 are kept
    assert {kind for row in shown["tokens"] for _, _, kind in row["tokens"]} == {"context", "scored", "cut"}


def test_evaluation_data_are_held_against_the_training_data(folder, capsys):
    write(folder / "e.jsonl", without(pairs()[:3], *LACKING))
    main(["doctor", "d.jsonl", "--eval", "e.jsonl", "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    overlap = next(one for one in found if one["code"] == "eval-overlap")
    assert overlap["n"] == 3


def test_the_page_and_the_json_say_the_same_and_nothing_else_is_printed_as_json(folder, capsys):
    assert main(["doctor", "lacks.yaml", "--json", "--html", "page.html"]) == 1
    found = json.loads(capsys.readouterr().out)
    page = (folder / "page.html").read_text(encoding="utf-8")
    for one in found["findings"]:
        assert f'data-code="{one["code"]}" data-level="{one["level"]}"' in page
    assert not list(folder.glob("runs*"))
    assert not list(folder.rglob(".scores"))  # looking leaves nothing behind


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.jsonl"], "there is no data file 'nothing.jsonl'"),
        (["nothing.yaml"], "no recipe 'nothing.yaml'"),
        (["d.jsonl", "--set", "seeds=[1]"], "--set changes a recipe, and d.jsonl is taken for data"),
        (["d.jsonl", "--full"], "--full changes a recipe"),
        (["d.jsonl", "--html", "."], "--html: . is a folder"),
        (["d.jsonl", "--max-length", "1"], "--max-length must hold"),
        (["d.jsonl", "--model", "./nowhere"], "no folder at ./nowhere"),
        (["d.jsonl", "--format", "perference"], "did you mean 'preference'?"),
        (["fits.yaml", "--model", "other"], "write --set model=other"),
        (["fits.yaml", "--max-length", "99"], "--max-length goes with a data file"),
        (["fits.yaml", "--set", "data.accept=[bos-twise]"], "did you mean 'bos-twice'?"),
    ],
)
def test_what_the_user_has_to_mend_is_said_with_exit_code_two(folder, capsys, words, said):
    assert main(["doctor", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_bundled_recipe_is_known_by_its_name(folder, capsys, monkeypatch):
    from unipref.core.findings import Examination

    seen = []
    monkeypatch.setattr(
        "unipref.recipes.doctor.examine_recipe",
        lambda recipe, *, subject: seen.append((recipe.name, subject)) or Examination(subject),
    )
    for name in bundled_recipes():
        assert main(["doctor", name]) == 0
    assert seen == [(name, name) for name in bundled_recipes()]
