"""Facts about what `evaluation.json` says of models on held-out pairs."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss

from unipref.core.errors import ConfigError, DataError
from unipref.core.statistics import holm, mean_difference
from unipref.evaluate import REWARD_BENCH, HeldOutPairs, Judgement, evaluate_preferences

FEW = {"resamples": 200}


def names(values):
    return np.array([str(value) for value in values], dtype=object)


def world(n=240, seed=0, soft=False):
    """Two models, one twice as sure as it should be, on labels of the other; domains, users, lengths, conversations."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.2, n)
    share = 1 / (1 + np.exp(-logit))
    p = rng.binomial(5, share) / 5 if soft else (rng.random(n) < share).astype(float)
    pairs = HeldOutPairs(
        p=p,
        conversation=names(rng.integers(0, n // 2, n)),
        weight=rng.choice([0.5, 1.0, 2.0], n),
        domain=names(rng.choice(["law", "food", "sport"], n)),
        user=names(rng.integers(0, 8, n)),
        subset=names(rng.choice(["a", "b", "c"], n)),
        length_difference=np.round(4 * logit + rng.normal(0, 8, n)),
    )
    models = {
        "true": Judgement(logit, swapped=-logit, left_out=0.5 * logit, fallback=names([""] * n)),
        "twice": Judgement(2 * logit + rng.normal(0, 0.5, n), fallback=rng.choice(["", "unseen user"], n)),
    }
    return pairs, models


def found(pairs, models, **more):
    return evaluate_preferences(pairs, models, baseline="true" if "true" in models else None, **{**FEW, **more})


def taken(pairs, models, rows, turn=None):
    """The same pairs at `rows`, those where `turn` is true with their sides exchanged."""
    turn = np.zeros(len(rows), dtype=bool) if turn is None else turn
    sign = np.where(turn, -1.0, 1.0)
    one = HeldOutPairs(
        p=np.where(turn, 1 - pairs.p[rows], pairs.p[rows]),
        length_difference=sign * pairs.length_difference[rows],
        **{name: getattr(pairs, name)[rows] for name in ("conversation", "weight", "domain", "user", "subset")},
    )

    def judged(model):
        columns = {name: getattr(model, name) for name in ("logit", "swapped", "left_out", "fallback")}
        columns = {name: column[rows] for name, column in columns.items() if column is not None}
        return Judgement(**{name: column if name == "fallback" else sign * column for name, column in columns.items()})

    return one, {name: judged(model) for name, model in models.items()}


def without(told, *keys):
    return {key: value for key, value in told.items() if key not in keys}


# ---- by hand ----


def test_ties_of_labels_have_no_winner_and_equal_scores_are_half_right_by_hand():
    z = math.log(3)  # sigmoid(z) = 3/4
    pairs = HeldOutPairs(p=[1, 0, 1, 0.5, 0.8], conversation=names(range(5)))
    told = found(pairs, {"m": Judgement([z, z, 0.0, z, -z])})
    m = told["models"]["m"]
    assert m["accuracy"][0] == pytest.approx((1 + 0 + 0.5 + 0) / 4)  # the tied label is left out
    assert m["agreement"][0] == pytest.approx((1 + 0 + 0.5 + 0.5 + 0.2) / 5)  # a vote against is 0.2 likely
    nll = [-math.log(0.75), -math.log(0.25), math.log(2), -0.5 * math.log(0.75 * 0.25),
           -0.8 * math.log(0.25) - 0.2 * math.log(0.75)]  # fmt: skip
    assert m["nll"][0] == pytest.approx(sum(nll) / 5)
    brier = [1 / 16, 9 / 16, 1 / 4, (1 / 16 + 9 / 16) / 2, 0.8 * 9 / 16 + 0.2 / 16]
    assert m["brier"][0] == pytest.approx(sum(brier) / 5)
    assert m["ties"] == 1
    counts = {key: told["pairs"][key] for key in ("n", "with_winner", "ties", "soft", "conversations")}
    assert counts == {"n": 5, "with_winner": 4, "ties": 1, "soft": 1, "conversations": 5}


def test_the_ceiling_is_what_a_model_that_knows_every_share_of_votes_gets():
    p = np.array([1.0, 0.8, 0.3, 0.5])
    pairs = HeldOutPairs(p=p, conversation=names(range(4)))
    told = found(pairs, {"m": Judgement(np.log(np.clip(p, 1e-12, 1 - 1e-12) / np.clip(1 - p, 1e-12, 1)))})
    assert told["ceiling"]["agreement"] == pytest.approx((1 + 0.8 + 0.7 + 0.5) / 4)
    assert told["ceiling"]["brier"] == pytest.approx((0 + 0.16 + 0.21 + 0.25) / 4)
    for key in ("agreement", "nll", "brier"):
        assert told["models"]["m"][key][0] == pytest.approx(told["ceiling"][key], abs=1e-9)


def test_hard_labels_give_scikit_learns_accuracy_log_loss_and_brier_score():
    pairs, models = world()
    told = found(pairs, models)
    for name, model in models.items():
        q = 1 / (1 + np.exp(-model.logit))
        weights = {"sample_weight": pairs.weight}
        m = told["models"][name]
        assert m["accuracy"][0] == pytest.approx(accuracy_score(pairs.p, model.logit > 0, **weights), abs=1e-12)
        assert m["nll"][0] == pytest.approx(log_loss(pairs.p, q, **weights), abs=1e-12)
        assert m["brier"][0] == pytest.approx(brier_score_loss(pairs.p, q, **weights), abs=1e-12)


def test_a_share_of_votes_is_as_many_hard_labels_for_scikit_learn():
    pairs, models = world(soft=True)
    q = 1 / (1 + np.exp(-models["twice"].logit))
    votes = np.concatenate([np.ones(len(q)), np.zeros(len(q))])
    weights = np.concatenate([pairs.weight * pairs.p, pairs.weight * (1 - pairs.p)])
    m = found(pairs, models)["models"]["twice"]
    assert m["nll"][0] == pytest.approx(log_loss(votes, np.tile(q, 2), sample_weight=weights), abs=1e-12)
    assert m["brier"][0] == pytest.approx(brier_score_loss(votes, np.tile(q, 2), sample_weight=weights), abs=1e-12)
    assert m["agreement"][0] == pytest.approx(accuracy_score(votes, np.tile(q > 0.5, 2), sample_weight=weights))


# ---- laws ----


def test_neither_the_order_of_rows_nor_the_batches_they_were_scored_in_move_any_digit():
    pairs, models = world(soft=True)
    whole = found(pairs, models)
    rng = np.random.default_rng(3)
    assert found(*taken(pairs, models, rng.permutation(len(pairs)))) == whole
    batches = np.array_split(np.arange(len(pairs)), [7, 31, 32, 200])
    scored = {
        name: Judgement(
            np.concatenate([model.logit[batch] for batch in batches]),
            swapped=model.swapped, left_out=model.left_out, fallback=model.fallback,
        )
        for name, model in models.items()
    }  # fmt: skip
    assert found(pairs, scored) == whole


def test_exchanging_the_sides_of_any_pairs_changes_nothing_but_how_often_the_first_wins():
    pairs, models = world(soft=True)
    turn = np.random.default_rng(4).random(len(pairs)) < 0.5
    whole, other = found(pairs, models), found(*taken(pairs, models, np.arange(len(pairs)), turn))
    assert alike(without(whole, "pairs"), without(other, "pairs"))
    assert without(whole["pairs"], "first_wins") == without(other["pairs"], "first_wins")


def alike(one, other):
    """The same JSON, numbers to nine digits."""
    numbers = [[], []]
    words = [
        json.loads(json.dumps(told), parse_float=lambda text, kept=kept: kept.append(float(text)))
        for told, kept in zip((one, other), numbers, strict=True)
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-9, abs=1e-9)
    return words[0] == words[1]


def test_weight_two_is_the_pair_twice():
    pairs, models = world()
    doubled = HeldOutPairs(
        p=pairs.p, conversation=pairs.conversation, weight=np.where(np.arange(len(pairs)) < 60, 2.0, 1.0),
        domain=pairs.domain, user=pairs.user, subset=pairs.subset, length_difference=pairs.length_difference,
    )  # fmt: skip
    rows = np.concatenate([np.arange(len(pairs)), np.arange(60)])
    plain, judged = taken(pairs, models, rows)
    object.__setattr__(plain, "weight", np.ones(len(rows)))
    whole, twice = found(doubled, models, least=1), found(plain, judged, least=1)
    assert whole["ceiling"] == pytest.approx(twice["ceiling"])
    for name in models:
        one, other = whole["models"][name], twice["models"][name]
        for key in ("accuracy", "agreement", "nll", "brier"):
            assert one[key] == pytest.approx(other[key], abs=1e-12)
        for key in ("equal_width", "ece", "ece_by_chance", "squared", "temperature"):
            assert alike(one["calibration"][key], other["calibration"][key])
        for key in ("worst_domain", "worst_user"):
            assert one[key]["accuracy"] == pytest.approx(other[key]["accuracy"], abs=1e-12)
        assert one["length"]["correlation"] == pytest.approx(other["length"]["correlation"], abs=1e-9)
        subsets = [each["sections"]["subsets"]["a"]["accuracy"] for each in (one, other)]
        assert subsets[0] == pytest.approx(subsets[1])
        assert one["by_user"]["sd"] == pytest.approx(other["by_user"]["sd"], abs=1e-9)


def test_a_pair_of_weight_zero_is_not_there():
    pairs, models = world()
    kept = np.arange(len(pairs)) % 3 > 0
    object.__setattr__(pairs, "weight", kept.astype(float))
    smaller, judged = taken(pairs, models, np.flatnonzero(kept))
    assert json.dumps(found(pairs, models)) == json.dumps(found(smaller, judged))


def test_the_file_holds_no_nan_whatever_is_missing():
    nothing = HeldOutPairs(p=[0.5, 0.5], conversation=names("ab"), domain=names("xy"), user=names("uv"),
                           length_difference=[0.0, np.nan])  # fmt: skip
    told = found(nothing, {"m": Judgement([0.0, 1.0], best_of=([[1.0]], [[2.0]]))})
    json.dumps(told, allow_nan=False)
    assert told["models"]["m"]["accuracy"] == [None, None, None]
    assert told["models"]["m"]["worst_domain"] is None
    assert told["models"]["m"]["length"]["correlation"][0] is None


# ---- differences ----


def test_differences_are_paired_and_their_p_values_are_adjusted_by_holm_within_a_metric():
    pairs, models = world()
    models["none"] = Judgement(np.random.default_rng(9).normal(size=len(pairs)))
    told = found(pairs, models)
    entry = next(e for e in told["differences"] if (e["a"], e["metric"]) == ("none", "nll"))
    columns = [
        np.logaddexp(0, np.where(pairs.p == 1, -models[name].logit, models[name].logit)) for name in ("none", "true")
    ]
    expected = mean_difference(
        *columns, weights=(pairs.weight,) * 2, clusters=(pairs.conversation,) * 2, resamples=FEW["resamples"]
    )
    assert entry["value"] == pytest.approx(expected.as_list(), abs=1e-12)
    for metric in ("accuracy", "nll", "brier"):
        family = [e for e in told["differences"] if (e["b"], e["metric"]) == ("true", metric)]
        assert [e["a"] for e in family] == ["twice", "none"]
        assert [e["p_holm"] for e in family] == pytest.approx(holm([e["p"] for e in family]).tolist())
    rules = [(e["a"], e["b"]) for e in told["differences"] if e["b"] == "longer wins"]
    assert rules == [(name, "longer wins") for name in models]


def test_a_model_does_not_differ_from_itself():
    pairs, models = world()
    told = found(pairs, {"true": models["true"], "same": models["true"]})
    same = [e for e in told["differences"] if e["b"] == "true"]
    assert all(e["value"][0] == 0 and e["p"] == 1 for e in same)


# ---- domains, users, order, length ----


def test_a_domain_that_the_model_was_fitted_without_is_compared_on_the_same_pairs_by_hand():
    pairs = HeldOutPairs(p=[1, 1, 1, 1, 0], conversation=names(range(5)), domain=names("aabbb"))
    model = Judgement([1, 1, 1, 1, 1], left_out=[1, -1, 0, 1, np.nan])
    left = found(pairs, {"m": model})["models"]["m"]["left_out"]
    assert left["accuracy"][0] == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert left["difference"][0] == pytest.approx((1 + 0 + 0.5 + 1) / 4 - 1)
    assert {name: each["accuracy"][0] for name, each in left["by_domain"].items()} == {"a": 0.5, "b": 0.75}
    assert (left["n"], left["missing"]) == (4, 1)


def test_what_the_model_did_not_know_is_counted_with_its_own_accuracy():
    pairs = HeldOutPairs(p=[1, 1, 0.5, 1], conversation=names(range(4)))
    model = Judgement([1, -1, 1, 1], fallback=np.array([None, "unseen user", "unseen user", ""], dtype=object))
    told = found(pairs, {"m": model})["models"]["m"]["fallback"]
    assert (told["known"]["pairs"], told["known"]["accuracy"][0]) == (2, 1.0)
    unseen = told["reasons"]["unseen user"]
    assert (unseen["pairs"], unseen["n"], unseen["accuracy"][0]) == (2, 1, 0.0)


def test_a_model_that_leans_to_the_first_side_is_told_by_asking_in_both_orders():
    pairs = HeldOutPairs(p=[1, 0, 1], conversation=names("abc"))
    z = math.log(3)
    told = found(pairs, {"m": Judgement([z, z, -z], swapped=[-z, z, np.nan])})["models"]["m"]["both_orders"]
    assert (told["asked"], told["different"], told["turned"]) == (2, 1, 0.5)
    assert (told["largest"], told["mean"]) == (pytest.approx(0.5), pytest.approx(0.25))


def test_a_model_that_reads_length_alone_is_right_where_the_longer_was_chosen_and_nowhere_else():
    rng = np.random.default_rng(1)
    gap = rng.choice([-2.0, -1.0, 1.0, 2.0], 200)
    p = (rng.random(200) < np.where(gap > 0, 0.7, 0.3)).astype(float)
    told = found(HeldOutPairs(p=p, conversation=names(range(200)), length_difference=gap), {"m": Judgement(3 * gap)})
    length = told["models"]["m"]["length"]
    people = np.mean((p == 1) == (gap > 0))
    assert length["chooses_longer"][0] == 1
    assert length["people_choose_longer"][0] == pytest.approx(people)
    assert length["excess"][0] == pytest.approx(1 - people)
    assert (length["accuracy_longer_chosen"][0], length["accuracy_shorter_chosen"][0], length["gap"][0]) == (1, 0, 1)
    assert length["correlation"][0] == pytest.approx(1)
    assert told["baselines"]["longer wins"]["accuracy"][0] == pytest.approx(people)
    assert told["models"]["m"]["accuracy"][0] == pytest.approx(people)


def test_where_the_shorter_wins_more_often_that_is_a_rule_too():
    pairs = HeldOutPairs(p=[1, 1, 1, 0], conversation=names(range(4)), length_difference=[-1, -2, np.nan, -3])
    rules = found(pairs, {"m": Judgement([1, 1, 1, 1])})["baselines"]
    # the unknown length is a tie: half right for both
    assert {rule: each["accuracy"][0] for rule, each in rules.items()} == {
        "longer wins": 1.5 / 4,
        "shorter wins": 2.5 / 4,
    }
    turned = HeldOutPairs(p=[1, 1, 1, 0], conversation=names(range(4)), length_difference=[1, 2, np.nan, 3])
    assert list(found(turned, {"m": Judgement([1, 1, 1, 1])})["baselines"]) == ["longer wins"]


def test_the_correlation_with_length_is_that_of_both_orders_of_every_pair():
    pairs, models = world()
    length = found(pairs, models)["models"]["true"]["length"]
    logit, gap, w = models["true"].logit, pairs.length_difference, pairs.weight
    both = np.cov(np.r_[logit, -logit], np.r_[gap, -gap], aweights=np.r_[w, w])
    assert length["correlation"][0] == pytest.approx(both[0, 1] / math.sqrt(both[0, 0] * both[1, 1]))


def test_users_with_few_pairs_are_told_together_and_counted():
    pairs = HeldOutPairs(p=[1] * 9, conversation=names(range(9)), user=np.array([*"aaaabbc", None, "c"], dtype=object))
    told = found(pairs, {"m": Judgement([1, 1, 1, -1, 1, -1, -1, 1, -1])}, least=3)["models"]["m"]["by_user"]
    assert {name: (each["accuracy"][0], each["n"]) for name, each in told["users"].items()} == {"a": (0.75, 4)}
    assert (told["few"]["users"], told["few"]["n"], told["few"]["accuracy"][0]) == (2, 4, 0.25)


# ---- sections ----


def test_sections_weigh_their_subsets_as_rewardbench_does_by_hand():
    subset = names(["math-prm"] * 2 + ["hep-cpp"] * 4 + ["donotanswer"] * 2 + ["else"])
    logit = [1, 1, 1, -1, -1, -1, 0, 1, 1]
    pairs = HeldOutPairs(p=np.ones(9), conversation=names(range(9)), subset=subset)
    told = found(pairs, {"m": Judgement(logit)}, sections=REWARD_BENCH)["models"]["m"]["sections"]
    reasoning = told["sections"]["Reasoning"]
    assert reasoning["weighted"][0] == pytest.approx((984 * 1 + 164 * 0.25) / (984 + 164))
    assert reasoning["unweighted"][0] == pytest.approx((1 + 0.25) / 2)
    assert told["sections"]["Safety"]["weighted"][0] == 0.75  # equal scores are half right
    assert told["sections"]["Safety"]["strict"][0] == 0.5  # and wrong in RewardBench 1
    assert told["sections"]["Chat"] == {"subsets": [], "absent": list(REWARD_BENCH["Chat"])}
    assert told["overall"]["weighted"][0] == pytest.approx((reasoning["weighted"][0] + 0.75) / 2)
    assert told["overall"]["strict"][0] == pytest.approx((reasoning["weighted"][0] + 0.5) / 2)
    assert told["subsets"]["donotanswer"]["ties"] == 1
    assert told["elsewhere"] == ["else"]


def test_rewardbenchs_counts_weigh_mathematics_as_much_as_all_code():
    reasoning = REWARD_BENCH["Reasoning"]
    assert reasoning["math-prm"] == sum(count for name, count in reasoning.items() if name.startswith("hep-"))
    assert sum(map(sum, (section.values() for section in REWARD_BENCH.values()))) == 2985 - 447 + 984  # 2985 pairs


def test_subsets_that_are_named_alone_count_by_their_pairs():
    pairs = HeldOutPairs(p=np.ones(4), conversation=names(range(4)), subset=names("aaab"))
    told = found(pairs, {"m": Judgement([1, 1, 1, -1])}, sections={"all": ["a", "b"]})["models"]["m"]["sections"]
    assert told["sections"]["all"]["weighted"][0] == pytest.approx(0.75)
    assert told["sections"]["all"]["unweighted"][0] == pytest.approx(0.5)


# ---- bad input ----


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: HeldOutPairs(p=[1, 1.2], conversation=names("ab")), DataError, r"from 0 to 1; 1 of 2 .* row 1: 1\.2"),
        (lambda: HeldOutPairs(p=[1, np.nan], conversation=names("ab")), DataError, "row 1: nan"),
        (lambda: HeldOutPairs(p=[1], conversation=names("ab")), DataError, "conversation has shape"),
        (lambda: HeldOutPairs(p=[1], conversation=names("a"), weight=[-1]), DataError, "at least 0"),
        (lambda: HeldOutPairs(p=[], conversation=names("")), DataError, "nothing to evaluate on"),
        (lambda: found(world()[0], {}), ConfigError, "no model to evaluate"),
        (lambda: found(world()[0], {"m": Judgement([1.0])}), DataError, r"m has logit of shape \(1,\) for 240"),
        (lambda: found(world()[0], {"m": Judgement(np.full(240, np.inf))}), DataError, "no finite logit for 240 of"),
        (lambda: found(*world(), main="tru"), ConfigError, "did you mean 'true'"),
        (lambda: found(*world(), baselines={"twice": np.zeros(240)}), ConfigError, "and of a simple rule"),
        (lambda: found(*world(), sections={"x": ["aa"]}), ConfigError, r"'aa' \(did you mean 'a'\?\)"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_and_what_next(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_logits_with_the_domain_left_out_need_domains():
    with pytest.raises(ConfigError, match="the pairs have no domain"):
        found(HeldOutPairs(p=[1], conversation=names("a")), {"m": Judgement([1.0], left_out=[1.0])})
