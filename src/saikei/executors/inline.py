"""Run tasks one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from saikei.executors.base import Result, Shared, Task, TaskFailure, attempt
from saikei.executors.environment import thread_count


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
        # As many threads as other processes would take, since their number changes the results.
        with threadpool_limits(thread_count(), user_api="blas"):
            for index, task in enumerate(tasks):
                results.append(attempt(function, shared, task))
                done(index, results[-1])
        return results
