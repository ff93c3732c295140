"""What in a recipe does not fit is found before anything is trained, each planted fault by its own check."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data_files import COLUMNS, demonstrations, pairs, thumbs, without, write
from rich.console import Console
from transformers import get_cosine_schedule_with_warmup

from unipref.core.batch import Clock
from unipref.core.errors import ConfigError
from unipref.data import read_records
from unipref.engine import load_tokenizer
from unipref.objectives.schedules import gate
from unipref.recipes import load_recipe
from unipref.recipes._recipe_checks import RECIPE_CHECKS, LoadedModel, _opens, check_recipe, load
from unipref.recipes._run import RunData, read_data
from unipref.recipes.align import align
from unipref.recipes.doctor import DOCTOR, all_checks, examine_data, examine_recipe
from unipref.recipes.fit import check_data
from unipref.recipes.stage import stage_done


def recipe(**changes):
    """DPO on the bundled model, with `changes` of its keys."""
    values = {"model": "bundled", "data": {"train": "d.jsonl"}, "stages": [{"method": "dpo"}]}
    values["train"] = {"batch_size": 1, "learning_rate": 1e-4}
    return load_recipe({**values, **changes}, validate_files=False)


@pytest.fixture(scope="module")
def bundled():
    return load("bundled")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve pairs without rewards, ten to train on."""
    path = write(tmp_path_factory.mktemp("data") / "d.jsonl", without(pairs(), *_columns()))
    records, report = read_records(path)
    return RunData(records[:10], [], records[10:], {"train": report.to_dict()}, None, report)


def _columns():
    return [f"{side}_{name}" for name in COLUMNS for side in ("chosen", "rejected")]


@pytest.fixture
def ask(data, bundled):
    """A function (code, recipe, ...) -> its finding."""

    def one(code, recipe, *, data=data, model=bundled, **designer):
        fault = designer.pop("fault", "")
        if designer:
            report = {**data.report, "designer": {"train": {"responses": 20, "conflicts": [], **designer}}}
            data = replace(data, report=report)
        (found,) = [f for f in check_recipe(recipe, data, model, designer_fault=fault) if f.code == code]
        return found

    return one


def test_every_check_answers_once_in_the_order_of_reading(data, bundled):
    assert [finding.code for finding in check_recipe(recipe(), data, bundled)] == list(RECIPE_CHECKS)


def test_a_sound_recipe_has_no_error_and_only_the_warning_that_two_rows_prove_nothing(data, bundled):
    found = check_recipe(recipe(seeds=[0, 1]), data, bundled)
    assert [(f.code, f.level) for f in found if f.level in ("error", "warning", "note")] == [("eval-size", "warning")]


# ---- method and data ----


def test_what_a_method_lacks_is_said_in_the_words_that_align_stops_with_for_every_run(ask, data):
    lacking = recipe(stages=[], runs={"a": [{"method": "upo"}], "b": [{"method": "dpo"}], "c": [{"method": "sppo"}]})
    found = ask("method-needs", lacking)
    assert (found.level, found.n, found.of) == ("error", 2, 3)
    with pytest.raises(ConfigError) as stopped:
        check_data(lacking, data.train)
    assert str(stopped.value) in found.says
    assert "sppo needs" in found.says


@pytest.mark.parametrize(
    ("stage", "numbers"),
    [
        ({"method": "simpo", "options": {"beta": 0.1}}, ("0.1", "2")),  # DPO's scale for a mean per token
        ({"method": "dpo", "options": {"beta": 2.0}}, ("2", "0.1")),  # SimPO's for a sum
        ({"method": "dpo", "options": {"beta": 0.003}}, ("0.003", "0.1")),  # 1/33
        ({"method": "ipo", "options": {"tau": 4.0}}, ("4", "0.1")),
        ({"method": "upo", "options": {"base": "simpo", "base_options": {"beta": 0.1}}}, ("0.1", "2")),
        ({"method": "sdpo_stepwise", "options": {"base_options": {"beta": 50.0}}}, ("50", "0.1")),
    ],
)
def test_a_scale_of_another_kind_of_score_or_thirty_times_off_is_a_warning_with_both_numbers(ask, stage, numbers):
    found = ask("beta-scale", recipe(stages=[stage]))
    assert found.level == "warning"
    assert f"is {numbers[0]}, and" in found.says
    assert f"default is {numbers[1]}" in found.says


