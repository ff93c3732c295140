"""Several metrics as one: a planted world, the exact line search against trying everything, and the file's laws."""

import itertools
import json
import math

import numpy as np
import pytest

from unipref.core.errors import ConfigError, DataError
from unipref.core.protocols import Scorer
from unipref.core.records import Comparison, Item, Record
from unipref.rewards import DesignerObjectives, make_scorer
from unipref.rewards.scorers import Combination, Metric, combine_metrics
from unipref.rewards.scorers.metametrics import _best_on_line, ordered_pairs


def kendall(score, human):
    """The slow twin: (concordant - discordant) / pairs that people tell apart."""
    signs = [
        np.sign(score[i] - score[j]) * np.sign(human[i] - human[j])
        for i, j in itertools.combinations(range(len(human)), 2)
        if human[i] != human[j]
    ]
    return float(np.mean(signs))


def world(seed, n=400):
    """Two metrics that each see one half of what people judge, with noise, and one that sees nothing."""
    generator = np.random.default_rng(seed)
    first, second, nothing = generator.normal(size=(3, n))
    human = first + second + 0.5 * generator.normal(size=n)
    noise = 0.3 * generator.normal(size=(2, n))
    return np.stack([first + noise[0], 10 * (second + noise[1]), nothing], axis=1), human


@pytest.mark.parametrize("seed", range(4))
def test_the_combination_beats_every_metric_by_two_hundredths_of_tau_and_gives_noise_a_tenth_at_most(seed):
    values, human = world(seed)
    fitted = Combination.fit(values[:200], *ordered_pairs(human[:200]), seed=seed)
    weights = [metric.weight for metric in fitted.metrics]
    assert sum(weights) == pytest.approx(1.0)
    assert weights[2] <= 0.1
    assert abs(weights[0] - weights[1]) < 0.15  # of like use, though on scales ten times apart
    test = kendall(fitted.of_values(values[200:]), human[200:])
    assert test >= max(kendall(values[200:, k], human[200:]) for k in range(3)) + 0.02
    equal = Combination(tuple(Metric(m.name, {}, m.low, m.high, False, 1 / 3) for m in fitted.metrics))
    assert test >= kendall(equal.of_values(values[200:]), human[200:]) + 0.02
    assert fitted.tau == pytest.approx(kendall(fitted.of_values(values[:200]), human[:200]), abs=1e-9)
    assert fitted.held_out == pytest.approx(test, abs=0.1)


def test_weights_follow_how_much_each_metric_counts_for_people():
    generator = np.random.default_rng(2)
    values = generator.uniform(size=(300, 3))
    human = 0.7 * values[:, 0] + 0.3 * values[:, 1] + 0.05 * generator.normal(size=300)
    weights = [m.weight for m in Combination.fit(values, *ordered_pairs(human)).metrics]
    assert weights[0] > weights[1] > weights[2]
    assert weights[0] == pytest.approx(0.7, abs=0.05)


def test_the_best_value_along_a_line_is_the_best_of_all_values():
    generator = np.random.default_rng(0)
    for _ in range(200):
        rest = generator.integers(-3, 4, size=12).astype(float)
        slope = generator.integers(-2, 3, size=12).astype(float)
        weight = generator.uniform(0.5, 2.0, size=12)
        found, value = _best_on_line(rest, slope, weight)
        turns = sorted({0.0, *(-r / s for r, s in zip(rest, slope, strict=True) if s and -r / s > 0)})
        tried = [0.0, *((a + b) / 2 for a, b in itertools.pairwise([*turns, turns[-1] + 1]))]
        agreements = [(weight * np.sign(rest + t * slope)).sum() / weight.sum() for t in tried]
        assert value == pytest.approx(max(agreements), abs=1e-12)
        assert value == pytest.approx((weight * np.sign(rest + found * slope)).sum() / weight.sum(), abs=1e-12)
        assert found >= 0


def test_no_change_of_one_weight_orders_more_pairs_as_people_do():
    values, human = world(9, n=120)
    better, worse = ordered_pairs(human)
    fitted = Combination.fit(values, better, worse, folds=0)
    weights = np.array([m.weight for m in fitted.metrics])
    scaled = np.stack([m.scaled(values[:, k]) for k, m in enumerate(fitted.metrics)], axis=1)
    for k, t in itertools.product(range(3), np.linspace(0, 3, 200)):
        changed = np.where(np.arange(3) == k, t, weights)
        score = scaled @ changed
        assert np.sign(score[better] - score[worse]).mean() <= fitted.tau + 1e-9


