"""Facts about choosing a setting and about differences of many methods from one."""

import math

import numpy as np
import pytest

from unipref.core.statistics import holm, swap_test, wins
from unipref.evaluate import against_baseline, selection_scores
from unipref.evaluate._rows import margins_of


def pair(margin, raw, *, lengths=(4, 4), conversation="c", seed=0):
    """A pair row with implicit reward margin `margin` and log-probability gap `raw`."""
    return {
        "logp_chosen": -8.0 + raw, "logp_rejected": -8.0, "ref_logp_chosen": -8.0 + raw - margin,
        "ref_logp_rejected": -8.0, "len_chosen": lengths[0], "len_rejected": lengths[1], "weight": 1.0,
        "conversation": conversation, "seed": seed, "aux": {},
    }  # fmt: skip


def test_each_selection_metric_by_hand():
    # log-probabilities -8 + raw against -8; per token over 16 and 4: -7/16 > -8/4, and -10/16 > -8/4
    rows = [pair(1.0, 1.0, lengths=(16, 4)), pair(1.0, -2.0, lengths=(16, 4)), pair(-1.0, -1.0), pair(0.0, 2.0)]
    found = selection_scores(rows)
    assert found["accuracy"] == (1 + 1 + 0 + 0.5) / 4
    assert found["ranking_accuracy"] == (1 + 0 + 0 + 1) / 4
    assert found["ranking_accuracy_per_token"] == (1 + 1 + 0 + 1) / 4
    assert found["log_score"] > -math.log(2)


def test_no_row_selects_nothing():
    assert all(math.isnan(value) for value in selection_scores([]).values())


def runs(n=80, seeds=(0, 1)):
    """A baseline that knows nothing, a method that knows much, and one like the baseline."""
    found = {}
    for number, (name, shift) in enumerate({"base": 0.0, "good": 1.5, "same": 0.0}.items()):
        rng = np.random.default_rng(number)
        found[name] = (
            [
                pair(m, m, conversation=str(i), seed=s)
                for s in seeds
                for i, m in enumerate(rng.normal(shift, 1, size=n))
            ],
            [],
        )
    return found


def test_p_values_are_swap_tests_over_conversations_and_adjusted_within_a_metric():
    rows = runs()
    entries = against_baseline(rows, "base", resamples=200)
    mine = {entry["a"]: entry for entry in entries if entry["metric"] == "accuracy"}
    assert set(mine) == {"good", "same"}

    def column(name):
        return wins(margins_of(rows[name][0]))

    clusters = tuple([row["conversation"] for row in rows[name][0]] for name in ("good", "base"))
    assert mine["good"]["p"] == swap_test(column("good"), column("base"), clusters=clusters)
    assert mine["good"]["value"][0] == pytest.approx(column("good").mean() - column("base").mean())
    expected = holm([mine["good"]["p"], mine["same"]["p"]])
    assert [mine[name]["p_holm"] for name in ("good", "same")] == expected.tolist()
    assert mine["good"]["p_holm"] < 0.001 < 0.05 < mine["same"]["p_holm"]


def test_each_seed_has_its_difference_and_they_average_to_the_whole():
    entries = against_baseline(runs(), "base", resamples=200)
    entry = next(e for e in entries if (e["a"], e["metric"]) == ("good", "accuracy"))
    assert set(entry["by_seed"]) == {"0", "1"}
    assert sum(entry["by_seed"].values()) / 2 == pytest.approx(entry["value"][0])


def test_without_generations_their_metrics_have_no_test():
    entries = against_baseline(runs(), "base", resamples=200)
    for entry in entries:
        if entry["metric"] in ("kl", "length"):
            assert entry["p"] is None
            assert entry["p_holm"] is None
            assert entry["by_seed"] == {}


def test_a_baseline_alone_is_compared_with_nothing():
    assert against_baseline({"base": runs()["base"]}, "base", resamples=200) == []
