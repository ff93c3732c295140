"""Models of domains and contexts in planted worlds, their limits, and what a left-out domain gets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.rewards.planted_tables import conflicting, linear, reversals, ring, routed, shifted, sources

from unipref.core.batch import Clock
from unipref.core.errors import ConfigError, DataError
from unipref.objectives import bt as bradley_terry
from unipref.rewards import PreferenceTable, make_model
from unipref.rewards.left_out import leave_one_domain_out
from unipref.rewards.models.adversarial import gap, gradient_penalty
from unipref.rewards.models.balance import balanced, min_norm_weights
from unipref.rewards.models.descent import Problem
from unipref.rewards.models.mixtures import log_shares, mixed_logit


def per_domain(model, table):
    return np.array([model.score(table.take(table.domain == name)) for name in table.domains])


def calibration_errors(model, table, bins=10):
    """By domain: mean over ten bins of P(first) of |P - share of firsts|, by how many comparisons are in each."""
    errors = []
    for name in table.domains:
        some = table.take(table.domain == name)
        p = model.predict_proba(some)[:, 1]
        at = np.minimum((p * bins).astype(int), bins - 1)
        gaps = [abs(p[at == k].mean() - some.p[at == k].mean()) * (at == k).mean() for k in np.unique(at)]
        errors.append(sum(gaps))
    return np.array(errors)


def agree(model, other, table, atol):
    np.testing.assert_allclose(model.decision_function(table), other.decision_function(table), atol=atol)


# ---- more ----


@pytest.mark.parametrize(
    ("gradients", "shares"),
    [
        ([[3.0, 4.0]], [1.0]),
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5]),
        ([[1.0, 0.0], [0.0, 2.0]], [0.8, 0.2]),  # (2^2, 1^2) / 5
        ([[2.0, 0.0], [1.0, 0.0]], [0.0, 1.0]),  # the shorter of two that point the same way
        ([[1.0, -2.0], [-1.0, 2.0]], [0.5, 0.5]),
        ([[0.0, 0.0], [0.0, 0.0]], [0.5, 0.5]),
        (np.eye(4), [0.25] * 4),
        ([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]], np.array([36, 9, 4]) / 49),  # as 1 / length^2
        ([[1.0, 0.0], [3.0, 0.0], [2.0, 5.0]], [1.0, 0.0, 0.0]),
    ],
)
def test_the_shortest_sum_of_gradients_has_the_shares_that_geometry_says(gradients, shares):
    found = min_norm_weights(torch.tensor(np.array(gradients), dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), shares, atol=1e-9)


def test_no_other_shares_make_the_sum_shorter_and_it_agrees_with_every_source():
    rng = np.random.default_rng(0)
    for t, p in ((3, 2), (5, 8), (6, 3)):
        gradients = torch.tensor(rng.normal(size=(t, p)) + 0.5)
        total = min_norm_weights(gradients) @ gradients
        # at the shortest point of a convex set every other point lies behind the plane through it
        assert (gradients @ total >= total @ total - 1e-9).all()


def test_sources_that_contradict_each_other_end_well_calibrated_where_bradley_terry_is_sure_and_wrong():
    train, _ = sources(1000, seed=0)
    test, _ = sources(2000, seed=1)
    pooled, more = make_model("bt", ridge=1e-3).fit(train), make_model("more", ridge=1e-3).fit(train)
    before, after = per_domain(pooled, test), per_domain(more, test)
    assert before.min() < 0.4 < 0.5 < after.min()  # card 04 A6: 0.34 -> 0.56
    assert after.max() < before.max()  # 0.81 -> 0.61
    wrong, right = calibration_errors(pooled, test), calibration_errors(more, test)
    assert wrong.max() > 0.25  # 0.28
    assert right.max() < 0.1  # 0.03
    assert right.max() < wrong.min()
    shares = more.told_["shares"]
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    assert 0.4 < shares["s2"] < 0.6  # (0.26, 0.24, 0.50): the one that is alone weighs as much as the two


def test_one_domain_alone_is_bradley_terry():
    table, _ = linear(5, 300, 2.0)
    alone = table.with_columns(domain=np.full(300, "law"))
    plain = make_model("bt", ridge=0.01).fit(table)
    agree(make_model("more", ridge=0.01).fit(alone), plain, alone, 1e-9)
    for key, options in (
        ("d3g", {}),
        ("context_two_step", {}),
        ("drm_risk", {"temper": False, "ridge": 0.005}),  # half a ridge on either half of the loss
    ):
        model = make_model(key, **{"ridge": 0.01, **options}).fit(alone)
        # where descent ends: on the same numbers they are the same, below
        agree(model, plain, alone, 1e-5)
        agree(model, plain, table, 1e-5)  # also where no domain is named


@pytest.mark.parametrize("key", ["more", "dial", "d3g", "drm_risk", "context_two_step"])
def test_on_one_domain_the_loss_and_its_slope_in_the_features_are_bradley_terrys(key):
    table, w = linear(5, 60, 2.0)
    alone = table.with_columns(domain=np.full(60, "law"), p=np.where(np.arange(60) < 20, 0.7, table.p))
    options = {"dial": {"hidden": (3,)}}.get(key, {})
    models = [make_model(key, ridge=0.01, epochs=1, **options), make_model("bt", ridge=0.01, epochs=1, **options)]
    found = []
    for model in models:
        model.fit(alone)
        net = model._net(0, model._data(alone))
        if key != "dial":
            with torch.no_grad():
                net.head.weight[:] = torch.tensor(w)
        rows = model._data(alone).rows(np.arange(60))
        first = rows.first.clone().requires_grad_()
        rows = replace(rows, first=first)
        loss = Problem(model._net, model.objective, model.addons).loss(net, rows, 0.0)
        loss.backward()
        found.append((net(rows).logit.detach().numpy(), loss.item(), first.grad.numpy()))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_a_step_weighs_the_domains_losses_by_the_gradients_of_the_last_layer():
    table, _ = sources(40, seed=0)
    model = make_model("more", ridge=0.0, scale="none", epochs=1).fit(table)
    data = model._data(table)
    problem = Problem(model._net, model.objective)
    net = model._net(0).requires_grad_()
    rows = data.rows(np.arange(len(data)))
    model.fitting.trainer(problem, net, 0.0, data).backward(rows, Clock())
    # by hand: at w = 0 the gradient of -log sigmoid is -(label - 1/2) times the difference
    gap = table.features[table.first] - table.features[table.second]
    mean = [-((table.p - 0.5)[:, None] * gap)[table.domain == f"s{k}"].mean(axis=0) for k in range(3)]
    shares = min_norm_weights(torch.tensor(np.array(mean))).numpy()
    np.testing.assert_allclose(net.head.weight.grad[0].numpy(), 3 * shares @ np.array(mean), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"normalise": "l3"}, "normalise='l3'.*did you mean 'l2'"), ({"alpha": 0.0}, "above 0 and at most 1")],
)
def test_options_of_more_that_mean_nothing_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        make_model("more", **options)


# ---- dial ----

SMALL = {"epochs": 1, "hidden": (8,), "critic": (8,), "batch_size": 64}  # what is said does not depend on them


def test_a_reward_that_leans_on_what_the_target_lacks_is_turned_round_by_a_critic():
    train, test = shifted(500, seed=0), shifted(3000, seed=1)
    alone, aligned = (make_model("dial", target="target", strength=s, batch_size=128).fit(train) for s in (0.0, 0.1))
    (source, target), (source_after, target_after) = per_domain(alone, test), per_domain(aligned, test)
    assert target < 0.75
    assert target_after >= target + 0.1  # card 04 A7: 0.68 -> 0.866
    assert source_after >= source - 0.05  # 0.846 -> 0.82


def test_without_a_critic_it_is_bradley_terry_with_that_layer_on_the_source_whatever_the_targets_labels():
    table = shifted(120, seed=0)
    source = table.take(table.domain == "source")
    options = {**SMALL, "scale": "none"}
    dial = make_model("dial", target="target", strength=0.0, **options).fit(table)
    plain = make_model("dial", **options).fit(source)
    agree(dial, plain, table, 0.0)
    assert plain.notes_ == ["every domain has labels, so there was nothing to align with; name the domain as `target`"]
    for strength in (0.0, 0.1):
        blank = table.with_columns(p=np.where(table.domain == "target", 0.5, table.p))
        both = [
            make_model("dial", target=name, strength=strength, **options).fit(each)
            for name, each in (("target", table), (None, blank))
        ]
        agree(*both, table, 0.0)


def test_the_critics_gap_is_nothing_between_equal_batches_turns_with_the_domains_and_sees_what_no_reward_sees():
    generator = torch.Generator().manual_seed(0)
    critic = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GELU(), torch.nn.Linear(8, 1)).double()
    x, y = (torch.randn(20, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    assert gap(critic, x, x).item() == 0.0
    assert gap(critic, x, y).item() == -gap(critic, y, x).item()
    weight = torch.randn(3, generator=generator, dtype=torch.float64)
    np.testing.assert_allclose(((x + 5) - (y + 5)) @ weight, (x - y) @ weight, atol=1e-12)
    assert abs((gap(critic, x + 5, y) - gap(critic, x, y)).item()) > 1e-3


def test_the_penalty_of_a_linear_critic_is_how_far_its_slope_is_from_one():
    critic = torch.nn.Linear(2, 1).double()
    with torch.no_grad():
        critic.weight.copy_(torch.tensor([[3.0, 4.0]]))
    x = torch.zeros(7, 2, dtype=torch.float64)
    penalty = gradient_penalty(critic, x, x + 1, torch.Generator().manual_seed(0))
    assert penalty.item() == pytest.approx((5 - 1) ** 2)


def test_a_target_that_is_not_there_or_is_all_there_is_is_named():
    table = shifted(30, seed=0)
    with pytest.raises(DataError, match=r"no comparison is of the target domain 'targer' \(did you mean 'target'\?\)"):
        make_model("dial", target="targer").fit(table)
    with pytest.raises(DataError, match="outside the target domain 'target' no comparison says which side is better"):
        make_model("dial", target="target").fit(table.take(table.domain == "target"))
    with pytest.raises(ConfigError, match="the critic reads the layer before the reward"):
        make_model("dial", hidden=())


# ---- d3g ----

ANGLES = list(range(0, 360, 45))
ONE_WORD = {str(a): {str(b): 1.0 for b in ANGLES if b != a} for a in ANGLES}
NEAR = {str(a): {str(b): max(0.0, np.cos(np.radians(a - b))) for b in ANGLES if b != a} for a in ANGLES}


def test_a_domain_on_a_ring_that_was_not_seen_is_scored_by_its_neighbours():
    train, test = ring(ANGLES, 80, seed=0), ring(ANGLES, 300, seed=1)
    seen, new = train.take(train.domain != "90"), train.take(train.domain == "90")
    held = test.take(test.domain == "90")
    options = {"ridge": 0.001, "blend": 1.0}
    uniform = make_model("d3g", relations_given=ONE_WORD, **options).fit(seen).adapt(new)
    given = make_model("d3g", relations_given=NEAR, **options).fit(seen).adapt(new)
    learned = make_model("d3g", ridge=0.001).fit(seen)
    pooled = make_model("bt", ridge=0.001).fit(seen)
    assert given.score(held) >= 0.85
    assert max(uniform.score(held), pooled.score(held)) < 0.5  # the other seven together lean the other way
    assert learned.adapt(new).score(held) >= 0.85  # by what its responses are like, without a label
    assert learned.score(held) >= uniform.score(held) + 0.2  # each comparison by its own two responses
    rest = test.take(test.domain != "90")
    assert learned.score(rest) >= pooled.score(rest) + 0.3


def heads(model, table):
    x = (table.features[table.first] - table.features[table.second]) / model.scaling_.spread
    return x @ model.net_.head.weight.detach().numpy().T


def test_relations_of_one_word_are_the_plain_mean_and_a_single_one_is_that_domains_head():
    table, _ = sources(60, seed=0)
    new = table.take(np.arange(20)).with_columns(domain=np.full(20, "new"))
    options = {"ridge": 0.01, "blend": 1.0, "standardise": False}
    flat = {f"s{k}": {f"s{j}": 1.0 for j in range(3) if j != k} for k in range(3)}
    for row, expected in (
        ({"s0": 2.0, "s1": 2.0, "s2": 2.0}, [1 / 3, 1 / 3, 1 / 3]),
        ({"s1": 0.3}, [0.0, 1.0, 0.0]),
        ({"s0": 3.0, "s2": 1.0}, [0.75, 0.0, 0.25]),
        ({}, [1 / 3, 1 / 3, 1 / 3]),
    ):
        model = make_model("d3g", relations_given={**flat, "new": row}, **options).fit(table)
        grown = model.adapt(new)
        np.testing.assert_allclose(grown.decision_function(new), heads(model, new) @ expected, atol=1e-9)
    unnamed = table.take(np.arange(5)).with_columns(domain=None)
    np.testing.assert_allclose(model.decision_function(unnamed), heads(model, unnamed).mean(axis=1), atol=1e-9)
    own = np.array([int(name[1]) for name in table.domain])
    np.testing.assert_allclose(model.decision_function(table), heads(model, table)[np.arange(180), own], atol=1e-9)


def test_heads_are_brought_to_one_spread_before_they_are_put_together():
    table, _ = sources(400, seed=0)
    faint = (table.domain == "s1") & (np.random.default_rng(0).random(1200) < 0.8)
    table = table.with_columns(p=np.where(faint, 0.5, table.p))  # s1 is mostly ties: its head is small
    flat = {f"s{k}": {f"s{j}": 1.0 for j in range(3) if j != k} for k in range(3)}
    options = {"relations_given": flat, "blend": 1.0, "ridge": 0.001, "consistency_factor": 0.0}
    model = make_model("d3g", **options).fit(table)
    said = heads(model, table)
    size = (table.features / model.scaling_.spread) @ model.net_.head.weight.numpy().T
    size = size.std(axis=0)
    assert size[1] < 0.5 * size[0]
    unnamed = table.with_columns(domain=None)
    expected = (said / size).mean(axis=1) * size.mean()
    np.testing.assert_allclose(model.decision_function(unnamed), expected, rtol=1e-6, atol=1e-9)


def test_consistency_is_the_loss_of_each_comparison_under_the_related_heads_alone():
    table, _ = sources(50, seed=0)
    given = {"s0": {"s1": 1.0}}  # s2 is related to nobody and takes no part
    model = make_model("d3g", relations_given=given, blend=1.0, ridge=0.01, consistency_factor=0.7).fit(table)
    rows = model._data(table).rows(np.arange(150))
    got = model.addons[0](model.net_, rows, model.net_(rows), None).item()
    said = heads(model, table)
    z = np.concatenate([said[table.domain == "s0", 1], said[table.domain == "s1", 0]])
    p = np.concatenate([table.p[table.domain == "s0"], table.p[table.domain == "s1"]])
    losses = np.logaddexp(0, -z) + (1 - p) * z
    assert got == pytest.approx(0.7 * losses.sum() / 150, abs=1e-9)
    assert model.addons[0].objective == bradley_terry()


@pytest.mark.parametrize(
    ("options", "fault", "words"),
    [
        ({"relations_given": {"s0": {"s1": -1.0}}}, ConfigError, "the relation of 's0' to 's1' is -1.0; it is at"),
        ({"relations_given": {"x": {"y": 1.0}}}, DataError, "'x' to 'y', and no comparison is of either; domains: s0"),
        ({"blend": 2.0}, ConfigError, "blend=2.0"),
        ({"describe": "prompt"}, ConfigError, "describe='prompt'.*did you mean 'prompts'"),
        ({"describe": "prompts"}, DataError, "d3g needs vectors of prompts"),
        ({"consistency_factor": -1.0}, ConfigError, "consistency=-1.0: it is at least 0"),
    ],
)
def test_relations_that_mean_nothing_are_refused(options, fault, words):
    table, _ = sources(20, seed=0)
    with pytest.raises(fault, match=words):
        make_model("d3g", ridge=0.01, **options).fit(table)


# ---- drm_risk ----


def test_steering_beats_the_pooled_model_where_domains_conflict_and_ties_with_it_where_they_do_not():
    for agree_, margin in ((False, 0.15), (True, -0.01)):
        train, test = conflicting(300, agree=agree_, seed=0), conflicting(1000, agree=agree_, seed=1)
        unnamed = test.with_columns(domain=None)
        pooled = make_model("bt", ridge=0.001).fit(train)
        steered = make_model("drm_risk", ridge=0.001).fit(train)
        assert steered.score(unnamed) >= pooled.score(test) + margin
        assert steered.score(test) >= steered.score(unnamed) - 0.01  # a domain that is named has its own head


def test_gamma_none_is_the_plain_mean_of_probabilities_and_a_large_one_the_surest_head():
    train = conflicting(100, seed=0)
    unnamed = train.with_columns(domain=None)
    probabilities = {}
    for gamma in (0.0, 5000.0):
        model = make_model("drm_risk", gamma=gamma, ridge=0.01, temper=False).fit(train)
        z = heads(model, unnamed)[:, 1:]
        probabilities[gamma] = (model.predict_proba(unnamed)[:, 1], 1 / (1 + np.exp(-z)))
    got, each = probabilities[0.0]
    np.testing.assert_allclose(got, each.mean(axis=1), atol=1e-9)
    got, each = probabilities[5000.0]
    sure = np.sort(np.abs(each - 0.5), axis=1)
    clear = sure[:, -1] - sure[:, -2] > 0.05
    assert clear.sum() > 50
    surest = each[np.arange(len(each)), np.abs(each - 0.5).argmax(axis=1)]
    np.testing.assert_allclose(got[clear], surest[clear], atol=1e-3)


def test_a_head_without_any_doubt_leaves_finite_numbers():
    train = conflicting(50, seed=0)
    model = make_model("drm_risk", ridge=0.01).fit(train)
    far = train.with_columns(features=1e6 * train.features, domain=None)
    assert np.isfinite(model.decision_function(far)).all()
    np.testing.assert_array_equal(model.decision_function(far), -model.decision_function(far.swapped()))


def test_the_order_of_domains_changes_nothing():
    train = conflicting(60, seed=0)
    renamed = train.with_columns(domain=[f"d{3 - int(name[1])}" for name in train.domain])
    one, other = (make_model("drm_risk", ridge=0.01).fit(each) for each in (train, renamed))
    agree(one, other, train.with_columns(domain=None), 1e-6)


def test_a_domain_with_ten_times_the_comparisons_counts_as_much_as_the_others():
    table, _ = sources(100, seed=0)
    n = np.arange(300)
    many = table.take(np.concatenate([n, *[n[:100]] * 9]))
    model = make_model("more", ridge=0.01, epochs=1).fit(table)
    weight = balanced(model._data(many)).weight.numpy()
    totals = [weight[many.domain == name].sum() for name in many.domains]
    np.testing.assert_allclose(totals, 1200 / 3)
    # so its copies change nothing of the head for all
    pair = [make_model("drm_risk", ridge=0.01, temper=False, scale="none").fit(each) for each in (table, many)]
    np.testing.assert_allclose(*[model.net_.head.weight.numpy() for model in pair], atol=1e-5)


def test_overfitted_heads_are_cooled_and_the_factor_is_that_of_the_least_log_loss():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 240, 40))
    z = (x[0] - x[1])[:, 0]
    p = (rng.random(240) < 1 / (1 + np.exp(-z))).astype(float)
    table = PreferenceTable.of_arrays(x[0], x[1], p, domain=np.repeat(["a", "b"], 120))
    model = make_model("drm_risk", ridge=1e-4).fit(table)
    assert min(model.told_["temperatures"].values()) > 1.5
    raw = make_model("drm_risk", ridge=1e-4, temper=False).fit(table)
    own = raw.decision_function(table) / [model.told_["temperatures"][name] for name in table.domain]
    np.testing.assert_allclose(model.decision_function(table), own, atol=1e-9)


def test_a_new_domain_is_learned_from_its_labels_and_without_them_only_where_that_is_asked_for():
    train, new, test = conflicting(200, seed=0), conflicting(60, seed=2), conflicting(500, seed=1)
    seen, hers, held = (t.take((t.domain == "d3") == last) for t, last in ((train, 0), (new, 1), (test, 1)))
    model = make_model("drm_risk", ridge=0.001).fit(seen)
    before, after = model.score(held), model.adapt(hers).score(held)
    assert after >= before + 0.2
    assert after >= 0.85
    blank = hers.with_columns(p=np.full(len(hers), 0.5))
    unread = make_model("drm_risk", ridge=0.001, confident=0.9).fit(seen)
    agree(unread.adapt(hers), unread.adapt(blank), held, 0.0)
    nothing = model.adapt(blank.with_columns(weight=np.zeros(len(hers))))  # no label: the head for all
    plain = nothing.reward(held.features, domain="d3")
    np.testing.assert_allclose(plain, model.reward(held.features), atol=1e-9)
    with pytest.raises(DataError, match="name no domain that the model does not know already"):
        model.adapt(seen)
    with pytest.raises(ConfigError, match=r"confident=0\.2: a probability of at least one half"):
        make_model("drm_risk", confident=0.2)


@pytest.mark.parametrize("key", ["d3g", "drm_risk", "context_two_step"])
def test_adapting_twice_leaves_all_that_was_known_bit_by_bit_as_it_was(key):
    table = conflicting(40, seed=0)
    prompts = np.random.default_rng(0).normal(size=(160, 3))
    table = table.with_columns(contexts=prompts, context=np.arange(160))
    model = make_model(key, ridge=0.01).fit(table.take(table.domain < "d2"))
    for name in ("d2", "d3"):
        known = table.with_columns(domain=np.where(np.isin(table.domain, model.domains_), table.domain, "all"))
        said = model.decision_function(known)
        tensors = {key: value.clone() for key, value in model.net_.state_dict().items()}
        grown = model.adapt(table.take(table.domain == name))
        assert grown.domains_ == (*model.domains_, name)
        np.testing.assert_array_equal(grown.decision_function(known), said)
        assert all(torch.equal(value, tensors[key]) for key, value in model.net_.state_dict().items())
        model = grown


# ---- context_two_step ----


def contextual(n, seed=0):
    """A `routed` world whose comparisons name their context; its reversals; and the tastes."""
    table, tastes = routed(n, seed=seed)
    first = table.contexts[table.context][:, 0] > 0
    return table.with_columns(domain=np.where(first, "one", "other")), reversals(table, tastes)


def test_pairs_that_turn_round_with_their_context_are_told_by_it_and_only_by_it():
    table, _ = contextual(1000)
    _, turned = contextual(600)
    model = make_model("context_two_step", ridge=0.001).fit(table)
    plain = make_model("bt", ridge=0.001).fit(table)
    unnamed = turned.with_columns(domain=None)
    assert model.score(turned) >= 0.9  # card 04 A8
    assert model.score(unnamed) >= 0.9  # from the prompt
    assert plain.score(turned) == 0.5  # one order for both: right once, wrong once
    rng = np.random.default_rng(0)
    shuffled = turned.with_columns(domain=rng.permutation(turned.domain))
    assert abs(model.score(shuffled) - 0.5) < 4 * np.sqrt(0.25 / len(turned))  # false alarm below 1e-4
    lost = unnamed.with_columns(context=rng.permutation(turned.context))
    assert abs(model.score(lost) - 0.5) < 0.05
    # what a prompt says of other things moves no verdict far: within 0.05 of probability on average
    contexts = turned.contexts.copy()
    contexts[:, 1:] = rng.normal(size=(len(contexts), contexts.shape[1] - 1))
    beside = unnamed.with_columns(contexts=contexts)
    moved = np.abs(model.predict_proba(beside) - model.predict_proba(unnamed))
    assert moved.mean() < 0.05


def test_the_marginal_is_the_mean_of_the_conditionals_by_how_likely_each_context_is():
    table, turned = contextual(200)
    model = make_model("context_two_step", ridge=0.01).fit(table)
    by_name = [
        model.predict_proba(turned.with_columns(domain=np.full(len(turned), name)))[:, 1] for name in ("one", "other")
    ]
    unnamed = turned.with_columns(domain=None)
    with torch.no_grad():
        share = model.net_.encoder(model._data(unnamed).rows(np.arange(len(turned)))).numpy()
    np.testing.assert_allclose(share.sum(axis=1), 1.0, atol=1e-12)
    expected = share[:, 0] * by_name[0] + share[:, 1] * by_name[1]
    np.testing.assert_allclose(model.predict_proba(unnamed)[:, 1], expected, atol=1e-9)


def test_without_prompts_a_context_is_as_likely_as_it_was_frequent():
    table, _ = contextual(200)
    bare = table.with_columns(contexts=None, context=None)
    model = make_model("context_two_step", ridge=0.01).fit(bare)
    rows = model._data(bare.with_columns(domain=None)).rows(np.arange(200))
    share = (table.domain == "one").mean()
    np.testing.assert_allclose(model.net_.encoder(rows).numpy()[0], [share, 1 - share], atol=1e-9)


def test_two_contexts_that_contradict_each_other_and_are_as_likely_give_an_even_verdict():
    delta = torch.tensor([[3.0, -3.0], [0.2, -0.2]], dtype=torch.float64)
    half = torch.full((2, 2), 0.5, dtype=torch.float64)
    assert mixed_logit(log_shares(half), delta).abs().max() < 1e-15
    certain = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    np.testing.assert_allclose(mixed_logit(log_shares(certain), delta), [-3.0, 0.2], atol=1e-12)


def test_a_mixture_has_finite_gradients_where_a_share_is_nothing_or_a_logit_is_large():
    share = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    delta = torch.tensor([[900.0, -900.0], [800.0, 700.0]], dtype=torch.float64, requires_grad=True)
    mixed_logit(log_shares(share), delta).sum().backward()
    assert torch.isfinite(share.grad).all()
    assert torch.isfinite(delta.grad).all()


# ---- leaving a domain out ----


def test_a_left_out_domain_is_judged_by_a_fit_to_the_others_alone():
    table, _ = sources(60, seed=0)
    found = leave_one_domain_out("bt", {"ridge": 0.01}, table)
    assert list(found) == ["s0", "s1", "s2"]
    for name, logits in found.items():
        out = table.domain == name
        fitted = make_model("bt", ridge=0.01).fit(table.take(~out))
        np.testing.assert_allclose(logits, fitted.decision_function(table.take(out)), atol=1e-12)


def test_a_conversation_that_is_in_two_domains_does_not_teach_about_the_one_that_is_left_out():
    table, _ = sources(60, seed=0)
    group = np.arange(180) % 90  # s0's first 60 share theirs with s1's last 30 and s2's first 30 and so on
    out = table.domain == "s1"
    shared = table.with_columns(group=group)
    kept = ~out & ~np.isin(group, group[out])
    assert 0 < kept.sum() < (~out).sum()
    expected = make_model("bt", ridge=0.01).fit(shared.take(kept)).decision_function(table.take(out))
    np.testing.assert_allclose(leave_one_domain_out("bt", {"ridge": 0.01}, shared)["s1"], expected, atol=1e-12)


def test_labels_of_the_left_out_domain_are_not_read_also_where_its_responses_are():
    table = shifted(80, seed=0)
    for key, options in (("dial", SMALL), ("d3g", {"ridge": 0.01, "epochs": 5}), ("drm_risk", {"ridge": 0.01})):
        found = leave_one_domain_out(key, options, table)
        lies = table.with_columns(p=np.where(table.domain == "target", 1 - table.p, table.p))
        np.testing.assert_array_equal(leave_one_domain_out(key, options, lies)["target"], found["target"])
    aligned = leave_one_domain_out("dial", SMALL, table)["target"]
    assert not np.array_equal(leave_one_domain_out("dial", SMALL, table, unlabelled=False)["target"], aligned)


def test_one_domain_cannot_be_left_out():
    table, _ = linear(3, 20, 1.0)
    with pytest.raises(DataError, match=r"needs two or more, and the comparisons name 0 \(none\)"):
        leave_one_domain_out("bt", {}, table)