def test_one_metric_is_that_metric_and_a_monotone_change_of_it_changes_no_order():
    values, human = world(1, n=80)
    alone = Combination.fit(values[:, :1], *ordered_pairs(human))
    assert [m.weight for m in alone.metrics] == [1.0]
    low, high = values[:, 0].min(), values[:, 0].max()
    np.testing.assert_allclose(alone.of_values(values[:, :1]), (values[:, 0] - low) / (high - low), atol=1e-12)
    bent = Combination.fit(np.exp(values[:, :1]), *ordered_pairs(human))
    assert bent.tau == alone.tau == pytest.approx(kendall(values[:, 0], human), abs=1e-12)


def test_a_metric_is_held_within_its_scale_at_both_ends_and_an_inverted_one_is_turned():
    plain, turned = (Metric("m", {}, 2.0, 6.0, inverted, 1.0) for inverted in (False, True))
    values = np.array([-10.0, 2.0, 3.0, 6.0, 99.0, math.nan])
    np.testing.assert_array_equal(plain.scaled(values), [0, 0, 0.25, 1, 1, math.nan])
    np.testing.assert_array_equal(turned.scaled(values), [1, 1, 0.75, 0, 0, math.nan])


def test_an_error_count_gets_its_weight_where_it_is_named_inverted_and_none_where_it_is_not():
    values, human = world(3, n=150)
    values[:, 1] = -values[:, 1]
    pairs = ordered_pairs(human)
    names = ("a", "errors", "noise")
    left = {m.name: m.weight for m in Combination.fit(values, *pairs, names=names).metrics}
    turned = Combination.fit(values, *pairs, names=names, inverted=["errors"])
    assert left["errors"] == 0.0
    assert dict((m.name, m.weight) for m in turned.metrics)["errors"] > 0.4
    assert Combination.fit(values, *pairs, names=names).alone["errors"] < 0  # how one sees that it was forgotten
    with pytest.raises(ConfigError, match=r"inverted names no metric 'error' \(did you mean 'errors'\?\)"):
        Combination.fit(values, *pairs, names=names, inverted=["error"])


def test_a_pair_of_weight_two_is_the_pair_twice():
    values, human = world(4, n=40)
    better, worse = ordered_pairs(human)
    weight = np.where(np.arange(len(better)) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(len(better)), weight.astype(int))
    heavy = Combination.fit(values, better, worse, weight=weight, folds=0)
    copied = Combination.fit(values, better[twice], worse[twice], folds=0)
    assert heavy.tau == pytest.approx(copied.tau, abs=1e-12)
    np.testing.assert_allclose([m.weight for m in heavy.metrics], [m.weight for m in copied.metrics], atol=1e-9)


def test_on_noise_alone_the_fit_looks_better_than_it_is_and_the_held_out_tau_says_so():
    generator = np.random.default_rng(8)
    values, human = generator.normal(size=(40, 8)), generator.normal(size=40)
    fitted = Combination.fit(values, *ordered_pairs(human))
    assert fitted.tau > 0.15
    assert abs(fitted.held_out) < 0.3  # 5 folds of 28 pairs: standard error about 0.1
    assert fitted.held_out < fitted.tau
    assert math.isnan(Combination.fit(values[:9], *ordered_pairs(human[:9])).held_out)  # too few for five folds


def test_pairs_with_a_missing_value_are_left_out_and_counted():
    values, human = world(5, n=30)
    values[3, 1] = math.nan
    better, worse = ordered_pairs(human)
    fitted = Combination.fit(values, better, worse)
    assert fitted.n_missing == 29
    assert fitted.n_pairs == len(better) - 29
    assert np.isnan(fitted.of_values(values)).tolist() == [i == 3 for i in range(30)]
    values[:, 1] = [1.0, 2.0] + [math.nan] * 28
    with pytest.raises(DataError, match="has a value of every metric on both sides"):
        Combination.fit(values, better[~np.isin(better, (0, 1))], worse[~np.isin(better, (0, 1))])


def test_a_constant_metric_and_one_without_a_value_are_named():
    values, human = world(5, n=30)
    for column, message in ((2.0, "noise gives every response 2.0"), (math.nan, "noise has no value for any of 30")):
        values[:, 2] = column
        with pytest.raises(ConfigError, match=message):
            Combination.fit(values, *ordered_pairs(human), names=("a", "b", "noise"))


