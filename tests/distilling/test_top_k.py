"""The likeliest classes of a teacher's predictions teach almost what all of them would."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from saikei.distilling import StoredTeacher, TopK, distill
from saikei.errors import DataError, InputError

RNG = np.random.default_rng(0)
VOCABULARY, LENGTH = 40, 6
X = RNG.integers(1, VOCABULARY, (48, LENGTH)).astype("int32")
# Sequences of other lengths, padded with zeros.
X[::3, 4:] = 0
Y = np.roll(X, -1, axis=1)


def net(seed, activation=None, width=16):
    """Tokens to the next tokens, with masks of padding."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((LENGTH,), dtype="int32")
    y = layers.Embedding(VOCABULARY, width, mask_zero=True)(inputs)
    y = layers.Dense(width, activation="relu")(y)
    initializer = keras.initializers.RandomNormal(stddev=0.7)
    y = layers.Dense(VOCABULARY, activation, kernel_initializer=initializer)(y)
    return keras.Model(inputs, y)


def losses(student, teacher, train=(X, Y), **arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=student.layers[-1].activation is not keras.activations.softmax
    )
    defaults = {"epochs": 2, "batch_size": 16, "progress": False, "learning_rate": 0.01}
    history = distill(student, teacher, train, loss=loss, **{**defaults, **arguments}).history
    return [*history["distillation_loss"], *history["loss"]]


@pytest.fixture(scope="module")
def whole():
    return losses(net(2), net(1))


@pytest.mark.long
@pytest.mark.parametrize(
    ("rest", "kind"),
    [
        ("spread", "arrays"),
        ("renormalise", "shuffled"),
        pytest.param("spread", "shuffled", marks=pytest.mark.long),
        pytest.param("renormalise", "arrays", marks=pytest.mark.long),
    ],
)
def test_all_classes_teach_what_the_whole_outputs_teach(rest, kind, whole):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(48, seed=1).batch(16)
    stored = StoredTeacher.of(net(1), data if kind == "shuffled" else (X, Y), VOCABULARY, rest)
    assert losses(net(2), stored) == pytest.approx(whole, rel=1e-3)


def test_probabilities_are_stored_as_logits_are():
    log_p = [
        StoredTeacher.of(net(1, activation), X, top_k=5).outputs[0]
        for activation in (None, "softmax")
    ]
    np.testing.assert_allclose(np.sort(log_p[0]), np.sort(log_p[1]), rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("rest", ["spread", "renormalise"])
def test_the_divergence_is_that_of_the_written_out_distributions(rest, temperature):
    stored = StoredTeacher.of(net(1), X, 7, rest)
    log_p, numbers = stored.outputs
    assert log_p.shape == numbers.shape == (48, LENGTH, 7)
    student = RNG.standard_normal((48, LENGTH, VOCABULARY)).astype("float32")
    p = stored.of_rows(X)[0].astype("float64")
    np.testing.assert_allclose(np.take_along_axis(p, numbers, -1).sum(-1) <= 1 + 1e-6, True)
    q = p ** (1 / temperature)
    q /= q.sum(-1, keepdims=True)
    s = keras.ops.convert_to_numpy(keras.ops.log_softmax(student / temperature))
    terms = np.where(q > 0, q * (np.log(np.maximum(q, 1e-300)) - s), 0)
    found = stored.top_k.divergence(0, log_p, numbers, student, temperature)
    np.testing.assert_allclose(found, terms.sum(-1), rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_the_loss_nears_the_whole_one_as_classes_are_added(whole):
    errors = [abs(losses(net(2), net(1), top_k=k)[0] / whole[0] - 1) for k in (2, 12, VOCABULARY)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


def test_a_token_takes_eight_bytes_for_each_class_that_is_kept():
    stored = StoredTeacher.of(net(1), X, top_k=4)
    assert sum(array.nbytes for array in stored.outputs) == X.size * 4 * 8


def test_a_stored_teacher_is_saved_with_the_rows_that_it_belongs_to(tmp_path):
    stored = StoredTeacher.of(net(1), X, top_k=4, rest="renormalise")
    loaded = StoredTeacher.load(stored.save(tmp_path / "teacher"))
    assert loaded.top_k == stored.top_k and loaded.from_logits == stored.from_logits
    for ours, theirs in zip(loaded.outputs, stored.outputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # In any order.
    rows = np.arange(len(X))[::-1]
    np.testing.assert_array_equal(loaded.of_rows(X[rows]), stored.of_rows(X)[0][None, rows])
    with pytest.raises(InputError, match="exists"):
        stored.save(tmp_path / "teacher")
    whole = StoredTeacher.of(net(1), X)
    again = StoredTeacher.load(whole.save(tmp_path / "whole"))
    np.testing.assert_array_equal(again.outputs, whole.outputs)


@pytest.mark.long
def test_a_saved_teacher_teaches_like_the_model(tmp_path):
    loaded = StoredTeacher.load(StoredTeacher.of(net(1), X, top_k=4).save(tmp_path / "teacher"))
    assert losses(net(2), loaded) == pytest.approx(losses(net(2), net(1), top_k=4), rel=1e-5)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The train data holds no labels")
def test_students_learn_from_the_likeliest_classes_alone():
    found = losses(net(2, "softmax"), net(1, "softmax"), X, top_k=8, epochs=4)
    assert found[3] < found[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": VOCABULARY + 1}, "at least 41 exclusive classes"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 4, "teacher_predictions": "live"}, "leave out features"),
        ({"top_k": 4, "features": "auto"}, "leave out features"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        losses(net(2), net(1), **arguments)


def test_arrays_that_do_not_fit_are_refused():
    log_p, numbers = StoredTeacher.of(net(1), X, top_k=4).outputs
    for outputs, classes in [((log_p,), 40), ((log_p, log_p), 40), ((log_p, numbers), 9)]:
        with pytest.raises(DataError, match="two arrays|classes="):
            StoredTeacher(outputs, top_k=TopK((classes,)))
