"""Facts about fronts on a page, and about the page and the terminal's table of runs side by side."""

import json

import pytest
from example_run import DESIGNER, GAIN, HOSTILE, METHODS, generation_rows, pair_rows, write_example
from example_runs import write_runs_example
from rich.console import Console
from test_page import Page

from unipref.core.errors import DataError
from unipref.core.io import write_json
from unipref.evaluate import fronts
from unipref.report import render_runs, render_table, write_report
from unipref.report._fronts import fronts_view, told_of_front

EASY, PLAIN = "aux.reading_level.generations", "aux.plain_words.generations"
SUMMARY = {"designer": DESIGNER}


def front(rows, families, axes=((EASY, 1), (PLAIN, 1)), **more):
    return fronts(rows, families, axes, designer=DESIGNER, name="two goals", resamples=300, **more)


def moved(run, easy, plain=0.0, kl=0.0, n=60):
    """Rows of a run with these amounts added, the same for every answer."""
    texts = []
    for row in generation_rows(run, n):
        level = row["aux"]["reading_level"]
        aux = {
            "reading_level": None if level is None else level + easy,
            "plain_words": row["aux"]["plain_words"] + plain,
        }
        texts.append({**row, "aux": aux, "logp": row["logp"] + kl})
    return pair_rows(run, 30), texts


@pytest.fixture(scope="module")
def two_families():
    """One family better everywhere; the others' second run is beaten by their first too."""
    rows = {"good": moved("dpo", 0.3, 0.3), "poor": moved("dpo", 0.05, 0.05), "worst": moved("dpo", -0.1, -0.1)}
    return front(rows, {"upo": ["good"], "dpo": ["poor", "worst"]}, reference=moved("reference", 0.0))


# ---- fronts in words ----


def test_the_family_that_covers_more_is_named_with_both_shares_and_the_interval(two_families):
    volumes = {name: entry["hypervolume"][0] for name, entry in two_families["families"].items()}
    [difference] = two_families["differences"]
    value, low, high = (f"{100 * x:+.1f}" for x in difference["hypervolume"])
    first = told_of_front(SUMMARY, two_families)[0]
    assert first == (
        f"upo covers more than dpo: {100 * volumes['upo']:.1f} % against {100 * volumes['dpo']:.1f} %, "
        f"{value} [{low}, {high}] points of the box."
    )


def test_the_better_family_is_named_first_whichever_way_the_difference_was_taken(two_families):
    [difference] = two_families["differences"]
    value, low, high = difference["hypervolume"]
    turned = {**two_families, "differences": [{"a": "dpo", "b": "upo", "hypervolume": [-value, -high, -low]}]}
    assert told_of_front(SUMMARY, turned) == told_of_front(SUMMARY, two_families)


def test_beaten_runs_are_named_with_what_beats_them(two_families):
    told = " ".join(told_of_front(SUMMARY, two_families))
    assert "poor, by good; worst, by good, poor and before alignment." in told
    assert "The model before alignment is beaten by good" in told


def test_families_that_are_not_told_apart_are_said_to_be_so():
    rows = {"x": moved("dpo", 0.0), "y": moved("dpo_lambda0", 0.0)}
    found = front(rows, {"a": ["x"], "b": ["y"]})
    told = told_of_front(SUMMARY, found)
    assert told[0] == "No family's front clearly covers more than another's."
    assert told[1].startswith("Could not be told apart, with their difference in points: a and b (")


def test_a_run_that_is_on_the_front_in_some_resamples_only_is_given_with_its_share(two_families):
    points = {**two_families["points"], "poor": {**two_families["points"]["poor"], "on_front_share": 0.42}}
    told = " ".join(told_of_front(SUMMARY, {**two_families, "points": points}))
    assert "Could not be told, with the share of resamples in which they are on the front: poor (42 %)." in told
    assert "worst, by good, poor and before alignment." in told
    assert "poor, by" not in told


