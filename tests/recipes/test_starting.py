"""A first recipe fits the data it was written for: method, sizes, goals, and a text that a person can read."""

import math
import re
import statistics

import pytest
from data_files import TOPICS, demonstrations, lists, pairs, thumbs, without, write
from rich.console import Console

from unipref.core.errors import ConfigError, DataError
from unipref.data import is_heldout, read_records
from unipref.engine import load_tokenizer
from unipref.recipes import load_recipe
from unipref.recipes._source import yaml_value
from unipref.recipes._written import Entry, Items, Section, scalar, written
from unipref.recipes.align import align
from unipref.recipes.fit import check_data
from unipref.recipes.starting import _half_width, _learning_rate, _Model, run_name, start_recipe

PLAIN = [{"prompt": row["prompt"], "chosen": row["chosen"], "rejected": row["rejected"]} for row in pairs()]
TREES = [
    {
        "prompt": topic[0],
        "nodes": [
            {"id": 0, "parent": None, "text": " First step.", "q": 0.5},
            {"id": 1, "parent": 0, "text": " A good end.", "q": 0.9, "is_terminal": True},
            {"id": 2, "parent": 0, "text": " A bad end.", "q": -0.7, "is_terminal": True},
        ],
    }
    for topic in TOPICS
]


def labelled(*labels):
    return [{"prompt": t[0], "completion": f" It is {t[1]}.", "label": label} for t, label in zip(TOPICS, labels)]  # noqa: B905


@pytest.fixture
def started(tmp_path, small_model):
    """A function (rows, settings) -> the recipe for them and a model of a few thousand weights."""

    def start(rows, **settings):
        data = write(tmp_path / "rows.jsonl", rows)
        return start_recipe(str(data), **{"model": str(small_model), **settings})

    return start


def only_stage(start):
    (stage,) = start.recipe.stages
    return stage


# ---- the method ----


@pytest.mark.parametrize(
    ("rows", "method"),
    [
        (PLAIN, "dpo"),
        ([{**row, "preference": 0.8} for row in PLAIN], "dpo"),
        (thumbs(), "kto"),
        (without(lists(), "rewards"), "pl_dpo"),
        (without(lists(), "ranks"), "rpo"),
        (TREES, "step_dpo"),
        (demonstrations(), "sft"),
        ([{**row, "reward": i / 12} for i, row in enumerate(demonstrations())], "a_lol"),
        (labelled(*[True] * 12), "sft"),
        (labelled(*[False] * 12), "pmpo"),
    ],
    ids=["pairs", "soft", "thumbs", "ranks", "rewards", "trees", "demonstrations", "rewarded", "ups", "downs"],
)
def test_the_method_is_the_one_for_the_shape_of_the_rows_and_the_rows_feed_it(started, tmp_path, rows, method):
    made = started(rows)
    assert only_stage(made).method == method
    records, _ = read_records(tmp_path / "rows.jsonl")
    check_data(made.recipe, records)
    assert any(sentence.startswith(f"Method {method}: ") for sentence in made.found)


def test_soft_labels_are_counted_and_said_to_be_read_as_they_are(started):
    rows = [{**row, "votes_chosen": 3, "votes_rejected": int(i < 5)} for i, row in enumerate(PLAIN)]
    assert "5 of them with soft labels" in started(rows).why


def test_thumbs_are_weighted_so_that_both_sides_count_alike(started):
    made = started(labelled(*[True] * 3, *[False] * 9))
    options = only_stage(made).options
    assert options["lambda_d"] * 3 == options["lambda_u"] * 9


def test_ratings_under_another_name_than_reward_become_the_reward_by_an_objective(started):
    rows = [{"prompt": r["prompt"], "responses": r["responses"], "scores": r["rewards"]} for r in lists()]
    made = started(rows)
    (objective,) = made.recipe.objectives.values()
    assert (objective.scorer, objective.options, objective.normalise) == ("column", {"column": "score"}, "zscore")
    assert only_stage(made).method == "rpo"


def test_columns_that_another_method_reads_are_told_with_that_method(started):
    told = " ".join(started(pairs()).found)
    assert re.search(r"`gold`, read by tpo_l", told)
    assert re.search(r"`rationale`, read by rationale_dpo", told)
    assert re.search(r"`segment_score`, read by dpo_2d", told)
    assert "also have" not in " ".join(started(PLAIN).found)


def test_domains_are_counted(started):
    rows = [{**row, "domain": "garden" if i < 4 else "kitchen"} for i, row in enumerate(PLAIN)]
    assert "Domains: kitchen 8, garden 4." in started(rows).found


