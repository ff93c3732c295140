"""Recipes that make their own preferences: what is trained on, what only judges, and the fronts."""

import json

import pytest

from unipref.core.errors import ConfigError
from unipref.core.io import read_jsonl
from unipref.online import responses
from unipref.recipes import load_recipe
from unipref.recipes._run import read_data
from unipref.recipes.align import align
from unipref.rewards import make_scorer

LABEL = {"scorer": "length", "options": {"unit": "characters"}}
JUDGE = {"scorer": "length", "options": {"unit": "characters", "cap": 40}}
FRONT = {
    "axes": [{"metric": "aux.letters.generations", "better": "higher"}, {"metric": "kl", "better": "lower"}],
    "families": {"dpo": ["dpo"], "modpo": ["modpo"]},
}
MISSPELT = {"metric": "aux.leters.generations", "better": "lower"}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "openings.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"the film number {i} is"}) + "\n" for i in range(30)))
    return str(path)


def values(model, prompts, **changes):
    made = {
        "name": "written",
        "model": str(model),
        "data": {"train": prompts, "eval_share": 0.3, "max_length": 64},
        "collect": {"responses": 3, "max_new_tokens": 6, "label": LABEL, "preference": "bradley_terry", "scale": 10.0},
        "objectives": {"detail": {"scorer": "length", "options": {"cap": 9}}},
        "judges": {"letters": JUDGE},
        "train": {"learning_rate": 1e-3, "batch_size": 8, "max_steps": 1, "precision": "float32"},
        "runs": {"dpo": [{"method": "dpo"}], "modpo": [{"method": "modpo"}]},
        "fronts": {"letters": FRONT},
        "sampling": {"prompts": 6, "max_new_tokens": 6},
    }
    return {**made, **changes}


@pytest.fixture(scope="module")
def whole(small_model, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "written"
    made = load_recipe(values(small_model, prompts))
    align(made, output=folder)
    return made, folder


def rows(folder, name="collected.jsonl"):
    return list(read_jsonl(folder / "shared" / name))


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_the_preferred_answer_is_the_one_that_the_users_reward_ranks_higher(whole):
    _, folder = whole
    scorer = make_scorer(LABEL)
    for row in rows(folder) + rows(folder, "collected-heldout.jsonl"):
        up, down = scorer.score(["", ""], [row["chosen"], row["rejected"]])
        assert up > down
        assert (row["chosen_label_score"], row["rejected_label_score"], row["margin"]) == (up, down, up - down)
        assert 0.5 < row["preference"] < 1


def test_no_heldout_prompt_is_answered_for_training(whole):
    _, folder = whole
    answered = {row["prompt"] for row in read_jsonl(folder / "shared" / "answers.jsonl") if "prompt" in row}
    held = {row["prompt"] for row in read_jsonl(folder / "shared" / "answers-heldout.jsonl") if "prompt" in row}
    assert len(answered) + len(held) == 30
    assert answered.isdisjoint(held)
    assert {row["prompt"] for row in rows(folder)} <= {json.loads(prompt) for prompt in answered}


def test_the_account_goes_from_prompts_to_pairs(whole):
    _, folder = whole
    told = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    for part, name in (("train", "collected.jsonl"), ("heldout", "collected-heldout.jsonl")):
        report = told["collected"][part]
        assert report["n_kept"] == len(rows(folder, name))
        assert report["n_read"] == report["n_kept"] + sum(report["left_out"].values()) > 5
        assert "the start model's own" in " ".join(report["notes"])
    assert told["split"]["train"] == len(rows(folder))


def test_a_judge_is_in_the_tables_and_in_no_training_record(whole, small_model, prompts):
    made, folder = whole
    assert summary(folder)["designer"]["letters"]["judge"] is True
    for run in summary(folder)["runs"].values():
        assert len(run["aux"]["letters"]["generations"]) == 3
    data = read_data(made, None, None, folder=folder)
    without = read_data(load_recipe(values(small_model, prompts, judges={}, fronts={})), None, None, folder=folder)
    assert data.train == without.train
    assert "letters" not in {name for record in data.train for item in record.items for name in item.columns}
    held = [item for record in data.heldout for item in record.items]
    found = make_scorer(JUDGE).score([""] * len(held), [item.response for item in held])
    assert [item.columns["letters"] for item in held] == found.tolist()
    assert [item.columns["reward"] for item in held] == [item.columns["detail"] for item in held]


def test_training_reads_the_tokens_that_were_drawn(whole):
    made, folder = whole
    drawn = {
        tuple(answer["ids"])
        for row in read_jsonl(folder / "shared" / "answers.jsonl")
        for answer in row.get("answers", ())
    }
    train = read_data(made, None, None, folder=folder).train
    assert {item.response_ids for record in train for item in record.items} <= drawn


def test_the_fronts_of_the_recipe_are_in_the_summary_with_the_start_as_a_point(whole):
    found = summary(whole[1])["fronts"]
    assert [front["name"] for front in found] == ["letters"]
    assert found[0]["axes"] == [{"metric": "aux.letters.generations", "better": 1}, {"metric": "kl", "better": -1}]
    assert set(found[0]["points"]) == {"dpo", "modpo", "reference"}
    assert found[0]["families"]["modpo"]["runs"] == ["modpo"]


def test_a_resumed_run_samples_no_answer_again(whole, monkeypatch):
    made, folder = whole
    monkeypatch.setattr(responses, "generate", None)
    before = (folder / "shared" / "collected.jsonl").read_bytes()
    align(made, output=folder, resume=True)
    assert (folder / "shared" / "collected.jsonl").read_bytes() == before


def test_the_same_recipe_collects_the_same_pairs_in_another_folder(whole, tmp_path):
    made, folder = whole
    read_data(made, None, None, folder=tmp_path)
    for name in ("collected.jsonl", "collected-heldout.jsonl"):
        assert (tmp_path / "shared" / name).read_bytes() == (folder / "shared" / name).read_bytes()


def test_what_was_collected_is_a_data_set_by_itself(whole, small_model, prompts):
    made, folder = whole
    path = str(folder / "shared" / "collected.jsonl")
    data = {"train": path, "eval": str(folder / "shared" / "collected-heldout.jsonl"), "max_length": 64}
    plain = load_recipe(values(small_model, prompts, data=data, collect=None))
    pairs = [read_data(recipe, None, None, folder=folder).train for recipe in (made, plain)]
    assert len(pairs[0]) == len(pairs[1])
    for one, other in zip(*pairs, strict=True):
        assert [item.response for item in one.items] == [item.response for item in other.items]
        assert one.comparisons == other.comparisons
        assert [dict(item.columns) for item in one.items] == [dict(item.columns) for item in other.items]


def test_without_a_run_folder_nothing_is_sampled_and_the_records_are_the_prompts(whole, monkeypatch):
    monkeypatch.setattr(responses, "generate", None)
    data = read_data(whole[0], None, None)
    assert len(data.train) + len(data.heldout) == 30
    assert data.designer is None
    assert data.judges is None


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ({"scorer": "reading_level", "options": {}}, "pair with an answer that has no score"),  # six tokens are too few
        ({"scorer": "length", "options": {"unit": "characters", "cap": 0.5}}, "with equal scores"),
    ],
)
def test_labels_that_tell_no_answers_apart_stop_the_run_and_say_why(whole, small_model, prompts, tmp_path, label, why):
    _, folder = whole
    collect = {"responses": 3, "max_new_tokens": 6, "label": label}
    made = load_recipe(values(small_model, prompts, collect=collect))
    (tmp_path / "shared").mkdir()
    for name in ("answers.jsonl", "answers-heldout.jsonl"):
        (tmp_path / "shared" / name).write_bytes((folder / "shared" / name).read_bytes())
    with pytest.raises(ConfigError, match=f"no pair could be made of .* prompts .*{why}.*choose another label"):
        read_data(made, None, None, folder=tmp_path)


