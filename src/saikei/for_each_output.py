"""Values for each output of a model: sample weights, losses."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from keras import tree

from saikei.batches import Array, as_numpy
from saikei.errors import DataError

_T = TypeVar("_T")


def flat_weights(weights: Any, outputs: int) -> list[Array | None]:
    """Sample weights for each output: one array counts for all of them.

    Args:
        weights: Nested as they came, or `None`.
        outputs: The number of outputs.

    Raises:
        DataError: When there are weights for another number of outputs.
    """
    if weights is None:
        return [None] * outputs
    flat = [one if one is None else np.asarray(as_numpy(one)) for one in tree.flatten(weights)]
    return one_for_each(flat, outputs, "arrays of sample weights")


def one_for_each(given: list[_T], outputs: int, what: str) -> list[_T]:
    """The values for each output; a single one is for all.

    Args:
        given: The values.
        outputs: The number of outputs.
        what: What they are, for the message.

    Raises:
        DataError: When there are values for another number of outputs.
    """
    if len(given) not in (1, outputs):
        raise DataError(
            f"{len(given)} {what} are given, but the model has {outputs} outputs: give one for "
            "each output, or one for all."
        )
    return given * outputs if len(given) == 1 else given
