"""Laws that every preference model keeps, over the whole catalogue: a new model comes in by its card alone."""

import inspect

import numpy as np
import pytest
import torch

from unipref.core.cards import REQUIRED, get_method, list_methods
from unipref.core.errors import ConfigError, DataError, UniprefError
from unipref.rewards import PreferenceModel, PreferenceTable, load_preference_model, make_model

# of the others, language models that read texts, each has its own tests
KEYS = [c.key for c in list_methods("reward") if inspect.signature(c.function).return_annotation is PreferenceModel]
# so that a fit ends soon, wherever an option has this name; what a law says does not depend on them
QUICK = {"epochs": 2, "ridge": 0.01, "restarts": 1, "adapt_steps": 10, "strengths": (0.1,), "steps": 20}
USERS, DOMAINS, PAIRS, WIDTH = 6, 3, 150, 5


def world(seed=0, pairs=PAIRS, users=range(USERS), domains=range(DOMAINS), **more):
    """A table that has all a model may ask for. Users weigh the features each in their own way."""
    rng = np.random.default_rng(seed)
    taste = np.random.default_rng(99).normal(size=(40, WIDTH)) + 1.0
    who = rng.choice(list(users), pairs)
    a, b = rng.normal(size=(pairs, WIDTH)), rng.normal(size=(pairs, WIDTH))
    z = np.einsum("nd,nd->n", taste[who], a - b)
    p = (rng.random(pairs) < 0.5 * (1 + np.tanh(z / 2))).astype(float)
    p[::17], p[::19] = 0.5, 0.8
    rating = np.clip(np.round(3 + np.concatenate([a, b]).sum(axis=1) / 2), 1, 5)
    columns = {
        "contexts": rng.normal(size=(pairs, 4)),
        "user": np.array([f"u{k}" for k in who]),
        "domain": np.array([f"d{k}" for k in rng.choice(list(domains), pairs)]),
        "margin": np.abs(z).round(),
        "weight": rng.uniform(0.5, 2.0, pairs),
        "group": np.arange(pairs) // 2,
        "attributes": rating[:, None],
        "attribute_names": ("quality",),
        "columns": tuple(f"f{k}" for k in range(WIDTH)),
    }
    return PreferenceTable.of_arrays(a, b, p, **{**columns, **more})


def made(key, **options):
    known = get_method(key, "reward").options
    return make_model(key, **{name: value for name, value in {**QUICK, **options}.items() if name in known})


_FITTED = {}


def fitted(key):
    """One fit of each model for all laws: none of them changes it."""
    if key not in _FITTED:
        torch.manual_seed(0)
        _FITTED[key] = made(key).fit(world())
    return _FITTED[key]


def state(model):
    return {name: value.clone() for name, value in model.net_.state_dict().items()}


every = pytest.mark.parametrize("key", KEYS)


@every
def test_a_card_explains_every_option_and_every_option_has_a_default(key):
    card = get_method(key, "reward")
    assert REQUIRED not in card.options.values()
    assert set(card.meanings) == set(card.options)
    assert inspect.getdoc(card.function).split("\n")[0].endswith(".")
    assert (card.inferred != "") == (card.status == "reconstructed")
    with pytest.raises(ConfigError, match=f"{key} has no option 'nothing'"):
        make_model(key, nothing=1)


@every
def test_probabilities_of_both_orders_add_up_to_one(key):
    model, table = fitted(key), world(seed=1)
    logit = model.decision_function(table)
    assert np.isfinite(logit).all()
    assert np.ptp(logit) > 0
    np.testing.assert_allclose(model.decision_function(table.swapped()), -logit, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.predict_proba(table).sum(axis=1), 1.0, atol=1e-15)


@every
def test_a_response_against_itself_is_even(key):
    table = world(seed=1)
    itself = table.with_columns(second=table.first)
    np.testing.assert_allclose(fitted(key).decision_function(itself), 0.0, atol=1e-12)


