"""What an executor is: it runs independent tasks and gives their results in task order."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from saikei.errors import SaikeiError, WorkError, in_one_line

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")

# The index of each task and its result, in the order in which they are finished.
Attempts: TypeAlias = Generator[tuple[int, Any], None, None]

# The kind of a `TaskFailure` without an exception.
DIED = "ProcessDied"

# How often a task is tried whose process dies. The last time it runs alone: it may have needed the
# memory that others took.
_TRIES = 3


@dataclass(frozen=True)
class TaskFailure:
    """A task that gave no result.

    Args:
        error: The error, ready to be raised: the `SaikeiError` of the task, or a `WorkError` with
            the class and the message of another exception on one line.
        kind: Name of the class that the task raised; `"ProcessDied"` if its process ended without
            a result, each time that it was tried.
        trace: The traceback as text; empty if there is none.
    """

    error: SaikeiError
    kind: str = ""
    trace: str = ""

    @property
    def reason(self) -> str:
        """Why there is no result, on one line."""
        return in_one_line(self.error)


class Executor(Protocol):
    """Runs a function on many tasks, here or elsewhere, and always with the same results."""

    def run(
        self,
        function: Callable[[Shared, Task], Result],
        shared: Shared,
        tasks: Sequence[Task],
        done: Callable[[int, Result | TaskFailure], None],
    ) -> list[Result | TaskFailure]:
        """The results of all tasks.

        A task must depend on `shared` and its own value alone: seeds are part of it, layers are
        named, and nothing that is shared is changed. It may run more than once, since it is run
        again when its process dies.

        Args:
            function: A function of a module that can be imported. It gets `shared` and one task.
            shared: What all tasks need, such as models and data; it is sent once.
            tasks: One picklable value for each call.
            done: Called in this process as soon as a task is finished, with its index and result;
                what it raises ends the run of all tasks.

        Returns:
            The result or the failure of each task, in the order of `tasks`.

        Raises:
            KeyboardInterrupt: After every process that was started has ended.
        """
        ...


def attempt(
    function: Callable[[Shared, Task], Result], shared: Shared, task: Task
) -> Result | TaskFailure:
    """The result of one task; what it raises comes back as a `TaskFailure`.

    Args:
        function: The function to call.
        shared: Its first argument.
        task: Its second argument.
    """
    try:
        return function(shared, task)
    except SaikeiError as error:
        return TaskFailure(error, type(error).__name__, traceback.format_exc())
    # A bug in one task must not lose the results of the others.
    except Exception as error:  # noqa: BLE001
        kind = type(error).__name__
        failure = WorkError(f"{kind}: {in_one_line(error)}.")
        return TaskFailure(failure, kind, traceback.format_exc())


def died(how: str) -> TaskFailure:
    """The failure of a task whose process ended without a result.

    Args:
        how: End of a sentence about the process, such as `"was ended by SIGKILL"`.
    """
    return TaskFailure(
        WorkError(f"The process of the task {how}: it may have needed more memory than there is."),
        DIED,
    )


def rounds(
    attempts: Callable[[Sequence[int], bool], Attempts],
    count: int,
    done: Callable[[int, Any], None],
) -> list[Any]:
    """The results of tasks, of which those whose process dies are tried again.

    Args:
        attempts: Runs the tasks with the given indices, one after the other if the second argument
            is true. It ends their processes when it is closed.
        count: Number of tasks.
        done: Called with the index and the result of each task that is not tried again.
    """
    results: dict[int, Any] = {}
    for tries in range(1, _TRIES + 1):
        last = tries == _TRIES
        waiting = [index for index in range(count) if index not in results]
        with closing(attempts(waiting, last)) as finished:
            for index, result in finished:
                if last or not (isinstance(result, TaskFailure) and result.kind == DIED):
                    results[index] = result
                    done(index, result)
    return [results[index] for index in range(count)]
