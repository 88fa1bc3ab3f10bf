"""The graph of a boosted model: members side by side, and what they say summed up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from saikei.fusion.boosting.parts import Part
from saikei.fusion.members import new_inputs
from saikei.graph import read
from saikei.scoring.outputs import read_outputs
from saikei.scoring.task import Task

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
