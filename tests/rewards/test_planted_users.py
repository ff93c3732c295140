"""Models of users recover planted ones, with the figures of their cards, and reduce to what they say they reduce to."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.rewards.planted_tables import (
    ideal,
    linear,
    opposed_groups,
    ranked,
    routed,
    sigmoid,
    two_circles,
    two_slopes,
)

from unipref.core.errors import ConfigError, DataError
from unipref.rewards import PreferenceTable, load_preference_model, make_model
from unipref.rewards.models.graph import Edges, Propagation, neighbour_weights
from unipref.rewards.models.net import batch_of
from unipref.rewards.models.parts import UNSEEN, Rows
from unipref.rewards.newcomers import ALONE, POOLED, _draw, adaptation_curve
from unipref.rewards.simulated import simulate_users, standardised

KEYS = ("lore", "pal", "micro", "copl", "np_bt", "drm_pca")
QUICK = {
    "lore": {"rank": 2, "ridge": 1e-3, "epochs": 5, "adapt_steps": 20},
    "pal": {"ridge": 1e-3, "epochs": 5, "adapt_steps": 20},
    "micro": {"rank": 2, "ridge": 1e-3, "epochs": 5},
    "copl": {"experts": 2, "ridge": 1e-3, "epochs": 5, "graph_steps": 5},
    "np_bt": {"steps": 5},
    "drm_pca": {},
}


def halves(table):
    even = np.arange(len(table)) % 2 == 0
    return table.take(even), table.take(~even)


def place(table, per_user):
    """Which of a user's comparisons each one is, where users stand in blocks of `per_user`."""
    return np.arange(len(table)) % per_user


def rows_of(table, dtype=torch.float64, **changes):
    """The comparisons as they are, unscaled, with gradient in the features."""
    n = len(table)
    first, second = (
        torch.tensor(table.features[side], dtype=dtype, requires_grad=True) for side in (table.first, table.second)
    )
    given = {
        "first": first,
        "second": second,
        "user": torch.zeros(n, dtype=torch.long),
        "domain": torch.full((n,), UNSEEN),
        "p": torch.tensor(table.p),
        "weight": torch.tensor(table.weight),
        "margin": torch.tensor(table.margin),
        "index": torch.arange(n),
        "context": None if table.contexts is None else torch.tensor(table.contexts[table.context]),
    }
    return Rows(**(given | changes))


def said(net, objective, rows):
    """Logits, loss, and the loss' gradient in the features of both sides."""
    output = net(rows)
    loss = objective.loss(batch_of(rows, output)).total
    return output.logit, loss, *torch.autograd.grad(loss, (rows.first, rows.second))


def same(a, b, tolerance=1e-12):
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def fitted_net(key, table, **options):
    model = make_model(key, scale="none", **(QUICK[key] | options)).fit(table)
    return model, model.net_.requires_grad_(False)


def bt_with(weights):
    """Bradley-Terry's net with these weights, and its objective."""
    table, _ = linear(len(weights), 30, 1.0)
    model = make_model("bt", ridge=1e-3, scale="none").fit(table)
    model.net_.head.weight = torch.nn.Parameter(weights.detach().clone()[None])
    return model.net_, model.objective


# ---- LoRe ----


@pytest.fixture(scope="module")
def low_rank():
    """60 users x 60 comparisons to learn from and to be judged by; 20 newcomers; models of rank 1 and 3."""
    table, basis = ranked(60, 120, seed=1)
    train, test = halves(table)
    newcomers, _ = ranked(20, 130, seed=51, basis=basis, first=100)
    return (
        train,
        test,
        newcomers,
        {k: make_model("lore", rank=k, ridge=1e-4, adapt_steps=200).fit(train) for k in (1, 3)},
    )


def test_three_shared_rewards_are_recovered_from_sixty_choices_of_each_user(low_rank):
    train, test, _, models = low_rank
    right, wins = 0.0, models[3].score(test)
    assert wins >= models[1].score(test) + 0.15  # the card: 0.976 and 0.717
    assert wins >= 0.95
    for user in train.users[:20]:
        own = make_model("bt", ridge=1e-3).fit(train.take(train.user == user))
        right += own.score(test.take(test.user == user)) / 20
    judged = test.take(np.isin(test.user, train.users[:20]))
    assert models[3].score(judged) >= right + 0.03  # the card: 0.909 for models of single users