def test_a_method_by_name_is_taken_where_the_rows_feed_it_and_refused_where_not(started):
    assert only_stage(started(PLAIN, method="simpo")).method == "simpo"
    with pytest.raises(ConfigError, match=r"tpo_l needs `gold`: a column `gold`"):
        started(PLAIN, method="tpo_l")
    with pytest.raises(ConfigError, match=r"no method named 'simp' \(did you mean 'simpo'"):
        started(PLAIN, method="simp")


def test_prompts_alone_are_refused_with_what_would_do(started):
    with pytest.raises(ConfigError, match="nothing in them says which response is better"):
        started([{"prompt": topic[0]} for topic in TOPICS])


# ---- goals ----


def test_goals_put_upo_beside_its_method_and_the_control_that_does_not_look_at_them(started):
    recipe = started(thumbs(), goals=["reading_level", "length:cap=60;unit=words"]).recipe
    assert [stage.method for stages in recipe.runs.values() for stage in stages] == ["kto", "upo", "upo"]
    plain, control, aligned = (stages[0].options for stages in recipe.runs.values())
    assert control == {"base": "kto", "base_options": plain, "lam": 0.0}
    assert aligned == {"base": "kto", "base_options": plain, "gamma": 0.5, "lam": 5.0}
    assert recipe.controls == {"upo_kto": ("control", "kto"), "control": ("kto",)}
    assert recipe.objectives["length"].options["cap"] == 60
    assert sum(objective.weight for objective in recipe.objectives.values()) == 1


def test_of_rated_lists_with_goals_the_numbers_order_and_the_goals_reward(started):
    recipe = started(without(lists(), "ranks"), goals=["length:cap=60"]).recipe
    assert list(recipe.runs) == ["dpo", "control", "upo_dpo"]
    assert list(recipe.objectives) == ["length"]


def test_a_method_that_reads_the_reward_itself_is_one_run(started):
    made = started(PLAIN, method="modpo", goals=["length:cap=60"])
    assert only_stage(made).method == "modpo"


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("lenght", r"no scorer named 'lenght' \(did you mean 'length'"),
        ("length:size=3", r"expected length:option=value.*unit, cap"),
        ("regex", r"regex needs pattern; give it as --goal 'regex:pattern=...'"),
        ("length:cap=-1", r"objectives\.length"),
    ],
)
def test_a_goal_that_cannot_be_is_refused_with_what_can(started, goal, message):
    with pytest.raises(ConfigError, match=message):
        started(PLAIN, goals=[goal])


# ---- sizes ----


def test_the_length_holds_99_percent_of_the_rows_rounded_up_to_64(tmp_path):
    counts = [*range(1, 199), 500, 700]  # the two longest of 200 rows are the one percent that is cut
    rows = [{"prompt": f"Question {i}?", "chosen": " word" * n, "rejected": " no"} for i, n in enumerate(counts)]
    recipe = start_recipe(str(write(tmp_path / "rows.jsonl", rows))).recipe
    tokenizer = load_tokenizer("bundled")
    lengths = [len(tokenizer(row["prompt"] + row["chosen"])["input_ids"]) + 1 for row in rows]  # and the end token
    assert recipe.data.max_length == 64 * math.ceil(sorted(lengths)[197] / 64)
    assert recipe.train.learning_rate == 2e-4  # the quickstart's, for the bundled model


def test_the_length_is_never_more_than_the_model_was_made_for(started):
    rows = [{**row, "chosen": " word" * 600} for row in PLAIN]
    made = started(rows)
    assert made.recipe.data.max_length == 512
    assert "the most that the model was made for" in " ".join(made.text.replace("#", "").split())


def test_steps_epochs_and_held_out_rows_follow_from_the_number_of_rows(tmp_path, small_model):
    rows = [{"prompt": f"Question {i}?", "chosen": f" Yes, {i}.", "rejected": f" No, {i}."} for i in range(4000)]
    made = start_recipe(str(write(tmp_path / "many.jsonl", rows)), model=str(small_model)).recipe
    assert made.data.eval_share == 0.13  # 500 / 4,000, rounded up
    heldout = sum(is_heldout(f"question {i}?", share=0.13) for i in range(4000))
    assert made.train.batch_size == 32  # the largest with 100 steps in a pass
    assert math.ceil((4000 - heldout) / 32) >= 100 > (4000 - heldout) / 64
    assert made.train.epochs == 1.0
    assert made.sampling.prompts == 64


def test_few_rows_get_small_steps_and_three_passes(started):
    made = started(PLAIN).recipe
    assert (made.train.batch_size, made.train.epochs) == (8, 3.0)


def test_rows_that_cannot_be_split_ask_for_held_out_data_and_take_them(started, tmp_path):
    with pytest.raises(ConfigError, match=r"1 row of too few conversations.*--eval"):
        started(PLAIN[:1])
    heldout = str(write(tmp_path / "held.jsonl", PLAIN[1:]))
    made = started(PLAIN[:1], eval=heldout).recipe
    assert (made.data.eval, made.train.batch_size) == (heldout, 1)


