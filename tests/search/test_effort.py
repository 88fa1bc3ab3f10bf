"""Batches are small where data is, and seeds of different uses differ."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from saikei.search.sizes import batch_size_for, derived_seed


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