@pytest.mark.parametrize(
    "stage",
    [
        {"method": "dpo", "options": {"beta": 1.0}},
        {"method": "dpo", "options": {"beta": 0.004}},
        {"method": "simpo", "options": {"beta": 10.0}},
        {"method": "sppo", "options": {"beta": 0.001}},
        {"method": "upo", "options": {"base": "dpo", "base_options": {"beta": 0.5}}},
        {"method": "sft"},
    ],
)
def test_scales_that_papers_use_are_fine(ask, stage):
    assert ask("beta-scale", recipe(stages=[stage])).level == "fine"


@pytest.mark.parametrize(
    ("n_parameters", "rate", "lora", "level"),
    [
        (6_500_000, 1e-3, False, "fine"),
        (200_000_000, 5e-4, False, "warning"),
        (200_000_000, 5e-5, False, "fine"),
        (8_000_000_000, 5e-5, False, "warning"),
        (8_000_000_000, 5e-7, False, "fine"),
        (8_000_000_000, 5e-5, True, "fine"),
        (8_000_000_000, 5e-7, True, "warning"),
        (8_000_000_000, 1e-2, True, "warning"),
    ],
)
def test_a_learning_rate_is_judged_by_the_size_of_what_is_trained(ask, bundled, n_parameters, rate, lora, level):
    model = replace(bundled, facts=replace(bundled.facts, n_parameters=n_parameters))
    made = recipe(train={"learning_rate": rate}, model_options={"lora": {}} if lora else {})
    assert ask("learning-rate", made, model=model).level == level


def test_few_steps_and_a_batch_larger_than_the_data_are_warnings_that_count(ask):
    few = ask("steps", recipe(train={"batch_size": 4, "epochs": 2}))  # ceil(10 / 4) * 2
    assert few.level == "warning"
    assert "6 steps (10 records, batch 4)" in few.says
    large = ask("steps", recipe(train={"batch_size": 16, "epochs": 20}))
    assert large.says.startswith("the batch is larger than the data")
    assert ask("steps", recipe(train={"batch_size": 1})).level == "fine"


# ---- warm-ups, gates, intervals ----


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1, 0.3, 0.34, 0.5, 0.9, 1.0])
def test_a_gate_opens_where_the_schedule_itself_says(share):
    for total in range(1, 25):
        of_itself = [step for step in range(total) if gate(after_share=share)(Clock(step, total))]
        assert min(_opens(gate(after_share=share), total), total) == (of_itself or [total])[0], (share, total)


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup_steps": 10}, {"warmup_steps": 100}])
def test_a_gate_that_opens_when_the_run_is_over_is_an_error(ask, data, options):
    stage = {"method": "upo", "options": {"base": "dpo", **options}}
    assert ask("warm-up", recipe(stages=[{"method": "dpo"}])).level == "fine"
    found = ask("warm-up", recipe(stages=[stage]), data=_rewarded(data))
    assert found.level == "error"
    assert "the term 'advantage' opens after step" in found.says
    stage["options"]["warmup_steps"] = 9
    assert ask("warm-up", recipe(stages=[stage]), data=_rewarded(data)).level == "fine"


def _rewarded(data):
    rewarded = [
        replace(record, items=tuple(replace(item, columns={"reward": float(i)}) for i, item in enumerate(record.items)))
        for record in data.train
    ]
    return replace(data, train=rewarded)


def test_one_step_with_a_warm_up_trains_nothing_because_its_rate_is_zero(ask):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=math.ceil(0.1 * 1), num_training_steps=1)
    assert schedule.get_last_lr() == [0.0]
    found = ask("warm-up", recipe(train={"max_steps": 1}))
    assert found.level == "warning"  # and no error: a run of one step is a trial of the machinery
    assert "a learning rate of 0" in found.says
    assert ask("warm-up", recipe(train={"max_steps": 1, "warmup_share": 0.0})).level == "fine"
    assert ask("warm-up", recipe(train={"max_steps": 5, "warmup_share": 0.9})).level == "warning"


def test_evaluations_and_checkpoints_that_are_never_reached_are_named(ask):
    found = ask("intervals", recipe(train={"batch_size": 1, "save_steps": 11}))
    assert found.level == "warning"
    assert "save_steps is 11 and there are 10 steps" in found.says
    assert "eval_steps is 50" in ask("intervals", recipe(train={"batch_size": 1, "eval_steps": 50})).says
    assert ask("intervals", recipe(train={"batch_size": 1, "save_steps": 10, "eval_steps": 10})).level == "fine"


# ---- the model ----


