"""What `unipref sample` draws: the models of runs, the prompts, the scores."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import unipref.recipes.samples
from unipref.core.errors import ConfigError, DataError
from unipref.core.io import write_json, write_text
from unipref.engine import load_model, load_tokenizer
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.finished import REFERENCE, Contender, Found, find_models
from unipref.recipes.prompts import Prompt, heldout_prompts, prompt_ids, read_prompts
from unipref.recipes.samples import Draw, draw, summarise_samples
from unipref.sampling import Sample


def values(model, **changes):
    return {
        "name": "small",
        "model": str(model),
        "data": {"train": "bundled:hh-harmless", "limit": 8, "eval_limit": 12, "max_length": 160},
        "objectives": {
            "detail": {"scorer": "length", "weight": 1.0, "options": {"cap": 60}, "normalise": "zscore"},
            "easy": {"scorer": "reading_level", "weight": 0.5, "options": {"min_words": 4}},
        },
        "judges": {"words": {"scorer": "length", "options": {"cap": 20}}},
        "missing_rewards": "renormalise",
        "train": {"learning_rate": 3e-2, "batch_size": 8, "precision": "float32", "max_steps": 1, "warmup_share": 0.0},
        "stages": [{"method": "sft"}],
        "runs": {"dpo": [{"method": "dpo"}], "simpo": [{"method": "simpo"}]},
        "seeds": [3],
        "sampling": {"prompts": 5, "max_new_tokens": 10, "seed": 7},
        **changes,
    }


@pytest.fixture(scope="module")
def folder(small_model, tmp_path_factory):
    """A finished run with a shared stage and two methods."""
    return align(load_recipe(values(small_model)), output=tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def found(folder):
    return find_models([str(folder)])


@pytest.fixture(scope="module")
def drawn(found):
    """The rows of the recipe's own settings, and the notes."""
    sampling = found.sampling
    return draw(
        found, heldout_prompts(found.recipe, 5, found.folder), Draw(sampling.max_new_tokens, seeds=(sampling.seed,))
    )


def of(rows, model):
    return [row for row in rows if row["model"] == model]


def kept(folder, run):
    path = folder / "shared" / "reference.json" if run == REFERENCE else folder / run / "evaluation.json"
    return {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))["generations"]}


# ---- drawing ----


@pytest.mark.parametrize("run", [REFERENCE, "dpo", "simpo"])
def test_with_the_recipes_own_settings_responses_and_scores_are_those_of_the_evaluation(folder, drawn, run):
    known, mine = kept(folder, run), of(drawn[0], run)
    assert [row["id"] for row in mine] == list(known)
    for row in mine:
        for name in ("prompt", "text", "n_tokens", "stopped", "logp", "ref_logp"):
            assert row[name] == known[row["id"]][name], name
        assert row["log_ratio"] == row["logp"] - row["ref_logp"]
        assert row["aux"] == known[row["id"]]["aux"]  # normalised by what the run was fitted to


def test_rows_go_by_prompt_then_seed_then_model_and_before_comes_first(found):
    prompts = [Prompt("a", "Hello"), Prompt("b", "Why?")]
    rows, _ = draw(found, prompts, Draw(2, seeds=(5, 6), rewards=False))
    expected = [(i, s, m) for i in "ab" for s in (5, 6) for m in (REFERENCE, "dpo", "simpo")]
    assert [(row["id"], row["seed"], row["model"]) for row in rows] == expected
    assert "aux" not in rows[0]
    assert "logp" not in rows[0]


def test_training_moved_the_runs_and_before_has_log_ratio_zero(drawn):
    assert {row["log_ratio"] for row in of(drawn[0], REFERENCE)} == {0.0}
    assert all(row["log_ratio"] != 0 for row in of(drawn[0], "dpo"))


