"""Facts about the combined reward: its arithmetic, what is missing, what is stored, and what the report says."""

import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from unipref.core.errors import ConfigError
from unipref.core.records import Comparison, Item, Record
from unipref.rewards import DesignerObjectives, Part, Scale
from unipref.store import ScoreStore

NAN = math.nan


@dataclass(frozen=True)
class Table:
    """A scorer that looks responses up and counts what it was asked."""

    values: dict
    asked: list
    name: str = "table"
    version: str | None = "1"

    def score(self, contexts, responses):
        self.asked.extend(responses)
        return np.array([self.values.get(response, NAN) for response in responses])


def table(version="1", name="table", **values):
    return Table(values, [], name, version)


def pair(chosen, rejected, *, preference=1.0, number=0, weight=1.0, **columns):
    items = (Item("p", chosen, columns=dict(columns)), Item("p", rejected))
    return Record(f"r{number}", items, (Comparison(0, 1, preference),), weight=weight, conversation=f"c{number}")


def designer(*parts, **options):
    return DesignerObjectives(parts, **options)


def rewards(made, *responses, **options):
    return made.score_texts(["p"] * len(responses), list(responses), **options)["reward"].tolist()


def test_the_reward_is_the_weighted_sum_of_the_parts():
    made = designer(Part("r1", table(a=1.0, b=0.5), weight=0.05), Part("r2", table(a=0.25, b=1.0), weight=0.95))
    assert rewards(made, "a", "b") == pytest.approx([0.05 * 1 + 0.95 * 0.25, 0.05 * 0.5 + 0.95 * 1])


def test_a_negative_weight_turns_a_part_round():
    assert rewards(designer(Part("r", table(a=3.0), weight=-0.5)), "a") == [-1.5]


def test_a_part_is_clipped_in_its_own_units_and_then_normalised():
    values = table(a=-10.0, b=0.0, c=2.0, d=4.0, e=100.0)
    records = [pair("a", "b"), pair("c", "d"), pair("e", "c")]
    clipped = Part("r", values, clip=(0.0, 4.0))
    assert rewards(designer(clipped), *"abcde") == [0.0, 0.0, 2.0, 4.0, 4.0]
    fitted, _, _ = designer(replace(clipped, normalise="minmax")).fit_score(records)
    assert fitted.parts[0].scale == Scale(0.0, 4.0)
    assert rewards(fitted, *"abcde") == [0.0, 0.0, 0.5, 1.0, 1.0]
    fitted, _, _ = designer(replace(clipped, normalise="zscore")).fit_score(records)
    seen = np.array([0.0, 0.0, 2.0, 4.0, 4.0, 2.0])
    assert fitted.parts[0].scale == Scale(pytest.approx(2.0), pytest.approx(seen.std()))
    assert rewards(fitted, *"abcde") == pytest.approx((seen[:5] - 2) / seen.std())


def test_a_one_sided_clip_leaves_the_other_side_open():
    assert rewards(designer(Part("r", table(a=-9.0, b=9.0), clip=(None, 1.0))), "a", "b") == [-9.0, 1.0]
    assert rewards(designer(Part("r", table(a=-9.0, b=9.0), clip=(-1.0, None))), "a", "b") == [-1.0, 9.0]


def test_minmax_holds_texts_beyond_the_training_responses_within_zero_and_one():
    made, _, _ = designer(Part("r", table(a=1.0, b=3.0, low=-5.0, high=50.0), normalise="minmax")).fit_score(
        [pair("a", "b")]
    )
    assert rewards(made, "a", "b", "low", "high") == [0.0, 1.0, 0.0, 1.0]


