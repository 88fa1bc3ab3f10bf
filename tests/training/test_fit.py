"""`fit` trains like Keras, keeps the best weights, and repeats itself from its seed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from saikei.batches import ArrayData
from saikei.errors import DataError, InputError, WorkError
from saikei.training import fit
from saikei.training.prepared import ShuffledBatches

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 4)).astype("float32")
CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def classifier(seed=0, *hidden):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(8, activation="relu"),
            *hidden,
            layers.Dense(3, activation="softmax"),
        ],
        name="net",
    )


def quick(model, train, validation=None, **arguments):
    defaults = {"epochs": 2, "batch_size": 32, "progress": False, "learning_rate": 0.02}
    return fit(model, train, validation, **{**defaults, **arguments})


@pytest.mark.long
def test_labels_and_weights_by_the_names_of_outputs_count_as_in_their_order():
    def trained(y, counts):
        keras.utils.set_random_seed(0)
        x = keras.Input((4,))
        outputs = [layers.Dense(3, "softmax", name="z")(x), layers.Dense(1, name="a")(x)]
        model = keras.Model(x, outputs)
        quick(model, (X, y, counts), (X, y), epochs=1)
        return weights(model)

    number, half = X[:, 2], np.arange(len(X)) % 2
    in_order = trained([CLASSES, number], [half, 1.0 - half])
    assert trained({"a": number, "z": CLASSES}, {"a": 1.0 - half, "z": half}) == in_order
    assert trained([CLASSES, number], [half, half]) != in_order


def weights(model):
    return [weight.tobytes() for weight in model.get_weights()]


@pytest.mark.parametrize(
    ("units", "activation", "y"),
    [
        pytest.param(3, "softmax", CLASSES, marks=pytest.mark.slow),
        pytest.param(3, "softmax", np.eye(3)[CLASSES], marks=pytest.mark.slow),
        (3, None, CLASSES),
        pytest.param(1, "sigmoid", CLASSES > 0, marks=pytest.mark.slow),
        pytest.param(1, "sigmoid", (CLASSES > 0)[:, None].astype(int), marks=pytest.mark.slow),
        (3, "sigmoid", X[:, :3] > 0),
        pytest.param(1, None, X[:, 0], marks=pytest.mark.slow),
        (2, None, X[:, :2]),
    ],
)
def test_every_kind_of_task_is_learned(units, activation, y):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(units, activation=activation)])
    history = quick(model, (X, y), epochs=4, batch_size=8, learning_rate=0.1).history
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_several_inputs_and_outputs_are_learned():
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    joined = layers.Concatenate()([a, b])
    heads = [layers.Dense(3, activation="softmax", name="kind")(joined), layers.Dense(1)(joined)]
    history = quick(
        keras.Model([a, b], heads), ([X[:, :2], X[:, 2:]], [CLASSES, X[:, 0]]), epochs=4
    ).history
    assert history["loss"][-1] < history["loss"][0]
    named = keras.Model({"a": a, "b": b}, {"kind": heads[0], "size": heads[1]})
    data = ({"a": X[:, :2], "b": X[:, 2:]}, {"kind": CLASSES, "size": X[:, 0]})
    assert len(quick(named, data, data).history["val_loss"]) == 2


@pytest.mark.parametrize("own_seed", [None, pytest.param(7, marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(own_seed):
    if own_seed is None and keras.backend.backend() == "torch":
        pytest.skip("Keras draws an unseeded dropout from torch's global generator")
    first, again, other = (classifier(0, layers.Dropout(0.5, seed=own_seed)) for _ in range(3))
    again(X, training=True)  # Moves the dropout's own random state on.
    keras.utils.set_random_seed(99)
    quick(first, (X, CLASSES), seed=1)
    quick(again, (X, CLASSES), seed=1)
    quick(other, (X, CLASSES), seed=2)
    assert weights(first) == weights(again) != weights(other)


def test_global_random_numbers_are_left_alone():
    model = classifier()
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    quick(model, (X, CLASSES))
    assert (np.random.random(3) == expected).all()  # noqa: NPY002


def test_each_epoch_shows_every_sample_once_in_a_new_order():
    batches = ShuffledBatches(ArrayData(np.arange(10), np.arange(10)), batch_size=4, seed=0)
    epochs = []
    for _ in range(2):
        epochs.append(np.concatenate([batches[i][0] for i in range(len(batches))]))
        batches.on_epoch_end()
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])


def test_the_best_epoch_on_the_validation_data_is_kept():
    model = classifier()
    opposite = (X, 2 - CLASSES)
    val_loss = quick(model, (X, CLASSES), opposite, epochs=5).history["val_loss"]
    assert min(val_loss) < val_loss[-1]
    assert model.evaluate(*opposite, verbose=0)[0] == pytest.approx(min(val_loss), rel=1e-5)


def test_patience_stops_a_training_that_no_longer_helps():
    opposite = (X, 2 - CLASSES)
    val_loss = quick(classifier(), (X, CLASSES), opposite, epochs=20, patience=2).history[
        "val_loss"
    ]
    assert len(val_loss) == np.argmin(val_loss) + 3 < 20


def test_the_model_ends_compiled_with_a_fresh_optimizer_and_loads_so(tmp_path):
    model = classifier()
    quick(model, (X, CLASSES), learning_rate=0.01)
    assert set(model.evaluate(X, CLASSES, verbose=0, return_dict=True)) == {"loss", "accuracy"}
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert int(model.optimizer.iterations) == 0
    model.save(tmp_path / "model.keras")  # Warnings are errors here.
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.evaluate(X, CLASSES, verbose=0) == model.evaluate(X, CLASSES, verbose=0)


def test_a_compiled_loss_is_kept():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(loss="mae")
    quick(model, (X, X[:, 0]))
    assert isinstance(model.loss, keras.losses.MeanAbsoluteError)


def test_datasets_of_every_kind_are_trained_on():
    pairs = tf.data.Dataset.from_tensor_slices((X, CLASSES))
    unknown_length = pairs.filter(lambda x, y: True).batch(32)
    batches = ShuffledBatches(ArrayData(X, CLASSES), 32, seed=0)
    for data in (pairs.batch(32), unknown_length, batches):
        history = quick(classifier(), data, data).history
        assert history["val_loss"][-1] < history["val_loss"][0]


def test_sample_weights_are_obeyed():
    model = classifier()
    quick(model, (X, CLASSES, (CLASSES == 0).astype(float)), epochs=8)
    assert (model.predict_on_batch(X).argmax(1) == 0).mean() > 0.9


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (X, "holds no labels"),
        ((X,), "holds no labels"),
        ((X[:0], CLASSES[:0]), "empty"),
        ((X, CLASSES[:5]), "arrays of 5 and 96 samples"),
        ((X, CLASSES + 1), "number the classes from 0 to 2"),
        ((pair for pair in [(X, CLASSES)]), "generator"),
        (tf.data.Dataset.from_tensors((X, CLASSES)).repeat(), "never ends"),
        (tf.data.Dataset.from_tensors(X), "no labels"),
        (tf.data.Dataset.from_tensors((X, CLASSES)).take(0), "empty"),
        (3, "of type int"),
    ],
)
def test_unusable_data_gets_one_line(train, message):
    with pytest.raises(DataError, match=message) as caught:
        quick(classifier(), train)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epochs": 0},
        {"epochs": 10**8},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"patience": 0},
        {"patience": {}},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        quick(classifier(), (X, CLASSES), **arguments)


def test_a_training_that_diverges_warns_and_leaves_usable_weights():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)], name="net")
    with pytest.raises(WorkError, match="'net' is no longer a number in epoch 1: lower"):
        quick(model, (X * 1e30, X[:, 0]), learning_rate=1e30)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize("part", ["inputs", "labels"])
def test_nan_in_a_later_batch_of_a_dataset_is_named(part):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    x, y = X.astype("float32"), X[:, :1].astype("float32")
    (x if part == "inputs" else y)[70, 0] = np.nan
    begin = model.get_weights()
    with pytest.raises(DataError, match=f"^Batch 3 of the train data holds NaN .* its {part}"):
        quick(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(32))
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), begin, strict=True))


def test_the_progress_bar_counts_all_batches(capsys):
    quick(classifier(), (X, CLASSES), progress=True)
    assert "6/6" in capsys.readouterr().out


def test_verbose_is_as_in_keras_and_wins_over_progress(capsys):
    quick(classifier(), (X, CLASSES), progress=True, verbose=0)
    assert capsys.readouterr().out == ""
    quick(classifier(), (X, CLASSES), verbose=2)
    assert capsys.readouterr().out.count("loss:") == 2
    with pytest.raises(InputError, match="verbose=3: give 0, 1, 2 or 'auto'"):
        quick(classifier(), (X, CLASSES), verbose=3)
