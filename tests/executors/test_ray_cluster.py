"""A cluster of two nodes loses one, and the tasks are finished by the other."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from saikei.errors import InputError, WorkError
from saikei.executors import TaskFailure, executor_for
from tests.executors import tasks

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

PATIENCE = 120


def once_it_works(folder: Path, node_id: str) -> None:
    end = time.monotonic() + PATIENCE
    while not any(path.name.endswith(node_id) for path in folder.iterdir()):
        assert time.monotonic() < end, "no task began on the second node"
        time.sleep(0.1)


def test_the_tasks_of_a_lost_node_are_run_again(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost = cluster.add_node(num_cpus=1)
    try:
        executor = executor_for(ray=cluster.address)

        def lose() -> None:
            once_it_works(tmp_path, lost.node_id)
            cluster.remove_node(lost, allow_graceful=False)

        thread = threading.Thread(target=lose)
        thread.start()
        reported: list[int] = []
        results = executor.run(
            tasks.on_a_node, tmp_path, [1, 2, 3, 4], lambda index, _: reported.append(index)
        )
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not any(isinstance(result, TaskFailure) for result in results), results
    assert [result[0] for result in results] == [10, 20, 30, 40]  # type: ignore[index]
    assert sorted(reported) == [0, 1, 2, 3]
    begun = [path.name.split("-") for path in tmp_path.iterdir()]
    again = {task for task, node in begun if node == lost.node_id}
    assert again & {task for task, node in begun if node != lost.node_id}


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_one_line(address: str) -> None:
    with pytest.raises(InputError, match=f"ray='{address}' .* 'ray start --head'") as refused:
        executor_for(ray=address).run(tasks.scaled, 1.0, [1.0], lambda *_: None)
    assert "\n" not in str(refused.value)


def test_a_node_with_other_versions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from saikei.executors import ray as module
    from saikei.executors.environment import Driver

    monkeypatch.setattr(module, "this_driver", lambda: Driver({}, {"keras": "0.1"}))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(WorkError, match=r"has keras .* instead of 0\.1"):
            executor_for(ray="local").run(tasks.scaled, 1.0, [1.0], lambda *_: None)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        ray.shutdown()
