"""What the rounds of boosting work on and leave behind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, for_keras
from saikei.scoring.counted import Labels
from saikei.scoring.score import sample_losses
from saikei.scoring.task import Task


@dataclass(frozen=True)
class Labelled:
    """Data in memory.

    Args:
        x: nested as the members' inputs.
        labels: of the one output, with what counts of them.
        task: what the output learns.
        y: the same as the data has them.
        weights: sample weights as the data has them; `None` without any.
    """

    x: Any
    labels: Labels
    task: Task
    y: Array
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def loss(self, scores: Array) -> float:
        """Mean log-loss or squared error of what a sum says before the last activation."""
        task = self.task
        if task.kind != "regression":
            task = replace(task, from_logits=True)
        return float(sample_losses(task, self.labels, scores).mean() / self.labels.scale)

    def to_fit(self, x: Any, weights: Array | None = None) -> tuple[Any, ...]:
        """What `fit` takes.

        Args:
            x: inputs of the model that is fitted.
            weights: instead of these; whatever their sum, the mean becomes 1.
        """
        weights = self.weights if weights is None else weights
        if weights is None:
            return x, self.y
        return x, self.y, (weights / weights.mean()).astype("float32")


@dataclass(frozen=True)
class Settings:
    """How members are trained.

    Args:
        activation: `"softmax"`, `"sigmoid"` or `"linear"`: what the sum goes through.
        epochs: passes over the data.
        batch_size: samples a step.
        learning_rate: at its peak.
        shrinkage: by what the best step is multiplied.
    """

    activation: str
    epochs: int
    batch_size: int
    learning_rate: float
    shrinkage: float


@dataclass(frozen=True)
class Part:
    """A member of the sum.

    Args:
        model: gives what is summed, or what votes are made of.
        step: by what that is multiplied.
        loss: of the sum up to here, on the training data.
        validation_loss: likewise on the validation data, if there is any.
        error: the share of the rows, as they were weighted for it, that it gets wrong; `None`
            for gradient boosting.
    """

    model: keras.Model
    step: float
    loss: float
    validation_loss: float | None
    error: float | None = None


def predicted(model: keras.Model, x: Any) -> Array:
    """What a model with one output says, float64 `(n, …)`."""
    (scores,) = tree.flatten(model.predict(for_keras(x), batch_size=256, verbose=0))
    return np.asarray(scores, dtype=np.float64)
