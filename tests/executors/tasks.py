"""Functions that the tests of the executors run: other processes import them from here."""

from __future__ import annotations

from typing import Any

from saikei.errors import DataError


def scaled(shared: float, task: float) -> float:
    return shared * task


def refused(shared: float, task: float) -> float:
    if task == 1:
        raise DataError("Row 1 is empty: delete it.")
    if task == 2:
        raise ZeroDivisionError("a\nb")
    if task == 3:
        raise MemoryError
    return scaled(shared, task)


def with_an_odd_error(shared: Any, task: Any) -> None:
    class OddError(Exception):
        """An exception that cannot be pickled."""

    raise OddError(lambda: None)
