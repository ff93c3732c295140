"""Models of a whole population, on worlds whose makers are known, and the special cases that their cards name.

The figures are card 04's, measured by its writer on worlds of the same kind; what is asserted is what the card asks.
"""

import math

import numpy as np
import pytest
import torch
from tests.rewards.planted_tables import (
    circle,
    linear,
    named,
    related,
    routed,
    strengthened,
    tournament,
    two_ends,
    voted,
)

from unipref.core.errors import ConfigError, DataError
from unipref.explain.compositional import CompositionalPreferenceModel
from unipref.features.concepts import Concept, PairValues
from unipref.features.linear_score import LinearScore
from unipref.objectives import bt as bradley_terry
from unipref.objectives import class_entropy, transport
from unipref.rewards import PreferenceTable, make_model
from unipref.rewards.catalogue.cpm import linear_score_of
from unipref.rewards.catalogue.dprm import category_shares, dirichlet_mean, votes_of
from unipref.rewards.models.net import batch_of
from unipref.rewards.models.parts import Rows, Sizes
from unipref.rewards.models.steps import predicted_attributes


def weights(model):
    """Of the features as they came."""
    return model.net_.head.weight[0].numpy() / model.scaling_.spread


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def loss_and_slopes(net, objective, rows):
    """The logits, the loss, and its gradient with respect to both sides' features."""
    held = Rows(
        **{**vars(rows), "first": rows.first.clone().requires_grad_(), "second": rows.second.clone().requires_grad_()}
    )
    output = net(held)
    loss = objective.loss(batch_of(held, output)).total
    return output.logit.detach(), loss.detach(), *torch.autograd.grad(loss, [held.first, held.second])


def rows_of(model, table):
    return model._data(table).rows(np.arange(len(table)))


def same(one, other):
    """Two models are one on a table: scores, loss and gradient with respect to the features."""
    (a, rows_a), (b, rows_b) = one, other
    for x, y in zip(
        loss_and_slopes(a.net_, a.objective, rows_a), loss_and_slopes(b.net_, b.objective, rows_b), strict=True
    ):
        np.testing.assert_allclose(x, y, atol=1e-6)


def minimum(objective, **pair):
    """The reward difference at which one comparison has the least loss."""
    z = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [z], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-18, tolerance_grad=1e-12
    )

    def closure():
        optimizer.zero_grad()
        loss = objective(reward_head_chosen=z, reward_head_rejected=torch.zeros_like(z), **pair)
        loss.backward()
        return loss

    optimizer.step(closure)
    return z.item()


# ---- A1: Bradley-Terry ----


def test_equal_rewards_cost_log_2_and_a_constant_has_no_pull():
    rewards = torch.full((6,), 3.0, dtype=torch.float64)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    loss = bradley_terry()(reward_head_chosen=rewards + bias, reward_head_rejected=rewards + bias)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-15)
    assert bias.grad == 0


def test_a_constant_added_to_all_rewards_changes_nothing_until_they_are_centred():
    a, b = (torch.from_numpy(x) for x in np.random.default_rng(0).normal(size=(2, 9)))
    plain, centred = bradley_terry(), bradley_terry(centring=0.01)
    assert plain(reward_head_chosen=a + 5, reward_head_rejected=b + 5).item() == pytest.approx(
        plain(reward_head_chosen=a, reward_head_rejected=b).item(), abs=1e-12
    )
    moved, still = (centred(reward_head_chosen=a + c, reward_head_rejected=b + c) for c in (5.0, 0.0))
    assert (moved - still).item() == pytest.approx(0.01 * (((a + b + 10) ** 2).mean() - ((a + b) ** 2).mean()).item())


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"margin": 0.0}, {}),
        ({"strength": "margin"}, {"margin": np.zeros(60)}),
        ({"strength": "scale"}, {"margin": np.ones(60)}),
        ({"smoothing": 0.0}, {"p": np.ones(60)}),
    ],
)
def test_no_margin_strength_one_and_certain_labels_are_the_plain_model(options, columns):
    table, _ = linear(4, 60, 2.0)
    table = table.with_columns(**{"p": np.ones(60), **columns})
    model, plain = make_model("bt", ridge=0.1, **options).fit(table), make_model("bt", ridge=0.1).fit(table)
    same((model, rows_of(model, table)), (plain, rows_of(plain, table)))


