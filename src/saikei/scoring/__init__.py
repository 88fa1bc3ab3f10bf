"""What the outputs of a model mean, and how good they are."""

from saikei.scoring.class_weights import weigh_classes
from saikei.scoring.evaluation import evaluate
from saikei.scoring.inference import infer_task, infer_tasks
from saikei.scoring.predictions import predict
from saikei.scoring.score import (
    Score,
    per_sample,
    sample_losses,
    score_predictions,
)
from saikei.scoring.task import Task
from saikei.scoring.temperature import Temperature

__all__ = [
    "Score",
    "Task",
    "Temperature",
    "evaluate",
    "infer_task",
    "infer_tasks",
    "per_sample",
    "predict",
    "sample_losses",
    "score_predictions",
    "weigh_classes",
]