def test_the_drawn_tokens_are_scored_as_they_are_and_not_as_their_text_would_be_tokenised(found, monkeypatch):
    tokenizer = load_tokenizer(found.contenders[1].model)
    (word,) = tokenizer(" the")["input_ids"]
    letters = [i for char in " the" for i in tokenizer(char)["input_ids"]]
    assert tokenizer.decode(letters) == " the"
    assert letters != [word]
    monkeypatch.setattr(
        unipref.recipes.samples,
        "generate",
        lambda model, tokenizer, contexts, **_: [Sample(tuple(letters), " the", False) for _ in contexts],
    )
    prompt = Prompt("a", "Hello")
    rows, _ = draw(found, [prompt], Draw(10))
    _, context = prompt_ids(prompt, tokenizer, turns=True)
    for row, contender in zip(rows, found.contenders, strict=True):
        model = load_model(contender.model, dtype="float32")
        with torch.no_grad():
            logits = model(torch.tensor([context + letters])).logits[0].double()
        at = torch.arange(len(context) - 1, len(context) - 1 + len(letters))
        expected = logits.log_softmax(-1)[at, torch.tensor(letters)].sum().item()
        assert row["logp"] == pytest.approx(expected, abs=1e-4)  # float32 sums of four tokens at about -9 nats


def test_streamed_rows_are_the_rows_and_the_pieces_are_their_texts(found):
    said, ended = {}, []

    class Show:
        def piece(self, contender, prompt, seed, text):
            said[contender.name, prompt.id] = said.get((contender.name, prompt.id), "") + text

        def row(self, contender, prompt, seed, row):
            ended.append(row)

    prompts = [Prompt("a", "Hello"), Prompt("b", "Why?"), Prompt("c", "Hello")]
    rows, _ = draw(found, prompts, Draw(8), show=Show())
    plain, _ = draw(found, prompts, Draw(8))
    assert [row["text"] for row in rows] == [row["text"] for row in plain]
    assert all(said[row["model"], row["id"]] == row["text"] for row in rows)
    assert sorted(map(str, ended)) == sorted(map(str, rows))
    first, _, again = of(rows, "dpo")
    assert first["prompt"] == again["prompt"]
    assert first["text"] != again["text"]  # asked twice is answered twice


def test_a_model_beside_itself_writes_the_same_text(folder, small_model):
    base = Found((Contender("one", str(small_model), "model"), Contender("two", str(small_model), "model")))
    rows, _ = draw(base, read_prompts(["Hello", "Why?"]), Draw(8))
    assert [row["text"] for row in of(rows, "one")] == [row["text"] for row in of(rows, "two")]
    assert {row["log_ratio"] for row in rows} == {None}  # a model alone has no reference
    assert {len(row["aux"]) for row in rows} == {0}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_that_was_not_merged_is_drawn_from_and_compared_with_its_base(small_model, tmp_path):
    lora = {"r": 2, "target_modules": ["q_proj"], "merge": False}
    plain = values(small_model, stages=[], runs={"dpo": [{"method": "dpo"}]}, seeds=[0], objectives={}, judges={})
    recipe = load_recipe({**plain, "model_options": {"lora": lora}})
    run = tmp_path / "adapted"
    write_text(run / "recipe.yaml", yaml.safe_dump(recipe.resolved()))
    model = load_model(small_model, lora={"r": 2, "target_modules": ["q_proj"]})
    place = run / "dpo" / "dpo" / "model"
    model.save_pretrained(place)  # a fresh adapter is the identity
    load_tokenizer(small_model).save_pretrained(place)
    assert (place / "adapter_config.json").exists()
    assert not (place / "config.json").exists()
    prompts = read_prompts(["Hello", "Why?"])
    rows, _ = draw(find_models([str(run)]), prompts, Draw(8))
    assert [row["text"] for row in of(rows, REFERENCE)] == [row["text"] for row in of(rows, "dpo")]
    assert [row["log_ratio"] for row in of(rows, "dpo")] == [0.0, 0.0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(3.0)
    model.save_pretrained(place)
    rows, _ = draw(find_models([str(run)]), prompts, Draw(8))
    assert all(row["log_ratio"] != 0.0 for row in of(rows, "dpo"))


# ---- the models of a run ----


def placed(folder, recipe, *places):
    """A run folder with empty models at `places`."""
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe.resolved()))
    for place in places:
        write_text(folder / place / "model" / "config.json", "{}")
    return folder


