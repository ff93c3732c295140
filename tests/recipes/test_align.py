"""The main job end to end, on a handful of real rows and a model of a few thousand weights."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM, TrainerCallback

from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.data import read_records, split_records
from unipref.engine import load_tokenizer
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.stage import Interrupted

TWO_RANKS = str(Path(__file__).parents[1] / "two_ranks.py")
DATA = {"train": "bundled:hh-harmless", "limit": 24, "eval_limit": 12, "max_length": 160}


def recipe(model, **changes):
    values = {
        "name": "small",
        "model": str(model),
        "data": DATA,
        "objectives": {
            "reading_level": {"scorer": "reading_level", "weight": 0.5},
            "detail": {"scorer": "length", "weight": 0.5, "options": {"cap": 60}},
        },
        "missing_rewards": "renormalise",
        "train": {"learning_rate": 1e-3, "batch_size": 8, "precision": "float32", "logging_steps": 1},
        "runs": {
            "dpo": [{"method": "dpo"}],
            "upo_dpo": [{"method": "upo", "options": {"base": "dpo"}}],
        },
        "controls": {"upo_dpo": "dpo"},
        "sampling": {"prompts": 8, "max_new_tokens": 8},
    }
    return load_recipe({**values, **changes})


@pytest.fixture(scope="module")
def whole(small_model, tmp_path_factory):
    """A run with a shared stage, two methods and two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    stages = [{"method": "sft", "train": {"epochs": 1}}]
    made = recipe(small_model, stages=stages, seeds=[0, 1])
    return made, align(made, output=folder)


def read(folder, name="summary.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_the_summary_holds_every_number_that_was_promised(whole):
    _, folder = whole
    summary = read(folder)
    assert list(summary["runs"]) == ["dpo", "upo_dpo"]
    for run in summary["runs"].values():
        for name in ("accuracy", "ranking_accuracy", "kl"):
            value, low, high = run[name]
            assert low <= value <= high, name
        assert 1 <= run["length"][0] <= 8
        assert run["seconds"] > 0
        assert run["seeds"] == [0, 1]
        for name in ("reading_level", "detail"):
            assert len(run["aux"][name]["heldout"]) == 3
        assert set(run["drift"]) == {"chosen", "rejected"}
    assert {d["metric"] for d in summary["differences"]} >= {"accuracy", "kl", "length", "aux.detail.generations"}
    assert summary["runs"]["upo_dpo"]["diagnostics"]["gradient_ratio"] > 0
    assert [found["seed"] for found in summary["runs"]["dpo"]["dynamics"]] == [0, 1]
    assert summary["data"]["split"]["train"] == 24


def test_the_models_load_as_transformers_models_with_their_chat_template(whole):
    _, folder = whole
    for path in (folder / "dpo" / "seed-1" / "dpo" / "model", *folder.glob("shared/sft-*/model")):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": "hello"}], add_generation_prompt=True, return_tensors="pt"
        )["input_ids"]
        assert torch.isfinite(model(ids).logits).all()
    assert len(list(folder.glob("shared/sft-*"))) == 2  # once per seed, not once per run


def test_the_shared_stage_is_the_reference_of_every_run(whole):
    _, folder = whole
    evaluation = read(folder / "dpo" / "seed-0", "evaluation.json")
    reference = read(folder / "shared", "reference.json")
    found = {row["id"]: row["ref_logp_chosen"] for row in evaluation["pairs"]}
    assert found == pytest.approx({row["id"]: row["logp_chosen"] for row in reference["pairs"]}, rel=1e-5)


def test_no_heldout_conversation_is_among_the_training_records(whole):
    made, folder = whole
    records, _ = read_records("bundled:hh-harmless")
    train, heldout = split_records(records, share=made.data.eval_share)
    outside = {record.conversation for record in heldout}
    assert outside.isdisjoint(record.conversation for record in train)
    pairs = read(folder / "dpo" / "seed-0", "evaluation.json")["pairs"]
    assert {row["conversation"] for row in pairs} <= outside


def test_a_finished_run_is_resumed_without_training_again_and_gives_the_same_numbers(whole):
    made, folder = whole
    before = read(folder)
    weights = folder / "upo_dpo" / "seed-0" / "upo" / "model" / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    align(made, output=folder, resume=True)
    after = read(folder)
    assert weights.stat().st_mtime_ns == stamp
    assert after["runs"] == before["runs"]
    assert after["differences"] == before["differences"]


def test_another_recipe_does_not_resume_a_run(whole, small_model):
    _, folder = whole
    with pytest.raises(ConfigError, match="not the recipe that was given"):
        align(recipe(small_model), output=folder, resume=True)


