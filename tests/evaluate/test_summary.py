"""Facts about `summarise`, `summarise_reference` and `differences`."""

import random

import pytest

from unipref.core.errors import ConfigError
from unipref.evaluate import differences, summarise, summarise_reference

DESIGNER = {"easy": {"weight": 1.0}}


def pair(i, margin, *, aux=(0.0, 0.0), words=(30, 30), raw=0.0, weight=1.0, conversation=None, **more):
    """A pair whose implicit reward margin is `margin` and whose raw log-prob gap is `raw`; 10 and 5 tokens."""
    return {
        "id": f"p{i}", "conversation": conversation or f"c{i}", "domain": None, "weight": weight,
        "logp_chosen": -20.0 + raw, "logp_rejected": -20.0,
        "ref_logp_chosen": -20.0 + raw - margin, "ref_logp_rejected": -20.0,
        "len_chosen": 10, "len_rejected": 5, "words": list(words), "aux": {"easy": list(aux)}, **more,
    }  # fmt: skip


def generation(i, *, score=0.5, kl=0.0, n_tokens=10, stopped=True, text="w " * 30, **more):
    return {
        "id": f"p{i}", "conversation": f"c{i}", "prompt": "?", "text": text, "n_tokens": n_tokens, "stopped": stopped,
        "logp": -10.0, "ref_logp": -10.0 - kl, "aux": {"easy": score}, **more,
    }  # fmt: skip


def run(pairs=(), generations=(), **more):
    return summarise(pairs, generations, designer=DESIGNER, **{"resamples": 200, **more})


def test_accuracy_counts_a_tie_half_and_says_how_many_there_were():
    result = run([pair(0, 1.0), pair(1, -1.0), pair(2, 0.0), pair(3, 2.0)])
    assert result["accuracy"][0] == (1 + 0 + 0.5 + 1) / 4
    assert result["ties"][0] == 1 / 4
    assert result["margin"][0] == 2 / 4
    assert result["n"] == {"pairs": 4, "generations": 0, "conversations": 4}


def test_the_reference_itself_has_accuracy_one_half():
    assert run([pair(i, 0.0) for i in range(5)])["accuracy"][0] == 0.5


def test_ranking_accuracy_ignores_the_reference_and_per_token_divides_by_length():
    rows = [pair(0, -3.0, raw=1.0), pair(1, 5.0, raw=-1.0), pair(2, 0.0, raw=2.0)]
    result = run(rows)
    assert result["ranking_accuracy"][0] == 2 / 3
    # chosen: (-20 + raw) / 10 tokens, rejected: -20 / 5 tokens
    assert result["ranking_accuracy_per_token"][0] == 1.0


def test_a_row_of_weight_two_counts_twice():
    assert run([pair(0, 1.0, weight=2.0), pair(1, -1.0)])["accuracy"][0] == 2 / 3


def test_row_order_changes_nothing():
    rng = random.Random(0)
    pairs = [pair(i, rng.gauss(0, 1), aux=(rng.random(), rng.random())) for i in range(20)]
    generations = [generation(i, score=rng.random(), kl=rng.gauss(1, 1)) for i in range(20)]
    there = run(pairs, generations)
    rng.shuffle(pairs)
    rng.shuffle(generations)
    assert run(pairs, generations) == there


def test_heldout_concordance_leaves_out_pairs_of_equal_or_missing_score_and_counts_the_missing():
    rows = [
        pair(0, 1.0, aux=(0.9, 0.1)),  # agrees
        pair(1, 1.0, aux=(0.1, 0.9)),  # disagrees
        pair(2, -1.0, aux=(0.1, 0.9)),  # agrees
        pair(3, 1.0, aux=(0.5, 0.5)),  # says nothing
        pair(4, 1.0, aux=(None, 0.5)),  # says nothing
    ]
    aux = run(rows)["aux"]["easy"]
    assert aux["heldout"][0] == pytest.approx(2 / 3)
    assert aux["agreement"][0] == pytest.approx(1 / 3)  # people preferred the higher-scored side in row 0 only
    assert aux["missing"] == {"generations": 0, "heldout": 1}
    assert aux["data_mean"]["chosen"][0] == pytest.approx((0.9 + 0.1 + 0.1 + 0.5) / 4)
    assert aux["data_mean"]["rejected"][0] == pytest.approx((0.1 + 0.9 + 0.9 + 0.5 + 0.5) / 5)


def test_a_missing_score_of_a_generation_is_counted_and_not_a_zero():
    aux = run(generations=[generation(0, score=1.0), generation(1, score=None)])["aux"]["easy"]
    assert aux["generations"][0] == 1.0
    assert aux["missing"]["generations"] == 1


def test_every_row_is_in_the_bucket_of_its_words():
    texts = {0: 0, 19: 0, 20: 1, 39: 1, 40: 2, 79: 2, 80: 3, 500: 3}
    generations = [generation(i, text="w " * words, score=float(words)) for i, words in enumerate(texts)]
    pairs = [pair(0, 1.0, words=(10, 29), aux=(1, 0)), pair(1, 1.0, words=(10, 30), aux=(1, 0))]
    buckets = run(pairs, generations)["aux"]["easy"]["by_length"]
    assert [bucket["words"] for bucket in buckets] == [[0, 19], [20, 39], [40, 79], [80, None]]
    assert [bucket["n"] for bucket in buckets] == [
        {"generations": 2, "heldout": 1}, {"generations": 2, "heldout": 1},
        {"generations": 2, "heldout": 0}, {"generations": 2, "heldout": 0},
    ]  # fmt: skip
    assert buckets[3]["generations"][0] == 290.0
    assert buckets[3]["heldout"] == [None, None, None]


