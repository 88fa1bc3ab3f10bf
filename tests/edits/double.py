"""Architectures in double precision, where exact means exact.

Fifty layers deep, float32 keeps five digits: an original differs by as much from itself in
double precision as from what an exact edit makes of it.
"""

from __future__ import annotations

import keras
import numpy as np

from saikei.graph import copy_model
from saikei.testing import random_inputs, randomise_statistics

EXACT = 1e-11


def application(name: str, size: int = 32) -> keras.Model:
    """A `keras.applications` model of five logits, in float64, with statistics of some data."""
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    usual = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        model = getattr(keras.applications, name)(
            weights=None, classes=5, input_shape=(size, size, 3), classifier_activation=None
        )
        randomise_statistics(model)
    finally:
        keras.config.set_floatx(usual)
        # Keras has made a policy of it, which would be that of every later model.
        keras.config.set_dtype_policy(usual)
    # A Normalization layer computes with what it was adapted to until it is loaded again.
    return copy_model(model)


def difference(model: keras.Model, other: keras.Model) -> float:
    """The largest difference of the outputs, relative to the largest output."""
    batch = random_inputs(model, np.random.default_rng(0))
    ours, theirs = (keras.ops.convert_to_numpy(m(batch, training=False)) for m in (model, other))
    assert ours.dtype == theirs.dtype == "float64"
    # Otherwise no signal reaches the output, and any two models would look alike.
    assert np.ptp(ours, axis=0).max() > 0.01 * np.abs(ours).max()
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())
