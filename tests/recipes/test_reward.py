"""The jobs of `unipref reward`, from a file of texts to models, labels and numbers."""

import json

import numpy as np
import pytest
from tests.recipes.texts_with_users import LIKES, rows, write

from unipref.core.errors import ConfigError, DataError
from unipref.data import read_records
from unipref.data.pairs import Pairs
from unipref.recipes.reward import adapt_reward, evaluate_reward, train_reward
from unipref.recipes.reward_config import load_reward_recipe
from unipref.recipes.scored import score_data
from unipref.rewards import TextPreferenceModel, make_scorer

FEATURES = [{"bag_of_words": {"dimension": 64}}]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the data, and the run of a model of users beside one for everybody."""
    folder = tmp_path_factory.mktemp("reward")
    data = write(folder / "choices.jsonl", rows(360))
    recipe = load_reward_recipe(
        {
            "name": "people",
            "data": {"train": data},
            "features": FEATURES,
            "method": "lore",
            "options": {"rank": 3, "ridge": 0.01, "epochs": 100, "lr": 0.05},
            "beside": {"bt": {"method": "bt", "options": {"ridge": 0.01}}},
        }
    )
    return folder, train_reward(recipe, output=folder / "run")


def told(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def test_a_run_holds_the_model_what_it_is_worth_and_where_all_of_it_comes_from(trained):
    _, run = trained
    assert {path.name for path in run.iterdir()} == {
        "citations.bib", "data.json", "evaluation.json", "model", "recipe.yaml", "report.html",
    }  # fmt: skip
    assert "LoRe: Personalizing LLMs" in (run / "citations.bib").read_text(encoding="utf-8")
    found = told(run)
    assert (found["main"], found["baseline"], list(found["models"])) == ("lore", "bt", ["lore", "bt"])
    split = json.loads((run / "data.json").read_text(encoding="utf-8"))["split"]
    assert split["train"] + split["heldout"] == 360
    assert found["pairs"]["n"] == split["heldout"]
    assert found["pairs"]["users"] == 3


def test_tastes_that_point_apart_are_told_apart_by_the_model_of_users_alone(trained):
    found = told(trained[1])["models"]
    assert found["lore"]["accuracy"][0] >= 0.95
    assert found["bt"]["accuracy"][0] <= found["lore"]["accuracy"][0] - 0.05
    assert found["lore"]["both_orders"]["largest"] == pytest.approx(0, abs=1e-9)


def test_bradley_terry_is_what_others_are_held_against_also_where_it_is_the_model_itself(tmp_path):
    data = write(tmp_path / "d.jsonl", rows(90))
    beside = {"bt": {"method": "bt", "options": {"ridge": 0.1}}, "drm_pca": {"method": "drm_pca"}}
    values = {"data": {"train": data}, "features": FEATURES, "options": {"ridge": 0.1}, "beside": beside}
    found = told(train_reward(load_reward_recipe(values), output=tmp_path / "run"))
    assert (found["main"], found["baseline"]) == ("bt", "bt")
    assert {(d["a"], d["b"]) for d in found["differences"] if d["b"] in found["models"]} == {("drm_pca", "bt")}


def test_a_held_out_pair_that_training_compares_too_is_left_out_and_said(tmp_path):
    train, heldout = rows(60), rows(40, seed=1)
    heldout[:10] = [{**row, "prompt": f"Another {i}?"} for i, row in enumerate(train[:10])]
    recipe = load_reward_recipe(
        {
            "data": {"train": write(tmp_path / "a.jsonl", train), "eval": write(tmp_path / "b.jsonl", heldout)},
            "features": FEATURES,
            "options": {"ridge": 0.1},
        }
    )
    found = told(train_reward(recipe, output=tmp_path / "run"))
    assert found["pairs"]["n"] == 30
    assert any("10 of 40 held-out pairs compare two texts that training compares too" in n for n in found["notes"])
    again = load_reward_recipe(
        {**recipe.resolved(), "data": {"train": recipe.data.train[0], "eval": recipe.data.train[0]}}
    )
    with pytest.raises(DataError, match="no conversation is left to train on: the held-out data have them all"):
        train_reward(again, output=tmp_path / "again")


def test_a_model_that_does_not_fit_the_data_is_said_beside_the_others_and_refused_alone(tmp_path):
    data = write(tmp_path / "plain.jsonl", [{k: v for k, v in row.items() if k != "user"} for row in rows(60)])
    values = {
        "data": {"train": data},
        "features": FEATURES,
        "options": {"ridge": 0.1},
        "beside": {"lore": {"method": "lore"}},
    }
    found = told(train_reward(load_reward_recipe(values), output=tmp_path / "run"))
    assert list(found["models"]) == ["bt"]
    why = "lore is not beside bt: lore needs to know whose comparison it is"
    assert any(note.startswith(why) for note in found["notes"])
    with pytest.raises(DataError, match="lore needs to know whose comparison it is"):
        train_reward(load_reward_recipe({**values, "method": "lore", "options": {}}), output=tmp_path / "other")


def test_starts_that_fail_never_cost_the_last_run_that_did_something(tmp_path):
    data = write(tmp_path / "d.jsonl", rows(60))
    values = {"data": {"train": data}, "features": FEATURES, "options": {"ridge": 0.1}}
    train_reward(load_reward_recipe(values), output=tmp_path / "run")
    kept = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    needy = load_reward_recipe({**values, "method": "more", "options": {}})  # it needs domains
    for _ in range(3):
        with pytest.raises(DataError, match="more needs to know the domain"):
            train_reward(needy, output=tmp_path / "run")
    assert (tmp_path / "run.previous" / "model" / "model.safetensors").read_bytes() == kept


def test_every_domain_is_left_out_once_where_that_is_asked_for(tmp_path):
    data = write(tmp_path / "d.jsonl", rows(120, domain=lambda i: ("law", "food")[i % 2]))
    values = {"data": {"train": data}, "features": FEATURES, "options": {"ridge": 0.1}, "left_out_domains": True}
    found = told(train_reward(load_reward_recipe(values), output=tmp_path / "run"))
    left = found["models"]["bt"]["left_out"]
    assert set(left["by_domain"]) == {"law", "food"}
    assert left["missing"] == 0


def test_what_a_run_says_its_saved_model_says_again_of_texts(trained):
    folder, run = trained
    records, _ = read_records(str(folder / "choices.jsonl"))
    pairs = Pairs.of(records)
    model = TextPreferenceModel.load(run)
    logits, rewards = model.verdicts(pairs, records=records)
    np.testing.assert_allclose(rewards[:, 0] - rewards[:, 1], logits, atol=1e-9)
    alone = model.rewards(pairs.prompt.tolist(), pairs.first.tolist(), user=pairs.user.tolist())
    np.testing.assert_allclose(alone, rewards[:, 0], atol=1e-9)
    liked = [model.rewards(["Q?"] * 2, ["all kind here", "all brief here"], user=name) for name in ("ann", "ben")]
    assert liked[0][0] > liked[0][1]
    assert liked[1][0] < liked[1][1]


def test_data_are_labelled_for_the_user_that_a_row_names_or_for_one_that_is_asked_for(trained, tmp_path):
    folder, run = trained
    done = score_data(run, str(folder / "choices.jsonl"), tmp_path / "scored.jsonl")
    assert (done["comparisons"], done["responses"]) == (360, 0)
    assert done["agreement"] >= 0.95
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text(encoding="utf-8").splitlines()]
    first = scored[0]
    gap = first["chosen_reward"] - first["rejected_reward"]
    assert first["reward_preference"] == pytest.approx(1 / (1 + np.exp(-gap)))
    assert first["user"] == "ann"
    assert first["preference"] == 1
    again, _ = read_records(str(tmp_path / "scored.jsonl"))
    assert len(again) == 360
    assert again[0].items[again[0].comparisons[0].winner].columns["reward"] == first["chosen_reward"]


def test_relabelled_rows_have_what_the_model_prefers_as_chosen(trained, tmp_path):
    folder, run = trained
    score_data(run, str(folder / "choices.jsonl"), tmp_path / "ben.jsonl", user="ben", relabel=True)
    scored = [json.loads(line) for line in (tmp_path / "ben.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(0.5 <= row["preference"] == row["reward_preference"] for row in scored)
    sides = [[LIKES["ben"] in row[side].split() for side in ("chosen", "rejected")] for row in scored]
    assert np.mean([chosen for chosen, rejected in sides if chosen != rejected]) >= 0.95


def test_single_responses_are_scored_and_come_back_as_they_were(trained, tmp_path):
    _, run = trained
    source = write(tmp_path / "alone.jsonl", [{"prompt": "Q?", "completion": "so kind", "label": True}])
    done = score_data(run, source, tmp_path / "out.jsonl", user="ann", column="taste")
    assert (done["comparisons"], done["responses"], done["agreement"]) == (0, 1, None)
    row = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert (row["completion"], row["label"]) == ("so kind", True)
    assert row["taste"] == pytest.approx(TextPreferenceModel.load(run).rewards(["Q?"], ["so kind"], user="ann")[0])


def test_a_newcomer_is_learned_from_a_handful_of_choices_and_the_others_stay_as_they_were(trained, tmp_path):
    folder, run = trained
    newcomer = {"dan": "brief"}
    done = adapt_reward(run, write(tmp_path / "dan.jsonl", rows(16, seed=5, users=newcomer)), tmp_path / "grown")
    assert done["users"] == ["dan"]
    assert done["comparisons"]["users"] == {"dan": 16}
    test = write(tmp_path / "more.jsonl", rows(100, seed=6, users=newcomer))
    found = told(evaluate_reward({"grown": tmp_path / "grown", "before": run}, test, output=tmp_path / "eval"))
    assert found["models"]["grown"]["accuracy"][0] >= found["models"]["before"]["accuracy"][0] + 0.1
    assert found["models"]["grown"]["fallback"]["known"]["n"] == 100
    assert found["models"]["before"]["fallback"]["reasons"]["unseen user"]["n"] == 100
    old, new = (TextPreferenceModel.load(path) for path in (run, tmp_path / "grown"))
    pairs = Pairs.of(read_records(str(folder / "choices.jsonl"))[0])
    np.testing.assert_array_equal(old.verdicts(pairs)[0], new.verdicts(pairs)[0])


def test_a_fitted_model_is_a_scorer_with_a_version_that_follows_its_numbers(trained, tmp_path):
    _, run = trained
    scorer = make_scorer({"scorer": "preference_model", "options": {"model": str(run), "user": "ann"}})
    scores = scorer.score(["Q?", "Q?", "Q?"], ["so kind", "so brief", " "])
    assert scores[0] > scores[1]
    assert np.isnan(scores[2])
    other = make_scorer({"scorer": "preference_model", "options": {"model": str(run), "user": "ben"}})
    again = make_scorer({"scorer": "preference_model", "options": {"model": str(run / "model"), "user": "ann"}})
    assert scorer.version == again.version != other.version
    with pytest.raises(ConfigError, match=r"does not know the user 'zoe' \(3 known, such as ann, ben, cleo"):
        make_scorer({"scorer": "preference_model", "options": {"model": str(run), "user": "zoe"}}).score(["Q?"], ["x"])


def test_a_model_whose_features_would_give_other_numbers_here_is_refused(trained, tmp_path):
    _, run = trained
    whole = TextPreferenceModel.load(run)
    whole.save(tmp_path / "moved")
    path = tmp_path / "moved" / "reward.json"
    file = json.loads(path.read_text(encoding="utf-8"))
    file["about"]["features"]["identity"] = "0" * 64
    path.write_text(json.dumps(file), encoding="utf-8")
    with pytest.raises(ConfigError, match="features that give other numbers here"):
        TextPreferenceModel.load(tmp_path / "moved")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "lor"}, "no method of kind reward named 'lor' .did you mean 'lore'"),
        ({"method": "lore", "options": {"rnak": 2}}, "lore has no option 'rnak' .did you mean 'rank'"),
        ({"features": ["minlm"]}, "minlm"),
        ({"dta": {}}, "unknown key .did you mean 'data'"),
        ({"beside": {"x": {"method": "btt"}}}, "no method of kind reward named 'btt'"),
    ],
)
def test_a_recipe_is_refused_before_anything_is_read(values, words):
    with pytest.raises(ConfigError, match=words):
        load_reward_recipe({"data": {"train": "bundled:hh-harmless"}, **values})


def test_a_users_taste_is_the_designers_objective_of_an_aligned_model(trained, small_model, tmp_path):
    from unipref.recipes import load_recipe
    from unipref.recipes.align import align

    folder, run = trained
    recipe = load_recipe(
        {
            "model": str(small_model),
            "data": {"train": str(folder / "choices.jsonl"), "limit": 24, "eval_limit": 12, "max_length": 96},
            "objectives": {
                "taste": {
                    "scorer": "preference_model",
                    "options": {"model": str(run), "user": "ben"},
                    "normalise": "zscore",
                }
            },
            "train": {"max_steps": 2, "batch_size": 4},
            "sampling": {"prompts": 2, "max_new_tokens": 4},
            "stages": [{"method": "upo", "options": {"base": "dpo"}}],
        }
    )
    align(recipe, output=tmp_path / "aligned")
    data = json.loads((tmp_path / "aligned" / "data.json").read_text(encoding="utf-8"))
    assert data["designer"]["train"]["parts"]["taste"]["missing"] == 0
    summary = json.loads((tmp_path / "aligned" / "summary.json").read_text(encoding="utf-8"))
    [aligned] = summary["runs"].values()
    assert aligned["aux"]["taste"]["generations"][0] is not None
    assert "LoRe: Personalizing LLMs" in (tmp_path / "aligned" / "citations.bib").read_text(encoding="utf-8")
