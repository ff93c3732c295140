import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from worlds_of_text import EVEN, records

from unipref.core.errors import ConfigError, DataError
from unipref.core.records import Comparison
from unipref.data.pairs import Pairs
from unipref.explain._intervals import intervals, mixtures
from unipref.explain.study import Settings, Study, study
from unipref.features.concepts import Concept, PairValues, ngram_values, surface_values

QUICK = Settings(resamples=20, n_grams=8)


@cache
def known() -> Study:
    return study(Pairs.of(records(words=EVEN)), settings=QUICK)


def test_the_shared_habit_is_shared_and_the_domains_own_are_its_own():
    told = known().told
    leading = max(told["shared"], key=lambda key: told["shared"][key]["weight"])
    assert leading == "says:zap"
    assert told["concepts"]["says:zap"]["domains"] == []
    assert told["concepts"]["says:lex"]["domains"] == ["law"]
    assert next(iter(told["domains"]["law"])) in ("says:zap", "says:lex")
    assert told["domains"]["law"]["says:lex"]["weight"] > 0.3
    assert "says:lex" not in told["domains"]["food"]
    assert "says:nix" not in [key for key, entry in told["shared"].items() if abs(entry["weight"]) > 0.2]


def test_a_weight_is_the_shared_one_plus_the_domains_own():
    told = known().told
    for domain in ("law", "food"):
        for key, entry in told["domains"][domain].items():
            shared = told["shared"].get(key, {"weight": 0.0})["weight"]
            assert entry["weight"] == pytest.approx(shared + entry["specific"], abs=1e-12)
            assert entry["lift"] == pytest.approx(50 * entry["weight"])


def test_what_is_planted_drives_and_its_interval_holds_the_truth():
    zap = known().told["shared"]["says:zap"]
    assert zap["drives"]
    assert zap["stability"] >= 0.9
    assert zap["low"] < 2.2 < zap["high"]


def test_accuracy_is_of_prompts_that_were_not_fitted_and_beats_what_is_simpler():
    found, accuracy = known(), known().told["accuracy"]
    training, held = set(found.pairs.group[~found.heldout]), set(found.pairs.group[found.heldout])
    assert not training & held
    value, low, high = accuracy["heldout"]
    assert low < value < high
    assert accuracy["differences"]["length_only"][1] > 0
    assert accuracy["differences"]["majority"][1] > 0
    assert known().told["trusted"]
    # in another domain only the shared habit helps
    assert 0.5 < accuracy["leave_one_domain_out"]["law"][0] < accuracy["by_domain"]["law"][0]


def test_calibration_parts_all_decided_heldout_pairs_by_how_sure_the_model_is_of_them():
    found = known()
    parts = found.told["accuracy"]["calibration"]
    decided = found.heldout & (found.pairs.p != 0.5)
    assert sum(part["n"] for part in parts) == decided.sum()
    assert max(part["n"] for part in parts) - min(part["n"] for part in parts) <= 1
    sure = [part["predicted"] for part in parts]
    assert sure == sorted(sure)
    assert sure[0] >= 0.5
    logits = np.abs(found.model.decision_function(found.x[decided], found.pairs.domain[decided]))
    assert np.average(sure, weights=[part["n"] for part in parts]) == pytest.approx(np.mean(1 / (1 + np.exp(-logits))))
    right = [part["right"][0] for part in parts]
    overall = found.told["accuracy"]["heldout"][0]
    assert np.average(right, weights=[part["n"] for part in parts]) == pytest.approx(overall)
    assert right[-1] > right[0]  # habits that win nine times in ten are known where both are there


def test_with_labels_drawn_by_lot_nothing_is_trusted_and_nothing_drives():
    pairs = Pairs.of(records(200))
    lot = np.random.default_rng(0).permutation(pairs.p)
    told = study(replace(pairs, p=lot), settings=QUICK).told
    assert not told["trusted"]
    assert not any(entry["drives"] for entry in told["shared"].values())


def test_a_file_of_chosen_and_rejected_beside_others_teaches_no_position():
    pairs = Pairs.of(records(200, words=EVEN))
    law = pairs.domain == "law"
    chosen_first = pairs.swapped(law & (pairs.p < 0.5))
    told = study(chosen_first, settings=replace(QUICK, resamples=2)).told
    assert told["accuracy"]["baselines_by_domain"]["law"]["majority"][0] == 0.5
    assert told["accuracy"]["baselines"]["majority"][0] < 0.6  # 0.75 if "the first" were an answer in law
    _, low, high = told["bias"]["position"]["alone"]
    assert low < 0 < high
    assert told["trusted"]