def test_a_newcomer_of_a_low_rank_world_is_known_better_with_every_choice(low_rank):
    _, _, newcomers, models = low_rank
    judged = newcomers.take(place(newcomers, 130) >= 30)
    found = [models[3].adapt(newcomers.take(place(newcomers, 130) < n)).score(judged) for n in (3, 10, 30)]
    assert found == sorted(found)
    np.testing.assert_allclose(found, [0.852, 0.936, 0.969], atol=0.04)  # the card
    alike = models[1].adapt(newcomers.take(place(newcomers, 130) < 30))
    assert alike.score(judged) == models[1].score(judged) < 0.8


def test_one_shared_reward_is_bradley_terry_in_scores_loss_and_gradient():
    table, _ = ranked(3, 20, d=5)
    model, net = fitted_net("lore", table, rank=1)
    weights = net.head.anchor[0] + net.head.departure[0]
    bt, objective = bt_with(weights)
    same(said(net, model.objective, rows_of(table)), said(bt, objective, rows_of(table)))


def test_a_strong_ridge_gives_every_user_the_pooled_reward():
    table, _ = ranked(6, 40, d=4)
    strong = make_model("lore", rank=3, ridge=1e4, epochs=100).fit(table)
    pooled = make_model("bt").fit(table)
    for name in table.users:
        own = table.take(table.user == name)
        scores = strong.decision_function(own), pooled.decision_function(own)
        assert np.corrcoef(*scores)[0, 1] > 0.999
        assert np.abs(scores[0] - scores[1]).max() < 0.05 * np.abs(scores[1]).max()
    free = make_model("lore", rank=3, ridge=1e-3, towards="nothing", epochs=5).fit(table)
    assert not free.net_.head.anchor.any()


def test_every_user_counts_alike_or_every_comparison_does():
    """One user asks for +x in 900 comparisons, one for -x in 100: 9 to 1 by comparisons, a tie by users."""
    x = 0.5 * np.ones((1000, 1))
    user = ["many"] * 900 + ["few"] * 100
    table = PreferenceTable.of_arrays(x, -x, [1.0] * 900 + [0.0] * 100, user=user)
    options = {"rank": 1, "ridge": 1e-6, "scale": "none", "epochs": 100, "lr": 0.1}
    by_user = make_model("lore", **options).fit(table)
    by_comparison = make_model("lore", equal_users=False, **options).fit(table)
    assert abs(by_user.decision_function(table.take([0]))[0]) < 0.1
    assert by_comparison.decision_function(table.take([0]))[0] == pytest.approx(math.log(9), abs=0.1)


def test_a_shared_reward_of_which_nobody_has_a_share_is_taken_from_all():
    table, _ = ranked(6, 40, d=4)
    keeps = make_model("lore", rank=3, ridge=1e-3, prune=0.0, epochs=20).fit(table)
    assert keeps.told_["pruned"] == 0
    # three even shares: a threshold above them leaves the largest alone, and the shares still add up to 1
    prunes = make_model("lore", rank=3, ridge=1e-3, prune=0.9, epochs=1).fit(table)
    shares = prunes.net_.encoder.of(torch.tensor([0, UNSEEN]))
    assert prunes.told_["pruned"] == 2
    assert ((shares > 0).sum(dim=1) == 1).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(2, dtype=shares.dtype))
    new = table.with_columns(user=[f"new {name}" for name in table.user])
    assert (prunes.adapt(new).net_.encoder.of(torch.arange(12))[:, ~prunes.net_.encoder.alive] == 0).all()


# ---- PAL ----


@pytest.fixture(scope="module")
def opposed():
    train, test = halves(ideal(40, 120, seed=0))
    return train, test, {k: make_model("pal", rank=k, ridge=1e-4).fit(train) for k in (1, 2)}


def test_two_opposed_ideal_points_are_recovered_and_one_is_not_enough(opposed):
    _, test, models = opposed
    assert models[1].score(test) <= 0.75  # the card: 0.691; by the world's law 0.696
    assert models[2].score(test) >= 0.95  # the card: 0.974
    group = np.array([name[-1] == "1" for name in models[2].users_])
    nearest = models[2].net_.encoder.codes.argmax(dim=1).numpy()
    assert max((nearest == group).mean(), (nearest != group).mean()) == 1.0


def test_a_newcomers_ideal_point_is_found_from_a_few_choices(opposed):
    newcomers = ideal(100, 60, seed=50, first=100)
    judged = newcomers.take(place(newcomers, 60) >= 20)
    model = opposed[2][2]
    found = [model.adapt(newcomers.take(place(newcomers, 60) < n)).score(judged) for n in (1, 2, 5, 10, 20)]
    assert found == sorted(found)
    assert (np.array(found) >= np.array([0.774, 0.859, 0.906, 0.954, 0.971]) - 0.02).all()  # the card