@every
def test_a_comparison_does_not_depend_on_the_others_beside_it(key):
    model, table = fitted(key), world(seed=1)
    logit, order = model.decision_function(table), np.random.default_rng(0).permutation(PAIRS)
    np.testing.assert_allclose(model.decision_function(table.take(order)), logit[order], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.decision_function(table.take([3, 77])), logit[[3, 77]], rtol=1e-12, atol=1e-12)


@every
def test_labels_and_weights_do_not_enter_a_prediction(key):
    model, table = fitted(key), world(seed=1)
    blank = table.with_columns(p=np.full(PAIRS, 0.5), weight=np.ones(PAIRS), margin=np.full(PAIRS, np.nan))
    np.testing.assert_array_equal(model.decision_function(blank), model.decision_function(table))
    unrated = table.with_columns(attributes=None, attribute_names=())
    np.testing.assert_array_equal(model.decision_function(unrated), model.decision_function(table))


@every
def test_a_model_is_read_back_exactly(key, tmp_path):
    model, table = fitted(key), world(seed=1)
    model.save(tmp_path / "m")
    back = load_preference_model(tmp_path / "m")
    np.testing.assert_array_equal(back.decision_function(table), model.decision_function(table))
    assert (back.users_, back.domains_, back.key) == (model.users_, model.domains_, key)
    np.testing.assert_array_equal(rewards(back, table), rewards(model, table))


def rewards(model, table):
    """Of the first responses, each in its own prompt, for its own user and domain."""
    return model.reward(
        table.features[table.first],
        contexts=None if table.contexts is None else table.contexts[table.context],
        user=table.user,
        domain=table.domain,
    )


@every
def test_single_responses_have_finite_rewards_and_where_comparisons_are_differences_it_is_theirs(key):
    model, table = fitted(key), world(seed=1)
    first, second = rewards(model, table), rewards(model, table.swapped())
    assert np.isfinite(first).all()
    assert np.ptp(first) > 0
    output = model.net_(model._data(table).rows(np.arange(PAIRS)))
    if output.rewards is not None:
        np.testing.assert_allclose(first - second, model.decision_function(table), atol=1e-9)


@every
def test_the_same_seed_is_the_same_model_whatever_was_drawn_before(key):
    torch.manual_seed(1)
    np.random.default_rng(1).random(3)
    again = made(key).fit(world())
    np.testing.assert_array_equal(again.decision_function(world(seed=1)), fitted(key).decision_function(world(seed=1)))


@every
def test_which_side_stands_first_in_training_says_nothing(key):
    turned = world().swapped(np.random.default_rng(0).random(PAIRS) < 0.5)
    there = made(key).fit(turned).decision_function(world(seed=1))
    np.testing.assert_allclose(there, fitted(key).decision_function(world(seed=1)), rtol=1e-4, atol=1e-5)


@every
def test_fitting_leaves_the_global_random_state_alone(key):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    made(key).fit(world(pairs=80))
    assert torch.equal(torch.rand(2), expected)


@every
def test_whoever_the_model_does_not_know_gets_the_declared_fallback_and_is_counted(key):
    model = fitted(key)
    strange = world(seed=1, users=[30, 31], domains=[8])
    assert np.isfinite(model.decision_function(strange)).all()
    told, known = model.unseen(strange), world(seed=1)
    logit = model.decision_function(known)
    for what, names in (("user", model.users_), ("domain", model.domains_)):
        if not names:  # it learns who is who from newcomers alone
            continue
        others = np.array([names[(names.index(name) + 1) % len(names)] for name in getattr(known, what)])
        read = not np.array_equal(model.decision_function(known.with_columns(**{what: others})), logit)
        assert told[f"{what}_rows"] in ((PAIRS,) if read else (0, PAIRS))
        assert not told[f"{what}_rows"] or told["fallback"]
        assert model.unseen(known)[f"{what}_rows"] == 0
    unnamed = world(seed=1, user=None, domain=None)
    assert np.isfinite(model.decision_function(unnamed)).all()


