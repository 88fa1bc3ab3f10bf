"""`Targets`: what a teacher predicts, in the place of labels that there are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, predict_arrays
from saikei.losses import default_loss, describe_loss, takes_sparse
from saikei.scoring.inference import infer_tasks, losses_of
from saikei.scoring.links import probabilities_of
from saikei.scoring.outputs import Output, read_outputs
from saikei.scoring.task import Kind, Task
from saikei.tensors import to_floats

# Samples that are enough to see what an output is.
_SAMPLES = 256


@dataclass(frozen=True)
class Targets:
    """A teacher's predictions as the labels of a student.

    Args:
        student: Whose outputs the labels are for.
        teacher: The model, or another model of the same outputs, whose compiled loss counts where
            the student has none; `None` where there are only its predictions.
        predict: A function from inputs to the teacher's outputs, nested as they are.
        from_logits: Whether each output of the teacher is logits, where it is one of classes.
    """

    student: keras.Model
    teacher: keras.Model | None
    predict: Callable[[Any], Any]
    from_logits: Sequence[bool]

    @classmethod
    def of(cls, student: keras.Model, teacher: keras.Model) -> Targets:
        """The predictions of a model."""

        def predict(x: Any) -> Any:
            return predict_arrays(teacher, x, _SAMPLES)

        each = read_outputs(teacher).each
        logits = [output.activation not in ("softmax", "sigmoid") for output in each]
        return cls(student, teacher, predict, logits)

    def tasks(self, x: Any, loss: Any = None) -> tuple[Task, ...]:
        """What the student learns, from the predictions for some inputs.

        Args:
            x: Arrays, as the models take them.
            loss: As `saikei.fit` takes it.
        """
        some = tree.map_structure(lambda leaf: leaf[:_SAMPLES], x)
        losses_ = [self._loss(*one) for one in self._each(loss)]
        return infer_tasks(self.student, self.labels(some, loss), losses_)

    def labelled_tasks(self, x: Any, loss: Any = None) -> tuple[Task, ...]:
        """What the student would learn from labels, in the form that its loss takes.

        Args:
            x: Arrays, as the models take them.
            loss: As `saikei.fit` takes it.
        """
        some = tree.map_structure(lambda leaf: leaf[:_SAMPLES], x)
        given = [one for _, _, one in self._each(loss)]
        known = None if any(one is None for one in given) else given
        return infer_tasks(self.student, self.labels(some, loss, hard=True), known)

    def labels(self, x: Any, loss: Any = None, hard: bool = False) -> Any:
        """Labels nested as the student's outputs: probabilities, or numbers.

        Args:
            x: Arrays, as the models take them.
            loss: As `saikei.fit` takes it.
            hard: Whether to give the likeliest class rather than probabilities: class numbers, or
                one-hot rows where the loss takes those.
        """
        outputs = tree.flatten(self.predict(x))
        made = [
            _label(kind, to_floats(output), logits, one, hard)
            for (_, kind, one), output, logits in zip(
                self._each(loss), outputs, self.from_logits, strict=True
            )
        ]
        ours = read_outputs(self.student)
        # A list of one array would be taken for an array of one row.
        return made[0] if isinstance(ours.structure, list) and len(made) == 1 else ours.pack(made)

    def _each(self, loss: Any) -> list[tuple[Output, Kind, Any]]:
        ours = read_outputs(self.student).each
        theirs = ours if self.teacher is None else read_outputs(self.teacher).each
        given = losses_of(self.student, loss, len(ours))
        if self.teacher is not None and all(one is None for one in given):
            given = losses_of(self.teacher, None, len(ours))
        return [
            (output, _kind(output, other, one), one)
            for output, other, one in zip(ours, theirs, given, strict=True)
        ]

    def _loss(self, output: Output, kind: Kind, loss: Any) -> Any:
        logits = output.activation not in ("softmax", "sigmoid")
        if loss is None:
            return default_loss(kind, sparse=False, from_logits=logits)
        # Probabilities are rows, whatever form the labels had.
        if takes_sparse(loss):
            known = describe_loss(loss)
            return default_loss(kind, False, known.from_logits if known else logits)
        return loss


def _kind(output: Output, other: Output, loss: Any) -> Kind:
    width = output.shape[-1] if len(output.shape) > 1 else 1
    known = describe_loss(loss)
    if known is not None and known.kind == "numeric":
        return "regression"
    if known is not None and known.kind == "crossentropy":
        return "multiclass"
    activation = output.activation if output.activation != "linear" else other.activation
    if (known is not None and known.kind == "binary") or activation in ("sigmoid", "log_sigmoid"):
        return "binary" if width == 1 else "multilabel"
    return "multiclass" if activation in ("softmax", "log_softmax") else "regression"


def _label(kind: Kind, output: Array, logits: bool, loss: Any, hard: bool) -> Array:
    if kind == "regression":
        return output
    if kind == "multiclass":
        if hard:
            classes = output.argmax(axis=-1)
            rows = takes_sparse(loss) is False
            return np.asarray(np.eye(output.shape[-1])[classes] if rows else classes)
        # float64: the student's loss needs rows that sum to 1.
        return probabilities_of(output, "softmax") if logits else output
    probabilities = probabilities_of(output, "sigmoid") if logits else output
    return (probabilities > 0.5).astype(np.int64) if hard else probabilities
