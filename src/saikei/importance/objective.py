"""The loss whose gradients measure importance: the compiled one, or one that suits the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from saikei.errors import EditError
from saikei.graph.compiling import Compiled
from saikei.graph.lineage import Marks, ignored_number
from saikei.losses import as_loss, default_loss, describe_loss, ignored_class, takes_sparse

Array = NDArray[Any]
# From labels, outputs and weights of samples, or `None`, to a scalar.
Loss = Callable[[Any, Any, Any], Any]


def objective(
    outputs: Sequence[Array], labels: Any, marks: Marks = ()
) -> Callable[[list[Any], list[Any]], Any]:
    """The loss of a model, summed over its outputs.

    It is the loss that the model is compiled with. Without one, or where an edit has changed the
    outputs so that it does not suit them, it is the log-loss where outputs or labels are classes,
    else the squared error: outputs that are all positive and sum to one are probabilities, those
    within [0, 1] are too where labels are 0 and 1, and others are logits.

    What is returned takes the flat outputs of some samples and their truths, as
    `saikei.calibration.samples.Samples.truths` gives them: labels and, behind those, weights.

    Args:
        outputs: The outputs of the model on some samples, flattened.
        labels: Labels of the same samples, nested as outputs are.
        marks: The marks of the model's graph.

    Raises:
        EditError: When labels do not fit the outputs.
    """
    flat = tree.flatten(labels)
    if len(flat) != len(outputs):
        raise EditError(
            f"Gradients need labels for each of the model's {len(outputs)} outputs, and the data "
            f"holds {len(flat)}: hand in data with labels."
        )
    compiled = next((one.each for one in marks if isinstance(one, Compiled)), ())
    given = compiled if len(compiled) == len(outputs) else (None,) * len(outputs)
    parts = [
        _loss(output, np.asarray(y), as_loss(loss) if loss else None, ignored_number(marks))
        for output, y, loss in zip(outputs, flat, given, strict=True)
    ]

    def total(predictions: list[Any], truths: list[Any]) -> Any:
        count = len(parts)
        weights = truths[count:] or [None] * count
        each = zip(parts, predictions, truths[:count], weights, strict=True)
        found = [part(y, p, w) for part, p, y, w in each]
        return sum(found[1:], start=found[0])

    return total


def _loss(output: Array, labels: Array, compiled: Any, ignored: int | None) -> Loss:
    if labels.dtype.kind not in "biuf":
        raise EditError(f"Labels are of type {labels.dtype}: number the classes from 0.")
    if compiled is not None and describe_loss(compiled) is None:
        # A loss of the caller's own knows what its labels are.
        return lambda y, p, w: _mean(compiled, ops.cast(y, p.dtype), p, w)
    width = output.shape[-1]
    values = np.asarray(output, np.float32)
    bounded = bool(((values >= 0) & (values <= 1)).all())
    chances = bounded and bool(np.allclose(values.sum(axis=-1), 1, atol=1e-2))
    if not _suits(compiled, bounded, chances):
        compiled = None
    classes = labels.reshape(-1).dtype.kind in "biu" or bool((labels == np.round(labels)).all())
    sparse = takes_sparse(compiled) if compiled is not None else width > 1 and classes
    if sparse and labels.size * width == output.size:
        ignored = ignored_class(compiled) if compiled is not None else ignored
        _check_classes(labels, width, ignored)
        entropy = compiled or default_loss("multiclass", True, not chances, ignored)
        shape = output.shape[1:-1]
        return lambda y, p, w: _mean(entropy, ops.reshape(y, (-1, *shape)), p, w)
    if labels.size != output.size:
        raise EditError(
            f"Labels of shape {labels.shape} do not fit outputs of shape {output.shape}, so there "
            "is no loss to take gradients of: hand in labels, or use importance='magnitude'."
        )
    if compiled is None or takes_sparse(compiled):
        compiled = _suited(labels, width, bounded, chances)
    return lambda y, p, w: _mean(compiled, ops.reshape(y, ops.shape(p)), p, w)


def _mean(loss: Any, y: Any, p: Any, weights: Any) -> Any:
    """The mean of a loss, each of its values multiplied by its weight."""
    if weights is None:
        return ops.mean(loss(y, p))
    weights = ops.cast(weights, p.dtype)
    if isinstance(loss, keras.losses.Loss):
        # These have a value for each sample, and for each step of a sequence.
        axes = max(len(p.shape) - 1, 1)
        return ops.mean(loss(y, p, sample_weight=_with_axes(weights, axes)))
    values = loss(y, p)
    return ops.mean(values * _with_axes(weights, len(values.shape)))


def _with_axes(weights: Any, axes: int) -> Any:
    """Weights with so many axes: further ones are of size 1, and over those left out is a mean."""
    over = tuple(range(axes, len(weights.shape)))
    weights = ops.mean(weights, axis=over) if over else weights
    return ops.reshape(weights, (*ops.shape(weights), *[1] * (axes - len(weights.shape))))


def _suits(compiled: Any, bounded: bool, chances: bool) -> bool:
    """Whether outputs are what a compiled loss takes; a new head may give others."""
    known = describe_loss(compiled)
    if known is None or known.kind == "numeric":
        return True
    if known.kind == "crossentropy":
        return known.from_logits != chances
    return known.from_logits or bounded


def _suited(labels: Array, width: int, bounded: bool, chances: bool) -> keras.losses.Loss:
    """The usual loss for labels of the shape of the outputs."""
    binary = bool(np.isin(labels, (0, 1)).all())
    one_hot = binary and width > 1 and bool((labels.reshape(-1, width).sum(axis=-1) == 1).all())
    if one_hot and (chances or not bounded):
        return default_loss("multiclass", False, from_logits=not bounded)
    return default_loss("binary" if binary else "regression", False, from_logits=not bounded)


def _check_classes(labels: Array, width: int, ignored: int | None) -> None:
    if ignored is None and bool(((labels < 0) | (labels >= width)).any()):
        raise EditError(
            f"Labels run from {labels.min():g} to {labels.max():g}, but the outputs are of "
            f"{width} classes: number them from 0 to {width - 1}."
        )