def test_ratings_that_do_not_differ_give_no_order_and_many_are_drawn_from():
    with pytest.raises(DataError, match="3 responses have a rating, and no two differ"):
        ordered_pairs(np.array([1.0, 1.0, math.nan, 1.0]))
    human = np.random.default_rng(0).integers(0, 4, size=1000).astype(float)
    better, worse = ordered_pairs(human, most=500)
    assert len(better) == len(worse) == 500
    assert (human[better] > human[worse]).all()
    assert len({frozenset(pair) for pair in zip(better.tolist(), worse.tolist(), strict=True)}) == 500


def record(k, long, short, *, preference=1.0, score=None):
    """The first answer is preferred by so much."""
    items = tuple(
        Item(f"p{k}", text, columns={} if score is None else {"score": s})
        for text, s in ((long, score and score[0]), (short, score and score[1]))
    )
    return Record(f"r{k}", items, (Comparison(0, 1, preference),) if score is None else (), conversation=f"p{k}")


METRICS = {
    "length": {"scorer": "length"},
    "polite": {"scorer": "word_list", "options": {"words": ["please", "thanks"]}},
}


def wordy(k, n, polite):
    return " ".join(["please"] * polite + [f"w{k}"] * (n - polite))


RECORDS = [record(k, wordy(k, 6 + k % 3, 2), wordy(k, 4 + k % 5, 0)) for k in range(20)]


def test_it_is_fitted_to_records_and_scores_texts_by_the_file(tmp_path):
    ties = [record(90 + k, "a", "b c", preference=0.5) for k in range(5)]
    fitted = combine_metrics(METRICS, [*RECORDS, *ties])
    assert fitted.n_pairs == 20
    assert fitted.tau == 1.0 == fitted.alone["polite"]
    assert fitted.alone["length"] == pytest.approx(np.mean([np.sign(6 + k % 3 - 4 - k % 5) for k in range(20)]))
    fitted.save(tmp_path / "m.json")
    made = make_scorer({"scorer": "metametrics", "options": {"model": str(tmp_path / "m.json")}})
    texts = ["please a b", "a b c", ""]
    inner = np.stack([make_scorer(spec).score(["x"] * 3, texts) for spec in METRICS.values()], axis=1)
    np.testing.assert_array_equal(made.score(["x"] * 3, texts), fitted.of_values(inner))
    assert np.isnan(made.score(["x"] * 3, texts)).tolist() == [False, False, True]
    again = Combination.load(tmp_path / "m.json")
    assert again == fitted
    assert isinstance(made, Scorer)
    objective = DesignerObjectives.from_config(
        {"people": {"scorer": "metametrics", "options": {"model": str(tmp_path / "m.json")}}}
    )
    assert objective.score_texts(["x"], texts[:1])["reward"][0] == made.score(["x"], texts[:1])[0]


def test_ratings_order_responses_of_all_prompts_and_a_doubtful_comparison_counts_less():
    rated = [record(k, wordy(k, 6, k % 3), wordy(k, 6 + k % 2, 0), score=(k % 3, 0)) for k in range(12)]
    fitted = combine_metrics(METRICS, rated, by="score")
    scores = [s for k in range(12) for s in (k % 3, 0)]
    assert fitted.n_pairs == sum(a != b for a, b in itertools.combinations(scores, 2))
    sure = [record(k, "please a", "b c d") for k in range(3)]
    doubtful = [record(10 + k, "b c d", "please a", preference=0.6) for k in range(3)]
    assert combine_metrics({"polite": METRICS["polite"]}, [*sure, *doubtful]).tau == pytest.approx((3 - 3 * 0.2) / 3.6)
    with pytest.raises(DataError, match="every comparison is a tie"):
        combine_metrics(METRICS, [record(1, "a", "b", preference=0.5)])
    with pytest.raises(ConfigError, match="no metric to combine"):
        combine_metrics({}, RECORDS)


def written(tmp_path, *rows):
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"kind": "unipref-metametrics-1", "metrics": list(rows)}), encoding="utf-8")
    return {"scorer": "metametrics", "options": {"model": str(path)}}


def row(name="length", weight=1.0, low=0.0, high=10.0, **spec):
    return {
        "name": name,
        "spec": spec or {"scorer": "length"},
        "low": low,
        "high": high,
        "inverted": False,
        "weight": weight,
    }


