"""Rows of text in columns, for what is printed."""

from __future__ import annotations

from collections.abc import Container, Sequence


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
