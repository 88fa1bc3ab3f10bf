"""The distance between outputs or features of a teacher and of a student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from saikei.batches import Array, as_numpy
from saikei.distilling.features import Feature, Pair
from saikei.distilling.top_k import TopK
from saikei.distilling.weighing import Weighing
from saikei.errors import DataError
from saikei.scoring.links import link_of, logits_of
from saikei.scoring.outputs import read_outputs
from saikei.scoring.task import Task

_RIDGE = 1e-3
_MOST_ROWS = 32768


class SoftTargets(keras.distillation.DistillationLoss):
    """Temperature-scaled distance for class outputs, the task's own loss for regression.

    Outputs that are probabilities are turned into logits first (log p are logits up to a
    constant, which softmax ignores), and the probability of a yes into the pair of logits of no
    and yes. So one loss, `T² · KL(softmax(teacher / T) ‖ softmax(student / T))`, serves binary,
    multiclass and
    multilabel outputs; it is a mean over the batch and over labels, as the supervised loss is.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        tasks: The tasks of the student, one for each output, flattened.
        teacher_tasks: The tasks of the teacher; they may differ in `from_logits`.
        temperature: T; higher is softer.
        top_k: That the teacher gives the likeliest classes alone, as two tensors for each output;
            `None` for whole outputs.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        teacher_tasks: Sequence[Task],
        temperature: float,
        top_k: TopK | None = None,
    ) -> None:
        self._tasks = tuple(zip(teacher_tasks, tasks, strict=True))
        self._temperature = float(temperature)
        self._top_k = top_k
        self.weighing = Weighing()

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """The sum over outputs, a scalar."""
        theirs: list[Any] = tree.flatten(teacher_outputs)
        if self._top_k is not None:
            theirs = list(zip(theirs[::2], theirs[1::2], strict=True))
        losses = [
            self._distance(output, tasks, teacher, student)
            for output, (tasks, teacher, student) in enumerate(
                zip(
                    self._tasks,
                    theirs,
                    tree.flatten(student_outputs),
                    strict=True,
                )
            )
        ]
        return ops.sum(ops.stack(losses))

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Nothing to do: shapes were compared, with clear messages, before training."""

    def _distance(self, output: int, tasks: tuple[Task, Task], teacher: Any, student: Any) -> Any:
        theirs, ours = tasks
        if self._top_k is not None:
            log_p, numbers = teacher
            logits = class_logits(ours, student)
            each = self._top_k.divergence(output, log_p, numbers, logits, self._temperature)
            return self.weighing.mean(output, each, student) * self._temperature**2
        teacher = ops.stop_gradient(teacher)
        if ours.kind == "regression":
            return ops.mean(self.weighing.loss(output, ours.loss)(teacher, student))
        p, q = (
            ops.softmax(logits / self._temperature, axis=-1)
            for logits in (class_logits(theirs, teacher), class_logits(ours, student))
        )
        each = keras.losses.kl_divergence(p, q)
        return self.weighing.mean(output, each, student) * self._temperature**2


def teacher_tasks(teacher: keras.Model, tasks: Sequence[Task]) -> tuple[Task, ...]:
    """The student's tasks, from logits where the outputs of the teacher are logits.

    Args:
        teacher: A model with the same outputs.
        tasks: The tasks of the student, one for each output.
    """
    each = read_outputs(teacher).each
    return tuple(
        task
        if task.kind == "regression"
        else replace(task, from_logits=output.activation not in ("softmax", "sigmoid"))
        for task, output in zip(tasks, each, strict=True)
    )


def class_logits(task: Task, outputs: Any) -> Any:
    """Logits of exclusive classes on the last axis, from the outputs of a class task.

    Args:
        task: Binary, multiclass or multilabel.
        outputs: `(batch, …, outputs)`.

    Returns:
        `(batch, …, classes)`; for binary and multilabel `(batch, …, outputs, 2)`.
    """
    link = "linear" if task.from_logits else link_of(task.kind)
    logits = logits_of(ops.cast(outputs, "float32"), link)
    if task.kind == "multiclass":
        return logits
    return ops.stack([ops.zeros_like(logits), logits], axis=-1)


class FeatureMatch(keras.layers.Layer):
    """The squared distance between features, in units of the variance of the teacher's.

    For each pair `mean((P(s) - t)²) / variance(t)`: 0 is equal, and no better than the mean of
    each channel is 1, whatever the scale of the layer. The mean over pairs is given. Where the
    widths differ, the projector P is a dense layer over the channels (a 1×1 convolution), in
    float32; where they are the same, P is the identity. The finer of two resolutions is
    averaged down to the coarser.

    Romero et al., "FitNets: Hints for Thin Deep Nets", 2015.

    Args:
        pairs: What is compared.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        super().__init__(dtype="float32", name="feature_match")
        self._pairs = tuple(pairs)
        self._scales = tuple(1.0 for _ in pairs)
        self.projectors = [_projector(pair) for pair in pairs]
        self.built = True

    def call(self, student: Sequence[Any], teacher: Sequence[Any]) -> Any:
        """The mean over pairs, a scalar.

        Args:
            student: One tensor for each pair, as the layer gave it.
            teacher: The same of the teacher; no gradient passes into it.
        """
        distances = []
        for pair, projector, scale, ours, theirs in zip(
            self._pairs, self.projectors, self._scales, student, teacher, strict=True
        ):
            # Averaging first: it is linear, so the projector may as well work on less.
            seen = projector(_averaged(pair.student, ours, pair.positions()))
            goal = ops.stop_gradient(_averaged(pair.teacher, theirs, pair.positions()))
            distances.append(ops.mean(ops.square(seen - goal)) / scale)
        return ops.mean(ops.stack(distances))

    def start(self, student: Sequence[Any], teacher: Sequence[Any]) -> None:
        """Measure the teacher's variance, and fit the projectors by least squares.

        From random projectors, the student would first learn to suit those.

        Args:
            student: Features of some samples, one tensor for each pair.
            teacher: Those of the teacher for the same samples.

        Raises:
            DataError: When a feature of the teacher is the same for all samples, or not finite.
        """
        scales = []
        for pair, projector, ours, theirs in zip(
            self._pairs, self.projectors, student, teacher, strict=True
        ):
            seen = _rows(_averaged(pair.student, ours, pair.positions()))
            goal = _rows(_averaged(pair.teacher, theirs, pair.positions()))
            scales.append(_variance(pair.teacher.layer, goal))
            if pair.student.channels != pair.teacher.channels:
                projector.set_weights(_least_squares(seen, goal))
        self._scales = tuple(scales)