def test_a_judge_that_is_the_trainer_is_warned_of_and_one_with_other_options_is_not(whole, small_model, prompts):
    _, folder = whole
    judges = {"own": {"scorer": "length", "options": {"unit": "characters", "inverted": False}}, "letters": JUDGE}
    judges["wanted"] = {"scorer": "length", "options": {"cap": 9}}
    told = read_data(load_recipe(values(small_model, prompts, judges=judges)), None, None, folder=folder).report
    assert [note.split(":")[0] for note in told["judges"]["notes"]] == [
        "the judge own is collect.label",
        "the judge wanted is objectives.detail",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"collect": {"responses": 1, "label": LABEL}}, r"collect\.responses: expected a number of at least 2"),
        ({"collect": {"responses": 2}}, r"collect\.label: this key is required"),
        ({"collect": {"label": {"scorer": "lenght"}}}, r"collect\.label\.scorer: no scorer named 'lenght'.*length"),
        ({"collect": {"label": LABEL, "pair": "all"}}, r"collect\.pair: unknown key.*pairs"),
        ({"collect": {"label": LABEL, "pairs": "best"}}, r"collect\.pairs: expected 'best_worst', 'all' or"),
        ({"judges": {"detail": JUDGE}}, r"judges\.detail: 'detail' is a designer objective, too"),
        ({"judges": {"reward": JUDGE}}, r"judges\.reward: .*rename it"),
        ({"judges": {"letters": {**JUDGE, "weight": 1.0}}}, r"judges\.letters\.weight: unknown key"),
        ({"fronts": {"f": {**FRONT, "families": {"a": ["dpo", "orpo"]}}}}, r"families\.a: no run is called 'orpo'"),
        ({"fronts": {"f": {**FRONT, "families": {"a": ["dpo"], "b": ["dpo"]}}}}, r"families\.b: .*'dpo' is in 'a'"),
        ({"fronts": {"f": {**FRONT, "axes": [FRONT["axes"][1], MISSPELT]}}}, r"f\.axes\.1\.metric: .*aux\.letters"),
        ({"fronts": {"f": {**FRONT, "axes": FRONT["axes"][:1]}}}, r"fronts\.f\.axes: "),
        ({"fronts": {"f": {**FRONT, "axes": [FRONT["axes"][1]] * 2}}}, "two axes have the same metric"),
        ({"sampling": {"prompts": 0}}, "is measured on generations; set sampling.prompts above 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_anything_is_loaded(changes, words):
    with pytest.raises(ConfigError, match=words):
        load_recipe(values("bundled", "bundled:review-openings", **changes))
