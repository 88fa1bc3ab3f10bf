"""Functions that the tests of the executors run: other processes import them from here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def with_an_odd_result(shared: Any, task: Any) -> Any:
    return lambda: None


def killed(shared: tuple[Path, int], task: int) -> int:
    """Kill the process of task 1 the first times that it is tried."""
    folder, times = shared
    tries = len(list(folder.iterdir()))
    if task == 1 and tries < times:
        (folder / str(tries)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task * 10


def summed(shared: NDArray[Any], task: NDArray[Any]) -> NDArray[Any]:
    return shared + task


def process_of(shared: Any, task: Any) -> int:
    return os.getpid()


def printing(shared: Any, task: Any) -> None:
    print("from a task", flush=True)  # noqa: T201


def sleeping(shared: Path, task: int) -> None:
    """Leave a file with the process's id, and wait to be ended."""
    (shared / str(os.getpid())).touch()
    time.sleep(600)


def settings(shared: Any, task: Any) -> tuple[Any, ...]:
    import keras

    from saikei.executors.environment import thread_count

    config = keras.config
    policy = config.dtype_policy().name
    return keras.backend.backend(), thread_count(), config.floatx(), policy


def variable(shared: str, task: Any) -> str | None:
    return os.environ.get(shared)


def trained(shared: Any, task: int) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """The weights of a small network after training with that seed, and what it predicts."""
    import keras

    model, x, y = shared
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    keras.utils.set_random_seed(task)
    copy.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    copy.fit(x, y, batch_size=32, epochs=2, verbose=0)
    return copy.get_weights(), np.asarray(copy.predict(x[:50], verbose=0))


def on_a_node(shared: Path, task: int) -> tuple[int, str]:
    """Leave a file for each try, named after the node, and take a while."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    (shared / f"{task}-{node}").touch()
    time.sleep(5)
    return task * 10, node