def said(pairs: Pairs) -> PairValues:
    return ngram_values(["zap", "lex", "ghee", "nix"], pairs.first.tolist(), pairs.second.tolist())


def test_a_domain_whose_labels_are_drawn_by_lot_has_nothing_that_drives_beside_one_that_has():
    pairs = Pairs.of(records(300, words=EVEN))
    food = np.flatnonzero(pairs.domain == "food")
    p = pairs.p.copy()
    p[food] = np.random.default_rng(3).permutation(p[food])
    told = study(replace(pairs, p=p), [said(pairs)], settings=replace(QUICK, n_grams=0)).told
    assert told["trusted"]
    assert told["trusted_in"] == {"food": False, "law": True}
    assert told["domains"]["law"]["says:lex"]["drives"]
    assert not any(entry["drives"] for entry in told["domains"]["food"].values())


def test_habits_that_are_opposite_in_two_domains_are_not_said_to_hold_everywhere():
    pairs = Pairs.of(records(300, words=EVEN))
    food = pairs.domain == "food"
    opposite = replace(pairs, p=np.where(food, 1 - pairs.p, pairs.p))
    told = study(opposite, [said(pairs)], settings=replace(QUICK, n_grams=0)).told
    assert told["trusted"]
    assert told["domains"]["law"]["says:zap"]["weight"] > 0 > told["domains"]["food"]["says:zap"]["weight"]
    assert told["domains"]["law"]["says:zap"]["drives"]
    assert told["domains"]["food"]["says:zap"]["drives"]
    assert told["accuracy"]["left_out_domains"][2] < 0.5
    assert not any(entry["drives"] for entry in told["shared"].values())
    assert any("no concept is said to drive in all domains" in note for note in told["notes"])


def test_swapping_responses_with_their_labels_changes_no_weight():
    pairs = Pairs.of(records(150))
    flip = np.random.default_rng(1).random(len(pairs)) < 0.5
    quick = replace(QUICK, resamples=2)
    there, back = (study(p, settings=quick).told for p in (pairs, pairs.swapped(flip)))
    assert {k: v["weight"] for k, v in there["shared"].items()} == pytest.approx(
        {k: v["weight"] for k, v in back["shared"].items()}, abs=1e-6
    )


def test_concepts_that_are_nearly_the_same_are_one_group_and_constant_ones_are_named():
    pairs = Pairs.of(records(150))
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 0.0, 1.0], size=len(pairs))
    table = PairValues(
        (Concept("a", "a", "more"), Concept("b", "b", "more"), Concept("same", "the same", "more")),
        np.stack([values, -2 * values + 0.01 * rng.normal(size=len(pairs)), np.zeros(len(pairs))], axis=1),
    )
    told = study(pairs, [table], settings=replace(QUICK, n_grams=0, resamples=2)).told
    assert told["concepts"]["a"]["alike"] == ["b"]
    assert "b" not in told["concepts"]
    assert any("the same" in note for note in told["notes"])


def test_pairs_are_the_comparisons_with_the_first_item_first():
    record = replace(records(1)[0], comparisons=(Comparison(1, 0, preference=0.8, annotator="ann"), Comparison(0, 1)))
    pairs = Pairs.of([record])
    assert pairs.first[0] == record.items[0].response
    assert pairs.p.tolist() == pytest.approx([0.2, 1.0])
    assert pairs.mechanism.tolist() == ["ann", "all"]
    assert pairs.ids.tolist() == ["law-0", "law-0#1"]
    with pytest.raises(DataError, match="compares two responses"):
        Pairs.of([replace(record, comparisons=())])


def test_small_domains_are_left_out_by_name_and_too_little_data_is_an_error():
    many, few = records(80, own={"law": "lex"}), records(10, own={"food": "ghee"})
    told = study(Pairs.of([*many, *few]), settings=QUICK).told
    assert list(told["domains"]) == ["law"]
    assert any("food (10)" in note for note in told["notes"])
    with pytest.raises(DataError, match="no domain has 30 pairs"):
        study(Pairs.of(few))
    two = Pairs.of(many)
    with pytest.raises(DataError, match="one mechanism"):
        study(replace(two, mechanism=np.arange(len(two)).astype(str).astype(object)))
    with pytest.raises(ConfigError, match="heldout_share"):
        Settings(heldout_share=1.5)


