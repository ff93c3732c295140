"""Facts about `samples.html` that need no browser, and about what the terminal shows of samples."""

import io
import re

import pytest
from example_run import HOSTILE
from example_run import write_example as write_run
from example_samples import MODELS, N, example, write_example
from rich.console import Console
from test_page import Page

from unipref.core.errors import DataError
from unipref.report import render_samples, scores_line, write_report, write_samples
from unipref.report._words import MINUS, NOTHING


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampled")
    write_example(folder, seeds=(0, 1))
    return folder


@pytest.fixture(scope="module")
def page(folder):
    path = write_samples(folder)
    assert path == folder / "samples.html"
    return Page(path.read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_anywhere(page, folder):
    html = (folder / "samples.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)
    assert "default-src 'none'" in html
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "data"} & set(attributes), (tag, attributes)


def test_text_of_models_and_prompts_cannot_become_markup(page):
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert "".join(page.texts).count(HOSTILE) == 4  # a prompt and an answer, once per seed


def test_every_response_stands_under_its_model_with_its_numbers_unrounded(page, folder):
    rows = example(seeds=(0, 1))["rows"]
    texts = [a for _, a in page.elements if a.get("class", "").startswith("text ")]
    assert [(a["data-model"], a["data-seed"]) for a in texts] == [(row["model"], str(row["seed"])) for row in rows]
    numbers = [a for tag, a in page.elements if tag == "span" and "data-metric" in a]
    told = iter([(a["data-metric"], a["data-value"]) for a in numbers])
    for row in rows:
        for name, value in row["aux"].items():
            assert next(told) == (name, "" if value is None else str(value))
        if row["role"] != "before":  # where it is 0 by definition
            assert next(told) == ("log-ratio", str(row["log_ratio"]))
    assert next(told, None) is None


def test_means_and_differences_are_those_of_the_summary(page):
    summary = example(seeds=(0, 1))["summary"]
    means = {(f["data-model"], f["data-metric"]): f for f in page.figures("mean")}
    assert len(means) == len(MODELS) * 5
    for (model, metric), cell in means.items():
        value = summary["models"][model][metric]["value"]
        assert [cell[f"data-{part}"] for part in ("value", "low", "high")] == [
            "" if v is None else str(v) for v in value
        ]
    differences = {(f["data-model"], f["data-metric"]): f for f in page.figures("difference")}
    known = {(entry["a"], entry["metric"]): entry["value"][0] for entry in summary["differences"]}
    assert {key: float(cell["data-value"]) for key, cell in differences.items()} == known


def test_the_report_links_to_the_page_where_there_is_one_and_the_page_to_the_report(tmp_path):
    write_run(tmp_path)
    assert 'href="samples.html"' not in write_report(tmp_path).read_text(encoding="utf-8")
    write_example(tmp_path)
    assert 'href="report.html"' in write_samples(tmp_path).read_text(encoding="utf-8")
    assert 'href="samples.html"' in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_samples_or_with_broken_ones_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"holds no samples\.json; `unipref sample RUN --page` writes it"):
        write_samples(tmp_path)
    (tmp_path / "samples.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_samples(tmp_path)


# ---- the terminal ----


def printed(found, *, width, terminal, **options):
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None, soft_wrap=not terminal)
    console.print(render_samples(found, **options))
    return file.getvalue()


def test_a_wide_terminal_has_the_models_side_by_side_and_a_narrow_one_below_one_another():
    wide = printed(example(), width=120, terminal=True)
    (line,) = [line for line in wide.splitlines() if "Answer 5 of reference" in line]
    assert "Answer 5 of dpo" in line
    assert "Answer 5 of upo_dpo" in line
    narrow = printed(example(), width=60, terminal=True)
    (line,) = [line for line in narrow.splitlines() if "Answer 5 of reference" in line]
    assert "Answer 5 of dpo" not in line
    assert max(map(len, narrow.splitlines())) <= 60


def test_a_pipe_gets_plain_lines_that_are_not_wrapped():
    found = example()
    long = "word " * 100 + "end"
    found["rows"][0]["text"] = long
    text = printed(found, width=80, terminal=False)
    assert long in text
    assert "\x1b" not in text
    assert f"== 1 of {N}: p0" in text


def test_what_was_drawn_and_how_is_said():
    text = printed(example(), width=120, terminal=False)
    assert "8 prompts, 3 models; seed 0, temperature 0.7, top-p 0.9, at most 12 tokens" in text
    assert "the same prompts and random numbers for every model" in text
    assert "Prompts are turns of a conversation." in text
    cold = example()
    cold["settings"]["temperature"] = 0
    assert "the likeliest token each time" in printed(cold, width=120, terminal=False)


def test_means_come_with_intervals_and_with_n_where_scores_are_missing():
    text = printed(example(), width=120, terminal=False, texts=False)
    assert "Answer 5" not in text
    (easy,) = re.findall(r"^easy .*$", text.split("difference")[0], re.MULTILINE)
    # 0.01 times the mean of 0, 1, 3, ..., 7; the third prompt has no score
    assert easy.count("(n = 7)") == 3
    assert "0.037 [" in easy
    (difference,) = re.findall(r"^reward .*$", text.split("difference")[1], re.MULTILINE)
    assert difference.split()[1:] == [f"{MINUS}0.125", f"{MINUS}0.250"]


def test_control_characters_of_a_response_do_not_reach_the_terminal():
    found = example()
    found["rows"][0]["text"] = "\x1b[2Jgone\x07"
    assert "\x1b" not in printed(found, width=120, terminal=False)


def test_the_line_of_scores_says_missing_and_cut_off():
    row = example()["rows"][3 * 3 + 1]
    assert scores_line(row) == "easy 0.280 · reward 0.375 · log-ratio +1.00 · 10 tokens, cut off"
    assert scores_line({**row, "aux": {"easy": None}, "stopped": True, "n_tokens": 1, "role": "before"}) == (
        f"easy {NOTHING} · 1 token"
    )
