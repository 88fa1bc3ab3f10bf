"""What an executor is: it runs independent tasks and gives their results in task order."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from saikei.errors import SaikeiError, WorkError, in_one_line

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")

# Class names in Python, TensorFlow and torch; JAX only writes it into the message.
_OUT_OF_MEMORY = ("MemoryError", "ResourceExhaustedError", "OutOfMemoryError")
_OUT_OF_MEMORY_TEXT = "RESOURCE_EXHAUSTED"

# The class of a `TaskFailure` without an exception.
DIED = "ProcessDied"


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

    @property
    def out_of_memory(self) -> bool:
        """Whether the task asked for more memory than there was, and could catch it."""
        return self.kind in _OUT_OF_MEMORY or _OUT_OF_MEMORY_TEXT in str(self.error)


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
