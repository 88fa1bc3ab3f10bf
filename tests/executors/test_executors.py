"""One contract for every executor."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from saikei.datasets import digits
from saikei.errors import DataError, InputError, WorkError
from saikei.executors import Executor, Inline, TaskFailure, executor_for
from saikei.executors.environment import thread_count
from tests.executors import tasks

RAY = pytest.param(
    "ray",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra"),
    ],
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Executor]:
    """A Ray cluster on this machine."""
    import ray

    yield executor_for(ray="local")
    ray.shutdown()


def made(name: str, request: pytest.FixtureRequest) -> Executor:
    if name == "ray":
        executor: Executor = request.getfixturevalue("cluster")
        return executor
    return executor_for(workers=int(name.removeprefix("processes-")) if "-" in name else None)


@pytest.fixture(params=["inline", "processes-2", RAY])
def executor(request: pytest.FixtureRequest) -> Executor:
    return made(request.param, request)


@pytest.fixture(params=["processes-2", RAY])
def elsewhere(request: pytest.FixtureRequest) -> Executor:
    """An executor whose tasks have processes of their own."""
    return made(request.param, request)


def ignored(index: int, result: Any) -> None:
    """For tasks that nobody waits for."""


class TestEveryExecutor:
    def test_results_are_in_task_order_and_each_is_reported_once(self, executor: Executor) -> None:
        reported: dict[int, float | TaskFailure] = {}

        def done(index: int, result: float | TaskFailure) -> None:
            assert index not in reported
            reported[index] = result

        assert executor.run(tasks.scaled, 2.0, [3.0, 1.0, 2.0], done) == [6.0, 2.0, 4.0]
        assert reported == {0: 6.0, 1: 2.0, 2: 4.0}

    def test_an_error_comes_back_and_the_others_finish(self, executor: Executor) -> None:
        results = executor.run(tasks.refused, 2.0, [0.0, 1.0, 2.0, 3.0, 4.0], ignored)
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
        assert memory.kind == "MemoryError"

    def test_an_error_that_cannot_be_pickled_comes_back(self, executor: Executor) -> None:
        (failure,) = executor.run(tasks.with_an_odd_error, None, [None], ignored)
        assert isinstance(failure, TaskFailure)
        assert failure.kind == "OddError"

    def test_what_the_callback_raises_ends_the_run(self, executor: Executor) -> None:
        def done(index: int, result: object) -> None:
            raise WorkError("full")

        with pytest.raises(WorkError, match="full"):
            executor.run(tasks.scaled, 2.0, [3.0, 1.0, 2.0], done)
        assert not multiprocessing.active_children()

    def test_no_task_is_no_result(self, executor: Executor) -> None:
        assert executor.run(tasks.scaled, 2.0, [], ignored) == []

    def test_large_arrays_arrive_whole(self, executor: Executor) -> None:
        rng = np.random.default_rng(0)
        shared, *parts = rng.normal(size=(3, 1_000_000))
        results = executor.run(tasks.summed, shared, parts, ignored)
        for part, result in zip(parts, results, strict=True):
            assert not isinstance(result, TaskFailure)
            np.testing.assert_array_equal(result, shared + part)

    @pytest.mark.slow
    def test_keras_is_set_as_in_this_process(self, executor: Executor) -> None:
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            (found,) = executor.run(tasks.settings, None, [None], ignored)
        finally:
            keras.config.set_dtype_policy(policy)
        assert not isinstance(found, TaskFailure), found
        assert found == (keras.backend.backend(), thread_count(), "float32", "mixed_bfloat16")


class TestProcessesOfTheirOwn:
    def test_each_task_has_its_own(self, elsewhere: Executor) -> None:
        found = elsewhere.run(tasks.process_of, None, [0, 1, 2], ignored)
        assert len(set(found)) == 3

    def test_no_process_takes_all_memory_of_a_gpu(self, elsewhere: Executor) -> None:
        found = elsewhere.run(tasks.variable, "TF_FORCE_GPU_ALLOW_GROWTH", [None], ignored)
        assert found == ["true"]

    def test_the_environment_here_stays_as_it_was(self, elsewhere: Executor) -> None:
        before = dict(os.environ)
        elsewhere.run(tasks.variable, "HOME", [None], ignored)
        assert dict(os.environ) == before

    def test_a_killed_task_is_run_again(self, elsewhere: Executor, tmp_path: Path) -> None:
        reported: list[int] = []
        results = elsewhere.run(
            tasks.killed, (tmp_path, 1), [0, 1, 2], lambda index, _: reported.append(index)
        )
        assert results == [0, 10, 20]
        assert sorted(reported) == [0, 1, 2]
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_task_that_always_dies_fails_and_the_others_finish(
        self, elsewhere: Executor, tmp_path: Path
    ) -> None:
        results = elsewhere.run(tasks.killed, (tmp_path, 100), [0, 1, 2], ignored)
        assert [results[0], results[2]] == [0, 20]
        failure = results[1]
        assert isinstance(failure, TaskFailure)
        assert failure.kind == "ProcessDied"
        assert "more memory than there is" in failure.reason
        assert len(list(tmp_path.iterdir())) == 3

    def test_a_result_that_cannot_be_sent_is_a_failure(self, elsewhere: Executor) -> None:
        (failure,) = elsewhere.run(tasks.with_an_odd_result, None, [None], ignored)
        assert isinstance(failure, TaskFailure)
        assert "lambda" in failure.reason

    def test_what_cannot_be_sent_is_refused(self, elsewhere: Executor) -> None:
        with pytest.raises(InputError, match="cannot be sent"):
            elsewhere.run(tasks.scaled, threading.Lock(), [1], ignored)

    def test_what_a_task_prints_is_not_in_the_standard_output(
        self, elsewhere: Executor, capfd: pytest.CaptureFixture[str]
    ) -> None:
        elsewhere.run(tasks.printing, None, [None], ignored)
        assert capfd.readouterr().out == ""


SEEDS = [1, 2]


@pytest.fixture(scope="module")
def training() -> tuple[Any, ...]:
    """A small network and data; dropout and the order of rows depend on the seed."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, activation="relu", name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dropout(0.3, seed=1, name="dropout"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="network",
    )
    x, y = digits(0).train
    return model, x[:300], y[:300]


