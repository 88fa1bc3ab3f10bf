"""Run tasks one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from saikei.executors.base import Result, Shared, Task, TaskFailure, attempt


@dataclass(frozen=True)
class Inline:
    """An executor that starts no other process."""

    def run(
        self,
        function: Callable[[Shared, Task], Result],
        shared: Shared,
        tasks: Sequence[Task],
        done: Callable[[int, Result | TaskFailure], None],
    ) -> list[Result | TaskFailure]:
        """The results of all tasks; see `Executor.run`."""
        results: list[Result | TaskFailure] = []
        for index, task in enumerate(tasks):
            results.append(attempt(function, shared, task))
            done(index, results[-1])
        return results
