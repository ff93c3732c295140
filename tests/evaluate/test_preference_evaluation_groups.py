"""Facts about accuracy by group and about the worst group."""

import numpy as np
import pytest
from scipy.stats import binomtest

from unipref.core.errors import DataError
from unipref.evaluate import personalisation_bias
from unipref.evaluate._shares import between, share_interval, shares, worst


def found(right, label, weight=None, conversation=None):
    n = len(right)
    weight = np.ones(n) if weight is None else np.asarray(weight, dtype=float)
    conversation = np.arange(n) if conversation is None else np.asarray(conversation)
    return shares(np.asarray(right, dtype=float), weight, conversation, np.asarray(label))


def sample(rng, truth, n):
    """Groups of n independent pairs each, whose true accuracies are `truth`."""
    right = rng.random((len(truth), n)) < np.asarray(truth)[:, None]
    return found(right.ravel(), np.repeat([f"g{i:02}" for i in range(len(truth))], n))


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 7), (7, 7), (250, 400)])
def test_the_interval_of_a_share_is_wilsons(k, n):
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert share_interval(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_a_conversation_counts_as_one_however_many_pairs_it_has():
    once = found([1, 0, 1], ["a"] * 3)["a"]
    thrice = found([1, 1, 1, 0, 0, 0, 1, 1, 1], ["a"] * 9, conversation=[0, 0, 0, 1, 1, 1, 2, 2, 2])["a"]
    assert (once.value, once.units) == pytest.approx((thrice.value, thrice.units))
    assert (once.n, thrice.n, thrice.conversations) == (3, 9, 3)
    uneven = found([1, 1, 1, 0], ["a"] * 4, conversation=[0, 0, 0, 1])["a"]
    assert uneven.units == pytest.approx((3 + 1) ** 2 / (3**2 + 1))


def test_pairs_without_a_winner_do_not_count():
    share = found([1, np.nan, 0, 1], ["a"] * 4, weight=[1, 1, 1, 0])["a"]
    assert (share.value, share.n) == (0.5, 2)


def test_the_spread_of_users_is_what_chance_leaves():
    # 100 draws of 30 users with 40 pairs; the spread of the observed accuracies would be near 0.12 and 0.07
    rng = np.random.default_rng(0)
    differ = [between(list(sample(rng, rng.uniform(0.5, 0.9, 30), 40).values()))[1] for _ in range(100)]
    assert np.sqrt(np.mean(np.square(differ))) == pytest.approx(0.4 / np.sqrt(12), rel=0.08)
    alike = [between(list(sample(rng, [0.7] * 30, 40).values()))[1] for _ in range(100)]
    assert np.median(alike) < 0.03


def test_a_shrunk_accuracy_lies_between_its_own_and_the_mean_and_is_nearer_the_truth():
    rng = np.random.default_rng(1)
    truth = rng.normal(0.7, 0.05, 200)
    groups = list(sample(rng, truth, 25).values())
    mean, _, shrunk = between(groups)
    own = np.array([share.value for share in groups])
    assert all(min(mean, o) - 1e-12 <= s <= max(mean, o) + 1e-12 for s, o in zip(shrunk, own, strict=True))
    assert np.mean((shrunk - truth) ** 2) < 0.5 * np.mean((own - truth) ** 2)


def test_the_interval_of_the_worst_group_holds_the_least_true_accuracy_and_the_worst_groups_own_does_not():
    # 1,000 draws of ten groups that are all alike, 40 pairs each: the least observed share is always too low
    rng = np.random.default_rng(2)
    held = own = 0
    for _ in range(1000):
        groups = sample(rng, [0.7] * 10, 40)
        told = worst(groups)
        held += told["accuracy"][1] <= 0.7 <= told["accuracy"][2]
        low, high = share_interval(told["observed"], 40)
        own += low <= 0.7 <= high
    assert held >= 950
    assert own < 850


def test_a_group_that_is_truly_worse_is_named_and_its_accuracy_is_in_the_interval():
    told = worst(sample(np.random.default_rng(3), [0.8, 0.8, 0.45, 0.8], 300))
    assert told["name"] == "g02"
    assert told["accuracy"][1] < 0.45 < told["accuracy"][2] < 0.6
    assert told["observed"] < told["accuracy"][0] < 0.5  # shrunk, a little
    assert (told["groups"], told["n"]) == (4, 300)


def test_one_group_has_no_worst():
    assert worst(found([1, 0], ["a", "a"])) is None
    assert worst({}) is None


def test_groups_of_one_conversation_each_do_not_say_what_is_chance():
    mean, sd, shrunk = between(list(found([1, 0, 1], ["a", "b", "c"]).values()))
    assert mean == pytest.approx(2 / 3)
    assert np.isnan(sd)
    assert shrunk == pytest.approx([2 / 3] * 3)


def test_personalisation_bias_by_hand_and_under_shifts_and_scales():
    points = np.array([[80.0, 60.0], [70.0, 60.0], [90.0, 60.0]])
    told = personalisation_bias(points, "abc", permutations=9)
    assert told["value"] == pytest.approx(np.sqrt((0 + 100 + 100) / 3))
    assert personalisation_bias(3 * points + 7, "abc", permutations=9)["value"] == pytest.approx(3 * told["value"])
    assert personalisation_bias([4.0, 4.0], "ab", permutations=9)["value"] == 0
    assert personalisation_bias([1.0, 3.0], "ab", permutations=9)["value"] == 1  # two points at distance 2
    # every identity is a row: dealing them out again gives the same points
    assert told["p"] == 1


def test_personalisation_bias_is_held_against_what_chance_makes_of_it():
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(20), 30)
    alike = rng.binomial(1, 0.7, (600, 2)) * 100.0
    chance = personalisation_bias(alike, identity)
    assert chance["value"] > 5  # sampling noise alone: 46 points over sqrt 30, in two coordinates
    assert chance["value"] == pytest.approx(chance["by_chance"], rel=0.25)
    differ = alike - 100 * (rng.random((600, 2)) < 0.4) * (identity % 2)[:, None]
    told = personalisation_bias(differ, identity)
    assert told["value"] > told["by_chance_95"]
    assert told["p"] == 1 / 1000


def test_personalisation_bias_of_values_that_are_missing_is_an_error():
    with pytest.raises(DataError, match="a finite row of values for each identity"):
        personalisation_bias([1.0, np.nan], "ab")
