"""Weights go by what they are to their layer, in a model that was built and in one from a file."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers as L

from saikei.costs import profile
from saikei.edits import PruneChannels
from saikei.graph import read
from saikei.testing.oracle import saved_and_loaded

pytestmark = pytest.mark.backends


def names(model: keras.Model) -> dict[str, list[str]]:
    return {name: list(o.weights) for name, o in read(model).operations.items() if o.weights}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (lambda: L.LSTM(4, name="r"), ["cell/kernel", "cell/recurrent_kernel", "cell/bias"]),
        (
            lambda: L.Bidirectional(L.SimpleRNN(4, use_bias=False, name="inner"), name="r"),
            [
                f"{way}_layer/cell/{kind}"
                for way in ("forward", "backward")
                for kind in ("kernel", "recurrent_kernel")
            ],
        ),
        (
            lambda: L.RNN([L.SimpleRNNCell(4, use_bias=False) for _ in range(2)], name="r"),
            [f"cell/cells/{i}/{kind}" for i in range(2) for kind in ("kernel", "recurrent_kernel")],
        ),
    ],
)
def test_a_weight_is_named_by_where_it_is_held(layer: Any, expected: list[str]) -> None:
    model = keras.Sequential([keras.Input((5, 3)), layer(), L.Dense(2, name="out")])
    assert names(model) == {"r": expected, "out": ["kernel", "bias"]}
    loaded = saved_and_loaded(model)
    assert loaded is not None and names(loaded) == names(model)


def test_a_bidirectional_model_from_a_file_costs_and_is_cut_like_the_one_that_was_built() -> None:
    both = L.Bidirectional(L.LSTM(8, return_sequences=True))
    hidden = L.Dense(16, activation="relu")
    model = keras.Sequential([keras.Input((20, 36)), hidden, both, L.Dense(3)])
    loaded = saved_and_loaded(model)
    assert loaded is not None
    for one in (model, loaded):
        assert profile(one, latency=False).macs == 20 * (36 * 16 + 2 * 32 * (16 + 8) + 16 * 3)
        smaller = PruneChannels(0.5, scope="layer")(one)
        assert smaller.count_params() == 37 * 8 + 2 * 16 * (8 + 4 + 1) + 9 * 3
