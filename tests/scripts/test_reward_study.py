"""The tables of the study of preference models come from what its runs wrote; none of their numbers is typed."""

import importlib.util
from pathlib import Path

import measured
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reward_study.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("unipref_scripts_reward_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(accuracy, seconds=2.0, error=0.031, nll=0.5, left_out=None):
    triple = [accuracy, accuracy - 0.1, accuracy + 0.1]
    return {
        "accuracy": triple,
        "nll": [nll, nll, nll],
        "calibration": {"debiased": error},
        "seconds": seconds,
        "left_out": left_out,
    }


@pytest.fixture
def sets():
    gap = {"a": "gpm", "b": "bt", "metric": "accuracy", "value": [-0.05, -0.09, -0.01], "p_holm": 0.03}
    return {
        "law": {
            "pairs": {"n": 1200},
            "models": {"bt": entry(0.7), "gpm": entry(0.65, error=None)},
            "baselines": {"longer wins": {"accuracy": [0.6, 0.5, 0.7]}},
            "differences": [{**gap, "metric": "nll"}, gap],
            "notes": ["lore is not beside bt: lore needs to know whose comparison it is; give the column"],
        },
        "food": {
            "pairs": {"n": 90},
            "models": {
                "bt": entry(0.8, left_out={"accuracy": [0.7, 0.6, 0.8], "difference": [-0.1, -0.2, 0.0]}),
                "lore": entry(0.9),
            },
            "baselines": {"longer wins": {"accuracy": [0.5, 0.4, 0.6]}},
            "differences": [
                {"a": "lore", "b": "bt", "metric": "accuracy", "value": [0.1, -0.02, 0.2], "p_holm": 0.2},
            ],
            "notes": ["gpm is not beside bt: the fit left finite numbers"],
        },
    }


def rows_of(text):
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines())}


def test_a_cell_has_the_accuracy_and_the_difference_to_bradley_terry_or_why_there_is_none(script, sets):
    rows = rows_of(script.accuracies(sets))
    assert rows["model"] == ["law, 1,200 held out", "food, 90 held out"]
    assert rows["`bt`"] == ["70.0 [60.0, 80.0]", "80.0 [70.0, 90.0]"]
    assert rows["`gpm`"] == ["65.0 [55.0, 75.0]; -5.0 [-9.0, -1.0] **", "the fit left finite numbers"]
    assert rows["`lore`"] == ["no users", "90.0 [80.0, 100.0]; +10.0 [-2.0, +20.0]"]
    assert rows["longer wins"] == ["60.0 [50.0, 70.0]", "50.0 [40.0, 60.0]"]


def test_other_tables_leave_a_cell_empty_where_there_is_no_fit(script, sets):
    assert rows_of(script.calibrations(sets))["`gpm`"] == ["-", "0.500", "", ""]
    assert rows_of(script.seconds(sets))["`lore`"] == ["", "2.0"]
    assert rows_of(script.left_out(sets))["`bt`"] == ["80.0 [70.0, 90.0]", "70.0 [60.0, 80.0]", "-10.0 [-20.0, +0.0]"]


def test_newcomers_stand_by_choices_and_somebody_unknown_in_front(script):
    points = [
        {"model": "lore", "choices": n, "accuracy": [0.6 + n / 100, 0.5, 0.7], "over_pooled": [0, 0, 0]} for n in (0, 4)
    ]
    curve = {"users": 3, "judged": 40.4, "points": points}
    told = {"simulated": curve, "judges": {"users": {"x": {**curve, "users": 1}}}, "annotators": {"users": {}}}
    text = script.newcomers(told)
    assert "**simulated users**: 3 newcomers, 40 judged choices" in text
    assert "**judges: x**" in text
    assert "| model | unknown | 4 choices |" in text
    assert "| `lore` | 60.0 [50.0, 70.0] | 64.0 [50.0, 70.0] |" in text
    assert "| `lore` | 60.0 | 64.0 |" in text  # no interval over one person


def test_the_page_has_the_marks_of_all_parts_and_no_others(script):
    page = script.PAGE.read_text(encoding="utf-8")
    names = ("accuracies", "calibrations", "left_out", "seconds", "newcomers")
    for name in names:
        assert 0 < page.index(measured.BEGIN.format(name)) < page.index(measured.END.format(name))
    assert page.count("<!-- measured: ") == 2 * len(names)
