"""Reports: a recipe's table as text, Markdown and LaTeX, its figures, and one HTML page that needs no network."""

from errata.report.folder import line_rows, write_report
from errata.report.page import results_page
from errata.report.texts import footnote, heading, label_of, ours, printed, printed_name
from errata.report.tracking import Tracker, check

__all__ = [
    "Tracker",
    "check",
    "footnote",
    "heading",
    "label_of",
    "line_rows",
    "ours",
    "printed",
    "printed_name",
    "results_page",
    "write_report",
]
