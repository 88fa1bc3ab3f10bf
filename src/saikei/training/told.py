"""What a teacher says of training data that is in memory, asked once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import DataError

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
    outputs = teacher.predict(x, batch_size=batch_size, verbose=0)
    for output in tree.flatten(outputs):
        if not np.isfinite(output).all():
            raise DataError(
                f"Teacher '{teacher.name}' gives NaN or infinite outputs on the training data: "
                "check the teacher, and the data for NaN."
            )
    return outputs
