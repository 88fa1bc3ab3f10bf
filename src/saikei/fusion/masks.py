"""The masks of padded sequences, where an operation between the members and the loss drops them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import keras
from keras import tree

from saikei.graph import internals
from saikei.graph.nested import mask_carrier


def called_with_masks(model: keras.Model, inputs: Any) -> list[Any]:
    """The outputs of a Functional model that is called on symbolic inputs, flattened, with masks.

    Keras attaches masks to the outputs of a nested model when it runs, but not yet to the symbolic
    tensors.
    """
    masks = [internals.mask_of(output) for output in model.outputs]
    if all(mask is None for mask in masks):
        return list(tree.flatten(model(inputs)))
    found = [mask for mask in masks if mask is not None]
    taken, _ = internals.structures(model)
    both = keras.Model(taken, [*model.outputs, *found], name=model.name)
    tensors = both(inputs)
    outputs, found = list(tensors[: len(masks)]), list(tensors[len(masks) :])
    for output, mask in zip(outputs, masks, strict=True):
        if mask is not None:
            internals.set_mask(output, found.pop(0))
    return outputs


def with_mask(tensor: Any, sources: Sequence[Any], name: str) -> Any:
    """A tensor that carries the masks of those it was computed from.

    Operations of `keras.ops` drop masks, and so do Keras's merging layers where one of their
    inputs has none. The layer that is added changes no value.

    Args:
        tensor: A symbolic tensor, `(batch, steps, ...)`.
        sources: Symbolic tensors of the same steps. A step counts if any of their masks counts
            it; those without a mask are ignored. Where none has a mask, or the tensor has one, the
            tensor is given back.
        name: The name of the layer.
    """
    masks = [mask for one in sources if (mask := internals.mask_of(one)) is not None]
    if not masks or internals.mask_of(tensor) is not None or len(tensor.shape) < 3:
        return tensor
    carrier = mask_carrier(tensor.dtype, name)
    return carrier(tensor, mask=reduce(keras.ops.logical_or, masks))


def all_with_masks(parts: Sequence[Any], name: str) -> list[Any]:
    """The outputs of several members, all with the mask that they share if any has one.

    Args:
        parts: One output of each member, symbolic.
        name: The format string for the names of layers that are added; it takes a number from 1.
    """
    return [with_mask(part, parts, name.format(n)) for n, part in enumerate(parts, start=1)]