@pytest.fixture(scope="module")
def expected(training: tuple[Any, ...]) -> list[Any]:
    return Inline().run(tasks.trained, training, SEEDS, ignored)


@pytest.mark.backends
@pytest.mark.parametrize(
    "name",
    [*(pytest.param(f"processes-{n}", marks=pytest.mark.slow) for n in (1, 2, 4)), RAY],
)
def test_training_gives_the_same_bits_everywhere(
    name: str, request: pytest.FixtureRequest, training: tuple[Any, ...], expected: list[Any]
) -> None:
    results = made(name, request).run(tasks.trained, training, SEEDS, ignored)
    for result, (weights, outputs) in zip(results, expected, strict=True):
        assert not isinstance(result, TaskFailure), result
        assert [array.tobytes() for array in result[0]] == [array.tobytes() for array in weights]
        assert result[1].tobytes() == outputs.tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers=0: "),
        ({"workers": 2.5}, "workers=2.5: "),
        ({"workers": 2, "ray": "auto"}, "exclude each other: give one"),
    ],
)
def test_what_makes_no_executor_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        executor_for(**arguments)


def test_without_ray_the_error_names_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saikei.executors.ray.ray", None)
    with pytest.raises(InputError, match=r"not installed: pip install 'saikei\[ray\]'"):
        executor_for(ray="auto")


SCRIPT = """
from saikei.executors import executor_for
from tests.executors import tasks
executor_for(workers=2).run(tasks.scaled, 1.0, [1.0, 2.0], lambda *_: None)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_ends_with_what_to_do(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = [str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")]
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 1
    assert "under if __name__ == '__main__':" in ended.stderr.splitlines()[-1]