def test_weights_times_a_constant_are_the_same_weights(tmp_path):
    polite = METRICS["polite"]
    first = make_scorer(written(tmp_path, row(), row("polite", 3.0, high=1.0, **polite))).score(["x"], ["please a"])
    second = make_scorer(written(tmp_path, row(weight=7.0), row("polite", 21.0, high=1.0, **polite)))
    assert first[0] == pytest.approx((0.2 + 3 * 0.5) / 4, abs=1e-12)
    assert second.score(["x"], ["please a"])[0] == pytest.approx(first[0], abs=1e-12)


def test_a_metric_of_weight_zero_is_not_run(tmp_path):
    made = make_scorer(written(tmp_path, row(), row("gone", 0.0, scorer="reward_model", options={"model": "no/where"})))
    assert made.score(["x"], ["a b c"]).tolist() == [0.3]


def test_a_file_may_not_name_code_that_would_be_run_and_the_recipe_may(tmp_path, monkeypatch):
    (tmp_path / "counting_letters.py").write_text("def f(c, r):\n    return [len(t) for t in r]\nf.version = 1\n")
    monkeypatch.chdir(tmp_path)
    spec = written(tmp_path, row("mine", scorer="python", options={"function": "counting_letters:f"}))
    with pytest.raises(ConfigError, match=r"asks for the scorer 'python' \(mine\), which would run code"):
        make_scorer(spec).score(["x"], ["abc"])
    given = {"mine": {"scorer": "python", "options": {"function": "counting_letters:f"}}}
    spec["options"]["scorers"] = given
    assert make_scorer(spec).score(["x"], ["abc"]).tolist() == [0.3]
    with pytest.raises(ConfigError, match=r"has no metric 'mein' \(did you mean 'mine'\?\)"):
        make_scorer({**spec, "options": {**spec["options"], "scorers": {"mein": given["mine"]}}}).score(["x"], ["a"])
    trusting = row("reward", scorer="reward_model", options={"model": "a/b", "trust_remote_code": True})
    with pytest.raises(ConfigError, match="asks for a model's own code"):
        make_scorer(written(tmp_path, trusting)).score(["x"], ["a"])
    within = row("nested", scorer="metametrics", options={"model": "other.json", "scorers": given})
    with pytest.raises(ConfigError, match="asks for the scorer 'python'"):
        make_scorer(written(tmp_path, within)).score(["x"], ["a"])


def test_a_scorer_given_as_an_object_cannot_be_written_to_a_file(tmp_path):
    fitted = combine_metrics({**METRICS, "length": make_scorer({"scorer": "length"})}, RECORDS)
    with pytest.raises(ConfigError, match="length was given without its scorer's name"):
        fitted.save(tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_the_version_follows_weights_and_inner_versions_and_not_where_the_file_lies(tmp_path):
    first = make_scorer(written(tmp_path, row(), row("polite", **METRICS["polite"]))).version
    (tmp_path / "b").mkdir()
    assert make_scorer(written(tmp_path / "b", row(), row("polite", **METRICS["polite"]))).version == first
    changed = (
        (row(), row("polite", 2.0, **METRICS["polite"])),
        (row(high=11.0), row("polite", **METRICS["polite"])),
        (row(), row("polite", scorer="word_list", options={"words": ["please"]})),
    )
    assert len({first, *(make_scorer(written(tmp_path, *rows)).version for rows in changed)}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "is no JSON"),
        ('{"kind": "other"}', "is of the kind 'other'"),
        ("[]", "is of the kind None"),
        ('{"kind": "unipref-metametrics-1", "metrics": []}', "each metric has a name"),
        (json.dumps({"kind": "unipref-metametrics-1", "metrics": [row(weight=0.0)]}), "not all of them 0"),
        (json.dumps({"kind": "unipref-metametrics-1", "metrics": [row(low=3.0, high=3.0)]}), "low < high"),
        (json.dumps({"kind": "unipref-metametrics-1", "metrics": [row(weight=-1.0)]}), "a weight from 0"),
        (json.dumps({"kind": "unipref-metametrics-1", "metrics": [row(scorer="lenght")]}), "no scorer named 'lenght'"),
    ],
)
def test_a_file_that_is_none_of_these_is_named(tmp_path, content, message):
    path = tmp_path / "m.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        make_scorer({"scorer": "metametrics", "options": {"model": str(path)}}).score(["x"], ["a"])
