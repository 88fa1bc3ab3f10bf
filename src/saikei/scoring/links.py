"""What stands between logits and outputs: softmax, sigmoid or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from keras import ops

from saikei.errors import FusionError
from saikei.scoring.task import Task

Link: TypeAlias = Literal["softmax", "sigmoid", "linear"]

# A float32 softmax goes down to about 1e-38; a sigmoid cannot be closer to 1 than about 1e-7.
_LEAST_SOFTMAX = 1e-30
_LEAST_SIGMOID = 1e-7


def links_of(activations: Sequence[str], tasks: Sequence[Task] = ()) -> tuple[Link, ...]:
    """What each output went through: it decides what its logits are.

    Args:
        activations: the last one of each output.
        tasks: what each output learns, where that is known.

    Raises:
        FusionError: when an output is no probability although it went through softmax or sigmoid,
            or is one although it went through neither.
    """
    known: dict[str, Link] = {"softmax": "softmax", "sigmoid": "sigmoid"}
    links = tuple(known.get(activation, "linear") for activation in activations)
    for place, activation in enumerate(activations, start=1):
        if activation == "log_sigmoid":
            raise FusionError(
                f"Output {place} ends in log_sigmoid, which is neither a probability nor a logit: "
                "rebuild the members with sigmoid or without."
            )
    for place, (link, task) in enumerate(zip(links, tasks, strict=False), start=1):
        learns = _link_of_task(task)
        if learns != link:
            raise FusionError(
                f"Output {place} ends in {activations[place - 1]} and is compiled for {task.kind} "
                f"with a loss of {learns} outputs, so its logits are not known: compile the "
                "members with the loss that belongs to the activation."
            )
    return links


def _link_of_task(task: Task) -> Link:
    if task.kind == "regression" or task.from_logits:
        return "linear"
    return "softmax" if task.kind == "multiclass" else "sigmoid"


def logits_of(output: Any, link: Link) -> Any:
    """What stands before softmax or sigmoid, up to a constant for each row; float32.

    Probabilities are kept away from 0 and 1 by what float32 can tell apart.

    Args:
        output: an array or a symbolic tensor, `(n, …, classes)`.
        link: what it went through.
    """
    if link == "linear":
        return output
    p = ops.cast(output, "float32")
    if link == "softmax":
        return ops.log(ops.maximum(p, _LEAST_SOFTMAX))
    p = ops.clip(p, _LEAST_SIGMOID, 1 - _LEAST_SIGMOID)
    return ops.log(p) - ops.log(1 - p)
