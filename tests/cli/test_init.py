"""`unipref init` on the command line: what is written, what is said, what it ends with."""

import json

import pytest

from unipref.cli import main
from unipref.recipes import load_recipe

ROWS = [{"prompt": f"Question {i}?", "chosen": f" Yes, {i}.", "rejected": f" No, {i}."} for i in range(20)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with `pairs.jsonl` and a TRL configuration for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "trl.yaml").write_text("model_name_or_path: bundled\ndataset_name: pairs.jsonl\nbeta: 0.2\n")
    return tmp_path


def test_a_recipe_is_written_that_loads_and_the_next_commands_are_told(here, capsys):
    assert main(["init", "pairs.jsonl"]) == 0
    recipe = load_recipe("recipe.yaml")
    assert (recipe.model, recipe.name, recipe.stages[0].method) == ("bundled", "pairs", "dpo")
    told = capsys.readouterr().out
    assert "Read 20 rows, kept 20." in told
    assert "Method dpo: the rows are pairs" in told
    for command in ("unipref doctor recipe.yaml", "unipref align recipe.yaml --dry-run", "unipref align recipe.yaml "):
        assert command in told
    assert "toy" in (here / "recipe.yaml").read_text()


def test_a_file_is_written_over_with_force_alone(here, capsys):
    (here / "recipe.yaml").write_text("mine\n")
    assert main(["init", "pairs.jsonl"]) == 2
    assert "recipe.yaml is there already" in capsys.readouterr().err
    assert (here / "recipe.yaml").read_text() == "mine\n"
    assert main(["init", "pairs.jsonl", "--force"]) == 0
    assert load_recipe("recipe.yaml").data.train == "pairs.jsonl"


def test_nothing_is_written_where_the_data_do_not_fit(here, capsys):
    assert main(["init", "pairs.jsonl", "--method", "tpo_l"]) == 2
    assert "tpo_l needs `gold`" in capsys.readouterr().err
    assert not (here / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a file or a hub data set, or bundled:hh-harmless"),
        (["pairs.jsonl", "--trainer", "dpo"], "it needs --from-trl CONFIG"),
        (["--from-trl", "trl.yaml", "--method", "dpo"], "--method and --from-trl"),
        (["--from-trl", "trl.yaml", "--goal", "length"], "--goal and --from-trl"),
        (["--from-trl", "trl.yaml", "--trainer", "grpo"], "no trainer 'grpo' can be converted"),
        (["pairs.jsonl", "--output", "."], "is a folder"),
    ],
)
def test_words_that_do_not_go_together_are_refused_with_what_would(here, capsys, words, message):
    assert main(["init", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_trl_configuration_that_is_kept_ends_with_0(here, capsys):
    assert main(["init", "--from-trl", "trl.yaml"]) == 0
    recipe = load_recipe("recipe.yaml")
    assert (recipe.stages[0].options, recipe.train.learning_rate) == ({"beta": 0.2}, 1e-6)
    assert "trl.yaml: DPO (nothing in it is another trainer's; --trainer says another). Kept 3 keys of 3." in (
        capsys.readouterr().out
    )


def test_a_loss_that_cannot_be_kept_ends_with_1_and_the_recipe_is_there(here, capsys):
    (here / "trl.yaml").write_text(
        "model_name_or_path: bundled\ndataset_name: pairs.jsonl\nld_alpha: 0.5\nadam_beta2: 0.95\ntf32: true\nbata: 1\n"
    )
    assert main(["init", "--from-trl", "trl.yaml", "--trainer", "dpo"]) == 1
    told = capsys.readouterr().out
    titles = ("NOT KEPT", "it changes how training goes", "nothing here depends on it", "not keys of TRL")
    places = [told.index(words) for title, key in zip(titles, ("ld_alpha", "adam_beta2", "tf32", "bata"), strict=True)
              for words in (title, f"  {key}: ")]  # fmt: skip
    assert places == sorted(places)
    text = (here / "recipe.yaml").read_text()
    assert all(f"# {key}: " in text for key in ("ld_alpha", "adam_beta2", "tf32", "bata"))
    assert load_recipe("recipe.yaml").stages[0].method == "dpo"


def test_what_trls_command_line_gave_stands_before_the_file(here):
    (here / "trl.yaml").write_text("beta: 0.3\n")
    assert main(["init", "pairs.jsonl", "--model", "bundled", "--from-trl", "trl.yaml", "--output", "b/c.yaml"]) == 0
    recipe = load_recipe("b/c.yaml")
    assert (recipe.data.train, recipe.model, recipe.stages[0].options) == ("pairs.jsonl", "bundled", {"beta": 0.3})
    first = (here / "b/c.yaml").read_text().splitlines()[0]
    assert first == "# Written by `unipref init pairs.jsonl --model bundled --from-trl trl.yaml`."
