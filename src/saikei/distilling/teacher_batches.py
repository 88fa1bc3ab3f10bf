"""Training batches with stored outputs of a teacher for their rows, in whatever order they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, ArrayData, parts_of, predict_arrays
from saikei.checks import input_count
from saikei.dataset_batches import dataset_batches, to_arrays
from saikei.errors import DataError
from saikei.scoring.predictions import bytes_of_outputs, rows_at_once
from saikei.tensors import to_floats
from saikei.training.digests import Digests, digest_rows
from saikei.training.prepared import Prepared, ShuffledBatches

TEACHER_BATCH_SIZE = 512


def outputs_for(
    teacher: keras.Model,
    x: Any,
    batch_size: int = TEACHER_BATCH_SIZE,
    reduce: Callable[[Any], Any] | None = None,
) -> Any:
    """The teacher's outputs for every sample.

    There is no augmentation between a stored sample and the teacher, so training on this gives
    the same gradients as running it at every step, at one pass instead of one for each epoch.

    Args:
        teacher: A built model.
        x: Arrays, as the model takes them.
        batch_size: Samples at a time, or fewer where their outputs are large.
        reduce: What is kept of the outputs of some samples; `None` for all.

    Returns:
        Arrays `(n, …)`, nested as the outputs. They are filled part by part: `predict` of all at
        once would need several times their memory.

    Raises:
        DataError: When an output is not finite.
    """
    count = len(tree.flatten(x)[0])
    rows = rows_at_once(bytes_of_outputs(teacher, x), batch_size)
    outputs: Any = None
    for start in range(0, count, rows):
        part = tree.map_structure(lambda leaf, start=start: leaf[start : start + rows], x)
        found = tree.map_structure(to_floats, predict_arrays(teacher, part, min(rows, batch_size)))
        if reduce is not None:
            check_finite(found, f"Teacher '{teacher.name}'")
            found = reduce(found)
        if outputs is None:
            outputs = tree.map_structure(lambda o: np.empty((count, *o.shape[1:]), o.dtype), found)
        for whole, piece in zip(tree.flatten(outputs), tree.flatten(found), strict=True):
            whole[start : start + rows] = piece
    check_finite(outputs, f"Teacher '{teacher.name}'")
    return outputs


def outputs_for_dataset(
    teacher: keras.Model, dataset: Any, reduce: Callable[[Any], Any] | None = None
) -> tuple[Any, Digests, int]:
    """The teacher's outputs for every sample of one pass over a dataset.

    Args:
        teacher: A built model.
        dataset: A dataset that `keras.Model.fit` takes; it may come in any order.
        reduce: What is kept of the outputs of a batch; `None` for all.

    Returns:
        The outputs, the digests of the rows that they belong to, and the number of batches.

    Raises:
        DataError: When the dataset never ends or can be read only once, or an output is not
            finite.
    """
    found, digests = [], []
    for batch in dataset_batches(dataset, "train", labels=False, inputs=input_count(teacher)):
        arrays = to_arrays(batch, "train").x
        outputs = tree.map_structure(to_floats, teacher.predict_on_batch(arrays))
        if reduce is not None:
            check_finite(outputs, f"Teacher '{teacher.name}'")
            outputs = reduce(outputs)
        found.append(outputs)
        digests.append(digest_rows(arrays))
    outputs = tree.map_structure(lambda *parts: np.concatenate(parts), *found)
    check_finite(outputs, f"Teacher '{teacher.name}'")
    return outputs, np.concatenate(digests), len(found)


def stored_batches(
    teacher: keras.Model, ready: Prepared, key: str, batch_size: int, seed: int
) -> Any:
    """Training batches with stored outputs of the teacher: inputs are `{"x": …, key: …}`.

    The teacher runs here, once over the data.

    Args:
        teacher: A built model.
        ready: The training data.
        key: The name under which its outputs come.
        batch_size: Samples a step, for arrays.
        seed: The seed of the order of arrays.

    Raises:
        DataError: When an output is not finite; while training, when a dataset brings a row that
            was not in it before.
    """
    if ready.arrays is None:
        outputs, digests, count = outputs_for_dataset(teacher, ready.dataset)
        return TeacherBatches(ready.dataset, key, Lookup(digests, outputs), count)
    return batches_with_outputs(ready, key, outputs_for(teacher, ready.arrays.x), batch_size, seed)


def batches_with_outputs(
    ready: Prepared, key: str, outputs: Any, batch_size: int, seed: int
) -> ShuffledBatches:
    """Batches of arrays, in the order of `fit`, beside outputs of a teacher for each row."""
    arrays = ready.arrays
    assert arrays is not None
    beside = ArrayData({"x": arrays.x, key: outputs}, arrays.y, arrays.weights)
    return ready.shuffled(beside, batch_size, seed)


def check_finite(outputs: Any, owner: str) -> None:
    """Refuse outputs with NaN or infinite numbers; those in files are read in parts.

    Raises:
        DataError: Naming the owner.
    """
    for output in tree.flatten(outputs):
        if not all(np.isfinite(part).all() for part in _parts(output)):
            raise DataError(
                f"{owner} gives NaN or infinite outputs on the training data: check the teacher, "
                "and the data for NaN."
            )


def _parts(output: Array) -> list[Array]:
    return [output[start : start + 4096] for start in range(0, len(output), 4096)]


class Lookup:
    """Stored outputs of a teacher, found by their inputs.

    Rows with equal inputs are one row: a teacher gives the same outputs for both.

    Args:
        digests: The digests of the inputs, uint64 `(n,)`.
        outputs: Arrays `(n, …)`, nested in any way; they may be memory-mapped.
    """

    def __init__(self, digests: Digests, outputs: Any) -> None:
        self._digests, self._rows = np.unique(digests, return_index=True)
        self._outputs = outputs

    def rows(self, x: Any) -> Any:
        """The row of the outputs for each row of inputs, int `(n,)`; -1 where there is none."""
        digests = digest_rows(x)
        found = np.searchsorted(self._digests, digests).clip(max=len(self._digests) - 1)
        return np.where(self._digests[found] == digests, self._rows[found], -1)

    def __call__(self, x: Any) -> Any:
        """The stored outputs for the rows, nested as they were stored.

        Raises:
            DataError: When one of the rows has no stored output.
        """
        rows = self.rows(x)
        missing = int((rows < 0).sum())
        if missing:
            raise DataError(
                f"{missing:,} of {len(rows):,} rows in a batch of 'train' have no stored teacher "
                "prediction, so the data is augmented, or drawn anew in each pass, or other data: "
                "run the teacher at every step with teacher_predictions='live'."
            )
        return tree.map_structure(lambda output: np.asarray(output[rows]), self._outputs)


class TeacherBatches(keras.utils.PyDataset):
    """A dataset's own batches in its own order, with inputs `{"x": …, key: …}`.

    A pass that brings another number of batches than the first one did is an error.

    Args:
        dataset: A `tf.data.Dataset`, `keras.utils.PyDataset` or torch `DataLoader`.
        key: The name under which the teacher's outputs come.
        lookup: Finds them.
        count: Batches in a pass.
    """

    def __init__(self, dataset: Any, key: str, lookup: Lookup, count: int) -> None:
        super().__init__()
        self._dataset, self._key, self._lookup, self._count = dataset, key, lookup, count
        self._next = 0
        self._pass: Iterator[ArrayData] = iter(())
        self._failed: DataError | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        try:
            return self._with_outputs(index)
        except DataError as error:
            self._failed = error
            raise

    @contextmanager
    def own_errors(self) -> Iterator[None]:
        """Raise the body's errors as this raised them, not as a pipeline around it wraps them."""
        try:
            yield
        except Exception:
            if self._failed is not None:
                raise self._failed from None
            raise

    def _with_outputs(self, index: int) -> Any:
        batch = to_arrays(self._batch(index), "train")
        # A tf.data pipeline, which Keras puts around this, takes a list for a tensor.
        x = {
            "x": tree.lists_to_tuples(batch.x),
            self._key: tree.lists_to_tuples(self._lookup(batch.x)),
        }
        return (x,) if batch.y is None else (x, tree.lists_to_tuples(batch.y))

    def on_epoch_end(self) -> None:
        """Pass the end of the epoch on to the dataset."""
        if isinstance(self._dataset, keras.utils.PyDataset):
            self._dataset.on_epoch_end()

    def _batch(self, index: int) -> ArrayData:
        if isinstance(self._dataset, keras.utils.PyDataset):
            return ArrayData(*parts_of(self._dataset[index], "train"))
        if index == 0:
            self._pass, self._next = dataset_batches(self._dataset, "train", labels=False), 0
        # Keras reads in order; it may begin again to look at the first ones.
        assert index == self._next, "batches of a dataset are read in order"
        self._next += 1
        batch = next(self._pass, None)
        last = self._next == self._count
        if batch is None or (last and next(self._pass, None) is not None):
            raise DataError(
                f"'train' brings {'fewer' if batch is None else 'more'} than the {self._count:,} "
                "batches of its first pass: run the teacher at every step with "
                "teacher_predictions='live'."
            )
        return batch
