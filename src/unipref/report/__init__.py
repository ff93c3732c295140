"""Pages and tables that say what a run found, made from the run folder alone."""

from pathlib import Path

from unipref.report._comparison import COMPARISON, render_comparison, write_comparison, write_table
from unipref.report._page import write_page
from unipref.report.table import render_table

__all__ = ["COMPARISON", "render_comparison", "render_table", "write_report", "write_table"]


def write_report(run_folder: Path | str) -> Path:
    """Write `report.html` into `run_folder` from what is in it, a run or a comparison; its path.

    Raises:
        DataError: the folder holds neither a `summary.json` nor a `comparison.json`.
    """
    return write_comparison(run_folder) if (Path(run_folder) / COMPARISON).exists() else write_page(run_folder)
