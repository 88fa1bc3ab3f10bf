"""The members of a boosted series, the data they are trained on, and the model of their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from saikei.batches import Array, ArrayData, predict_arrays
from saikei.fusion.masks import called_with_masks, with_mask
from saikei.fusion.members import Members, new_inputs
from saikei.scoring.labelled import Labelled
from saikei.scoring.labels import Labels
from saikei.scoring.task import Task
from saikei.training import fit

Term = Callable[[Any, float, int], Any]


@dataclass(frozen=True)
class TrainingData:
    """Data in memory, with the labels of its one output.

    Args:
        data: Inputs, labels and sample weights, as `fit` takes them.
        labelled: The labels, with what counts of them.
    """

    data: ArrayData
    labelled: Labelled

    def __len__(self) -> int:
        return len(self.labelled)

    @property
    def x(self) -> Any:
        """The inputs, nested as the members'."""
        return self.data.x

    @property
    def task(self) -> Task:
        """What the output learns."""
        return self.labelled.tasks[0]

    @property
    def labels(self) -> Labels:
        """The labels of the output."""
        return self.labelled.labels[0]

    def loss(self, scores: Array) -> float:
        """The mean log-loss or squared error of a sum before the last activation."""
        return self.labelled.as_logits().loss([scores]) / self.labels.scale

    def to_fit(self, x: Any, weights: Array | None = None) -> tuple[Any, ...]:
        """The arguments `(x, y)` or `(x, y, sample_weight)` for `fit`.

        Args:
            x: Inputs of the model that is fitted.
            weights: Sample weights instead of the data's own, `(n,)`; they are scaled to mean 1.
        """
        weights = self.data.weights if weights is None else weights
        if weights is None:
            return x, self.data.y
        return x, self.data.y, (weights / weights.mean()).astype("float32")


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of each member's training.

    Args:
        activation: `"softmax"`, `"sigmoid"` or `"linear"`: applied to the sum.
        epochs: Passes over the data.
        batch_size: Samples a step.
        learning_rate: Peak of the learning rate.
        shrinkage: Factor of the best step.
    """

    activation: str
    epochs: int
    batch_size: int
    learning_rate: float
    shrinkage: float

    def train(self, model: keras.Model, data: tuple[Any, ...], loss: Any, seed: int) -> None:
        """Train a model.

        Args:
            model: The model; its weights change.
            data: `(x, y)` or `(x, y, sample_weight)` arrays.
            loss: The loss, as Keras's `compile` takes it.
            seed: Seed of the order of rows and of random layers.
        """
        fit(
            model,
            data,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            loss=loss,
            seed=seed,
            progress=False,
        )


@dataclass(frozen=True)
class Part:
    """A member of the sum.

    Args:
        model: The model of the term of the sum, or of the scores that a vote is made of.
        step: Factor of the term.
        loss: Training loss of the sum up to this member.
        validation_loss: The same on validation data; `None` without any.
        error: The share of the weighted rows that it gets wrong; `None` for gradient boosting.
    """

    model: keras.Model
    step: float
    loss: float
    validation_loss: float | None
    error: float | None = None


def predicted(model: keras.Model, x: Any) -> Array:
    """The predictions of a model with one output, float64 `(n, …)`."""
    (scores,) = tree.flatten(predict_arrays(model, x, 256))
    return np.asarray(scores, dtype=np.float64)


def sum_model(
    members: Members, parts: Sequence[Part], activation: str, term: Term | None = None
) -> keras.Model:
    """One model that gives the sum of the parts.

    Args:
        members: The given members, whose inputs and outputs the sum has.
        parts: The members, at least one.
        activation: The function that is applied to the sum; `"linear"` for none.
        term: Function from a member's output, its step and its number (from 1) to a term of the
            sum; `None` for the output times the step.
    """
    inputs = new_inputs(members.graphs[0])
    terms = []
    for number, part in enumerate(parts, start=1):
        (output,) = called_with_masks(part.model, inputs)
        scaled = (term or _scaled)(output, part.step, number)
        terms.append(with_mask(scaled, [output], f"step_{number}_masked"))
    total = keras.layers.Add(name="sum")(terms)
    if activation != "linear":
        total = keras.layers.Activation(activation, name=activation)(total)
    return members.compile(keras.Model(inputs, members.outputs[0].pack([total]), name="boost"))


def _scaled(output: Any, step: float, number: int) -> Any:
    if step == 1.0:
        return output
    return keras.layers.Rescaling(step, name=f"step_{number}")(output)


def vote_term(task: Task) -> Term:
    """SAMME's term: a vote of weight α for the most likely class.

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
