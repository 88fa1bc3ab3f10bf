"""Sizes that are unknown until data comes, as values that a traced `call` can compute with.

On symbolic tensors `keras.ops.shape` gives `None` for them, and nothing can be computed from that.
While a `call` is traced it gives a `Dimension` (see `symbolic_ops`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from saikei.graph import internals

# The functions of `keras.ops` themselves, also while a trace replaces them (see `symbolic_ops`).
ORIGINAL = dict(vars(keras.ops))


class Ones(keras.Operation):
    """As many ones as an axis is long; the reader puts operations of Keras in its place.

    Args:
        axis: Position of the axis.
        dtype: Dtype of the ones.
    """

    def __init__(self, axis: int, dtype: str) -> None:
        super().__init__()
        self.axis = axis
        self.dtype = dtype

    def compute_output_spec(self, tensor: Any) -> Any:
        """A vector of unknown size."""
        return keras.KerasTensor((tensor.shape[self.axis],), dtype=self.dtype)


def symbolic_ones(shape: Sequence[int | None], axis: int, dtype: str) -> tuple[Any, Any]:
    """As many ones as an axis of a tensor is long, as `(stand-in for the tensor, ones)`."""
    tensor = keras.KerasTensor(tuple(shape))
    key = tuple(slice(None) if a == axis else 0 for a in range(len(shape)))
    return tensor, ORIGINAL["ones_like"](tensor[key], dtype=dtype)


class Dimension:
    """The unknown size of an axis of a symbolic tensor.

    Args:
        tensor: The symbolic tensor.
        axis: The axis of it whose size this is.
    """

    def __init__(self, tensor: Any, axis: int) -> None:
        self.tensor = tensor
        self.axis = axis

    def ones(self, dtype: str) -> Any:
        """A symbolic vector of as many ones as the axis is long."""
        return Ones(self.axis, dtype)(self.tensor)

    def indices(self, dtype: str) -> Any:
        """0, 1, 2, … as a symbolic vector."""
        counted = ORIGINAL["cumsum"](self.ones("int32"), axis=0)
        return ORIGINAL["cast"](ORIGINAL["subtract"](counted, 1), dtype)

    def scalar(self, dtype: str = "int32") -> Any:
        """The size itself, as a symbolic scalar."""
        return ORIGINAL["cast"](ORIGINAL["sum"](self.ones("int32")), dtype)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Dimension) and other.tensor is self.tensor:
            return other.axis == self.axis
        return ORIGINAL["equal"](self.scalar(), plain(other))

    def __hash__(self) -> int:
        return hash((id(self.tensor), self.axis))

    def __add__(self, other: Any) -> Any:
        return self if _is_zero(other) else ORIGINAL["add"](self.scalar(), plain(other))

    def __sub__(self, other: Any) -> Any:
        return self if _is_zero(other) else ORIGINAL["subtract"](self.scalar(), plain(other))

    def __rsub__(self, other: Any) -> Any:
        return ORIGINAL["subtract"](plain(other), self.scalar())

    def __mul__(self, other: Any) -> Any:
        return ORIGINAL["multiply"](self.scalar(), plain(other))

    def __floordiv__(self, other: Any) -> Any:
        return ORIGINAL["floor_divide"](self.scalar(), plain(other))

    def __lt__(self, other: Any) -> Any:
        return ORIGINAL["less"](self.scalar(), plain(other))

    def __gt__(self, other: Any) -> Any:
        return ORIGINAL["greater"](self.scalar(), plain(other))

    __radd__ = __add__
    __rmul__ = __mul__

    def __bool__(self) -> bool:
        raise TypeError("it branches on a size that is unknown until data comes")


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and value == 0


def plain(value: Any) -> Any:
    """The value, with a `Dimension` as a symbolic scalar."""
    return value.scalar() if isinstance(value, Dimension) else value


def has_dimension(value: Any) -> bool:
    """Whether a `Dimension` is in a value, such as a shape or the key of an index."""
    if isinstance(value, slice):
        return any(isinstance(end, Dimension) for end in (value.start, value.stop, value.step))
    if isinstance(value, (list, tuple)):
        return any(has_dimension(part) for part in value)
    return isinstance(value, Dimension)


def holds_dimension(operation: Any, args: Any) -> bool:
    """Whether a recorded call still depends on an unknown size."""
    settings = [] if isinstance(operation, keras.Layer) else list(vars(operation).values())
    if any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(settings)):
        return True
    return any(has_dimension(leaf) for leaf in (*keras.tree.flatten(args), *settings))


def joined_its_batch(tensor: Any) -> bool:
    """Whether a reshape before the tensor joined the batch axis with another of unknown size.

    `reshape(x, (-1, width))` of a batch of sequences does so. Behind it the sizes of the tensor's
    axes no longer follow from the model's inputs.

    Args:
        tensor: A symbolic tensor.
    """
    seen, open_tensors = {id(tensor)}, [tensor]
    while open_tensors:
        current = open_tensors.pop()
        history = internals.history_of(current)
        if history is None or history.operation is None:
            continue
        node = internals.node_of(current)
        leaves = keras.tree.flatten(internals.node_arguments(node))
        given = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
        if _joins(node.operation, given, node.outputs):
            return True
        new = [t for t in given if id(t) not in seen]
        seen.update(id(t) for t in new)
        open_tensors.extend(new)
    return False


def _joins(operation: Any, given: list[Any], made: list[Any]) -> bool:
    if isinstance(operation, keras.Layer) or not hasattr(operation, "newshape"):
        return False
    before, after = tuple(given[0].shape), tuple(made[0].shape)
    # Two axes of unknown size at least, the batch among them, have become one.
    unknown = before.count(None)
    return before[0] is None and unknown > 1 and after.count(None) < unknown
