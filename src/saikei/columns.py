"""Rows of text in columns, for what is printed and for what a notebook shows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass
from html import escape

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from saikei.errors import printable


def in_columns(rows: Sequence[Sequence[str]], right: Container[int] = ()) -> str:
    """Rows as lines, their cells padded to the width of each column.

    Args:
        rows: Rows with the same number of cells; a heading is one of them.
        right: Positions of the columns that are aligned to the right, as numbers are.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


@dataclass(frozen=True)
class Columns:
    """A table: as text, for Rich, or as HTML.

    Args:
        rows: Rows with the same number of cells; the first is the heading.
        right: Positions of the columns that are aligned to the right, as numbers are.
    """

    rows: Sequence[Sequence[str]]
    right: Container[int] = ()

    def __str__(self) -> str:
        return in_columns(self.rows, self.right)

    def __rich__(self) -> RichTable:
        table = RichTable()
        for index, heading in enumerate(self.rows[0]):
            table.add_column(
                _plain(heading),
                justify="right" if index in self.right else "left",
                overflow="fold",
            )
        for row in self.rows[1:]:
            table.add_row(*map(_plain, row))
        return table

    def _repr_html_(self) -> str:
        head, *body = ("".join(self._cells(row)) for row in self.rows)
        lines = "".join(f"<tr>{row}</tr>" for row in body)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"

    def _cells(self, row: Sequence[str]) -> list[str]:
        tag = "th" if row is self.rows[0] else "td"
        return [
            f'<{tag} style="text-align: {"right" if index in self.right else "left"}">'
            f"{escape(cell)}</{tag}>"
            for index, cell in enumerate(row)
        ]


class InColumns(ABC):
    """Base of values that are shown as tables and sentences, in terminals and notebooks alike."""

    __slots__ = ()

    @abstractmethod
    def _shown(self) -> Sequence[str | Columns]:
        """The sentences and tables in their order."""

    def __str__(self) -> str:
        return "\n\n".join(map(str, self._shown()))

    def __rich__(self) -> Group:
        return Group(*(_plain(one) if isinstance(one, str) else one for one in self._shown()))

    def _repr_html_(self) -> str:
        return "\n".join(
            f'<p style="white-space: pre-line">{escape(one)}</p>'
            if isinstance(one, str)
            else one._repr_html_()
            for one in self._shown()
        )


def _plain(text: str) -> Text:
    """Text that is shown unchanged: brackets are not markup, control codes are removed."""
    return Text(printable(text))
