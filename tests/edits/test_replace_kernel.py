"""Kernels of other sizes compute at the same places, and two in a row come near one."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei import Recipe, ReplaceActivation, ReplaceKernel, ReplacePooling
from saikei.edits.replacing.composition import compose, stack_limit, stacked
from saikei.edits.replacing.convolutions import folding
from saikei.edits.replacing.geometry import Axis
from saikei.errors import EditError
from saikei.graph import read
from saikei.testing import assert_cuts_exactly


def run(model: keras.Model, x: Any) -> np.ndarray:
    return ops.convert_to_numpy(model(x, training=False))


def batch(model: keras.Model, space: int = 11) -> np.ndarray:
    shape = (2, *(size or space for size in model.input_shape[1:]))
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def network(kind: str, space: int | None, kernel: int, **settings: Any) -> keras.Model:
    """One convolution named "conv", with a bias, and something behind it."""
    keras.utils.set_random_seed(0)
    rank = int(kind[-2])
    x = keras.Input((*(space,) * rank, 4))
    args = (kernel,) if kind.startswith("Depthwise") else (6, kernel)
    settings = {"bias_initializer": "normal", "activation": "relu", "name": "conv", **settings}
    return keras.Model(x, L.Dense(3)(getattr(L, kind)(*args, **settings)(x)))


def zero_outer_taps(model: keras.Model, inner: int, causal: bool) -> None:
    """Leave only the taps that a kernel of size `inner` keeps."""
    layer = model.get_layer("conv")
    weights = layer.get_weights()
    kernel = weights[0]
    rank = kernel.ndim - 2
    kept = np.zeros_like(kernel)
    spare = kernel.shape[0] - inner
    start = spare if causal else spare // 2
    where = (slice(start, start + inner),) * rank
    kept[where] = kernel[where]
    layer.set_weights([kept, *weights[1:]])


KINDS = ["Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv2D"]
PLACES = [
    {"padding": "valid"},
    {"padding": "same"},
    {"padding": "same", "strides": 2},
    {"padding": "valid", "strides": 3},
    {"padding": "same", "dilation_rate": 2},
    {"padding": "valid", "dilation_rate": 2},
]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, "crop") for kind in KINDS),
        ("Conv2D", "resample"),
        *(
            pytest.param(kind, "resample", marks=pytest.mark.slow)
            for kind in KINDS
            if kind != "Conv2D"
        ),
    ],
)
def test_a_kernel_grows_and_shrinks_back_without_a_trace(kind: str, how: str) -> None:
    for place in PLACES[1:3]:
        model = network(kind, 9, 3, **place)
        grown = ReplaceKernel("any", 5)(model)
        x = batch(model)
        np.testing.assert_allclose(run(grown, x), run(model, x), atol=1e-6)
        assert set(grown.get_layer("conv").kernel_size) == {5}
        back = ReplaceKernel("any", 3, how=how)(grown)
        np.testing.assert_allclose(run(back, x), run(model, x), atol=1e-6)
        for one, other in zip(back.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.sampled
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("space", [9, pytest.param(10, marks=pytest.mark.slow)])
def test_every_size_grows_exactly_at_every_place(place: dict[str, Any], space: int) -> None:
    for old, new in [(1, 3), (2, 5), (3, 4)]:
        model = network("Conv1D", space, old, **place)
        grown = ReplaceKernel("any", new, layers=("conv",))(model)
        x = batch(model)
        np.testing.assert_allclose(run(grown, x), run(model, x), atol=1e-6, err_msg=f"{old} {new}")


@pytest.mark.sampled
@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("space", [9, pytest.param(10, marks=pytest.mark.slow)])
def test_a_kernel_shrinks_exactly_where_its_outer_taps_are_zero(
    place: dict[str, Any], space: int
) -> None:
    for old, new in [(3, 1), (5, 3), (4, 2)]:
        if place.get("dilation_rate", 1) * (old - 1) + 1 > space and place["padding"] == "valid":
            continue
        model = network("Conv1D", space, old, **place)
        zero_outer_taps(model, new, causal=False)
        x = batch(model)
        for how in ("crop", "auto"):
            small = ReplaceKernel("any", new, how=how)(model)
            np.testing.assert_allclose(run(small, x), run(model, x), atol=1e-6, err_msg=f"{old}")
            assert small.get_layer("conv").kernel_size == (new,)


@pytest.mark.parametrize("strides", [1, 2])
def test_a_causal_convolution_keeps_its_last_taps(strides: int) -> None:
    model = network("Conv1D", 9, 4, padding="causal", strides=strides)
    zero_outer_taps(model, 2, causal=True)
    x = batch(model)
    small = ReplaceKernel("any", 2)(model)
    np.testing.assert_allclose(run(small, x), run(model, x), atol=1e-6)
    grown = ReplaceKernel("any", 3)(small)
    np.testing.assert_allclose(run(grown, x), run(model, x), atol=1e-6)
    assert grown.get_layer("conv").padding == "causal"


def test_with_unknown_input_size_a_kernel_grows_where_its_place_is_certain() -> None:
    model = network("Conv2D", None, 3, padding="same", strides=2)
    for space in (8, 9):
        x = batch(model, space)
        np.testing.assert_allclose(run(ReplaceKernel("any", 5)(model), x), run(model, x), atol=1e-6)
    with pytest.raises(EditError, match="'conv' .Conv2D.*fixed input size, or exclude"):
        ReplaceKernel("any", 1)(model)
    with pytest.raises(EditError, match="'conv' .Conv2D.*fixed input size, or exclude"):
        ReplaceKernel("any", 2, how="stack")(model)


@pytest.mark.parametrize(("padding", "strides"), itertools.product(["same", "valid"], [1, 2, 3]))
def test_padding_is_counted_as_keras_counts_it(padding: str, strides: int) -> None:
    for size, kernel, dilation in itertools.product((7, 8, 9), (1, 2, 3, 4), (1, 2)):
        if dilation > 1 and strides > 1:
            continue
        axis = Axis(kernel, strides, dilation, padding, (size,))
        before, after = axis.pads()
        x = np.random.default_rng(0).standard_normal((1, size, 1)).astype("float32")
        weight = np.arange(1.0, kernel + 1, dtype="float32").reshape(kernel, 1, 1)
        padded = np.pad(x, ((0, 0), (before, after), (0, 0)))
        got = ops.conv(padded, weight, strides, "valid", dilation_rate=dilation)
        want = ops.conv(x, weight, strides, padding, dilation_rate=dilation)
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(("old", "new", "offset"), [(5, 3, 1), (5, 1, 2), (4, 2, 1), (4, 3, 0)])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_folding_is_the_least_squares_fit_for_correlated_inputs(
    old: int, new: int, offset: int, correlation: float
) -> None:
    lags = np.abs(np.subtract.outer(np.arange(old), np.arange(old))).astype(float)
    covariance = correlation**lags if correlation else np.eye(old)
    kept = slice(offset, offset + new)
    # argmin over k' of E(kᵀx − k'ᵀx_kept)² = C_kept,kept⁻¹ C_kept,all k
    best = np.linalg.solve(covariance[kept, kept], covariance[kept])
    np.testing.assert_allclose(folding(old, new, offset, correlation), best, atol=1e-12)


def test_resampling_keeps_more_of_a_smooth_input_than_cropping() -> None:
    model = network("Conv2D", 16, 5, padding="same", activation=None)
    noise = np.random.default_rng(0).standard_normal((4, 22, 22, 4))
    smooth = sum(noise[:, i : i + 16, j : j + 16] for i in range(7) for j in range(7)) / 7
    x = smooth.astype("float32")
    error = {
        how: np.abs(run(ReplaceKernel("any", 3, how=how)(model), x) - run(model, x)).mean()
        for how in ("crop", "resample")
    }
    assert error["resample"] < 0.75 * error["crop"]


def test_more_channels_between_come_nearer() -> None:
    model = network("Conv2D", 9, 5, padding="same")
    x = batch(model)
    errors = []
    for middle in (1, 4, 8):
        changed = ReplaceKernel("any", 3, how="stack", middle=middle)(model)
        errors.append(float(np.abs(run(changed, x) - run(model, x)).mean()))
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.sampled
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("place", [PLACES[i] for i in (0, 1, 2, 4)], ids=str)
def test_a_kernel_that_is_two_in_a_row_is_stacked_without_loss(
    rank: int, place: dict[str, Any]
) -> None:
    model = network(f"Conv{rank}D", 11, 5, **place)
    layer = model.get_layer("conv")
    generator = np.random.default_rng(1)
    one = generator.standard_normal((*(3,) * rank, 4, 2)) / 6
    other = generator.standard_normal((*(3,) * rank, 2, 6)) / 6
    layer.set_weights([compose(one, other), layer.get_weights()[1]])
    changed = ReplaceKernel("any", 3, how="stack", middle=2)(model)
    assert {len(w.shape) for w in changed.get_layer("conv_inner").weights} == {rank + 2}
    x = batch(model)
    scale = np.abs(run(model, x)).max()
    np.testing.assert_allclose(run(changed, x), run(model, x), atol=2e-4 * scale)


@pytest.mark.parametrize("groups", [1, 2])
def test_two_kernels_have_the_size_and_the_width_that_are_asked_for(groups: int) -> None:
    model = network("Conv2D", 9, 5, padding="same", groups=groups)
    changed = ReplaceKernel("any", 3, how="stack")(model)
    inner, last = changed.get_layer("conv_inner"), changed.get_layer("conv")
    assert inner.kernel_size == last.kernel_size == (3, 3)
    assert inner.filters == last.filters == 6 and inner.groups == last.groups == groups
    assert inner.activation.__name__ == "linear" and last.activation.__name__ == "relu"
    assert last.output.shape == model.get_layer("conv").output.shape


def test_a_seven_becomes_three_threes_by_two_edits() -> None:
    model = network("Conv2D", 9, 7, padding="same")
    recipe = Recipe(
        [
            ReplaceKernel("any", 3, how="stack", middle=24),
            ReplaceKernel(5, 3, how="stack", middle=24),
        ]
    )
    kernels = [layer.kernel_size for layer in recipe(model).layers if isinstance(layer, L.Conv2D)]
    assert kernels == [(3, 3)] * 3


def test_more_channels_than_the_fit_can_use_are_not_made() -> None:
    kernel = np.random.default_rng(0).standard_normal((5, 5, 1, 16))
    assert stack_limit(kernel, (3, 3)) == 9
    one, other = stacked(kernel, (3, 3), 9)
    np.testing.assert_allclose(compose(one, other).shape, kernel.shape)


def test_all_zero_kernels_stack_to_zeros() -> None:
    one, other = stacked(np.zeros((5, 5, 2, 3)), (3, 3), 2)
    assert np.isfinite(one).all() and np.isfinite(other).all()
    assert not compose(one, other).any()


@pytest.mark.parametrize(
    "edit",
    [ReplaceKernel("any", 3), ReplaceKernel("any", 3, how="stack")],
)
def test_policy_trainable_data_format_and_groups_are_kept(edit: ReplaceKernel) -> None:
    x = keras.Input((4, 9, 9))
    conv = L.Conv2D(
        6, 5, padding="same", data_format="channels_first", groups=2, dtype="mixed_float16",
        trainable=False, kernel_regularizer="l2", name="conv",
    )  # fmt: skip
    graph = read(keras.Model(x, L.Flatten()(conv(x))))
    changed = edit.apply(graph)
    made = [op for op in changed.operations.values() if op.kind == "Conv2D"]
    assert len(made) == (1 if edit.how == "auto" else 2)
    for operation in made:
        assert operation.config["groups"] == 2
        assert operation.config["kernel_regularizer"] is not None
    for name, operation in changed.operations.items():
        if name.startswith("conv"):
            assert operation.config["data_format"] == "channels_first"
            assert operation.config["dtype"]["config"]["name"] == "mixed_float16"
            assert not operation.source.trainable
    assert changed.spec(changed.output_refs()[0]) == graph.spec(graph.output_refs()[0])


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="needs convolutions with channels first"
)
def test_with_channels_first_the_function_is_kept_too() -> None:
    x = keras.Input((4, 9, 8))
    conv = L.Conv2D(6, 3, strides=2, data_format="channels_first", activation="relu", name="conv")
    pool = L.AveragePooling2D(2, 1, data_format="channels_first", name="pool")
    model = keras.Model(x, L.Flatten()(pool(conv(x))))
    data = batch(model)
    for edit in (
        ReplaceKernel("any", 5),
        ReplaceActivation("relu", "prelu"),
        ReplacePooling("any", "conv"),
        ReplacePooling("any", "adaptive"),
    ):
        np.testing.assert_allclose(run(edit(model), data), run(model, data), atol=1e-5)


@pytest.mark.parametrize(
    "edit",
    [
        ReplaceKernel("any", 3),
        ReplaceKernel("any", 3, how="stack", middle=0.5),
    ],
)
def test_channels_can_be_cut_afterwards(edit: ReplaceKernel) -> None:
    assert assert_cuts_exactly(edit(network("Conv2D", 9, 5, padding="same"))).cut > 0


def test_a_shared_layer_is_replaced_once_and_needs_one_place() -> None:
    def model(sizes: tuple[int, int], strides: int) -> keras.Model:
        keras.utils.set_random_seed(0)
        a, b = (keras.Input((size, size, 3)) for size in sizes)
        shared = L.Conv2D(4, 5, strides, padding="same", activation="tanh", name="conv")
        return keras.Model([a, b], {"x": shared(a), "y": L.Conv2D(2, 1)(shared(b))})

    changed = ReplaceKernel("any", 7)(model((8, 6), 1))
    assert [layer.name for layer in changed.layers].count("conv") == 1
    data = [np.random.default_rng(0).standard_normal((2, s, s, 3)).astype("f") for s in (8, 6)]
    for key, value in model((8, 6), 1)(data).items():
        np.testing.assert_allclose(changed(data)[key], value, atol=1e-6)
    with pytest.raises(EditError, match="'conv'.*not the same in all calls"):
        ReplaceKernel("any", 3, how="stack")(model((8, 9), 2))


def mixed() -> keras.Model:
    x = keras.Input((12, 12, 3))
    y = L.Conv2D(4, 5, padding="same", name="five")(x)
    y = L.Conv2D(4, (1, 3), name="flat")(y)
    y = L.Conv2D(4, 1, name="point")(y)
    y = L.DepthwiseConv2D(3, name="deep")(y)
    y = L.Conv2DTranspose(4, 3, name="up")(y)
    return keras.Model(x, L.Flatten(name="out")(y))


def sizes(edit: ReplaceKernel) -> list[tuple[int, int]]:
    model = edit(mixed())
    return [model.get_layer(n).kernel_size for n in ("five", "flat", "point", "deep", "up")]


def test_a_number_means_the_axes_that_have_more_than_one_tap() -> None:
    assert sizes(ReplaceKernel("any", 3)) == [(3, 3), (1, 3), (1, 1), (3, 3), (3, 3)]
    assert sizes(ReplaceKernel("any", 5)) == [(5, 5), (1, 5), (1, 1), (5, 5), (3, 3)]
    assert sizes(ReplaceKernel("any", (3, 1))) == [(3, 1), (3, 1), (3, 1), (3, 1), (3, 3)]
    assert sizes(ReplaceKernel(1, 3)) == [(5, 5), (1, 3), (3, 3), (3, 3), (3, 3)]
    assert sizes(ReplaceKernel("any", 5, layers=("point",))) == [
        (5, 5),
        (1, 3),
        (5, 5),
        (3, 3),
        (3, 3),
    ]
    assert sizes(ReplaceKernel(3, 5, exclude=("point",)))[3] == (5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"new": 0}, "1 or more"),
        ({"new": (3, True)}, "True.*whole numbers"),
        ({"new": "3x3"}, "give a whole number"),
        ({"old": ()}, "1 or more"),
        ({"old": "all"}, "1 or more"),
        ({"how": "magic"}, "use one of auto, crop"),
        ({"layers": "conv"}, r"give a tuple of names, \('conv',\)"),
        ({"middle": 4}, "is for how='stack'"),
        ({"how": "stack", "middle": 0}, "above 0"),
        ({"how": "stack", "middle": True}, "give a number"),
        ({"how": "stack", "middle": float("nan")}, "above 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        ReplaceKernel(**{"old": "any", "new": 3, **arguments})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (ReplaceKernel("any", 3, layers=("fiv",)), "did you mean 'five'"),
        (ReplaceKernel("any", 3, layers=("out",)), "'out' .Flatten.*no convolution"),
        (ReplaceKernel("any", 3, layers=("up",)), "'up'.*transposed convolutions are not changed"),
        (ReplaceKernel("any", 5, layers=("five",)), "'five'.*kernel is 5×5 already"),
        (ReplaceKernel(9, 3), "change nothing.*'five: its kernel is 5×5, not 9×9'"),
        (ReplaceKernel("any", 3, exclude=("five", "deep")), "change nothing.*five: excluded"),
        (ReplaceKernel("any", (3, 3, 3)), "change nothing.*one number for each of 2 axes"),
        (ReplaceKernel("any", 6, how="stack"), "no two kernels, one of 6×6, make 5×5"),
        (ReplaceKernel("any", 2, how="stack", layers=("deep",)), "'deep'.*use 'resample'"),
    ],
)
def test_what_cannot_be_is_refused(edit: ReplaceKernel, message: str) -> None:
    with pytest.raises(EditError, match=message):
        edit(mixed())