def test_half_of_an_interval_is_that_of_a_share_of_one_half():
    spread = statistics.NormalDist().inv_cdf(0.975) * math.sqrt(0.25 / 400)
    assert float(_half_width(400)) == pytest.approx(100 * spread, abs=0.05)


def test_a_large_model_gets_adapters_whose_rate_is_ten_times_that_of_all_weights(tmp_path, monkeypatch):
    from unipref.engine import ModelFacts
    from unipref.recipes import starting

    facts = ModelFacts("m", None, 8_000_000_000, 4096, 128_000, (), (), (), False, ())
    monkeypatch.setattr(starting, "model_facts", lambda name: facts)
    monkeypatch.setattr(starting, "load_tokenizer", lambda name: load_tokenizer("bundled"))
    made = start_recipe(str(write(tmp_path / "rows.jsonl", PLAIN)), model="org/large")
    assert made.recipe.model_options.lora.r == 16
    assert made.recipe.train.gradient_checkpointing
    assert made.recipe.train.learning_rate == 1e-5
    assert "about 128 GB" in made.text  # 16 bytes * 8e9


def test_imitation_bears_ten_times_the_rate_of_a_contrast():
    known = _Model("m", n_parameters=400_000_000)
    assert _learning_rate("sft", known)[0] == pytest.approx(10 * _learning_rate("dpo", known)[0])


def test_a_model_that_cannot_be_reached_leaves_guesses_that_are_said_to_be_such(tmp_path, monkeypatch):
    from unipref.recipes import starting

    def unreachable(name):
        raise ConfigError(f"model: cannot read the configuration of {name!r}")

    monkeypatch.setattr(starting, "model_facts", unreachable)
    made = start_recipe(str(write(tmp_path / "rows.jsonl", PLAIN)), model="org/far-away")
    assert "cannot read the configuration" in made.notes[0]
    assert made.recipe.data.max_length == 1024
    assert "a guess: the tokenizer could not be asked" in made.text


def test_a_folder_that_holds_no_model_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="is no saved model"):
        start_recipe(str(write(tmp_path / "rows.jsonl", PLAIN)), model=str(tmp_path))


def test_data_that_are_not_there_are_an_error():
    with pytest.raises(DataError, match=r"no data file 'nothing\.jsonl'"):
        start_recipe("nothing.jsonl")


# ---- the text ----


def test_the_text_is_the_recipe_fits_the_page_and_trains(started, tmp_path):
    made = started(
        PLAIN, goals=["length:cap=60"], command="unipref init rows.jsonl --goal length:cap=60", file="a.yaml"
    )
    assert max(map(len, made.text.splitlines())) <= 100
    assert made.text.startswith("# Written by `unipref init rows.jsonl --goal length:cap=60`.\n")
    assert "#   unipref align a.yaml --dry-run  steps, time and memory to expect" in made.text
    assert load_recipe(yaml_value(made.text, "the text")) == made.recipe
    changes = ["train.max_steps=2", "sampling.prompts=1", "sampling.max_new_tokens=4"]
    short = load_recipe(yaml_value(made.text, "the text"), changes)
    folder = align(short, output=tmp_path / "run", console=Console(quiet=True))
    assert all((folder / run / "upo" / "model").is_dir() for run in ("control", "upo_dpo"))


def test_names_of_runs_are_names_of_folders():
    assert run_name("bundled:hh-harmless") == "hh-harmless"
    assert run_name("a b/Ünï (2).parquet") == "n-2"
    assert run_name("...") == "recipe"


def test_comments_stand_behind_short_lines_and_above_long_ones():
    text = written(
        ["A heading."],
        [
            Entry("a", 1, "short"),
            Entry("long", "x", "word " * 30),
            Section(
                "s", [Entry("k", [1, None, True]), Items("list", [[Entry("first", "y", "z" * 99), Entry("b", 2)]])]
            ),
        ],
        ["An ending."],
    )
    assert text == (
        "# A heading.\n\n"[:-1]
        + "a: 1  # short\n"
        + "# " + " ".join(["word"] * 19) + "\n"
        + "# " + " ".join(["word"] * 11) + "\n"
        + "long: x\n"
        + "\ns:\n  k: [1, null, true]\n  list:\n"
        + "    # " + "z" * 99 + "\n    - first: y\n      b: 2\n"
        + "\n# An ending.\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "value",
    ["1e-5", "off", "null", "a: b", "# x", "é", "", "12:30", 1e-7, True, None, {"a": [1, "1e-5"]}, "'", '"', " x"],
)
def test_a_value_is_written_as_recipes_read_it(value):
    assert yaml_value(f"key: {scalar(value)}", "a line") == {"key": value}
