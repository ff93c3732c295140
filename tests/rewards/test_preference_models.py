"""The base of preference models: the table, the fit, newcomers and files, shown on two of them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from tests.rewards.planted_tables import linear, ranked

from unipref.core.errors import ConfigError, DataError, ShapeError
from unipref.objectives import bt as bradley_terry
from unipref.rewards import PreferenceTable, load_preference_model, make_model
from unipref.rewards.models.data import Scaling


def weights(model):
    """Of the features as they came."""
    return model.net_.head.weight[0].numpy() / model.scaling_.spread


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


# ---- the table ----


def test_a_table_fills_in_what_is_left_out_and_takes_and_swaps_rows():
    table = PreferenceTable(np.eye(3), [0, 1], [2, 2], [1.0, 0.25], user=["ann", None])
    assert list(table.weight) == [1, 1]
    assert list(table.user) == ["ann", "all"]
    assert np.isnan(table.margin).all()
    assert table.users == ("ann",)
    assert table.domains == ()
    taken = table.take([1])
    assert (list(taken.first), list(taken.second), list(taken.p)) == ([1], [2], [0.25])
    back = table.swapped(np.array([False, True]))
    assert (list(back.first), list(back.second), list(back.p)) == ([0, 2], [2, 1], [1.0, 0.75])


@pytest.mark.parametrize(
    ("columns", "fault", "words"),
    [
        ({"p": [1.0, 1.5]}, DataError, "the label of comparison 1 is 1.5; a label is the probability"),
        ({"p": [1.0, np.nan]}, DataError, "the label of comparison 1 is nan"),
        ({"first": [0, 3]}, DataError, "first points at row 3"),
        ({"weight": [1.0, -1.0]}, DataError, "weights are finite and at least 0"),
        ({"user": ["ann"]}, ShapeError, "columns of one table have one length"),
        ({"contexts": np.eye(2)}, ShapeError, "come together"),
        ({"columns": ("length",)}, ShapeError, "1 names for 3 features"),
    ],
)
def test_a_faulty_table_is_refused_with_what_is_wrong(columns, fault, words):
    given = {"features": np.eye(3), "first": [0, 1], "second": [2, 2], "p": [1.0, 0.0]} | columns
    with pytest.raises(fault, match=words):
        PreferenceTable(**given)


# ---- the fit ----


def test_bradley_terry_finds_the_direction_and_the_size_of_a_planted_reward():
    table, w = linear(8, 2000, 3.0)
    model = make_model("bt", ridge=1e-4).fit(table)
    assert cosine(weights(model), w) >= 0.99  # card 04 A1; 0.9988 where it was first measured
    assert abs(np.linalg.norm(weights(model)) / 3 - 1) < 0.1
    clean, _ = linear(8, 2000, 3.0, noise=False)
    assert make_model("bt").fit(table).score(clean) >= 0.97


def test_bradley_terry_on_features_as_they_are_is_scikit_learns_logistic_regression():
    table, _ = linear(5, 400, 2.0)
    ridge = 0.03
    model = make_model("bt", ridge=ridge, scale="none").fit(table)
    x = table.features[table.first] - table.features[table.second]
    oracle = LogisticRegression(C=1 / (ridge * len(x)), fit_intercept=False, tol=1e-12, max_iter=10_000)
    oracle.fit(x, table.p > 0.5)
    np.testing.assert_allclose(weights(model), oracle.coef_[0], atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(table), oracle.predict_proba(x), atol=1e-6)


def test_a_soft_label_is_the_same_as_its_votes_one_by_one():
    table, _ = linear(4, 300, 2.0)
    soft = table.with_columns(p=np.full(300, 0.7))
    n = np.arange(300)
    votes = table.take(np.concatenate([n] * 10)).with_columns(p=np.repeat([1.0] * 7 + [0.0] * 3, 300))
    fits = [make_model("bt", ridge=0.01).fit(each) for each in (soft, votes)]
    np.testing.assert_allclose(*[weights(fit) for fit in fits], atol=1e-6)


def test_a_weight_of_two_is_the_comparison_twice():
    table, _ = linear(4, 200, 2.0)
    heavy = table.with_columns(weight=np.where(np.arange(200) < 50, 2.0, 1.0))
    twice = table.take(np.concatenate([np.arange(200), np.arange(50)]))
    fits = [make_model("bt", ridge=0.01, scale="none").fit(each) for each in (heavy, twice)]
    np.testing.assert_allclose(*[weights(fit) for fit in fits], atol=1e-6)


def test_the_ridge_that_is_chosen_is_the_one_with_the_least_log_loss_on_left_out_conversations():
    table, _ = linear(30, 120, 1.0)
    model = make_model("bt").fit(table)
    tried = model.told_["ridges"]
    assert model.told_["ridge"] == min(tried, key=lambda row: row["log_loss"])["ridge"] > min(r["ridge"] for r in tried)


def test_separable_comparisons_and_no_ridge_leave_finite_weights():
    table, _ = linear(3, 50, 1.0, noise=False)
    model = make_model("bt", ridge=0.0).fit(table)
    assert np.isfinite(weights(model)).all()
    assert model.score(table) == 1


def test_constant_features_count_nothing_and_are_named():
    table, _ = linear(3, 100, 2.0)
    wide = np.concatenate([table.features, np.full((200, 1), 7.0)], axis=1)
    model = make_model("bt", ridge=0.01).fit(table.with_columns(features=wide, columns=("a", "b", "c", "flat")))
    assert model.notes_ == ["1 of 4 features (flat) are the same in all training responses: unused"]
    plain = make_model("bt", ridge=0.01).fit(table)
    np.testing.assert_allclose(weights(model)[:3], weights(plain), atol=1e-9)
    moved = table.with_columns(features=np.concatenate([table.features, np.full((200, 1), 9.0)], axis=1))
    np.testing.assert_allclose(model.decision_function(moved), plain.decision_function(table), atol=1e-9)


def test_features_that_are_not_finite_are_named_with_how_many_responses_lack_them():
    table, _ = linear(2, 20, 2.0)
    holed = table.features.copy()
    holed[3:5, 1] = np.nan
    with pytest.raises(DataError, match="feature ease is not finite for 2 responses; leave it out"):
        make_model("bt").fit(table.with_columns(features=holed, columns=("length", "ease")))


def test_ties_alone_teach_nothing_and_are_refused():
    table, _ = linear(2, 20, 2.0)
    with pytest.raises(DataError, match="of 20 comparisons none says which side is better"):
        make_model("bt").fit(table.with_columns(p=np.full(20, 0.5)))


def test_scaling_in_chunks_is_that_of_all_rows_at_once_and_one_spread_keeps_angles(monkeypatch):
    import unipref.rewards.models.data as data

    monkeypatch.setattr(data, "_CHUNK", 7)
    x = 1e4 + np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 2.0, 3.0]
    each, one = (Scaling.of(x, np.arange(50).repeat(2), how) for how in ("each", "all"))
    np.testing.assert_allclose(each.centre, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(each.spread, x.std(axis=0), rtol=1e-8)
    np.testing.assert_allclose(one.spread, np.full(3, np.sqrt(x.var(axis=0).mean())), rtol=1e-8)


def test_features_on_disk_are_read_batch_by_batch_and_give_the_same_fit(tmp_path):
    table, _w = linear(6, 3000, 3.0)
    held = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", dtype=np.float32, shape=table.features.shape)
    held[:] = table.features
    held.flush()
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = make_model("bt", ridge=1e-4).fit(table)
    parts = make_model("bt", ridge=1e-4)
    parts.fitting = type(parts.fitting)(optimizer="adam", ridge=1e-4)
    parts.fit(table.with_columns(features=mapped))
    assert cosine(weights(parts), weights(whole)) > 0.999


# ---- users and newcomers ----


def test_three_shared_rewards_are_told_from_one_and_newcomers_are_learned_from_a_handful_of_choices():
    seen, basis = ranked(60, 60, seed=0)
    again, _ = ranked(60, 60, seed=0)
    train, test = seen.take(np.arange(3600) % 3 > 0), again.take(np.arange(3600) % 3 == 0)
    one, three = (make_model("lore", rank=k, ridge=1e-4).fit(train) for k in (1, 3))
    assert three.score(test) >= one.score(test) + 0.15
    own, _ = ranked(20, 130, seed=1, basis=basis, first=1000)
    at = np.arange(2600) % 130
    grown = [three.adapt(own.take(at < n)).score(own.take(at >= 30)) for n in (3, 10, 30)]
    assert grown[0] < grown[1] < grown[2]
    assert np.all(np.array(grown) >= [0.80, 0.89, 0.94])  # card 04 B1: 0.852, 0.936, 0.969


def test_adapting_leaves_all_that_was_known_bit_by_bit_as_it_was():
    table, basis = ranked(10, 40)
    new, _ = ranked(3, 10, seed=1, basis=basis, first=100)
    model = make_model("lore", rank=3, ridge=0.001, epochs=30).fit(table)
    before = {name: value.clone() for name, value in model.net_.state_dict().items()}
    said = model.decision_function(table)
    grown = model.adapt(new)
    assert grown.users_ == (*model.users_, "u100", "u101", "u102")
    np.testing.assert_array_equal(grown.decision_function(table), said)
    for name, value in grown.net_.state_dict().items():
        known = value[: len(before[name])] if before[name].ndim else value
        assert torch.equal(known, before[name])
    assert all(torch.equal(value, before[name]) for name, value in model.net_.state_dict().items())


def test_somebody_unknown_gets_the_declared_fallback_and_is_counted():
    table, _ = ranked(5, 40)
    model = make_model("lore", rank=3, ridge=0.001, epochs=30).fit(table)
    strange = table.take(np.arange(40)).with_columns(user=np.array(["zoe"] * 30 + [None] * 10))
    told = model.unseen(strange)
    assert (told["users"], told["user_rows"]) == (["all", "zoe"], 40)
    assert told["fallback"] == "the mean of the known users' shares"
    by_user = np.stack([model.reward(strange.features, user=name) for name in model.users_])
    mean = by_user.mean(axis=0)  # rewards are linear in shares
    np.testing.assert_allclose(
        model.decision_function(strange), mean[strange.first] - mean[strange.second], rtol=1e-9, atol=1e-12
    )
    assert make_model("bt", ridge=0.1).fit(table).unseen(strange)["user_rows"] == 0  # it reads no user


def test_rewards_of_responses_differ_as_comparisons_say_for_the_user_who_is_asked():
    table, _ = ranked(4, 50)
    model = make_model("lore", rank=2, ridge=0.001, epochs=30).fit(table)
    mine = table.take(table.user == "u2")
    rewards = model.reward(table.features, user="u2")
    np.testing.assert_allclose(rewards[mine.first] - rewards[mine.second], model.decision_function(mine), atol=1e-12)


def test_a_model_without_users_cannot_be_adapted_and_one_with_needs_them():
    table, _ = linear(3, 60, 2.0)
    with pytest.raises(ConfigError, match="bt has no users or domains to adapt to; train one that has"):
        make_model("bt", ridge=0.1).fit(table).adapt(table)
    with pytest.raises(DataError, match="lore needs to know whose comparison it is"):
        make_model("lore").fit(table)


# ---- files ----


def test_a_model_is_read_back_exactly_and_one_that_was_not_fitted_says_so(tmp_path):
    table, _ = ranked(6, 40)
    model = make_model("lore", rank=2, ridge=0.001, epochs=20).fit(table)
    model.about = {"features": "planted"}
    model.save(tmp_path / "model")
    back = load_preference_model(tmp_path / "model")
    np.testing.assert_array_equal(back.decision_function(table), model.decision_function(table))
    assert (back.users_, back.about, back.told_, back.options["rank"]) == (model.users_, model.about, model.told_, 2)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.safetensors", "reward.json"]
    with pytest.raises(ConfigError, match="not fitted yet; call fit"):
        make_model("bt").decision_function(table)


def test_a_folder_that_holds_something_else_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match="holds no preference model"):
        load_preference_model(tmp_path)
    table, _ = linear(3, 60, 2.0)
    make_model("bt", ridge=0.1).fit(table).save(tmp_path / "m")
    told = json.loads((tmp_path / "m/reward.json").read_text())
    (tmp_path / "m/reward.json").write_text(json.dumps({**told, "format": "another"}))
    with pytest.raises(ConfigError, match="is not of the format"):
        load_preference_model(tmp_path / "m")
    (tmp_path / "m/reward.json").write_text(json.dumps(told))
    save_file({"net.head.weight": torch.zeros(1, 2)}, str(tmp_path / "m/model.safetensors"))
    with pytest.raises(ConfigError, match="the files are not of one model, or not whole"):
        load_preference_model(tmp_path / "m")
    (tmp_path / "m/model.safetensors").write_bytes(b"\x80\x04pickled")
    with pytest.raises(ConfigError, match="holds no preference model"):
        load_preference_model(tmp_path / "m")


def test_the_loss_is_the_objectives_own():
    table, _ = linear(3, 60, 2.0)
    model = make_model("bt", ridge=0.0, centring=0.01, margin=0.5, scale="none").fit(table)
    r = torch.from_numpy(model.reward(table.features))
    wins = table.p > 0.5
    loss = bradley_terry(centring=0.01, margin=0.5)(
        reward_head_chosen=r[np.where(wins, table.first, table.second)],
        reward_head_rejected=r[np.where(wins, table.second, table.first)],
    )
    assert model.told_["loss"] == pytest.approx(loss.item(), abs=1e-12)
