"""Meta-features: the forms in which a meta-learner reads the members' outputs.

They are written once, in `keras.ops`: on arrays to fit a meta-learner, on symbolic tensors to build
it, so that both are the same function in the same precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from saikei.batches import Array
from saikei.errors import FusionError
from saikei.fusion.evidence import MemberOutputs
from saikei.scoring.links import link_of, logits_of
from saikei.scoring.task import Task
from saikei.tensors import to_floats

Form = Literal["probabilities", "log-probabilities", "outputs", "features"]
On = Literal["outputs", "features"]

# Probabilities are clipped to this distance from 0 and 1: float32 resolves no smaller one from 1.
_SMALLEST = 1e-6


@dataclass(frozen=True)
class View:
    """Which columns a meta-learner reads.

    Args:
        task: The task of the output that it computes.
        index: The index of that output among the members' outputs.
        form: The form in which the members' outputs are read.
        passthrough: Whether the inputs are columns too.
    """

    task: Task
    index: int
    form: Form
    passthrough: bool

    def tensors(self, predictions: MemberOutputs) -> list[Any]:
        """The blocks of columns, each `(n, width)`: one for each member, then the inputs."""
        if self.form == "features":
            blocks = [one for member in predictions.features for one in member]
        else:
            blocks = [self._formed(member[self.index]) for member in predictions.outputs]
        return [*blocks, *(predictions.raw if self.passthrough else ())]

    def matrix(self, predictions: MemberOutputs) -> Array:
        """The columns of arrays, float64 `(n, columns)`."""
        blocks = [to_floats(block) for block in self.tensors(predictions)]
        return np.concatenate(blocks, axis=1).astype(np.float64)

    def of_one_scale(self, predictions: MemberOutputs) -> Array:
        """Which columns are probabilities or their logarithms, and stay unscaled, `(columns,)`."""
        widths = [block.shape[1] for block in self.tensors(predictions)]
        members = 0 if self.form in ("features", "outputs") else len(predictions.outputs)
        return np.repeat(np.arange(len(widths)) < members, widths)

    def _formed(self, output: Any) -> Any:
        task = self.task
        multiclass = task.kind == "multiclass"
        if self.form == "outputs":
            return output
        p = output
        if task.from_logits:
            p = ops.softmax(output, axis=-1) if multiclass else ops.sigmoid(output)
        if self.form == "probabilities":
            return p
        return logits_of(p, link_of(task.kind), least=_SMALLEST)


def views(task: Task, index: int, on: On, passthrough: bool) -> tuple[View, ...]:
    """The views that are tried for one output."""
    forms: tuple[Form, ...] = ("probabilities", "log-probabilities")
    if on == "features":
        forms = ("features",)
    elif task.kind == "regression":
        forms = ("outputs",)
    return tuple(View(task, index, form, passthrough) for form in forms)


def check_flat(predictions: MemberOutputs) -> None:
    """Refuse maps and sequences: a stack would need weights for every position."""
    for output in predictions.outputs[0]:
        if len(output.shape) != 2:
            raise FusionError(
                f"Members give outputs of shape {tuple(output.shape)}, and a Stack takes "
                "(n, outputs): use Average for maps and sequences."
            )


def concatenated(tensors: Sequence[Any], name: str) -> Any:
    """Symbolic blocks as one tensor, in float32 even where members have another precision."""
    if len(tensors) == 1:
        return tensors[0]
    return keras.layers.Concatenate(dtype="float32", name=name)(list(tensors))
