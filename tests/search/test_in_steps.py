"""A deep cut in steps keeps its budget at the end, and is refused where no step is possible."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.errors import InputError

BUDGET = sk.Budget(macs=0.15)


@functools.cache
def trained() -> tuple[keras.Model, tuple[np.ndarray, np.ndarray]]:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    y = (np.abs(x[:, :2]).sum(axis=1) > 1.5).astype("int32")
    layers = [keras.layers.Dense(width, "relu") for width in (32, 32)]
    model = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(2, "softmax")])
    sk.fit(model, (x, y), epochs=3, batch_size=32, learning_rate=0.01, progress=False)
    return model, (x, y)


def test_each_step_leaves_the_same_share_and_the_last_one_the_budget() -> None:
    model, data = trained()
    epochs: list[int] = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            epochs.append(epoch)

    before = model.get_weights()
    edit = sk.PruneChannels(BUDGET)
    small = sk.cut_in_steps(
        model, edit, data, steps=2, epochs=5, progress=False, callbacks=[Note()]
    )
    whole, left = (sk.profile(one, latency=False).macs for one in (model, small))
    assert 0.1 * whole < left <= 0.15 * whole
    assert len(epochs) == 5
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("edit", "options", "message"),
    [
        (sk.PruneChannels(0.5), {}, "has no budget that steps"),
        (sk.PruneChannels(sk.Budget(latency=0.5)), {}, "limits the latency"),
        (sk.PruneChannels(BUDGET), {"steps": 3, "epochs": 2}, "epochs"),
        (sk.PruneChannels(sk.Budget(macs=1.0)), {}, "keeps the budget"),
    ],
)
def test_what_no_steps_lead_to_is_refused(
    edit: sk.PruneChannels, options: dict[str, int], message: str
) -> None:
    model, data = trained()
    with pytest.raises(InputError, match=message):
        sk.cut_in_steps(model, edit, data, progress=False, **options)