def test_a_concept_that_always_wins_has_no_interval_and_takes_no_other_interval_with_it():
    pairs = Pairs.of(records(500, words=EVEN))
    rare = np.zeros(len(pairs))
    rows = np.random.default_rng(0).choice(len(pairs), 150, replace=False)
    rare[rows] = np.sign(pairs.p[rows] - 0.5)  # whoever has it wins, always: a plain fit has no end
    tables = [
        PairValues((Concept("rare", "rare", "more"),), rare[:, None]),
        surface_values(pairs.prompt.tolist(), pairs.first.tolist(), pairs.second.tolist()),
        said(pairs),
    ]
    told = study(pairs, tables, settings=replace(QUICK, n_grams=0, resamples=2)).told
    assert told["shared"]["rare"]["weight"] > 0
    assert all(None not in one["beside_content"] for one in told["bias"].values())
    assert told["shared"]["rare"]["no_interval"] == "all held-out pairs that differ in it went the same way"
    assert told["shared"]["says:zap"]["low"] > 0


def near_twins(r: float, *, only: str | None = None, n: int = 600) -> tuple[Pairs, PairValues]:
    """Pairs of two domains decided by 0.8 a + 0.5 b + 0.6 c; a and b correlate at `r`, in `only` one domain or both."""
    pairs, rng = Pairs.of(records(n)), np.random.default_rng(3)
    a, other, c = rng.normal(size=(3, len(pairs)))
    b = np.where(pairs.domain == (only or pairs.domain), r * a + np.sqrt(1 - r * r) * other, other)
    wins = rng.random(len(pairs)) < 1 / (1 + np.exp(-(0.8 * a + 0.5 * b + 0.6 * c)))
    concepts = tuple(Concept(key, key, f"more {key}", kind="table") for key in "abc")
    return replace(pairs, p=wins.astype(float)), PairValues(concepts, np.stack([a, b, c], axis=1))


def test_of_two_concepts_that_cannot_be_told_apart_in_a_domain_the_sum_has_the_interval_and_neither_alone():
    pairs, table = near_twins(0.99, only="law")
    told = study(pairs, [table], settings=replace(QUICK, n_grams=0, resamples=2)).told
    law, food = told["domains"]["law"], told["domains"]["food"]
    for key, other in (("a", "b"), ("b", "a")):
        assert law[key]["low"] is None
        assert f"goes together with {other} (|r| up to 0.99)" in law[key]["no_interval"]
        of_sum = law[key]["together"]
        assert of_sum["with"] == [[other, 1]]
        assert of_sum["low"] < 0.8 + 0.5 < of_sum["high"]
        assert of_sum["high"] - of_sum["low"] < 1.0  # of either alone it is wider than 5
        assert of_sum["weight"] == pytest.approx(law["a"]["weight"] + law["b"]["weight"])
    assert law["c"]["low"] < 0.6 < law["c"]["high"]
    assert food["a"]["low"] < 0.8 < food["a"]["high"]  # there they can be told apart
    assert "together" not in food["a"]
    [note] = [note for note in told["notes"] if "goes together with" in note]
    assert note.startswith("in law: a goes together with b on held-out pairs (|r| up to 0.99, above 0.9)")
    assert f"{law['a']['together']['low']:+.2f} to {law['a']['together']['high']:+.2f}" in note


def test_two_concepts_that_run_against_each_other_have_an_interval_of_their_difference():
    pairs, table = near_twins(0.99, only="law")
    against = replace(table, difference=table.difference * [1, -1, 1])
    there, back = (
        study(pairs, [each], settings=replace(QUICK, n_grams=0, resamples=2)).told["domains"]["law"]
        for each in (table, against)
    )
    assert back["a"]["together"]["with"] == [["b", -1]]
    for end in ("weight", "low", "high"):
        assert back["a"]["together"][end] == pytest.approx(there["a"]["together"][end], abs=1e-5)
    mirrored = [-there["b"]["together"][end] for end in ("weight", "high", "low")]
    assert [back["b"]["together"][end] for end in ("weight", "low", "high")] == pytest.approx(mirrored, abs=1e-5)