@pytest.mark.parametrize("q", [0.7, 0.5, 0.9])
def test_the_optimum_of_one_kind_of_pair_is_the_log_odds_of_its_agreement(q):
    assert minimum(bradley_terry(), preference=torch.tensor([q], dtype=torch.float64)) == pytest.approx(
        math.log(q / (1 - q)), abs=1e-6
    )
    half = torch.zeros(1, dtype=torch.float64)
    loss = bradley_terry()(reward_head_chosen=half, reward_head_rejected=half, preference=torch.tensor([0.5]))
    assert loss.item() == pytest.approx(math.log(2))


def test_a_margin_is_asked_of_whichever_side_won_and_not_of_one_side():
    asked = bradley_terry(margin=1.0)
    # a margin that always points to the majority would have its optimum at 1 + logit 0.7 = 1.847, and at 1 for a split
    assert minimum(asked, preference=torch.tensor([0.7], dtype=torch.float64)) == pytest.approx(1.431, abs=1e-3)
    assert minimum(asked, preference=torch.tensor([0.5])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_temperature_rescales_rewards_and_leaves_probabilities_alone(temperature):
    table, _ = linear(4, 200, 2.0)
    plain, tempered = (make_model("bt", ridge=0.0, temperature=t).fit(table) for t in (1.0, temperature))
    np.testing.assert_allclose(weights(tempered), temperature * weights(plain), rtol=1e-4)
    np.testing.assert_allclose(tempered.predict_proba(table), plain.predict_proba(table), atol=1e-5)


def test_centring_takes_away_a_bias_and_shrinks_the_rewards_with_it():
    table, w = linear(8, 2000, 3.0)
    x = torch.from_numpy(table.features).double()
    wins = table.p > 0.5
    chosen, rejected = np.where(wins, table.first, table.second), np.where(wins, table.second, table.first)
    norms = {}
    for centring in (0.0, 0.01, 1.0):
        parameters = torch.zeros(9, dtype=torch.float64)
        parameters[8] = 2.0
        parameters.requires_grad_()
        optimizer = torch.optim.LBFGS([parameters], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

        def closure(centring=centring, parameters=parameters, optimizer=optimizer):
            optimizer.zero_grad()
            r = x @ parameters[:8] + parameters[8]
            loss = bradley_terry(centring=centring)(reward_head_chosen=r[chosen], reward_head_rejected=r[rejected])
            loss.backward()
            return loss

        optimizer.step(closure)
        norms[centring] = parameters[:8].detach().norm().item()
        if centring:
            assert abs(parameters[8].item()) <= 0.05
        else:
            assert parameters[8].item() == 2.0
    assert abs(norms[0.0] - np.linalg.norm(w)) < 0.3
    assert 1.4 < norms[0.01] < 1.9  # 1.62 where the card was measured
    assert norms[1.0] < 0.2  # 0.12


# ---- A2: the general preference model ----

CYCLE = [[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]]


def random_tournament(n, seed):
    upper = np.triu(np.random.default_rng(seed).integers(0, 2, (n, n)), 1)
    return tournament(upper + np.tril(1 - upper.T, -1))


def test_stone_scissors_paper_is_learned_where_any_reward_stays_at_log_2():
    table = tournament(CYCLE)
    general, reward = make_model("gpm", blocks=1, ridge=0.0).fit(table), make_model("bt", ridge=0.0).fit(table)
    assert general.score(table) == 1
    assert general.told_["loss"] < 1e-3
    assert reward.told_["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert reward.score(table) <= 2 / 3


def test_circles_among_unseen_responses_are_told_at_99_percent_where_bradley_terry_guesses():
    train, test = circle(1500, seed=1), circle(1000, seed=2)
    general = make_model("gpm", blocks=1, ridge=0.001, lr=0.03, epochs=20).fit(train)
    assert general.score(test) >= 0.99
    assert abs(make_model("bt", ridge=0.001).fit(train).score(test) - 0.5) < 0.05  # 3 standard errors


@pytest.mark.parametrize(("n", "seed"), [(5, 0), (5, 1), (8, 0), (8, 1), (8, 2)])
def test_two_planes_say_every_random_tournament_of_five_and_of_eight(n, seed):
    table = random_tournament(n, seed)
    assert make_model("gpm", blocks=2, ridge=0.0, restarts=3).fit(table).score(table) == 1


def test_one_plane_and_responses_of_the_form_r_and_one_are_bradley_terry():
    from unipref.rewards.catalogue.gpm import skew
    from unipref.rewards.models import difference

    rng = np.random.default_rng(0)
    r = torch.from_numpy(rng.normal(size=(2, 50)))
    one = torch.ones(50, dtype=torch.float64)
    form = skew(temperature=1.0).build(Sizes(3), 2).double()
    a, b = r[0].clone().requires_grad_(), r[1].clone().requires_grad_()
    said = form(torch.stack([a, one], 1), torch.stack([b, one], 1), torch.ones(50, 1, dtype=torch.float64), None)
    plain = difference().build(Sizes(3), 1)(r[0][:, None], r[1][:, None], None, None)
    assert torch.equal(said.logit, plain.logit)
    slopes = torch.autograd.grad(torch.nn.functional.softplus(-said.logit).mean(), [a, b])
    expected = -torch.sigmoid(-plain.logit) / 50
    np.testing.assert_allclose(slopes[0], expected, atol=1e-12)
    np.testing.assert_allclose(slopes[1], -expected, atol=1e-12)


def test_without_circles_to_say_it_is_bradley_terrys_model_at_the_same_ridge():
    table, _ = linear(4, 100, 2.0)
    general, plain = make_model("gpm", blocks=1, temperature=1.0, ridge=0.1), make_model("bt", ridge=0.1).fit(table)
    general.fit(table)
    net = general.net_
    net.head.weight[0], net.head.weight[1] = plain.net_.head.weight[0], 0.0
    net.head.departure.zero_()
    net.mixing.typical.copy_(net.head(torch.zeros(1, 4, dtype=torch.float64))[0])
    same((general, rows_of(general, table)), (plain, rows_of(plain, table)))
    one, other = general.reward(table.features), plain.reward(table.features)
    np.testing.assert_allclose(one - one[0], other - other[0], atol=1e-9)


def test_a_response_alone_has_its_mean_score_against_the_training_responses():
    table = circle(40, seed=3)
    model = make_model("gpm", blocks=2, ridge=0.01, hidden=(5,), epochs=2).fit(table)
    every = len(table.features)
    against = PreferenceTable(
        table.features, np.repeat([0, 7], every), np.tile(np.arange(every), 2), np.full(2 * every, 0.5)
    )
    mean = model.decision_function(against).reshape(2, every).mean(axis=1)
    np.testing.assert_allclose(model.reward(table.features[[0, 7]]), mean, atol=1e-9)


def test_prompts_decide_which_plane_counts():
    table, _ = routed(900, seed=1)
    train, test = table.take(np.arange(900) < 600), table.take(np.arange(900) >= 600)
    general = make_model("gpm", blocks=2, ridge=0.1, epochs=10).fit(train)
    blind = make_model("gpm", blocks=2, ridge=0.1, epochs=10).fit(train.with_columns(contexts=None, context=None))
    assert general.score(test) >= blind.score(test.with_columns(contexts=None, context=None)) + 0.05


# ---- A5: shares of votes ----


def scores_of(shares):
    return torch.log(torch.tensor(shares, dtype=torch.float64)).clamp(min=-60.0)


def test_the_distance_between_two_point_masses_is_how_many_categories_lie_between():
    masses = torch.eye(6, dtype=torch.float64)
    for j in range(6):
        found = transport().between(scores_of(masses[[j] * 6].tolist()), masses, 0.0, (1.0, 1.0))
        np.testing.assert_allclose(found, [abs(j - k) for k in range(6)], atol=1e-12)


def test_transport_sees_how_far_votes_are_off_where_cross_entropy_does_not():
    near, far = [0.9, 0.1, 0, 0, 0, 0], [0.9, 0, 0, 0, 0, 0.1]
    target = torch.eye(6, dtype=torch.float64)[[0, 0]]
    np.testing.assert_allclose(transport().between(scores_of([near, far]), target, 0.0, (1.0, 1.0)), [0.1, 0.5])
    entropies = class_entropy().between(scores_of([near, far]), target, 0.0, (1.0, 1.0))
    np.testing.assert_allclose(entropies, [-math.log(0.9)] * 2)


def test_with_two_categories_the_distance_is_that_of_the_probabilities_and_the_reward_is_one_of_them():
    p, q = np.random.default_rng(0).uniform(0.1, 0.9, (2, 5))
    scores, target = scores_of(np.stack([1 - p, p], 1).tolist()), torch.from_numpy(np.stack([1 - q, q], 1))
    np.testing.assert_allclose(transport().between(scores, target, 0.0, (1.0, 1.0)), np.abs(p - q))
    np.testing.assert_allclose(transport().between(scores, scores.exp(), 0.0, (1.0, 1.0)), 0.0, atol=1e-15)
    table, _ = two_ends(60, levels=2)
    model = make_model("dprm", levels=2, utilities=(0.0, 1.0), epochs=5, ridge=0.01).fit(table)
    scale = math.exp(model.net_.mixing.log_scale_bias.item())
    np.testing.assert_allclose(model.reward(table.features) / scale, category_shares(model, table.features)[:, 1])


def test_soft_cross_entropy_of_a_whole_class_is_that_of_its_number():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3)))
    classes = torch.tensor([0.0, 2.0, 1.0, 2.0])
    shares = torch.eye(3, dtype=torch.float64)[classes.long()]
    one, other = (class_entropy().between(z, goal, 0.0, (1.0, 1.0)) for goal in (classes, shares))
    np.testing.assert_allclose(one, other, atol=1e-15)


