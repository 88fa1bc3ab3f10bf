"""The oracle over small architectures, on whichever backend is in use."""

from __future__ import annotations

from collections.abc import Callable

import keras
import pytest
from keras import layers as L

from saikei.testing import assert_cuts_exactly
from tests.edits.depth_nets import encoder, finished, inverted, post_activation

pytestmark = pytest.mark.backends


def transformer() -> keras.Model:
    return encoder(norm_first=False)


def recurrent() -> keras.Model:
    """Steps of a sequence, read forwards and backwards, one layer's state begun by another's."""
    keras.utils.set_random_seed(0)
    x = steps = keras.Input((5, 3))
    x = L.Conv1D(6, 3, padding="causal", activation="relu")(x)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True))(x)
    _, state = L.GRU(5, return_state=True)(x)
    x = L.GRU(5)(x, initial_state=state)
    return finished(steps, L.Dense(3)(L.LayerNormalization()(x)))


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("architecture", "readers"),
    [
        *((each, True) for each in (post_activation, inverted, transformer, recurrent)),
        *((each, False) for each in (post_activation, recurrent)),
        *(pytest.param(each, False, marks=pytest.mark.slow) for each in (inverted, transformer)),
    ],
)
def test_a_third_of_the_silent_channels_goes_without_a_trace(
    architecture: Callable[[], keras.Model], readers: bool
) -> None:
    check = assert_cuts_exactly(architecture(), share=1 / 3, seed=1, readers=readers)
    assert check.cut >= 0.15 * check.total
    # Otherwise no signal reaches the output, and any cut would look exact.
    assert check.spread > 0.01
