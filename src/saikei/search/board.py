"""`Board`: shows a run in a terminal while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from saikei.errors import printable
from saikei.runs import numbers
from saikei.search.events import Event

# Candidates that are listed, the best first.
_SHOWN = 6
# Characters of a line below which only what matters most is shown.
_NARROW = 72
# Characters of the metric and the cost beside a name.
_FIGURES = 27
_HEADINGS = {"macs": "MACs", "params": "params", "bytes": "bytes", "memory": "memory"}


class Board:
    """A listener that shows the step, the epochs, the time left and the best candidates.

    Args:
        effort: Total number of epochs.
        show: Whether to show anything, where the output is a terminal or a notebook.
        axis: Name of the cost that the budget limits; a limited latency is shown as MACs.
        workers: Number of trainings that run at once, by which the time left is estimated.
        console: Where to show it; `None` for the standard output.
    """

    def __init__(
        self,
        effort: int,
        show: bool,
        axis: str = "macs",
        workers: int = 1,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console()
        self._narrow = self._console.width < _NARROW
        self._axis = axis if axis in _HEADINGS else "macs"
        self._effort, self._workers = effort, workers
        self._done, self._seconds = 0, 0.0
        wide = not self._narrow
        self._progress = Progress(
            *((TextColumn("{task.description}"), BarColumn(20)) if wide else ()),
            MofNCompleteColumn(),
            *((TimeElapsedColumn(),) if wide else ()),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[what]}"),
            console=self._console,
        )
        self._epochs = self._progress.add_task("epochs", total=effort, what="", left="")
        self._options = self._progress.add_task("options", total=1, what="", left="", visible=False)
        self._candidates: dict[str, Mapping[str, Any]] = {}
        # A file or a pipe gets no board: it could not be drawn over.
        show = show and (self._console.is_terminal or self._console.is_jupyter)
        self._live = (
            Live(self._shown(), console=self._console, refresh_per_second=4) if show else None
        )

    def __enter__(self) -> Board:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        values = event.values
        if event.kind == "stage":
            self._progress.update(self._epochs, what=values["what"])
        elif event.kind == "measured":
            done, total = values["done"], values["total"]
            self._progress.update(self._options, completed=done, total=total, visible=done < total)
        elif event.kind == "trained":
            self._done += values["epochs"]
            self._seconds += values["took"]
            self._progress.update(self._epochs, advance=values["epochs"], left=self.left)
        elif event.kind == "candidate":
            self._candidates[values["name"]] = values
        elif event.kind == "finished":
            self._progress.update(self._epochs, what="done", left="")
        if self._live:
            self._live.update(self._shown())

    @property
    def left(self) -> str:
        """About how long the epochs that are left take, by the seconds of those that are done."""
        epochs = self._effort - self._done
        if epochs <= 0 or not self._seconds:
            return ""
        seconds = epochs * self._seconds / self._done / self._workers
        return f"about {f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'} left"

    def _shown(self) -> Group:
        if not self._candidates:
            return Group(self._progress)
        every = list(self._candidates.values())
        ordered = sorted(every, key=lambda v: (not v["fits"], -_goodness(v), v["name"]))
        table = Table(box=None, pad_edge=False)
        width = max(8, self._console.width - _FIGURES) if self._narrow else None
        table.add_column("best so far", no_wrap=True, overflow="ellipsis", max_width=width)
        for heading in ("validation", *self._headings()):
            table.add_column(heading, justify="right", no_wrap=True)
        for one in ordered[:_SHOWN]:
            table.add_row(*(Text(printable(cell)) for cell in self._cells(one, every)))
        return Group(table, self._progress)

    def _headings(self) -> Sequence[str]:
        cost = _HEADINGS[self._axis]
        if self._narrow:
            return (cost,)
        return cost, *(() if cost == "params" else ("params",)), "epochs", ""

    def _cells(self, one: Mapping[str, Any], every: Sequence[Mapping[str, Any]]) -> list[str]:
        note = "" if one["fits"] else "over the budget"
        if one["fits"] and not any(_dominates(other, one, self._axis) for other in every):
            note = "on the front"
        cost = one[self._axis]
        cells = {
            _HEADINGS[self._axis]: "–" if cost is None else numbers.count(cost),
            "params": numbers.count(one["params"]),
            "epochs": str(one["epochs"] or "–"),
            "": note,
        }
        score = numbers.metric_value(one["metric"], one["value"])
        return [one["name"], score, *(cells[heading] for heading in self._headings())]


def _goodness(values: Mapping[str, Any]) -> float:
    value: float = values["value"]
    return value if values["greater_is_better"] else -value


def _dominates(a: Mapping[str, Any], b: Mapping[str, Any], axis: str) -> bool:
    """Whether a candidate is as good as another and as cheap, and better in one of both."""
    ours, theirs = (_goodness(a), -(a[axis] or 0)), (_goodness(b), -(b[axis] or 0))
    return (
        bool(a["fits"])
        and ours != theirs
        and all(x >= y for x, y in zip(ours, theirs, strict=True))
    )
