"""`distill` moves a student towards its teacher and leaves the teacher alone."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from saikei.distilling import StoredTeacher, distill
from saikei.distilling.distances import SoftTargets
from saikei.distilling.distiller import LiveDistiller
from saikei.distilling.teachers import check_suited
from saikei.errors import DataError, InputError, ModelError
from saikei.scoring import Task
from saikei.training import fit

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 4)).astype("float32")
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def net(units=3, activation="softmax", seed=0, width=8, name="net"):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(width, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(units, activation=activation),
        ],
        name=name,
    )


def quick(student, teacher, train, validation=None, **arguments):
    defaults = {"epochs": 2, "batch_size": 32, "progress": False, "learning_rate": 0.02}
    return distill(student, teacher, train, validation, **{**defaults, **arguments})


def weights(model):
    return [weight.tobytes() for weight in model.get_weights()]


def softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1).mean()


def distance(kind, teacher, student, temperature, from_logits=(False, False)):
    tasks = [
        Task(kind, keras.losses.MeanSquaredError(), "accuracy", logits, False, 3)
        for logits in from_logits
    ]
    loss = SoftTargets([tasks[1]], [tasks[0]], temperature)
    tensors = (keras.ops.convert_to_tensor(one, "float32") for one in (teacher, student))
    return float(keras.ops.convert_to_numpy(loss.compute_loss(*tensors)))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("from_logits", [(False, False), (True, False), (False, True)])
def test_the_distance_of_classes_is_hintons(temperature, from_logits):
    z = RNG.normal(size=(2, 20, 3))
    teacher, student = (
        one if logits else softmax(one) for one, logits in zip(z, from_logits, strict=True)
    )
    expected = temperature**2 * kl(softmax(z[0] / temperature), softmax(z[1] / temperature))
    found = distance("multiclass", teacher, student, temperature, from_logits)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_the_distance_of_yes_or_no_is_the_mean_over_labels(kind):
    z = RNG.normal(size=(2, 20, 3))
    p = [1 / (1 + np.exp(-one / 2)) for one in z]
    pairs = [np.stack([1 - one, one], axis=-1) for one in p]
    found = distance(kind, *(1 / (1 + np.exp(-one)) for one in z), 2.0)
    assert found == pytest.approx(4 * kl(*pairs), rel=1e-3)


def test_the_distance_of_numbers_is_the_tasks_loss():
    a, b = RNG.normal(size=(2, 20, 3))
    assert distance("regression", a, b, 2.0) == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)


def test_a_certain_teacher_gives_finite_gradients():
    certain = np.eye(3)[:2]
    assert np.isfinite(distance("multiclass", certain, certain[::-1], 1.0))
    assert distance("multiclass", certain, certain, 4.0) == pytest.approx(0, abs=1e-6)


TASKS = [
    (3, "softmax", CLASSES),
    (3, "softmax", np.eye(3)[CLASSES]),
    (3, None, CLASSES),
    (1, "sigmoid", CLASSES > 0),
    (3, "sigmoid", X[:, :3] > 0),
    (2, None, X[:, :2]),
]


@pytest.mark.parametrize(
    ("units", "activation", "y", "live"),
    [
        (*TASKS[0], True),
        (*TASKS[5], False),
        *(
            pytest.param(*task, live, marks=pytest.mark.slow)
            for number, task in enumerate(TASKS)
            for live in (False, True)
            if (number, live) not in ((0, True), (5, False))
        ),
    ],
)
def test_a_student_learns_from_its_teacher_alone(units, activation, y, live):
    teacher, student = net(units, activation, seed=1), net(units, activation, seed=2, width=16)
    data = tf.data.Dataset.from_tensor_slices((X, y)).batch(32) if live else (X, y)
    before = weights(teacher)
    history = quick(student, teacher, data, alpha=0.0, epochs=8, learning_rate=0.05).history
    assert history["distillation_loss"][-1] < 0.5 * history["distillation_loss"][0]
    assert weights(teacher) == before
    assert teacher.trainable
    assert all(layer.trainable for layer in teacher.layers)


@pytest.mark.long
def test_stored_and_live_teachers_teach_the_same():
    teacher = net(seed=1)
    stored, live = net(seed=2), net(seed=2)
    batches = tf.data.Dataset.from_tensor_slices((X, CLASSES)).batch(96)
    quick(stored, teacher, (X, CLASSES), batch_size=96, epochs=3)
    quick(live, teacher, batches, epochs=3)
    for a, b in zip(stored.get_weights(), live.get_weights(), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.parametrize(
    ("nesting", "live"),
    [
        ("dict", True),
        pytest.param("list", False, marks=pytest.mark.slow),
        pytest.param("list", True, marks=pytest.mark.slow),
        pytest.param("dict", False, marks=pytest.mark.slow),
    ],
)
def test_several_inputs_and_outputs_are_distilled(nesting, live):
    def model(seed):
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        joined = layers.Concatenate()([a, b])
        kind = layers.Dense(3, activation="softmax", name="kind")(joined)
        size = layers.Dense(1, name="size")(joined)
        if nesting == "list":
            return keras.Model([a, b], [kind, size])
        return keras.Model({"a": a, "b": b}, {"kind": kind, "size": size})

    x, y = (X[:, :2], X[:, 2:]), (CLASSES, X[:, 0])
    if nesting == "dict":
        x, y = dict(zip("ab", x, strict=True)), dict(zip(("kind", "size"), y, strict=True))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32) if live else (x, y)
    history = quick(model(2), model(1), data, (x, y), epochs=4).history
    assert history["loss"][-1] < history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]


class Distilled(NamedTuple):
    student: keras.Model
    names: list[str]
    teacher: keras.Model
    optimizer: keras.optimizers.Optimizer
    state: list[bytes]
    history: dict[str, list[float]]


@pytest.fixture(scope="module")
def distilled():
    """A student of a teacher that is compiled and trained, and how both were before."""
    teacher, student = net(seed=1), net(seed=2, name="student")
    teacher.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    teacher.train_on_batch(X, CLASSES)
    optimizer = teacher.optimizer
    state = [np.asarray(variable).tobytes() for variable in optimizer.variables]
    names = [variable.path for variable in student.variables]
    arguments = {"alpha": 0.25, "batch_size": 96, "learning_rate": 0.01, "seed": 4}
    history = quick(student, teacher, (X, CLASSES), (X, CLASSES), **arguments).history
    return Distilled(student, names, teacher, optimizer, state, history)


def test_the_loss_is_the_weighted_sum_of_its_parts(distilled):
    history = distilled.history
    parts = zip(history["student_loss"], history["distillation_loss"], strict=True)
    assert history["loss"] == pytest.approx([0.25 * a + 0.75 * b for a, b in parts], rel=1e-4)


def test_with_the_labels_alone_it_is_fit():
    distilled, fitted = net(seed=2), net(seed=2)
    quick(distilled, net(seed=1), (X, CLASSES), alpha=1.0, seed=3)
    fit(fitted, (X, CLASSES), epochs=2, batch_size=32, learning_rate=0.02, seed=3, progress=False)
    for a, b in zip(distilled.get_weights(), fitted.get_weights(), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("live", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_regularisers_count_as_in_fit(live):
    def regularised():
        model = net(seed=2)
        dense = layers.Dense(8, kernel_regularizer=keras.regularizers.L2(0.5), name="dense")
        return keras.Sequential([keras.Input((4,)), dense, *model.layers[1:]])

    data = tf.data.Dataset.from_tensor_slices((X, CLASSES)).batch(96) if live else (X, CLASSES)
    students = [regularised() for _ in range(2)]
    students[1].set_weights(students[0].get_weights())
    distilled = quick(students[0], net(seed=1), data, alpha=1.0, batch_size=96, epochs=4).history
    arguments = {"epochs": 4, "batch_size": 96, "learning_rate": 0.02, "progress": False}
    fitted = fit(students[1], data, **arguments).history
    assert distilled["loss"] == pytest.approx(fitted["loss"], rel=1e-3)
    assert fitted["loss"][0] > 1.5


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces steps")
@pytest.mark.parametrize("live", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_step_is_traced_once(monkeypatch, live):
    traced = []
    compute_loss = LiveDistiller.compute_loss
    monkeypatch.setattr(
        LiveDistiller, "compute_loss", lambda *a, **k: traced.append(1) or compute_loss(*a, **k)
    )
    data = tf.data.Dataset.from_tensor_slices((X, CLASSES)).batch(32) if live else (X, CLASSES)
    # Without validation, states are compared by losses that are computed step by step.
    quick(net(seed=2), net(seed=1), data, (X, CLASSES))
    assert len(traced) == 1


def test_the_same_seed_gives_the_same_student():
    first, again = net(seed=2), net(seed=2)
    for student in (first, again):
        quick(student, net(seed=1), (X, CLASSES), seed=4)
    assert weights(first) == weights(again)


def test_nothing_of_the_distiller_stays_with_the_student(distilled, tmp_path):
    student = distilled.student
    assert [variable.path for variable in student.variables] == distilled.names
    assert student.trainable
    assert float(student.optimizer.learning_rate) == pytest.approx(0.01)
    found = student.evaluate(X, CLASSES, verbose=0, return_dict=True)
    assert set(found) == {"loss", "accuracy"}
    assert found["loss"] == pytest.approx(min(distilled.history["val_loss"]), rel=1e-3)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras", safe_mode=True)
    assert np.allclose(loaded(X), student(X), atol=1e-6)


def test_the_teachers_optimizer_is_left_alone(distilled):
    optimizer = distilled.optimizer
    assert distilled.teacher.optimizer is optimizer
    found = [np.asarray(variable).tobytes() for variable in optimizer.variables]
    assert found == distilled.state and int(optimizer.iterations) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0: give a positive"),
        ({"alpha": 1.5}, "alpha=1.5: give the weight"),
        ({"epochs": 0}, "epochs=0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        quick(net(), net(), (X, CLASSES), **arguments)


def test_a_teacher_with_other_outputs_is_refused_by_name():
    with pytest.raises(ModelError, match=r"Teacher 'large' has outputs .*5.*student 'net'"):
        quick(net(), net(5, name="large"), (X, CLASSES))


def test_a_teacher_that_predicts_nan_is_refused():
    broken = net(seed=1, name="broken")
    broken.set_weights([weight * np.nan for weight in broken.get_weights()])
    with pytest.raises(DataError, match="'broken' gives NaN"):
        quick(net(), broken, (X, CLASSES))


def test_a_teacher_with_more_inputs_teaches_by_its_predictions_as_the_message_proposes():
    a, b = keras.Input((4,)), keras.Input((2,))
    teacher = keras.Model([a, b], layers.Dense(3, "softmax")(layers.Concatenate()([a, b])))
    with pytest.raises(ModelError, match=r"has inputs.*StoredTeacher\(teacher.predict\(x\)\)"):
        quick(net(), teacher, (X, CLASSES))
    x = [X, np.ones((96, 2), "float32")]
    stored = StoredTeacher(teacher.predict_on_batch(x))
    assert len(quick(net(), stored, (X, CLASSES), epochs=1).history["loss"]) == 1


def test_of_a_teacher_with_more_outputs_the_one_that_fits_is_named():
    a = keras.Input((4,))
    teacher = keras.Model(a, [layers.Dense(1)(a), layers.Dense(3, "softmax")(a)])
    with pytest.raises(ModelError, match="has outputs") as refused:
        quick(net(), teacher, (X, CLASSES))
    code = str(refused.value).rsplit("same outputs, ", 1)[1].rstrip(".")
    assert code == "keras.Model(teacher.inputs, teacher.outputs[1])"
    fitting = eval(code, {"keras": keras, "teacher": teacher})
    check_suited(net(), fitting)
    with pytest.raises(ModelError, match="a teacher that was trained for the same outputs"):
        quick(net(), net(units=5), (X, CLASSES))
