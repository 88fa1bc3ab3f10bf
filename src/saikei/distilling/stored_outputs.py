"""What a teacher says of training data, asked once and then read from memory."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import Array, ArrayData, dataset_batches, for_keras, to_arrays
from saikei.data import input_count
from saikei.distilling.teacher_batches import Lookup, ToldBatches
from saikei.errors import DataError
from saikei.tensors import to_floats
from saikei.training.batches import ShuffledBatches
from saikei.training.digests import Digests, digest_rows
from saikei.training.prepared import Prepared

TEACHER_BATCH_SIZE = 512


def ask(teacher: keras.Model, x: Any, batch_size: int = TEACHER_BATCH_SIZE) -> Any:
    """The teacher's outputs for every sample.

    There is no augmentation between a stored sample and the teacher, so training on this gives
    the same gradients as asking it at every step, at one pass instead of one for each epoch.

    Args:
        teacher: a built model.
        x: arrays, as the model takes them.
        batch_size: samples at a time.

    Raises:
        DataError: when an output is not finite.
    """
    outputs = tree.map_structure(
        to_floats, teacher.predict(for_keras(x), batch_size=batch_size, verbose=0)
    )
    check_finite(outputs, f"Teacher '{teacher.name}'")
    return outputs


def ask_dataset(teacher: keras.Model, dataset: Any) -> tuple[Any, Digests, int]:
    """The teacher's outputs for every sample of one pass over a dataset.

    Args:
        teacher: a built model.
        dataset: as `keras.Model.fit` takes it; it may come in any order.

    Returns:
        The outputs, the digests of the rows that they belong to, and the number of batches.

    Raises:
        DataError: when the dataset never ends or can be read only once, or an output is not
            finite.
    """
    said, digests = [], []
    for batch in dataset_batches(dataset, "train", labels=False, inputs=input_count(teacher)):
        arrays = to_arrays(batch, "train").x
        said.append(tree.map_structure(to_floats, teacher.predict_on_batch(arrays)))
        digests.append(digest_rows(arrays))
    outputs = tree.map_structure(lambda *parts: np.concatenate(parts), *said)
    check_finite(outputs, f"Teacher '{teacher.name}'")
    return outputs, np.concatenate(digests), len(said)


def stored_batches(
    teacher: keras.Model, ready: Prepared, key: str, batch_size: int, seed: int
) -> Any:
    """Training batches that bring what the teacher said: inputs are `{"x": …, key: …}`.

    The teacher runs here, once over the data.

    Args:
        teacher: a built model.
        ready: the training data.
        key: the name under which its outputs come.
        batch_size: samples a step, for arrays.
        seed: of the order of arrays.

    Raises:
        DataError: when an output is not finite; while training, when a dataset brings a row that
            was not in it before.
    """
    if ready.arrays is None:
        outputs, digests, count = ask_dataset(teacher, ready.dataset)
        return ToldBatches(ready.dataset, key, Lookup(digests, outputs), count)
    return told_arrays(ready.arrays, key, ask(teacher, ready.arrays.x), batch_size, seed)


def told_arrays(
    arrays: ArrayData, key: str, told: Any, batch_size: int, seed: int
) -> ShuffledBatches:
    """Batches of arrays, in the order of `fit`, beside what a teacher says of each row."""
    beside = ArrayData({"x": arrays.x, key: told}, arrays.y, arrays.weights)
    return ShuffledBatches(beside, batch_size, seed)


def check_finite(outputs: Any, whose: str) -> None:
    """Refuse outputs with NaN or infinite numbers; those in files are read in parts.

    Raises:
        DataError: naming whose they are.
    """
    for output in tree.flatten(outputs):
        if not all(np.isfinite(part).all() for part in _parts(output)):
            raise DataError(
                f"{whose} gives NaN or infinite outputs on the training data: check the teacher, "
                "and the data for NaN."
            )


def _parts(output: Array) -> list[Array]:
    return [output[start : start + 4096] for start in range(0, len(output), 4096)]