def test_scores_of_other_records_use_the_scale_of_the_training_records():
    values = table(a=0.0, b=10.0, c=4.0, d=6.0)
    fitted, _, _ = designer(Part("r", values, normalise="minmax")).fit_score([pair("a", "b")])
    records, _ = fitted.score_records([pair("c", "d")])
    assert [item.columns["r"] for item in records[0].items] == [0.4, 0.6]
    with pytest.raises(ConfigError, match=r"objectives\.r: normalise minmax is fitted to training responses first"):
        designer(Part("r", values, normalise="minmax")).score_records([pair("c", "d")])


def test_normalising_a_constant_is_refused():
    with pytest.raises(
        ConfigError, match=r"every training response scores 2\.0, so there is nothing to normalise by zscore"
    ):
        designer(Part("r", table(a=2.0, b=2.0), normalise="zscore")).fit_score([pair("a", "b")])


def test_a_missing_part_makes_the_reward_missing_and_never_zero():
    made = designer(Part("r1", table(a=1.0, b=1.0)), Part("r2", table(a=1.0, c=1.0)))
    np.testing.assert_array_equal(rewards(made, *"abcd"), [2.0, NAN, NAN, NAN])


def test_renormalising_gives_the_parts_that_are_there_the_whole_weight():
    made = designer(
        Part("r1", table(a=1.0, b=0.5), weight=0.25),
        Part("r2", table(a=0.0, c=1.0), weight=-0.75),
        missing="renormalise",
    )
    expected = [0.25 * 1 - 0.75 * 0, 0.25 * 0.5 / 0.25, -0.75 * 1 / 0.75, NAN]
    np.testing.assert_allclose(rewards(made, *"abcd"), expected)


def test_records_come_back_with_values_by_name_and_without_those_that_are_missing():
    made = designer(Part("r1", table(a=1.0, b=2.0), weight=2.0), Part("r2", table(a=3.0)))
    first = pair("a", "b", rating=5.0, reward=99.0)
    (record,), _ = made.score_records([first])
    assert record.items[0].columns == {"rating": 5.0, "r1": 1.0, "r2": 3.0, "reward": 5.0, "data_reward": 99.0}
    assert record.items[1].columns == {"r1": 2.0}
    assert first.items[0].columns == {"rating": 5.0, "reward": 99.0}
    assert (record.id, record.comparisons, record.conversation) == (first.id, first.comparisons, first.conversation)


def test_the_datas_own_reward_is_kept_apart_and_never_stands_in_for_the_new_one():
    (record,), report = designer(Part("r", table(b=1.0))).score_records([pair("a", "b", reward=99.0)])
    assert record.items[0].columns == {"data_reward": 99.0}  # the new one is missing
    assert report.data_rewards == 1
    assert any("a reward for 1 of 2 responses; it is kept as `data_reward`" in note for note in report.notes)


def test_texts_beside_the_responses_are_neither_scored_nor_fitted_to():
    plain = pair("a", "b")
    gold, rationale = Item("p", "c", role="gold"), Item("q", "d", role="rationale")
    record = Record(plain.id, (*plain.items, gold, rationale), plain.comparisons, conversation=plain.conversation)
    scores = table(a=1.0, b=3.0, c=-50.0, d=100.0)
    made, (scored,), report = designer(Part("r", scores, normalise="minmax")).fit_score([record])
    assert made.parts[0].scale == Scale(1.0, 2.0)
    assert [dict(item.columns) for item in scored.items] == [
        {"r": 0.0, "reward": 0.0},
        {"r": 1.0, "reward": 1.0},
        {},
        {},
    ]
    assert scores.asked == ["a", "b"]
    assert (report.responses, report.parts["r"].missing) == (2, 0)


def test_an_objective_cannot_take_the_name_of_another_column_of_the_data():
    with pytest.raises(ConfigError, match=r"objectives\.r: the data have a column 'r' of their own, which would be"):
        designer(Part("r", table(b=1.0))).score_records([pair("a", "b", r=7.0)])
    same = DesignerObjectives.from_config({"r": {"scorer": "column", "options": {"column": "r"}, "clip": [0, 2]}})
    (record,), _ = same.score_records([pair("a", "b", r=7.0)])
    assert record.items[0].columns == {"r": 2.0, "reward": 2.0}