def test_a_sweep_in_which_every_run_is_the_best_at_its_own_trade_is_said_to_be_one():
    rows = {"weak": moved("dpo", 0.0, 0.0), "strong": moved("dpo", 0.4, 0.0, 4.0)}
    told = told_of_front(SUMMARY, front(rows, {"dpo": list(rows)}, ((EASY, 1), ("kl", -1))))
    assert told[0].startswith("No run is beaten on every axis by another")
    assert "No family's front" not in " ".join(told)  # there is one family


def test_left_out_runs_and_families_of_several_sizes_are_told():
    silent = [{**row, "aux": {**row["aux"], "reading_level": None}} for row in moved("dpo", 0.0)[1]]
    rows = {"x": moved("dpo", 0.0), "y": moved("dpo", 0.1), "z": moved("dpo", 0.2), "silent": ([], silent)}
    told = " ".join(told_of_front(SUMMARY, front(rows, {"a": ["x"], "b": ["y", "z"], "c": ["silent"]})))
    assert f"silent is left out: no value of {EASY}" in told
    assert "Nothing is known of c" in told
    assert "runs here: a 1 and b 2." in told


# ---- fronts drawn ----


def test_kl_lies_along_x_of_two_axes_and_is_the_size_of_the_dots_of_three():
    rows = {"weak": moved("dpo", 0.0, 0.0, 0.0), "strong": moved("dpo", 0.1, 0.1, 5.0)}
    [plain] = fronts_view({**SUMMARY, "fronts": [front(rows, {"a": list(rows)}, ((EASY, 1), ("kl", -1)))]})
    assert plain["x"] == "KL to reference, nats (less is better)"
    assert plain["y"] == "reading_level on generations (more is better)"
    assert plain["third"] is None
    three = front(rows, {"a": list(rows)}, (("kl", -1), (EASY, 1), (PLAIN, 1)))
    [drawn] = fronts_view({**SUMMARY, "fronts": [three]})
    assert (drawn["x"][:13], drawn["y"][:11]) == ("reading_level", "plain_words")
    assert drawn["third"] == "KL to reference, nats"
    weak, strong = (dot["radius"] for dot in drawn["drawn"])
    assert weak < strong


def test_a_line_joins_the_runs_of_a_family_that_its_others_do_not_beat(two_families):
    [view] = fronts_view({**SUMMARY, "fronts": [two_families]})
    lengths = {line["family"]: len(line["points"]) for line in view["lines"]}
    assert lengths == {"upo": 1, "dpo": 1}  # `worst` is beaten by `poor`


def test_the_page_of_a_run_shows_the_numbers_of_its_fronts(tmp_path, two_families):
    summary = write_example(tmp_path)
    write_json(tmp_path / "summary.json", {**summary, "fronts": [two_families]})
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    volumes = {f["data-family"]: float(f["data-value"]) for f in page.figures("hypervolume")}
    assert volumes == {name: entry["hypervolume"][0] for name, entry in two_families["families"].items()}
    values = {(f["data-run"], f["data-metric"]): float(f["data-low"]) for f in page.figures("front-value")}
    assert values == {
        (run, metric): triple[1]
        for run, point in two_families["points"].items()
        for metric, triple in point["values"].items()
    }
    points = {f["data-run"]: float(f["data-x"]) for f in page.figures("point")}
    assert points == {run: point["values"][EASY][0] for run, point in two_families["points"].items()}
    text = " ".join(" ".join(page.texts).split())
    for sentence in told_of_front(SUMMARY, two_families):
        assert sentence in text


def test_the_terminal_tells_the_fronts_of_a_run_in_the_same_words(tmp_path, two_families):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(render_table({**write_example(tmp_path), "fronts": [two_families]}))
        text = " ".join(console.export_text().split())
    assert f"Front, two goals {' '.join(told_of_front(SUMMARY, two_families))}" in text


def test_a_run_without_fronts_has_no_such_section(tmp_path):
    write_example(tmp_path)
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert 'id="fronts"' not in html
    assert "hypervolume" not in html


