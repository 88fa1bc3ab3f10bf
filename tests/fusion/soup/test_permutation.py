"""Channels that change places: the function stays, and matching finds the way back."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as L

from saikei.channels import map_channels
from saikei.fusion.soup.alignment import align
from saikei.fusion.soup.architecture import tensors, with_tensors
from saikei.fusion.soup.permutation import Symmetries, moved_index
from saikei.graph import build, read
from saikei.testing import random_inputs, randomise_statistics
from tests.properties.random_graphs import ANY, random_models

thorough = settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def outputs(model: keras.Model, batch: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(o) for o in keras.tree.flatten(model(batch, training=False))]


def assert_aligns_back(model: keras.Model, seed: int, tolerance: float = 1e-4) -> int:
    """Permute at random and align; returns how many channels could move."""
    randomise_statistics(model, seed)
    graph = read(model)
    symmetries = Symmetries.of(map_channels(graph))
    numbers = tensors(graph, graph)
    source = symmetries.random(np.random.default_rng(seed))
    permuted = symmetries.apply(numbers, source)
    batch = random_inputs(model, np.random.default_rng(seed))
    before, after = outputs(model, batch), outputs(build(with_tensors(graph, permuted)), batch)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(b, a, atol=tolerance * max(np.abs(a).max(initial=0), 1e-3))
    back = align(symmetries, numbers, permuted)
    assert back.distance == 0
    for place, array in numbers.items():
        np.testing.assert_array_equal(back.numbers[place], array)
    return sum(map(len, symmetries.orbits))


@pytest.mark.slow
@settings(thorough, max_examples=60, derandomize=False, print_blob=True)
@given(random_models(ANY), st.integers(0, 1000))
def test_permuted_fresh_graphs_compute_the_same_and_are_aligned_back(
    model: keras.Model, seed: int
) -> None:
    assert_aligns_back(model, seed)


@pytest.mark.long
@thorough
@given(random_models(ANY), st.integers(0, 1000))
def test_permuted_random_graphs_compute_the_same_and_are_aligned_back(
    model: keras.Model, seed: int
) -> None:
    assert_aligns_back(model, seed)


@pytest.mark.long
def test_a_permuted_mobilenet_is_aligned_back_bit_by_bit() -> None:
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=5)
    assert assert_aligns_back(model, 1) > 3000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNet50", "DenseNet121"])
def test_a_permuted_large_network_is_aligned_back_bit_by_bit(name: str) -> None:
    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, name)
    assert assert_aligns_back(make(input_shape=(32, 32, 3), weights=None, classes=5), 1, 1e-3)


def test_halves_that_meet_different_functions_are_not_mixed() -> None:
    x = keras.Input((4,))
    y = L.Dense(6)(x)
    halves = keras.ops.split(y, 2, axis=-1)
    y = L.Concatenate()([keras.ops.relu(halves[0]), keras.ops.tanh(halves[1])])
    model = keras.Model(x, L.Dense(2)(y))
    orbits = Symmetries.of(map_channels(read(model))).orbits
    assert sorted(len(orbit) for orbit in orbits) == [3, 3]
    assert_aligns_back(model, 0)


def test_channels_that_meet_constants_of_the_architecture_stay() -> None:
    x = keras.Input((4,))
    y = L.Rescaling([1.0, 2.0, 3.0])(L.Dense(3)(x))
    model = keras.Model(x, L.Dense(2)(y))
    assert Symmetries.of(map_channels(read(model))).orbits == ()


def test_outputs_and_inputs_keep_their_order() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(5), L.Dense(3)])
    (orbit,) = Symmetries.of(map_channels(read(model))).orbits
    assert len(orbit) == 5


def test_a_channel_that_stands_several_times_moves_with_all_its_places() -> None:
    channels, source = np.array([7, 8, 9, 7, 8, 9]), np.arange(10)
    source[[7, 8, 9]] = [9, 7, 8]
    np.testing.assert_array_equal(moved_index(channels, source), [2, 0, 1, 5, 3, 4])
    assert moved_index(channels, np.arange(10)) is None


def residual(x: Any) -> Any:
    x = L.Dense(12, "relu")(x)
    return x + L.Dense(12, "tanh")(x)


def shared_twice(x: Any) -> Any:
    layer = L.Dense(12, "tanh")
    return layer(layer(x))


MEETING_THEMSELVES: dict[str, Any] = {
    "recurrent kernels": lambda x: L.GRU(10)(L.Bidirectional(L.LSTM(12, return_sequences=True))(x)),
    "a plain recurrence": L.SimpleRNN(12),
    "a residual of one layer": residual,
    "a layer that is called twice": lambda x: shared_twice(L.Dense(12)(x)),
}


@pytest.mark.parametrize("name", MEETING_THEMSELVES)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_channels_that_meet_themselves_in_a_weight_find_their_order(
    name: str, noise: float
) -> None:
    tensor = keras.Input((6, 2))
    model = keras.Model(tensor, L.Dense(3)(MEETING_THEMSELVES[name](tensor)))
    graph = read(model)
    symmetries = Symmetries.of(map_channels(graph))
    axes = Counter(axis.weight for axis in symmetries.axes)
    twice = [place for place, count in axes.items() if count == 2]
    for seed in range(4):
        draw = np.random.default_rng(seed)
        numbers = {k: draw.standard_t(5, a.shape) for k, a in tensors(graph, graph).items()}
        for place in twice:
            # The kernels in which channels meet themselves count for more than all others.
            numbers[place] = 5 * numbers[place]
        noisy = {k: a + noise * draw.standard_normal(a.shape) for k, a in numbers.items()}
        back = align(symmetries, numbers, symmetries.apply(noisy, symmetries.random(draw)))
        for place, array in noisy.items():
            np.testing.assert_array_equal(back.numbers[place], array)


def test_a_network_with_noise_is_aligned_to_the_order_of_the_one_without() -> None:
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((6,)), L.Dense(16, "relu"), L.Dense(12, "relu"), L.Dense(3)]
    )
    graph = read(model)
    symmetries, numbers = Symmetries.of(map_channels(graph)), tensors(graph, graph)
    generator = np.random.default_rng(2)
    source = symmetries.random(generator)
    noisy = {k: a + 0.02 * generator.standard_normal(a.shape) for k, a in numbers.items()}
    noisy = {k: a.astype(np.float32) for k, a in noisy.items()}
    back = align(symmetries, numbers, symmetries.apply(noisy, source))
    for place, array in noisy.items():
        np.testing.assert_array_equal(back.numbers[place], array)
    assert 0 < back.distance < 1


def test_a_network_that_is_aligned_stays_as_it_is() -> None:
    model = keras.Sequential([keras.Input((6,)), L.Dense(8, "relu"), L.Dense(3)])
    graph = read(model)
    symmetries, numbers = Symmetries.of(map_channels(graph)), tensors(graph, graph)
    assert align(symmetries, numbers, numbers).moved == 0