def test_concepts_that_go_together_everywhere_are_one_group_by_name_and_its_weight_is_their_sum():
    pairs, table = near_twins(0.99)
    told = study(pairs, [table], settings=replace(QUICK, n_grams=0, resamples=2)).told
    assert told["concepts"]["a"]["alike"] == ["b"]
    assert told["shared"]["a"]["low"] < 0.8 + 0.99 * 0.5 < told["shared"]["a"]["high"]
    assert any("(|r| > 0.9) have one weight" in note and "all: a for b." in note for note in told["notes"])


def test_concepts_of_which_each_tells_something_of_its_own_keep_their_intervals():
    pairs, table = near_twins(0.85)
    told = study(pairs, [table], settings=replace(QUICK, n_grams=0, resamples=2)).told
    assert told["shared"]["a"]["low"] < 0.8 < told["shared"]["a"]["high"]
    assert told["shared"]["b"]["low"] < 0.5 < told["shared"]["b"]["high"]
    assert not any("together" in note for note in told["notes"])


def test_every_number_of_the_bias_panel_that_is_missing_has_its_reason():
    pairs = Pairs.of(records(200, words=EVEN))
    rare, listed = pairs.first.copy(), pairs.second.copy()
    for i in range(0, 40, 2):
        rare[i] = f"**bold** {rare[i]}"
        listed[i + 1] = f"- {listed[i + 1]}\n- more"
    quick = replace(QUICK, n_grams=0, resamples=2)
    told = study(replace(pairs, first=rare, second=listed), settings=quick).told
    assert list(told["bias"]) == ["position", "characters", "bold", "bullets"]  # of the other forms no pair has any
    bold, bullets = told["bias"]["bold"], told["bias"]["bullets"]
    assert bold["alone"] == bold["beside_content"] == bullets["alone"] == [None, None, None]
    assert re.fullmatch(r"only \d+ held-out pairs differ in it", bold["why_not"]["alone"])
    [name] = [concept["name"] for concept in told["concepts"].values() if "bullets" in concept["alike"]]
    assert bullets["why_not"]["alone"] == f"{name} stands for it (|r| > 0.9)"
    assert told["bias"]["characters"]["why_not"] == {}
    assert None not in told["bias"]["characters"]["beside_content"]
    longer = np.array([len(text) for text in pairs.first]) > [len(text) for text in pairs.second]
    certain = study(replace(pairs, p=longer.astype(float)), settings=quick).told["bias"]
    assert certain["characters"]["beside_content"] == [None, None, None]
    assert "separate the held-out pairs" in certain["characters"]["why_not"]["beside_content"]


def test_a_concept_that_is_nearly_the_sum_of_two_others_is_named_with_them_where_no_two_are_alike():
    pairs, rng = Pairs.of(records(600)), np.random.default_rng(3)
    a, b, noise, apart = rng.normal(size=(4, len(pairs)))
    both = a + b + 0.2 * noise  # correlates with each at 0.7, and with the two together at sqrt(2 / 2.04)
    x = np.stack([a, b, both, apart], axis=1)
    wins = rng.random(len(pairs)) < 1 / (1 + np.exp(-(0.5 * a + 0.5 * b + 0.4 * both + apart)))
    concepts = tuple(Concept(key, key, f"more {key}", kind="table") for key in ("a", "b", "both", "apart"))
    found = intervals(
        replace(pairs, p=wins.astype(float)), x, concepts, np.array([0.5, 0.5, 0.4, 1.0]), np.ones(len(pairs), bool)
    )
    assert found.together == {}
    assert set(found.caution) == {0, 1, 2}
    expected = rf"nearly a mixture of (a, b|b, a) \(R = {math.sqrt(2 / 2.04):.2f}\): read their weights together"
    assert re.fullmatch(expected, found.caution[2])
    widths = found.high - found.low  # of what is left of each beside the others
    assert widths[2] > 3 * widths[3]


def test_a_mixture_of_two_is_found_by_its_multiple_correlation():
    a, b = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0, -1.0])
    # |a + b + e|^2 = 2 + 0.04, of which e, at right angles to both, is 0.04: R^2 = 2 / 2.04
    both = a + b + np.array([0.0, 0.0, 0.2, 0.0])
    strength, others = mixtures([a, b, both])[2]
    assert strength == pytest.approx(math.sqrt(2 / 2.04))
    assert sorted(others) == [0, 1]
    assert mixtures([a, b]) == mixtures([a]) == {}
