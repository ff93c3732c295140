"""Loops end to end: every round starts from, and is compared with, the model of the round before."""

import io
import itertools
import json
import math
import shutil

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.core.records import Comparison, Item, Record
from unipref.data import read_records
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.stage import _prepared_validation

ALPHA = 0.5
OF_LAW = {"domains": ["law"], "base": "dpo"}


def recipe(model, **changes):
    values = {
        "name": "rounds",
        "model": str(model),
        "data": {"train": "bundled:hh-harmless", "limit": 48, "eval_limit": 8, "max_length": 128},
        "train": {"learning_rate": 1e-2, "batch_size": 8, "precision": "float32", "logging_steps": 1},
        "runs": {
            "momentum": [{"method": "apo_momentum", "options": {"rounds": 2, "alpha": ALPHA}}],
            "stepwise": [{"method": "sdpo_stepwise", "options": {"parts": 2}}],
        },
        "sampling": {"prompts": 0},
    }
    return load_recipe({**values, **changes})


@pytest.fixture(scope="module")
def whole(small_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "rounds"
    told = io.StringIO()
    align(recipe(small_model), output=folder, console=Console(file=told, width=10_000))
    return folder, told.getvalue()


def weights(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    return {name: value.detach() for name, value in model.named_parameters()}


def losses(folder):
    return [row["loss"] for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


@pytest.mark.parametrize("stage", ["momentum/apo_momentum", "stepwise/sdpo_stepwise"])
def test_every_round_begins_at_log_2(whole, stage):
    folder, _ = whole
    for number in (1, 2):
        first, *_, last = losses(folder / f"{stage}-{number}")
        assert first == pytest.approx(math.log(2), abs=1e-5)  # float32, of responses of some hundred nats
        assert abs(last - math.log(2)) > 1e-3  # it moved: an old reference would show in the next round's first


def test_a_round_goes_on_past_its_end_from_where_the_round_before_ended_in_training(whole, small_model):
    folder, _ = whole
    one, two = (folder / "momentum" / f"apo_momentum-{number}" for number in (1, 2))
    way = [weights(small_model), weights(one / "trained"), weights(two / "trained")]
    for (before, now), stage in zip(itertools.pairwise(way), (one, two), strict=True):
        moved = weights(stage / "model")
        for name, value in moved.items():
            assert torch.allclose(value, now[name] + ALPHA * (now[name] - before[name]), atol=1e-7), name
        assert any(not torch.equal(value, now[name]) for name, value in moved.items())


def test_the_parts_of_stepwise_dpo_share_out_the_records(whole):
    folder, _ = whole
    for number in (1, 2):
        done = json.loads((folder / "stepwise" / f"sdpo_stepwise-{number}" / "done.json").read_text())
        (report,) = [report for name, report in done["data"].items() if "chunk" in name]
        assert (report["n_read"], report["n_kept"]) == (48, 24)
        assert done["steps"] == 3


def test_a_loop_that_would_collect_says_that_it_trains_on_the_data_at_hand(whole):
    folder, told = whole
    sentence = "apo_momentum as published collects pairs of responses from the last round's model"
    assert told.count(sentence) == 1
    assert sentence in (folder / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")
    assert "sdpo_stepwise as published" not in told


def test_a_loop_resumed_between_its_rounds_ends_where_it_would_have(whole, small_model, tmp_path):
    folder, _ = whole
    again = tmp_path / "rounds"
    shutil.copytree(folder, again)
    shutil.rmtree(again / "momentum" / "apo_momentum-2")
    (again / "momentum" / "evaluation.json").unlink()
    align(recipe(small_model), output=again, resume=True)
    stage = ("momentum", "apo_momentum-2", "model")
    one, other = (weights(place.joinpath(*stage)) for place in (folder, again))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def of_two_domains(tmp_path):
    records, _ = read_records("bundled:hh-harmless")
    rows = [
        {
            "prompt": f"{record.items[0].context[0].content} ({k})",
            "chosen": record.items[0].response[0].content,
            "rejected": record.items[1].response[0].content,
            "domain": ("law", "art")[k % 2],
        }
        for k, record in enumerate(records[:40])
    ]
    path = tmp_path / "domains.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_models_of_all_domains_are_merged_with_weights_that_no_move_improves(small_model, tmp_path):
    options = {"domains": ["law", "art"], "replay": 8, "base": "dpo"}
    made = recipe(
        small_model,
        data={"train": of_two_domains(tmp_path), "max_length": 128},
        runs={"across": [{"method": "cofs_dpo", "options": options}]},
    )
    folder = align(made, output=tmp_path / "merged") / "across"
    places = [folder / f"cofs_dpo-{number}" for number in (1, 2, 3)]
    done = json.loads((places[2] / "done.json").read_text())
    tried = list(read_jsonl(places[2] / "metrics.jsonl"))
    assert tried[0]["weights"] == [0.5, 0.5]
    assert min(tried, key=lambda row: row["loss"])["weights"] == done["weights"]
    one, other, merged = (weights(place / "model") for place in places)
    assert any(not torch.equal(value, other[name]) for name, value in one.items())
    a, b = done["weights"]
    assert all(torch.allclose(value, a * one[n] + b * other[n], atol=1e-7) for n, value in merged.items())
    (kept,) = [report for name, report in done["data"].items() if "replayed" in name]
    assert kept["n_kept"] == 16
    align(made, output=tmp_path / "merged", resume=True)
    assert json.loads((places[2] / "done.json").read_text()) == done


def test_the_chase_needs_a_partner_and_takes_a_named_reference(small_model):
    runs = {"runs": {"across": [{"method": "cofs_dpo", "options": {"domains": ["law"]}}]}}
    with pytest.raises(ConfigError, match=r"needs a further reference, ref_logp\.partner"):
        recipe(small_model, **runs)
    (stage,) = recipe(
        small_model, references=["model", {"model": str(small_model), "name": "partner"}], **runs
    ).run_plan()["across"]
    assert stage.label == "cofs_dpo"  # one domain is its round alone


def test_a_loop_that_is_the_one_run_is_judged_against_what_its_first_round_started_from(whole, small_model, tmp_path):
    options = {"rounds": 2, "alpha": ALPHA}
    made = recipe(small_model, runs={}, stages=[{"method": "apo_momentum", "options": options}])
    folder = align(made, output=tmp_path / "alone")
    alone, other = (place / "apo_momentum-2" / "model" for place in (folder / "apo_momentum", whole[0] / "momentum"))
    one, two = weights(alone), weights(other)
    assert all(torch.equal(value, two[name]) for name, value in one.items())  # momentum knows the round before
    found = json.loads((folder / "shared" / "reference.json").read_text())
    assert found == json.loads((whole[0] / "shared" / "reference.json").read_text())


def test_momentum_moves_the_merged_weights_where_adapters_were_trained(small_model, tmp_path):
    options = {"rounds": 2, "alpha": ALPHA}
    made = recipe(
        small_model,
        model_options={"lora": {"r": 2, "alpha": 4.0}},
        runs={"adapters": [{"method": "apo_momentum", "options": options}]},
    )
    folder = align(made, output=tmp_path / "lora") / "adapters"
    one, two = (folder / f"apo_momentum-{number}" for number in (1, 2))
    way = [weights(small_model), weights(one / "trained"), weights(two / "trained")]
    for (before, now), stage in zip(itertools.pairwise(way), (one, two), strict=True):
        assert any(not torch.equal(value, before[name]) for name, value in now.items())
        for name, value in weights(stage / "model").items():
            assert torch.allclose(value, now[name] + ALPHA * (now[name] - before[name]), atol=1e-6), name
        assert losses(stage)[0] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    "stages",
    [
        [{"method": "sdpo_stepwise"}],
        [{"method": "sft"}, {"method": "dpo"}],
        [{"method": "apo_momentum", "options": {"rounds": 1}}],
    ],
)
def test_adapters_that_stay_apart_are_refused_where_a_further_stage_or_momentum_needs_whole_weights(stages):
    lora = {"model_options": {"lora": {"merge": False}}, "runs": {"several": stages}}
    with pytest.raises(ConfigError, match=r"model_options\.lora\.merge: several has .*; set merge: true"):
        recipe("bundled", **lora)


def test_a_round_whose_part_of_the_validation_rows_is_empty_trains_without(small_model, tmp_path):
    made = recipe(
        small_model,
        data={"train": of_two_domains(tmp_path), "limit": 24, "max_length": 128},
        train={"batch_size": 8, "precision": "float32", "eval_steps": 1, "keep_best": "eval_loss"},
        runs={"alone": [{"method": "sdpo_stepwise", "options": {"parts": 3}}]},
    )
    folder = align(made, output=tmp_path / "few")
    split = json.loads((folder / "summary.json").read_text())["data"]["split"]
    assert 0 < split["validation"] < 3
    done = [json.loads((folder / "alone" / f"sdpo_stepwise-{k}" / "done.json").read_text()) for k in (1, 2, 3)]
    kept = [each["data"]["validation"]["n_kept"] for each in done]
    assert sum(kept) == split["validation"]
    assert done[kept.index(0)]["best_step"] is None
    assert all(each["best_step"] is not None for each, n in zip(done, kept, strict=True) if n)


def test_validation_rows_that_lack_what_a_round_is_made_of_leave_it_without_and_say_so():
    (one, *_) = recipe("bundled", runs={"r": [{"method": "cofs_dpo", "options": OF_LAW}]}).run_plan()["r"]
    rows = [Record("1", (Item("q", "a"), Item("q", "b")), (Comparison(0, 1),), domain="art")]
    found, report = _prepared_validation(one, rows)
    assert found == []
    assert report.notes == ["Not validated: no record is of the domain 'law' (known: art); name it in column `domain`."]
    assert (report.n_read, report.n_kept, sum(report.left_out.values())) == (1, 0, 1)
