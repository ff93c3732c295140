"""Facts about the page and the terminal's words of an evaluation of preference models that need no browser."""

import io
import json
import re

import pytest
from example_evaluation import MODELS, SECTIONS, example, write_example
from example_run import HOSTILE
from rich.console import Console
from test_page import Page

from unipref.core.errors import DataError
from unipref.core.io import write_json, write_text
from unipref.report import _evaluation, _judged, render_evaluation, write_evaluation, write_report
from unipref.report._words import MINUS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    write_example(folder)
    return folder


@pytest.fixture(scope="module")
def told(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def numbers(figure):
    return [float(figure[f"data-{name}"]) if figure[f"data-{name}"] else None for name in ("value", "low", "high")]


def remade(told, tmp_path):
    write_json(tmp_path / "evaluation.json", told)
    return Page(write_evaluation(tmp_path).read_text(encoding="utf-8"))


def printed(told, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render_evaluation(told))
    return console.export_text()


# ---- numbers ----


def test_every_accuracy_of_the_figure_is_the_jsons_unrounded(page, told):
    shown = {f["data-run"]: numbers(f) for f in page.figures("dot") if f["data-metric"] == "accuracy"}
    expected = {name: entry["accuracy"] for name, entry in (told["models"] | told["baselines"]).items()}
    assert shown == expected
    assert set(shown) == {*MODELS, "longer wins", "bag of words"}


def test_every_cell_of_the_table_of_models_is_the_jsons(page, told):
    cells = {(f["data-run"], f["data-metric"]): numbers(f) for f in page.figures("cell")}
    for name, entry in told["models"].items():
        for key in ("accuracy", "agreement", "nll", "brier"):
            assert cells[name, key] == entry[key]
        for key in ("worst_domain", "worst_user"):
            assert cells[name, key] == entry[key]["accuracy"]
        assert cells[name, "overall"] == entry["sections"]["overall"]["weighted"]
        assert cells[name, "debiased"][0] == entry["calibration"]["debiased"]
        assert cells[name, "seconds"][0] == entry["seconds"]
        assert cells[name, "left_out"] == (entry["left_out"] or {"accuracy": [None] * 3})["accuracy"]


def test_every_difference_is_drawn_once_with_its_adjusted_p(page, told):
    metrics = {(f["data-a"], f["data-b"], f["data-metric"]): f for f in page.figures("difference")}
    assert len(metrics) == len(page.figures("difference")) == len(told["differences"])
    for entry in told["differences"]:
        figure = metrics[entry["a"], entry["b"], entry["metric"]]
        assert numbers(figure) == entry["value"]
        assert float(figure["data-p"]) == entry["p_holm"]
        better = (entry["value"][0] > 0) == (entry["metric"] == "accuracy")
        word = ("better" if better else "worse") if entry["p_holm"] <= 0.05 else "unclear"
        assert word in figure["class"]


def test_reliability_calibration_domains_users_and_sections_hold_the_jsons_numbers(page, told):
    for name, entry in told["models"].items():
        curve = [f for f in page.figures("reliability") if f["data-model"] == name]
        assert [(float(f["data-confidence"]), numbers(f)) for f in curve] == [
            (point["confidence"], point["right"]) for point in entry["calibration"]["curve"]
        ]
        calibration = {
            f["data-metric"]: f["data-value"] for f in page.figures("calibration") if f["data-model"] == name
        }
        assert float(calibration["ece"]) == entry["calibration"]["ece"]
        assert float(calibration["debiased"]) == entry["calibration"]["debiased"]
        width = {(f["data-bins"], f["data-metric"]): float(f["data-value"]) for f in page.figures("equal-width")
                 if f["data-model"] == name}  # fmt: skip
        equal = entry["calibration"]["equal_width"]
        assert width == {(bins, key): row[key] for bins, row in equal.items() for key in ("ece", "ace", "mce")}
        worst = {f["data-metric"]: numbers(f) for f in page.figures("worst") if f["data-model"] == name}
        assert worst == {key: entry[key]["accuracy"] for key in ("worst_domain", "worst_user")}
        sections = {(f["data-section"], f["data-metric"]): numbers(f) for f in page.figures("section")
                    if f["data-model"] == name}  # fmt: skip
        assert sections["Chat", "strict"] == entry["sections"]["sections"]["Chat"]["strict"]
        assert {section for section, _ in sections} == {"Chat", "Safety"}
        length = {f["data-metric"]: numbers(f) for f in page.figures("length") if f["data-model"] == name}
        assert length == {key: entry["length"][key] for key in ("excess", "gap", "correlation")}
    by_user = [numbers(f) for f in page.figures("dot") if f["data-metric"] == "by_user"]
    users = [each["accuracy"] for entry in told["models"].values() for each in entry["by_user"]["users"].values()]
    assert sorted(by_user) == sorted(users)
    by_domain = [numbers(f) for f in page.figures("dot") if f["data-metric"] == "by_domain"]
    domains = [each["accuracy"] for entry in told["models"].values() for each in entry["by_domain"].values()]
    assert sorted(by_domain) == sorted(domains)


def test_the_best_of_n_holds_every_n_and_says_what_turned_over(page, told):
    for name in ("bt", "per user"):
        best = told["models"][name]["best_of"]
        cells = [f for f in page.figures("best-of") if f["data-model"] == name]
        for key in ("gold", "proxy"):
            shown = {int(f["data-n"]): numbers(f) for f in cells if f["data-metric"] == key}
            assert shown == dict(zip(best["n"], best[key], strict=True))
    verdicts = {f["data-model"]: f["data-overoptimised"] for f in page.figures("best-of-verdict")}
    assert verdicts == {name: str(told["models"][name]["best_of"]["overoptimised"]).lower() for name in verdicts}
    assert verdicts == {"per user": "false", "bt": "true"}
    assert "Over-optimised: the gold reward is greatest at n = " in page.text
    assert "No fall of the gold reward is shown up to n = 64" in page.text


def test_a_domain_that_was_left_out_stands_beside_the_model_that_knows_it(page, told):
    cells = {(f["data-domain"], f["data-metric"]): numbers(f) for f in page.figures("domain-cell")
             if f["data-model"] == "per user"}  # fmt: skip
    left_out = told["models"]["per user"]["left_out"]
    assert {domain for domain, _ in cells} == set(left_out["by_domain"]) == {"food", HOSTILE}
    for domain, each in left_out["by_domain"].items():
        assert cells[domain, "without"] == each["accuracy"]
        assert cells[domain, "difference"] == each["difference"]
    assert f"{left_out['missing']} pairs have no such verdict" in page.text


# ---- words ----


def test_the_headline_says_what_is_beaten_and_what_is_not(told):
    assert _judged.headline(told) == (
        "per user names the preferred response in 76.0 % of 578 held-out pairs, more than “the longer response wins” "
        "and “bag of words”."
    )
    poor = {**told, "main": HOSTILE}
    assert "which is not shown to be more than “the longer response wins” and “bag of words”." in _judged.headline(poor)
    bare = example(whole=False)
    assert _judged.headline(bare) == "bt names the preferred response in 76.0 % of 578 held-out pairs."
    coin = json.loads(json.dumps(bare))
    coin["models"]["bt"]["accuracy"] = [0.51, 0.47, 0.55]
    assert _judged.headline(coin).endswith("held-out pairs, which a coin may do as well.")
    nobody = json.loads(json.dumps(bare))
    nobody["models"]["bt"]["accuracy"] = [None, None, None]
    assert _judged.headline(nobody).startswith("No held-out pair has a winner")


def test_checks_say_what_is_wrong_and_by_how_much(told):
    checks = {check["name"]: check for check in _judged.checks(told, "per user")}
    assert [check["word"] for check in checks.values()] == [
        "Passed", "Passed", "Not passed", "Passed", "Not passed", "Note",
    ]  # fmt: skip
    temperature = told["models"]["per user"]["calibration"]["temperature"]
    assert (
        f"too much: on these pairs its scores are best divided by {temperature:.2f}."
        in (checks["calibration"]["sentence"])
    )
    assert "It chooses the longer response more often than people do" in checks["length"]["sentence"]
    unseen = told["models"]["per user"]["fallback"]["reasons"]["unseen user"]
    assert f"It fell back for {unseen['pairs']} pairs (unseen user), right in " in checks["unseen"]["sentence"]
    leaning = {check["name"]: check for check in _judged.checks(told, "bt")}["order"]
    assert (leaning["passed"], leaning["word"]) == (False, "Not passed")
    assert "follows the place" in leaning["sentence"]
    unasked = {check["name"]: check for check in _judged.checks(told, HOSTILE)}["order"]
    assert (unasked["passed"], unasked["word"]) == (None, "Unknown")


def test_checks_of_every_model_are_on_the_page(page, told):
    shown = {(f["data-model"], f["data-check"]): f["data-passed"] for f in page.figures("check")}
    assert shown == {
        (name, check["name"]): "" if check["passed"] is None else str(check["passed"]).lower()
        for name in MODELS
        for check in _judged.checks(told, name)
    }


def test_ties_ceilings_and_notes_of_the_run_are_said(page):
    assert "22 pairs tied by people have no winner" in page.text
    assert "no model can agree with more than 91.2 % of single votes" in page.text
    assert "Equal scores count as half right; such pairs: bt 15." in page.text
    assert "17 held-out pairs stand in the training data too and are left out." in page.text
    assert "Reasoning: the data have none of its subsets, and it counts nowhere." in page.text
    assert f"without {next(iter(set(SECTIONS['Safety']) - {'refuse'}))}" in page.text


def test_the_terminal_tells_the_models_the_verdict_and_why(told):
    text = printed(told)
    assert "per user                          76.0 [72.7, 79.2]  +11.1 [+7.0, +14.7], p < 0.001" in text
    worse = next(e for e in told["differences"] if (e["a"], e["b"], e["metric"]) == (HOSTILE, "bt", "accuracy"))
    assert f"{100 * worse['value'][0]:.1f} [".replace("-", MINUS) in text
    assert "longer wins                       61.9 [58.1, 65.9]" in text
    assert "Not passed: It is not as sure as it should be." in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert not any("…" in line for line in text.splitlines() if "<script>" not in line)


def test_labels_without_divided_votes_have_no_column_of_agreement(told):
    hard = json.loads(json.dumps(told))
    hard["pairs"] |= {"soft": 0, "ties": 0}
    assert [metric.key for metric in _evaluation.columns_of(hard)][:2] == ["accuracy", "nll"]
    assert [metric.key for metric in _evaluation.columns_of(told)][:2] == ["accuracy", "agreement"]


# ---- the file ----


def test_nothing_is_loaded_from_anywhere(page, folder):
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", html)
    assert "default-src 'none'" in html
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "data"} & set(attributes), (tag, attributes)


