"""Progress of a search: a bar for candidates, and one for the epochs of the current one."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class SearchProgress:
    """A Rich progress display.

    Args:
        total: Expected number of candidates.
        show: Whether to show it.
    """

    def __init__(self, total: int, show: bool) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            disable=not show,
        )
        self._candidates = self._progress.add_task("candidates", total=total, figures="")
        self._epochs = self._progress.add_task("", total=1, figures="", visible=False)

    def __enter__(self) -> SearchProgress:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.update(self._epochs, visible=False)
        self._progress.stop()

    def working_on(self, what: str) -> None:
        """Show the current step."""
        self._progress.update(self._candidates, figures=what)

    def done(self, figures: str) -> None:
        """Advance by one candidate."""
        self._progress.update(self._candidates, advance=1, figures=figures)
        self._progress.update(self._epochs, visible=False)

    def finish(self) -> None:
        """Fill the bar, since some of the expected candidates may not have been reachable."""
        total = self._progress.tasks[0].completed
        self._progress.update(self._candidates, total=total, figures="")

    def epochs(self, name: str, total: int) -> keras.callbacks.Callback:
        """A callback that shows the epochs of one training."""
        self._progress.reset(self._epochs, total=total, description=f"  {name}", visible=True)
        return _Epochs(self._progress, self._epochs)


class _Epochs(keras.callbacks.Callback):
    def __init__(self, progress: Progress, task: Any) -> None:
        super().__init__()
        self._progress = progress
        self._task = task

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Advance by one epoch, and show its validation metrics."""
        logs = logs or {}
        shown = {k.removeprefix("val_"): v for k, v in logs.items() if k.startswith("val_")}
        figures = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        self._progress.update(self._task, advance=1, figures=figures)
