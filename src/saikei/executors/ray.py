"""Run each task in a process of its own on a Ray cluster."""

from __future__ import annotations

import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from saikei.errors import InputError, WorkError, in_one_line
from saikei.executors.base import Attempts, Result, Shared, Task, TaskFailure, died, rounds
from saikei.executors.environment import Driver, environment, this_driver, thread_count
from saikei.executors.worker import work_on_node

try:
    import ray
except ImportError:
    ray = None

# How long a cluster may take to answer.
_SECONDS = 10


@dataclass(frozen=True)
class Ray:
    """An executor that runs each task as a Ray task, in a new process on any node.

    A task takes as many CPUs as the backend has threads here, and a GPU if the cluster has some.

    Args:
        address: Address of the cluster, such as `"10.0.0.1:6379"`; `"auto"` for the one that this
            machine belongs to; `"local"` starts one on this machine that ends with this process.
    """

    address: str = "auto"

    def __post_init__(self) -> None:
        if ray is None:
            raise InputError(
                f"ray='{self.address}' needs the package Ray, which is not installed: "
                "pip install 'saikei[ray]'."
            )

    def run(
        self,
        function: Callable[[Shared, Task], Result],
        shared: Shared,
        tasks: Sequence[Task],
        done: Callable[[int, Result | TaskFailure], None],
    ) -> list[Result | TaskFailure]:
        """The results of all tasks; see `Executor.run`.

        Raises:
            InputError: If there is no such cluster, or a value cannot be sent to it.
            WorkError: If Ray cannot run a task, or a node has other versions of the packages.
        """
        self._connect()
        sent = _sent((function, shared))
        remote = ray.remote(max_calls=1, max_retries=0, **_resources())(work_on_node)
        driver = this_driver()

        def attempts(indices: Sequence[int], alone: bool) -> Attempts:
            for group in [[index] for index in indices] if alone else [indices]:
                yield from _attempts(remote, driver, sent, tasks, group)

        return rounds(attempts, len(tasks), done)

    def _connect(self) -> None:
        """Connect to the cluster, unless this process is connected to one."""
        if ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address == "local":
            quiet["include_dashboard"] = False
        try:
            _check_port(self.address)
            with _own_handler():
                ray.init(address=self.address, **quiet)
        # The part of Ray that notices decides what is raised.
        except Exception as error:
            raise InputError(
                f"ray='{self.address}' is not a cluster that can be reached "
                f"({in_one_line(error)}): start one with 'ray start --head', or give the address "
                "that it printed, with the RAY_AUTH_MODE that it was started with."
            ) from error


def _check_port(address: str) -> None:
    """Refuse an address where nobody answers: Ray itself would try for minutes.

    Raises:
        OSError: With the reason of the system.
    """
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()


@contextmanager
def _own_handler() -> Iterator[None]:
    """Keep this process's way of ending on SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _resources() -> dict[str, Any]:
    """What one task needs of a node."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    smallest = min((count for count in nodes if count), default=1)
    return {
        "num_cpus": min(thread_count(), smallest),
        "num_gpus": 1 if ray.cluster_resources().get("GPU", 0) else 0,
        "runtime_env": {"env_vars": dict(environment())},
    }


def _sent(value: Any) -> list[Any]:
    """A value in the object store; in a list, so that the process opens it when it is ready to.

    Raises:
        InputError: If it cannot be pickled.
    """
    try:
        return [ray.put(value)]
    # The classes of the value decide what is raised.
    except Exception as error:
        raise InputError(
            f"Something cannot be sent to the cluster ({in_one_line(error)}): give data as "
            "arrays, define functions and classes in a module, or leave ray= out."
        ) from error


def _attempts(
    remote: Any, driver: Driver, shared: Any, tasks: Sequence[Any], indices: Sequence[int]
) -> Attempts:
    """Each index with its result, in the order in which they are finished."""
    indices_of = {remote.remote(driver, shared, _sent(tasks[index])): index for index in indices}
    try:
        while indices_of:
            finished, _ = ray.wait(list(indices_of), num_returns=1)
            index = indices_of.pop(finished[0])
            yield index, _result(finished[0])
    finally:
        for reference in indices_of:
            ray.cancel(reference, force=True)


def _result(reference: Any) -> Any:
    # What Ray raises when a process or a node ends before its result has arrived.
    ended = (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.OutOfMemoryError,
    )
    try:
        return pickle.loads(ray.get(reference))
    except ended as error:
        return died(f"ended on the cluster ({in_one_line(error)})")
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, WorkError):
            raise cause from None
        raise WorkError(
            f"Ray cannot run a task ({in_one_line(cause)}): install the same packages on every "
            "node."
        ) from error
