"""The numbers of the study's page come from an explanation and from the file of advertisements; none is typed."""

import importlib.util
import math
import sys
from pathlib import Path

import measured
import numpy as np
import pytest

from unipref.core.errors import DataError
from unipref.data.pairs import Pairs

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "explain_study.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("unipref_scripts_explain_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(lift, *, low=None, high=None, why="", specific=0.0, drives=False):
    found = {"weight": lift / 50, "lift": lift, "low": low, "high": high, "stability": 0.95, "drives": drives}
    return {**found, "specific": specific} | ({"no_interval": why} if why else {})


@pytest.fixture
def explanation():
    accuracy = {
        "heldout": [0.75, 0.7, 0.8],
        "baselines": {"majority": [0.5, 0.45, 0.55], "length_only": [0.6, 0.55, 0.65]},
        "by_domain": {"law": [0.8, 0.7, 0.9], "food": [0.7, None, None]},
        "baselines_by_domain": {"law": {"majority": [0.5, 0.4, 0.6]}, "food": {"length_only": [0.65, 0.6, 0.7]}},
        "leave_one_domain_out": {"law": [0.25, 0.2, 0.3]},
        "left_out_domains": [0.3, 0.25, 0.35],
    }
    told = {
        "n": {"pairs": 4000, "heldout": 1000, "domains": {"law": 3000, "food": 1000}},
        "accuracy": accuracy,
        "trusted": True,
        "trusted_in": {"law": True, "food": False},
        "shared": {"tokens": entry(12.5, low=0.1, high=0.5, drives=True)},
        "domains": {"law": {"tokens": entry(12.5), "links": entry(-5.0, why="too few", specific=-0.1)}, "food": {}},
        "bias": {"length|form": {"alone": [0.5, 0.25, 0.75], "beside_content": [-0.125, None, None]}},
    }
    return {
        "mechanisms": {"people": told},
        "concepts": {"tokens": {"name": "tokens"}, "links": {"name": "links"}},
        "between": [
            {
                "a": "people",
                "b": "judge",
                "similarity": 0.5,
                "agreement": None,
                "same_pairs": 0,
                "overlooked": [
                    {"concept": "tokens", "difference": 0.25, "stability": 0.99},
                    {"concept": "links", "difference": -0.5, "stability": 0.5},
                ],
            }
        ],
        "applications": {"guidance": {"mechanisms": {"people": {"why_not": "no concept has a weight"}}}},
    }


def test_a_cell_says_what_was_measured_in_per_cent_and_what_was_not(script, explanation):
    assert (
        "| people | 4,000 | 1,000 | **75.0 [70.0, 80.0]** | 50.0 [45.0, 55.0] | 60.0 [55.0, 65.0] | not measured"
        in (script.accuracies(explanation))
    )
    rows = script.by_domain(explanation).splitlines()
    assert rows[2] == (
        "| people | law | 3,000 | 80.0 [70.0, 90.0] | 50.0 [40.0, 60.0] | not measured | 25.0 [20.0, 30.0] | yes |"
    )
    assert rows[3].startswith("| people | food | 1,000 | 70.0 | not measured | 65.0 [60.0, 70.0] | not measured | no |")


def test_a_domain_shows_only_what_it_adds_to_the_shared_weights(script, explanation):
    rows = script.concepts(explanation).splitlines()[2:]
    assert rows == [
        "| people | all | tokens | +12.5 | +5 to +25 | 95 | drives, confirmed |",
        "| people | law | links | -5.0 | too few | 95 |  |",
    ]


def test_a_difference_of_mechanisms_is_told_where_its_sign_is_stable(script, explanation):
    assert script.between(explanation).splitlines()[2] == (
        "| people | judge | 0.50 | not measured | 0 | tokens (12) |  |"
    )


def test_a_bar_in_a_cell_is_no_column_and_what_was_not_tested_has_no_row(script, explanation):
    assert "| people | length\\|form | +0.50 [+0.25, +0.75] | -0.12 |" in script.bias(explanation)
    assert len(script.applications(explanation).splitlines()) == 2


