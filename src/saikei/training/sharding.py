"""Batches that `keras.distribution` spreads over devices: each gets as many rows as the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
from numpy.typing import NDArray


def shards() -> int:
    """The number of parts that a batch is split into; 1 without a distribution."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    sizes = dict(zip(mesh.axis_names, mesh.shape, strict=True))
    return int(sizes.get(distribution.batch_dim_name, 1))


def filled(rows: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of a batch and, where they cannot be split evenly, the first ones of the order.

    Args:
        rows: The numbers of the rows.
        order: The numbers of all rows.
    """
    lacking = -len(rows) % shards()
    return np.concatenate([rows, np.resize(order, lacking)]) if lacking else rows


@contextmanager
def unsplit(rows: int) -> Iterator[None]:
    """Where a batch cannot be split evenly, let every device compute all of it.

    Args:
        rows: The number of rows of the batch.
    """
    distribution = keras.distribution.distribution()
    if rows % shards() == 0:
        yield
        return
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
