"""What does not end or disturb a search: Ctrl-C, and a warning of TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Interrupt:
    """Whether a block was interrupted.

    Args:
        error: The interrupt; `None` if there was none.
    """

    error: KeyboardInterrupt | None = None

    def reraise(self) -> None:
        """Raise the interrupt, if there was one.

        Raises:
            KeyboardInterrupt: The same that ended the block.
        """
        if self.error is not None:
            raise self.error


@contextmanager
def until_interrupted() -> Iterator[Interrupt]:
    """End the block on Ctrl-C, and go on after it.

    The executors end their processes before the interrupt leaves them. A second Ctrl-C, after the
    block, ends the program as always. SIGTERM and the closing of the terminal are the same in
    commands, which turn them into a `KeyboardInterrupt`.

    Returns:
        Whether it was interrupted, which is known after the block.
    """
    interrupt = Interrupt()
    try:
        yield interrupt
    except KeyboardInterrupt as error:
        interrupt.error = error


@contextmanager
def without_retracing_warnings() -> Iterator[None]:
    """Leave out that TensorFlow compiles again and again.

    Every candidate is a new model, which has to be compiled once for training, evaluation and
    prediction, and so is each part of a large model in a library. TensorFlow takes several of them
    for one function that is compiled again.
    """

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