def test_a_run_that_stands_already_is_kept_beside_the_new_one(small_model, tmp_path):
    made = recipe(small_model, runs={"dpo": [{"method": "dpo"}]}, controls={}, sampling={"prompts": 0})
    folder = tmp_path / "runs" / "small"
    align(made, output=folder)
    first = (folder / "summary.json").read_text()
    align(made, output=folder)
    assert (tmp_path / "runs" / "small.previous" / "summary.json").read_text() == first
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="not a run folder"):
        align(made, output=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_a_run_that_was_stopped_resumes_to_the_model_of_a_run_that_was_not(small_model, tmp_path, monkeypatch):
    made = recipe(
        small_model,
        runs={"upo": [{"method": "upo", "options": {"base": "kto"}}]},
        controls={},
        sampling={"prompts": 0},
    )
    align(made, output=tmp_path / "whole")
    from unipref.recipes import stage

    class StopsAtTwo(stage.StopOnSignal):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 1:
                self._handle(2, None)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "StopOnSignal", StopsAtTwo)
        with pytest.raises(Interrupted, match="step 2 of 3"):
            align(made, output=tmp_path / "cut")
    align(made, output=tmp_path / "cut", resume=True)
    weights = [
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "upo" / "upo" / "model").state_dict()
        for name in ("whole", "cut")
    ]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
    losses = [
        [row["loss"] for row in read_jsonl(tmp_path / name / "upo" / "upo" / "metrics.jsonl") if "loss" in row]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


@pytest.mark.parametrize("merge", [True, False])
def test_lora_is_written_merged_or_as_an_adapter(small_model, tmp_path, merge):
    made = recipe(
        small_model,
        model_options={"lora": {"r": 2, "alpha": 4.0, "merge": merge}},
        runs={"dpo": [{"method": "dpo"}]},
        controls={},
        sampling={"prompts": 4, "max_new_tokens": 4},
    )
    folder = align(made, output=tmp_path / "lora") / "dpo" / "dpo" / "model"
    assert (folder / "adapter_config.json").exists() is not merge
    loaded = AutoModelForCausalLM.from_pretrained(folder)  # transformers loads an adapter folder onto its base
    base = AutoModelForCausalLM.from_pretrained(small_model)
    ids = torch.tensor([[5, 6, 7, 8]])
    assert not torch.equal(loaded(ids).logits, base(ids).logits)
    rows = list(read_jsonl(folder.parent / "metrics.jsonl"))
    assert rows[0]["loss"] == pytest.approx(math.log(2), rel=1e-4)


def test_two_references_are_mixed_geometrically(small_model, tmp_path):
    from unipref.recipes import stage

    seen = []

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            dataloader = kwargs["train_dataloader"]
            seen.extend(dataloader.dataset)

    original = stage.StopOnSignal

    class Both(original, Look):
        def on_train_begin(self, *args, **kwargs):
            original.on_train_begin(self, *args, **kwargs)
            Look.on_train_begin(self, *args, **kwargs)

    made = recipe(
        small_model,
        references=[{"model": "model", "weight": 0.25}, {"model": "bundled", "weight": 0.75}],
        runs={"dpo": [{"method": "dpo", "train": {"max_steps": 1}}]},
        controls={},
        sampling={"prompts": 0},
    )
    stage.StopOnSignal = Both
    try:
        align(made, output=tmp_path / "two")
    finally:
        stage.StopOnSignal = original
    from unipref.engine import Policy, load_model, score

    tries = [example.trie for example in seen[:3]]
    parts = [score(Policy(load_model(name, dtype="float32")), tries) for name in (str(small_model), "bundled")]
    for example, one, other in zip(seen, *parts, strict=False):
        for mixed, a, b in zip(example.ref_logp["ref_logp"], one, other, strict=True):
            assert mixed == pytest.approx(0.25 * a + 0.75 * b, rel=1e-3, abs=1e-3)


def test_a_gate_that_never_opens_is_an_error_in_the_summary(small_model, tmp_path):
    made = recipe(
        small_model,
        runs={"upo": [{"method": "upo", "options": {"base": "dpo", "warmup_steps": 100}}]},
        controls={},
        sampling={"prompts": 0},
        data={**DATA, "accept": ["warm-up"]},
    )
    summary = read(align(made, output=tmp_path / "closed"))
    assert [(a["level"], a["code"]) for a in summary["runs"]["upo"]["alarms"]] == [("error", "gate_closed")]


def test_a_model_that_tries_do_not_fit_trains_row_by_row_and_the_console_says_why(tmp_path):
    """A state-space model carries its state from token to token, so no mask can keep two responses apart."""
    tokenizer = load_tokenizer("bundled")
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {"vocab_size": len(tokenizer), "hidden_size": 16, "state_size": 4, "num_hidden_layers": 1, **ends}
    MambaForCausalLM(MambaConfig(**shape)).save_pretrained(tmp_path / "mamba")
    tokenizer.save_pretrained(tmp_path / "mamba")
    made = recipe(
        tmp_path / "mamba", runs={"dpo": [{"method": "dpo"}]}, objectives={}, controls={}, sampling={"prompts": 0}
    )
    console = Console(file=io.StringIO(), width=400)
    folder = align(made, output=tmp_path / "run", console=console)
    done = read(folder / "dpo" / "dpo", "done.json")
    assert done["path"] == "rows"
    assert (
        f"dpo computes every response as a row of its own, its prompt again each time: {done['path_reason']}. "
        "The result is the same, and takes longer."
    ) in console.file.getvalue()


def test_checkpoints_are_chosen_on_rows_that_no_number_is_taken_from(small_model, tmp_path):
    made = recipe(
        small_model,
        data={"train": "bundled:hh-harmless", "limit": 60, "eval_limit": 12, "max_length": 160},
        train={"batch_size": 8, "learning_rate": 1e-3, "eval_steps": 2, "keep_best": "eval_loss"},
        runs={"dpo": [{"method": "dpo"}]},
        controls={},
        sampling={"prompts": 0},
    )
    folder = align(made, output=tmp_path / "best")
    split = read(folder)["data"]["split"]
    assert split["train"] + split["validation"] == 60
    assert split["validation"] > 0
    done = read(folder / "dpo" / "dpo", "done.json")
    evaluated = {
        row["step"]: row["eval_loss"]
        for row in read_jsonl(folder / "dpo" / "dpo" / "metrics.jsonl")
        if "eval_loss" in row
    }
    assert done["best_step"] == min(evaluated, key=evaluated.get)


def test_where_nothing_is_compared_the_best_checkpoint_is_that_of_the_least_loss(small_model, tmp_path):
    changes = {"controls": {}, "objectives": {}, "sampling": {"prompts": 0}, "runs": {"sft": [{"method": "sft"}]}}
    train = {"batch_size": 4, "learning_rate": 1e-3, "eval_steps": 2}
    folder = align(recipe(small_model, train=train, **changes), output=tmp_path / "sft")
    rows = read_jsonl(folder / "sft" / "sft" / "metrics.jsonl")
    losses = {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}
    assert read(folder / "sft" / "sft", "done.json")["best_step"] == min(losses, key=losses.get)
    with pytest.raises(ConfigError, match=r"train.keep_best: eval_rewards/margins is not measured here; .*eval_loss"):
        align(
            recipe(small_model, train={**train, "keep_best": "eval_rewards/margins"}, **changes), output=tmp_path / "no"
        )


def test_unpaired_thumbs_and_rated_lists_train_and_are_judged_where_they_compare(small_model, tmp_path):
    records, _ = read_records("bundled:hh-harmless")
    thumbs, lists = [], []
    for record in records[:60]:
        prompt = [{"role": m.role, "content": m.content} for m in record.items[0].context]
        answers = [item.response[0].content for item in record.items]
        thumbs += [
            {"prompt": prompt, "completion": [{"role": "assistant", "content": text}], "label": label}
            for text, label in zip(answers, (True, False), strict=True)
        ]
        texts = [m.content for m in record.items[0].context]
        lists.append({"prompt": texts[0], "responses": [*answers, "I do not know."], "scores": [2.0, 1.0, 0.5]})
    for name, rows, method in (("thumbs", thumbs, "kto"), ("lists", lists, "dpo")):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        made = recipe(
            small_model,
            data={"train": str(tmp_path / f"{name}.jsonl"), "max_length": 160},
            objectives={},
            runs={method: [{"method": method, "train": {"max_steps": 2}}]},
            controls={},
            sampling={"prompts": 4, "max_new_tokens": 4},
        )
        folder = align(made, output=tmp_path / name)
        run = read(folder)["runs"][method]
        assert run["n"]["pairs"] > 0
        assert 0 <= run["accuracy"][0] <= 1
    assert read(folder / "dpo" / "dpo", "done.json")["data"]["as_pairs"]["changed"]


def test_two_processes_align_as_one(small_model, tmp_path):
    made = recipe(
        small_model,
        runs={"upo": [{"method": "upo", "options": {"base": "kto"}}]},
        controls={},
        sampling={"prompts": 0},
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(made.resolved()))
    align(made, output=tmp_path / "one")
    done = subprocess.run(
        [sys.executable, TWO_RANKS, "unipref.cli", "align", str(path), "--output", str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report:") == 1
    found = (read_jsonl(tmp_path / name / "upo" / "upo" / "metrics.jsonl") for name in ("one", "two"))
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in found]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(losses[0]) == 3


@pytest.mark.parametrize(
    ("tracker", "words"), [("tensorbord", "did you mean 'tensorboard'"), ("neptune", "not installed")]
)
def test_a_tracker_that_is_not_there_is_named_before_anything_is_written(small_model, tmp_path, tracker, words):
    made = recipe(small_model, train={"report_to": tracker})
    with pytest.raises(ConfigError, match=words):
        align(made, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
