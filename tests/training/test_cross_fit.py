"""`cross_fit` predicts every row by a model that has not seen it, and keeps the models."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.model_selection import TimeSeriesSplit

import saikei as sk
from saikei.errors import DataError, FusionError, InputError, ModelError
from saikei.graph import copy_model
from saikei.training import is_in_sample

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.8)


def net(width=4, units=3):
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(width, activation="relu"),
            layers.Dense(units, activation="softmax"),
        ]
    )


def quick(build=net, data=(X, Y), folds=3, **arguments):
    return sk.cross_fit(
        build, data, folds, epochs=1, learning_rate=1e-3, progress=False, **arguments
    )


def test_each_row_is_predicted_by_the_model_of_its_fold_which_has_not_seen_it():
    made = quick({"narrow": net, "wide": lambda: net(8)})
    assert list(made.members) == ["narrow", "wide"]
    np.testing.assert_array_equal(made.rows, np.arange(60))
    np.testing.assert_array_equal(made.labels[0], Y)
    for name in made.members:
        for number, (member, fold) in enumerate(zip(made.members[name], made.folds, strict=True)):
            np.testing.assert_array_equal(
                np.flatnonzero(made.fold_of == number), np.sort(fold.test)
            )
            assert is_in_sample(member, (X, Y))[fold.train].all()
            assert not is_in_sample(member, (X, Y))[fold.test].any()
            np.testing.assert_allclose(
                made.predictions[name][0][fold.test], member(X[fold.test]), atol=1e-5
            )


def test_a_function_of_the_callers_own_trains_and_is_written_down_too():
    def train(model, data):
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(*data, epochs=1, verbose=0)

    made = sk.cross_fit(net, (X, Y), 2, trainer=train, refit=True)
    assert [int(is_in_sample(m, (X, Y)).sum()) for m in made.members["model"]] == [30, 30]
    assert is_in_sample(made.refitted["model"], (X, Y)).all()


@pytest.mark.long
def test_the_same_seed_gives_the_same_predictions_and_a_dataset_those_of_its_arrays():
    def build():
        keras.utils.set_random_seed(3)
        return net()

    one = quick(build, seed=5)
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(7)
    for other in (quick(build, seed=5), quick(build, dataset, seed=5)):
        np.testing.assert_array_equal(one.predictions["model"][0], other.predictions["model"][0])


def test_time_ordered_folds_leave_the_first_rows_unpredicted():
    made = quick(folds=TimeSeriesSplit(3), data=(X[:40], np.arange(40) % 3))
    assert made.rows.tolist() == list(range(10, 40))
    assert len(made.predictions["model"][0]) == len(made.labels[0]) == len(made.x) == 30


def test_named_inputs_and_two_outputs_are_divided_alike():
    def build():
        a, b = keras.Input((3,), name="a"), keras.Input((1,), name="b")
        joined = layers.Concatenate()([a, b])
        return keras.Model(
            {"a": a, "b": b},
            [layers.Dense(3, activation="softmax")(joined), layers.Dense(1)(joined)],
        )

    made = quick(build, ({"a": X[:, :3], "b": X[:, 3:]}, [Y, X[:, 0]]), folds=2)
    assert [part.shape for part in made.predictions["model"]] == [(60, 3), (60, 1)]
    fold = made.folds[1]
    inputs = {"a": X[fold.test, :3], "b": X[fold.test, 3:]}
    for place, output in enumerate(made.members["model"][1](inputs)):
        np.testing.assert_allclose(made.predictions["model"][place][fold.test], output, atol=1e-5)


def test_models_that_are_not_fresh_are_refused():
    shared = net()
    with pytest.raises(InputError, match="weights of an earlier one"):
        quick(lambda: shared)
    trained = net()
    sk.fit(trained, (X[:30], Y[:30]), epochs=1, learning_rate=1e-3, progress=False)
    with pytest.raises(FusionError, match=r"Model 'model' of fold 1 was trained on \d+ of the 20"):
        quick(lambda: copy_model(trained))
    with pytest.raises(FusionError, match="'trainer' train on the data"):
        sk.cross_fit(
            net,
            (X, Y),
            2,
            trainer=lambda m, _: sk.fit(m, (X, Y), epochs=1, learning_rate=1e-3, verbose=0),
        )


@pytest.mark.long
def test_rows_that_stand_twice_are_no_reason_to_refuse():
    assert len(quick(data=(np.repeat(X[:20], 2, 0), np.repeat(Y[:20], 2))).rows) == 40


def test_bad_input_gets_one_clear_line():
    with pytest.raises(InputError, match="'build' must be a function"):
        quick(net())
    with pytest.raises(InputError, match="seed=-1: give a whole number from 0"):
        quick(seed=-1)
    with pytest.raises(ModelError, match="Expected a keras.Model, got int"):
        quick(lambda: 3)
    with pytest.raises(InputError, match="epochs, learning_rate, progress would go to saikei.fit"):
        quick(trainer=lambda m, d: None)
    with pytest.raises(DataError, match="Class 2 is missing from the training part of fold"):
        quick(data=(X, np.where(np.arange(60) == 7, 2, Y % 2)))
    with pytest.raises(DataError, match="sample weights .* negative"):
        quick(data=(X, Y, -np.ones(60)))
    with pytest.raises(DataError, match="cannot be divided into 61"):
        quick(folds=61)
