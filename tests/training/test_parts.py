"""A training in parts gives bit for bit what the whole training gives at once."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from saikei.distilling import StoredTeacher, train_part
from saikei.errors import DataError, InputError
from saikei.training.parts import TrainingSettings
from saikei.training.schedules import StableRate, stable_by_epoch

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 4, 2)).astype("float32")
CLASSES = (X[:, 0, 0] > 0).astype(int) + (X[:, 1, 1] > 0)
FIGURES = X[:, :2, 0]
WEIGHTS = RNG.uniform(0.5, 2, 96).astype("float32")
HELD_OUT = slice(64, None)
PLAIN = TrainingSettings(learning_rate=0.02, batch_size=16)


def net(*hidden, seed=0):
    keras.utils.set_random_seed(seed)
    given = [keras.Input((4, 2)), *(hidden or [layers.Flatten()])]
    return keras.Sequential([*given, layers.Dense(3, activation="softmax")], name="net")


def dense():
    """Zeros that are kept, zeros that a constraint makes, and everything that has a state."""
    # Keras draws a dropout without a seed from torch's global generator, out of reach.
    seed = 5 if keras.backend.backend() == "torch" else None
    keras.utils.set_random_seed(0)
    model = net(
        layers.Flatten(),
        layers.Dense(16, activation="relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.3, seed=seed),
        layers.Dense(8, activation="relu", kernel_constraint="non_neg"),
        layers.Dropout(0.1, seed=7),
    )
    kernel, bias = model.layers[1].get_weights()
    kernel[np.random.default_rng(1).random(kernel.shape) < 0.5] = 0
    model.layers[1].set_weights([kernel, bias])
    return model


def recurrent():
    """An LSTM with dropout, and two outputs."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 2))
    hidden = layers.LSTM(5, dropout=0.2, seed=1)(inputs)
    kind = layers.Dense(3, activation="softmax")(hidden)
    return keras.Model(inputs, {"kind": kind, "size": layers.Dense(2)(hidden)}, name="two")


class Rotating(keras.utils.PyDataset):
    """Rows that begin at another place in each epoch."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.shift = x, y, 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = (np.arange(16) + 16 * index + self.shift) % len(self.x)
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.shift += 5


def arrays(model, rows, weighted=False):
    y = {"kind": CLASSES[rows], "size": FIGURES[rows]} if model.name == "two" else CLASSES[rows]
    return (X[rows], y, WEIGHTS[rows]) if weighted else (X[rows], y)


def trained(make, ends, train=None, settings=PLAIN, teacher=None, total=None, state=None):
    """The state and the model after all parts, each on a model that is made anew."""
    for end in ends:
        model = make()
        data = train if train is not None else arrays(model, slice(0, 64))
        held_out = arrays(model, HELD_OUT)
        state, _ = train_part(
            model,
            teacher,
            data,
            held_out,
            settings,
            state=state,
            until=end,
            total=total or ends[-1],
            seed=3,
        )
        state = pickle.loads(pickle.dumps(state))
    return state, model


def fingerprint(state, model):
    parts = (state.weights, state.optimizer, state.best_weights, model.get_weights())
    figures = (state.epoch, state.best_epoch, state.best_loss, state.learning_rate, state.held)
    return [[one.tobytes() for one in part] for part in parts], figures


def assert_parts_are_the_whole(make, ends=(1, 4), **arguments):
    whole = fingerprint(*trained(make, ends[-1:], **arguments))
    assert fingerprint(*trained(make, ends, **arguments)) == whole


TEACHER = net()
STORED = StoredTeacher.of(TEACHER, X)


@pytest.mark.long
@pytest.mark.backends
@pytest.mark.parametrize("make", [dense, recurrent])
def test_parts_give_what_the_whole_gives(make):
    assert_parts_are_the_whole(make)


@pytest.mark.long
@pytest.mark.parametrize(
    ("settings", "teacher"),
    [
        (
            replace(PLAIN, optimizer="adamw", weight_decay=0.01, label_smoothing=0.1, mixup=0.4),
            STORED,
        ),
        pytest.param(
            replace(PLAIN, learning_rate=None, optimizer="sgd", decay=0.5),
            TEACHER,
            marks=pytest.mark.long,
        ),
    ],
    ids=["smoothed_and_mixed", "found_rate"],
)
def test_parts_give_what_the_whole_gives_with_every_setting(settings, teacher):
    train = arrays(TEACHER, slice(0, 64), weighted=True)
    assert_parts_are_the_whole(dense, train=train, settings=settings, teacher=teacher)


def batched():
    return tf.data.Dataset.from_tensor_slices((X[:64], CLASSES[:64])).batch(16)


@pytest.mark.parametrize(
    ("train", "teacher"),
    [
        pytest.param(batched().filter(lambda *_: True), STORED, marks=pytest.mark.long),
        pytest.param(Rotating(X[:64], CLASSES[:64]), STORED, marks=pytest.mark.long),
        pytest.param(batched(), None, marks=pytest.mark.slow),
        pytest.param(Rotating(X[:64], CLASSES[:64]), None, marks=pytest.mark.slow),
    ],
    ids=["unknown_length", "py_dataset", "tf_data_alone", "py_dataset_alone"],
)
def test_parts_give_what_the_whole_gives_for_datasets(train, teacher):
    assert_parts_are_the_whole(dense, train=train, teacher=teacher)


@pytest.mark.long
@pytest.mark.backends
def test_a_part_in_a_new_process_gives_the_same(tmp_path):
    whole = fingerprint(*trained(dense, [3]))
    first, _ = trained(dense, [1], total=3)
    (tmp_path / "state").write_bytes(pickle.dumps(first))
    code = f"""