def test_with_one_prototype_all_users_share_their_scores():
    table = ideal(4, 30, seed=3)
    for form in ("distance", "angle"):
        model = make_model("pal", form=form, rank=1, ridge=1e-3, epochs=5).fit(table)
        alone = [model.reward(table.features[:9], user=name) for name in (*model.users_, None)]
        assert all((values == alone[0]).all() for values in alone)


def test_an_ideal_point_far_away_is_a_linear_reward():
    """|y_r - t e| - |y_c - t e| -> e . (y_c - y_r), at t = 1e4 to 1e-3."""
    table = ideal(2, 20, seed=4)
    _, net = fitted_net("pal", table, rank=1)
    e = torch.tensor([0.6, 0.8, 0.0, 0.0], dtype=torch.float64)
    net.mixing.points = torch.nn.Parameter(1e4 * e[None])
    rows = rows_of(table)
    torch.testing.assert_close(net(rows).logit, (rows.first - rows.second) @ e, rtol=0, atol=2e-3)


def test_exchanging_the_prototypes_exchanges_shares_and_leaves_scores(opposed):
    test, model = opposed[1], opposed[2][2]
    before = model.decision_function(test)
    model.net_.mixing.points.data = model.net_.mixing.points.data.flip(0)
    model.net_.encoder.codes.data = model.net_.encoder.codes.data.flip(1)
    np.testing.assert_allclose(model.decision_function(test), before, atol=1e-12)


def test_angles_turn_with_the_prompt_where_they_are_told_to():
    table, _ = routed(400, seed=0)
    table = table.with_columns(user=["ann", "bob"] * 200)
    model = make_model("pal", form="angle", prompts=True, rank=2, ridge=1e-3, epochs=60).fit(table)
    still = make_model("pal", form="angle", rank=2, ridge=1e-3, epochs=60).fit(table)
    assert model.score(table) >= still.score(table) + 0.1
    other = table.with_columns(context=np.roll(table.context, 1))
    assert (model.decision_function(other) != model.decision_function(table)).any()
    with pytest.raises(ConfigError, match="prompts turn angles"):
        make_model("pal", prompts=True)


# ---- MiCRo ----


def test_two_tastes_that_the_prompt_decides_are_told_apart():
    train, test = halves(routed(4000, seed=0)[0])
    one = make_model("micro", rank=1, ridge=1e-4, epochs=20).fit(train).score(test)
    two = make_model("micro", rank=2, ridge=1e-4, lr=0.05, epochs=50).fit(train).score(test)
    assert one <= 0.72  # the card: 0.64
    assert two >= 0.95  # the card: 0.979
    assert two >= one + 0.25
    mixed = make_model("micro", rank=2, mix="reward", ridge=1e-4, lr=0.05, epochs=50).fit(train).score(test)
    assert mixed >= 0.94  # the card: 0.971


@pytest.mark.parametrize("mix", ["probability", "reward"])
def test_one_head_or_equal_heads_are_bradley_terry_under_every_router(mix):
    table, _ = routed(40, d=5, e=3)
    weights = torch.linspace(-2, 2, 5, dtype=torch.float64)
    bt, objective = bt_with(weights)
    expected = said(bt, objective, rows_of(table))
    for rank in (1, 4):
        model, net = fitted_net("micro", table, rank=rank, mix=mix)
        net.head.weight = torch.nn.Parameter(weights.repeat(rank, 1))
        net.encoder.router.layers[0].weight.data.normal_()
        same(said(net, model.objective, rows_of(table)), expected)


def test_a_mixture_is_the_mean_of_probabilities_and_at_most_the_largest():
    table, _ = routed(40, d=5, e=3)
    _, net = fitted_net("micro", table, rank=3)
    rows = rows_of(table)
    shares, delta = net.encoder(rows), net.head(rows.first) - net.head(rows.second)
    probabilities = torch.sigmoid(delta)
    mixed = torch.sigmoid(net(rows).logit)
    torch.testing.assert_close(mixed, (shares * probabilities).sum(dim=1))
    assert (mixed <= probabilities.amax(dim=1) + 1e-12).all()
    far = replace(rows, first=1e3 * rows.first.detach())
    assert torch.isfinite(net(far).logit).all()


