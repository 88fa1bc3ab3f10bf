"""What a process does that runs one task for another process."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from saikei.executors.base import attempt
from saikei.executors.environment import Driver, apply_keras_settings
from saikei.executors.versions import check_versions


def work_in_child(driver: Driver, shared: Path, task: bytes, connection: Connection) -> None:
    """Run one task in a child process, and send its pickled result.

    Args:
        driver: The process that it works for.
        shared: File with the pickled function and first argument.
        task: The pickled task.
        connection: Where to send the result.
    """
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # The standard output belongs to the process that prints the results.
    os.dup2(2, 1)
    connection.send_bytes(_result(driver, lambda: (*_read(shared), pickle.loads(task))))


def work_on_node(driver: Driver, shared: Sequence[Any], task: Sequence[Any]) -> bytes:
    """Run one task as a Ray task.

    Args:
        driver: The process that it works for.
        shared: The reference to the function and its first argument, in a list.
        task: The reference to the task, in a list.

    Returns:
        The pickled result.

    Raises:
        WorkError: If the packages of the node are not those of the driver.
    """
    import ray

    check_versions(driver.versions)
    # Arrays from the object store cannot be written to, and torch warns that it could.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    return _result(driver, lambda: (*ray.get(shared[0]), ray.get(task[0])))


def _end_with_the_parent() -> None:
    """End this process when its parent is killed, since nobody else would."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        return pickle.load(file)


def _result(driver: Driver, unpack: Callable[[], tuple[Any, Any, Any]]) -> bytes:
    result = attempt(_run, driver, unpack)
    return result if isinstance(result, bytes) else pickle.dumps(result)


def _run(driver: Driver, unpack: Callable[[], tuple[Any, Any, Any]]) -> bytes:
    if driver.settings:
        # This imports Keras and its backend, which not every function needs.
        apply_keras_settings(driver.settings)
    function, shared, task = unpack()
    # Pickled here, so that a result that cannot be is an error of the task.
    return pickle.dumps(function(shared, task), pickle.HIGHEST_PROTOCOL)