def test_a_folder_without_weights_or_with_a_shard_missing_is_an_error_that_names_the_file(ask, small_model, tmp_path):
    bare = shutil.copytree(small_model, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    assert "model.safetensors is not there" in ask("model-loads", recipe(), model=load(str(bare))).says
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (bare / names["a"]).write_bytes(b"")
    (bare / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    found = ask("model-loads", recipe(), model=load(str(bare)))
    assert found.level == "error"
    assert names["b"] in found.says
    assert names["a"] not in found.says


def test_a_model_that_is_not_there_is_an_error_and_what_it_would_have_told_is_not_checked(ask):
    absent = load("/nowhere/at/all")
    assert ask("model-loads", recipe(), model=absent).level == "error"
    assert "/nowhere/at/all" in ask("model-loads", recipe(), model=absent).says
    for code in ("vocabulary", "positions", "learning-rate"):
        assert ask(code, recipe(), model=absent).level == "not_checked"


def test_a_token_without_an_embedding_is_an_error(ask, bundled):
    tokenizer = load_tokenizer("bundled")
    tokenizer.add_tokens(["<|new|>"])
    found = ask("vocabulary", recipe(), model=LoadedModel(bundled.facts, tokenizer))
    assert (found.level, found.n) == ("error", 1)


@pytest.mark.parametrize(
    ("max_length", "new", "level"), [(1024, 0, "fine"), (1025, 0, "error"), (1000, 24, "fine"), (1000, 25, "warning")]
)
def test_max_length_is_held_against_the_models_1024_positions(ask, max_length, new, level):
    sampling = {"prompts": 8, "max_new_tokens": new} if new else {"prompts": 0}
    made = recipe(data={"train": "d.jsonl", "max_length": max_length}, sampling=sampling)
    assert ask("positions", made).level == level


@pytest.mark.parametrize(
    ("targets", "level"),
    [
        ("all-linear", "fine"),
        (["q_proj", "v_proj"], "fine"),
        (["self_attn.q_proj"], "fine"),
        (["q_proj", "c_attn"], "warning"),
        (["c_attn"], "error"),
        (["embed_tokens", "lm_head"], "fine"),  # no part of all-linear, and adapted where they are named
        ("(", "error"),  # no regular expression
        (["proj"], "error"),  # an ending of the name, but no module
        (r".*\.layers\.0\..*q_proj", "fine"),
        (r"layers\.0\.q_proj", "error"),
    ],
)
def test_lora_targets_are_looked_up_in_the_model(ask, targets, level):
    made = recipe(model_options={"lora": {"target_modules": targets}})
    found = ask("lora-targets", made)
    assert found.level == level
    if level in ("warning", "error"):
        assert "q_proj" in found.advice  # what there is instead


def test_dropout_of_an_adapter_is_told_and_that_of_the_model_is_known_to_be_off(ask):
    assert ask("dropout", recipe(model_options={"lora": {"dropout": 0.05}})).level == "note"
    assert ask("dropout", recipe()).level == "fine"


def test_conversations_for_a_model_without_a_chat_template_are_an_error_and_the_rest_is_examined(small_model, tmp_path):
    bare = shutil.copytree(small_model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    said = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
    rows = [
        {"prompt": said("user", f"Question {i}?"), "chosen": said("assistant", a), "rejected": said("assistant", "No.")}
        for i, a in enumerate(["Yes.", "Yes, of course.", "Certainly.", "By all means."])
    ]
    path = write(tmp_path / "d.jsonl", rows)
    made = recipe(model=str(bare), data={"train": str(path), "eval_share": 0.5})
    assert [finding.code for finding in examine_recipe(made).errors] == ["chat-template"]


# ---- references ----


def test_a_reference_with_other_tokens_or_none_is_an_error(ask, small_model, tmp_path):
    other = shutil.copytree(small_model, tmp_path / "other")
    tokenizer = load_tokenizer("bundled")
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(other)
    found = ask("references", recipe(references=[str(other)]))
    assert found.level == "error"
    assert "another vocabulary (8,193 tokens, the model's 8,192)" in found.says
    missing = ask("references", recipe(references=["/nowhere/at/all"]))
    assert missing.level == "error"
    assert "/nowhere/at/all" in missing.says
    (other / "model.safetensors").unlink()
    assert "holds no weights" in ask("references", recipe(references=[str(other)])).says


def test_a_reference_that_is_not_the_start_is_worth_knowing_and_so_is_one_that_nothing_reads(ask, small_model):
    assert ask("references", recipe()).level == "fine"
    found = ask("references", recipe(references=[str(small_model)]))
    assert found.level == "note"
    assert "do not start at 0" in found.says
    unread = ask("references", recipe(references=[str(small_model)], stages=[{"method": "simpo"}]))
    assert unread.level == "note"
    assert "no method of this recipe reads a reference" in unread.says


# ---- designer objectives ----

UPO = {"stages": [{"method": "upo", "options": {"base": "dpo"}}], "objectives": {"detail": {"scorer": "length"}}}


def part(**changes):
    whole = {"missing": 0, "mean": 0.5, "deviation": 0.2, "low": 0.0, "high": 1.0, "agreement": [0.5, 0.4, 0.6]}
    return {**whole, **changes}


def test_a_reward_that_is_the_same_everywhere_is_an_error_for_a_method_that_learns_from_it(ask):
    same = {"detail": part(deviation=0.0), "reward": part(deviation=0.0)}
    assert ask("objective-scores", recipe(**UPO), parts=same).level == "error"
    watched = recipe(objectives=UPO["objectives"])
    assert ask("objective-scores", watched, parts=same).level == "warning"
    assert ask("objective-scores", recipe(**UPO), parts={"detail": part(), "reward": part()}).level == "fine"


def test_an_objective_that_scores_fewer_than_half_of_the_responses_is_named_with_its_share(ask):
    parts = {"detail": part(missing=15), "reward": part(missing=15)}
    found = ask("objective-scores", recipe(**UPO), parts=parts)
    assert found.level == "warning"
    assert "detail (75.0 % without)" in found.says


def test_an_objective_that_cannot_score_is_an_error_and_the_recipe_is_examined_all_the_same(tmp_path, ask):
    assert ask("objective-scores", recipe(**UPO), fault="objectives.detail: no score").says.endswith("no score")
    path = write(tmp_path / "d.jsonl", without(pairs(), *_columns()))
    objectives = {"r": {"scorer": "column", "options": {"column": "quality"}}}
    found = examine_recipe(recipe(data={"train": str(path), "eval_share": 0.4}, objectives=objectives))
    assert [f.code for f in found.errors] == ["objective-scores"]
    assert "no response has a value in the column 'quality'" in found.errors[0].says


def test_a_conflict_is_worth_knowing_and_its_interval_is_kept(ask):
    parts = {"detail": part(agreement=[0.3, 0.2, 0.4]), "reward": part()}
    words = "detail conflicts with the preferences: it wants higher values"
    found = ask("objective-conflict", recipe(**UPO), parts=parts, conflicts=[words])
    assert found.level == "note"
    assert found.value == (0.3, 0.2, 0.4)
    assert ask("objective-conflict", recipe(**UPO), parts=parts).level == "fine"


def test_objectives_that_no_method_reads_are_worth_knowing(ask):
    assert ask("objective-used", recipe(objectives=UPO["objectives"])).level == "note"
    assert ask("objective-used", recipe(**UPO)).level == "fine"
    assert ask("objective-used", recipe()).level == "not_checked"


# ---- evaluation ----


@pytest.mark.parametrize(("n", "points", "level"), [(24, 20, "warning"), (96, 10, "warning"), (97, 10, "fine")])
def test_the_width_of_an_interval_follows_from_the_held_out_conversations(ask, data, n, points, level):
    held = [replace(data.heldout[0], id=str(i), conversation=str(i)) for i in range(n)]
    found = ask("eval-size", recipe(), data=replace(data, heldout=held))
    assert found.level == level
    assert f"about ±{points} points" in found.says  # 1.96 sqrt(0.25 / n)


def test_held_out_rows_that_cannot_be_compared_are_a_warning(ask, data, tmp_path):
    records, _ = read_records(write(tmp_path / "d.jsonl", demonstrations()))
    found = ask("eval-size", recipe(), data=replace(data, heldout=records))
    assert found.level == "warning"
    assert "hold no comparison" in found.says


def test_training_rows_whose_conversation_is_evaluated_are_counted(tmp_path, bundled):
    rows = without(pairs(), *_columns())
    train, held = write(tmp_path / "train.jsonl", rows), write(tmp_path / "eval.jsonl", rows[:3])
    made = recipe(data={"train": str(train), "eval": str(held)})
    data = read_data(made, None, None)
    assert len(data.train) == 9
    (found,) = [f for f in check_recipe(made, data, bundled) if f.code == "eval-left-out"]
    assert (found.level, found.n, found.of) == ("warning", 3, 12)  # 25 %, above 5 %


# ---- the whole ----


def test_of_a_recipe_that_has_its_pairs_written_the_prompts_are_looked_at_and_the_rest_waits_for_align():
    label = {"scorer": "length"}
    made = recipe(data={"train": "bundled:review-openings", "limit": 12}, collect={"label": label}, **UPO)
    found = {finding.code: finding for finding in examine_recipe(made).findings}
    assert list(found) == list(all_checks())
    assert {found[code].level for code in ("rows-set-aside", "media", "eval-overlap", "learning-rate")} == {"fine"}
    for code in ("length-bias", "bos-twice", "method-needs", "steps", "warm-up", "objective-scores", "eval-size"):
        assert found[code].level == "not_checked", code
        assert "`unipref align` asks this then" in found[code].says


def test_a_code_to_accept_that_is_none_names_the_nearest(tmp_path):
    path = write(tmp_path / "d.jsonl", pairs())
    with pytest.raises(ConfigError, match=r"data\.accept: no check is called 'warmup' \(did you mean 'warm-up'\?\)"):
        examine_recipe(recipe(data={"train": str(path), "accept": ["warmup"]}))


@pytest.mark.parametrize(("method", "level"), [("sft", "note"), ("pmpo", "note"), ("kto", "error")])
def test_thumbs_of_one_kind_are_no_error_for_a_method_that_takes_them(tmp_path, method, level):
    path = write(tmp_path / "d.jsonl", [{**row, "label": True} for row in thumbs()])
    found = examine_recipe(recipe(data={"train": str(path), "eval_share": 0.5}, stages=[{"method": method}]))
    assert {finding.level for finding in found.findings if finding.code == "one-sided"} == {level}


def test_every_check_has_one_code_and_asks_a_question(tmp_path):
    assert all(question.endswith("?") and question[0].isupper() for question in all_checks().values())
    path = write(tmp_path / "d.jsonl", without(pairs(), *_columns()))
    found = examine_recipe(recipe(data={"train": str(path), "eval_share": 0.4}))
    assert [finding.code for finding in found.findings] == list(all_checks())


def test_the_documentation_lists_every_check_with_its_question_in_the_order_of_reading():
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([a-z-]+)` \| (.*\?) \|$", page, flags=re.MULTILINE)) == all_checks()


def test_the_readme_counts_the_checks_that_there_are():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"(\d+) checks of rows", readme) == [str(len(all_checks()))]


def test_without_a_model_the_questions_about_tokens_are_open_and_say_how_to_ask_them(tmp_path):
    path = write(tmp_path / "d.jsonl", without(pairs(), *_columns()))
    found = examine_data(path)
    of_tokens = [finding for finding in found.findings if "--model" in finding.says]
    assert {"bos-twice", "turn-end", "cut-responses"} <= {finding.code for finding in of_tokens}
    assert {finding.level for finding in of_tokens} == {"not_checked"}
    assert found.tokens == []
    with_model = examine_data(path, model="bundled")
    assert not [finding for finding in with_model.findings if "--model" in finding.says]
    assert with_model.tokens


def test_align_stops_on_an_error_with_the_ways_on_and_goes_on_where_it_is_accepted(small_model, tmp_path):
    path = write(tmp_path / "d.jsonl", pairs())
    values = {
        "name": "small",
        "model": str(small_model),
        "data": {"train": str(path), "max_length": 128, "eval_share": 0.4},
        "stages": [{"method": "upo", "options": {"base": "dpo", "warmup_steps": 9}}],
        "train": {"batch_size": 4, "precision": "float32", "epochs": 2},
        "sampling": {"prompts": 0},
    }
    folder = tmp_path / "run"
    with pytest.raises(ConfigError) as stopped:
        align(load_recipe(values), output=folder, console=Console(quiet=True))
    said = str(stopped.value)
    assert "warm-up: something would never be trained: upo: the term 'advantage' opens after step 9 of" in said
    assert "data: {accept: [warm-up]}" in said
    assert not (folder / "upo").exists()
    written = json.loads((folder / DOCTOR).read_text(encoding="utf-8"))
    assert written["counts"]["error"] == 1

    values["data"]["accept"] = ["warm-up"]
    with (tmp_path / "said").open("w", encoding="utf-8") as file:
        align(load_recipe(values), output=folder, console=Console(file=file, width=200))
    done = stage_done(folder / "upo" / "upo")
    written = json.loads((folder / DOCTOR).read_text(encoding="utf-8"))
    (finding,) = [one for one in written["findings"] if one["code"] == "warm-up"]
    assert f"after step 9 of {done['steps']}" in finding["says"]  # the doctor counts the steps that are then taken
    lines = (tmp_path / "said").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("accepted warm-up:") for line in lines)
    assert any(line.startswith("warning steps: fewer than 10") for line in lines)
    assert "finding-warm-up" in (folder / "report.html").read_text(encoding="utf-8")
