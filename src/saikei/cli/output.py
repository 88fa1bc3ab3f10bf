"""What commands print: tables for people, or one JSON object."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

# Tables in a file or a pipe need not fit the 80 columns that are assumed where there is no window.
_FILE_WIDTH = 120


def say(text: Any) -> None:
    """Print for a person."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, _FILE_WIDTH))
    console.print(text, markup=False, highlight=False, soft_wrap=isinstance(text, str))


def say_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def import_keras() -> None:
    """Import Keras without the notices that TensorFlow's C++ parts write to stderr."""
    # TensorFlow warns of every model that it compiles anew, which is our trade.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _stderr_held_back():
        import keras

        # The first operation starts the runtime, which has notices of its own.
        keras.ops.ones(())


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what the process writes to stderr; give it out if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
