"""Between logits and probabilities: softmax, sigmoid or nothing, and how each is undone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops
from scipy import special

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.scoring.task import Task

Link: TypeAlias = Literal["softmax", "sigmoid", "linear"]

# A float32 softmax goes down to about 1e-38; a sigmoid cannot be closer to 1 than about 1e-7.
_LEAST_SOFTMAX = 1e-30
_LEAST_SIGMOID = 1e-7


def links_of(activations: Sequence[str], tasks: Sequence[Task] = ()) -> tuple[Link, ...]:
    """What each output went through: it decides what its logits are.

    Raises:
        FusionError: When an output is no probability although it went through softmax or sigmoid,
            or is one although it went through neither.
    """
    known: dict[str, Link] = {"softmax": "softmax", "sigmoid": "sigmoid"}
    links = tuple(known.get(activation, "linear") for activation in activations)
    for index, activation in enumerate(activations, start=1):
        if activation == "log_sigmoid":
            raise FusionError(
                f"Output {index} ends in log_sigmoid, which is neither a probability nor a logit: "
                "rebuild the members with sigmoid or without."
            )
    for index, (link, task) in enumerate(zip(links, tasks, strict=False), start=1):
        learns = link_of_task(task)
        if learns != link:
            raise FusionError(
                f"Output {index} ends in {activations[index - 1]} and is compiled for {task.kind} "
                f"with a loss of {learns} outputs, so its logits are not known: compile the "
                "members with the loss that belongs to the activation."
            )
    return links


def link_of(kind: str) -> Link:
    """What turns the logits of a kind of task into probabilities; `"linear"` for regression."""
    links: dict[str, Link] = {"multiclass": "softmax", "regression": "linear"}
    return links.get(kind, "sigmoid")


def link_of_task(task: Task) -> Link:
    """What the outputs of a task went through; `"linear"` for logits and numbers."""
    return "linear" if task.from_logits else link_of(task.kind)


def logits_of(output: Any, link: Link, least: float | None = None) -> Any:
    """The logits of an output, up to a constant for each row; float32 where it is probabilities.

    Args:
        output: An array or a symbolic tensor, `(n, …, classes)`.
        link: What it went through.
        least: How close to 0, and under a sigmoid to 1, a probability may come; `None` takes what
            float32 can tell apart.
    """
    if link == "linear":
        return output
    p = ops.cast(output, "float32")
    if link == "softmax":
        return ops.log(ops.maximum(p, _LEAST_SOFTMAX if least is None else least))
    least = _LEAST_SIGMOID if least is None else least
    p = ops.clip(p, least, 1 - least)
    return ops.log(p) - ops.log(1 - p)


def probabilities_of(logits: Array, link: Link) -> Array:
    """The array that logits `(n, …, classes)` become behind their link."""
    if link == "softmax":
        return np.asarray(special.softmax(logits, axis=-1))
    return np.asarray(special.expit(logits)) if link == "sigmoid" else logits


def to_probabilities(task: Task, outputs: Array) -> Array:
    """Probabilities from the outputs of a class task; those that are already so stay so."""
    return probabilities_of(outputs, link_of(task.kind)) if task.from_logits else outputs


def log_probabilities(task: Task, outputs: Array) -> Array:
    """Logarithms of the probabilities that a class task's outputs mean.

    As in Keras's losses, probabilities are clipped to its epsilon; logits are taken exactly,
    however large.
    """
    if not task.from_logits:
        return np.asarray(np.log(clipped(outputs)))
    if task.kind == "multiclass":
        return np.asarray(special.log_softmax(outputs, axis=-1))
    return np.asarray(special.log_expit(outputs))


def as_outputs(task: Task, labels: Array) -> Array:
    """Labels that are numbers or probabilities, in the form of the task's outputs."""
    if task.kind == "regression" or not task.from_logits:
        return labels
    p = clipped(labels)
    return np.asarray(np.log(p) if task.kind == "multiclass" else special.logit(p))


def clipped(probabilities: Array, out: Array | None = None) -> Array:
    """Probabilities at least Keras's epsilon away from 0 and 1, as in its losses.

    Args:
        probabilities: An array of any shape.
        out: The array to write to; `None` for a new one.
    """
    epsilon = keras.config.epsilon()
    return np.clip(probabilities, epsilon, 1 - epsilon, out=out)
