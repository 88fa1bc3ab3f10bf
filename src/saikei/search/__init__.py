"""The search: edit, train and fuse models within one budget, and choose the best."""

from saikei.runs import Candidate, Run
from saikei.search.events import Event
from saikei.search.in_steps import cut_in_steps
from saikei.search.listeners import json_lines, mlflow, tensorboard
from saikei.search.optimize import optimize
from saikei.search.result import Front, Result

__all__ = [
    "Candidate",
    "Event",
    "Front",
    "Result",
    "Run",
    "cut_in_steps",
    "json_lines",
    "mlflow",
    "optimize",
    "tensorboard",
]