def test_ten_choices_say_which_of_two_heads_a_newcomer_has():
    """Two independent unit tastes times 3 over 8 features, choices by the likelihood of the first (200 newcomers)."""
    rng = np.random.default_rng(0)
    heads = np.linalg.qr(rng.normal(size=(8, 2)))[0].T
    table, _ = routed(60)
    model = make_model("micro", rank=2, ridge=1e-3, scale="none", epochs=2).fit(table)
    model.net_.head.weight = torch.nn.Parameter(torch.tensor(3 * heads), requires_grad=False)
    a, b = rng.normal(size=(2000, 8)), rng.normal(size=(2000, 8))
    p = (rng.random(2000) < sigmoid(3 * (a - b) @ heads[0])).astype(float)
    user = np.repeat([f"new {k}" for k in range(200)], 10)
    chosen = PreferenceTable.of_arrays(a, b, p, user=user, contexts=rng.normal(size=(2000, 4)))
    known = model.adapt(chosen)
    assert known.net_.encoder.weights[:, 0].mean() >= 0.85  # the card: 0.934
    by_hand = np.exp(-np.logaddexp(0, -np.where(p[:10] > 0, 1, -1)[:, None] * 3 * (a - b)[:10] @ heads.T).sum(axis=0))
    number = known.users_.index("new 0")
    np.testing.assert_allclose(known.net_.encoder.weights[number], by_hand / by_hand.sum(), atol=1e-12)
    backwards = model.adapt(chosen.take(np.arange(2000)[::-1]))
    np.testing.assert_allclose(backwards.net_.encoder.weights, known.net_.encoder.weights, atol=1e-12)


def test_shares_of_zero_give_finite_losses_and_gradients():
    table, _ = routed(40, d=5, e=3)
    model, net = fitted_net("micro", table, rank=2)
    net.encoder.weights = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = said(net, model.objective, rows_of(table))
    assert all(torch.isfinite(values).all() for values in found)
    bt, objective = bt_with(net.head.weight[0])
    same(found, said(bt, objective, rows_of(table)))


# ---- CoPL ----


@pytest.fixture(scope="module")
def circles():
    """(comparisons, hidden ones, newcomers' comparisons, model) by share of flipped labels."""
    found, options = {}, {"experts": 4, "ridge": 1e-3, "epochs": 60, "graph_steps": 80}
    for flips in (0.0, 0.1):
        train, hidden, responses = two_circles(flips=flips, seed=1)
        newcomers, _, _ = two_circles(40, judged=60, seed=51, first=1000, responses=responses)
        found[flips] = (
            train,
            hidden,
            newcomers,
            make_model("copl", **options).fit(train),
        )
    return found


def test_ten_judgements_each_tell_two_groups_of_a_hundred_users_apart(circles):
    _, hidden, _, model = circles[0.0]
    assert model.score(hidden) >= 0.99  # the card: 1.0
    vectors = torch.nn.functional.normalize(model.net_.encoder.vectors, dim=1)
    cosine = (vectors @ vectors.T).numpy()
    group = np.array([name[-1] == "1" for name in model.users_])
    alike = group[:, None] == group
    assert cosine[alike & ~np.eye(100, dtype=bool)].mean() >= 0.95  # the card: 0.996
    assert cosine[~alike].mean() <= 0.3  # the card: 0.07


def test_with_a_tenth_of_the_labels_flipped_users_and_newcomers_are_still_known(circles):
    _, hidden, newcomers, model = circles[0.1]
    assert model.score(hidden) >= 0.85
    known = model.adapt(newcomers.take(place(newcomers, 60) < 2))
    judged = newcomers.take(place(newcomers, 60) >= 2)
    assert known.score(judged) >= 0.85
    assert known.score(judged) >= model.score(judged) + 0.2  # somebody unknown gets the mean user


def test_a_newcomer_of_two_choices_is_put_into_the_right_circle(circles):
    _, _, newcomers, model = circles[0.0]
    known = model.adapt(newcomers.take(place(newcomers, 60) < 2))
    assert known.score(newcomers.take(place(newcomers, 60) >= 2)) >= 0.98  # the card: 1.0
    gate = known.net_.encoder
    group = np.array([name[-1] for name in known.users_])
    vectors = torch.nn.functional.normalize(gate.vectors, dim=1).numpy()
    centres = np.stack([vectors[:100][group[:100] == g].mean(axis=0) for g in "01"])
    assert ((vectors[100:] @ centres.T).argmax(axis=1) == (group[100:] == "1")).all()


def test_a_response_is_known_again_by_its_features_in_another_table(circles):
    _, _, newcomers, model = circles[0.0]
    few = newcomers.take(place(newcomers, 60) < 2)
    copied = PreferenceTable.of_arrays(
        few.features[few.first].astype(np.float32), few.features[few.second].astype(np.float32), few.p, user=few.user
    )
    assert torch.equal(model.adapt(copied).net_.encoder.vectors, model.adapt(few).net_.encoder.vectors)


