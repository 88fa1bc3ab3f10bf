"""Which rows a model was trained on is known, inherited, and asked before a fusion is fitted."""

from __future__ import annotations

import gc
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import saikei as sk
from saikei.errors import DataError, FusionError, ModelError
from saikei.graph import copy_model, fresh_model, lineage
from saikei.training import check_held_out, inherit_rows, is_in_sample
from saikei.training.provenance import training_rows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 4)).astype("float32")
Y = (X[:, 0] > 0).astype(int)
TRAIN, HELD_OUT = (X[:60], Y[:60]), (X[60:], Y[60:])


def net(seed=0, name="net"):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(2, activation="softmax", name="head"),
        ],
        name=name,
    )


def trained(data=TRAIN, **arguments):
    model = net()
    sk.fit(model, data, epochs=1, learning_rate=1e-3, progress=False, **arguments)
    return model


@cache
def known():
    """A model that was trained on `TRAIN`, for tests that leave it as it is."""
    return trained()


def in_sample(model, x=X):
    return int(is_in_sample(model, (x, np.zeros(len(x)))).sum())


def pipeline(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(60, seed=0).batch(16)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return X[index * 15 : index * 15 + 15], Y[index * 15 : index * 15 + 15]


@pytest.mark.parametrize("data", [TRAIN, pipeline(*TRAIN), Batches()], ids=["arrays", "tf", "py"])
def test_fit_writes_down_exactly_the_rows_it_trains_on(data):
    model = trained(data)
    np.testing.assert_array_equal(is_in_sample(model, (X, Y)), np.arange(90) < 60)


def test_validation_rows_are_not_training_rows():
    model = trained(validation=HELD_OUT)
    assert in_sample(model, HELD_OUT[0]) == 0
    check_held_out([model], HELD_OUT)


@pytest.mark.long
def test_a_second_training_adds_its_rows_and_the_same_rows_do_not_pile_up():
    model = trained((X[:20], Y[:20]))
    for _ in range(2):
        sk.fit(model, (X[20:30], Y[20:30]), epochs=1, learning_rate=1e-3, progress=False)
    assert in_sample(model) == 30
    assert len(training_rows(model)) == 2


def test_training_that_fails_counts_too():
    model = net()
    with pytest.raises(sk.SaikeiError, match="no longer a number"):
        sk.fit(model, (X[:20] * 1e30, Y[:20]), epochs=2, progress=False, learning_rate=1e30)
    assert in_sample(model, X[:20] * np.float32(1e30)) == 20


def test_a_student_is_in_sample_on_its_rows_and_its_teachers():
    student = net()
    sk.distill(student, known(), (X[60:70], Y[60:70]), epochs=1, learning_rate=3e-3, progress=False)
    assert in_sample(student) == 70


@pytest.mark.parametrize(
    "derive",
    [
        copy_model,
        lambda model: sk.PruneChannels(0.5)(model),
        lambda model: sk.Recipe([sk.PruneChannels(0.5), sk.Factorize(keep=0.5)])(model),
        lambda model: sk.Average()([net(1), model]),
        lambda model: sk.Average((0.4, 0.6))([net(1), model]),
        lambda model: keras.Model(model.inputs, model.get_layer("hidden").output),
        lambda model: keras.Sequential([keras.Input((4,)), model]),
    ],
    ids=["copy", "prune", "recipe", "mean", "weighted", "features", "nested"],
)
def test_what_is_made_of_a_model_inherits_its_rows(derive):
    model = known()
    assert in_sample(derive(model)) == 60
    assert in_sample(model) == 60


def test_what_is_made_before_training_or_from_fresh_weights_is_held_out():
    model = net()
    copy = copy_model(model)
    sk.fit(model, TRAIN, epochs=1, learning_rate=1e-3, progress=False)
    assert in_sample(copy) == 0
    assert in_sample(fresh_model(model, seed=1)) == 0


def test_frozen_layers_that_models_share_carry_nothing():
    backbone = keras.Sequential([keras.Input((4,)), layers.Dense(8, activation="relu")])
    backbone.trainable = False

    def headed():
        return keras.Sequential(
            [keras.Input((4,)), backbone, layers.Dense(2, activation="softmax")]
        )

    one, other = headed(), headed()
    sk.fit(one, TRAIN, epochs=1, learning_rate=1e-3, progress=False)
    assert (in_sample(one), in_sample(other), in_sample(backbone)) == (60, 0, 0)
    backbone.trainable = True
    sk.fit(one, TRAIN, epochs=1, learning_rate=1e-3, progress=False)
    assert in_sample(other) == 60


def test_a_loaded_model_has_no_known_past_until_it_is_declared(tmp_path):
    known().save(tmp_path / "m.keras")
    model = keras.models.load_model(tmp_path / "m.keras")
    assert in_sample(model) == 0
    sk.declare_training_rows(model, TRAIN)
    assert in_sample(model) == 60
    with pytest.raises(ModelError, match="keras.Model"):
        sk.declare_training_rows("m.keras", TRAIN)
    for wrong, message in (((X[:, :1], Y), "shape"), ((np.full_like(X, np.nan), Y), "NaN")):
        with pytest.raises(DataError, match=message):
            sk.declare_training_rows(model, wrong)


def test_rows_can_be_handed_on_by_hand():
    other = net(1)
    inherit_rows(other, [known(), net(2)])
    assert in_sample(other) == 60


@pytest.mark.long
def test_what_is_known_goes_with_the_model():
    gc.collect()
    before = len(lineage._marks)
    model = trained()
    assert len(lineage._marks) > before
    del model
    keras.backend.clear_session()
    gc.collect()
    assert len(lineage._marks) <= before


def test_a_fit_on_rows_of_a_member_is_refused_by_its_name():
    members = [net(1, "clean"), known()]
    check_held_out(members, HELD_OUT)
    mixed = (X[50:], Y[50:])
    message = r"Member 2 \('net'\) was trained on 10 of these 40 rows \(by fit\)"
    with pytest.raises(FusionError, match=message) as caught:
        check_held_out(members, mixed)
    for fix in ("cross_fit", "allow_in_sample=True", "no member was trained on"):
        assert fix in str(caught.value)
    check_held_out(members, mixed, allow_in_sample=True)
    with pytest.raises(FusionError, match="20 of these 20"):
        check_held_out(members, pipeline(X[:20], Y[:20]))


def test_learned_weights_are_refused_on_rows_of_a_member_and_counted_as_a_fit():
    members = [net(1), known()]
    with pytest.raises(FusionError, match="Member 2"):
        sk.Average("learn")(members, TRAIN)
    with pytest.raises(FusionError, match="Member 2"):
        sk.Average("learn").fuse(members, TRAIN)
    sk.Average("learn")(members, TRAIN, allow_in_sample=True)
    fused = sk.Average("learn")(members, HELD_OUT)
    assert in_sample(fused) == 90
    assert sk.Average()(members, TRAIN) is not None
