"""The page a run leaves behind: one HTML file that shows what was learnt, and needs no network."""

from swav.report.page import write_report

__all__ = ["write_report"]
