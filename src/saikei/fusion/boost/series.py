"""The members of a boosted series, the data they are trained on, and the model of their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from saikei.batches import Array, for_keras
from saikei.fusion.members import new_inputs
from saikei.graph import read
from saikei.scoring.counted import Labels
from saikei.scoring.outputs import read_outputs
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


Term = Callable[[Any, float, int], Any]


def summed(
    first: keras.Model, parts: Sequence[Part], activation: str, term: Term | None = None
) -> keras.Model:
    """One model that gives the sum of what the parts say.

    Args:
        first: whose inputs and outputs the model has.
        parts: the members, at least one.
        activation: what the sum goes through; `"linear"` for nothing.
        term: from a member's output, its step and its number, what is summed; `None` for the
            output times the step.
    """
    inputs = new_inputs(read(first))
    terms = []
    for number, part in enumerate(parts, start=1):
        (output,) = keras.tree.flatten(part.model(inputs))
        terms.append((term or scaled)(output, part.step, number))
    total = keras.layers.Add(name="sum")(terms)
    if activation != "linear":
        total = keras.layers.Activation(activation, name=activation)(total)
    return keras.Model(inputs, read_outputs(first).pack([total]), name="boost")


def scaled(output: Any, step: float, number: int) -> Any:
    """An output times a step."""
    if step == 1.0:
        return output
    return keras.layers.Rescaling(step, name=f"step_{number}")(output)


def voting(task: Task) -> Term:
    """SAMME's term: a vote of weight α for the class that is most likely.

    The sum of the votes is logits: AdaBoost's estimate of the probabilities is their softmax, and
    with one output, where no is -α and yes is α, their sigmoid.
    """

    def vote(output: Any, step: float, number: int) -> Any:
        name = f"step_{number}"
        if task.kind == "multiclass":
            # Keras's argmax takes bits apart for signed zeros, which LiteRT's kernels cannot do.
            most = ops.top_k(output, 1)[1][..., 0]
            chosen = ops.one_hot(most, output.shape[-1])
            return keras.layers.Rescaling(step, name=name)(chosen)
        yes = ops.cast(ops.greater(output, 0.0 if task.from_logits else 0.5), "float32")
        return keras.layers.Rescaling(2 * step, -step, name=name)(yes)

    return vote
