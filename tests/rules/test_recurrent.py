"""Recurrent layers lose units, with their columns in every gate."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.channels import channel_groups
from saikei.costs import profile
from saikei.edits import PruneChannels
from saikei.rules.recurrent import UNLIKE
from tests.rules.nets import checked


def sequence(layer: Any, shape: tuple[int, ...] = (5, 3)) -> keras.Model:
    tensor = keras.Input(shape)
    made = keras.tree.flatten(layer(L.Dense(8, name="a")(tensor)))
    ends = [L.Flatten()(t) for t in made]
    joined = L.Concatenate()(ends) if len(ends) > 1 else ends[0]
    return keras.Model(tensor, L.Dense(2, name="out")(joined))


LAYERS = {
    "lstm": lambda: L.LSTM(6, name="r"),
    "lstm with states": lambda: L.LSTM(6, return_state=True, return_sequences=True, name="r"),
    "lstm without bias": lambda: L.LSTM(6, use_bias=False, name="r"),
    "gru": lambda: L.GRU(6, return_sequences=True, name="r"),
    "gru that resets before": lambda: L.GRU(6, reset_after=False, return_state=True, name="r"),
    "simple": lambda: L.SimpleRNN(6, go_backwards=True, name="r"),
    "cell": lambda: L.RNN(L.LSTMCell(6), name="r"),
    "gru cell": lambda: L.RNN(L.GRUCell(6), return_sequences=True, name="r"),
}


CELLS: dict[str, Any] = {
    "two of them": lambda: [L.LSTMCell(7), L.GRUCell(6)],
    "three of them": lambda: [L.SimpleRNNCell(5), L.LSTMCell(7), L.SimpleRNNCell(6)],
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("two of them", {"return_sequences": True, "return_state": True}),
        pytest.param("three of them", {}, marks=pytest.mark.long),
        pytest.param("two of them", {}, marks=pytest.mark.long),
        pytest.param("three of them", {"return_sequences": True}, marks=pytest.mark.long),
    ],
)
def test_cells_on_top_of_each_other_are_cut_each_for_itself(
    name: str, settings: dict[str, Any]
) -> None:
    cells = CELLS[name]()
    own = {f"r/cell{i}": cell.units for i, cell in enumerate(cells[:-1], start=1)}
    expected = {"a": 8, **own, "r": 6, "out": 0}
    assert checked(sequence(L.RNN(cells, name="r", **settings))) == expected
    both = L.Bidirectional(L.RNN(CELLS[name](), **settings), name="r")
    assert checked(sequence(both)) == expected


def test_stacked_cells_are_counted_and_a_custom_cell_is_reported_as_unknown() -> None:
    found = profile(sequence(L.RNN([L.LSTMCell(7), L.GRUCell(6)], name="r")), latency=False)
    macs = {layer.name: layer.macs for layer in found.layers}
    assert macs["r"] == 5 * (8 * 28 + 7 * 28 + 7 * 18 + 6 * 18)

    @keras.saving.register_keras_serializable("tests.recurrent")
    class Cell(L.SimpleRNNCell):
        def call(self, *args: Any, **kwargs: Any) -> Any:
            return super().call(*args, **kwargs)

    for layer in (L.RNN(Cell(6), name="r"), L.Bidirectional(L.RNN(Cell(6)), name="r")):
        found = profile(sequence(layer), latency=False)
        assert found.uncounted == ("r",) and "not counted: r" in found.summary()


@pytest.mark.sampled
@pytest.mark.parametrize("name", LAYERS)
def test_units_are_cut_in_every_gate(name: str) -> None:
    assert checked(sequence(LAYERS[name]())) == {"a": 8, "r": 6, "out": 0}


BOTH = {
    "concat": lambda: L.Bidirectional(
        L.LSTM(6, return_sequences=True, return_state=True), name="r"
    ),
    "none": lambda: L.Bidirectional(L.SimpleRNN(6, return_state=True), merge_mode=None, name="r"),
    "other backward layer": lambda: L.Bidirectional(
        L.GRU(6), backward_layer=L.GRU(6, go_backwards=True, use_bias=False), name="r"
    ),
    "sum": lambda: L.Bidirectional(L.GRU(6), merge_mode="sum", name="r"),
    "a cell": lambda: L.Bidirectional(L.RNN(L.GRUCell(6)), name="r"),
    "mul": lambda: L.Bidirectional(L.GRU(6), merge_mode="mul", name="r"),
    "ave": lambda: L.Bidirectional(L.LSTM(6), merge_mode="ave", name="r"),
}


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in ("mul", "ave", "a cell") else [])
        for name in BOTH
    ],
)
def test_two_directions_lose_the_same_units(name: str) -> None:
    # Keras infers the shapes of both from the first.
    model = sequence(BOTH[name]())
    assert checked(model) == {"a": 8, "r": 6, "out": 0}
    layer = PruneChannels(0.5, importance="random", seed=3)(model).get_layer("r")
    ways = (layer.forward_layer, layer.backward_layer)
    assert len({way.cell.units for way in ways}) == 1 and ways[0].cell.units < 6


def test_two_directions_of_unlike_width_stay_whole_and_the_reason_names_it() -> None:
    back = L.GRU(4, go_backwards=True, return_sequences=True)
    both = L.Bidirectional(L.GRU(6, return_sequences=True), backward_layer=back, name="r")
    tensor = keras.Input((5, 3))
    # Keras takes both for as wide as the first, so that no layer with weights can read them.
    model = keras.Model(tensor, L.GlobalMaxPooling1D()(both(L.Dense(8, name="a")(tensor))))
    (group,) = channel_groups(model)
    assert group.pinned == f"'r' is not cut: {UNLIKE}"
    assert profile(model, latency=False).macs == 5 * (3 * 8 + 8 * 18 + 6 * 18 + 8 * 12 + 4 * 12)


def test_two_directions_of_unlike_width_are_cut_where_they_are_called_themselves() -> None:
    """The fix that the reason names."""
    back = L.GRU(4, go_backwards=True, return_sequences=True, name="back")
    ahead = L.GRU(6, return_sequences=True, name="ahead")
    both = L.Bidirectional(ahead, backward_layer=back, name="r")
    tensor = keras.Input((5, 3))
    pooled = L.GlobalMaxPooling1D()(both(tensor))
    parts = [both.forward_layer(tensor), keras.ops.flip(both.backward_layer(tensor), axis=1)]
    joined = L.GlobalMaxPooling1D()(L.Concatenate()(parts))
    x = np.random.default_rng(0).normal(size=(4, 5, 3))
    first, second = keras.Model(tensor, [pooled, joined]).predict_on_batch(x)
    np.testing.assert_allclose(first, second, rtol=1e-5)
    model = keras.Model(tensor, L.Dense(2, name="out")(joined))
    names = {both.forward_layer.name: 6, both.backward_layer.name: 4, "out": 0}
    assert checked(model) == names


def test_layers_in_a_row_and_an_initial_state_are_tied_where_they_meet() -> None:
    tensor = keras.Input((5, 3))
    start = L.Dense(6, name="start")(L.Flatten()(tensor))
    first = L.LSTM(7, return_sequences=True, name="first")(tensor)
    y, state = L.GRU(6, return_state=True, return_sequences=True, name="second")(
        first, initial_state=start
    )
    joined = L.Concatenate()([L.GlobalMaxPooling1D()(y), state])
    model = keras.Model(tensor, L.Dense(2, name="out")(joined))
    assert checked(model) == {"start": 6, "first": 7, "out": 0}
    group = next(g for g in channel_groups(model) if g.name == "start")
    assert "second" in group.layers


def test_a_state_from_outside_pins_the_units() -> None:
    tensor, state = keras.Input((5, 3)), keras.Input((6,))
    y = L.GRU(6, name="r")(tensor, initial_state=state)
    model = keras.Model([tensor, state], L.Dense(2)(y))
    assert channel_groups(model)[0].pinned is not None


def test_a_masked_sequence_stays_masked() -> None:
    tokens = keras.Input((6,), dtype="int32")
    x = L.Embedding(11, 8, mask_zero=True, name="table")(tokens)
    model = keras.Model(tokens, L.Dense(2, name="out")(L.LSTM(6, name="r")(x)))
    assert checked(model) == {"table": 8, "r": 6, "out": 0}


@pytest.mark.parametrize("settings", [{}, {"return_sequences": True, "return_state": True}])
def test_convolutional_recurrence(settings: dict[str, Any]) -> None:
    for layer in (
        L.ConvLSTM2D(5, 2, name="r", **settings),
        L.Bidirectional(L.ConvLSTM2D(5, 2, **settings), name="r"),
    ):
        assert checked(sequence(layer, (3, 4, 4, 2))) == {"a": 8, "r": 5, "out": 0}


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        (lambda: L.Dense(5), {"a": 8, "t": 5}),
        (lambda: L.Conv2D(5, 2, activation="relu"), {"a": 8, "t": 5}),
        (lambda: L.BatchNormalization(), {"a": 8}),
        (lambda: L.GroupNormalization(4), {"a": 4}),
        (lambda: L.Flatten(), {"a": 8}),
    ],
)
def test_a_layer_that_is_applied_to_every_step(inner: Any, expected: dict[str, int]) -> None:
    model = sequence(L.TimeDistributed(inner(), name="t"), (3, 4, 4, 2))
    assert checked(model) == {**expected, "out": 0}


def test_a_layer_over_all_channels_is_cut_in_every_step() -> None:
    model = sequence(L.TimeDistributed(L.LayerNormalization(), name="t"))
    assert checked(model) == {"a": 8, "out": 0}


def test_costs_count_every_step() -> None:
    tensor = keras.Input((5, 3))
    macs = profile(keras.Model(tensor, L.LSTM(6)(tensor)), latency=False).macs
    assert macs == 5 * (3 * 24 + 6 * 24)
    both = profile(keras.Model(tensor, L.Bidirectional(L.GRU(6))(tensor)), latency=False).macs
    assert both == 2 * 5 * (3 * 18 + 6 * 18)
    step = profile(keras.Model(tensor, L.TimeDistributed(L.Dense(4))(tensor)), latency=False)
    assert step.macs == 5 * 3 * 4