# ---- runs side by side ----


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return write_runs_example(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def comparison(both):
    return json.loads((both / "runs.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(both):
    return Page((both / "report.html").read_text(encoding="utf-8"))


def printed(comparison, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(render_runs(comparison))
        return console.export_text()


def test_every_run_has_its_cells_with_the_numbers_unrounded(page, comparison):
    cells = {(f["data-run"], f["data-metric"]): f for f in page.figures("cell")}
    assert {run for run, _ in cells} == {*comparison["runs"], "reference"}
    assert len(comparison["runs"]) == 2 * len(METHODS)
    for run, entry in comparison["runs"].items():
        assert float(cells[run, "accuracy"]["data-value"]) == entry["accuracy"][0]
        assert float(cells[run, EASY]["data-high"]) == entry["aux"]["reading_level"]["generations"][2]


def test_every_difference_is_drawn_once_with_its_adjusted_p(page, comparison):
    drawn = {(f["data-a"], f["data-b"], f["data-metric"]): f for f in page.figures("difference")}
    assert len(drawn) == len(page.figures("difference")) == len(comparison["differences"])
    for entry in comparison["differences"]:
        assert drawn[entry["a"], entry["b"], entry["metric"]]["data-p"] == str(entry["p_holm"])


def test_the_settings_that_differ_are_a_table(page):
    cells = {(f["data-key"], f["data-run"]) for f in page.figures("setting")}
    assert {key for key, _ in cells} == {"method", "train.learning_rate"}
    assert ("train.learning_rate", "fast/dpo") in cells


def test_curves_of_all_runs_are_in_one_panel(page):
    lines = [a for tag, a in page.elements if tag == "polyline" and "data-last" in a]
    losses = [line["data-run"] for line in lines][: 2 * len(METHODS)]
    assert losses == [f"{folder}/{run}" for folder in ("slow", "fast") for run in METHODS]


def test_answers_stand_side_by_side_and_cannot_become_markup(page):
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not any("onerror" in attributes for _, attributes in page.elements)
    shown = [a["data-run"] for tag, a in page.elements if tag == "div" and a.get("class", "").startswith("text ")]
    assert shown[: 1 + 2 * len(METHODS)] == [
        "reference",
        *(f"slow/{r}" for r in METHODS),
        *(f"fast/{r}" for r in METHODS),
    ]
    assert HOSTILE in "".join(page.texts)


def test_the_page_loads_nothing(page):
    loading = {"src", "srcset", "poster", "action", "formaction", "data", "background"}
    for tag, attributes in page.elements:
        assert not loading & set(attributes), (tag, attributes)
        assert tag not in {"iframe", "object", "embed", "img", "video", "audio", "base"}
        assert tag != "link" or attributes["href"] == "data:,"


def test_the_headline_names_what_gains_and_by_how_much_it_is_clear(page, comparison):
    [gain] = [d for d in comparison["differences"] if (d["a"], d["metric"]) == ("slow/upo_dpo", EASY)]
    assert GAIN["upo_dpo"] - GAIN["dpo"] == pytest.approx(0.05)
    assert gain["p_holm"] <= 0.05
    headline = next(text for text in page.texts if "against slow/dpo" in text)
    assert "slow/upo_dpo" in headline
    assert "higher" in headline


@pytest.mark.parametrize("width", [60, 100, 160])
def test_the_terminal_names_differences_fronts_and_settings_at_any_width(comparison, width):
    text = printed(comparison, width)
    words = " ".join(text.split())
    assert "judged on 40 held-out pairs, 60 prompts" in words
    assert "train.learning_rate: 1e-05 (slow/dpo, slow/dpo_lambda0, slow/upo_dpo); 0.0001 (fast/dpo" in words
    assert "Front, reading_level against kl" in words
    assert "note: One training seed each" in words
    assert max(len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("lost", ["curves.json", "texts.json"])
def test_a_folder_that_lost_a_part_says_which(both, tmp_path, lost):
    for name in {"runs.json", "curves.json", "texts.json"} - {lost}:
        (tmp_path / name).write_bytes((both / name).read_bytes())
    with pytest.raises(DataError, match=f"holds no {lost}; run `unipref compare` with the run folders again"):
        write_report(tmp_path)
