"""KerasHub's models: what is cut from one is one again, with a smaller config."""

from saikei.hub.family import Family, as_family, built_as, family_of
from saikei.hub.generating import as_generator
from saikei.hub.result import TaskResult, as_task
from saikei.hub.task_data import runs_tasks, task_data, without_preprocessor

__all__ = [
    "Family",
    "TaskResult",
    "as_family",
    "as_generator",
    "as_task",
    "built_as",
    "family_of",
    "runs_tasks",
    "task_data",
    "without_preprocessor",
]
