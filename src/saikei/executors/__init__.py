"""Executors: independent tasks in this process, in several, or on a cluster, with one result."""

from saikei.executors.base import Executor, TaskFailure
from saikei.executors.choose import executor_for
from saikei.executors.environment import thread_count
from saikei.executors.inline import Inline

__all__ = ["Executor", "Inline", "TaskFailure", "executor_for", "thread_count"]