def test_a_part_from_a_column_reads_the_items_and_has_no_opinion_of_new_texts():
    made = DesignerObjectives.from_config({"help": {"scorer": "column", "options": {"column": "helpful"}, "weight": 2}})
    (record,), report = made.score_records([pair("a", "b", helpful=1.5)])
    assert record.items[0].columns == {"helpful": 1.5, "help": 1.5, "reward": 3.0}
    assert record.items[1].columns == {}
    assert report.parts["help"].missing == 1
    assert np.isnan(rewards(made, "a")).all()


def test_a_part_without_any_value_is_an_error_that_names_it():
    made = DesignerObjectives.from_config({"help": {"scorer": "column", "options": {"column": "helpfull"}}})
    with pytest.raises(
        ConfigError, match=r"objectives\.help: no response has a value in the column 'helpfull' \(did you"
    ):
        made.score_records([pair("a", "b", helpful=1.5)])
    with pytest.raises(ConfigError, match="the data hold no columns"):
        made.score_records([pair("a", "b")])
    with pytest.raises(ConfigError, match="table has no score for any of the 2 responses"):
        designer(Part("r", table())).score_records([pair("a", "b")])
    grades = DesignerObjectives.from_config({"easy": {"scorer": "reading_level"}})
    with pytest.raises(ConfigError, match="each is too short"):
        grades.score_records([pair("a", "b")])


def test_no_records_are_no_error():
    records, report = designer(Part("r", table())).score_records([])
    assert records == []
    assert report.responses == 0
    assert math.isnan(report.parts["r"].mean)
    json.dumps(report.to_dict()["responses"])


def test_the_store_is_asked_first_and_filled_with_what_it_lacks(tmp_path):
    store = ScoreStore(tmp_path)
    first, second = table(a=1.0, b=2.0), table(a=-1.0, b=-2.0, c=3.0)
    assert rewards(designer(Part("r", first)), "a", "b", "a", store=store) == [1.0, 2.0, 1.0]
    assert first.asked == ["a", "b"]  # a text that occurs twice is scored once
    assert rewards(designer(Part("other", second, weight=2.0)), "c", "b", "a", store=store) == [6.0, 4.0, 2.0]
    assert second.asked == ["c"]
    context = designer(Part("r", second)).score_texts(["another"], ["a"], store=store)["r"]
    assert context.tolist() == [-1.0]  # another context is another key


def test_a_missing_score_is_stored_as_missing(tmp_path):
    store = ScoreStore(tmp_path)
    values = table(a=1.0)
    for _ in range(2):
        np.testing.assert_array_equal(rewards(designer(Part("r", values)), "a", "b", store=store), [1.0, NAN])
    assert values.asked == ["a", "b"]


@pytest.mark.parametrize("changed", [{"version": "2"}, {"name": "another"}])
def test_another_version_or_scorer_is_never_served_from_the_store(tmp_path, changed):
    store = ScoreStore(tmp_path)
    rewards(designer(Part("r", table(a=1.0))), "a", store=store)
    assert rewards(designer(Part("r", table(a=5.0, **changed))), "a", store=store) == [5.0]


def test_a_scorer_without_a_version_is_asked_every_time(tmp_path):
    store = ScoreStore(tmp_path)
    values = table(a=1.0, version=None)
    for _ in range(2):
        rewards(designer(Part("r", values)), "a", store=store)
    assert values.asked == ["a", "a"]
    assert store.stats()["values"] == 0