def test_somebody_without_a_neighbour_is_the_mean_user(circles):
    train, _, _, model = circles[0.0]
    rng = np.random.default_rng(0)
    stranger = PreferenceTable.of_arrays(rng.normal(size=(3, 16)), rng.normal(size=(3, 16)), user=["new"] * 3)
    known = model.adapt(stranger)
    assert torch.equal(known.net_.encoder.vectors[-1:], model.net_.encoder.mean)
    rewards = known.reward(train.features[:5], user="new")
    assert np.isfinite(rewards).all()
    np.testing.assert_array_equal(rewards, model.reward(train.features[:5], user="nobody"))


def test_the_temperature_of_neighbours_goes_from_the_nearest_to_the_mean_of_all():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [5.0, 5.0]])
    items = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    liked = torch.tensor([[0, 1, 2], [0, 0, 0]])  # the last user liked nothing
    chosen, rejected = torch.tensor([0]), torch.tensor([1])
    weights = {t: neighbour_weights(vectors, items, liked, chosen, rejected, t) for t in (1e-3, 1.0, 1e6)}
    assert weights[1e-3].tolist() == [1.0, 0.0, 0.0, 0.0]
    torch.testing.assert_close(weights[1e6], torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0]), rtol=0, atol=1e-5)
    fit = np.array([sigmoid(2.0), sigmoid(1.0), sigmoid(-2.0)])  # softmax of their logarithms at temperature 1
    np.testing.assert_allclose(weights[1.0][:3], fit / fit.sum(), rtol=1e-6)
    assert not neighbour_weights(vectors, items, liked, torch.tensor([1]), torch.tensor([0]), 1.0).any()


