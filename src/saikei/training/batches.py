"""Training data as Keras takes it, shuffled from our own seed when it is arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import (
    Array,
    ArrayData,
    for_keras,
)


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays in an order that depends on the seed and the epoch alone.

    Keras's own shuffling of arrays draws from the backend's global generator, which a library
    should not seed.
    """

    def __init__(self, data: ArrayData, batch_size: int, seed: int) -> None:
        super().__init__()
        weights = () if data.weights is None else (data.weights,)
        labels = () if data.y is None else (data.y,)
        # A tf.data pipeline, which Keras puts around this, takes a list for a tensor.
        self._parts = tree.lists_to_tuples((data.x, *labels, *weights))
        self._size = len(data)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0
        self._order = self._shuffled()

    def __len__(self) -> int:
        return -(-self._size // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        x, *rest = tree.map_structure(lambda leaf: leaf[rows], self._parts)
        return (for_keras(x), *rest)

    def on_epoch_end(self) -> None:
        """Draw the next epoch's order."""
        self._epoch += 1
        self._order = self._shuffled()

    def _shuffled(self) -> Array:
        return np.random.default_rng([self._seed, self._epoch]).permutation(self._size)
