"""Train, distil and score Keras models."""

from saikei.training.class_weights import weigh_classes
from saikei.training.cross_fit import CrossFit, cross_fit
from saikei.training.distill import distill
from saikei.training.evaluation import evaluate
from saikei.training.fit import fit
from saikei.training.predictions import predict
from saikei.training.provenance import (
    check_held_out,
    declare_training_rows,
    inherit_rows,
    is_in_sample,
)
from saikei.training.score import (
    Score,
    paired_difference,
    per_sample,
    sample_losses,
    score_predictions,
)
from saikei.training.stored_teacher import StoredTeacher
from saikei.training.task import Task, infer_task, infer_tasks

__all__ = [
    "CrossFit",
    "Score",
    "StoredTeacher",
    "Task",
    "check_held_out",
    "cross_fit",
    "declare_training_rows",
    "distill",
    "evaluate",
    "fit",
    "infer_task",
    "infer_tasks",
    "inherit_rows",
    "is_in_sample",
    "paired_difference",
    "per_sample",
    "predict",
    "sample_losses",
    "score_predictions",
    "weigh_classes",
]
