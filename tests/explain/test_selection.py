import numpy as np
import pytest
from planted import planted

from unipref.core.errors import ConfigError, DataError
from unipref.explain import HierarchicalPairRegressor, choose_penalties, folds_of, sign_stability


def test_a_prompt_is_never_in_two_folds_and_folds_are_of_like_size():
    groups = np.random.default_rng(0).integers(0, 40, 500)
    folds = folds_of(groups, 5)
    for group in range(40):
        assert len(set(folds[groups == group])) == 1
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()
    with pytest.raises(DataError, match="50 folds need as many prompts"):
        folds_of(groups, 50)


def test_pairs_that_stand_twice_under_one_prompt_do_not_change_the_choice():
    world = planted(0, n_domains=3, n_concepts=10, n_rows=40)
    prompts = np.arange(len(world.y))
    twice = [np.concatenate([a, b]) for a, b in ((world.X, -world.X), (world.y, 1 - world.y))]
    once = choose_penalties(world.X, world.y, world.domains, groups=prompts)
    again = choose_penalties(*twice, np.tile(world.domains, 2), groups=np.tile(prompts, 2))
    for a, b in zip(once.table, again.table, strict=True):
        assert a["log_loss"] == pytest.approx(b["log_loss"], abs=1e-6)
        assert a["accuracy"] == pytest.approx(b["accuracy"], abs=1e-12)


def test_the_choice_is_the_best_of_its_table_and_is_fitted_to_all_rows():
    world = planted(1, n_domains=2, n_concepts=12, n_rows=80)
    grid = [(0.5, 0.5), (0.1, 0.05), (0.01, 0.01)]
    found = choose_penalties(world.X, world.y, world.domains, grid=grid)
    losses = [row["log_loss"] for row in found.table]
    assert losses[found.chosen] == min(losses)
    settings = {key: found.table[found.chosen][key] for key in ("lambda_shared", "lambda_specific")}
    direct = HierarchicalPairRegressor(**settings).fit(world.X, world.y, world.domains)
    assert np.allclose(found.model.shared_, direct.shared_, atol=1e-6)
    assert found.table[found.chosen]["n_shared"] == (direct.shared_ != 0).sum()
    with pytest.raises(ConfigError, match="'log_loss' or 'accuracy'"):
        choose_penalties(world.X, world.y, by="auc")


def test_planted_signs_are_stable_and_those_of_noise_are_not():
    world = planted(2, n_domains=3, n_concepts=16, n_rows=150, shared=4, specific=0)
    model = HierarchicalPairRegressor(lambda_shared=0.02, lambda_specific=0.05)
    model.fit(world.X, world.y, world.domains)
    shared, own = sign_stability(model, world.X, world.y, world.domains, resamples=40)
    planted_ones = world.b != 0
    assert (shared[planted_ones] >= 0.9).all()
    assert own[:, planted_ones].min() >= 0.9
    assert shared[~planted_ones].mean() < 0.75
    assert (shared[model.shared_ == 0] == 0).all()


def test_penalties_go_on_below_the_nine_where_the_smallest_of_them_are_best_and_stop_where_they_are_not():
    rng = np.random.default_rng(5)
    X = rng.normal(size=(900, 6))
    names = np.repeat(["a", "b", "c"], 300)
    p = (rng.random(900) < 1 / (1 + np.exp(-X @ np.array([4.0, -4.0, 3.0, 0.0, 0.0, 0.0])))).astype(float)
    strong = choose_penalties(X, p, names)
    losses = [row["log_loss"] for row in strong.table]
    assert len(losses) > 9
    assert losses[strong.chosen] == min(losses) < min(losses[:9]) - 0.02
    largest = strong.table[0]["lambda_shared"] * 2
    assert strong.table[9]["lambda_shared"] == pytest.approx(largest / 30)
    assert strong.model.lambda_shared == strong.table[strong.chosen]["lambda_shared"]
    assert len(choose_penalties(X, rng.permutation(p), names).table) == 9
    assert len(choose_penalties(X, p, names, grid=[(0.2, 0.2), (0.1, 0.1)]).table) == 2
