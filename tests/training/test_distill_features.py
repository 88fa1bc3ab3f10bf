"""`distill(features=…)` makes the inside of a student like the inside of its teacher."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import saikei as sk
from saikei.distilling import distill, feature_teacher
from saikei.errors import InputError, ModelError, TrainingWarning
from saikei.training import fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 8, 8, 2)).astype("float32")
Y = (X.mean(axis=(1, 2))[:, 0] > 0).astype(int)
LAYERS = ("one", "two")


def net(width=6, seed=0, dropout=0.0, name="net"):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(width, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(momentum=0.5, name="norm"),
            layers.ReLU(name="one"),
            layers.Dropout(dropout, name="drop"),
            layers.Conv2D(2 * width, 3, 2, padding="same", activation="relu", name="two"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(2, activation="softmax", name="answer"),
        ],
        name=name,
    )


def quick(student, teacher, train=(X, Y), validation=None, **arguments):
    defaults = {"epochs": 2, "batch_size": 32, "progress": False, "learning_rate": 0.02}
    defaults["features"] = "auto"
    return distill(student, teacher, train, validation, **{**defaults, **arguments})


def numbers(model):
    return [np.array(weight) for weight in model.get_weights()]


def inside(model, layer):
    found = keras.Model(model.inputs, model.get_layer(layer).output)
    return found.predict_on_batch(X)


def unexplained(student, teacher, layer):
    """How badly the best linear map from the student's channels gives the teacher's."""
    ours, theirs = (inside(one, layer) for one in (student, teacher))
    rows = np.concatenate([ours.reshape(-1, ours.shape[-1]), np.ones((ours[..., 0].size, 1))], 1)
    wanted = theirs.reshape(-1, theirs.shape[-1])
    fitted = rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return ((fitted - wanted) ** 2).mean() / wanted.var(axis=0).mean()


@pytest.mark.long
def test_features_alone_bring_a_narrower_student_closer():
    student, teacher = net(4, seed=2), net(seed=1)
    before = [unexplained(student, teacher, layer) for layer in LAYERS]
    head = student.get_layer("answer").get_weights()
    history = quick(student, teacher, feature_weight=1.0, epochs=40).history
    after = [unexplained(student, teacher, layer) for layer in LAYERS]
    assert all(a < 0.9 * b for a, b in zip(after, before, strict=True)), (before, after)
    assert history["feature_loss"][-1] < history["feature_loss"][0]
    # What lies behind the compared layers has no part in their distance.
    for old, new in zip(head, student.get_layer("answer").get_weights(), strict=True):
        assert np.array_equal(old, new)


@pytest.mark.long
def test_with_equal_widths_the_tensors_themselves_come_closer():
    student, teacher = net(seed=2), net(seed=1)
    before = [np.square(inside(student, one) - inside(teacher, one)).mean() for one in LAYERS]
    quick(student, teacher, feature_weight=1.0, epochs=40)
    after = [np.square(inside(student, one) - inside(teacher, one)).mean() for one in LAYERS]
    assert all(a < 0.5 * b for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("live", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_loss_is_the_weighted_sum_of_its_parts(live):
    train = tf.data.Dataset.from_tensor_slices((X, Y)).batch(96) if live else (X, Y)
    arguments = {"alpha": 0.25, "feature_weight": 0.2, "batch_size": 96}
    history = quick(net(4, seed=2), net(seed=1), train, **arguments).history
    parts = [history[f"{part}_loss"] for part in ("student", "distillation", "feature")]
    expected = [0.8 * (0.25 * a + 0.75 * b) + 0.2 * c for a, b, c in zip(*parts, strict=True)]
    assert history["loss"] == pytest.approx(expected, rel=1e-4)
    assert "accuracy" in history
    assert "total_loss" not in history


@pytest.mark.long
def test_stored_and_live_features_teach_the_same(monkeypatch):
    def history(train):
        # One batch, and slowly: where a gradient is almost zero, Adam makes much of rounding.
        arguments = {"batch_size": 96, "learning_rate": 0.001, "epochs": 3}
        return quick(net(4, seed=2), net(seed=1), train, (X, Y), **arguments).history

    stored = history((X, Y))
    others = [history(tf.data.Dataset.from_tensor_slices((X, Y)).batch(96))]
    monkeypatch.setattr(feature_teacher, "MOST_STORED_BYTES", 1000)
    # Too many to store are asked for at every step.
    monkeypatch.setattr(feature_teacher, "stored_batches", None)
    others.append(history((X, Y)))
    for other in others:
        for part in ("student_loss", "distillation_loss", "feature_loss", "val_loss"):
            assert other[part] == pytest.approx(stored[part], rel=5e-3), part


@pytest.mark.long
def test_projectors_suit_a_student_that_was_just_cut():
    teacher = net(seed=1)
    fit(teacher, (X, Y), epochs=10, progress=False)
    # What normalisation has gathered in the teacher is far from what it sees behind the cut.
    student = sk.PruneChannels(0.4)(teacher)
    student.get_layer("norm").moving_variance.assign(
        [1e4] * student.get_layer("norm").gamma.shape[0]
    )
    history = quick(student, teacher, learning_rate=1e-6, epochs=1, batch_size=96).history
    assert history["feature_loss"][0] < 1.0


@pytest.mark.long
@pytest.mark.parametrize("live", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_teacher_is_not_changed(live):
    train = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32) if live else (X, Y)
    teacher = net(seed=1)
    fit(teacher, (X, Y), epochs=1, learning_rate=1e-3, progress=False)
    before, optimizer = numbers(teacher), teacher.optimizer
    state = [np.asarray(variable) for variable in optimizer.variables]
    quick(net(4, seed=2), teacher, train)
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(teacher), strict=True))
    assert teacher.optimizer is optimizer
    now = [np.asarray(variable) for variable in optimizer.variables]
    assert all(np.array_equal(a, b) for a, b in zip(state, now, strict=True))
    assert all(layer.trainable for layer in teacher.layers)


@pytest.mark.long
def test_nothing_of_the_projectors_stays_with_the_student(tmp_path):
    student, path = net(4, seed=2), tmp_path / "student.keras"
    names = [layer.name for layer in student.layers]
    variables = [(variable.path, tuple(variable.shape)) for variable in student.variables]
    config, nodes = student.get_config(), [len(one._inbound_nodes) for one in student.layers]
    quick(student, net(seed=1), validation=(X, Y))
    assert [layer.name for layer in student.layers] == names
    assert [(one.path, tuple(one.shape)) for one in student.variables] == variables
    assert [len(one._inbound_nodes) for one in student.layers] == nodes
    # Two slots for each trained variable, the step and the rate: the optimizer is the student's.
    assert len(student.optimizer.variables) == 2 + 2 * len(student.trainable_variables)
    assert student.trainable
    assert set(student.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss", "accuracy"}
    assert student.get_config() == config
    # How it is compiled is in its file as well.
    assert "saikei" not in student.to_json()
    student.save(path)
    loaded = keras.saving.load_model(path, safe_mode=True)
    assert [tuple(one.shape) for one in loaded.variables] == [shape for _, shape in variables]


@pytest.mark.long
def test_the_same_seed_gives_the_same_student():
    first, again, other = (net(4, seed=2, dropout=0.5) for _ in range(3))
    for student, seed in ((first, 4), (again, 4), (other, 5)):
        quick(student, net(seed=1), seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(numbers(first), numbers(again), strict=True))
    assert not all(
        np.array_equal(a, b) for a, b in zip(numbers(first), numbers(other), strict=True)
    )


@pytest.mark.long
def test_the_best_epoch_is_kept_and_patience_counts():
    student = net(4, seed=2)
    arguments = {"learning_rate": 0.3, "epochs": 8, "patience": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        found = quick(student, net(seed=1), validation=(X, Y), **arguments)
    losses = [found.start["val_loss"], *found.history["val_loss"]]
    assert len(losses) < 9
    best = student.evaluate(X, Y, verbose=0, return_dict=True)["loss"]
    assert best == pytest.approx(min(losses), rel=1e-4)
    assert found.best_epoch == int(np.argmin(losses))


@pytest.mark.long
def test_a_pruned_student_learns_from_its_nested_original():
    inner = net(name="inner")
    inputs = keras.Input((8, 8, 2))
    hidden = keras.Model(inner.inputs, inner.get_layer("pool").output, name="inner")(inputs)
    teacher = keras.Model(inputs, layers.Dense(2, activation="softmax", name="head")(hidden))
    student = sk.PruneChannels(0.5)(teacher)
    history = quick(student, teacher, feature_weight=1.0, epochs=6).history
    assert history["feature_loss"][-1] < 0.9 * history["feature_loss"][0]


@pytest.mark.long
def test_a_nested_student_is_trained_in_place():
    part = net(4, seed=3)
    inputs = keras.Input((8, 8, 2))
    inner = keras.Model(part.inputs, part.get_layer("pool").output, name="inner")
    student = keras.Model(inputs, layers.Dense(2, activation="softmax")(inner(inputs)))
    before = part.get_layer("first").get_weights()[0]
    history = quick(student, net(seed=1), feature_weight=1.0, epochs=6).history
    assert not np.array_equal(before, part.get_layer("first").get_weights()[0])
    assert history["feature_loss"][-1] < history["feature_loss"][0]


@pytest.mark.parametrize(
    ("nesting", "live"),
    [pytest.param("list", False, marks=pytest.mark.slow), ("dict", True)],
)
def test_several_inputs_and_outputs_are_distilled(nesting, live):
    def model(width, seed):
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
        joined = layers.Concatenate()([a, b])
        hidden = layers.Dense(width, activation="relu", name="hidden")(joined)
        kind = layers.Dense(2, activation="softmax", name="kind")(hidden)
        size = layers.Dense(1, name="size")(hidden)
        if nesting == "list":
            return keras.Model([a, b], [kind, size])
        return keras.Model({"a": a, "b": b}, {"kind": kind, "size": size})

    x, y = (X[:, 0, 0], RNG.normal(size=(96, 3)).astype("float32")), (Y, X[:, 0, 1, 0])
    if nesting == "dict":
        x, y = dict(zip("ab", x, strict=True)), dict(zip(("kind", "size"), y, strict=True))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32) if live else (x, y)
    history = quick(model(4, 2), model(8, 1), data, (x, y), epochs=6).history
    assert history["feature_loss"][-1] < history["feature_loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]


@pytest.mark.long
def test_mixed_precision_is_compared_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        student, teacher = net(4, seed=2), net(seed=1)
    finally:
        keras.config.set_dtype_policy("float32")
    history = quick(student, teacher, feature_weight=1.0, epochs=6).history
    assert history["feature_loss"][-1] < history["feature_loss"][0]


@pytest.mark.long
def test_a_frozen_layer_stays_as_it_is():
    student = net(4, seed=2)
    student.get_layer("first").trainable = False
    before = student.get_layer("first").get_weights()
    quick(student, net(seed=1), feature_weight=1.0)
    after = student.get_layer("first").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.long
def test_zeros_survive_learning_from_features():
    student = sk.Sparsify(0.5)(net(4, seed=2))
    before = [weight == 0 for weight in numbers(student) if weight.ndim > 1]
    quick(student, net(seed=1))
    after = [weight == 0 for weight in numbers(student) if weight.ndim > 1]
    assert sum(zeros.sum() for zeros in before) > 100
    assert all((~new[old]).sum() == 0 for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"feature_weight": 0.0}, "feature_weight=0.0: give a number above 0"),
        ({"feature_weight": 1.5}, "feature_weight=1.5"),
        ({"features": {"one": "none"}}, "'none' of teacher 'net'"),
        ({"features": {"one": "pool"}}, "'one' of the student has 3 axes"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_trained(arguments, message):
    student = net(4, seed=2)
    before = numbers(student)
    with pytest.raises(InputError, match=message):
        quick(student, net(seed=1), **arguments)
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(student), strict=True))


def test_a_model_does_not_teach_itself():
    student = net()
    with pytest.raises(ModelError, match="the same model, 'net'"):
        quick(student, student)
