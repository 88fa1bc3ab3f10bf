"""The task is read off the model and the labels, or refused in one line."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from saikei.errors import DataError, InputError, ModelError
from saikei.scoring import Task, infer_task, infer_tasks

CLASSES = np.array([0, 1, 2, 1])
ONE_HOT = np.eye(3)[CLASSES]
BITS = np.array([0, 1, 1, 0])
FLAGS = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]])
NUMBERS = np.array([0.5, 1.5, -2.0, 3.0])


def model(units=3, activation=None, *more):
    return keras.Sequential(
        [keras.Input((2,)), layers.Dense(units, activation=activation), *more], name="net"
    )


@pytest.mark.parametrize(
    ("units", "activation", "y", "kind", "sparse", "from_logits"),
    [
        (3, "softmax", CLASSES, "multiclass", True, False),
        (3, "softmax", CLASSES[:, None], "multiclass", True, False),
        (3, "softmax", ONE_HOT, "multiclass", False, False),
        (3, None, CLASSES, "multiclass", True, True),
        (3, None, ONE_HOT, "multiclass", False, True),
        (3, "log_softmax", CLASSES, "multiclass", True, True),
        (1, "sigmoid", BITS, "binary", False, False),
        (1, "sigmoid", BITS[:, None].astype(float), "binary", False, False),
        (1, None, BITS, "binary", False, True),
        (3, "sigmoid", FLAGS, "multilabel", False, False),
        (1, None, NUMBERS, "regression", False, False),
        (1, "softplus", NUMBERS[:, None], "regression", False, False),
        (3, None, FLAGS * 0.5, "regression", False, False),
    ],
)
def test_the_last_activation_and_the_labels_give_the_task(
    units, activation, y, kind, sparse, from_logits
):
    task = infer_task(model(units, activation), y)
    assert (task.kind, task.sparse, task.from_logits) == (kind, sparse, from_logits)


@pytest.mark.parametrize(
    "last",
    [
        [layers.Softmax()],
        [layers.Activation("softmax")],
        [layers.Activation(keras.activations.softmax), layers.Identity()],
        [layers.Softmax(), layers.Reshape((3,)), layers.Activation("linear")],
        [keras.Sequential([layers.Softmax()])],
    ],
)
def test_a_softmax_is_found_however_it_is_written(last):
    task = infer_task(model(3, None, *last), CLASSES)
    assert (task.kind, task.from_logits) == ("multiclass", False)


def test_a_function_of_keras_ops_counts_as_an_activation():
    x = keras.Input((2,))
    net = keras.Model(x, keras.ops.softmax(layers.Dense(3)(x)))
    assert not infer_task(net, CLASSES).from_logits


def test_a_given_or_compiled_loss_wins():
    net = model(1)
    assert infer_task(net, BITS, loss="mse").kind == "regression"
    net.compile(loss="mae")
    task = infer_task(net, BITS)
    assert task.kind == "regression"
    assert isinstance(task.loss, keras.losses.MeanAbsoluteError)
    logits = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert infer_task(model(3, "softmax"), CLASSES, loss=logits).from_logits


def test_pixels_are_classified_like_samples():
    net = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(3, 1, activation="softmax")])
    y = np.zeros((2, 4, 4), int)
    assert infer_task(net, y).sparse
    assert not infer_task(net, np.eye(3)[y]).sparse


def test_each_output_has_its_task():
    x = keras.Input((2,))
    heads = {"kind": layers.Dense(3, activation="softmax")(x), "size": layers.Dense(1)(x)}
    tasks = infer_tasks(keras.Model(x, heads), {"kind": CLASSES, "size": NUMBERS})
    assert [task.kind for task in tasks] == ["multiclass", "regression"]
    listed = infer_tasks(keras.Model(x, list(heads.values())), [CLASSES, NUMBERS])
    assert [task.kind for task in listed] == ["multiclass", "regression"]
    with pytest.raises(DataError, match="named"):
        infer_tasks(keras.Model(x, heads), {"kind": CLASSES, "weight": NUMBERS})
    with pytest.raises(DataError, match="2 outputs"):
        infer_tasks(keras.Model(x, list(heads.values())), [CLASSES])
    with pytest.raises(ModelError, match="infer_tasks"):
        infer_task(keras.Model(x, list(heads.values())), [CLASSES, NUMBERS])


@pytest.mark.parametrize(
    ("net", "y", "message"),
    [
        (model(3, "softmax"), np.zeros((4, 5)), r"shape \(4, 5\) do not fit.*'net'"),
        (model(3, "softmax"), np.array([0, 1, 3, 2]), "from 0 to 3, but .* number the classes"),
        (model(3, "softmax"), np.array([0.5, 1, 2, 1]), "number the classes"),
        (model(3, "sigmoid"), BITS, "a row of 0s and 1s"),
        (model(1, "sigmoid"), np.array([0, 1, 2, 1]), "must be 0 or 1"),
        (model(3), NUMBERS, "whole class numbers"),
        (model(2), np.zeros((4, 3)), "do not fit"),
        (model(3, "softmax"), np.array(["a", "b", "a", "b"]), "not numbers"),
        (model(3, "softmax"), {"a": CLASSES}, "nest the labels"),
    ],
)
def test_labels_of_the_wrong_shape_get_one_line(net, y, message):
    with pytest.raises(DataError, match=message) as caught:
        infer_task(net, y)
    assert "\n" not in str(caught.value)


def test_a_loss_that_needs_other_labels_is_refused():
    with pytest.raises(DataError, match="takes one-hot rows"):
        infer_task(model(3, "softmax"), CLASSES, loss="categorical_crossentropy")
    with pytest.raises(InputError, match="no loss named 'mze'"):
        infer_task(model(1), NUMBERS, loss="mze")


def test_a_subclassed_model_is_refused_by_name():
    class Custom(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="custom"):
        infer_task(Custom(name="custom"), CLASSES)


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_more_is_better_except_for_errors(kind):
    metric = "mse" if kind == "regression" else "accuracy"
    assert Task(kind, None, metric, False, False, 1).greater_is_better == (metric != "mse")


@pytest.mark.parametrize("size", [(4, 6), (None, None)])
def test_labels_of_a_map_are_numbers_or_one_hot_whatever_is_known_of_its_size(size):
    model = keras.Sequential(
        [keras.Input((*size, 2)), keras.layers.Conv2D(3, 1, activation="softmax")]
    )
    numbers = np.arange(48).reshape(2, 4, 6) % 3
    assert infer_task(model, numbers).sparse
    assert infer_task(model, numbers[..., None]).sparse
    assert not infer_task(model, np.eye(3)[numbers]).sparse
