"""What the terminal and the page say of a run's dynamics."""

import io

from example_run import write_example
from rich.console import Console
from test_page import Page

from unipref.core.io import write_json
from unipref.evaluate import dynamics
from unipref.report import write_report
from unipref.report.table import render_table


def printed(summary):
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(render_table(summary))
    return console.export_text()


def test_a_pattern_is_told_once_per_run_with_its_seeds_and_a_summary_without_any_says_nothing(tmp_path):
    summary = write_example(tmp_path, n_pairs=20, n_generations=12)
    assert "NOTE" not in printed(summary)
    falling = [{"step": step, "logps/chosen": -40 - step, "logps/rejected": -40 - 2 * step} for step in range(20)]
    still = [{"step": step, "logps/chosen": -40, "logps/rejected": -40} for step in range(20)]
    run = next(iter(summary["runs"]))
    summary["runs"][run]["dynamics"] = [{"seed": s, **dynamics(r)} for s, r in ((0, still), (1, falling), (2, falling))]
    text = printed(summary)
    assert text.count("NOTE") == 1
    assert f"{run}: between steps 0 and 19 chosen responses became less likely while margins grew" in text
    assert "(seed 1; 2 of 3 seeds)" in text
    assert text.count("flex_dpo") == 1


def test_the_page_tells_the_same_patterns_before_the_curves_and_nothing_where_there_are_none(tmp_path):
    summary = write_example(tmp_path, n_pairs=20, n_generations=12)
    assert Page(write_report(tmp_path).read_text(encoding="utf-8")).figures("dynamics") == []
    falling = [{"step": step, "logps/chosen": -40 - step, "logps/rejected": -40 - 2 * step} for step in range(20)]
    run = next(iter(summary["runs"]))
    summary["runs"][run]["dynamics"] = [{"seed": 0, **dynamics(falling)}]
    write_json(tmp_path / "summary.json", summary)
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    told = [(f["data-run"], f["data-code"]) for f in page.figures("dynamics")]
    assert told == [(run, flag["code"]) for flag in dynamics(falling)["flags"]] != []
    words = " ".join("".join(page.texts).split())
    assert f"{run}: between steps 0 and 19 chosen responses became less likely while margins grew" in words
    assert "has two remedies: `flex_dpo`" in words
    assert words.index("became less likely") < words.index("Logged while training")
