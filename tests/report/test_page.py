"""Facts about `report.html` that need no browser."""

import json
import re
from html.parser import HTMLParser

import pytest
from example_run import HOSTILE, METHODS, write_example

from unipref.core.errors import DataError
from unipref.report import write_report


class Page(HTMLParser):
    """Every element with its attributes, and the text outside scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts, self._raw = [], [], 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._raw += tag in ("script", "style")

    def handle_endtag(self, tag):
        self._raw -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._raw:
            self.texts.append(data)

    def figures(self, kind):
        return [attributes for _, attributes in self.elements if attributes.get("data-figure") == kind]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_example(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_anywhere(page, folder):
    loading = {"src", "srcset", "poster", "action", "formaction", "data", "background"}
    for tag, attributes in page.elements:
        assert not loading & set(attributes), (tag, attributes)
        assert tag not in {"iframe", "object", "embed", "img", "video", "audio", "base"}
    for tag, attributes in page.elements:
        if tag == "link":
            assert attributes["href"] == "data:,"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)


def test_text_of_models_and_data_cannot_become_markup(page):
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any("onerror" in attributes for _, attributes in page.elements)
    text = "".join(page.texts)
    assert text.count(HOSTILE) == 1 + 1 + len(METHODS)  # a prompt once; a text of the reference and of every run
    assert "<b>chosen</b>" in text
    assert "# <not a tag>" in text


def test_cells_of_the_main_table_hold_the_numbers_of_the_summary(page, summary):
    cells = {(f["data-run"], f["data-metric"]): f for f in page.figures("cell")}
    assert len(cells) == 4 * 10
    for run in METHODS:
        for metric in ("accuracy", "ranking_accuracy", "kl", "length", "stopped"):
            cell = cells[run, metric]
            assert [float(cell[f"data-{x}"]) for x in ("value", "low", "high")] == summary["runs"][run][metric]
        expected = summary["runs"][run]["aux"]["reading_level"]["generations"]
        assert float(cells[run, "aux.reading_level.generations"]["data-value"]) == expected[0]
        assert float(cells[run, "seconds"]["data-value"]) == summary["runs"][run]["seconds"]
    assert cells["reference", "accuracy"]["data-value"] == ""


def test_every_difference_of_the_summary_is_drawn_once(page, summary):
    drawn = {(f["data-a"], f["data-b"], f["data-metric"]): f for f in page.figures("difference")}
    assert len(drawn) == len(page.figures("difference")) == len(summary["differences"])
    for entry in summary["differences"]:
        figure = drawn[entry["a"], entry["b"], entry["metric"]]
        assert float(figure["data-value"]) == entry["value"][0]


def test_alarms_are_on_the_page(page, summary):
    (alarm,) = summary["runs"]["dpo"]["alarms"]
    assert alarm["code"] == "kl"
    assert [a["data-code"] for tag, a in page.elements if tag == "li" and "data-code" in a] == ["kl"]
    assert alarm["message"] in "".join(page.texts)


def test_curves_end_where_the_log_does(page, folder):
    lines = [a for tag, a in page.elements if tag == "polyline"]
    losses = [line for line in lines if line["data-run"] == "dpo"]
    last = json.loads((folder / "dpo" / "dpo" / "metrics.jsonl").read_text().splitlines()[-1])
    assert float(losses[0]["data-last"]) == last["loss"]
    assert int(losses[0]["data-n"]) == 12
    assert {line["data-run"] for line in lines} == set(METHODS)


def test_facts_about_objectives_are_a_table_and_an_empty_list_says_none(page):
    text = " ".join(" ".join(page.texts).split()).replace(" ,", ",")
    assert "missing mean agreement" in text
    assert "reading_level 3 0.4 0.5, 0.45, 0.55" in text
    assert "conflicts none" in text


def test_a_folder_with_a_summary_alone_still_gives_a_page(tmp_path, folder):
    (tmp_path / "summary.json").write_text((folder / "summary.json").read_text())
    text = "".join(Page(write_report(tmp_path).read_text()).texts)
    assert "The run folder holds no data report." in text
    assert "Sample generations" not in text


def test_seeds_have_folders_of_their_own_and_one_line_each(tmp_path):
    write_example(tmp_path)
    for seed in (0, 1):
        place = tmp_path / "dpo" / f"seed-{seed}" / "dpo"
        place.mkdir(parents=True)
        (place / "metrics.jsonl").write_text((tmp_path / "dpo" / "dpo" / "metrics.jsonl").read_text())
        (place.parent / "evaluation.json").write_text((tmp_path / "dpo" / "evaluation.json").read_text())
    (tmp_path / "dpo" / "dpo" / "metrics.jsonl").unlink()
    (tmp_path / "dpo" / "evaluation.json").unlink()
    page = Page(write_report(tmp_path).read_text())
    seeds = [a["data-seed"] for tag, a in page.elements if tag == "polyline" and a["data-run"] == "dpo"]
    assert seeds[:2] == ["seed-0", "seed-1"]
    assert any(a.get("class") == "text c0" for _, a in page.elements)


def test_a_folder_without_a_summary_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(DataError, match=r"no summary\.json; run `unipref align`"):
        write_report(tmp_path)
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_report(tmp_path)


def test_the_same_folder_gives_the_same_page(folder, page):
    once = (folder / "report.html").read_bytes()
    assert write_report(folder).read_bytes() == once


def test_each_seed_of_several_has_a_row_with_its_own_numbers(tmp_path):
    summary = write_example(tmp_path)
    run = summary["runs"]["dpo"]
    aux = {"reading_level": 0.25, "plain_words": None}
    run["by_seed"] = {"0": {"accuracy": 0.5, "aux": aux}, "1": {"accuracy": 0.75, "aux": aux}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    figures = Page(write_report(tmp_path).read_text()).figures("seed")
    assert {f["data-a"] for f in figures} == {"dpo"}
    shown = {(f["data-seed"], f["data-metric"]): f["data-value"] for f in figures}
    assert shown["0", "accuracy"] == "0.5"
    assert shown["1", "accuracy"] == "0.75"
    assert shown["1", "aux.plain_words.generations"] == ""


def test_without_generations_the_page_says_that_their_scores_were_not_measured(tmp_path):
    write_example(tmp_path, n_pairs=40, n_generations=0)
    text = "".join(Page(write_report(tmp_path).read_text()).texts)
    assert text.count("not measured") >= 2 * 3
    assert "Sample generations" not in text


def test_a_judge_is_shown_as_one_and_not_as_an_objective_that_was_trained_on(folder, summary, tmp_path):
    facts = {**summary["designer"]["plain_words"], "judge": True}
    designer = {**summary["designer"], "plain_words": facts}
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "designer": designer}))
    text = " ".join(" ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).texts).split())
    assert "Designer objectives and judges" in text
    assert text.count("A judge: it grades and was in no reward, so no run was trained on it; more is better.") == 1
    assert "Weight 0.7; more is better." in text
    assert "Weight 0.3" not in text