def test_weight_clip_and_normalising_are_outside_of_what_is_stored(tmp_path):
    store = ScoreStore(tmp_path)
    values = table(a=1.0, b=3.0)
    designer(Part("r", values)).score_records([pair("a", "b")], store=store)
    again = designer(Part("x", values, weight=-3.0, clip=(0.0, 2.0), normalise="minmax"))
    _, (record,), _ = again.fit_score([pair("a", "b")], store=store)
    assert [item.columns["reward"] for item in record.items] == [0.0, -3.0]
    assert values.asked == ["a", "b"]


def test_the_report_counts_missing_values_and_those_at_the_clip():
    made = designer(Part("r", table(a=-1.0, b=0.5, c=2.0, d=1.0), clip=(0.0, 1.0)))
    _, report = made.score_records([pair("a", "b"), pair("c", "d", number=1), pair("none", "b", number=2)])
    part = report.parts["r"]
    assert report.responses == 6
    assert part.missing == 1
    assert part.mean == pytest.approx((0 + 0.5 + 1 + 1 + 0.5) / 5)
    assert (part.low, part.high) == (0.0, 1.0)
    assert part.at_low == 1 / 5
    assert part.at_high == 2 / 5
    assert report.parts["reward"].missing == 1


def test_agreement_is_how_often_the_preferred_side_scores_higher_with_ties_as_halves():
    values = table(hi=2.0, lo=1.0, same=1.0)
    records = [
        pair("hi", "lo", number=0),  # agrees
        pair("lo", "hi", number=1),  # does not
        pair("lo", "same", number=2),  # a tie
        pair("lo", "hi", preference=0.2, number=3),  # the second was preferred: agrees
        pair("hi", "lo", preference=0.5, number=4),  # nobody preferred either
        pair("hi", "none", number=5),  # missing
    ]
    _, report = designer(Part("r", values)).score_records(records)
    part = report.parts["r"]
    assert part.agreement[0] == (1 + 0 + 0.5 + 1) / 4
    assert part.agreement[1] <= part.agreement[0] <= part.agreement[2]
    assert part.n_agreement == 4
    assert part.ties == 1 / 4


def test_a_records_weight_counts_in_the_agreement_as_if_it_stood_twice():
    values = table(hi=2.0, lo=1.0)
    once = [pair("hi", "lo", weight=2.0), pair("lo", "hi", number=1)]
    twice = [pair("hi", "lo"), pair("hi", "lo"), pair("lo", "hi", number=1)]
    shares = [
        designer(Part("r", values)).score_records(records)[1].parts["r"].agreement[0] for records in (once, twice)
    ]
    assert shares == [2 / 3, 2 / 3]


def test_a_conflict_with_the_preferences_is_said_in_a_sentence_and_agreement_is_not():
    values = table(hi=2.0, lo=1.0)
    against = [pair("lo", "hi", number=i) for i in range(30)]
    made = designer(Part("more", values), Part("less", values, weight=-2.0))
    _, report = made.score_records(against)
    assert [line.split(",")[0] for line in report.conflicts] == [
        "more conflicts with the preferences: it wants higher values"
    ]
    assert report.parts["reward"].agreement[0] == 1.0  # r - 2 r: the negative weight turns it
    _, report = made.score_records([pair("hi", "lo", number=i) for i in range(30)])
    assert [line.split(",")[0] for line in report.conflicts] == [
        "less conflicts with the preferences: it wants lower values",
        "reward conflicts with the preferences: it wants higher values",
    ]
    _, report = made.score_records([pair("hi", "lo"), pair("lo", "hi", number=1)])
    assert report.conflicts == []  # two comparisons prove nothing


def test_thumbs_count_where_there_are_no_comparisons():
    items = [("hi", True), ("lo", True), ("lo", False), ("mid", False), ("none", False)]
    records = [Record(f"r{i}", (Item("p", text, label=label),)) for i, (text, label) in enumerate(items)]
    _, report = designer(Part("r", table(hi=3.0, mid=2.0, lo=1.0))).score_records(records)
    part = report.parts["r"]
    assert part.agreement[0] == (1 + 1 + 0.5 + 0) / 4  # hi beats both; lo ties with lo and loses to mid
    assert part.n_agreement == 4
    assert part.ties == 1 / 4


