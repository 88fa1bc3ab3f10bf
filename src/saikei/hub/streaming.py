"""`PreprocessedBatches`: a dataset of strings as tokens, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from saikei.batches import ArrayData, parts_of
from saikei.dataset_batches import dataset_batches


class PreprocessedBatches(keras.utils.PyDataset):
    """The batches of a dataset as a function makes them of its batches, in the same order.

    Args:
        dataset: A `tf.data.Dataset`, `keras.utils.PyDataset` or torch `DataLoader`.
        preprocess: A function of a batch, `(x, y, sample_weight)`, that gives such a batch.
        name: The name of the argument, for messages.
        count: The number of batches.
    """

    def __init__(
        self,
        dataset: Any,
        preprocess: Callable[[tuple[Any, ...]], Any],
        name: str,
        count: int,
    ) -> None:
        super().__init__()
        self._dataset, self._preprocess, self._name = dataset, preprocess, name
        self._count, self._next = count, 0
        self._pass: Iterator[ArrayData] = iter(())

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if isinstance(self._dataset, keras.utils.PyDataset):
            return self._preprocess(parts_of(self._dataset[index], self._name))
        if index != self._next or index == 0:
            # Keras reads in order; it may begin again to look at the first batches.
            self._pass = dataset_batches(self._dataset, self._name, labels=False)
            for _ in range(index):
                next(self._pass)
        self._next = index + 1
        batch = next(self._pass)
        return self._preprocess((batch.x, batch.y, batch.weights))

    def on_epoch_end(self) -> None:
        """Pass the end of the epoch on to the dataset."""
        if isinstance(self._dataset, keras.utils.PyDataset):
            self._dataset.on_epoch_end()
