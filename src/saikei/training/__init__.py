"""Train, distil and score Keras models."""

from saikei.training.distill import distill
from saikei.training.fit import fit
from saikei.training.predictions import predict
from saikei.training.score import (
    Score,
    evaluate,
    paired_difference,
    per_sample,
    sample_losses,
    score_predictions,
)
from saikei.training.task import Task, infer_task, infer_tasks

__all__ = [
    "Score",
    "Task",
    "distill",
    "evaluate",
    "fit",
    "infer_task",
    "infer_tasks",
    "paired_difference",
    "per_sample",
    "predict",
    "sample_losses",
    "score_predictions",
]