def test_the_correlation_of_parts_leaves_missing_responses_out():
    made = designer(
        Part("x", table(a=1.0, b=2.0, c=3.0, d=9.0)),
        Part("y", table(a=2.0, b=4.0, c=6.0)),
        Part("z", table(a=1.0, b=1.0)),
    )
    _, report = made.score_records([pair("a", "b"), pair("c", "d", number=1)])
    assert report.correlations["x", "y"] == pytest.approx(1.0)
    assert math.isnan(report.correlations["x", "z"])  # constant
    assert {(row["a"], row["b"]) for row in report.to_dict()["correlations"]} == {("x", "y"), ("x", "z"), ("y", "z")}


def test_objectives_are_described_and_read_again_with_their_scale():
    config = {"long": {"scorer": "length", "weight": -0.5, "clip": [0, 3], "normalise": "minmax"}}
    fitted, _, _ = DesignerObjectives.from_config(config).fit_score([pair("one", "one two three")])
    described = fitted.describe()["long"]
    assert described["direction"] == "lower is better"
    assert described["scale"] == {"shift": 1.0, "width": 2.0}
    again = DesignerObjectives.from_config({"long": {**config["long"], "scale": described["scale"]}})
    assert again == fitted
    assert rewards(again, "one two") == [-0.25]


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ({}, "there is none"),
        ({"reward": {"scorer": "length"}}, "cannot be called 'reward'"),
        ({"a": "length"}, r"objectives\.a: give"),
        ({"a": {"scorer": "lenght"}}, r"objectives\.a: no scorer named 'lenght' \(did you mean 'length'\?\)"),
        ({"a": {"scorer": "length", "wieght": 1}}, r"objectives\.a has no key 'wieght' \(did you mean 'weight'\?\)"),
        ({"a": {"scorer": "length", "weight": "1"}}, "weight takes finite numbers, not '1'"),
        ({"a": {"scorer": "length", "weight": NAN}}, "weight takes finite numbers, not nan"),
        ({"a": {"scorer": "length", "clip": [1, 0]}}, r"low below high, not \[1, 0\]"),
        ({"a": {"scorer": "length", "clip": 3}}, r"clip is \[low, high\], not 3"),
        ({"a": {"scorer": "length", "clip": [0, "1"]}}, "clip takes finite numbers"),
        ({"a": {"scorer": "length", "normalise": "z-score"}}, r"did you mean 'zscore'\?"),
        ({"a": {"scorer": "length", "scale": {"shift": 1}}}, "scale is"),
    ],
)
def test_wrong_objectives_are_refused_by_name(objectives, message):
    with pytest.raises(ConfigError, match=message):
        DesignerObjectives.from_config(objectives)


def test_two_parts_of_one_name_and_an_unknown_policy_for_missing_values_are_refused():
    with pytest.raises(ConfigError, match="two have the same name: r, r"):
        designer(Part("r", table()), Part("r", table()))
    with pytest.raises(ConfigError, match=r"missing is one of skip, renormalise, not 'zero'"):
        designer(Part("r", table()), missing="zero")


def test_a_scorer_that_returns_the_wrong_shape_or_infinity_is_refused():
    class Wrong:
        name, version = "wrong", None

        def score(self, contexts, responses):
            return np.zeros((len(responses), 2))

    with pytest.raises(ConfigError, match=r"wrong returned shape \(1, 2\) for 1 responses"):
        rewards(designer(Part("r", Wrong())), "a")
    with pytest.raises(ConfigError, match="table returned an infinite score"):
        rewards(designer(Part("r", table(a=math.inf))), "a")
    with pytest.raises(ConfigError, match="2 contexts, 1 responses"):
        designer(Part("r", table())).score_texts(["a", "b"], ["c"])
