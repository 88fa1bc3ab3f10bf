"""Batches are small where data is, and seeds of different uses differ."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from saikei.search.sizes import batch_size_for, derived_seed
from saikei.search.splits import SearchData


@given(samples=st.integers(1, 10**7))
def test_the_batch_is_the_largest_with_two_hundred_steps_an_epoch(samples: int) -> None:
    size = batch_size_for(samples)
    assert size in (16, 32, 64)
    assert size == 16 or samples / size >= 200
    assert size == 64 or samples / (2 * size) < 200


def test_seeds_of_different_uses_differ() -> None:
    paths = [(number, use) for number in range(20) for use in range(3)]
    seeds = {derived_seed(seed, *path) for seed in range(3) for path in paths}
    assert len(seeds) == 180


def test_steps_of_an_epoch_are_those_of_the_batches() -> None:
    x, y = np.zeros((33, 4), "float32"), np.zeros(33)
    samples = {"train": 33, "validation": 0, "test": 0}
    assert SearchData((x, y), None, None, samples).steps(16) == 3
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    assert SearchData(batches, None, None, {}).steps(16) == 4
    assert SearchData(batches.filter(lambda *_: True), None, None, {}).steps(16) is None
