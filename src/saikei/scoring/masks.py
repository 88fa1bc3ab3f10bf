"""The masks of a model's outputs, which mark where sequences are padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from saikei.batches import Array, predict_arrays
from saikei.graph import internals
from saikei.tensors import to_floats


class Masked:
    """A model, and which of its outputs have a mask.

    Args:
        model: A built model.
        places: The indices of the outputs that have one.
    """

    def __init__(self, model: keras.Model, places: tuple[int, ...]) -> None:
        self._model: keras.Model = _WithMasks(model, places) if places else model
        self._places = places

    def predict(self, x: Any, batch_size: int) -> tuple[list[Array], list[Array | None]]:
        """Outputs, flattened, and for each its mask."""
        return self._divided(predict_arrays(self._model, x, batch_size))

    def predict_on_batch(self, x: Any) -> tuple[list[Array], list[Array | None]]:
        """The outputs and masks of one batch."""
        return self._divided(self._model.predict_on_batch(x))

    def _divided(self, predicted: Any) -> tuple[list[Array], list[Array | None]]:
        flat = [to_floats(one) for one in tree.flatten(predicted)]
        count = len(flat) - len(self._places)
        masks: list[Array | None] = [None] * count
        for index, mask in zip(self._places, flat[count:], strict=True):
            masks[index] = mask > 0.5
        return flat[:count], masks


def with_masks(model: keras.Model, x: Any) -> Masked:
    """Look at which outputs of a model have a mask: where they are computed, as Keras does.

    Args:
        model: A built model.
        x: Inputs as it takes them, of which the first row is tried.
    """
    if type(model).predict is not keras.Model.predict or not may_mask(model):
        # A cascade predicts in its own order of rows, and its members end in one row each.
        return Masked(model, ())
    first = tree.map_structure(lambda leaf: leaf[:1], x)
    outputs = tree.flatten(model(first, training=False))
    places = [at for at, one in enumerate(outputs) if internals.mask_of(one) is not None]
    return Masked(model, tuple(places))


def shared_masks(masks: Sequence[Array | None], members: int, outputs: int) -> list[Array | None]:
    """For each output the positions that any member counts, as in Keras's merging layers.

    Args:
        masks: The masks of the outputs of the first member, then of the second, and so on; any
            that follow are not used. An output without a mask is ignored.
        members: How many there are.
        outputs: How many outputs each member has.
    """
    found: list[Array | None] = []
    for index in range(outputs):
        each = [masks[member * outputs + index] for member in range(members)]
        given = [mask for mask in each if mask is not None]
        found.append(np.logical_or.reduce(given) if given else None)
    return found


def may_mask(layer: Any) -> bool:
    """Whether a layer, or one inside it, makes masks."""
    return any(
        getattr(one, "mask_zero", False)
        or isinstance(one, keras.layers.Masking)
        or not type(one).compute_mask.__module__.startswith("keras.")
        for one in internals.flattened_layers(layer)
    )


class _WithMasks(keras.Model):
    """A model whose outputs, flattened, are followed by their masks."""

    def __init__(self, model: keras.Model, places: tuple[int, ...]) -> None:
        super().__init__(name="with_masks")
        self._network, self._places = model, places

    def build(self, shape: Any) -> None:
        """There is nothing to build."""

    def call(self, x: Any) -> list[Any]:
        """Outputs and masks, as numbers."""
        outputs = list(tree.flatten(self._network(x, training=False)))
        masks = [internals.mask_of(outputs[index]) for index in self._places]
        return [*outputs, *(ops.cast(mask, "float32") for mask in masks)]