def test_each_run_goes_with_what_it_started_from(folder):
    before, dpo, simpo = find_models([str(folder)]).contenders
    assert (before.name, before.role, dpo.role) == (REFERENCE, "before", "after")
    assert dpo.model == str(folder / "dpo" / "dpo" / "model")
    assert dpo.reference == simpo.reference == before.model
    assert folder / "shared" in Path(before.model).parents
    assert (Path(before.model) / "config.json").exists()


def test_of_several_training_seeds_the_first_or_the_one_that_is_asked_for_is_taken(tmp_path, small_model):
    plain = values(small_model, seeds=[3, 4], stages=[], runs={"dpo": [{"method": "dpo"}]})
    run = placed(tmp_path / "run", load_recipe(plain), "dpo/seed-3/dpo", "dpo/seed-4/dpo")
    for asked, seed in ((None, 3), (3, 3), (4, 4)):
        assert find_models([str(run)], seed=asked).contenders[1].model == str(run / f"dpo/seed-{seed}/dpo/model")
    with pytest.raises(ConfigError, match="was not trained with the seed 5; its training seeds: 3, 4"):
        find_models([str(run)], seed=5)


def test_a_lone_run_of_several_stages_is_compared_with_the_stage_before_its_last(tmp_path, small_model):
    plain = values(small_model, runs={}, seeds=[0], objectives={}, judges={})
    recipe = load_recipe({**plain, "stages": [{"method": "sft"}, {"method": "dpo"}]})
    run = placed(tmp_path / "run", recipe, "dpo/sft", "dpo/dpo")
    before, after = find_models([str(run)]).contenders
    assert before.model == str(run / "dpo" / "sft" / "model")
    assert after.model == str(run / "dpo" / "dpo" / "model")


def test_a_loop_is_compared_with_what_its_first_round_started_from(tmp_path, small_model):
    loop = {"method": "dpa", "name": "loop"}
    recipe = load_recipe(values(small_model, stages=[loop], runs={}, seeds=[0], objectives={}, judges={}))
    rounds = [stage.label for stage in recipe.run_plan()["dpa"]]
    assert len(rounds) > 1
    run = placed(tmp_path / "run", recipe, *(f"dpa/{label}" for label in rounds))
    before, after = find_models([str(run)]).contenders
    assert before.model == str(small_model)
    assert after.model == str(run / "dpa" / rounds[-1] / "model")


def comparison(tmp_path, small_model, **methods):
    recipe = load_recipe(values(small_model, runs={}, seeds=[0], stages=[{"method": "dpo"}], objectives={}, judges={}))
    run = placed(tmp_path / "compared", recipe, "dpo/lr-0.0001-seed-0")
    entries = {
        "dpo": {"state": "done", "learning_rate": 1e-4},
        "simpo": {"state": "done", "learning_rate": 3e-4},
        "ipo": {"state": "failed", "reason": "loss"},
    }
    write_json(run / "comparison.json", {"settings": {"seeds": [0]}, "methods": entries})
    return run


def test_a_comparison_gives_the_models_of_the_chosen_rates_that_it_kept(tmp_path, small_model):
    run = comparison(tmp_path, small_model)
    found = find_models([str(run)])
    assert [contender.name for contender in found.contenders] == [REFERENCE, "dpo"]
    assert found.contenders[1].model == str(run / "dpo" / "lr-0.0001-seed-0" / "model")
    assert found.contenders[0].model == str(small_model)
    assert found.notes == ("Left out, because no model of theirs is kept: simpo.",)
    with pytest.raises(ConfigError, match=r"simpo of .* has kept no model; .*--keep-models"):
        find_models([str(run)], runs=["simpo"])
    with pytest.raises(ConfigError, match="no run is called 'ipo'"):  # it failed, and has no model
        find_models([str(run)], runs=["ipo"])


