"""What happens in a run, as events: for the board in a terminal, or as lines of JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from saikei.errors import printable
from saikei.runs import numbers
from saikei.runs.candidate import Cost
from saikei.scoring.score import Score

# Candidates that the board lists, the best first.
_SHOWN = 6


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Args:
        kind: `"stage"`, `"measured"`, `"trained"`, `"candidate"`, `"failed"` or `"finished"`.
        seconds: Seconds since the run, or this part of it, began.
        values: Names and values, JSON-ready.
    """

    kind: str
    seconds: float
    values: Mapping[str, Any]

    def to_json(self) -> str:
        """The event as one line of JSON."""
        return json.dumps({"event": self.kind, "seconds": round(self.seconds, 3), **self.values})


# Gets every event of a run, in the process that called `optimize`.
Listener = Callable[[Event], None]


@dataclass
class Events:
    """Tells listeners what happens.

    Args:
        listeners: Functions that get every event, in order.
    """

    listeners: tuple[Listener, ...] = ()
    _began: float = field(default_factory=time.perf_counter)

    def emit(self, kind: str, **values: Any) -> None:
        """Tell all listeners of an event.

        Args:
            kind: See `Event`.
            values: Names and values, JSON-ready.
        """
        event = Event(kind, time.perf_counter() - self._began, values)
        for listener in self.listeners:
            listener(event)

    def stage(self, what: str) -> None:
        """A step of the search begins.

        Args:
            what: What is done, such as `"measuring options"`.
        """
        self.emit("stage", what=what)

    def candidate(self, name: str, score: Score, cost: Cost, fits: bool, epochs: int) -> None:
        """A candidate has a new score.

        Args:
            name: Its name.
            score: Its score on validation.
            cost: Its costs.
            fits: Whether it keeps the budget.
            epochs: Epochs that it was trained for.
        """
        self.emit(
            "candidate",
            name=name,
            metric=score.name,
            value=score.value,
            low=score.low,
            high=score.high,
            greater_is_better=score.greater_is_better,
            macs=cost.macs,
            params=cost.params,
            fits=fits,
            epochs=epochs,
        )


def json_lines(path: Path) -> Callable[[Event], None]:
    """A listener that appends each event to a file, as one line of JSON.

    Args:
        path: Path of the file; its folder must exist.
    """

    def write(event: Event) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(event.to_json() + "\n")

    return write


class Board:
    """A listener that shows the run in a terminal: the step, the epochs and the best candidates.

    Args:
        effort: Total number of epochs.
        show: Whether to show anything, where the output is a terminal or a notebook.
    """

    def __init__(self, effort: int, show: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[what]}"),
        )
        self._epochs = self._progress.add_task("epochs", total=effort, what="")
        self._options = self._progress.add_task("options", total=1, what="", visible=False)
        self._best: dict[str, Mapping[str, Any]] = {}
        console = Console()
        # A file or a pipe gets no board: it could not be drawn over.
        show = show and (console.is_terminal or console.is_jupyter)
        self._live = Live(self._shown(), console=console, refresh_per_second=4) if show else None

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
            self._progress.update(self._epochs, advance=values["epochs"])
        elif event.kind == "candidate":
            self._best[values["name"]] = values
        if self._live:
            self._live.update(self._shown())

    def _shown(self) -> Group:
        if not self._best:
            return Group(self._progress)
        sign = -1 if next(iter(self._best.values()))["greater_is_better"] else 1
        ordered = sorted(
            self._best.values(), key=lambda v: (not v["fits"], sign * v["value"], v["name"])
        )
        table = Table(box=None, pad_edge=False)
        for heading in ("best so far", "validation", "MACs", "params", "epochs", ""):
            table.add_column(heading, justify="left" if heading == "best so far" else "right")
        for one in ordered[:_SHOWN]:
            cells = (
                one["name"],
                numbers.metric_value(one["metric"], one["value"]),
                numbers.count(one["macs"]),
                numbers.count(one["params"]),
                str(one["epochs"] or "–"),
                "" if one["fits"] else "over the budget",
            )
            table.add_row(*(Text(printable(cell)) for cell in cells))
        return Group(table, self._progress)
