"""Methods on equal terms, on a handful of real rows and a model of a few thousand weights."""

import json
import math

import pytest
import torch
from rich.console import Console

from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.data import read_records, split_records
from unipref.evaluate import selection_scores
from unipref.recipes import compare as comparing
from unipref.recipes import load_recipe
from unipref.recipes.align import align
from unipref.recipes.compare import compare, parse_methods
from unipref.training import NonFiniteLossError

RATES = (1e-3, 1e-2)
TRAIN = {"learning_rate": 3e-3, "batch_size": 8, "precision": "float32", "logging_steps": 1}


def recipe(model, **changes):
    values = {
        "name": "small",
        "model": str(model),
        "data": {"train": "bundled:hh-harmless", "limit": 40, "eval_limit": 16, "max_length": 128},
        "train": TRAIN,
        "runs": {"dpo": [{"method": "dpo"}]},
        "sampling": {"prompts": 4, "max_new_tokens": 4},
    }
    return load_recipe({**values, **changes})


def quiet(made, methods, folder, **options):
    return compare(made, parse_methods(methods), output=folder, console=Console(quiet=True), **options)


def read(folder, name="comparison.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def trained(monkeypatch):
    """The places of the stages that were trained, in order."""
    places = []
    original = comparing.run_stages

    def run_stages(recipe, stages, where, **options):
        places.extend(where)
        return original(recipe, stages, where, **options)

    monkeypatch.setattr(comparing, "run_stages", run_stages)
    return places


@pytest.fixture(scope="module")
def whole(small_model, tmp_path_factory):
    """Three methods after a shared stage, two rates, two seeds."""
    folder = tmp_path_factory.mktemp("runs") / "small-compare"
    made = recipe(small_model, stages=[{"method": "sft", "train": {"learning_rate": 1e-2}}])
    quiet(made, "dpo:beta=0.5,simpo,kto", folder, learning_rates=RATES, seeds=[0, 1], command="unipref compare x")
    return made, folder


# ---- what is asked for ----


def test_methods_are_written_with_options_and_rates():
    one, other, third = parse_methods("dpo:beta=0.3, upo@1e-6/3e-6:base=kto;lam=0.5 ,sft")
    assert (one.name, one.stage.method, one.stage.options, one.rates) == ("dpo-beta-0.3", "dpo", {"beta": 0.3}, ())
    assert (other.stage.options, other.rates) == ({"base": "kto", "lam": 0.5}, (1e-6, 3e-6))
    assert third.name == "sft"


def test_all_is_every_objective_and_does_not_repeat_one_that_is_named():
    methods = parse_methods("simpo,all")
    keys = [method.stage.method for method in methods]
    assert keys[0] == "simpo"
    assert keys.count("simpo") == 1
    assert {"dpo", "kto", "ipo", "orpo"} <= set(keys)
    assert [method.named for method in methods[:2]] == [True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dpo,simp", "no method named 'simp' .did you mean 'simpo'"),
        ("dpo:bta=1", "dpo has no option 'bta' .did you mean 'beta'"),
        ("dpo:beta", "expected option=value, got 'beta'"),
        ("ipo:tau=[1", "not YAML"),
        ("upo:base=dop", "upo:base=dop: no method named 'dop'"),
        ("dpo@fast", "positive numbers parted by /, got 'fast'"),
        ("dpo@-1e-6", "positive numbers"),
        ("dpo,dpo", "names dpo twice"),
        (" , ", "names none"),
        ("length", "trains an objective"),
    ],
)
def test_a_fault_in_the_list_of_methods_is_named(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_methods(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"select": "acuracy"}, "did you mean 'accuracy'"),
        ({"baseline": "dop"}, "did you mean 'dpo'"),
        ({"seeds": [1, 1]}, "stands twice"),
        ({"learning_rates": [0.0, 1e-3]}, "positive numbers"),
        ({"validation_share": 1e-9}, "raise --validation-share"),
    ],
)
def test_a_fault_in_the_terms_is_named_before_anything_is_written(small_model, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        quiet(recipe(small_model), "dpo,simpo", tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_method_that_the_data_cannot_feed_is_refused_before_anything_is_trained(small_model, tmp_path, trained):
    with pytest.raises(ConfigError, match=r"upo needs `reward`: add `objectives:`"):
        quiet(recipe(small_model), "dpo,upo", tmp_path / "run")
    assert trained == []
    assert not (tmp_path / "run").exists()


# ---- equal terms ----


def test_every_method_is_tuned_with_every_rate_and_the_first_seed_and_chosen_rates_run_with_all(whole):
    _, folder = whole
    comparison = read(folder)
    for name, entry in comparison["methods"].items():
        assert entry["state"] == "done"
        assert [run["learning_rate"] for run in entry["tuning"]] == list(RATES)
        assert entry["seeds"] == [0, 1]
        found = {path.name for path in (folder / name).iterdir()}
        other = min(set(RATES) - {entry["learning_rate"]})
        chosen = entry["learning_rate"]
        assert found == {f"lr-{chosen:g}-seed-0", f"lr-{chosen:g}-seed-1", f"lr-{other:g}-seed-0"}
        assert entry["at_edge"]


def test_the_rate_is_the_best_on_validation(whole):
    _, folder = whole
    for entry in read(folder)["methods"].values():
        best = max(
            entry["tuning"],
            key=lambda r: (r["validation"]["accuracy"], r["validation"]["log_score"], -r["learning_rate"]),
        )
        assert entry["learning_rate"] == best["learning_rate"]


def test_what_the_doctor_found_of_every_method_before_training_is_kept_and_shown(whole):
    _, folder = whole
    found = read(folder, "doctor.json")
    (fed,) = [one for one in found["findings"] if one["code"] == "method-needs"]
    assert fed["level"] == "fine"
    assert all(method in fed["says"] for method in ("sft", "dpo", "simpo", "kto"))
    assert 'id="doctor"' in (folder / "report.html").read_text(encoding="utf-8")


def test_test_rows_are_met_by_the_chosen_rate_alone(whole):
    _, folder = whole
    for name, entry in read(folder)["methods"].items():
        met = {path.parent.name for path in (folder / name).rglob("evaluation.json")}
        assert met == {f"lr-{entry['learning_rate']:g}-seed-{seed}" for seed in (0, 1)}


def test_training_validation_and_test_share_no_conversation_and_the_test_side_is_that_of_align(whole):
    made, folder = whole
    records, _ = read_records("bundled:hh-harmless")
    _, heldout = split_records(records, share=made.data.eval_share)
    evaluation = next(folder.rglob("evaluation.json"))
    tested = {row["conversation"] for row in read(evaluation.parent, "evaluation.json")["pairs"]}
    assert tested <= {record.conversation for record in heldout}
    split = read(folder)["data"]["split"]
    assert split["validation"] > 0
    assert split["train"] + split["validation"] == 40


def test_the_shared_stage_is_trained_once_per_seed_and_is_every_methods_reference(whole):
    _, folder = whole
    assert len(list(folder.glob("shared/sft-*/model"))) == 2
    of_seed = {}
    for path in folder.rglob("evaluation.json"):
        saved = read(path.parent, "evaluation.json")
        found = {row["id"]: row["ref_logp_chosen"] for row in saved["pairs"]}
        assert of_seed.setdefault(saved["seed"], found) == found
    assert of_seed[0] != of_seed[1]


def test_no_model_of_a_method_is_left_on_the_disk(whole):
    _, folder = whole
    for name in read(folder)["methods"]:
        assert not [*(folder / name).rglob("*.safetensors"), *(folder / name).rglob("checkpoints")]


def test_what_is_compared_equals_what_align_trains_and_measures(small_model, tmp_path):
    """The slow twin: written to disk, loaded again and judged by itself. With one rate nothing is chosen."""
    made = recipe(small_model, runs={"ipo": [{"method": "ipo"}]}, train={**TRAIN, "learning_rate": 1e-2})
    folder = quiet(made, "dpo,ipo", tmp_path / "compared", learning_rates=[1e-2], validation_share=1e-9)
    align(made, output=tmp_path / "aligned", console=Console(quiet=True))
    mine = read(folder)["methods"]["ipo"]
    theirs = read(tmp_path / "aligned", "summary.json")["runs"]["ipo"]
    for name in ("accuracy", "margin", "kl", "length", "ranking_accuracy"):
        assert mine[name] == theirs[name], name
    assert read(folder)["settings"]["unequal_tuning"] == "every method had one learning rate, so nothing was tuned"


def test_texts_are_tokenised_once_for_all_methods(whole):
    _, folder = whole
    shared = read(folder)["shared"]
    split = read(folder)["data"]["split"]
    train, judged = split["train"], split["validation"] + split["heldout"]
    # per starting model (one for sft, then one for each seed): sft's own, pairs, and KTO's with other responses
    assert shared["records_tokenised"] <= 2 * (train + judged) + 2 * train + 2 * train
    assert shared["records_reused"] >= 5 * train  # of 9 runs of pairs, counted with KTO's own rows


# ---- numbers ----


def test_every_number_that_was_promised_is_there(whole):
    _, folder = whole
    comparison = read(folder)
    for entry in comparison["methods"].values():
        for name in ("accuracy", "ranking_accuracy", "ranking_accuracy_per_token", "margin"):
            value, low, high = entry[name]
            assert low <= value <= high, name
        assert math.isfinite(entry["kl"][0])
        assert set(entry["drift_per_token"]) == {"chosen", "rejected"}
        assert set(entry["calibration"]) == {"temperature", "brier", "log_score", "ece"}
        assert set(entry["seed_deviation"]) == {"accuracy", "ranking_accuracy", "ranking_accuracy_per_token"}
        assert entry["seconds"] > 0
        assert entry["steps"] == math.ceil(comparison["data"]["split"]["train"] / 8)
        assert entry["length"][0] <= 4
    tested = {(d["a"], d["b"], d["metric"]) for d in comparison["differences"]}
    for name in ("simpo", "kto"):
        assert (name, "dpo-beta-0.5", "accuracy") in tested
    for name in ("recipe.yaml", "report.html", "table.md", "citations.bib"):
        assert (folder / name).stat().st_size > 0


def test_numbers_are_those_of_the_rows_in_the_folder(whole):
    _, folder = whole
    for name, entry in read(folder)["methods"].items():
        rate = entry["learning_rate"]
        for seed in (0, 1):
            rows = read(folder / name / f"lr-{rate:g}-seed-{seed}", "evaluation.json")["pairs"]
            assert selection_scores(rows)["accuracy"] == entry["by_seed"][str(seed)]["accuracy"]
        both = [entry["by_seed"][seed]["accuracy"] for seed in ("0", "1")]
        assert entry["accuracy"][0] == pytest.approx(sum(both) / 2)
        assert entry["seed_deviation"]["accuracy"] == pytest.approx(abs(both[0] - both[1]) / math.sqrt(2))


def test_ktos_extra_responses_are_among_the_tokens_that_are_counted(whole):
    _, folder = whole
    methods = read(folder)["methods"]
    assert methods["simpo"]["tokens"] == methods["dpo-beta-0.5"]["tokens"]
    assert methods["kto"]["tokens"] > 1.3 * methods["dpo-beta-0.5"]["tokens"]


# ---- going on ----


def test_a_finished_comparison_is_resumed_without_training_and_gives_the_same_numbers(whole, trained):
    made, folder = whole
    before = read(folder)
    quiet(made, "dpo:beta=0.5,simpo,kto", folder, learning_rates=RATES, seeds=[0, 1], resume=True)
    assert [place for place in trained if "shared" not in str(place)] == []
    after = read(folder)
    assert after["methods"] == before["methods"]
    assert after["differences"] == before["differences"]


def test_a_comparison_that_was_killed_trains_what_is_missing_and_nothing_else(
    small_model, tmp_path, monkeypatch, trained
):
    made = recipe(small_model, sampling={"prompts": 0})
    options = {"learning_rates": RATES, "seeds": [0, 1]}
    quiet(made, "dpo,ipo", tmp_path / "whole", **options)
    n_whole = len(trained)
    judge, killed = comparing._Job._judge, []

    def kill(self, *args):
        killed.append(1)
        if len(killed) == 3:  # ipo's chosen rate has been trained with the first seed, and its model is lost
            raise KeyboardInterrupt
        judge(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(comparing._Job, "_judge", kill)
        with pytest.raises(KeyboardInterrupt):
            quiet(made, "dpo,ipo", tmp_path / "cut", **options)
    trained.clear()
    quiet(made, "dpo,ipo", tmp_path / "cut", resume=True, **options)
    assert n_whole == 2 * 3
    assert (
        len(trained) == 2
    )  # ipo again at the chosen rate, because the test rows had not been met, and its second seed
    timings = ("seconds", "tokens")
    for name, entry in read(tmp_path / "whole")["methods"].items():
        other = read(tmp_path / "cut")["methods"][name]
        assert {k: v for k, v in entry.items() if k not in timings} == {
            k: v for k, v in other.items() if k not in timings
        }


def test_methods_may_be_added_but_the_terms_may_not_change(small_model, tmp_path, trained):
    made = recipe(small_model, sampling={"prompts": 0})
    options = {"learning_rates": [1e-3], "seeds": [0]}
    quiet(made, "dpo", tmp_path / "run", **options)
    trained.clear()
    quiet(made, "dpo,ipo", tmp_path / "run", resume=True, **options)
    assert [place.parent.name for place in trained] == ["ipo"]
    assert list(read(tmp_path / "run")["methods"]) == ["dpo", "ipo"]
    with pytest.raises(ConfigError, match="with other settings"):
        quiet(made, "dpo", tmp_path / "run", resume=True, validation_share=0.5, **options)
    with pytest.raises(ConfigError, match="not the recipe that was given"):
        quiet(recipe(small_model), "dpo", tmp_path / "run", resume=True, **options)


def test_a_method_whose_loss_is_not_finite_has_failed_and_the_others_go_on(small_model, tmp_path, monkeypatch):
    original = comparing.run_stages

    def run_stages(recipe, stages, places, **options):
        if stages and stages[-1].method == "ipo":
            raise NonFiniteLossError("the loss is not finite at step 2")
        return original(recipe, stages, places, **options)

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "run_stages", run_stages)
        folder = quiet(recipe(small_model), "dpo,ipo,simpo", tmp_path / "run", learning_rates=RATES)
    methods = read(folder)["methods"]
    assert (methods["ipo"]["state"], methods["ipo"]["reason"]) == ("failed", "the loss is not finite at step 2")
    assert methods["dpo"]["state"] == methods["simpo"]["state"] == "done"
    assert "failed: the loss is not finite at step 2" in (folder / "table.md").read_text()
    quiet(recipe(small_model), "dpo,ipo,simpo", folder, learning_rates=RATES, resume=True)  # it is tried again
    assert read(folder)["methods"]["ipo"]["state"] == "done"


def test_a_rate_that_fails_is_not_chosen(small_model, tmp_path, monkeypatch):
    original = comparing.run_stages

    def run_stages(recipe, stages, places, **options):
        if stages and recipe.train_of(stages[-1]).learning_rate == 1e-2:
            raise NonFiniteLossError("the loss is not finite at step 1")
        return original(recipe, stages, places, **options)

    monkeypatch.setattr(comparing, "run_stages", run_stages)
    folder = quiet(recipe(small_model, sampling={"prompts": 0}), "dpo", tmp_path / "run", learning_rates=RATES)
    entry = read(folder)["methods"]["dpo"]
    assert entry["learning_rate"] == 1e-3
    assert [run["state"] for run in entry["tuning"]] == ["done", "failed"]


def test_kept_models_are_those_of_the_chosen_rate_and_load(small_model, tmp_path):
    from transformers import AutoModelForCausalLM

    made = recipe(small_model, sampling={"prompts": 0})
    folder = quiet(made, "dpo", tmp_path / "run", learning_rates=RATES, seeds=[0, 1], keep_models=True)
    rate = read(folder)["methods"]["dpo"]["learning_rate"]
    found = sorted(path.parent.name for path in folder.rglob("model") if path.is_dir())
    assert found == [f"lr-{rate:g}-seed-0", f"lr-{rate:g}-seed-1"]
    model = AutoModelForCausalLM.from_pretrained(folder / "dpo" / found[0] / "model")
    base = AutoModelForCausalLM.from_pretrained(small_model)
    ids = torch.tensor([[5, 6, 7]])
    assert not torch.equal(model(ids).logits, base(ids).logits)


def test_all_leaves_out_what_cannot_be_fed_with_its_reason(small_model, tmp_path, monkeypatch):
    few = [m for m in parse_methods("all") if m.stage.method in ("dpo", "upo")]
    made = recipe(small_model, sampling={"prompts": 0}, train={"batch_size": 8, "max_steps": 1})
    folder = compare(made, few, output=tmp_path / "run", learning_rates=[1e-3], console=Console(quiet=True))
    comparison = read(folder)
    assert list(comparison["methods"]) == ["dpo"]
    [left] = comparison["left_out"]
    assert left["method"] == "upo"
    assert left["reason"].startswith("upo needs `reward`")


def test_adapters_start_alike_for_all_methods_and_anew_for_each_seed(small_model, tmp_path):
    made = recipe(
        small_model, model_options={"lora": {"r": 2, "alpha": 4.0}}, sampling={"prompts": 2, "max_new_tokens": 2}
    )
    folder = quiet(made, "dpo,ipo", tmp_path / "run", learning_rates=[1e-2], seeds=[0, 1])
    losses = {}
    for path in folder.rglob("metrics.jsonl"):
        rows = [row for row in read_jsonl(path) if "loss" in row]
        losses[path.parent.parent.name, path.parent.name[-1]] = rows
    assert losses["dpo", "0"][0]["loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert losses["dpo", "0"][0]["logps/chosen"] == pytest.approx(losses["ipo", "0"][0]["logps/chosen"], rel=1e-5)
    assert losses["dpo", "0"][-1]["loss"] != losses["dpo", "1"][-1]["loss"]


def test_a_recipe_without_runs_lends_its_last_stages_settings_to_all_methods(small_model, tmp_path):
    stages = [{"method": "sft", "train": {"max_steps": 1}}, {"method": "dpo", "train": {"max_steps": 2}}]
    made = recipe(small_model, runs={}, stages=stages, sampling={"prompts": 0})
    folder = quiet(made, "ipo,simpo", tmp_path / "run", learning_rates=[1e-3])
    assert {entry["steps"] for entry in read(folder)["methods"].values()} == {2}
    assert read(folder)["settings"]["shared_stages"] == ["sft"]
