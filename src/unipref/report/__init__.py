"""Pages and tables that say what a run found, made from the run folder alone."""

from pathlib import Path

from unipref.report._comparison import COMPARISON, render_comparison, write_comparison, write_table
from unipref.report._doctor import render_doctor
from unipref.report._doctor_page import write_doctor_page
from unipref.report._evaluated_table import render_evaluation
from unipref.report._evaluation import EVALUATION, write_evaluation
from unipref.report._explained_table import render_explanation
from unipref.report._explanation import EXPLANATION, write_explanation
from unipref.report._folder import curves_of
from unipref.report._page import CURVES, write_page
from unipref.report._runs import RUNS, render_runs, write_runs
from unipref.report._samples import SAMPLES, label, render_samples, scores_line, write_samples
from unipref.report.table import render_table

__all__ = [
    "COMPARISON",
    "CURVES",
    "EVALUATION",
    "EXPLANATION",
    "RUNS",
    "SAMPLES",
    "curves_of",
    "label",
    "render_comparison",
    "render_doctor",
    "render_evaluation",
    "render_explanation",
    "render_runs",
    "render_samples",
    "render_table",
    "scores_line",
    "write_doctor_page",
    "write_evaluation",
    "write_explanation",
    "write_report",
    "write_samples",
    "write_table",
]


def write_report(run_folder: Path | str) -> Path:
    """Write `report.html` into `run_folder` from what is in it: a run, a comparison, an explanation, an
    evaluation of preference models; its path.

    Raises:
        DataError: the folder holds no `summary.json`, `comparison.json`, `runs.json`, `explanation.json` or
            `evaluation.json`.
    """
    for kept, write in (
        (COMPARISON, write_comparison),
        (RUNS, write_runs),
        (EXPLANATION, write_explanation),
        (EVALUATION, write_evaluation),
    ):
        if (Path(run_folder) / kept).exists():
            return write(run_folder)
    return write_page(run_folder)
