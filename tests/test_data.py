"""Data that users hand in is taken as Keras takes it, or refused with one clear line."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saikei.data import arrays, check_data, hold_out
from saikei.errors import DataError


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name="net")


@pytest.fixture(scope="module")
def two_inputs() -> keras.Model:
    image, table = keras.Input((4, 4, 1), name="image"), keras.Input((2,), name="table")
    flat = keras.layers.Flatten()(image)
    return keras.Model([image, table], keras.layers.Concatenate()([flat, table]), name="two")


# --- gathering ---


def test_arrays_pass_through():
    x, y = np.zeros((3, 2)), np.arange(3)
    assert arrays((x, y))[0] is x
    assert arrays((x, y))[1] is y


def test_nested_arrays_keep_their_nesting():
    x = {"a": np.zeros((3, 2)), "b": [np.ones(3), keras.ops.arange(3)]}
    gathered, _ = arrays((x, np.arange(3)))
    assert sorted(gathered) == ["a", "b"]
    assert isinstance(gathered["b"], list)
    np.testing.assert_array_equal(gathered["b"][1], [0, 1, 2])


def test_tensors_of_the_backend_become_arrays():
    x, y = arrays((keras.ops.ones((3, 2)), keras.ops.arange(3)))
    assert isinstance(x, np.ndarray)
    np.testing.assert_array_equal(y, [0, 1, 2])


class Squares(keras.utils.PyDataset):
    """Batches of four rows, from 0 on."""

    def __init__(self, length):
        super().__init__()
        self.length = length

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        rows = np.arange(4) + 4 * index
        return rows[:, None], rows**2


@pytest.mark.parametrize("labels", [[0, 1, 0], 3], ids=["list", "number"])
def test_labels_that_are_no_array_are_refused_with_how_to_make_one(labels):
    with pytest.raises(DataError, match=r"numpy\.asarray"):
        arrays((np.zeros((3, 2)), labels))


def test_a_keras_dataset_is_gathered_in_order():
    x, y = arrays(Squares(3))
    np.testing.assert_array_equal(x[:, 0], np.arange(12))
    np.testing.assert_array_equal(y, np.arange(12) ** 2)


def test_a_plain_sequence_of_batches_is_gathered():
    batches = [(np.zeros((2, 3)), np.zeros(2)), (np.ones((1, 3)), np.ones(1))]
    x, y = arrays(batches)
    assert x.shape == (3, 3)
    np.testing.assert_array_equal(y, [0, 0, 1])


def test_batches_of_different_shape_or_nesting_are_refused():
    batch, wider = (np.zeros((2, 3)), np.zeros(2)), (np.zeros((2, 4)), np.zeros(2))
    nested = ({"a": np.zeros((2, 3))}, np.zeros(2))
    for other in (wider, nested):
        with pytest.raises(DataError, match="do not fit together"):
            arrays([batch, other])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs TensorFlow")
def test_a_tensorflow_dataset_is_gathered():
    tf = pytest.importorskip("tensorflow")
    source = tf.data.Dataset.from_tensor_slices((np.eye(5), np.arange(5)))
    x, y = arrays(source.batch(2))
    np.testing.assert_array_equal(x, np.eye(5))
    np.testing.assert_array_equal(y, np.arange(5))
    with pytest.raises(DataError, match="never ends"):
        arrays(source.batch(2).repeat())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(3), "holds no labels"),
        ((np.zeros(3), None), "holds no labels"),
        ("data.npz", "of type str"),
        (3, "of type int"),
        ((np.zeros(3),), "holds no labels"),
        ((np.zeros(3), np.zeros(3), np.ones(3)), "sample weights are not used"),
        ([], "is empty"),
        (Squares(None), "never ends"),
    ],
    ids=["inputs alone", "none", "text", "number", "no labels", "weights", "no batch", "endless"],
)
def test_data_of_no_known_kind_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        arrays(data, "validation")


# --- checking ---


def test_data_that_fits_is_not_refused(model, two_inputs):
    check_data(model, (np.zeros((5, 4)), np.zeros(5)))
    check_data(model, (np.zeros((5, 4), "uint8"), np.zeros((5, 3))))
    image, table = np.zeros((5, 4, 4, 1)), np.zeros((5, 2))
    check_data(two_inputs, ([image, table], np.zeros(5)))
    check_data(two_inputs, ({"table": table, "image": image}, np.zeros(5)))


def test_an_axis_of_unknown_size_takes_any():
    any_length = keras.Sequential([keras.Input((None, 2)), keras.layers.Conv1D(3, 1)])
    check_data(any_length, (np.zeros((5, 17, 2)), np.zeros(5)))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((5, 3)), np.zeros(5), r"shape \(5, 3\), but model 'net' takes \(n, 4\)"),
        (np.zeros((5, 4, 1)), np.zeros(5), r"takes \(n, 4\)"),
        (np.zeros((5, 4)), np.zeros(4), "arrays of 4 and 5 samples"),
        (np.full((5, 4), np.nan), np.zeros(5), "NaN or infinite numbers in 5 of 5"),
        (np.zeros((5, 4)), np.full(5, np.inf), "labels of the test data holds NaN"),
        (np.zeros((0, 4)), np.zeros(0), "is empty"),
        (np.full((5, 4), "a"), np.zeros(5), "of type <U1"),
        ([np.zeros((5, 4))] * 2, np.zeros(5), "2 inputs, but model 'net' takes 1"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_the_reason(model, x, y, message):
    with pytest.raises(DataError, match=message):
        check_data(model, (x, y), "test")


def test_a_missing_channel_axis_is_refused_with_how_to_add_it():
    images = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    with pytest.raises(DataError, match=r"x\[\.\.\., None\]"):
        check_data(images, (np.zeros((5, 8, 8)), np.zeros(5)))


def test_inputs_of_other_names_are_refused(two_inputs):
    x = {"image": np.zeros((5, 4, 4, 1)), "tabel": np.zeros((5, 2))}
    with pytest.raises(DataError, match=r"\['image', 'tabel'\].*\['image', 'table'\]"):
        check_data(two_inputs, (x, np.zeros(5)))


def test_inputs_of_different_lengths_are_refused(two_inputs):
    with pytest.raises(DataError, match="5 and 6 samples"):
        check_data(two_inputs, ([np.zeros((5, 4, 4, 1)), np.zeros((6, 2))], np.zeros(5)))


def test_a_message_is_one_line(model):
    with pytest.raises(DataError) as caught:
        check_data(model, (np.zeros((5, 3)), np.zeros(5)))
    assert "\n" not in str(caught.value)


# --- holding out ---


def test_the_two_parts_are_the_whole_and_share_nothing():
    x, y = np.arange(50)[:, None], np.arange(50) % 5
    rest, held = hold_out((x, y), 0.2)
    assert len(held[0]) == 10
    np.testing.assert_array_equal(np.sort(np.concatenate([rest[0], held[0]])[:, 0]), np.arange(50))


def test_samples_keep_their_labels_and_order():
    x = np.arange(60)[:, None]
    for part_x, part_y in hold_out((x, x[:, 0] % 3), 0.3, seed=4):
        np.testing.assert_array_equal(part_x[:, 0] % 3, part_y)
        assert (np.diff(part_x[:, 0]) > 0).all()


@pytest.mark.parametrize("form", ["numbers", "floats", "column", "one-hot"])
def test_each_class_gives_the_same_share(form):
    y = np.repeat([0, 1, 2], [60, 30, 10])
    labels = {"numbers": y, "floats": y * 1.0, "column": y[:, None], "one-hot": np.eye(3)[y]}[form]
    _, held = hold_out((np.arange(100), labels), 0.2, seed=1)
    np.testing.assert_array_equal(np.bincount(y[held[0]]), [12, 6, 2])


def test_the_only_sample_of_a_class_stays_in_training():
    y = np.repeat([0, 1, 2], [30, 30, 1])
    for seed in range(20):
        rest, _ = hold_out((np.arange(61), y), 0.3, seed=seed)
        assert 2 in rest[1]


def test_labels_that_are_no_classes_are_split_at_random():
    x = np.arange(40)
    for y in (np.random.default_rng(0).normal(size=40), np.eye(40, 2) + np.eye(40, 2)[::-1], x):
        rest, held = hold_out((x, y), 0.25)
        assert (len(rest[0]), len(held[0])) == (30, 10)


def test_where_classes_are_more_than_samples_held_out_any_sample_may_be_held_out():
    y = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7])
    held = [hold_out((np.arange(10), y), 0.2, seed)[1][0] for seed in range(60)]
    assert set(np.concatenate(held)) == set(range(10))


def test_nested_inputs_are_split_by_the_same_rows():
    x = {"a": np.arange(20), "b": np.arange(20)[:, None] * 10}
    _, (held, _) = hold_out((x, np.arange(20) % 2), 0.2)
    np.testing.assert_array_equal(held["a"] * 10, held["b"][:, 0])


def test_the_seed_decides():
    data = (np.arange(100), np.arange(100) % 2)
    same = [hold_out(data, seed=3)[1][0] for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (same[0] != hold_out(data, seed=4)[1][0]).any()


@pytest.mark.parametrize(("samples", "share"), [(1, 0.2), (2, 0.1), (10, 1.0), (10, 0.0)])
def test_a_share_that_leaves_a_part_empty_is_refused(samples, share):
    with pytest.raises(DataError, match="cannot be held out"):
        hold_out((np.arange(samples), np.arange(samples)), share)


def test_arrays_of_different_lengths_are_not_split():
    with pytest.raises(DataError, match="arrays of 9 and 10 samples"):
        hold_out((np.arange(10), np.arange(9)))


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=40),
    st.floats(0.05, 0.95),
    st.integers(-5, 2**40),
)
def test_any_labels_are_split_into_parts_of_the_size_asked_for(labels, share, seed):
    rows, y = np.arange(len(labels)), np.array(labels)
    wanted = round(share * len(y))
    if not 0 < wanted < len(y):
        with pytest.raises(DataError, match="cannot be held out"):
            hold_out((rows, y), share, seed)
        return
    (rest, rest_y), (held, held_y) = hold_out((rows, y), share, seed)
    assert len(held) == wanted
    np.testing.assert_array_equal(np.sort(np.concatenate([rest, held])), rows)
    np.testing.assert_array_equal(y[rest], rest_y)
    np.testing.assert_array_equal(y[held], held_y)


@pytest.mark.parametrize("kind", [tuple, list])
def test_sample_weights_are_held_out_with_their_rows(kind):
    x = np.arange(20.0)[:, None]
    rest, held = hold_out(kind((x, np.arange(20) % 2, np.arange(20.0))), 0.2)
    for part_x, _, weights in (rest, held):
        np.testing.assert_array_equal(part_x[:, 0], weights)
