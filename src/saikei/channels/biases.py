"""Biases of several axes, which Keras adds along the wrong axis when all but one are 1.

On TensorFlow, `keras.ops.add` takes every summand with one axis of more than one number for a bias
of the channels, and adds it along axis 1 where that has the same size, even if it belongs to
another axis. So the biases `(heads, width)` in attention and in `EinsumDense` are wrong where the
width is 1 and a sequence is as long as there are heads. No cut may make such a bias, or change the
size of one.
"""

from __future__ import annotations

from saikei.rules.base import Shape

REASON = "Keras adds a bias with one such axis wrongly on TensorFlow, when a sequence is as long"


def is_bias_of_several_axes(name: str, shape: Shape) -> bool:
    """Whether a weight is a bias of two axes or more."""
    return name.split("/")[-1].split("#")[0] == "bias" and len(shape) > 1


def only_wide_axis(name: str, shape: Shape) -> int | None:
    """The axis of a bias whose size may not change: the only one above 1, before the last."""
    wide = [axis for axis, size in enumerate(shape) if size != 1]
    if is_bias_of_several_axes(name, shape) and len(wide) == 1 and wide[0] < len(shape) - 1:
        return wide[0]
    return None
