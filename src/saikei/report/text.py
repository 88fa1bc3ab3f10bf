"""The report for a terminal, with Rich."""

from __future__ import annotations

import io
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from saikei.columns import Columns
from saikei.errors import printable
from saikei.report.candidates import FrontRow, front_rows
from saikei.report.parts import Report, report_of
from saikei.runs.record import Run

# Columns of the Pareto table; a narrow one leaves out those that follow from others.
_WIDE = ("", "model", "what", "metric", "95 %", "MACs", "share", "params", "latency", "fits")
_NARROW = ("", "model", "metric", "95 %", "MACs", "params", "latency")
_WIDE_ENOUGH = 110


@dataclass(frozen=True)
class FrontTable:
    """All candidates, cheapest first, in as many columns as the terminal has room for.

    Marks: » to ship, ● Pareto-optimal, · dominated.

    Args:
        run: A finished run.
    """

    run: Run

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table(_WIDE if options.max_width >= _WIDE_ENOUGH else _NARROW)

    def table(self, columns: tuple[str, ...]) -> Table:
        """The table with these columns."""
        metric = self.run.candidate(self.run.baseline).validation.name.replace("_", " ")
        headings = {"metric": metric, "share": f"of {self.run.baseline}"}
        table = Table(
            title=terminal_text(f"Pareto table: {metric} on validation, 95 % interval"),
            title_justify="left",
            caption="» to ship   ● Pareto-optimal   · dominated",
            caption_justify="left",
        )
        for column in columns:
            table.add_column(
                terminal_text(headings.get(column, column)),
                justify="left" if column in ("", "model", "what") else "right",
                no_wrap=column in ("", "model", "95 %"),
                overflow="fold",
            )
        for row in front_rows(self.run):
            cells = _cells(row)
            table.add_row(*(cells[column] for column in columns), style=_style(row))
        return table


def front_columns(run: Run) -> Columns:
    """The Pareto table with all its columns, for a notebook."""
    metric = run.candidate(run.baseline).validation.name.replace("_", " ")
    headings = {"metric": metric, "share": f"of {run.baseline}"}
    rows = [[headings.get(column, column) for column in _WIDE]]
    rows += [[cell.plain for cell in _cells(row).values()] for row in front_rows(run)]
    return Columns(rows, right=range(3, len(_WIDE)))


def front_table(run: Run) -> RenderableType:
    """The Pareto table, for Rich."""
    return FrontTable(run)


def text_report(run: Run) -> RenderableType:
    """The model to ship, its costs, the Pareto table, and what each choice and method gave."""
    report = report_of(run)
    headline = report.headline
    lead = Text.assemble(
        ("Ship ", "bold"),
        terminal_text(headline.name, "bold green"),
        terminal_text(f" ({headline.kind})\n{headline.sentence}\n{headline.reason}"),
    )
    return Group(
        Panel(lead),
        _cost_table(report),
        front_table(run),
        _choice_table(report),
        _method_table(report),
    )


def render_text(run: Run, width: int = 120) -> str:
    """The text report as plain text.

    Args:
        run: A finished run.
        width: Width of the text in characters.
    """
    return plain(text_report(run), width)


def render_front(run: Run, width: int = 120) -> str:
    """The Pareto table as plain text."""
    return plain(front_table(run), width)


def plain(what: RenderableType, width: int = 120) -> str:
    """Render anything that Rich can render as text without colours."""
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(what)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _cells(row: FrontRow) -> dict[str, Text]:
    """The text of each column."""
    mark = "»" if row.chosen else "●" if row.optimal else "·"
    cells = (
        mark,
        row.name,
        row.kind_text,
        row.metric,
        row.interval,
        row.macs,
        row.share,
        row.params,
        row.latency,
        "yes" if row.fits else "no",
    )
    return dict(zip(_WIDE, _verbatim(*cells), strict=True))


def _verbatim(*cells: str) -> tuple[Text, ...]:
    """Cells whose text is shown unchanged: brackets in it are not markup."""
    return tuple(terminal_text(cell) for cell in cells)


def _style(row: FrontRow) -> str:
    if row.chosen:
        return "bold green"
    return "" if row.optimal else "dim"


def _cost_table(report: Report) -> Table:
    table = Table(title="Against the original", title_justify="left")
    table.add_column("")
    for heading in (report.baseline, report.headline.name, "share or difference"):
        table.add_column(terminal_text(heading), justify="right")
    for row in report.costs:
        table.add_row(*_verbatim(row.quantity, row.original, row.chosen, row.change))
    return table


def _choice_table(report: Report) -> Table:
    table = Table(title="Gain of each choice (validation, paired)", title_justify="left")
    table.add_column("choice")
    table.add_column("first − second")
    table.add_column("difference", justify="right")
    table.add_column("answer")
    for row in report.choices:
        pair = f"{row.first} − {row.second}"
        table.add_row(*_verbatim(row.question, pair, row.difference, row.answer))
    return table


def _method_table(report: Report) -> Table:
    table = Table(title="Methods", title_justify="left")
    table.add_column("method")
    table.add_column("offered", justify="right")
    table.add_column("tried", justify="right")
    table.add_column("")
    table.add_column("why")
    for row in report.methods:
        table.add_row(*_verbatim(row.name, row.offered, row.tried, row.outcome, row.reason))
    return table


def terminal_text(text: str, style: str = "") -> Text:
    """Text that a terminal shows unchanged: brackets are not markup, control codes are removed.

    Args:
        text: Text from a record.
        style: Rich style to show it in.
    """
    return Text(printable(text), style)
