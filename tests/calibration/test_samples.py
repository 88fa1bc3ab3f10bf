"""Samples out of batches that are padded each to a length of its own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei.calibration.samples import calibration_samples
from saikei.errors import DataError
from saikei.graph import read


class Padded(keras.utils.PyDataset):
    """Batches of 6 sequences, each batch of another length."""

    lengths = (9, 7, 12, 7)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Any:
        shape = (6, self.lengths[index], 3)
        return np.full(shape, index, "float32"), np.full(6, index) % 2


def network(length: int | None) -> keras.Model:
    tensor = keras.Input((length, 3), name="sound")
    x = L.GlobalMaxPooling1D()(L.Conv1D(8, 3, activation="relu", name="conv")(tensor))
    return keras.Model(tensor, L.Dense(2, activation="softmax")(x))


def test_of_batches_of_several_lengths_the_commonest_is_taken() -> None:
    samples = calibration_samples(read(network(None)), Padded())
    assert samples.inputs.shape == (12, 7, 3)
    assert set(samples.inputs[:, 0, 0]) == {1.0, 3.0}
    np.testing.assert_array_equal(samples.labels, np.ones(12))


def test_a_model_of_one_length_still_refuses_them() -> None:
    with pytest.raises(DataError, match="shape"):
        calibration_samples(read(network(9)), Padded())


def test_a_cut_takes_batches_of_several_lengths() -> None:
    model = network(None)
    small = sk.PruneChannels(sk.Budget(macs=0.5))(model, Padded())
    shape = {"sound": (9, 3)}
    before, after = (sk.profile(m, latency=False, input_shape=shape).macs for m in (model, small))
    assert after <= 0.5 * before