def test_names_of_models_domains_and_users_cannot_become_markup(page):
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert not any(tag == "img" for tag, _ in page.elements)
    assert "".join(page.texts).count(HOSTILE) > 10


def test_ids_are_unique_and_every_tab_controls_a_panel(page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    tabs = [a for _, a in page.elements if a.get("role") == "tab"]
    assert len(tabs) == 6 * len(MODELS) + 2  # trust, calibration, domains, users, subsets, length; two have best of n
    panels = {a["id"]: a for _, a in page.elements if a.get("role") == "tabpanel"}
    assert {a["aria-controls"] for a in tabs} == set(panels)
    anchors = {a["href"][1:] for tag, a in page.elements if tag == "a" and a["href"].startswith("#")}
    assert anchors <= set(ids)


def test_one_model_and_nothing_but_pairs_has_no_empty_sections(tmp_path):
    page = remade(example(whole=False), tmp_path)
    sections = [a["id"] for tag, a in page.elements if tag == "section"]
    assert sections == ["trust", "calibration", "data", "settings", "meaning"]
    assert not any(a.get("role") == "tab" for _, a in page.elements)
    assert "Nobody asked it in both orders" in page.text


def test_what_stands_beside_the_evaluation_is_shown(tmp_path):
    write_json(tmp_path / "data.json", {"train": {"n_read": 7, "n_kept": 5, "counts": {"no response": 2}}})
    write_text(tmp_path / "recipe.yaml", "method: bt\n")
    page = remade(example(whole=False), tmp_path)
    rows = {f["data-metric"]: f["data-value"] for f in page.figures("rows")}
    assert rows == {"train: rows read": "7", "train: kept": "5", "train: set aside: no response": "2"}
    assert "method: bt" in page.text


def test_a_folder_without_a_whole_file_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"holds no evaluation\.json; run `unipref reward train`"):
        write_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        write_report(tmp_path)