def test_without_rounds_the_graph_is_matrix_factorisation_and_a_round_is_what_the_formula_says():
    torch.manual_seed(0)
    edges = Edges(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0]), torch.ones(3), 2, 3)
    plain = Propagation(edges, 4, 0, 0.0)
    by_hand = [
        (plain.users[u] @ (plain.items[c] - plain.items[r])).detach() for u, c, r in ((0, 0, 1), (0, 1, 2), (1, 2, 0))
    ]
    torch.testing.assert_close(plain(None).logit.detach(), torch.stack(by_hand))
    one = Propagation(edges, 4, 1, 0.0)
    w1, w2, w0 = (m.weight.detach().double() for m in one.rounds[0][0])
    user, item = one.users.detach().double(), one.items.detach().double()
    # user 0 chose 0 and 1, and rejected 1 and 2; each response was chosen once and rejected once
    liked, disliked = (item[0] + item[1]) / math.sqrt(2), (item[1] + item[2]) / math.sqrt(2)
    total = liked + w1 @ (liked * user[0]) - disliked - w2 @ (disliked * user[0]) + w0 @ user[0]
    expected = torch.where(total > 0, total, 0.2 * total)
    torch.testing.assert_close(one.vectors()[0][0].detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_one_expert_is_bradley_terry_with_the_sum_of_both_rewards():
    table, _, _ = two_circles(6, pairs=10, d=4)
    model, net = fitted_net("copl", table, experts=1)
    bt, objective = bt_with(net.head.weight.sum(dim=0))
    same(said(net, model.objective, rows_of(table)), said(bt, objective, rows_of(table)))


# ---- NP-BT ----


@pytest.fixture(scope="module")
def amortised():
    return make_model("np_bt", steps=500).fit(two_slopes(300, 25, seed=0))


def test_a_neural_process_comes_near_the_ceilings_of_its_world_and_not_above(amortised):
    newcomers = two_slopes(200, 60, seed=50, first=1000)  # as many of either kind
    judged = newcomers.take(place(newcomers, 60) >= 10)
    assert amortised.score(judged) <= 0.75 + 0.02
    for n, least in ((1, 0.83), (3, 0.90), (10, 0.95)):  # the card: 0.866, 0.949, 0.994
        found = amortised.adapt(newcomers.take(place(newcomers, 60) < n)).score(judged)
        assert least <= found <= 1 - 0.25 * 2.0**-n + 0.02


@pytest.mark.parametrize("heads", [0, 2])
def test_the_order_of_choices_does_not_count_and_ties_say_nothing(heads):
    table = two_slopes(8, 9, seed=2)
    model = make_model("np_bt", steps=3, heads=heads, hidden=8).fit(table)
    new = two_slopes(3, 7, seed=3, first=100)
    codes = model.adapt(new).net_.encoder.codes[8:]
    backwards = model.adapt(new.take(np.arange(21)[::-1])).net_.encoder.codes[8:]
    torch.testing.assert_close(backwards, codes, rtol=0, atol=1e-12)
    turned = model.adapt(new.swapped()).net_.encoder.codes[8:]
    torch.testing.assert_close(turned, codes, rtol=0, atol=1e-12)
    tied = new.with_columns(p=np.where(place(new, 7) < 4, new.p, 0.5))
    few = model.adapt(new.take(place(new, 7) < 4)).net_.encoder.codes[8:]
    torch.testing.assert_close(model.adapt(tied).net_.encoder.codes[8:], few, rtol=0, atol=1e-12)
    alone = model.adapt(new.take(new.user == "u101.1")).net_.encoder.codes[8:]
    torch.testing.assert_close(alone, codes[1:2], rtol=0, atol=1e-12)


def test_without_choices_the_code_is_one_constant(amortised):
    rewards = [amortised.reward(np.linspace(0, 1, 5)[:, None], user=name) for name in ("somebody", "else", None)]
    assert all((values == rewards[0]).all() for values in rewards)
    tied = two_slopes(1, 3, first=5000)
    nothing = amortised.adapt(tied.with_columns(p=np.full(3, 0.5)))
    np.testing.assert_allclose(
        nothing.reward(np.linspace(0, 1, 5)[:, None], user="u5000.0"), rewards[0], rtol=0, atol=1e-12
    )


# ---- DRM ----


def test_principal_axes_are_the_planted_ones_and_fifteen_choices_find_a_users_own():
    train, turn = opposed_groups(60, 100, seed=0, norm=30.0)
    model, bt = make_model("drm_pca", components=6).fit(train), make_model("bt", ridge=0.01).fit(train)
    assert (np.abs((model.net_.head.weight[:3].numpy() * turn[:3]).sum(axis=1)) >= 0.99).all()
    newcomers, _ = opposed_groups(60, 150, seed=50, norm=30.0, first=100, turn=turn)
    judged = newcomers.take(place(newcomers, 150) >= 50)
    assert abs(bt.score(judged) - 0.5) < 0.05
    found = [model.adapt(newcomers.take(place(newcomers, 150) < n)).score(judged) for n in (2, 5, 15, 50)]
    assert found == sorted(found)
    assert found[2] >= bt.score(judged) + 0.2
    np.testing.assert_allclose(found, [0.62, 0.74, 0.95, 0.96], atol=0.06)  # the card


def test_the_sign_of_an_axis_and_a_rotation_of_the_features_change_no_prediction():
    table, _ = opposed_groups(12, 20, d=6, seed=0)
    model = make_model("drm_pca").fit(table)
    before = model.decision_function(table)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    turned = replace(table, features=table.features @ turn)
    np.testing.assert_allclose(make_model("drm_pca").fit(turned).decision_function(turned), before, atol=1e-8)
    newcomers = table.with_columns(user=[f"new {name}" for name in table.user])
    expected = model.adapt(newcomers).decision_function(newcomers)
    model.net_.head.weight[1] *= -1
    np.testing.assert_allclose(model.adapt(newcomers).decision_function(newcomers), expected, atol=1e-12)


def test_a_hot_softmax_says_nothing_and_a_cold_one_follows_the_best_axis():
    table, _ = opposed_groups(12, 20, d=6, seed=0)
    hot = make_model("drm_pca", temperature=1e12).fit(table)
    np.testing.assert_allclose(hot.decision_function(table), 0.0, atol=1e-9)
    cold = make_model("drm_pca", temperature=1e-6).fit(table)
    assert ((cold.net_.encoder.codes != 0).sum(dim=1) == 1).all()


def test_the_mean_difference_is_a_head_of_its_own_where_it_is_kept():
    table, w = linear(6, 800, 3.0)
    with_mean, without = (make_model("drm_pca", components=3, keep_mean=keep).fit(table) for keep in (True, False))
    first = with_mean.net_.head.weight[0].numpy()
    assert first @ w / np.linalg.norm(w) >= 0.98
    assert with_mean.net_.head.weight.shape[0] == without.net_.head.weight.shape[0] + 1
    assert with_mean.score(table) >= without.score(table) + 0.05


def test_the_weights_of_one_choice_by_hand():
    """Scores 1 and -1 on one axis: spread 1, standardised difference 2 or -2."""
    table = PreferenceTable.of_arrays(np.eye(2), -np.eye(2), user=["ann", "bob"])
    model = make_model("drm_pca", scale="none").fit(table)
    axes = model.net_.head.weight.numpy()
    scores = axes @ np.eye(2)[0]  # ann's; the rejected response has the negatives
    spread = np.where(np.abs(scores) > 1e-9, np.abs(scores), 1.0)
    losses = np.logaddexp(0, -np.concatenate([2 * scores / spread, -2 * scores / spread]))
    shares = np.exp(-losses) / np.exp(-losses).sum()
    np.testing.assert_allclose(model.net_.encoder.codes[0], (shares[:2] - shares[2:]) / spread, atol=1e-12)


# ---- all of them ----


@pytest.mark.parametrize("key", KEYS)
def test_newcomers_leave_everybody_else_and_the_unknown_bit_by_bit_as_they_were(key, tmp_path):
    table, _, responses = two_circles(6, pairs=20, judged=12, d=5)
    new, _, _ = two_circles(4, pairs=20, judged=6, d=5, seed=9, first=100, responses=responses)
    one_sided = new.with_columns(p=np.ones(len(new)))
    model = make_model(key, **QUICK[key]).fit(table)
    names = (*model.users_, "nobody", None)
    before = [model.reward(responses, user=name) for name in names]
    grown = model.adapt(one_sided.take(new.user != new.users[0])).adapt(new.take(new.user == new.users[0]))
    assert grown.users_ == (*model.users_, *new.users[1:], new.users[0])
    assert all((grown.reward(responses, user=n) == b).all() for n, b in zip(names, before, strict=True))
    assert all((model.reward(responses, user=n) == b).all() for n, b in zip(names, before, strict=True))
    assert np.isfinite(grown.decision_function(new)).all()
    grown.save(tmp_path / "model")
    loaded = load_preference_model(tmp_path / "model")
    np.testing.assert_array_equal(loaded.decision_function(new), grown.decision_function(new))
    again = two_circles(1, pairs=20, judged=5, d=5, seed=11, first=200, responses=responses)[0]
    np.testing.assert_array_equal(
        loaded.adapt(again).decision_function(again), grown.adapt(again).decision_function(again)
    )
    with pytest.raises(DataError, match="no user that the model does not know already"):
        grown.adapt(new)


@pytest.mark.parametrize("key", KEYS)
def test_users_who_only_tied_or_who_are_nobody_leave_finite_models(key):
    table, _, responses = two_circles(6, pairs=20, judged=12, d=5)
    user = np.where(table.user == table.users[0], None, table.user)
    p = np.where(table.user == table.users[1], 0.5, table.p)
    odd = replace(table, features=np.c_[responses, np.ones(len(responses))], _checked=False)
    odd = odd.with_columns(user=user, p=p)
    model = make_model(key, **QUICK[key]).fit(odd)
    assert np.isfinite(model.decision_function(odd)).all()
    assert all(torch.isfinite(value).all() for value in model.net_.state_dict().values())
    unknown = model.unseen(odd.with_columns(user=["stranger"] * len(odd)))
    assert unknown["user_rows"] == len(odd)
    assert unknown["fallback"]


# ---- simulated users and the curve ----


def scored(n=1500, d=8, scorers=4, seed=0):
    """Responses in pairs, one conversation each, and the scores of linear scorers."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2 * n, d))
    table = PreferenceTable(features, np.arange(n), np.arange(n, 2 * n), rng.integers(0, 2, n).astype(float))
    return table, features @ rng.normal(size=(d, scorers)) * 10.0 ** np.arange(scorers)


def test_a_simulated_user_of_one_scorer_chooses_as_it_does_and_no_unit_counts():
    table, scores = scored()
    made = simulate_users(table, scores, seen=5, newcomers=3, pairs=30, alpha=1e-9)
    assert (made.shares.max(axis=1) > 1 - 1e-6).all()
    for part in (made.seen, made.newcomers):
        own = made.shares.argmax(axis=1)[[int(name.split(".")[1]) for name in part.user]]
        assert (part.p == (scores[part.first, own] > scores[part.second, own])).all()
    other = simulate_users(table, 5.0 + 0.01 * scores, seen=5, newcomers=3, pairs=30, alpha=1.0)
    again = simulate_users(table, scores, seen=5, newcomers=3, pairs=30, alpha=1.0)
    assert (other.seen.p == again.seen.p).all()
    assert (other.newcomers.p == again.newcomers.p).all()
    turned = simulate_users(table.with_columns(p=1 - table.p), scores, seen=5, newcomers=3, pairs=30, alpha=1.0)
    assert (turned.seen.p == again.seen.p).all()  # the table's labels are not read


def test_simulated_users_agree_the_more_the_larger_alpha_is():
    """Of 8 responses a user's best: how often two users differ, at ten independent scorers (the card's figures)."""
    rng = np.random.default_rng(0)
    z = standardised(rng.normal(size=(8 * 400, 10))).reshape(400, 8, 10)
    found = []
    for alpha in (0.1, 1.0, 10.0, 100.0):
        shares = rng.dirichlet(np.full(10, alpha), size=60)
        best = np.einsum("nrs,us->unr", z, shares).argmax(axis=2)
        found.append(1 - np.mean([(best[i] == best[j]).mean() for i in range(60) for j in range(i)]))
    assert found == sorted(found, reverse=True)
    np.testing.assert_allclose(found, [0.78, 0.62, 0.28, 0.10], atol=0.05)


def test_simulated_newcomers_judge_conversations_that_no_seen_user_judged():
    table, scores = scored(200)
    table = table.with_columns(group=np.arange(200) // 4)
    made = simulate_users(table, scores, seen=6, newcomers=4, pairs=20)
    assert not set(made.seen.group) & set(made.newcomers.group)
    assert set(made.seen.users) == {f"simulated.{k}" for k in range(6)}
    assert len(made.newcomers) == 80
    together = simulate_users(table, scores, seen=6, newcomers=4, pairs=20, apart=False)
    assert set(together.seen.group) & set(together.newcomers.group)
    noisy = simulate_users(table, scores, seen=6, newcomers=4, pairs=20, temperature=1e9)
    assert 0.3 < (noisy.seen.p == made.seen.p).mean() < 0.7
    with pytest.raises(DataError, match="half of the conversations have 100 comparisons, and a user is"):
        simulate_users(table, scores, pairs=150)
    with pytest.raises(DataError, match="the scorer flat gives all 400 responses the same score"):
        simulate_users(table, np.c_[scores, np.ones(400)], pairs=20, scorers=("a", "b", "c", "d", "flat"))
    with pytest.raises(DataError, match="number 1 has no finite score for 2 responses"):
        standardised(np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 1.0]]))


def test_the_curve_of_newcomers_shows_what_a_model_gains_over_one_for_all_and_one_alone():
    table, scores = scored()
    made = simulate_users(table, scores, seen=40, newcomers=15, pairs=40, alpha=0.1)
    few = made.newcomers.take(np.flatnonzero((made.newcomers.user != "simulated.40") | (np.arange(600) < 9)))
    lore = make_model("lore", rank=4, ridge=1e-3, epochs=60, adapt_steps=100)
    curve = adaptation_curve(
        {"lore": lore, "bt": make_model("bt", ridge=0.01)}, made.seen, few, counts=(8, 2), seeds=(0, 1),
    )  # fmt: skip
    # the newcomer with 9 choices has 8 to learn from and 1 to be judged by
    assert (curve.users, curve.left_out, curve.judged, curve.draws) == (15, (), 14 * 32 + 1, 2)
    assert [(point.model, point.choices) for point in curve.points] == [
        (POOLED, 0), (ALONE, 2), (ALONE, 8), ("lore", 0), ("lore", 2), ("lore", 8), ("bt", 0),
    ]  # fmt: skip
    assert curve.at("lore", 8).over_pooled.low > 0.1
    assert curve.at("lore", 8).accuracy.value > curve.at(ALONE, 8).accuracy.value + 0.1
    assert curve.at("lore", 8).accuracy.value > curve.at("lore", 2).accuracy.value
    assert abs(curve.at("bt", 0).over_pooled.value) < 0.02
    assert curve.as_dict()["points"][0]["accuracy"] == curve.at(POOLED, 0).accuracy.as_list()
    with pytest.raises(DataError, match="are in the comparisons that models are trained on"):
        adaptation_curve({}, made.seen, made.seen)
    with pytest.raises(DataError, match="no newcomer has 64 choices"):
        adaptation_curve({}, made.seen, made.newcomers, counts=(64,))


def test_nobody_is_judged_by_a_conversation_that_was_learned_from():
    table = scored(200)[0]
    table = table.with_columns(group=np.arange(200) // 5, user=np.repeat(["ann", "bob"], 100))
    for inside, outside in _draw(table, 7, seed=0).values():
        assert (len(inside), len(outside)) == (7, 100 - 10)  # two conversations of five are not judged by
        assert not set(table.group[inside]) & set(table.group[outside])