def test_runs_of_several_folders_and_models_stand_side_by_side_under_names_of_their_own(folder, tmp_path, small_model):
    other = shutil.copytree(folder, tmp_path / "other")
    found = find_models([str(folder), str(other), str(small_model)], runs=["dpo"])
    names = [REFERENCE, "small/dpo", f"other/{REFERENCE}", "other/dpo", str(small_model)]
    assert [contender.name for contender in found.contenders] == names
    assert found.folder == folder
    with pytest.raises(ConfigError, match="called 'small/dpo'"):
        find_models([str(folder), str(folder)], runs=["dpo"])


def test_a_name_in_runs_is_enough(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(folder)
    assert [contender.name for contender in find_models(["mine"]).contenders] == [REFERENCE, "dpo", "simpo"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("quickstart", "no run in runs/quickstart yet; train it with: unipref align quickstart"),
        ("runs/nothing", "there is no run folder runs/nothing"),
        ("empty", "neither a run folder .* nor a model"),
        ("run/dpo/sft", "part of the run folder .*run; give that, and --runs dpo"),
    ],
)
def test_what_is_no_run_and_no_model_is_told_with_the_next_step(tmp_path, small_model, monkeypatch, target, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    plain = values(
        small_model, runs={}, stages=[{"method": "sft"}, {"method": "dpo"}], seeds=[0], objectives={}, judges={}
    )
    placed(tmp_path / "run", load_recipe(plain), "dpo/sft")
    with pytest.raises(ConfigError, match=words):
        find_models([target])
    with pytest.raises(ConfigError, match=r"dpo has no model in .*not finished, go on with: unipref align .* --resume"):
        find_models(["run"])
    placed(tmp_path / "two", load_recipe(values(small_model)), "simpo/simpo")
    with pytest.raises(ConfigError, match="did you mean 'simpo'"):
        find_models(["two"], runs=["simpoo"])


# ---- prompts ----


def test_prompts_come_from_text_files_tables_and_words(tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_bytes("\ufeffWhat is\u2028this?\r\n\n  こんにちは \n".encode())
    rows = tmp_path / "rows.jsonl"
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows.write_text(json.dumps({"prompt": "plain", "id": "x"}) + "\n\n" + json.dumps({"prompt": turns}) + "\n")
    prompts = read_prompts([str(lines), str(rows), "Is this a file.txt or not?"])
    assert [p.id for p in prompts] == ["lines.txt:1", "lines.txt:3", "x", "rows.jsonl:3", "prompt-5"]
    texts = [p.text for p in prompts]
    assert texts[:3] == ["What is\u2028this?", "  こんにちは ", "plain"]
    assert [(m.role, m.content) for m in texts[3]] == [("system", "Be brief."), ("user", "Hi")]
    assert texts[4] == "Is this a file.txt or not?"
    assert [p.id for p in read_prompts([str(lines)], limit=1)] == ["lines.txt:1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a"}\n{"question": "b"}\n', r"line 2: no prompt: its columns are question"),
        ('{"prompt": "a"}\n{broken\n', "line 2: "),
        ('{"prompt": []}\n', "line 1: no prompt"),
        ('{"prompt": 3}\n', "line 1: .*neither text nor messages"),
        ('{"prompt": [{"role": "assistant", "content": "Hi"}]}\n', "line 1: the prompt ends with an assistant's turn"),
    ],
)
def test_a_row_without_a_prompt_is_told_by_its_line(tmp_path, content, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_prompts([str(path)])


def test_a_file_that_is_not_there_an_empty_text_and_broken_bytes_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file 'prompts\.jsonl'"):
        read_prompts(["prompts.jsonl"])
    with pytest.raises(ConfigError, match="a prompt is empty"):
        read_prompts([" "])
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9\n".encode("latin-1"))
    with pytest.raises(DataError, match="byte 3 is not UTF-8"):
        read_prompts([str(path)])
    path.write_text("\n \n")
    with pytest.raises(DataError, match="holds no prompt"):
        read_prompts([str(path)])


def test_the_tokens_of_a_prompt_are_those_of_the_chat_template_or_of_plain_text_with_bos():
    tokenizer = load_tokenizer("bundled")
    context, ids = prompt_ids(Prompt("a", "Hi"), tokenizer, turns=True, system="Be kind.")
    said = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert ids == tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
    assert [(m.role, m.content) for m in context] == [("system", "Be kind."), ("user", "Hi")]
    context, ids = prompt_ids(Prompt("a", "Hi"), tokenizer, turns=False)
    assert context == "Hi"
    assert ids == tokenizer("Hi")["input_ids"]
    with pytest.raises(ConfigError, match="--system is a message, and this model is asked in plain text"):
        prompt_ids(Prompt("a", "Hi"), tokenizer, turns=False, system="Be kind.")


def test_the_data_decide_between_turns_and_plain_text_and_without_data_the_template_does(small_model, tmp_path):
    rows = [{"prompt": f"Question {i}: ", "chosen": "yes, surely", "rejected": "no"} for i in range(40)]
    path = tmp_path / "plain.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = values(small_model, data={"train": str(path)}, stages=[], seeds=[0], objectives={}, judges={})
    run = placed(tmp_path / "run", load_recipe(made), "dpo/dpo")
    shutil.copytree(small_model, run / "dpo" / "dpo" / "model", dirs_exist_ok=True)
    prompts = read_prompts(["Hello"])
    rows, notes = draw(find_models([str(run)], runs=["dpo"]), prompts, Draw(4))
    assert {row["prompt"] for row in rows} == {"Hello"}
    assert notes == ["Prompts are plain text that the model goes on from (as the training data are)."]
    rows, notes = draw(find_models([str(small_model)]), prompts, Draw(4))
    assert {row["prompt"] for row in rows} == {"User: Hello"}
    assert notes == ["Prompts are turns of a conversation in the model's chat template."]
    path.unlink()  # the data are gone: the template decides
    rows, _ = draw(find_models([str(run)], runs=["dpo"]), prompts, Draw(4))
    assert {row["prompt"] for row in rows} == {"User: Hello"}


def test_a_prompt_that_the_model_cannot_hold_is_told_with_its_place(small_model, tmp_path):
    path = tmp_path / "long.txt"
    path.write_text("short\n" + "word " * 505 + "\n")
    found = find_models([str(small_model)])  # 512 positions
    with pytest.raises(DataError, match=r"long\.txt, line 2: the prompt has \d+ tokens for .*, which holds 512"):
        draw(found, read_prompts([str(path)]), Draw(10))


# ---- means ----


def test_means_and_paired_differences_are_over_prompts_and_leave_missing_scores_out():
    def row(model, i, score, tokens):
        return {"id": f"p{i}", "model": model, "aux": {"easy": score}, "log_ratio": 0.5 * tokens, "n_tokens": tokens,
                "stopped": i > 1}  # fmt: skip

    rows = [row("reference", i, score, 4) for i, score in enumerate([0.1, 0.2, None, 0.4])]
    rows += [row("dpo", i, score, 6) for i, score in enumerate([0.3, None, 0.9, 0.5])]
    contenders = (Contender("reference", "m", "before", "m"), Contender("dpo", "d", "after", "m"))
    found = summarise_samples(SimpleNamespace(contenders=contenders), rows)
    assert found["metrics"] == ["aux.easy", "log_ratio", "n_tokens", "stopped"]
    before, after = found["models"]["reference"], found["models"]["dpo"]
    assert (before["aux.easy"]["n"], after["aux.easy"]["n"], after["n_tokens"]["n"]) == (3, 3, 4)
    assert before["aux.easy"]["value"][0] == pytest.approx((0.1 + 0.2 + 0.4) / 3)
    assert after["log_ratio"]["value"][0] == 3.0
    assert after["stopped"]["value"][0] == 0.5
    differences = {entry["metric"]: entry for entry in found["differences"]}
    assert list(differences) == ["aux.easy", "n_tokens", "stopped"]
    assert differences["aux.easy"]["n"] == 2  # prompts 0 and 3 have both scores
    assert differences["aux.easy"]["value"][0] == pytest.approx((0.3 - 0.1 + 0.5 - 0.4) / 2)
    assert math.isclose(differences["n_tokens"]["value"][0], 2.0)
