"""Reports: a recipe's table as text, Markdown and LaTeX, its figures, and one HTML page that needs no network."""

from errata.report.folder import write_report
from errata.report.page import results_page

__all__ = ["results_page", "write_report"]
