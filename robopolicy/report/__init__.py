"""One self-contained HTML page of a run, or of several."""

from robopolicy.report.compare import compare_runs
from robopolicy.report.page import make_report

__all__ = ["compare_runs", "make_report"]
