"""A teacher's predictions are made once, and teach what the teacher itself would teach."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from saikei.distilling import StoredTeacher, distill
from saikei.distilling.teacher_batches import outputs_for
from saikei.errors import DataError, InputError, ModelError
from saikei.fusion import Average, Cascade
from saikei.graph.internals import flattened_layers
from saikei.training import declare_training_rows, is_in_sample

RNG = np.random.default_rng(0)
# The last batch of 16 is not full.
X = RNG.normal(size=(70, 4)).astype("float32")
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


class Count(layers.Layer):
    """Passes values on and counts the rows."""

    def build(self, shape):
        self.rows = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="rows"
        )

    def call(self, inputs):
        self.rows.assign_add(keras.ops.cast(keras.ops.shape(inputs)[0], "int32"))
        return inputs


def net(seed=0, activation="softmax", name="net", counting=False, augmenting=False):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            *([layers.GaussianNoise(0.1, seed=1)] if augmenting else []),
            layers.Dense(8, activation="relu"),
            *([Count(name="count")] if counting else []),
            layers.Dense(3, activation=activation),
        ],
        name=name,
    )


def quick(student, teacher, train=(X, CLASSES), validation=None, **arguments):
    defaults = {"epochs": 2, "batch_size": 16, "progress": False, "learning_rate": 0.02}
    return distill(student, teacher, train, validation, **{**defaults, **arguments}).history


@pytest.fixture(scope="module")
def taught():
    """The losses of a student that learns from the model itself."""
    return quick(net(2), net(1))


@pytest.fixture(scope="module")
def taught_in_order():
    """The same on a dataset, whose rows come as they are."""
    return quick(net(2), net(1), dataset())


def dataset(x=X, y=CLASSES, shuffled=False, batch=16):
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    return (rows.shuffle(70, seed=1) if shuffled else rows).batch(batch)


class Batches(keras.utils.PyDataset):
    def __init__(self, noise=0.0):
        super().__init__()
        self.noise, self.ended = noise, 0

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(index * 16, index * 16 + 16)
        return X[rows] + np.float32(self.noise * RNG.normal()), CLASSES[rows]

    def on_epoch_end(self):
        self.ended += 1


def assert_same(a, b, tolerance=1e-4):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == pytest.approx(b[name], rel=tolerance, abs=tolerance), name


def trajectories(train, teacher=None, **arguments):
    teacher = teacher or net(1)
    return [
        quick(
            net(2, augmenting=True),
            teacher,
            train,
            (X, CLASSES),
            teacher_predictions=how,
            **arguments,
        )
        for how in ("stored", "live")
    ]


def kinds(quick, *slow):
    return pytest.mark.parametrize(
        "kind", [quick, *(pytest.param(kind, marks=pytest.mark.slow) for kind in slow)]
    )


@pytest.mark.long
@kinds("tf.data", "arrays", "PyDataset")
def test_stored_and_live_predictions_give_one_trajectory(kind):
    train = {"arrays": (X, CLASSES), "tf.data": dataset(), "PyDataset": Batches()}[kind]
    stored, live = trajectories(train, alpha=0.3)
    assert_same(stored, live)
    assert stored["distillation_loss"][-1] < stored["distillation_loss"][0]


@pytest.mark.long
@kinds("arrays", "tf.data")
def test_features_too_may_be_stored_or_live(kind):
    histories = []
    for how in ("stored", "live"):
        teacher, student = net(1), net(2)
        pairs = {student.layers[0].name: teacher.layers[0].name}
        train = (X, CLASSES) if kind == "arrays" else dataset()
        histories.append(quick(student, teacher, train, features=pairs, teacher_predictions=how))
    assert_same(*histories)
    assert "feature_loss" in histories[0]


@kinds("shuffled", "arrays", "PyDataset")
def test_each_member_of_an_ensemble_sees_each_training_row_once(kind):
    members = [net(seed, name=f"m{seed}", counting=True) for seed in (1, 2, 3)]
    ensemble = Average()(members)
    counts = [layer for layer in flattened_layers(ensemble) if isinstance(layer, Count)]
    before = [int(count.rows) for count in counts]
    train = {
        "arrays": (X, CLASSES),
        "shuffled": dataset(shuffled=True),
        "PyDataset": Batches(),
    }[kind]
    quick(net(4), ensemble, train, (X[:32], CLASSES[:32]), teacher_predictions="stored")
    assert len(counts) == 3
    assert [int(c.rows) - b for c, b in zip(counts, before, strict=True)] == [70, 70, 70]


def test_a_shuffled_dataset_brings_each_row_its_prediction():
    teacher, student = net(1), net(2)
    # Trained on the teacher alone from its own weights, nothing is left to learn.
    student.set_weights(teacher.get_weights())
    history = quick(
        student,
        teacher,
        dataset(shuffled=True),
        teacher_predictions="stored",
        alpha=0.0,
        learning_rate=1e-6,
    )
    assert history["distillation_loss"] == pytest.approx([0, 0], abs=1e-5)


def test_data_that_is_augmented_needs_a_live_teacher():
    with pytest.raises(DataError, match="teacher_predictions='live'"):
        quick(net(2), net(1), Batches(noise=0.1), teacher_predictions="stored")
    train = Batches(noise=0.1)
    assert len(quick(net(2), net(1), train)["loss"]) == 2
    assert train.ended >= 2


def test_a_dataset_that_ends_early_is_named():
    class Shrinking:
        def __init__(self):
            self.passes = 0

        def __iter__(self):
            self.passes += 1
            count = 4 if self.passes < 3 else 3
            return iter([(X[:16], CLASSES[:16])] * count)

        def __getitem__(self, index):
            raise TypeError

    from saikei.distilling.teacher_batches import Lookup, TeacherBatches
    from saikei.training.digests import digest_rows

    batches = TeacherBatches(Shrinking(), "teacher", Lookup(digest_rows(X), X), 4)
    for _ in range(2):
        [batches[i] for i in range(4)]
    with pytest.raises(DataError, match="fewer than the 4 batches"):
        [batches[i] for i in range(4)]
    shorter = TeacherBatches(Shrinking(), "teacher", Lookup(digest_rows(X), X), 2)
    with pytest.raises(DataError, match="more than the 2 batches"):
        [shorter[i] for i in range(2)]


def test_a_pydataset_is_called_at_the_end_of_an_epoch():
    train = Batches()
    quick(net(2), net(1), train, teacher_predictions="stored")
    assert train.ended >= 2


@pytest.mark.long
def test_predictions_made_before_teach_like_their_model(tmp_path, taught):
    np.save(tmp_path / "logits.npy", net(1, None)(X))
    made = [
        StoredTeacher.of(net(1), dataset(shuffled=True)),
        StoredTeacher.load(tmp_path / "logits.npy", from_logits=True),
    ]
    for stored in made:
        assert_same(quick(net(2), stored), taught)


@pytest.mark.long
def test_predictions_in_the_order_of_a_dataset_teach_like_their_model(taught_in_order):
    stored = StoredTeacher(net(1).predict(dataset(), verbose=0))
    assert_same(quick(net(2), stored, dataset()), taught_in_order)


def test_predictions_in_a_file_stay_there(tmp_path):
    np.save(tmp_path / "outputs.npy", net(1)(X))
    outputs = StoredTeacher.load(tmp_path / "outputs.npy").outputs
    while outputs is not None and not isinstance(outputs, np.memmap):
        outputs = outputs.base
    assert isinstance(outputs, np.memmap)


def test_predictions_that_know_their_rows_serve_any_part_of_the_data():
    teacher = net(1)
    stored = StoredTeacher.of(teacher, (X, CLASSES))
    rows = np.arange(69, 0, -2)
    part = (X[rows], CLASSES[rows])
    history = quick(net(2), stored, part)
    assert_same(history, quick(net(2), teacher, part))
    with pytest.raises(DataError, match="5 of 5 rows"):
        quick(net(2), stored, (X[:5] + 1, CLASSES[:5]))


def test_predictions_in_an_order_that_is_not_known_are_refused():
    stored = StoredTeacher(np.asarray(net(1)(X)))
    with pytest.raises(DataError, match="another order"):
        quick(net(2), stored, dataset(shuffled=True))
    with pytest.raises(DataError, match="70 stored predictions for 35 training rows"):
        quick(net(2), stored, (X[:35], CLASSES[:35]))
    with pytest.raises(DataError, match="70 stored predictions for 35 training rows"):
        quick(net(2), stored, dataset(X[:35], CLASSES[:35]))


@pytest.mark.long
def test_a_cascade_teaches_what_it_predicts():
    members = [net(seed, name=f"m{seed}") for seed in (1, 2)]
    ensemble = Cascade(thresholds=(0.5,))(members)
    stored = StoredTeacher(ensemble.predict(X, verbose=0))
    assert_same(quick(net(4), stored), quick(net(4), ensemble, teacher_predictions="live"))


@pytest.mark.long
def test_an_ensemble_with_several_inputs_and_outputs_is_stored():
    def model(seed):
        keras.utils.set_random_seed(seed)
        a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
        joined = layers.Concatenate()([a, b])
        kind = layers.Dense(3, activation="softmax", name="kind")(joined)
        size = layers.Dense(1, name="size")(joined)
        return keras.Model({"a": a, "b": b}, {"kind": kind, "size": size})

    x, y = {"a": X[:, :2], "b": X[:, 2:]}, {"kind": CLASSES, "size": X[:, 0]}
    ensemble = Average()([model(1), model(2)])
    stored = StoredTeacher.of(ensemble, (x, y))
    live = quick(model(3), ensemble, (x, y), (x, y), teacher_predictions="live")
    assert_same(quick(model(3), stored, (x, y), (x, y)), live)


def test_a_student_of_stored_predictions_inherits_what_their_teacher_saw():
    teacher, other = net(1), RNG.normal(size=(9, 4)).astype("float32")
    declare_training_rows(teacher, (other, np.zeros(9, int)))
    student = net(2)
    quick(student, StoredTeacher.of(teacher, (X, CLASSES)), epochs=1)
    assert is_in_sample(student, (other, np.zeros(9, int))).all()


@pytest.mark.parametrize(
    ("outputs", "arguments", "error", "message"),
    [
        (np.zeros((0, 3)), {}, DataError, r"\[0\] rows"),
        (np.full((70, 3), 2.0), {}, DataError, "from_logits=True"),
        (np.full((70, 3), np.nan), {}, DataError, "stored teacher gives NaN"),
        (np.full((70, 2), 0.5), {}, ModelError, r"stored teacher has outputs \[\(None, 2\)\]"),
        (np.full((70, 3), 1 / 3), {"from_logits": (True, True)}, InputError, "for 1 outputs"),
    ],
)
def test_predictions_that_cannot_be_a_teachers_are_refused(outputs, arguments, error, message):
    with pytest.raises(error, match=message):
        quick(net(2), StoredTeacher(outputs, **arguments))


def test_files_are_never_unpickled(tmp_path):
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    for bad in (path, tmp_path / "none.npy"):
        with pytest.raises(DataError, match=bad.name):
            StoredTeacher.load(bad)
    np.savez(tmp_path / "many.npz", a=X)
    with pytest.raises(DataError, match="one array"):
        StoredTeacher.load(tmp_path / "many.npz")


def test_unknown_ways_to_ask_the_teacher_are_refused():
    stored = StoredTeacher(np.full((70, 3), 1 / 3))
    with pytest.raises(InputError, match="teacher_predictions='once'"):
        quick(net(2), net(1), teacher_predictions="once")
    with pytest.raises(InputError, match="'live' with a StoredTeacher"):
        quick(net(2), stored, teacher_predictions="live")
    with pytest.raises(InputError, match="features with a StoredTeacher"):
        quick(net(2), stored, features="auto")


def test_outputs_that_are_large_are_predicted_part_by_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher, sizes = net(1), []
    whole, predict = np.asarray(teacher(X)), teacher.predict_on_batch

    def counted(x):
        sizes.append(len(x))
        return predict(x)

    monkeypatch.setattr(teacher, "predict_on_batch", counted)
    # Three float32 numbers a row: room for 8 rows at once.
    monkeypatch.setattr("saikei.scoring.predictions._AT_ONCE", 3 * 4 * 8)
    np.testing.assert_allclose(outputs_for(teacher, X), whole, rtol=1e-5)
    assert sizes == [8] * 8 + [6]