def test_transport_finds_the_votes_of_a_split_population_better_than_cross_entropy():
    (train, _), (test, votes) = two_ends(400), two_ends(800, seed=100)
    found = {}
    for loss in ("transport", "cross_entropy"):
        model = make_model("dprm", levels=6, loss=loss, shape="normal", ridge=1e-4, epochs=12).fit(train)
        shares = category_shares(model, test.features)
        found[loss] = np.abs((shares - votes).cumsum(axis=1))[:, :-1].sum(axis=1).mean()
    assert found["transport"] < found["cross_entropy"]  # 0.372 and 0.388 in the card's world


def test_no_votes_leave_the_prior_and_seven_of_ten_make_eight_of_twelve():
    prior = np.array([0.2, 0.3, 0.5])
    np.testing.assert_array_equal(dirichlet_mean(prior, np.zeros(3), 4.0), prior)
    assert dirichlet_mean(np.array([0.5, 0.5]), np.array([3.0, 7.0]), 2.0)[1] == pytest.approx(8 / 12)


def test_a_population_that_votes_higher_is_learned_from_its_votes_and_one_that_votes_the_same_stays():
    table, _votes = two_ends(300)
    model = make_model("dprm", levels=6, ridge=0.01, epochs=10).fit(table)
    expected = category_shares(model, table.features)
    up = np.zeros_like(expected)
    up[:, 3:] = 3.0
    shifted = table.with_columns(attributes=up, domain=np.full(150, "critics"))
    alike = table.with_columns(attributes=20 * expected, domain=np.full(150, "twins"))
    grown = model.adapt(shifted).adapt(alike)
    rewards = [grown.reward(table.features, domain=name) for name in (None, "critics", "twins")]
    assert (rewards[1] > rewards[0]).all()
    np.testing.assert_allclose(rewards[2], rewards[0], atol=1e-6)
    silent = shifted.with_columns(attributes=np.full_like(up, np.nan), domain=np.full(150, "nobody"))
    np.testing.assert_array_equal(model.adapt(silent).reward(table.features, domain="nobody"), rewards[0])


