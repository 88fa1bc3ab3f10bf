"""Run each task in a new process of this machine."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import pickle
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import IO, Any

from saikei.errors import InputError, WorkError, in_one_line
from saikei.executors.base import Attempts, Result, Shared, Task, TaskFailure, died, rounds
from saikei.executors.environment import Driver, environment, this_driver
from saikei.executors.worker import work_in_child
from saikei.limits import check_whole
from saikei.writing import refused_by_disk

# Seconds that a process may take to exit after its result has arrived.
_PATIENCE = 10


@dataclass(frozen=True)
class Processes:
    """An executor that runs each task in a process of its own.

    Python starts each process anew, so a script that uses it needs the guard
    `if __name__ == "__main__":`.

    Args:
        workers: Number of processes that run at once; it has no influence on the results.
    """

    workers: int

    def __post_init__(self) -> None:
        check_whole("workers", self.workers, kind=InputError)

    def run(
        self,
        function: Callable[[Shared, Task], Result],
        shared: Shared,
        tasks: Sequence[Task],
        done: Callable[[int, Result | TaskFailure], None],
    ) -> list[Result | TaskFailure]:
        """The results of all tasks; see `Executor.run`.

        Raises:
            InputError: If the function or a value cannot be sent to another process.
            WorkError: If a process cannot start.
            DiskError: If there is no room for `shared` in the folder for temporary files.
        """
        with tempfile.TemporaryDirectory(prefix="saikei-") as folder:
            path = Path(folder) / "shared"
            with refused_by_disk(path), path.open("wb") as file:
                _pickle((function, shared), file)

            start = functools.partial(_Child.start, this_driver(), path)

            def attempts(indices: Sequence[int], alone: bool) -> Attempts:
                return _attempts(start, tasks, indices, 1 if alone else self.workers)

            return rounds(attempts, len(tasks), done)


def _pickle(value: object, file: IO[bytes]) -> None:
    try:
        pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
    except OSError:
        raise
    # The classes of the value decide what is raised.
    except Exception as error:
        raise InputError(
            f"Something cannot be sent to another process ({in_one_line(error)}): give data as "
            "arrays, define functions and classes in a module, or leave workers= out."
        ) from error


def _attempts(
    start: Callable[[int, Any], _Child], tasks: Sequence[Any], indices: Sequence[int], workers: int
) -> Attempts:
    """Each index with its result, in the order in which they are finished."""
    waiting = deque(indices)
    children: list[_Child] = []
    try:
        while waiting or children:
            while waiting and len(children) < workers:
                index = waiting.popleft()
                children.append(start(index, tasks[index]))
            ready = wait([end for child in children for end in child.ends])
            for child in [child for child in children if not {*child.ends}.isdisjoint(ready)]:
                result = child.result()
                children.remove(child)
                yield child.index, result
    finally:
        for child in children:
            child.process.kill()
        for child in children:
            child.process.join()


@dataclass(frozen=True)
class _Child:
    """A process that runs one task.

    Args:
        index: Index of the task.
        process: The process.
        connection: Where its result arrives.
    """

    index: int
    process: SpawnProcess
    connection: Connection

    @classmethod
    def start(cls, driver: Driver, shared: Path, index: int, task: object) -> _Child:
        pickled = io.BytesIO()
        _pickle(task, pickled)
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe(duplex=False)
        arguments = driver, shared, pickled.getvalue(), theirs
        process = context.Process(target=work_in_child, args=arguments, daemon=True)
        with _environment(environment()), _without_interrupts():
            process.start()
        # Otherwise reading would wait for ever when the process dies.
        theirs.close()
        return cls(index, process, connection)

    @property
    def ends(self) -> tuple[Any, int]:
        """What becomes ready when there is a result, and when the process has ended."""
        return self.connection, self.process.sentinel

    def result(self) -> Any:
        """The result, or the exit code's `TaskFailure`.

        Raises:
            WorkError: If the process could not start.
        """
        try:
            pickled = self.connection.recv_bytes()
        except (EOFError, OSError):
            self.process.join()
            return died(self._how_it_ended())
        finally:
            self.connection.close()
        self.process.join(_PATIENCE)
        self.process.kill()
        self.process.join()
        return pickle.loads(pickled)

    def _how_it_ended(self) -> str:
        code = self.process.exitcode or 0
        if code > 0:
            raise WorkError(
                f"A process of workers= could not start (exit code {code}, its error is above): "
                "in a script, make the call under if __name__ == '__main__':, and define custom "
                "classes above it."
            )
        return f"was ended by {signal.Signals(-code).name}" if code else "ended"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, for processes that are started in the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C in processes that are started in the block: this process ends them.

    Here it is raised after the block.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
