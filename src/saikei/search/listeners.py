"""Listeners for a run's events: a file with lines of JSON, TensorBoard and MLflow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saikei.errors import InputError
from saikei.search.events import Event, Listener

_COSTS = ("macs", "params", "bytes", "memory", "latency")


def json_lines(path: str | Path) -> Listener:
    """A listener that appends each event to a file, as one line of JSON.

    Args:
        path: Path of the file; its folder must exist.

    Raises:
        InputError: If the folder of the file does not exist.
    """
    file = Path(path)
    if not file.parent.is_dir():
        raise InputError(f"'{file}' cannot be written: make the folder '{file.parent}' first.")

    def write(event: Event) -> None:
        with file.open("a", encoding="utf-8") as opened:
            opened.write(event.to_json() + "\n")

    return write


def tensorboard(folder: str | Path) -> Listener:
    """A listener for TensorBoard: for each candidate its score over its epochs, and its costs.

    Args:
        folder: The folder that `tensorboard --logdir` is started on.

    Raises:
        InputError: If the package `tensorboard` is not installed.
    """
    summary = _imported("tensorboard.summary", "tensorboard")
    writers: dict[str, Any] = {}

    def write(name: str, value: float, epochs: int, tag: str) -> None:
        if name not in writers:
            writers[name] = summary.Writer(str(Path(folder) / name))
        writers[name].add_scalar(tag, value, epochs)
        writers[name].flush()

    return _of_candidates(write)


def mlflow(**run: Any) -> Listener:
    """A listener for MLflow: metrics named after the candidates, with their epochs as steps.

    They are logged to the active run. If there is none, one is started.

    Args:
        **run: Arguments of `mlflow.start_run`, such as `run_name`.

    Raises:
        InputError: If the package `mlflow` is not installed.
    """
    package = _imported("mlflow", "mlflow")
    if package.active_run() is None:
        package.start_run(**run)

    def write(name: str, value: float, epochs: int, tag: str) -> None:
        package.log_metric(f"{name}/{tag}", value, step=epochs)

    return _of_candidates(write)


def listeners(given: Any) -> tuple[Listener, ...]:
    """The listeners that a user gave: a function, the path of a file, or a list of both.

    Raises:
        InputError: If something else was given.
    """
    if given is None:
        return ()
    several = isinstance(given, Sequence) and not isinstance(given, str)
    return tuple(_listener(one) for one in (given if several else [given]))


def _listener(given: Any) -> Listener:
    if isinstance(given, (str, Path)):
        return json_lines(given)
    if not callable(given):
        raise InputError(
            f"events got a {type(given).__name__}: give a function of one Event, the path of a "
            "file for lines of JSON, or a list of both."
        )
    listener: Listener = given
    return listener


def _of_candidates(write: Callable[[str, float, int, str], None]) -> Listener:
    """Passes on the score of a candidate after its epochs, and its costs."""

    def listen(event: Event) -> None:
        values = event.values
        if event.kind != "candidate":
            return
        name, epochs = values["name"], values["epochs"]
        write(name, values["value"], epochs, f"validation/{values['metric']}")
        for cost in _COSTS:
            if values[cost] is not None:
                write(name, values[cost], epochs, f"cost/{cost}")

    return listen


def _imported(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"The package '{package}' is not installed: pip install {package}."
        ) from error
