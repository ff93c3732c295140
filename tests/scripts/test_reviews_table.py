"""The numbers in docs/reviews.md come from a run folder, and stand where the page marks their place."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "reviews_table.py"


@pytest.fixture(scope="module")
def reviews_table():
    spec = importlib.util.spec_from_file_location("unipref_scripts_reviews_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def point(family, *values, share):
    names = ("aux.praise.generations", "kl")
    return {
        "family": family,
        "values": dict(zip(names, values, strict=True)),
        "on_front": share > 0.5,
        "on_front_share": share,
    }


@pytest.fixture
def folder(tmp_path):
    front = {
        "name": "f",
        "axes": [{"metric": "aux.praise.generations", "better": 1}, {"metric": "kl", "better": -1}],
        "reference_point": [0.0, 4.0],
        "ideal_point": [1.0, 0.0],
        "points": {
            "dpo": point("dpo", [0.5, 0.25, 0.75], [3.0, 2.0, 4.0], share=0.9),
            "reference": point(None, [0.125, None, None], [0.0, 0.0, 0.0], share=1.0),
        },
        "families": {"dpo": {"runs": ["dpo"], "front": ["dpo"], "hypervolume": [0.25, 0.2, 0.3]}},
        "differences": [],
        "left_out": {},
        "conversations": 8,
        "resamples": 100,
    }
    summary = {
        "recipe": {"seeds": [0, 1]},
        "designer": {"praise": {"weight": 1.0}},
        "runs": {"dpo": {"seconds": 120.0, "accuracy": [0.625, 0.5, 0.75]}},
        "fronts": [front],
    }
    held = {"reviews": {"accuracy": 0.875, "n": 1021}}
    data = {
        "split": {"train": 767, "heldout": 160},
        "designer": {"train": {"parts": {"plain": {"agreement": [0.46, 0.42, 0.5], "n_agreement": 608}}}},
        "scorers": {"judges.praise": {"half": "second", "texts": 6348, "penalty": 0.125, "held_out": held}},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "data.json").write_text(json.dumps(data))
    return tmp_path


def test_every_number_of_the_run_stands_in_its_row(reviews_table, folder):
    text = reviews_table.measured(folder)
    assert "1 run, 2 seeds, 767 collected pairs, 160 held-out pairs, 2 minutes" in text
    assert "46 % [42, 50] of 608 pairs" in text
    assert "| `judges.praise` | second | 6,348 | 0.125 | 87.5 % of 1,021 reviews |" in text
    assert "generations for 8 held-out openings, all seeds together, with 95 % intervals" in text
    assert "| `dpo` | dpo | 0.50 [0.25, 0.75] | 3.00 [2.00, 4.00] | 62.5 [50.0, 75.0] | 90 % |" in text
    assert "| start |  | 0.12 | 0.00 [0.00, 0.00] |  | 100 % |" in text
    assert "| dpo | 1 | 0.250 [0.200, 0.300] | `dpo` |" in text


def test_only_what_stands_between_the_marks_is_replaced_and_twice_is_once(reviews_table, folder, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reviews_table.BEGIN}\noutdated\n{reviews_table.END}\nafter\n")
    monkeypatch.setattr(sys, "argv", ["reviews_table.py", str(folder), "--page", str(page)])
    reviews_table.main()
    once = page.read_text()
    reviews_table.main()
    assert page.read_text() == once
    assert once.startswith(f"before\n{reviews_table.BEGIN}\n")
    assert once.endswith(f"{reviews_table.END}\nafter\n")
    assert "outdated" not in once
    page.write_text("no marks here\n")
    with pytest.raises(SystemExit, match="lacks the marks"):
        reviews_table.main()
    assert page.read_text() == "no marks here\n"


def test_the_page_has_the_marks(reviews_table):
    page = reviews_table.PAGE.read_text(encoding="utf-8")
    assert 0 < page.index(reviews_table.BEGIN) < page.index(reviews_table.END)
