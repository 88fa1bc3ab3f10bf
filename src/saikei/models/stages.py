"""Members of a cascade on arrays, one stage after the other, each on the rows that are left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import DataError
from saikei.models.exits import Exits
from saikei.tensors import to_known

Array = np.ndarray[Any, np.dtype[Any]]


def run_stages(
    members: Sequence[Any], exits: Exits, x: Any, batch_size: int, dtype: str
) -> tuple[Array, Array]:
    """Outputs, and the stage at which each row left.

    Args:
        members: The members, in order.
        exits: The rule by which rows leave.
        x: Arrays as the members take them, one sample a row.
        batch_size: Rows in a batch of a member.
        dtype: The dtype of the outputs.

    Returns:
        Outputs `(n, …)`, and stages, int `(n,)`: the index of the last member that has run.

    Raises:
        DataError: When there are no rows.
    """
    arrays = tree.map_structure(to_known, x)
    rows = np.arange(len(tree.flatten(arrays)[0]))
    if not len(rows):
        raise DataError("There are no rows to predict: give at least one.")
    stages = np.zeros(len(rows), dtype=np.int64)
    outputs: list[Array] = []
    result: Array | None = None
    for stage, member in enumerate(members):
        outputs.append(_run(member, arrays, rows, batch_size).astype(dtype, copy=False))
        stages[rows] = stage
        output = exits.output(outputs)
        if result is None:
            result = np.empty((len(stages), *output.shape[1:]), output.dtype)
        result[rows] = output
        if stage == len(members) - 1:
            break
        stays = ~exits.leaves(outputs)
        rows, outputs = rows[stays], [one[stays] for one in outputs]
        if not len(rows):
            break
    assert result is not None
    return result, stages


def _run(member: Any, arrays: Any, rows: Array, batch_size: int) -> Array:
    """The outputs of a member on some rows, in batches of few different sizes."""
    parts = []
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        padded = np.pad(chosen, (0, _padding(len(chosen), batch_size)), mode="edge")
        batch = tree.map_structure(lambda array, rows=padded: array[rows], arrays)
        (output,) = tree.flatten(member.predict_on_batch(batch))
        parts.append(np.asarray(output)[: len(chosen)])
    return np.concatenate(parts)


def _padding(rows: int, batch_size: int) -> int:
    """Rows to add so that sizes are powers of two: a backend compiles anew for every size."""
    return min(1 << (rows - 1).bit_length(), batch_size) - rows


def batches_of(
    x: Any, y: Any, weights: Any, batch_size: int | None, steps: int | None
) -> Iterator[tuple[Any, Any, Any, int | None]]:
    """Inputs, labels, weights and batch size: all arrays at once, datasets batch by batch."""
    if isinstance(x, (list, tuple, dict)) or hasattr(x, "__array__") or keras.ops.is_tensor(x):
        yield x, y, weights, batch_size
        return
    batches = (x[i] for i in range(len(x))) if isinstance(x, keras.utils.PyDataset) else iter(x)
    for number, batch in enumerate(batches):
        if number == steps:
            return
        inputs, labels, weight = keras.utils.unpack_x_y_sample_weight(batch)
        yield inputs, labels, weight, len(tree.flatten(inputs)[0])