def _projector(pair: Pair) -> keras.layers.Layer:
    if pair.student.channels == pair.teacher.channels:
        return keras.layers.Identity(dtype="float32")
    layer = keras.layers.Dense(pair.teacher.channels, kernel_initializer="zeros", dtype="float32")
    layer.build((None, pair.student.channels))
    return layer


def _averaged(feature: Feature, values: Any, positions: tuple[int | None, ...]) -> Any:
    """Values with channels last, each axis of positions averaged to the given size."""
    values = ops.cast(values, "float32")
    if feature.channel_axis == 1:
        values = ops.moveaxis(values, 1, -1)
    for axis, (size, goal) in enumerate(zip(feature.shape, positions, strict=False), start=1):
        if size is not None and goal is not None and size != goal:
            averaged = ops.tensordot(values, averaging(size, goal), axes=[[axis], [0]])
            values = ops.moveaxis(averaged, -1, axis)
    return values


def averaging(size: int, goal: int) -> Array:
    """The matrix `(size, goal)` of adaptive average pooling along one axis.

    Output i is the mean of the positions from ⌊i · size / goal⌋ to ⌈(i + 1) · size / goal⌉.
    """
    matrix = np.zeros((size, goal), "float32")
    for i in range(goal):
        first, last = i * size // goal, -(-(i + 1) * size // goal)
        matrix[first:last, i] = 1 / (last - first)
    return matrix


def _rows(values: Any) -> Array:
    """`(positions of all samples, channels)`; of very many, always the same ones."""
    rows = as_numpy(values).reshape(-1, values.shape[-1])
    if len(rows) > _MOST_ROWS:
        rows = rows[np.random.default_rng(0).choice(len(rows), _MOST_ROWS, replace=False)]
    return rows.astype("float64")


def _variance(layer: str, rows: Array) -> float:
    variance = float(rows.var(axis=0).mean())
    if not np.isfinite(variance):
        raise DataError(
            f"Layer '{layer}' of the teacher gives NaN or infinite numbers on the training data: "
            "check the teacher, and the data for NaN."
        )
    if variance <= 1e-12 * float(np.square(rows).mean()):
        raise DataError(
            f"Layer '{layer}' of the teacher gives the same numbers for all training samples, so "
            "there is nothing to learn from it: name other layers."
        )
    return variance


def _least_squares(inputs: Array, outputs: Array) -> list[Array]:
    """Kernel and bias of the affine map, with a little ridge against collinear channels."""
    mean_in, mean_out = inputs.mean(axis=0), outputs.mean(axis=0)
    centred = inputs - mean_in
    gram = centred.T @ centred
    # The smallest number keeps a layer that is constant, whose map is then 0, from dividing by 0.
    ridge = _RIDGE * np.trace(gram) / len(gram) + np.finfo("float32").tiny
    kernel = np.linalg.solve(gram + ridge * np.eye(len(gram)), centred.T @ (outputs - mean_out))
    return [kernel, mean_out - mean_in @ kernel]
