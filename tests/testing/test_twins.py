"""The oracle's stand-ins for operations over channels."""

from __future__ import annotations

import keras
import pytest
from keras import layers as L
from keras import ops

from saikei.testing import assert_cuts_exactly, randomise_statistics

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("normalisation", [L.LayerNormalization, L.GroupNormalization])
def test_steps_that_are_masked_stay_so_behind_a_normalisation(normalisation: type) -> None:
    keras.utils.set_random_seed(0)
    sequence = keras.Input((6, 4))
    first_steps = ops.cast(ops.less(ops.arange(6), 3), "float32")[:, None]
    x = L.Dense(8)(L.Masking()(sequence * first_steps))
    x = normalisation(**({} if normalisation is L.LayerNormalization else {"groups": 2}))(x)
    model = keras.Model(sequence, L.Dense(3)(L.GlobalAveragePooling1D()(x)))
    randomise_statistics(model)
    check = assert_cuts_exactly(model, share=0.4)
    assert check.cut and check.spread > 0.01
