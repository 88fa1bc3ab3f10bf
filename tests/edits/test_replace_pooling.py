"""Other pooling, or a convolution in its place, at every rank and in every guise."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei import ReplacePooling
from saikei.edits.replacing.poolings import Pooling
from saikei.errors import EditError
from saikei.graph import read
from saikei.testing import assert_cuts_exactly

SPACE = {1: (12,), 2: (12, 10), 3: (6, 8, 4)}


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return ops.convert_to_numpy(model(x, training=False))


def batch(model: keras.Model) -> np.ndarray:
    shape = (2, *(size or 9 for size in model.input_shape[1:]))
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def pooled(layer: Any, rank: int = 2, channels: int = 3) -> keras.Model:
    x = keras.Input((*SPACE[rank], channels))
    return keras.Model(x, L.Activation("tanh")(layer(x)))


def small() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3))
    y = L.Conv2D(4, 3, name="a")(x)
    y = L.MaxPooling2D(2, name="pool")(y)
    y = L.Conv2D(4, 2, name="b")(y)
    y = L.AveragePooling2D(2, name="mean")(y)
    y = L.GlobalAveragePooling2D(name="top")(y)
    return keras.Model(x, L.Dense(2, name="head")(y))


@pytest.mark.parametrize(
    ("rank", "padding", "strides"),
    [
        pytest.param(*case, marks=pytest.mark.slow if case[0] != 2 and case[2] != 2 else ())
        for case in itertools.product([1, 2, 3], ["valid", "same"], [1, 2, None])
    ],
)
def test_max_and_average_change_places(rank: int, padding: str, strides: int | None) -> None:
    maximum, average = (
        getattr(L, f"{kind}Pooling{rank}D")(3, strides, padding) for kind in ("Max", "Average")
    )
    one, other = pooled(maximum, rank), pooled(average, rank)
    x = batch(one)
    np.testing.assert_allclose(
        run(ReplacePooling("any", "average")(one), x), run(other, x), atol=1e-6
    )
    np.testing.assert_allclose(run(ReplacePooling("any", "max")(other), x), run(one, x), atol=1e-6)


@pytest.mark.parametrize("kind", ["layer", "op", "reduction"])
@pytest.mark.parametrize("keepdims", [True, False])
def test_global_pooling_is_found_as_layer_and_as_reduction(kind: str, keepdims: bool) -> None:
    def mean(x: Any) -> Any:
        if kind == "layer":
            return L.GlobalAveragePooling2D(keepdims=keepdims, name="top")(x)
        axes = (1, 2) if kind == "op" else [-2, -3]
        return ops.mean(x, axis=axes, keepdims=keepdims)

    model = pooled(mean)
    changed = ReplacePooling("global", "max")(model)
    x = batch(model)
    want = np.tanh(x.max(axis=(1, 2), keepdims=keepdims))
    np.testing.assert_allclose(run(changed, x), want, rtol=1e-5)


def test_a_reduction_over_channels_is_no_pooling() -> None:
    model = pooled(lambda x: ops.mean(x, axis=-1))
    with pytest.raises(EditError, match="no 'global' pooling.*the model has none"):
        ReplacePooling("global", "max")(model)


@pytest.mark.parametrize("name", ["max", "average"])
def test_pooling_operations_are_found(name: str) -> None:
    model = pooled(lambda x: getattr(ops, f"{name}_pool")(x, 3, 2, "same"))
    other = "average" if name == "max" else "max"
    want = pooled(lambda x: getattr(ops, f"{other}_pool")(x, 3, 2, "same"))
    changed = ReplacePooling("any", other)(model)
    np.testing.assert_allclose(run(changed, batch(model)), run(want, batch(model)), atol=1e-6)


@pytest.mark.parametrize("rank", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("new", ["conv", "depthwise_conv"])
@pytest.mark.parametrize(("size", "strides"), [(2, 2), (3, 2), (3, 1)])
def test_a_convolution_starts_as_the_average(rank: int, new: str, size: int, strides: int) -> None:
    model = pooled(getattr(L, f"AveragePooling{rank}D")(size, strides, name="pool"), rank)
    changed = ReplacePooling("any", new)(model)
    np.testing.assert_allclose(run(changed, batch(model)), run(model, batch(model)), atol=1e-6)
    layer = changed.get_layer("pool")
    assert "Conv" in type(layer).__name__ and layer.trainable_weights and not layer.use_bias


def test_a_convolution_over_three_axes_starts_as_the_average() -> None:
    model = pooled(L.AveragePooling3D((2, 3, 1), (1, 2, 1), name="pool"), 3)
    changed = ReplacePooling("any", "conv")(model)
    np.testing.assert_allclose(run(changed, batch(model)), run(model, batch(model)), atol=1e-6)
    with pytest.raises(EditError, match="'pool' .AveragePooling3D.*use 'conv'"):
        ReplacePooling("any", "depthwise_conv")(model)


def test_with_padding_a_convolution_is_the_average_away_from_the_border() -> None:
    model = pooled(L.AveragePooling2D(3, 1, "same"))
    x = batch(model)
    got, want = run(ReplacePooling("any", "conv")(model), x), run(model, x)
    np.testing.assert_allclose(got[:, 1:-1, 1:-1], want[:, 1:-1, 1:-1], atol=1e-6)
    assert np.abs(got - want).max() > 1e-3


@pytest.mark.parametrize("new", ["conv", "depthwise_conv"])
@pytest.mark.parametrize("keepdims", [True, False])
def test_a_global_average_becomes_a_convolution_over_everything(new: str, keepdims: bool) -> None:
    model = pooled(L.GlobalAveragePooling2D(keepdims=keepdims, name="top"))
    changed = ReplacePooling("any", new, layers=("top",))(model)
    np.testing.assert_allclose(run(changed, batch(model)), run(model, batch(model)), atol=1e-6)
    assert changed.get_layer("top").output.shape == model.get_layer("top").output.shape


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("reduction", ["max", "average"])
def test_adaptive_pooling_keeps_the_output_size_and_windows_that_divide(
    rank: int, reduction: str
) -> None:
    model = pooled(getattr(L, f"{reduction.capitalize()}Pooling{rank}D")(2, name="pool"), rank)
    changed = ReplacePooling("any", "adaptive")(model)
    assert type(changed.get_layer("pool")).__name__.startswith("Adaptive")
    np.testing.assert_allclose(run(changed, batch(model)), run(model, batch(model)), atol=1e-6)


def test_adaptive_pooling_gives_its_target_size_and_a_convolution_replaces_it() -> None:
    adaptive = ReplacePooling("any", "adaptive_average", layers=("pool",), size=(5, 4))(small())
    assert adaptive.get_layer("pool").output.shape[1:3] == (5, 4)
    fitting = ReplacePooling("average", "adaptive_average", layers=("mean",), size=2)(small())
    again = ReplacePooling("adaptive", "depthwise_conv")(fitting)
    np.testing.assert_allclose(run(again, batch(again)), run(fitting, batch(again)), atol=1e-5)


@pytest.mark.parametrize(("space", "size"), [(12, 4), (12, 5), (7, 3), (9, 9), (10, 1)])
def test_windows_that_stand_in_for_adaptive_ones_give_the_same_size(space: int, size: int) -> None:
    pooling = Pooling("average", "adaptive", 1, "channels_last", (size,))
    window = pooling.as_window((space,))
    x = keras.Input((space, 2))
    adaptive = keras.Model(x, pooling.layer((space,))(x))
    fixed = keras.Model(x, window.layer((space,))(x))
    assert fixed.output_shape == adaptive.output_shape == (None, size, 2)
    if space % size == 0:
        data = batch(fixed)
        np.testing.assert_allclose(run(fixed, data), run(adaptive, data), atol=1e-6)


def test_without_an_adaptive_layer_in_keras_windows_stand_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = pooled(L.MaxPooling2D(3, name="pool"))
    want = run(ReplacePooling("any", "adaptive_average", size=2)(model), batch(model))
    monkeypatch.delattr(keras.layers, "AdaptiveAveragePooling2D")
    changed = ReplacePooling("any", "adaptive_average", size=2)(model)
    assert isinstance(changed.get_layer("pool"), L.AveragePooling2D)
    np.testing.assert_allclose(run(changed, batch(model)), want, atol=1e-6)
    x = keras.Input((None, None, 3))
    unknown = keras.Model(x, L.Conv2D(2, 1)(L.MaxPooling2D(name="pool")(x)))
    with pytest.raises(EditError, match="'pool'.*is not known beforehand"):
        ReplacePooling("any", "adaptive_average", size=2)(unknown)


def test_a_pooling_becomes_global_where_what_follows_takes_it() -> None:
    changed = ReplacePooling("any", "global_max", layers=("mean",))(small())
    assert changed.get_layer("mean").output.shape == (None, 1, 1, 4)
    x = batch(changed)
    inner = keras.Model(changed.input, changed.get_layer("b").output)
    want = run(changed.get_layer("head"), run(inner, x).max(axis=(1, 2)))
    np.testing.assert_allclose(run(changed, x), want, rtol=1e-5, atol=1e-6)


def test_a_wider_window_keeps_its_strides() -> None:
    changed = ReplacePooling("any", "max", layers=("pool",), size=3)(small())
    layer = changed.get_layer("pool")
    assert (layer.pool_size, layer.strides) == ((3, 3), (2, 2))
    assert layer.output.shape == (None, 4, 4, 4)


def flattened() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(x))
    return keras.Model(x, L.Dense(2, name="head")(y))


@pytest.mark.parametrize(
    "edit",
    [
        ReplacePooling("any", "global"),
        ReplacePooling("any", "adaptive", size=3),
        ReplacePooling("any", "max", size=5),
    ],
)
def test_a_dense_layer_behind_of_another_size_refuses(edit: ReplacePooling) -> None:
    model = flattened()
    before = model.to_json()
    with pytest.raises(EditError, match="ReplacePooling: Layer 'head' .*48.*To fix it, keep"):
        edit(model)
    assert model.to_json() == before


def test_global_poolings_stay_unless_they_are_asked_for() -> None:
    changed = ReplacePooling("any", "max")(small())
    assert isinstance(changed.get_layer("mean"), L.MaxPooling2D)
    assert isinstance(changed.get_layer("top"), L.GlobalAveragePooling2D)
    by_kind = ReplacePooling("average", "max")(small())
    assert isinstance(by_kind.get_layer("top"), L.GlobalAveragePooling2D)
    asked = ReplacePooling("global_average", "max")(small())
    assert isinstance(asked.get_layer("mean"), L.AveragePooling2D)
    assert isinstance(asked.get_layer("top"), L.GlobalMaxPooling2D)


def test_a_shared_pooling_is_replaced_once_in_a_model_with_two_outputs() -> None:
    a, b = keras.Input((8, 8, 2)), keras.Input((6, 6, 2))
    shared = L.AveragePooling2D(2, name="pool")
    model = keras.Model([a, b], {"x": L.Conv2D(1, 1)(shared(a)), "y": shared(b)})
    changed = ReplacePooling("any", "depthwise_conv")(model)
    assert [layer.name for layer in changed.layers].count("pool") == 1
    data = [np.random.default_rng(0).standard_normal((2, s, s, 2)).astype("f") for s in (8, 6)]
    for key, value in model(data).items():
        np.testing.assert_allclose(changed(data)[key], value, atol=1e-6)


def test_policy_trainable_and_data_format_are_kept() -> None:
    x = keras.Input((4, 8, 8))
    pool = L.AveragePooling2D(
        2, data_format="channels_first", dtype="mixed_float16", trainable=False, name="pool"
    )
    model = keras.Model(x, L.Activation("tanh")(pool(x)))
    graph = ReplacePooling("any", "depthwise_conv").apply(read(model))
    operation = graph.operations["pool"]
    assert operation.config["data_format"] == "channels_first"
    assert operation.config["dtype"]["config"]["name"] == "mixed_float16"
    assert not operation.source.trainable
    assert operation.weights["kernel"].shape == (2, 2, 4, 1)
    assert graph.spec(graph.output_refs()[0]).shape == (None, 4, 4, 4)


@pytest.mark.parametrize("new", ["conv", "depthwise_conv", "adaptive_max", "global"])
def test_channels_can_be_cut_afterwards(new: str) -> None:
    changed = ReplacePooling("any", new, layers=("mean",))(small())
    assert assert_cuts_exactly(changed).cut > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"new": "median"}, "Unknown pooling 'median'"),
        ({"new": "max", "old": "median"}, "Unknown old pooling"),
        ({"new": "max", "size": 0}, "1 or more"),
        ({"new": "max", "size": (2, True)}, "whole numbers"),
        ({"new": "max", "size": ()}, "1 or more"),
        ({"new": "global", "size": 2}, "global pooling has no size"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        ReplacePooling(**{"old": "any", **arguments})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (ReplacePooling("any", "max", layers=("pol",)), "did you mean 'pool'"),
        (ReplacePooling("any", "max", layers=("a",)), "'a' .Conv2D. does not pool"),
        (ReplacePooling("any", "max", layers=("pool",)), "change nothing"),
        (ReplacePooling("average", "max", layers=("pool",)), "'pool' pools by max, not"),
        (ReplacePooling("adaptive", "max"), "no 'adaptive' pooling.*'top: global average'"),
        (ReplacePooling("any", "max", exclude=("pool", "mean")), "all excluded"),
        (
            ReplacePooling("any", "adaptive", layers=("top",)),
            "'top'.*only become another global",
        ),
        (ReplacePooling("any", "max", layers=("top",), size=2), "'top'.*it is global"),
        (ReplacePooling("any", "adaptive", layers=("pool",), size=11), r"\(11, 11\) is above"),
        (ReplacePooling("any", "max", layers=("pool",), size=(2, 2, 2)), "each of 2 axes"),
        (ReplacePooling("global", "conv", size=2), "'top'.*no size"),
    ],
)
def test_what_cannot_be_is_refused(edit: ReplacePooling, message: str) -> None:
    with pytest.raises(EditError, match=message):
        edit(small())
