"""Rules on small models where the right answer is plain to see."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei.channels import channel_groups
from saikei.costs import profile
from saikei.rules import Rule, register_rule
from saikei.rules.activations import elementwise
from saikei.rules.base import no_macs
from tests.rules.nets import Remembering, checked


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolutions_of_every_rank_cut_and_run(rank: int) -> None:
    conv, pool = getattr(L, f"Conv{rank}D"), getattr(L, f"MaxPooling{rank}D")
    transpose = getattr(L, f"Conv{rank}DTranspose")
    model = keras.Sequential(
        [
            keras.Input((8,) * rank + (2,)),
            getattr(L, f"ZeroPadding{rank}D")(1),
            conv(6, 3, activation="relu", name="a"),
            L.BatchNormalization(),
            getattr(L, f"SpatialDropout{rank}D")(0.5),
            pool(2),
            getattr(L, f"UpSampling{rank}D")(2),
            transpose(5, 3, padding="same", name="b"),
            getattr(L, f"Cropping{rank}D")(1),
            getattr(L, f"AdaptiveAveragePooling{rank}D")(3),
            L.PReLU(),
            getattr(L, f"GlobalAveragePooling{rank}D")(),
            L.Dense(3, name="out"),
        ]
    )
    assert checked(model) == {"a": 6, "b": 5, "out": 0}


@pytest.mark.parametrize("rank", [1, 2])
def test_depthwise_and_separable_convolutions_of_every_rank(rank: int) -> None:
    model = keras.Sequential(
        [
            keras.Input((8,) * rank + (2,)),
            getattr(L, f"Conv{rank}D")(4, 1, name="a"),
            getattr(L, f"DepthwiseConv{rank}D")(3, depth_multiplier=2),
            getattr(L, f"SeparableConv{rank}D")(6, 3, depth_multiplier=2, name="b"),
            L.Flatten(),
            L.Dense(2, name="out"),
        ]
    )
    assert checked(model) == {"a": 4, "b": 6, "out": 0}


def test_channels_first_models_cut_the_first_axis() -> None:
    # TensorFlow has no channels-first convolution on the CPU, so the convolutions here are
    # channels-last and the data is turned between them.
    tensor = keras.Input((8, 8, 3))
    x = L.Permute((3, 1, 2))(L.Conv2D(6, 3, name="a")(tensor))
    x = L.BatchNormalization(axis=1)(x)
    x = L.PReLU(shared_axes=(2, 3))(x)
    x = L.ZeroPadding2D(1, data_format="channels_first")(x)
    x = L.GlobalAveragePooling2D(data_format="channels_first", keepdims=True)(x)
    x = L.Flatten(data_format="channels_first")(x)
    model = keras.Model(tensor, L.Dense(2, name="out")(x))
    assert checked(model) == {"a": 6, "out": 0}


def test_flatten_of_channels_first_follows_keras_order() -> None:
    tensor = keras.Input((4, 4, 3))
    x = L.Permute((3, 1, 2))(L.Conv2D(5, 3, name="a")(tensor))
    model = keras.Model(tensor, L.Dense(2, name="out")(L.Flatten(data_format="channels_first")(x)))
    assert checked(model) == {"a": 5, "out": 0}


def test_a_sum_ties_its_terms_and_a_concatenation_does_not() -> None:
    tensor = keras.Input((5, 5, 3))
    a, b = L.Conv2D(4, 1, name="a")(tensor), L.Conv2D(4, 1, name="b")(tensor)
    c = L.Conv2D(3, 1, name="c")(tensor)
    joined = L.Concatenate()([L.Add()([a, b]), c])
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(joined)))
    assert checked(model) == {"a": 4, "c": 3, "out": 0}
    group = next(g for g in channel_groups(model) if g.name == "a")
    assert set(group.blocks) == {"a", "b"}


def test_a_sum_with_a_concatenation_ties_piece_by_piece() -> None:
    tensor = keras.Input((5, 5, 3))
    a, b = L.Conv2D(4, 1, name="a")(tensor), L.Conv2D(3, 1, name="b")(tensor)
    whole = L.Conv2D(7, 1, name="whole")(tensor)
    total = L.Add()([L.Concatenate()([a, b]), whole])
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(total)))
    assert checked(model) == {"a": 7, "out": 0}


def test_concatenations_of_concatenations_cut_and_run() -> None:
    x = keras.Input((5, 5, 3))
    inputs = x
    for number in range(4):
        x = L.Concatenate()([x, L.Conv2D(3, 3, padding="same", name=f"c{number}")(x)])
    model = keras.Model(inputs, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(x)))
    assert checked(model) == {"c0": 3, "c1": 3, "c2": 3, "c3": 3, "concatenate": 0, "out": 0} or (
        all(checked(model)[f"c{n}"] == 3 for n in range(4))
    )


def test_a_residual_to_the_input_is_pinned() -> None:
    tensor = keras.Input((5, 5, 3))
    model = keras.Model(tensor, L.Add()([tensor, L.Conv2D(3, 1, name="a")(tensor)]))
    assert channel_groups(model)[0].pinned is not None


def test_grouped_convolutions_lose_whole_groups() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            L.Conv2D(12, 1, name="wide"),
            L.Conv2D(8, 3, groups=4, name="grouped"),
            L.GlobalAveragePooling2D(),
            L.Dense(2, name="out"),
        ]
    )
    assert checked(model)["wide"] == 4


def test_a_layer_that_is_called_on_different_layers_ties_them() -> None:
    tensor = keras.Input((4, 4, 3))
    shared = L.Conv2D(5, 1, name="shared")
    a, b = L.Conv2D(6, 1, name="a")(tensor), L.Conv2D(6, 1, name="b")(tensor)
    merged = L.Concatenate()([shared(a), shared(b)])
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(merged)))
    groups = checked(model)
    assert groups == {"a": 6, "shared": 5, "out": 0}


def test_a_shared_reshape_cuts_both_of_its_calls_alike() -> None:
    tensor = keras.Input((4, 4, 3))
    reshape = L.Reshape((16, 6))
    a, b = L.Conv2D(6, 1, name="a")(tensor), L.Conv2D(6, 1, name="b")(tensor)
    joined = L.Concatenate(axis=1)([reshape(a), reshape(b)])
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling1D()(joined)))
    assert checked(model) == {"a": 6, "out": 0}


def test_a_layer_without_a_rule_pins_what_it_touches_with_the_reason() -> None:
    wrapped = Remembering(name="memory")
    model = keras.Sequential(
        [keras.Input((5, 3)), L.Conv1D(4, 1, name="a"), wrapped, L.Flatten(), L.Dense(2)]
    )
    group = next(g for g in channel_groups(model) if g.name == "a")
    assert "memory" in str(group.pinned)
    layers = {layer.name: layer for layer in profile(model, latency=False).layers}
    assert "memory" in str(layers["a"].pinned)
    assert layers["memory"].macs is None
    assert "memory" in profile(model, latency=False).summary()


def test_an_unknown_activation_function_pins_its_layer() -> None:
    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(6, activation="glu", name="gated"), L.Dense(2)]
    )
    assert "glu" in str(channel_groups(model)[0].pinned)


@pytest.mark.parametrize("axis", [1, -1])
def test_a_softmax_inside_pins_only_its_axis(axis: int) -> None:
    model = keras.Sequential(
        [keras.Input((5, 3)), L.Dense(6, name="a"), L.Softmax(axis=axis), L.Dense(2)]
    )
    assert (channel_groups(model)[0].pinned is not None) == (axis == -1)


def test_a_rule_for_ones_own_layer_makes_it_cuttable() -> None:
    @register_rule(Rule(elementwise, no_macs))
    @keras.saving.register_keras_serializable("tests")
    class Doubled(L.Layer):  # type: ignore[misc]
        def call(self, inputs: object) -> object:
            return 2 * inputs  # type: ignore[operator]

    model = keras.Sequential(
        [keras.Input((3,)), L.Dense(6, name="a"), Doubled(), L.Dense(2, name="out")]
    )
    assert checked(model) == {"a": 6, "out": 0}


@pytest.mark.sampled
@pytest.mark.parametrize(
    "operation",
    [
        lambda x: ops.relu(x) + 1.0,
        lambda x: 2.0 - x,
        lambda x: x / np.arange(1.0, 7.0, dtype="float32"),
        lambda x: ops.concatenate([x, x], axis=1),
        lambda x: ops.stack([x, x], axis=1)[:, 0],
        lambda x: ops.mean(x, axis=1, keepdims=True) * x,
        lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
        lambda x: ops.swapaxes(ops.swapaxes(x, 1, 3), 1, 3),
        lambda x: ops.moveaxis(ops.moveaxis(x, -1, 1), 1, -1),
        lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0))),
        lambda x: ops.flip(ops.flip(x, 3), 1) + x,
        lambda x: ops.where(x > 0, x, 0.0),
        lambda x: ops.average_pool(x, 2),
        lambda x: ops.clip(x, -5.0, 5.0),
        lambda x: x[:, 1:, None, ...][:, :, 0],
    ],
)
def test_operations_of_a_functional_graph_keep_channels_cuttable(operation: object) -> None:
    tensor = keras.Input((4, 4, 3))
    x = operation(L.Conv2D(6, 1, name="a")(tensor))  # type: ignore[operator]
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(x)))
    groups = checked(model, readers=True)
    assert groups["a"] >= 3 and groups["out"] == 0


@pytest.mark.parametrize(
    "operation",
    [lambda x: x[..., ::2], lambda x: ops.sort(x, axis=-1), lambda x: ops.softmax(x)],
)
def test_operations_that_need_all_channels_pin_them(operation: object) -> None:
    tensor = keras.Input((4, 4, 3))
    x = operation(L.Conv2D(6, 1, name="a")(tensor))  # type: ignore[operator]
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(x)))
    assert channel_groups(model)[0].pinned is not None


def test_an_embedding_that_is_flattened_with_unknown_length_is_refused_nowhere() -> None:
    tensor = keras.Input((None, 3))
    x = L.Conv1D(6, 3, name="a")(tensor)
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalAveragePooling1D()(x)))
    assert checked(model) == {"a": 6, "out": 0}


def test_a_single_channel_that_is_broadcast_stays() -> None:
    tensor = keras.Input((4, 4, 3))
    x = L.Conv2D(6, 1, name="a")(tensor)
    gate = L.Conv2D(1, 1, activation="sigmoid", name="gate")(x)
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(x * gate)))
    assert checked(model, readers=True) == {"a": 6, "gate": 0, "out": 0}
