"""docs/speed.md has the numbers of benchmarks/speed.json and no others; whatever is slower than a peer stays there."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from benchmarks.speed.page import DRAWINGS, PAGE, ROOT, drawings, in_words, page_parts, starting
from scripts.measured import BEGIN, END

RESULT = json.loads((ROOT / "benchmarks" / "speed.json").read_text(encoding="utf-8"))


def between(page, name):
    return page.partition(BEGIN.format(name) + "\n")[2].partition("\n" + END.format(name))[0]


def test_every_table_of_the_page_is_what_the_result_gives():
    page = PAGE.read_text(encoding="utf-8")
    parts = page_parts(RESULT, starting())
    for name, part in parts.items():
        assert between(page, name) == part, name
    assert page.count("<!-- measured: ") == 2 * len(parts)


def test_every_plot_is_what_the_result_gives_and_stands_on_the_page():
    shown = set(re.findall(r"\(speed/(\w+)\.svg\)", PAGE.read_text(encoding="utf-8")))
    made = drawings(RESULT)
    assert shown == set(made)
    for name, svg in made.items():
        assert (DRAWINGS / f"{name}.svg").read_text(encoding="utf-8") == svg, name


def test_a_plot_is_well_formed_and_fetches_nothing():
    for svg in drawings(RESULT).values():
        assert ElementTree.fromstring(svg).get("aria-label")
        assert "href" not in svg
        assert svg.count("http") == 1  # the namespace


def test_every_ratio_of_the_result_is_on_the_page_with_those_below_one_marked():
    part = page_parts(RESULT, None)["cases"]
    for case in RESULT["cases"]:
        for peer, ratio in case["ratio"].items():
            row = next(
                line
                for line in part.splitlines()
                if line.startswith(f"| `{case['name']}` |") and f"/ {case['peers'][peer]['title']} |" in line
            )
            assert f" {ratio:.2f}{' (slower)' if ratio < 1 else ''} |" in row


SPREAD = {"median": 2.0, "min": 1.0, "max": 3.0}
SIDE = {
    "title": "t",
    **dict.fromkeys(("pairs_per_second", "tokens_per_second", "share_of_matrix_peak"), SPREAD),
    **dict.fromkeys(("peak_memory_mb", "memory_above_libraries_mb", "state_mb", "memory_above_state_mb"), 100),
}


def result(ratio, met, value, peer=SIDE):
    setting = {
        "shape": {"vocabulary": 10, "hidden": 4},
        "data": {"name": "hh"},
        **{"precision": "float32", "lora": False, "matrix_rate_gflops": [190.0, 200.0], "profiles": {}},
        "sides": {"ours": SIDE, "trl": peer},
    }
    case = {
        **{"name": "hh", "question": "a question", "setting": "hh", "side": "ours", "ours": SIDE},
        **{"peers": {"trl": peer}, "ratio": ratio, "value": value, "met": met, "limit": 4.0},
        "target": {"of": "speed", "against": ["trl"], "at_least": 4.0, "at_most": None},
    }
    names = ("cpu", "torch", "transformers", "trl")
    where = {**dict.fromkeys(names, "x"), "instructions": [], "load_before": 0.1}
    run = {"threads": 2, "repeats": 3}
    return {"machine": where, "run": run, "settings": {"hh": setting}, "cases": [case], "growth": []}


@pytest.mark.parametrize(
    ("met", "value", "words"),
    [
        (True, 4.5, "4.50 x (TRL, checkpointing off) | met |"),
        (False, 0.5, "0.50 x (TRL, checkpointing off) | **short**"),
    ],
)
def test_a_target_is_said_to_be_met_or_short(met, value, words):
    told = result({"trl": value}, met, {"trl": value})
    assert words in page_parts(told, None)["targets"]
    assert ("0.50 (slower)" in page_parts(told, None)["cases"]) == (value < 1)
    assert f"at least 4 x: {value:.2f} x (TRL, checkpointing off): {'met' if met else 'short'}" in in_words(told)


def test_a_peer_without_a_number_is_named_with_its_reason():
    told = result({}, None, {}, peer={"title": "TRL", "not_run": "killed, perhaps for want of memory"})
    parts = page_parts(told, None)
    assert "no number (TRL, checkpointing off) | not judged |" in parts["targets"]
    assert parts["not_run"] == "- TRL in `hh`: killed, perhaps for want of memory"
    assert "not run: killed" in in_words(told)


@pytest.mark.parametrize(
    ("pairs", "seconds", "verdict"),
    [(1_000_000, 59.0, "met"), (1_000_000, 61.0, "**short**"), (100_000, 9.0, "not judged: fewer pairs")],
)
def test_a_start_is_judged_on_a_million_pairs(pairs, seconds, verdict):
    started = {
        "pairs": pairs,
        "warm": [{"first_step_s": seconds}],
        "spread": {"first_step_s": [seconds, seconds]},
        **{"cases": [{"name": "MB", "ours": 1234.5}], "disk_mb": {"pairs": 10}},
    }
    parts = page_parts(result({"trl": 5.0}, True, {"trl": 5.0}), started)
    assert f"| {seconds:.1f} s [{seconds:.1f}, {seconds:.1f}] | {verdict} |" in parts["targets"]
    assert "| MB | 1,234.50 |" in parts["starting"]
