"""One contract for every executor."""

from __future__ import annotations

import pytest

from saikei.errors import DataError, WorkError
from saikei.executors import Executor, Inline, TaskFailure
from tests.executors import tasks


@pytest.fixture(params=["inline"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return Inline()


class TestExecutors:
    def test_results_are_in_task_order_and_each_is_reported_once(self, executor: Executor) -> None:
        reported: dict[int, float | TaskFailure] = {}

        def done(index: int, result: float | TaskFailure) -> None:
            assert index not in reported
            reported[index] = result

        assert executor.run(tasks.scaled, 2.0, [3.0, 1.0, 2.0], done) == [6.0, 2.0, 4.0]
        assert reported == {0: 6.0, 1: 2.0, 2: 4.0}

    def test_an_error_comes_back_and_the_others_finish(self, executor: Executor) -> None:
        results = executor.run(tasks.refused, 2.0, [0.0, 1.0, 2.0, 3.0, 4.0], lambda *_: None)
        assert [results[0], results[4]] == [0.0, 8.0]
        known, bug, memory = results[1:4]
        assert isinstance(known, TaskFailure)
        assert isinstance(known.error, DataError)
        assert (known.kind, str(known.error)) == ("DataError", "Row 1 is empty: delete it.")
        assert isinstance(bug, TaskFailure)
        assert isinstance(bug.error, WorkError)
        assert (bug.kind, bug.reason) == ("ZeroDivisionError", "ZeroDivisionError: a b")
        assert "in refused" in bug.trace
        assert isinstance(memory, TaskFailure)
        assert memory.out_of_memory and not bug.out_of_memory and not known.out_of_memory

    def test_an_error_that_cannot_be_pickled_comes_back(self, executor: Executor) -> None:
        (failure,) = executor.run(tasks.with_an_odd_error, None, [None], lambda *_: None)
        assert isinstance(failure, TaskFailure)
        assert failure.kind == "OddError"

    def test_what_the_callback_raises_ends_the_run(self, executor: Executor) -> None:
        def done(index: int, result: object) -> None:
            raise WorkError("full")

        with pytest.raises(WorkError, match="full"):
            executor.run(tasks.scaled, 2.0, [3.0, 1.0], done)

    def test_no_task_is_no_result(self, executor: Executor) -> None:
        assert executor.run(tasks.scaled, 2.0, [], lambda *_: None) == []