import pickle, pathlib
from tests.training.test_parts import *
state = pickle.loads(pathlib.Path({str(tmp_path / "state")!r}).read_bytes())
made = fingerprint(*trained(dense, [3], state=state))
pathlib.Path({str(tmp_path / "made")!r}).write_bytes(pickle.dumps(made))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert pickle.loads((tmp_path / "made").read_bytes()) == whole


def test_before_the_rate_falls_the_state_does_not_depend_on_the_total():
    short, long = (trained(net, [3], total=total)[0] for total in (5, 40))
    assert all(map(np.array_equal, short.weights, long.weights))


def test_the_rate_rises_is_constant_and_falls():
    rate = StableRate(0.1, steps=10, began=0, total=10, decay=0.4)
    rates = np.array([float(rate(step)) for step in range(100)])
    assert (np.diff(rates[:5]) > 0).all()
    np.testing.assert_allclose(rates[4:60], 0.1, rtol=1e-6)
    assert (np.diff(rates[60:]) < 0).all()
    assert 0 < rates[-1] < 0.002
    # After a restart it rises again, and falls at the same epochs.
    again = StableRate(0.1, steps=10, began=3, total=10, decay=0.4)
    np.testing.assert_allclose([float(again(step)) for step in range(4, 70)], rates[34:], rtol=1e-5)
    # A step down each epoch where the number of batches is not known.
    by_epoch = stable_by_epoch(0.1, total=10, decay=0.4).schedule
    np.testing.assert_allclose([by_epoch(epoch, 0.0) for epoch in range(6)], 0.1)
    assert 0 < by_epoch(9, 0.0) < by_epoch(6, 0.0) < 0.1


def test_training_never_makes_it_worse():
    model = net()
    before = model.get_weights()
    ruinous = replace(PLAIN, learning_rate=10.0, optimizer="sgd")
    state, curves = train_part(
        model, None, arrays(model, slice(0, 64)), arrays(model, HELD_OUT), ruinous, until=2, total=2
    )
    assert state.best_epoch == 0
    assert min(curves["val_loss"]) > state.best_loss == state.start["val_loss"]
    assert all(map(np.array_equal, before, model.get_weights()))
    again = state.again(1e-3, epoch=2)
    assert all(map(np.array_equal, again.weights, before))


@pytest.mark.long
def test_zeros_that_are_kept_stay_zero_in_every_part():
    zeros = dense().get_weights()[0] == 0
    state, model = trained(dense, [1, 2], total=2)
    assert state.held == (0,)
    assert (state.weights[0][zeros] == 0).all()
    assert (model.get_weights()[0][zeros] == 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"until": 0}, "until=0: give a whole number from 1"),
        ({"until": 3}, "from 1 to 2"),
        ({"validation": None}, "needs validation data"),
        ({"settings": replace(PLAIN, mixup=0.2), "train": batched()}, "mixup=0.2 needs training"),
        ({"settings": replace(PLAIN, mixup=0.2), "loss": lambda y, p: p}, "a loss of Keras"),
    ],
)
def test_what_cannot_be_done_is_refused(changes, message):
    model = net()
    arguments = {
        "train": arrays(model, slice(0, 64)),
        "validation": arrays(model, HELD_OUT),
        "settings": PLAIN,
        "until": 1,
        "total": 2,
    } | changes
    with pytest.raises((InputError, DataError), match=message):
        train_part(model, None, **arguments)


@pytest.mark.parametrize(
    "settings", [{"optimizer": "adamm"}, {"mixup": -1}, {"decay": 2}, {"temperature": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        TrainingSettings(**settings)


def test_settings_go_through_json():
    assert TrainingSettings.from_dict(PLAIN.to_dict()) == PLAIN
