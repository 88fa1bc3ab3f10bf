"""The generator of random graphs makes graphs, however small its tensors have become."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.properties.random_graphs import STEPS, ZERO_PRESERVING, Maker


@pytest.mark.sampled
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 1), (2, 1, 3)])
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
def test_every_step_takes_tensors_of_few_positions_and_channels(
    step: str, shape: tuple[int, int, int]
) -> None:
    for seed in range(3):
        maker = Maker(np.random.default_rng(seed), ZERO_PRESERVING)
        maker.pool.append(keras.Input(shape))
        maker.step(step)
        made = maker.pool[-1]
        assert len(made.shape) == 4 and all(size > 0 for size in made.shape[1:])