def test_a_concept_is_confirmed_where_its_interval_is_on_the_side_of_its_weight(script):
    assert script.standing(entry(-5.0, low=-0.2, high=-0.1, drives=True)) == "drives, confirmed"
    assert script.standing(entry(-5.0, low=-0.2, high=0.1, drives=True)) == "drives"
    assert script.standing(entry(-5.0, low=0.1, high=0.2, drives=True)) == "drives"
    assert script.standing(entry(-5.0, why="too few", drives=True)) == "drives"
    assert script.standing(entry(-5.0, low=-0.2, high=-0.1)) == ""


def test_p_values_are_short_and_never_zero(script):
    shown = [script.p_value(value) for value in (0.012345, 1e-9, 1.0, math.nan)]
    assert shown == ["0.012", "< .0001", "1", "no data"]


def test_rows_that_three_of_five_call_paraphrases_are_kept_as_they_are(script, tmp_path):
    source, target = tmp_path / "all.csv", tmp_path / "kept.csv"
    source.write_text('ad1,ad2,count.paraphrase\n今すぐ,"今,すぐ",3\na,b,2\nc,d,5\n', encoding="utf-8")
    assert script.paraphrases(source, target) == (2, 3)
    assert target.read_text(encoding="utf-8") == 'ad1,ad2,count.paraphrase\n今すぐ,"今,すぐ",3\nc,d,5\n'
    source.write_text("prompt,chosen\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no rows with a column 'count\.paraphrase'"):
        script.paraphrases(source, target)


def test_planted_brackets_are_found_alone_and_beside_length(script):
    rng = np.random.default_rng(0)
    n = 400
    plain = [f"今すぐ無料お試し{'中' * int(k)}" for k in rng.integers(0, 4, n)]
    other = [f"無料お試し今すぐ{'中' * int(k)}" for k in rng.integers(0, 4, n)]
    bracketed = rng.random(n) < 0.5
    first = np.array(
        [f"【秋】{text}" if there else text for text, there in zip(plain, bracketed, strict=True)], dtype=object
    )
    p = np.where(bracketed, np.where(rng.random(n) < 0.7, 0.8, 0.2), np.where(rng.random(n) < 0.5, 0.8, 0.2))
    p[:10] = 0.5
    names = np.array([str(i) for i in range(n)], dtype=object)
    empty = np.full(n, "", dtype=object)
    second, unknown = np.array(other, dtype=object), np.full(n, np.nan)
    pairs = Pairs(names, empty, first, second, p, np.ones(n), empty, empty, empty, unknown, names, names)
    text = script.advertising(pairs)
    assert "400 pairs of paraphrases, 10 of them with an even vote" in text
    rows = {row.split(" | ")[0].strip("| *"): row.split(" | ") for row in text.splitlines() if row.startswith("| ")}
    assert int(rows["Brackets"][1]) == bracketed[10:].sum()
    won = (p[10:] > 0.5)[bracketed[10:]].mean()
    assert rows["Brackets"][2].startswith(f"{100 * won:.1f} [")
    assert float(rows["Brackets"][5].removeprefix("< ")) < 0.01
    beside = float(rows["Brackets"][6].split(" [")[0])
    assert 60 < beside < 80  # planted at 70, and longer texts win no more than others
    assert "no data" in rows["Share of digits"][4]


def test_only_what_stands_between_a_parts_marks_is_replaced(script):
    begin, end = measured.BEGIN.format("one"), measured.END.format("one")
    page = f"before\n{begin}\nold\n{end}\nafter\n"
    once = script.renewed(page, {"one": "new"})
    assert once == f"before\n{begin}\nnew\n{end}\nafter\n"
    assert script.renewed(once, {"one": "new"}) == once
    with pytest.raises(DataError, match="lacks the marks"):
        script.renewed(page, {"two": "new"})


def test_the_page_has_the_marks_of_all_parts_and_the_script_makes_no_other(script, monkeypatch, tmp_path, explanation):
    page = script.PAGE.read_text(encoding="utf-8")
    names = ("accuracies", "by_domain", "concepts", "bias", "between", "applications", "advertising")
    for name in names:
        assert 0 < page.index(measured.BEGIN.format(name)) < page.index(measured.END.format(name))
    assert page.count("<!-- measured: ") == 2 * len(names)
    monkeypatch.setattr(sys, "argv", ["explain_study.py", "page", str(tmp_path)])
    with pytest.raises(SystemExit):  # the advertisements are not left out silently
        script.main()
