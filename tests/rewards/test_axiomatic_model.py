"""One model of several principles, in a world with one feature for each."""

import json

import numpy as np
import pytest

from unipref.core.errors import ConfigError, DataError
from unipref.rewards import PreferenceTable, load_preference_model, make_model

AXIOMS = ("usefulness", "relevance", "grounded_relevance", "truthfulness", "combination")


def planted(n, seed, *, noise=0.3, sizes=None):
    """In a pair of axiom k feature k speaks for the better side by N(2, 1/2), and every other by N(0, noise)."""
    generator = np.random.default_rng(seed)
    domain = np.repeat(np.array(AXIOMS, dtype=object), sizes or [n] * len(AXIOMS))
    shape = len(domain), len(AXIOMS)
    worse = generator.normal(size=shape)
    gap = noise * generator.normal(size=shape)
    for k, axiom in enumerate(AXIOMS):
        gap[domain == axiom, k] = 2 + 0.5 * generator.normal(size=(domain == axiom).sum())
    return PreferenceTable.of_arrays(worse + gap, worse, domain=domain)


def accuracies(model, table):
    return {axiom: model.score(table.take(table.domain == axiom)) for axiom in AXIOMS}


def test_on_the_mixture_it_learns_every_axiom():
    found = accuracies(make_model("axiomatic").fit(planted(200, 0)), planted(1000, 1))
    assert min(found.values()) >= 0.95


def test_without_the_pairs_of_an_axiom_its_held_out_pairs_are_at_chance_and_the_others_are_as_before():
    """Pairs that one axiom made are alike in what the others ask for, so nothing else tells of it."""
    train, test = planted(200, 0, noise=0.0), planted(500, 1, noise=0.0)
    assert min(accuracies(make_model("axiomatic", ridge=0.01).fit(train), test).values()) >= 0.95
    for left in AXIOMS:
        without = accuracies(make_model("axiomatic", ridge=0.01).fit(train.take(train.domain != left)), test)
        assert without[left] == pytest.approx(0.5, abs=1e-9)
        assert all(without[axiom] >= 0.95 for axiom in AXIOMS if axiom != left)


def test_trained_on_one_axiom_alone_it_is_at_chance_on_all_others():
    train, test = planted(200, 2, noise=0.0), planted(500, 3, noise=0.0)
    found = accuracies(make_model("axiomatic", ridge=0.01).fit(train.take(train.domain == "usefulness")), test)
    assert found["usefulness"] >= 0.95
    assert [found[axiom] for axiom in AXIOMS[1:]] == pytest.approx([0.5] * 4, abs=1e-9)


def test_weight_on_one_axiom_alone_is_bradley_terry_on_its_pairs():
    train, test = planted(200, 4), planted(50, 5)
    weights = {axiom: 0 for axiom in AXIOMS if axiom != "relevance"}
    one = make_model("axiomatic", weights=weights, ridge=0.1, scale="none").fit(train)
    bt = make_model("bt", ridge=0.1, scale="none").fit(train.take(train.domain == "relevance"))
    np.testing.assert_allclose(one.decision_function(test), bt.decision_function(test), atol=1e-6)
    assert one.told_["shares"] == {**dict.fromkeys(weights, 0.0), "relevance": 1.0}


def test_axioms_count_alike_however_many_pairs_each_has_unless_balance_is_off():
    train = planted(0, 6, sizes=[40, 400, 40, 40, 40])
    shares = make_model("axiomatic", ridge=0.1).fit(train).told_["shares"]
    assert shares == pytest.approx(dict.fromkeys(AXIOMS, 0.2))
    plain = make_model("axiomatic", ridge=0.1, balance=False).fit(train)
    assert plain.told_["shares"]["relevance"] == pytest.approx(400 / 560)
    doubled = make_model("axiomatic", ridge=0.1, weights={"relevance": 2.0}).fit(train)
    assert doubled.told_["shares"]["relevance"] == pytest.approx(2 / 6)


def test_balance_off_and_no_weights_is_bradley_terry_on_all_pairs():
    train, test = planted(100, 7), planted(50, 8)
    found = make_model("axiomatic", ridge=0.1, balance=False).fit(train)
    bt = make_model("bt", ridge=0.1).fit(train)
    np.testing.assert_allclose(found.decision_function(test), bt.decision_function(test), atol=1e-9)


def test_a_saved_model_says_the_same_bit_by_bit(tmp_path):
    train, test = planted(100, 9), planted(50, 10)
    model = make_model("axiomatic", weights={"relevance": 2.0}, ridge=0.1).fit(train)
    model.save(tmp_path / "m")
    again = load_preference_model(tmp_path / "m")
    np.testing.assert_array_equal(again.decision_function(test), model.decision_function(test))
    assert json.loads((tmp_path / "m" / "reward.json").read_text())["options"]["weights"] == {"relevance": 2.0}


def test_weights_that_fit_nothing_are_named():
    train = planted(20, 11)
    with pytest.raises(ConfigError, match=r"no axiom 'relevanse' \(did you mean 'relevance'\?\)"):
        make_model("axiomatic", weights={"relevanse": 1}).fit(train)
    with pytest.raises(ConfigError, match="a number from 0 up, not -1"):
        make_model("axiomatic", weights={"relevance": -1})
    with pytest.raises(DataError, match="leave no comparison"):
        make_model("axiomatic", weights=dict.fromkeys(AXIOMS, 0)).fit(train)
