"""One self-contained HTML page of a run."""

from robopolicy.report.page import make_report

__all__ = ["make_report"]
