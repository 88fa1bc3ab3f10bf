"""Digests of different rows differ, and those of the same row agree in any format."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from saikei.errors import DataError
from saikei.training.digests import digest_data, digest_rows

RNG = np.random.default_rng(0)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.uint8, np.int64, np.bool_]),
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=5),
    )
)
def test_rows_share_a_digest_exactly_where_they_are_equal(x):
    x = np.nan_to_num(x) if x.dtype == np.float32 else x
    digests = digest_rows(x)
    flat = x.reshape(len(x), -1)
    equal_rows = (flat[:, None] == flat[None]).all(-1)
    np.testing.assert_array_equal(digests[:, None] == digests[None], equal_rows)


def test_a_row_has_one_digest_however_it_comes():
    x = RNG.integers(0, 256, (300, 4, 4)).astype(np.uint8)
    expected = digest_rows(x)
    for same in (x.astype("float32"), x.astype("int64"), x[..., None], x.astype("float64")):
        np.testing.assert_array_equal(digest_rows(same), expected)
    order = RNG.permutation(300)
    np.testing.assert_array_equal(digest_rows(x[order]), expected[order])
    np.testing.assert_array_equal(digest_rows(tf.constant(x)), expected)


def test_a_hundred_thousand_rows_of_few_values_do_not_collide():
    x = np.unique(RNG.integers(0, 2, (100_000, 40)).astype("float32") * 128, axis=0)
    assert len(np.unique(digest_rows(x))) == len(x)


def test_wide_whole_numbers_that_float32_rounds_keep_apart():
    assert len(set(digest_rows(np.array([[2**24], [2**24 + 1], [2**40], [2**40 + 1]])))) == 4


def test_several_inputs_come_in_any_order_and_text_is_distinguished():
    a, b = RNG.normal(size=(9, 3)), np.array([[f"word {i % 5}"] for i in range(9)])
    digests = digest_rows([a, b])
    np.testing.assert_array_equal(digest_rows({"text": b, "numbers": a}), digests)
    assert len(set(digest_rows(b))) == 5
    assert len(set(digests)) == 9
    assert (digest_rows([a, b[::-1]]) != digests).sum() == 8


def test_a_dataset_has_the_digests_of_its_arrays():
    x, y = RNG.normal(size=(50, 3)).astype("float32"), np.zeros(50)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    np.testing.assert_array_equal(digest_data(dataset), digest_rows(x))
    np.testing.assert_array_equal(digest_data((x, y)), digest_rows(x))


def test_data_that_ends_never_or_is_read_once_is_refused():
    x, y = np.zeros((4, 2), "float32"), np.zeros(4)
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(2).repeat()
    with pytest.raises(DataError, match="never ends"):
        digest_data(endless)
    with pytest.raises(DataError, match="only once"):
        digest_data(iter([(x, y)]))
