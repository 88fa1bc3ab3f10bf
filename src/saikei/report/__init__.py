"""The report of a run: first as data, then as one HTML file or as text for a terminal."""

from saikei.report.comparison import compare_runs
from saikei.report.html import (
    render_comparison,
    render_diff,
    render_explanation,
    render_html,
    write_html,
)
from saikei.report.parts import Report, report_of
from saikei.report.picture import front_picture
from saikei.report.text import front_columns, front_table, render_front, render_text, text_report

__all__ = [
    "Report",
    "compare_runs",
    "front_columns",
    "front_picture",
    "front_table",
    "render_comparison",
    "render_diff",
    "render_explanation",
    "render_front",
    "render_html",
    "render_text",
    "report_of",
    "text_report",
    "write_html",
]
