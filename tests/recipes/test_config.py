"""A recipe says what it means, and every fault in it is told with file, line, key and what would fit."""

import copy

import pytest
import yaml

from unipref.core.errors import ConfigError
from unipref.recipes import Recipe, Stage, bundled_recipes, find_recipe, load_recipe

PLAIN = """\
model: bundled
data: {train: bundled:hh-harmless}
objectives:
  reading_level: {scorer: reading_level}
train:
  learning_rate: 1e-5
stages:
  - {method: sft, train: {epochs: 2, bounds: {kl: 3}}}
runs:
  dpo:
    - {method: dpo, options: {beta: 0.1}}
  upo_dpo:
    - {method: upo, options: {base: dpo, lam: 5.0}}
controls: {upo_dpo: dpo}
full:
  seeds: [0, 1, 2]
  data: {limit: 9}
  runs:
    simpo:
      - {method: simpo}
"""


@pytest.fixture
def write(tmp_path):
    """Writes a recipe file; its path."""

    def to_file(text: str, name: str = "mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def faults(source, *overrides, **options) -> list[str]:
    """The lines of the error that loading `source` raises, without the heading."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(source, overrides, **options)
    heading, *lines = str(caught.value).splitlines()
    return [line.strip() for line in lines] or [heading]


def plain(**changes):
    values = {"model": "bundled", "data": {"train": "bundled:hh-harmless"}, "stages": [{"method": "dpo"}]}
    return {**values, **changes}


def test_a_number_without_a_dot_before_its_exponent_is_a_number(write):
    assert load_recipe(write(PLAIN)).train.learning_rate == 1e-5
    assert load_recipe(write(PLAIN), ["train.learning_rate=3e-4"]).train.learning_rate == 3e-4


def test_words_that_yaml_1_1_takes_for_booleans_stay_words_and_true_is_still_true(write):
    recipe = load_recipe(write(PLAIN.replace("lam: 5.0", "value: none") + "name: off\n"), ["data.strict=true"])
    assert recipe.name == "off"
    assert recipe.runs["upo_dpo"][0].options["value"] == "none"
    assert recipe.data.strict is True


def test_the_file_names_the_run_folder_unless_the_recipe_does(write):
    assert str(load_recipe(write(PLAIN)).folder) == "runs/mine"
    assert str(load_recipe(write(PLAIN), ["name=other"]).folder) == "runs/other"
    assert str(load_recipe(write(PLAIN), ["output=elsewhere/x"]).folder) == "elsewhere/x"


def test_shared_stages_come_first_in_every_run(write):
    plan = load_recipe(write(PLAIN)).run_plan()
    assert {name: [stage.method for stage in stages] for name, stages in plan.items()} == {
        "dpo": ["sft", "dpo"],
        "upo_dpo": ["sft", "upo"],
    }


def test_without_runs_the_stages_are_one_run_named_after_the_last_method():
    plan = load_recipe(plain(stages=[{"method": "sft"}, {"method": "ipo"}])).run_plan()
    assert list(plan) == ["ipo"]
    assert [stage.method for stage in plan["ipo"]] == ["sft", "ipo"]


def test_a_stage_changes_only_the_train_settings_it_names(write):
    recipe = load_recipe(write(PLAIN), ["train.bounds.margin=4"])
    sft, dpo = recipe.stages[0], recipe.runs["dpo"][0]
    assert recipe.train_of(dpo) == recipe.train
    changed = recipe.train_of(sft)
    assert (changed.epochs, changed.bounds.kl, changed.bounds.margin) == (2.0, 3.0, 4.0)
    assert changed.learning_rate == recipe.train.learning_rate == 1e-5


def test_full_lays_mappings_over_key_by_key_and_replaces_lists(write):
    path = write(PLAIN)
    small, full = load_recipe(path), load_recipe(path, full=True)
    assert (small.seeds, small.data.limit, list(small.runs)) == ((0,), None, ["dpo", "upo_dpo"])
    assert (full.seeds, full.data.limit, list(full.runs)) == ((0, 1, 2), 9, ["dpo", "upo_dpo", "simpo"])
    assert full.data.train == "bundled:hh-harmless"


def test_an_override_wins_over_the_file_and_over_full(write):
    recipe = load_recipe(write(PLAIN), ["seeds=[7]", "runs.upo_dpo.0.options.gamma=0.3"], full=True)
    assert recipe.seeds == (7,)
    assert recipe.runs["upo_dpo"][0].options == {"base": "dpo", "lam": 5.0, "gamma": 0.3}


def test_an_override_leaves_the_callers_mapping_alone():
    values = plain(train={"epochs": 1})
    before = copy.deepcopy(values)
    load_recipe(values, ["train.epochs=3", "stages.0.method=ipo"])
    assert values == before


def test_full_of_a_recipe_that_has_no_full_section_is_refused():
    assert "no section `full`" in faults(plain(), full=True)[0]


def test_a_fault_in_the_full_section_is_found_without_full(write):
    assert faults(write(PLAIN.replace("seeds: [0, 1, 2]", "sed: [0]"))) == [
        "line 16: sed: unknown key (did you mean 'seeds'?)"
    ]


@pytest.mark.parametrize("full", [False, True])
def test_a_resolved_recipe_reads_back_as_an_equal_recipe(write, full):
    recipe = load_recipe(write(PLAIN), ["train.report_to=tensorboard", "references=[model]"], full=full)
    resolved = recipe.resolved()
    assert load_recipe(resolved) == recipe
    assert load_recipe(write(yaml.safe_dump(resolved), "resolved.yaml")) == recipe
    assert resolved["stages"][0]["train"] == {"epochs": 2.0, "bounds": {"kl": 3.0}}  # changes only


def test_trackers_are_one_name_a_list_or_none():
    def trackers(value):
        return load_recipe(plain(train={"report_to": value})).train.report_to

    assert trackers("tensorboard") == ("tensorboard",)
    assert trackers(["tensorboard", "wandb"]) == ("tensorboard", "wandb")
    assert trackers("none") == trackers(None) == trackers([]) == ()


def test_references_share_equally_unless_weights_are_given():
    assert load_recipe(plain()).reference_weights() == [("model", 1.0)]
    assert load_recipe(plain(references=["model", "org/b"])).reference_weights() == [("model", 0.5), ("org/b", 0.5)]
    uneven = [{"model": "model", "weight": 0.75}, {"model": "org/b", "weight": 0.25}]
    assert load_recipe(plain(references=uneven)).reference_weights() == [("model", 0.75), ("org/b", 0.25)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "expected `key: value` lines, got list"),
        ("model: bundled\ndata: [\n", "line 3: not YAML"),
        ("model: a\ndata: {}\nmodel: b\n", "line 3: model is written twice, first in line 1"),
        ("train:\n  epochs: 1\n  epochs: 2\n", "line 3: train.epochs is written twice, first in line 2"),
        ("a: &x [*x]\n", "an alias (*name) stands inside what it names"),
        ("model: !!python/object:os.system x\n", "line 1: not YAML (could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_recipe_is_named_with_the_line(write, text, told):
    path = write(text)
    [line] = faults(path)
    assert line.startswith(str(path))
    assert told in line


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"model: bundled\nname: caf\xe9\n")
    assert faults(path) == [f"{path}, line 2: not UTF-8 (byte 0xe9); save the file as UTF-8"]


def test_a_byte_order_mark_is_no_fault(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode())
    assert load_recipe(path).model == "bundled"


def test_a_merge_key_of_yaml_is_followed(write):
    text = "model: bundled\ndata: {train: bundled:hh-harmless}\ntrain: &t {epochs: 4}\n"
    recipe = load_recipe(write(text + "stages: [{method: dpo, train: {<<: *t, batch_size: 2}}]\n"))
    assert recipe.train_of(recipe.stages[0]).epochs == 4


BAD = """\
model: bundled
modle_options: {}
model_options: {lora: {rank: 3}}
data:
  train: bundled:hh-harmless
  eval_share: 1.5
train:
  learnig_rate: 1e-5
  batch_size: 0
  epochs: "3"
  weight_decay: true
  schedule: cosin
  report_to: 3
  bounds: {kll: 3}
stages:
  - {method: dop}
  - method: dpo
    options: {betta: 3}
    train: {epoch: 1, learning_rate: -1}
  - {method: dpo, options: {beta: 0.1}}
runs: {a b: [{method: dpo}], c: {method: dpo}, d: []}
seeds: 0
"""


def test_all_faults_are_told_at_once_in_the_order_of_the_file(write):
    assert faults(write(BAD)) == [
        "line 2: modle_options: unknown key (did you mean 'model_options'?)",
        "line 3: model_options.lora.rank: unknown key (known: alpha, dropout, merge, r, target_modules)",
        "line 6: data.eval_share: expected a number less than 1.0, got 1.5",
        "line 8: train.learnig_rate: unknown key (did you mean 'learning_rate'?)",
        "line 9: train.batch_size: expected a number of at least 1, got 0",
        "line 10: train.epochs: expected a number, got '3'",
        "line 11: train.weight_decay: expected a number, got True",
        "line 12: train.schedule: expected 'cosine', 'linear' or 'constant', got 'cosin'",
        "line 13: train.report_to: expected a list, got 3",
        "line 14: train.bounds.kll: unknown key (did you mean 'kl'?)",
        "line 16: stages.0.method: no method named 'dop' (did you mean 'dpop'?); `unipref methods` lists all",
        "line 19: stages.1.train.epoch: unknown key (did you mean 'epochs'?)",
        "line 19: stages.1.train.learning_rate: expected a number greater than 0.0, got -1",
        "line 21: runs.a b: expected a name of letters, digits and . _ + - (it becomes a folder), got 'a b'",
        "line 21: runs.c: expected a list, got {'method': 'dpo'}",
        "line 21: runs.d: the list is empty; it needs at least one entry",
        "line 22: seeds: expected a list, got 0",
    ]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs", "--set train.epochs: expected key=value"),
        ("=3", "--set =3: expected key=value"),
        ("train.learnig_rate=1", "--set train.learnig_rate=1: train.learnig_rate: unknown key (did you mean"),
        ("runs.kto.0.options.beta=1", "--set runs.kto.0.options.beta=1: runs.kto is not a list"),
        ("stages.3.method=dpo", "stages is a list of 1, counted from 0; got '3'"),
        ("train.epochs.x=3", "train.epochs is 1, which has no keys"),
        ("train.epochs=[", "not YAML"),
        ("model=null", "--set model=null: model: expected a string, got None"),
        ("name=../x", "expected a name of letters, digits and . _ + - (it becomes a folder), got '../x'"),
        ("stages=[]", "nothing to train"),
        ("stages.0.options.betaa=1", "stages.0.options.betaa: dpo has no option 'betaa' (did you mean 'beta'?)"),
        ("controls={dpo: nope}", "controls.dpo: no run is called 'nope' (known: dpo)"),
        ("controls={dpo: dpo}", "controls.dpo: a run cannot be its own control"),
        ("seeds=[1, 1]", "seeds: a seed stands twice in [1, 1]"),
        ("references=[]", "references: the list is empty"),
        ("references=[{model: a/b, weight: 0.3}]", "references: the weights must add up to 1, got 0.3"),
        ("references=[model, {model: a/b, weight: 0.3}]", "references: give every reference a weight, or none"),
        ("runs={shared: [{method: dpo}]}", "runs.shared: a run cannot be called 'shared'"),
        ("runs={x: [{method: dpo}]}", "runs.x: two stages are called 'dpo'; give one of them a `name`"),
        ("data.train=./nothing.jsonl", "data.train: there is no file or folder './nothing.jsonl'"),
        ("data.eval=~/nothing-of-this-name", "data.eval: there is no file or folder"),
        ("model=./nothing", "model: there is no file or folder './nothing'"),
        ("references=[./nothing]", "references.0.model: there is no file or folder './nothing'"),
        ("data.format=prefrence", "data.format: no data format named 'prefrence' (did you mean 'preference'?)"),
        ("stages.0.method=reading_level", "reading_level is of kind 'scorer'; a stage trains an objective"),
        ("objectives={a: {scorer: lenth}}", "objectives.a: no scorer named 'lenth' (did you mean 'length'?)"),
        ("objectives={a: {scorer: length, options: {capp: 3}}}", "no option 'capp' (did you mean 'cap'?)"),
        ("objectives={a: {scorer: length, clip: [2, 1]}}", "objectives.a: clip is [low, high]"),
        ("objectives={reward: {scorer: length}}", "objectives.reward: an objective cannot be called 'reward'"),
        ("data.train=null", "data.train: expected a string, got None"),
        ("train.learning_rate=.nan", "train.learning_rate: expected a finite number, got nan"),
    ],
)
def test_an_override_that_does_not_fit_is_named(override, told):
    [line] = faults(plain(train={"epochs": 1}), override)
    assert told in line


def test_files_need_not_exist_where_only_the_recipe_is_checked():
    values = plain(model="./not-yet", data={"train": "not-yet.jsonl"})
    assert load_recipe(values, validate_files=False).model == "./not-yet"


def test_a_hub_id_is_not_taken_for_a_path():
    assert load_recipe(plain(model="org/model-v1.5", data={"train": "org/data"})).model == "org/model-v1.5"


def test_an_option_whose_value_its_method_refuses_is_a_fault_of_the_recipe(write):
    path = write(PLAIN.replace("lam: 5.0", "norm: media"))
    assert faults(path) == ["line 13: runs.upo_dpo.0.options: upo(norm='media') (did you mean 'mean'?)"]


def test_missing_keys_are_named():
    assert faults({"stages": [{}]}) == [
        "model: this key is required",
        "data: this key is required",
        "stages.0.method: this key is required",
    ]


def test_a_bundled_recipe_goes_by_its_name_and_a_file_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("quickstart") == bundled_recipes()["quickstart"]
    (tmp_path / "quickstart").write_text(PLAIN)
    assert find_recipe("quickstart").read_text() == PLAIN
    with pytest.raises(ConfigError, match=r"neither a file nor a bundled recipe \(did you mean 'quickstart'\?\)"):
        find_recipe("quickstar")
    with pytest.raises(ConfigError, match="is a folder"):
        find_recipe(tmp_path)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", bundled_recipes())
def test_every_bundled_recipe_is_valid(name, full):
    recipe = load_recipe(name, full=full and "full:" in find_recipe(name).read_text())
    assert recipe.run_plan()


def test_nothing_in_a_recipe_changes_after_it_was_made():
    recipe = load_recipe(plain())
    with pytest.raises(ValueError, match="frozen"):
        recipe.train.epochs = 3


def test_a_recipe_is_made_in_python_too():
    recipe = Recipe(name="mine", model="bundled", data={"train": "bundled:hh-harmless"}, stages=(Stage(method="dpo"),))
    assert recipe == load_recipe(plain(name="mine"))
