"""Normalisation and scaling pass channels; statistics over channels are marked as changed."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.channels import channel_groups, map_channels
from saikei.edits import PruneChannels
from saikei.graph import read
from saikei.testing import assert_cuts_exactly
from tests.rules.nets import between, checked


def adapted(**settings: object) -> L.Normalization:
    layer = L.Normalization(**settings)
    layer.build((None, 6, 6, 12))
    return layer


EXACT = {
    "batch": lambda: L.BatchNormalization(),
    "unit": lambda: L.UnitNormalization(),
    "unit over two axes": lambda: L.UnitNormalization(axis=[2, 3]),
    "adapted": lambda: adapted(),
    "adapted, inverted": lambda: adapted(invert=True),
    "adapted over two axes": lambda: adapted(axis=(1, -1)),
    "mean and variance given": lambda: L.Normalization(
        mean=np.linspace(-1, 1, 12), variance=np.linspace(1, 2, 12)
    ),
    "scalar mean and variance": lambda: L.Normalization(mean=0.0, variance=2.0),
    "rescaling by arrays": lambda: L.Rescaling(np.arange(1.0, 13), offset=np.arange(12.0)),
    "rescaling by a list": lambda: L.Rescaling([float(n) for n in range(1, 13)]),
    "rescaling by a number": lambda: L.Rescaling(2.0),
    "instance": lambda: L.GroupNormalization(-1),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", EXACT)
def test_what_scales_each_channel_alone_cuts_exactly(name: str) -> None:
    model = between(EXACT[name]())
    # A classifier that reads means would see the constant that instance normalisation leaves.
    assert checked(model) == {"a": 12, "out": 0}
    assert all(flow.inexact is None for flow in map_channels(read(model)).flows)


INEXACT = {
    "layer": lambda: L.LayerNormalization(),
    "layer, no offset": lambda: L.LayerNormalization(center=False),
    "layer, no weights": lambda: L.LayerNormalization(center=False, scale=False),
    "layer over all axes": lambda: L.LayerNormalization(axis=[1, 2, 3]),
    "rms": lambda: L.RMSNormalization(),
    "one group": lambda: L.GroupNormalization(1),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", INEXACT)
def test_statistics_over_channels_are_of_those_that_are_left(name: str) -> None:
    model = between(INEXACT[name]())
    assert checked(model) == {"a": 12, "out": 0}
    reasons = {flow.inexact for flow in map_channels(read(model)).flows} - {None}
    assert len(reasons) == 1


def test_a_layer_normalisation_over_another_axis_is_exact() -> None:
    model = between(L.LayerNormalization(axis=1, center=False))
    assert checked(model) == {"a": 12, "out": 0}
    assert all(flow.inexact is None for flow in map_channels(read(model)).flows)


def test_group_normalisation_loses_whole_groups() -> None:
    model = between(L.GroupNormalization(4, name="norm"))
    assert checked(model) == {"a": 4, "out": 0}
    small = PruneChannels(0.5)(model)
    assert small.get_layer("norm").groups == 2


def test_a_rescaling_vector_for_another_axis_pins() -> None:
    tensor = keras.Input((4, 6))
    x = L.Permute((2, 1))(L.Dense(12, name="a")(tensor))
    model = keras.Model(tensor, L.Rescaling([1.0, 2.0, 3.0, 4.0])(x))
    assert channel_groups(model)[0].pinned is not None


def test_a_shared_layer_normalisation_ties_what_it_is_called_on() -> None:
    tensor = keras.Input((5, 3))
    shared = L.LayerNormalization()
    a, b = L.Dense(6, name="a")(tensor), L.Dense(6, name="b")(tensor)
    x = L.Concatenate()([shared(a), shared(b)])
    model = keras.Model(tensor, L.Dense(2, name="out")(L.Flatten()(x)))
    assert checked(model) == {"a": 6, "out": 0}


def test_a_shared_normalisation_without_weights_ties_nothing() -> None:
    tensor = keras.Input((5, 3))
    shared = L.LayerNormalization(center=False, scale=False)
    a, b = L.Dense(6, name="a")(tensor), L.Dense(8, name="b")(tensor)
    x = L.Concatenate()([shared(a), shared(b)])
    model = keras.Model(tensor, L.Dense(2, name="out")(L.Flatten()(x)))
    assert checked(model) == {"a": 6, "b": 8, "out": 0}


def test_the_oracle_sees_a_scale_that_is_cut_at_the_wrong_place() -> None:
    model = between(L.LayerNormalization(name="norm"))
    gamma = model.get_layer("norm").gamma
    gamma.assign(np.arange(1.0, 13.0))
    assert_cuts_exactly(model)
    small = PruneChannels(0.5)(model)
    kept = set(small.get_layer("norm").gamma.numpy().tolist())
    assert len(kept) == 6 and kept < set(np.arange(1.0, 13.0).tolist())


def test_layer_scale_and_stochastic_depth_of_convnext_are_cut() -> None:
    model = keras.applications.ConvNeXtTiny(weights=None, classes=4, input_shape=(32, 32, 3))
    groups = channel_groups(model)
    assert [group.name for group in groups if group.pinned] == ["convnext_tiny_head_dense"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
def test_the_dtype_and_trainability_of_a_normalisation_stay(dtype: str) -> None:
    layer = L.LayerNormalization(dtype=dtype, name="norm")
    layer.trainable = False
    small = PruneChannels(0.5)(between(layer)).get_layer("norm")
    assert small.dtype_policy.name == dtype and not small.trainable
    assert small.gamma.shape == (6,)
