"""A Rich progress bar for Keras's training loop."""

from __future__ import annotations

from typing import Any

import keras
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar(keras.callbacks.Callback):
    """Shows batches done, time left and the last epoch's figures.

    Args:
        title: what is being trained.
        total: number of batches of all epochs; `None` where the data does not know.
    """

    def __init__(self, title: str, total: int | None) -> None:
        super().__init__()
        self._title = title
        self._total = total
        self._bar: Progress | None = None
        self._task: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Open the bar."""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._task = self._bar.add_task(self._title, total=self._total, figures="")
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """One batch further."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Show the epoch's figures."""
        if self._bar is not None:
            shown = "  ".join(
                f"{name} {value:.4f}"
                for name, value in (logs or {}).items()
                if name == "loss" or name.startswith("val_")
            )
            self._bar.update(self._task, figures=shown)

    def close(self) -> None:
        """Leave the bar as it stands; safe to call twice, and after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
