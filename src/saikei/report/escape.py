"""Text from a record where it would be taken for markup."""

from __future__ import annotations

import html

from rich.text import Text

from saikei.errors import printable


def chart_text(text: str) -> str:
    """Text as a chart of Plotly shows it as it is: no tags, and no places for values.

    Args:
        text: of a record.
    """
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def terminal_text(text: str, style: str = "") -> Text:
    """Text as a terminal shows it as it is: brackets are no markup, and nothing commands it.

    Args:
        text: of a record.
        style: to show it in.
    """
    return Text(printable(text), style)
