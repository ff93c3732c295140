"""Faulty data and faulty files: what is wrong is named, and no number is made up for it."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.rewards.planted_tables import linear

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.rewards import PreferenceTable, load_preference_model, make_model


@pytest.fixture(scope="module")
def table():
    plain, _ = linear(4, 60, 2.0)
    odd = np.arange(60) % 2 == 1
    prompts = np.random.default_rng(0).normal(size=(60, 3)) + 2 * odd[:, None]
    return plain.with_columns(
        user=np.where(odd, "ann", "bob"), domain=np.where(odd, "law", "art"), contexts=prompts, context=np.arange(60)
    )


@pytest.fixture(scope="module")
def model(table):
    return make_model("bt", ridge=0.1).fit(table)


@pytest.fixture
def folder(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


# ---- comparisons ----


def test_numbers_that_are_not_finite_give_no_verdict_but_an_error_that_counts_them(table, model):
    holed = table.features.copy()
    holed[[5, 7], 1] = np.nan
    strange = table.with_columns(features=holed)
    for ask in (model.decision_function, model.predict_proba, model.score):
        with pytest.raises(DataError, match=r"2 of 60 comparisons have features or prompts .*the first at row 5"):
            ask(strange)
    with pytest.raises(DataError, match=r"1 of 2 responses have features or prompts .*the first at row 1"):
        model.reward(np.array([[0.0] * 4, [np.inf] * 4]))


def test_a_prompt_that_is_not_finite_is_refused_where_prompts_are_read_and_only_there(table, model):
    prompts = table.contexts.copy()
    prompts[3] = np.nan
    strange = table.with_columns(contexts=prompts)
    with pytest.raises(DataError, match="number 0 is not finite for 1 responses"):
        make_model("context_two_step", ridge=0.1).fit(strange)
    router = make_model("context_two_step", ridge=0.1).fit(table)
    with pytest.raises(DataError, match=r"1 of 60 comparisons have features or prompts .*the first at row 3"):
        router.decision_function(strange.with_columns(domain=None))
    np.testing.assert_array_equal(model.decision_function(strange), model.decision_function(table))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"margin": np.full(60, np.inf)}, "the strength .margin. of comparison 0 is inf; it is finite and at least 0"),
        (
            {"margin": np.full(60, -1.0)},
            "the strength .margin. of comparison 0 is -1.0; .*NaN stands",
        ),
        ({"features": np.full((120, 4), "long")}, "features are real numbers; they arrived as <U4"),
        ({"contexts": np.full((60, 2), None)}, "contexts are real numbers; they arrived as object"),
    ],
)
def test_a_column_of_the_wrong_kind_is_refused(table, columns, words):
    with pytest.raises(DataError, match=words):
        table.with_columns(**columns)


def test_a_feature_whose_square_is_beyond_all_numbers_is_named(table):
    wide = table.features.copy()
    wide[:, 2] *= 1e200
    with pytest.raises(DataError, match="feature size is too large for its spread to be taken; divide it"):
        make_model("bt").fit(table.with_columns(features=wide, columns=("a", "b", "size", "d")))


def test_features_that_are_all_constant_leave_an_even_verdict_and_a_warning(table):
    flat = table.with_columns(features=np.ones((120, 4)))
    fitted = make_model("bt").fit(flat)
    assert fitted.notes_ == ["4 of 4 features are the same in all training responses: unused"]
    assert not fitted.decision_function(table).any()
    assert fitted.score(table) == 0.5


def test_comparisons_of_a_response_with_itself_are_counted_and_say_nothing(table):
    fitted = make_model("bt").fit(table.with_columns(second=table.first))
    assert fitted.notes_ == ["60 of 60 comparisons are of a response with itself and say nothing"]
    assert not fitted.decision_function(table).any()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_labels_that_are_all_ties_or_of_no_weight_are_refused(table, weight):
    p = table.p if weight == 0 else np.full(60, 0.5)
    with pytest.raises(DataError, match="of 60 comparisons none says which side is better; there is nothing to learn"):
        make_model("bt").fit(table.with_columns(p=p, weight=np.full(60, weight)))


def test_that_the_first_side_always_wins_is_how_a_table_is_written_and_no_fault(table):
    ahead = table.swapped(table.p < 0.5)
    assert (ahead.p == 1).all()
    pair = [make_model("bt", ridge=0.1).fit(each) for each in (table, ahead)]
    np.testing.assert_allclose(*[each.decision_function(table) for each in pair], atol=1e-6)


def test_users_with_one_choice_are_counted_by_name(table):
    users = table.user.copy()
    users[:2] = ["cy", "di"]
    fitted = make_model("lore", rank=2, ridge=0.1, epochs=3).fit(table.with_columns(user=users))
    assert [note for note in fitted.notes_ if "fewer than 2 choices" in note] == [
        "2 of 4 users have fewer than 2 choices, which hardly tell their taste (cy, di)"
    ]


def test_names_that_a_model_does_not_know_are_counted_where_they_are_read(table, model):
    named = table.with_columns(domain=np.where(np.arange(60) < 7, "medicine", table.domain))
    fitted = make_model("d3g", ridge=0.1).fit(table)
    told = fitted.unseen(named)
    assert (told["domains"], told["domain_rows"]) == (["medicine"], 7)
    assert told["fallback"] == "the heads of the domains that their own description is related to"
    assert fitted.unseen(table)["domain_rows"] == model.unseen(named)["domain_rows"] == 0


def test_no_comparison_has_no_verdict_and_no_accuracy(model, table):
    assert model.decision_function(table.take([])).shape == (0,)
    assert model.predict_proba(table.take([])).shape == (0, 2)
    assert np.isnan(model.score(table.take([])))


def test_a_response_of_another_width_is_refused(model):
    with pytest.raises(ShapeError, match="the model reads 4 features, and the table has 3"):
        model.reward(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"features are \(responses, numbers\); they arrived as \(4,\)"):
        model.reward(np.zeros(4))


# ---- files ----


class Harmful:
    """What a pickle would run when it is read."""

    def __reduce__(self):
        return (pytest.fail, ("a model file was run",))


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08", pickle.dumps(Harmful()), b'{"net": 1}', None],
    ids=["empty", "one byte", "pickle", "json", "torch"],
)
def test_a_file_of_another_format_is_refused_and_nothing_in_it_is_run(folder, content):
    if content is None:
        torch.save({"net.head.weight": Harmful()}, folder / "model.safetensors")
    else:
        (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="holds no preference model"):
        load_preference_model(folder)


@pytest.mark.parametrize("kept", [8, 20, -1, -32])
def test_a_file_that_was_cut_is_refused(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigError, match="holds no preference model"):
        load_preference_model(folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"net.head.weight": torch.full((1, 4), torch.nan)}, "net.head.weight holds numbers that no fit leaves"),
        ({"features.spread": torch.zeros(4)}, "features.spread holds numbers that no fit leaves"),
        ({"features.centre": torch.zeros(3)}, "the scaling of features is of 3 numbers, and the model reads 4"),
        ({"features.centre": None}, "the files are not of one model, or not whole: 'features.centre'"),
        ({"net.head.weight": None}, "not of one model, or not whole.*\n.*Missing key"),
        ({"net.head.weight": torch.zeros(2, 4)}, "not of one model, or not whole.*\n.*size mismatch"),
        ({"net.tail": torch.zeros(4)}, "not of one model, or not whole.*\n.*Unexpected key"),
    ],
)
def test_numbers_that_do_not_make_the_model_are_refused_by_name(folder, changed, words):
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **changed}
    save_file({name: value for name, value in tensors.items() if value is not None}, str(path))
    with pytest.raises(ConfigError, match=words):
        load_preference_model(folder)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method": "bradley"}, "no method of kind reward named 'bradley'"),
        ({"options": {"nothing": 1}}, "bt has no option 'nothing'"),
        ({"options": {"ridge": -1.0}}, "ridge=-1.0: it is at least 0"),
        ({"sizes": {"features": 9}}, "the scaling of features is of 4 numbers, and the model reads 9"),
        ({"sizes": {"rooms": 9}}, "the files are not of one model, or not whole"),
        ({"users": 3}, "the files are not of one model, or not whole"),
        ({"dtype": "Tensor"}, "the files are not of one model, or not whole: 'Tensor'"),
        ({"format": "unipref-preference-model-0"}, "is not of the format unipref-preference-model-1; train"),
    ],
)
def test_a_description_that_is_not_the_models_is_refused(folder, changed, words):
    path = folder / "reward.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(ConfigError, match=words):
        load_preference_model(folder)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_description_that_is_no_json_object_is_refused(folder, text):
    (folder / "reward.json").write_text(text)
    with pytest.raises(ConfigError, match=r"holds no preference model|is not of the format"):
        load_preference_model(folder)


def test_a_model_is_not_written_over_a_file_nor_read_from_one(model, tmp_path):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="notes is a file; a model is a folder of two: give another name"):
        model.save(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"
    with pytest.raises(ConfigError, match="holds no preference model"):
        load_preference_model(tmp_path / "notes")


def test_a_table_of_no_comparisons_can_be_made_and_not_learned_from():
    empty = PreferenceTable(np.zeros((0, 3)), [], [], [])
    assert len(empty) == 0
    with pytest.raises(DataError, match="of 0 comparisons none says which side is better"):
        make_model("bt").fit(empty)
