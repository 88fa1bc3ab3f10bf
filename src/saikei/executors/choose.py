"""The executor for the arguments of a search."""

from __future__ import annotations

from saikei.errors import InputError
from saikei.executors.base import Executor
from saikei.executors.inline import Inline


def executor_for(workers: int | None = None, ray: str | None = None) -> Executor:
    """The executor for what a user asked for.

    Args:
        workers: Number of processes on this machine; `None` runs everything in this process.
        ray: Address of a Ray cluster, `"auto"` or `"local"`; `None` uses no cluster.

    Raises:
        InputError: If both are given, there are no workers, or Ray is not installed.
    """
    if workers is not None and ray is not None:
        raise InputError(f"workers={workers} and ray='{ray}' exclude each other: give one.")
    # Imported here: Ray is an extra, and processes that run one task need neither.
    if ray is not None:
        from saikei.executors.ray import Ray

        return Ray(ray)
    if workers is not None:
        from saikei.executors.processes import Processes

        return Processes(workers)
    return Inline()
