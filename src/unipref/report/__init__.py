"""Pages and tables that say what a run found, made from the run folder alone."""

from unipref.report._page import write_report
from unipref.report.table import render_table

__all__ = ["render_table", "write_report"]