@every
def test_newcomers_change_nothing_of_what_was_known(key):
    model, table = fitted(key), world(seed=1)
    new = world(seed=2, pairs=24, users=[20, 21], domains=[7])
    if model.adaptation is None:
        with pytest.raises(ConfigError, match="has no users or domains to adapt to"):
            model.adapt(new)
        return
    before, said = state(model), model.decision_function(table)
    grown = model.adapt(new)
    assert set(model.users_) <= set(grown.users_)
    assert set(model.domains_) <= set(grown.domains_)
    assert (grown.users_, grown.domains_) != (model.users_, model.domains_)
    assert np.isfinite(grown.decision_function(new)).all()
    np.testing.assert_allclose(grown.decision_function(table), said, rtol=1e-12, atol=1e-12)  # sums over more rows
    np.testing.assert_array_equal(model.decision_function(table), said)
    after = state(grown)
    for name, value in before.items():
        assert torch.equal(after[name][tuple(slice(size) for size in value.shape)], value), name
        assert torch.equal(model.net_.state_dict()[name], value), name
    with pytest.raises(DataError, match="already"):
        grown.adapt(new)


@every
def test_a_model_that_learned_newcomers_is_read_back_exactly(key, tmp_path):
    model = fitted(key)
    new = world(seed=2, pairs=24, users=[20, 21], domains=[7])
    grown = model if model.adaptation is None else model.adapt(new)
    grown.save(tmp_path / "m")
    back = load_preference_model(tmp_path / "m")
    np.testing.assert_array_equal(back.decision_function(new), grown.decision_function(new))


@every
def test_what_a_model_needs_and_the_table_lacks_is_named(key):
    lacking = {
        "user": {"user": None},
        "domain": {"domain": None},
        "context": {"contexts": None, "context": None},
        "attributes": {"attributes": None, "attribute_names": ()},
        "columns": {"columns": ()},
    }
    for what in made(key).needs:
        with pytest.raises(DataError, match=f"{key} needs .*, and the data have none"):
            made(key).fit(world().with_columns(**lacking[what]))


@every
def test_what_a_model_does_not_name_among_its_needs_it_can_do_without(key):
    table, needs = world(), made(key).needs
    bare = {"margin": None, "weight": None, "group": None}
    bare |= {} if "user" in needs else {"user": None}
    bare |= {} if "domain" in needs else {"domain": None}
    bare |= {} if "context" in needs else {"contexts": None, "context": None}
    bare |= {} if "attributes" in needs else {"attributes": None, "attribute_names": ()}
    bare |= {} if "columns" in needs else {"columns": ()}
    model = made(key).fit(table.with_columns(**bare))
    assert np.isfinite(model.decision_function(table.with_columns(**bare))).all()


@every
@pytest.mark.parametrize("fault", ["constant", "one side", "one choice", "not finite", "all ties"])
def test_poor_data_leave_finite_numbers_or_a_named_error(key, fault):
    table = world(pairs=80)
    features = table.features.copy()
    if fault == "constant":
        features[:, 2] = 3.0
        table = table.with_columns(features=features)
    elif fault == "one side":  # of every pair the first, for whoever is asked
        table = table.with_columns(p=np.ones(80))
    elif fault == "one choice":
        table = table.with_columns(user=np.array([f"u{k}" for k in range(80)]))
    elif fault == "not finite":
        features[7, 1] = np.nan
        with pytest.raises(DataError, match="f1 is not finite for 1 responses"):
            made(key).fit(table.with_columns(features=features))
        return
    else:
        with pytest.raises(DataError, match="none says which side is better"):
            made(key).fit(table.with_columns(p=np.full(80, 0.5)))
        return
    try:
        model = made(key).fit(table)
    except UniprefError:
        return
    assert np.isfinite(model.decision_function(table)).all()
    assert all(torch.isfinite(value).all() for value in model.net_.state_dict().values())
    if fault == "constant":
        assert any("f2" in note for note in model.notes_)