def test_votes_are_counts_shares_or_one_rating_and_what_is_neither_is_refused():
    votes = votes_of(np.array([[1.0, 3.0], [np.nan, 1.0], [0.0, 0.0]]), ("votes.2", "votes.1"), 2)
    np.testing.assert_array_equal(votes, [[3.0, 1.0], [np.nan, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(votes_of(np.array([[2.0], [np.nan]]), ("q",), 2), [[0, 1], [np.nan, np.nan]])
    with pytest.raises(DataError, match=r"'q' has the value 2\.5, and its categories are 1 to 5"):
        votes_of(np.array([[2.5]]), ("q",), 5)
    with pytest.raises(DataError, match=r"dprm reads votes per category, .*; the data have help, truth"):
        votes_of(np.zeros((1, 2)), ("help", "truth"), 5)
    with pytest.raises(ConfigError, match="3 categories need as many utilities, each above the last"):
        make_model("dprm", levels=3, utilities=(1.0, 3.0, 2.0))


# ---- A9 and A10: named features ----


def test_three_of_thirteen_concepts_are_found_with_their_weights():
    table, w = named(13, 1000, [1.5, 1.0, -1.2])
    model = make_model("cpm").fit(table)
    found = model.net_.head.weight[0].numpy()
    assert cosine(found, w) >= 0.97  # 0.987 where the card was measured
    # C is chosen by accuracy, which leaves the size to chance; without a penalty it is the planted one
    free = make_model("cpm", strengths=(1e5,)).fit(table).net_.head.weight[0].numpy()
    np.testing.assert_allclose(free[:3], [1.5, 1.0, -1.2], atol=0.25)
    sparse = make_model("cpm", penalty="l1", strengths=(0.01,)).fit(table).net_.head.weight[0].numpy()
    assert set(np.flatnonzero(sparse)) == {0, 1, 2}


def test_columns_in_another_order_and_a_constant_added_to_one_change_no_verdict():
    table, _ = named(5, 300, [1.0, -1.0])
    order = np.array([3, 0, 4, 2, 1])
    model = make_model("cpm", strengths=(1.0,)).fit(table)
    turned = table.with_columns(
        features=table.features[:, order], columns=tuple(np.array(table.columns)[order].tolist())
    )
    other = make_model("cpm", strengths=(1.0,)).fit(turned)
    np.testing.assert_allclose(other.net_.head.weight[0], model.net_.head.weight[0][order], atol=1e-7)
    moved = table.with_columns(features=table.features + np.array([0, 7.0, 0, 0, 0]))
    np.testing.assert_allclose(
        make_model("cpm", strengths=(1.0,)).fit(moved).decision_function(moved),
        model.decision_function(table),
        atol=1e-6,
    )


@pytest.mark.parametrize("penalty", ["l1", "l2"])
@pytest.mark.parametrize("strength", [0.02, 1.0])
def test_it_is_the_model_that_explain_fits_to_a_table_of_concepts(penalty, strength):
    table, _ = named(6, 250, [1.0, -1.0])
    values = PairValues(
        tuple(Concept(name, name, "more") for name in table.columns),
        table.features[table.first] - table.features[table.second],
        table.features[table.first],
        table.features[table.second],
    )
    oracle = CompositionalPreferenceModel(penalty=penalty, strengths=(strength,)).fit(values, table.p)
    model = make_model("cpm", penalty=penalty, strengths=(strength,)).fit(table)
    np.testing.assert_allclose(model.net_.head.weight[0], oracle.weight_, atol=1e-5)
    np.testing.assert_allclose(model.decision_function(table), oracle.decision_function(values), atol=1e-4)


def test_its_reward_is_a_file_that_the_scorer_of_its_name_reads(tmp_path):
    table, _ = named(4, 200, [1.0, -1.0])
    model = make_model("cpm", strengths=(1.0,)).fit(table)
    linear_score_of(model).save(tmp_path / "score.json")
    back = LinearScore.load(tmp_path / "score.json")
    np.testing.assert_allclose(back.of_values(table.features), model.reward(table.features), atol=1e-9)
    with pytest.raises(ConfigError, match="the reward of lore is no weighted sum of named features"):
        linear_score_of(make_model("lore", ridge=0.1, epochs=2).fit(table.with_columns(user=np.arange(200) % 4)))


def test_an_experts_perceptron_without_layers_is_the_compositional_model():
    table, _ = named(7, 300, [1.0, -1.0, 0.5])
    small = make_model("domain_knowledge", hidden=(), ridge=1 / 300).fit(table)
    plain = make_model("cpm", strengths=(1.0,)).fit(table)
    same((small, rows_of(small, table)), (plain, rows_of(plain, table)))


def test_seven_features_of_800_pairs_tell_the_weights_and_a_flipped_one_turns_its_pairs():
    table, w = named(7, 800, [1.0, 0.8, 0.6, -1.5, 0.4, 0.3, 0.2])
    found = make_model("domain_knowledge", hidden=()).fit(table).net_.head.weight[0].numpy()
    assert cosine(found, w) >= 0.95
    layers = make_model("domain_knowledge", hidden=(6, 4), ridge=0.003, epochs=15).fit(table)
    lone = table.features[[0, 0]].copy()
    lone[1, 3] += table.features[:, 3].std()  # more of what is disliked, and nothing else
    pair = PreferenceTable(lone, [0], [1], [1.0])
    assert layers.decision_function(pair)[0] > 0


def test_the_bounded_reward_of_a_policy_is_even_at_zero_weights_and_orders_as_before():
    table, _ = named(3, 200, [1.0])
    plain, bounded = (make_model("domain_knowledge", bounded=b, ridge=0.01, epochs=5).fit(table) for b in (False, True))
    r = plain.reward(table.features)
    np.testing.assert_allclose(bounded.reward(table.features), 1 / (1 + np.exp(-r)), atol=1e-12)
    np.testing.assert_array_equal(bounded.decision_function(table), plain.decision_function(table))
    bounded.net_.head[-1].weight.zero_()
    np.testing.assert_array_equal(bounded.reward(table.features), 0.5)


# ---- A11: how far voters agree ----


def test_margins_from_votes_beat_one_vote_and_their_shares_beat_margins():
    found = []
    for seed in range(8):
        table, first, log_odds = voted(400, seed)
        test = linear(20, 1000, 1.0, seed=1000 + seed)[0]
        single = table.with_columns(p=first, margin=np.abs(2 * table.p - 1))
        fits = [
            make_model("bt", ridge=0.02).fit(single),
            make_model("bt", ridge=0.02, strength="margin").fit(single),
            make_model("margin_reg", ridge=0.02, kappa=1.0).fit(table),
            make_model("bt", ridge=0.02).fit(table),
        ]
        found.append([np.corrcoef(fit.decision_function(test), log_odds(test))[0, 1] for fit in fits])
    binary, margin, majority, soft = np.mean(found, axis=0)  # the card: 0.821, 0.831, 0.845, 0.856
    assert binary < margin < majority <= soft


def test_agreement_margins_have_the_limits_of_their_card():
    rng = np.random.default_rng(0)
    table, _ = linear(4, 80, 2.0)
    shares = table.with_columns(p=rng.integers(0, 11, 80) / 10)
    winners = shares.with_columns(p=0.5 * (1 + np.sign(2 * shares.p - 1)))
    pairs = [
        (("margin_reg", {"kappa": 0.0}, shares), ("bt", {}, winners)),
        (("margin_reg", {"kappa": 0.7}, table), ("bt", {"margin": 0.7}, table)),  # one vote, or all alike
        (
            ("margin_reg", {"kappa": 0.7}, shares),
            (
                "bt",
                {"strength": "margin", "strength_factor": 0.7},
                winners.with_columns(margin=np.abs(2 * shares.p - 1)),
            ),
        ),
    ]
    for one, other in pairs:
        a, b = (make_model(key, ridge=0.1, **options).fit(data) for key, options, data in (one, other))
        same((a, rows_of(a, one[2])), (b, rows_of(b, other[2])))


# ---- A14: strengths and attributes ----


def test_strengths_tell_more_than_sides():
    found = []
    for seed in range(20):
        table, w = strengthened(300, seed)
        how = ("ignore", "scale", "margin")
        found.append([cosine(weights(make_model("helpsteer", ridge=0.02, strength=s).fit(table)), w) for s in how])
    plain, scaled, margin = np.mean(found, axis=0)  # the card: 0.977, 0.982, 0.983
    assert scaled > plain
    assert margin > plain


def test_strength_one_throughout_is_bradley_terry_and_strength_zero_counts_nothing():
    table, _ = linear(4, 100, 2.0)
    ones, plain = table.with_columns(margin=np.ones(100)), make_model("bt", ridge=0.1).fit(table)
    helpful = make_model("helpsteer", ridge=0.1).fit(ones)
    same((helpful, rows_of(helpful, ones)), (plain, rows_of(plain, table)))
    tied = table.with_columns(margin=np.zeros(100))
    loss, first, second = loss_and_slopes(helpful.net_, helpful.objective, rows_of(helpful, tied))[1:]
    assert loss == 0
    assert not first.any()
    assert not second.any()
    even = table.with_columns(p=np.full(100, 0.5))
    rows = rows_of(plain, even)
    rows = Rows(**{**vars(rows), "second": rows.first})
    assert loss_and_slopes(plain.net_, plain.objective, rows)[1].item() == pytest.approx(math.log(2))


def rated(n, seed=0, d=30):
    """Two attributes that differ in what features they follow; people like the first and dislike the second."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(np.random.default_rng(5).normal(size=(d, 2)))[0].T
    x = rng.normal(size=(2 * n, d))
    truth = x @ directions.T
    ratings = 3 + 2 * truth + 0.5 * rng.normal(size=truth.shape)
    z = 3 * (truth[:n] - truth[n:]) @ [1.0, -0.5]
    return PreferenceTable.of_arrays(
        x[:n], x[n:], (z > 0).astype(float), attributes=ratings, attribute_names=("help", "verbosity")
    ), truth


def test_attributes_that_are_rated_make_few_comparisons_enough():
    train, _ = rated(60)
    test, truth = rated(500, seed=1)
    helpful = make_model("helpsteer", attributes=True, ridge=0.003).fit(train)
    plain = make_model("bt").fit(train.with_columns(attributes=None, attribute_names=()))
    assert helpful.score(test) >= plain.score(test) + 0.05
    liked, disliked = helpful.net_.mixing.weight.tolist()
    assert liked > 0 > disliked
    said = predicted_attributes(helpful, test.features)
    for k in range(2):
        assert np.corrcoef(said[:, k], truth[:, k])[0, 1] >= 0.95
    np.testing.assert_allclose(said.mean(axis=0), 3.0, atol=0.3)  # in the ratings' own units


def test_missing_ratings_are_left_out_one_by_one_and_ratings_that_say_nothing_are_refused():
    train, _ = rated(60)
    holed = train.attributes.copy()
    holed[::2, 0], holed[1::3, 1] = np.nan, np.nan
    model = make_model("helpsteer", attributes=True, ridge=0.01).fit(train.with_columns(attributes=holed))
    keep = ~np.isnan(holed[:, 1])
    x = (train.features - model.scaling_.centre) / model.scaling_.spread
    y = (holed[keep, 1] - holed[keep, 1].mean()) / holed[keep, 1].std()
    # ridge regression by its normal equations: half the mean over attributes and rated responses, half the squares
    n = keep.sum()
    by_hand = np.linalg.solve(x[keep].T @ x[keep] / (2 * n) + 0.01 * np.eye(30), x[keep].T @ y / (2 * n))
    np.testing.assert_allclose(model.net_.head.weight[1], by_hand, atol=1e-5)
    flat = train.attributes.copy()
    flat[:, 0] = 4.0
    with pytest.raises(DataError, match="the attribute 'help' is the same in every rating"):
        make_model("helpsteer", attributes=True).fit(train.with_columns(attributes=flat))
    with pytest.raises(DataError, match="helpsteer needs ratings of responses by attribute"):
        make_model("helpsteer", attributes=True).fit(train.with_columns(attributes=None, attribute_names=()))


# ---- attributes under a gate ----


def test_a_gate_finds_which_rated_attribute_a_prompt_asks_for():
    table, tastes = routed(1200, seed=2)
    ratings = table.features @ tastes.T / 8 + 0.1 * np.random.default_rng(0).normal(size=(2400, 2))
    table = table.with_columns(attributes=ratings, attribute_names=("one", "other"))
    train, test = table.take(np.arange(1200) < 800), table.take(np.arange(1200) >= 800)
    gated = make_model("multi_attribute", ridge=0.001, epochs=10, lr=0.05).fit(train)
    assert gated.score(test) >= 0.93
    assert gated.score(test) >= make_model("bt", ridge=0.01).fit(train).score(test) + 0.1
    shares = gated.net_.encoder(rows_of(gated, test))
    shares = (shares / shares.sum(dim=1, keepdim=True)).numpy()
    asked = test.contexts[test.context, 0] > 0
    assert shares[asked, 0].mean() > 0.8
    assert shares[~asked, 1].mean() > 0.8


def test_free_heads_under_a_gate_need_no_ratings():
    table, _ = routed(1200, seed=2)
    train, test = table.take(np.arange(1200) < 800), table.take(np.arange(1200) >= 800)
    gated = make_model("multi_attribute", heads=2, ridge=0.001, lr=0.03, epochs=15).fit(train)
    assert gated.score(test) >= make_model("bt", ridge=0.01).fit(train).score(test) + 0.1


def test_one_head_under_any_gate_is_bradley_terrys_model():
    table, _ = linear(4, 100, 2.0)
    plain = make_model("bt", ridge=0.1).fit(table)
    alone = make_model("multi_attribute", heads=1, ridge=0.1, epochs=2).fit(table)
    alone.net_.head.weight.copy_(plain.net_.head.weight)
    alone.net_.encoder.scale.zero_()
    same((alone, rows_of(alone, table)), (plain, rows_of(plain, table)))


def test_what_rises_with_verbosity_is_cleared_of_it():
    train, _ = rated(200)
    mixed = train.attributes.copy()
    mixed[:, 0] += 0.8 * mixed[:, 1]
    table = train.with_columns(attributes=mixed)
    model = make_model("multi_attribute", without="verbosity", ridge=0.001, epochs=5).fit(table)
    x = torch.from_numpy((table.features - model.scaling_.centre) / model.scaling_.spread)
    before, after = model.net_.head.predicted(x).numpy().T, model.net_.head(x).numpy().T
    assert np.corrcoef(before)[0, 1] > 0.4
    assert np.corrcoef(after)[0, 1] == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ConfigError, match=r"without='verbose' \(did you mean 'verbosity'\?\)"):
        make_model("multi_attribute", without="verbose").fit(table)


# ---- A15: from a model of other comparisons ----


def test_fifty_choices_go_further_from_a_model_of_related_ones():
    found = []
    for seed in range(10):
        earlier, few, test = related(seed)
        before = make_model("bt", ridge=0.001).fit(earlier)
        scratch = max(make_model("bt", ridge=r).fit(few).score(test) for r in (0.1, 0.03))
        tuned = make_model("bt", ridge=0.03).fit(few, start=before)
        found.append([before.score(test), scratch, tuned.score(test)])
    zero_shot, scratch, tuned = np.mean(found, axis=0)  # the card: 0.795, 0.834, 0.867
    assert abs(zero_shot - 0.795) < 0.02
    assert tuned >= scratch + 0.015


def test_a_strong_ridge_stays_where_the_fit_began_and_no_earlier_fit_pulls_to_zero():
    earlier, few, _ = related(before=500)
    before = make_model("bt", ridge=0.01).fit(earlier)
    still = make_model("bt", ridge=1e6).fit(few, start=before)
    np.testing.assert_allclose(still.decision_function(few), before.decision_function(few), atol=1e-4)
    assert np.abs(make_model("bt", ridge=1e6).fit(few).decision_function(few)).max() < 1e-4
    with pytest.raises(ConfigError, match="cannot begin at the model bt: its head differs"):
        make_model("bt", hidden=(4,), ridge=0.1).fit(few, start=before)
    with pytest.raises(ConfigError, match="cannot begin at the model bt: it reads 20 features and the table has 3"):
        make_model("bt", ridge=0.1).fit(linear(3, 50, 1.0)[0], start=before)
    with pytest.raises(ConfigError, match="cannot begin at the model bt: it is not fitted"):
        make_model("bt", ridge=0.1).fit(few, start=make_model("bt"))


# ---- adaptive temperatures ----


def test_with_every_temperature_at_one_adaptive_scaling_is_bradley_terry():
    table, _ = linear(4, 200, 2.0)
    plain = make_model("bt", ridge=0.05).fit(table)
    adaptive = make_model("ada_reward", tau_min=1.0, tau_max=1.0, ridge=0.05, epochs=2).fit(table)
    adaptive.net_.head.weight.copy_(plain.net_.head.weight)
    same((adaptive, rows_of(adaptive, table)), (plain, rows_of(plain, table)))


def test_adaptive_scaling_finds_the_planted_direction_and_separates_clear_pairs_further():
    table, w = linear(8, 1500, 3.0)
    adaptive, plain = (
        make_model("ada_reward", ridge=1e-4, lr=0.05, epochs=10).fit(table),
        make_model("bt", ridge=1e-4).fit(table),
    )
    assert cosine(weights(adaptive), w) >= 0.98
    z = [np.abs(model.decision_function(table)) for model in (adaptive, plain)]
    spread = [np.quantile(each, 0.9) / np.quantile(each, 0.1) for each in z]
    assert spread[0] == pytest.approx(spread[1], rel=0.2)  # both are linear: the shape of the rewards is the same
