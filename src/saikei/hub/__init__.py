"""KerasHub's models: what is cut from one is one again, with a smaller config."""

from saikei.hub.family import Family, as_family, as_family_or_plain, as_one_of, family_of
from saikei.hub.generating import as_generator
from saikei.hub.task_data import runs_tasks, task_data, without_preprocessor

__all__ = [
    "Family",
    "as_family",
    "as_family_or_plain",
    "as_generator",
    "as_one_of",
    "family_of",
    "runs_tasks",
    "task_data",
    "without_preprocessor",
]
