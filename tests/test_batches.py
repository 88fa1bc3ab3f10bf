"""Data with and without labels, in every form that Keras takes, is read in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei import dataset_batches
from saikei.batches import as_arrays, as_numpy, predict_arrays
from saikei.calibration import calibration_inputs
from saikei.calibration.samples import calibration_samples
from saikei.checks import check_inputs
from saikei.data import arrays
from saikei.edits import PruneChannels, RemoveLayers
from saikei.errors import DataError, TrainingWarning
from saikei.graph import read

X, Y = np.arange(24.0).reshape(8, 3), np.arange(8)


class Inputs(keras.utils.PyDataset):
    """Batches of inputs alone; without end where no number of them is given."""

    def __init__(self, batches=2, part=lambda x: x):
        super().__init__()
        self.batches, self.part = batches, part

    @property
    def num_batches(self):
        return self.batches

    def __getitem__(self, index):
        return self.part(X[(4 * index) % 8 :][:4])


def loader(*parts):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(*(torch.from_numpy(part) for part in parts))
    return torch.utils.data.DataLoader(data, batch_size=4)


def tensors(given):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(given)


class Table:
    """What tables are to NumPy: they become arrays, of objects where they may have gaps."""

    def __init__(self, rows):
        self._rows = np.array(rows, object)

    def __array__(self, dtype=None, copy=None):
        return self._rows if dtype is None else self._rows.astype(dtype)


FORMS = {
    "array": lambda: X,
    "tensor": lambda: keras.ops.convert_to_tensor(X),
    "table": lambda: Table(X),
    "tuple of one": lambda: (X,),
    "list of one": lambda: [X],
    "labels None": lambda: (X, None),
    "labels": lambda: (X, Y),
    "list": lambda: [X, Y],
    "PyDataset": Inputs,
    "PyDataset of tuples": lambda: Inputs(part=lambda x: (x,)),
    "tf.data": lambda: tensors(X).batch(3),
    "tf.data of tuples": lambda: tensors((X,)).batch(3),
    "DataLoader": lambda: loader(X),
    "batches": lambda: [(X[:4],), (X[4:],)],
}


def model(*shapes):
    inputs = [keras.Input(shape, name="ab"[place]) for place, shape in enumerate(shapes)]
    flat = [keras.layers.Flatten()(one) for one in inputs]
    joined = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], keras.layers.Dense(2)(joined))


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_enough_where_labels_are_not_needed(form):
    found, labels = arrays(FORMS[form](), labels=False)
    np.testing.assert_allclose(found, X)
    assert (labels is None) == (form not in ("labels", "list"))
    np.testing.assert_allclose(calibration_inputs(read(model((3,))), FORMS[form]()), X)


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"labels", "list"}))
def test_where_labels_are_needed_their_lack_is_named(form):
    with pytest.raises(DataError, match="train data holds no labels.*give"):
        arrays(FORMS[form](), "train")


@pytest.mark.parametrize("nested", [list, lambda parts: {"a": parts[0], "b": parts[1]}, tuple])
def test_several_inputs_come_without_labels_too(nested):
    graph = read(model((3,), (2,)))
    inputs = nested([X, X[:, :2]])
    given = (inputs,) if isinstance(inputs, tuple) else inputs
    found = calibration_inputs(graph, given)
    np.testing.assert_allclose(found[1], X[:, :2])
    assert calibration_samples(graph, given).labels is None
    batches = calibration_inputs(
        graph,
        tensors((tuple(inputs.values()),) if isinstance(inputs, dict) else (tuple(inputs),)).batch(
            4
        ),
    )
    np.testing.assert_allclose(batches[0], X)


@pytest.mark.parametrize(
    "endless",
    [
        lambda: Inputs(None),
        lambda: tensors(X).batch(4).repeat(),
        lambda: iter(lambda: (X[:4], Y[:4]), None),
    ],
)
def test_data_without_end_is_sampled_and_refused_where_all_of_it_is_wanted(endless):
    found = calibration_inputs(read(model((3,))), endless())
    assert 500 <= len(found) <= 516
    if not hasattr(endless(), "__next__"):
        with pytest.raises(DataError, match="never ends"):
            arrays(endless(), labels=False)


@pytest.mark.parametrize(
    "unbatched", [lambda: tensors(X), lambda: tensors((X, Y)), lambda: loader(X).dataset]
)
def test_a_dataset_of_single_samples_is_refused_with_how_to_batch_it(unbatched):
    with pytest.raises(DataError, match=r"batch it first, for example dataset\.batch\(32\)"):
        calibration_inputs(read(model((3,))), unbatched())


def test_a_column_of_texts_beside_numbers_is_named():
    table = Table([[1.0, "red"], [2.0, "blue"]])
    table.columns = ["size", "colour"]
    with pytest.raises(DataError, match="Column 'colour' of a table holds texts"):
        as_numpy(table)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused_where_data_is_read(weight):
    with pytest.raises(DataError, match="give finite weights of at least 0"):
        as_arrays((X, Y, np.full(8, weight)), "train")


def test_objects_that_are_numbers_become_numbers():
    np.testing.assert_allclose(as_numpy(Table([[1, 0.5], [2, 1.5]])), [[1, 0.5], [2, 1.5]])
    images = np.empty(2, object)
    images[:] = [np.zeros((4, 4)), np.ones((4, 4))]
    assert as_numpy(images).shape == (2, 4, 4)
    assert as_numpy(np.array(["a", "b"], object)).dtype == object


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.where(X == 5, np.nan, X), r"NaN or infinite numbers in 1 of 8 samples, first in row 1"),
        (X[:, :2], r"shape \(8, 2\), but .* takes \(n, 3\)"),
        (X[0], r"x\[None\]"),
        (Table([[1, 2, None]]), "give numbers"),
        (np.full((8, 3), "1"), "give numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_named(x, message):
    given = as_arrays((x,), "train", labels=False)
    with pytest.raises(DataError, match=message) as caught:
        check_inputs(model((3,)), given.x, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        PruneChannels(0.5, importance="taylor"),
        PruneChannels(0.5, importance="hessian"),
        RemoveLayers(1, ranking="loss"),
    ],
)
def test_what_looks_at_the_loss_asks_for_labels(edit):
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    for _ in range(2):
        branch = keras.layers.Dense(8, activation="relu")(hidden)
        hidden = keras.layers.Add()([hidden, branch])
    network = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    with pytest.raises(DataError, match="need labels, and the calibration data holds inputs alone"):
        edit(network, X)
    assert edit(network, (X, np.eye(2)[Y % 2])).built


@pytest.mark.backends
@pytest.mark.parametrize("batch_size", [3, 8])
def test_predictions_of_arrays_are_those_of_predict(batch_size):
    a, b = keras.Input((2,), name="a"), keras.Input((1,), name="b", dtype="int32")
    joined = keras.layers.Concatenate()([a, keras.ops.cast(b, "float32")])
    joined = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(joined))
    outputs = {"one": joined, "two": [keras.layers.Dense(2)(joined), joined[:, 0]]}
    network = keras.Model({"a": a, "b": b}, outputs)
    x = {"a": X[:, :2], "b": Y[:, None]}
    found = predict_arrays(network, x, batch_size)
    expected = network.predict(x, verbose=0)
    keras.tree.assert_same_structure(found, expected)
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_model_that_predicts_in_a_way_of_its_own_does_so_here_too():
    class Counts(keras.Model):
        def predict(self, x, **arguments):
            return np.arange(len(x))

    assert predict_arrays(Counts(), X, 3).tolist() == [*range(8)]


@pytest.mark.parametrize("of", ["train", "validation", "evaluated", "stored"])
def test_data_of_unknown_length_without_end_is_stopped(
    of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tf = pytest.importorskip("tensorflow")

    def endless() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        while True:
            yield np.ones((2, 3), "float32"), np.ones((2, 2), "float32")

    shapes = tuple(tf.TensorSpec((2, width), tf.float32) for width in (3, 2))
    data = tf.data.Dataset.from_generator(endless, output_signature=shapes)
    monkeypatch.setattr(dataset_batches, "MANY", 12)
    monkeypatch.setattr(dataset_batches, "ENDLESS", 25)
    net, rows = model((3,)), (np.ones((4, 3)), np.ones((4, 2)))
    quick: dict[str, Any] = {"epochs": 1, "progress": False, "learning_rate": 0.1}
    call: dict[str, Callable[[Any], Any]] = {
        "train": lambda data: sk.fit(net, data, **quick),
        "validation": lambda data: sk.fit(net, rows, data, **quick),
        "evaluated": lambda data: sk.evaluate(net, data),
        "stored": lambda data: sk.Average("learn")([net, net], data),
    }
    with (
        pytest.warns(TrainingWarning, match="has given 12 batches"),
        pytest.raises(DataError, match="25 batches and no end: bound it, .*take"),
    ):
        call[of](data)
