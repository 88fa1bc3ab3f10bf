"""Output of the commands: tables for people, or one JSON object."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from saikei.errors import WorkError, in_one_line, printable

# Rich assumes 80 columns for files and pipes, where tables may be wider.
_FILE_WIDTH = 120


def print_text(text: Any) -> None:
    """Print for a person."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, _FILE_WIDTH))
    if isinstance(text, str):
        text = printable(text)
    console.print(text, markup=False, highlight=False, soft_wrap=isinstance(text, str))


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def import_keras() -> None:
    """Import Keras without the notices that TensorFlow's C++ code writes to stderr.

    Raises:
        WorkError: If Keras or its backend cannot be imported.
    """
    # TensorFlow warns about every new model that it compiles, and Saikei makes many.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with _stderr_held_back():
            import keras

            # The first operation starts the runtime, which writes notices too.
            keras.ops.ones(())
    # A backend that is missing, unknown or broken may raise anything.
    except Exception as error:
        raise WorkError(
            f"Keras cannot be started ({in_one_line(error)}): install it with a backend, and "
            "set KERAS_BACKEND to that backend."
        ) from error


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Drop what the process writes to stderr; errors are reported by exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
