"""Batches are small where data is, and what is out of range is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saikei.errors import InputError
from saikei.search.plan import Effort, batch_size_for


@given(samples=st.integers(1, 10**7))
def test_the_batch_is_the_largest_with_sixty_steps_an_epoch(samples: int) -> None:
    size = batch_size_for(samples)
    assert size in (16, 32, 64, 128)
    assert size == 16 or samples / size >= 60
    assert size == 128 or samples / (2 * size) < 60


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"seed": -1}, {"epochs": 1.5}])
def test_effort_out_of_range_is_refused_by_name(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(InputError, match=f"{name}={value}: give a whole number of at least"):
        Effort(**{"epochs": 1, "batch_size": 16, "seed": 0, **wrong})