def test_kl_length_and_stopped_are_means_over_generations_and_kl_per_token_over_tokens():
    rows = [generation(0, kl=2.0, n_tokens=10), generation(1, kl=4.0, n_tokens=30, stopped=False)]
    result = run(generations=rows)
    assert result["kl"][0] == 3.0
    assert result["kl_per_token"][0] == pytest.approx(6.0 / 40)
    assert result["length"][0] == 20.0
    assert result["stopped"][0] == 0.5


def test_drift_is_policy_minus_reference_per_response_and_per_token():
    result = run([pair(0, 2.0), pair(1, 4.0)])
    assert result["drift"]["chosen"][0] == 3.0
    assert result["drift"]["rejected"][0] == 0.0
    assert result["drift_per_token"]["chosen"][0] == pytest.approx(6 / 20)


def test_no_rows_give_nothing_rather_than_zeros():
    result = run()
    for name in ("accuracy", "ranking_accuracy", "ties", "kl", "kl_per_token", "length", "stopped"):
        assert result[name] == [None, None, None]
    assert result["aux"]["easy"]["generations"] == [None, None, None]
    assert result["by_seed"] == {}


def test_perfect_accuracy_is_not_reported_as_certain():
    value, low, high = run([pair(i, 1.0) for i in range(10)])["accuracy"]
    assert value == high == 1.0
    assert low == pytest.approx(0.05 ** (1 / 10))


def test_seeds_are_pooled_per_conversation_and_listed_apart():
    one = [pair(i, 1.0 if i % 3 else -1.0, seed=0) for i in range(12)]
    two = [pair(i, 1.0 if i % 4 else -1.0, seed=1) for i in range(12)]
    result = run([*one, *two], [generation(0, score=0.2, seed=0), generation(0, score=0.6, seed=1)])
    assert result["by_seed"] == {
        "0": {"accuracy": 8 / 12, "aux": {"easy": 0.2}},
        "1": {"accuracy": 9 / 12, "aux": {"easy": 0.6}},
    }
    assert result["accuracy"][0] == pytest.approx((8 + 9) / 24)
    assert result["n"]["conversations"] == 12
    repeated = run([*one, *[{**row, "seed": 1} for row in one]])
    assert repeated["accuracy"] == pytest.approx(run(one)["accuracy"])  # the same prompts twice are no new evidence


def test_reference_summary_ranks_by_its_own_log_probs_and_has_nothing_against_itself():
    rows = [pair(0, 3.0, raw=1.0, aux=(1.0, 0.0)), pair(1, 0.0, raw=1.0)]
    result = summarise_reference(rows, [generation(0)], designer=DESIGNER, resamples=50)
    assert result["ranking_accuracy"][0] == 0.5  # reference gaps: -2 and 1
    assert result["length"][0] == 10.0
    assert result["aux"]["easy"]["agreement"][0] == 1.0
    assert not {"accuracy", "kl", "drift", "ties", "margin"} & set(result)
    assert "heldout" not in result["aux"]["easy"]


def test_a_row_without_a_score_is_refused_with_its_name():
    row = generation(7)
    row["aux"] = {"eazy": 1.0}
    with pytest.raises(ConfigError, match=r"generation row 'p7' has no score 'easy' \(did you mean 'eazy'"):
        run(generations=[row])


def test_differences_are_those_of_the_summaries_and_pair_the_prompts():
    rng = random.Random(1)
    base = [rng.gauss(0, 2) for _ in range(40)]
    scores = [rng.random() * 10 for _ in range(40)]
    a = ([pair(i, m + 0.5, aux=(1, 0)) for i, m in enumerate(base)],
         [generation(i, score=s + 0.3 + 0.01 * rng.random(), kl=2.0) for i, s in enumerate(scores)])  # fmt: skip
    b = ([pair(i, m, aux=(1, 0)) for i, m in enumerate(base)], [generation(i, score=s) for i, s in enumerate(scores)])
    entries = differences({"a": a, "b": b}, {"a": "b"}, designer=DESIGNER, resamples=300)
    by_metric = {entry["metric"]: entry["value"] for entry in entries}
    assert list(by_metric) == [
        "accuracy", "ranking_accuracy", "aux.easy.generations", "aux.easy.heldout", "kl", "length",
    ]  # fmt: skip
    left, right = run(*a), run(*b)
    assert by_metric["accuracy"][0] == pytest.approx(left["accuracy"][0] - right["accuracy"][0])
    assert by_metric["kl"] == [2.0, None, None]  # the same on every prompt: a bootstrap cannot say
    value, low, high = by_metric["aux.easy.generations"]
    assert 0.3 < low < value < high < 0.31
    assert right["aux"]["easy"]["generations"][2] - right["aux"]["easy"]["generations"][1] > 1


def test_several_controls_of_one_run_and_an_unknown_one():
    rows = ([pair(0, 1.0), pair(1, -1.0)], [])
    entries = differences({"u": rows, "x": rows, "y": rows}, {"u": ["x", "y"]}, designer={}, resamples=20)
    assert {(entry["a"], entry["b"]) for entry in entries} == {("u", "x"), ("u", "y")}
    with pytest.raises(ConfigError, match="controls names the run 'dpoo', which does not exist"):
        differences({"dpo": rows}, {"dpo": "dpoo"}, designer={})
