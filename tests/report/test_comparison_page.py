"""Facts about the page and the tables of a comparison."""

import json
import re
from itertools import pairwise

import pytest
from example_comparison import PULL, RATES, write_comparison_folder
from example_run import HOSTILE
from rich.console import Console
from test_page import Page

from unipref.core.errors import DataError
from unipref.report import _figures, render_comparison, write_report, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    write_comparison_folder(folder)
    return folder


@pytest.fixture(scope="module")
def comparison(folder):
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def printed(comparison, width=160):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(render_comparison(comparison))
        return console.export_text()


def test_cells_hold_the_numbers_of_the_comparison(page, comparison):
    cells = {(f["data-run"], f["data-metric"]): f for f in page.figures("cell")}
    for name in PULL:
        entry = comparison["methods"][name]
        assert [float(cells[name, "accuracy"][f"data-{x}"]) for x in ("value", "low", "high")] == entry["accuracy"]
        drift = cells[name, "drift_per_token.chosen"]
        assert float(drift["data-value"]) == entry["drift_per_token"]["chosen"][0]
        assert float(cells[name, "calibration.ece"]["data-value"]) == entry["calibration"]["ece"]
        assert cells[name, "calibration.ece"]["data-low"] == ""
    assert ("dpo", "kl") not in cells  # nothing was generated


def test_methods_stand_by_rank_and_the_failed_one_in_the_alarms(page, comparison):
    drawn = [a["data-run"] for tag, a in page.elements if tag == "tr" and "data-run" in a]
    assert drawn == sorted(PULL, key=lambda name: -comparison["methods"][name]["accuracy"][0])
    assert drawn[0] == "simpo"
    assert [a["data-run"] for tag, a in page.elements if tag == "li" and a.get("class") == "error"] == ["ipo"]


def test_every_difference_is_drawn_once_with_its_adjusted_p_and_filled_only_where_it_is_small(page, comparison):
    drawn = {(f["data-a"], f["data-metric"]): f for f in page.figures("difference")}
    assert len(drawn) == len(page.figures("difference")) == len(comparison["differences"])
    for entry in comparison["differences"]:
        figure = drawn[entry["a"], entry["metric"]]
        if entry["p_holm"] is None:
            assert figure["data-p"] == ""
            continue
        assert float(figure["data-p"]) == entry["p_holm"]
        assert ("unclear" in figure["class"]) == (entry["p_holm"] > 0.05)


def test_every_point_of_the_displacement_figure_is_where_its_numbers_say(page, comparison):
    points = {f["data-run"]: f for f in page.figures("point")}
    assert set(points) == set(PULL)
    for name, point in points.items():
        entry = comparison["methods"][name]
        assert float(point["data-x"]) == entry["drift_per_token"]["chosen"][0]
        assert float(point["data-y"]) == entry["accuracy"][0]


def test_tuning_shows_every_rate_of_every_method_and_marks_the_chosen_one(page, comparison):
    cells = {(f["data-run"], float(f["data-rate"])): f for f in page.figures("tuning")}
    assert set(cells) == {(name, rate) for name in PULL for rate in RATES}
    for (name, rate), cell in cells.items():
        [run] = [run for run in comparison["methods"][name]["tuning"] if run["learning_rate"] == rate]
        assert float(cell["data-value"]) == run["validation"]["accuracy"]
        assert ("chosen" in cell.get("class", "")) == (rate == comparison["methods"][name]["learning_rate"])
    assert len([a for tag, a in page.elements if tag == "polyline"]) == len(PULL)


def test_the_headline_names_who_differs_and_the_detail_says_how_far_it_holds(page):
    text = " ".join("".join(page.texts).split())
    assert "Held-out reward accuracy against dpo: simpo higher; nothing is shown for the other." in text
    assert "3 seeds; 819 training, 205 validation and 80 test records" in text
    assert "this model, these data and this budget, and no further" in text
    assert "rpo needs `reward`: add `objectives:` with a scorer" in text


def test_without_equal_tuning_everything_is_headed_not_a_ranking_and_stands_as_named(tmp_path):
    comparison = write_comparison_folder(tmp_path, rates=[1e-6])
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    reason = "every method had one learning rate, so nothing was tuned"
    assert f"Not a ranking: {reason}." in "".join(page.texts)
    assert [a["data-run"] for tag, a in page.elements if tag == "tr" and "data-run" in a] == list(PULL)
    assert write_table(tmp_path).read_text().startswith(f"**Not a ranking: {reason}.**")
    assert "Not a ranking" in printed(comparison)
    assert page.figures("tuning") == []


def test_nothing_is_loaded_and_no_text_becomes_markup(page, folder):
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert HOSTILE in "".join(page.texts)


def test_the_markdown_table_has_a_row_per_method_and_the_command_that_makes_it(folder, comparison):
    lines = write_table(folder).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(PULL) + 1
    assert len({line.count("|") - line.count("\\|") for line in rows[:-1]}) == 1
    value = comparison["methods"]["simpo"]["accuracy"][0]
    assert rows[2].startswith(f"| `simpo` | 3e\N{MINUS SIGN}06 | {100 * value:.1f} [")
    assert rows[-1].startswith("| `ipo:tau=0.1` | failed: ")
    at = lines.index("```sh")
    assert lines[at + 1] == comparison["command"]


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_terminal_shows_every_method_whole_at_any_width(comparison, width):
    text = printed(comparison, width)
    assert max(map(len, text.splitlines())) <= width
    for name in PULL:
        assert f"{100 * comparison['methods'][name]['accuracy'][0]:.1f} [" in text
    assert "ipo: failed: " in text
    assert "simpo higher" in text


def test_names_beside_dots_do_not_lie_on_each_other():
    plot = _figures.scatter([(f"method_{i}", 0.001 * i, 0.5 + 0.0001 * i) for i in range(15)])
    places = sorted(point.label_y for point in plot.points)
    assert min(b - a for a, b in pairwise(places)) >= _figures.LABEL - 0.01
    assert 0 <= places[0] <= places[-1] <= 100
    assert _figures.scatter([("a", None, 0.5)]) is None


def test_a_folder_without_a_whole_comparison_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(DataError, match=r"no comparison\.json; run `unipref compare`"):
        write_table(tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_report(tmp_path)
