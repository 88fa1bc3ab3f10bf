"""Folding BatchNormalization into its neighbours never changes what a model predicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.edits import FoldBatchNorm
from saikei.errors import EditError
from saikei.testing import random_inputs, randomise_statistics
from tests.edits import double
from tests.properties.random_graphs import make_model


def kinds(model: keras.Model) -> list[str]:
    return [type(operation).__name__ for operation in model.operations]


def norms(model: keras.Model) -> int:
    """How many there are, in nested models too."""
    return sum(isinstance(la, L.BatchNormalization) for la in model._flatten_layers())


def difference(model: keras.Model, other: keras.Model) -> float:
    """The largest difference of an output, relative to its largest value."""
    batch = random_inputs(model, np.random.default_rng(0))
    worst = 0.0
    for ours, theirs in zip(
        keras.tree.flatten(model(batch, training=False)),
        keras.tree.flatten(other(batch, training=False)),
        strict=True,
    ):
        a, b = (keras.ops.convert_to_numpy(y).astype("float64") for y in (ours, theirs))
        assert a.shape == b.shape
        worst = max(worst, np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
    return float(worst)


def functional(shape: tuple[int, ...], body: Callable[[Any], Any]) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input(shape)
    model = keras.Model(x, body(x))
    randomise_statistics(model)
    return model


def assert_folds_all(model: keras.Model, tolerance: float = 1e-5) -> keras.Model:
    before = [w.numpy().copy() for w in model.weights]
    folded = FoldBatchNorm()(model)
    assert norms(model)
    assert "BatchNormalization" not in kinds(folded)
    assert difference(model, folded) <= tolerance
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), old)
    return folded


PRODUCERS: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "dense": ((5,), lambda: L.Dense(4)),
    "dense_on_a_sequence": ((6, 5), lambda: L.Dense(4, use_bias=False)),
    "einsum": ((6, 5), lambda: L.EinsumDense("abc,cd->abd", (6, 4), bias_axes="d")),
    "einsum_without_bias": ((6, 5), lambda: L.EinsumDense("...c,cde->...de", (2, 4))),
    "conv1d": ((6, 5), lambda: L.Conv1D(4, 3, padding="causal")),
    "conv2d": ((6, 6, 3), lambda: L.Conv2D(4, 3, strides=2, padding="same", use_bias=False)),
    "conv3d": ((4, 4, 4, 2), lambda: L.Conv3D(3, 2, dilation_rate=1)),
    "grouped": ((6, 6, 4), lambda: L.Conv2D(6, 3, groups=2)),
    "depthwise1d": ((6, 3), lambda: L.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise2d": ((6, 6, 3), lambda: L.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
    "separable1d": ((6, 3), lambda: L.SeparableConv1D(4, 3, depth_multiplier=2)),
    "separable2d": ((6, 6, 3), lambda: L.SeparableConv2D(4, 3, use_bias=False)),
    "transposed1d": ((6, 3), lambda: L.Conv1DTranspose(4, 3, strides=2)),
    "transposed2d": ((6, 6, 3), lambda: L.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "transposed3d": ((3, 3, 3, 2), lambda: L.Conv3DTranspose(3, 2, use_bias=False)),
}


OPTIONS: list[dict[str, Any]] = [{"scale": False}, {"center": False, "epsilon": 0.1}]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in PRODUCERS),
        *(
            pytest.param(name, options, marks=() if name == "separable2d" else pytest.mark.slow)
            for name in PRODUCERS
            for options in OPTIONS
        ),
    ],
)
def test_it_goes_into_every_kind_of_linear_layer_before_it(
    name: str, options: dict[str, Any]
) -> None:
    shape, layer = PRODUCERS[name]
    made = layer()
    model = functional(shape, lambda x: L.BatchNormalization(**options)(made(x)))
    folded = assert_folds_all(model)
    assert folded.layers[-1].name == made.name


CONSUMERS: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "dense": ((5,), lambda: L.Dense(4, activation="relu")),
    "dense_on_a_sequence": ((6, 5), lambda: L.Dense(4, use_bias=False)),
    "conv1d": ((6, 5), lambda: L.Conv1D(4, 3, dilation_rate=2)),
    "conv2d": ((6, 6, 3), lambda: L.Conv2D(4, 3, strides=2, use_bias=False)),
    "conv2d_of_one_tap": ((6, 6, 3), lambda: L.Conv2D(4, 1, strides=2, padding="same")),
    "conv3d": ((4, 4, 4, 2), lambda: L.Conv3D(3, 2)),
    "grouped": ((6, 6, 4), lambda: L.Conv2D(6, 3, groups=2, activation="tanh")),
    "depthwise1d": ((6, 3), lambda: L.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise2d": ((6, 6, 3), lambda: L.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)),
    "separable1d": ((6, 3), lambda: L.SeparableConv1D(4, 3, depth_multiplier=2)),
    "separable2d": ((6, 6, 3), lambda: L.SeparableConv2D(4, 3, use_bias=False)),
    "transposed2d_of_one_tap": ((6, 6, 3), lambda: L.Conv2DTranspose(4, 1)),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CONSUMERS)
def test_it_goes_into_every_kind_of_linear_layer_behind_it(name: str) -> None:
    shape, layer = CONSUMERS[name]
    assert_folds_all(functional(shape, lambda x: layer()(L.BatchNormalization()(x))))


@pytest.mark.parametrize("layer", [L.Conv2D, L.Conv2DTranspose, L.DepthwiseConv2D])
def test_padding_with_zeros_is_in_the_way_of_a_shift_and_of_nothing_else(layer: Any) -> None:
    options = {"kernel_size": 3, "padding": "same"}
    if layer is not L.DepthwiseConv2D:
        options["filters"] = 4
    padded = functional((6, 6, 3), lambda x: layer(**options)(L.BatchNormalization()(x)))
    with pytest.raises(EditError, match="pads with zeros, which would need the shift"):
        FoldBatchNorm()(padded)
    norm = next(la for la in padded.layers if isinstance(la, L.BatchNormalization))
    norm.moving_mean.assign(np.zeros(3))
    norm.beta.assign(np.zeros(3))
    assert_folds_all(padded)


def test_channels_first() -> None:
    if keras.backend.backend() == "tensorflow":
        # TensorFlow convolves channels-first images on a GPU only.
        made: Any = L.EinsumDense("act,cd->adt", (4, 6), bias_axes="d")
        model = functional((3, 6), lambda x: L.BatchNormalization(axis=1)(made(x)))
    else:
        made = L.Conv2D(4, 3, data_format="channels_first")
        model = functional((3, 6, 6), lambda x: L.BatchNormalization(axis=1)(made(x)))
    assert_folds_all(model)


def test_an_axis_that_is_not_the_channels_stays() -> None:
    model = functional((6, 5), lambda x: L.BatchNormalization(axis=1)(L.Dense(4)(x)))
    with pytest.raises(EditError, match="its axis is not that of the channels of 'dense"):
        FoldBatchNorm()(model)


def test_it_goes_back_through_concatenation_addition_and_pooling() -> None:
    def body(x: Any) -> Any:
        left = L.Conv2D(4, 3, padding="same", use_bias=False)(x)
        right = L.Add()([L.Conv2D(4, 1)(x), L.Conv2D(4, 3, padding="same")(x)])
        both = L.Concatenate()([L.Conv2D(2, 1)(x), left, right])
        return L.BatchNormalization()(L.Dropout(0.5)(L.MaxPooling2D(2)(both)))

    assert_folds_all(functional((6, 6, 3), body))


@pytest.mark.parametrize(
    "between",
    [
        L.GlobalAveragePooling2D(),
        L.GlobalMaxPooling2D(keepdims=True),
        L.AveragePooling2D(2),
        L.UpSampling2D(2, interpolation="bilinear"),
        L.Cropping2D(1),
        L.Activation("linear"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_it_goes_back_through_what_lets_a_scale_and_shift_pass(between: Any) -> None:
    twin = type(between).from_config(between.get_config())
    model = functional((6, 6, 3), lambda x: L.BatchNormalization()(twin(L.Conv2D(4, 3)(x))))
    assert_folds_all(model)


def test_a_negative_scale_does_not_pass_a_maximum() -> None:
    model = functional(
        (6, 6, 3), lambda x: L.BatchNormalization()(L.MaxPooling2D(2)(L.Conv2D(4, 3)(x)))
    )
    norm = model.layers[-1]
    norm.gamma.assign(-norm.gamma.numpy())
    with pytest.raises(EditError, match=r"\(MaxPooling2D\) comes before it"):
        FoldBatchNorm()(model)


def test_padding_lets_a_scale_pass_and_no_shift() -> None:
    model = functional(
        (6, 6, 3), lambda x: L.BatchNormalization()(L.ZeroPadding2D(1)(L.Conv2D(4, 3)(x)))
    )
    with pytest.raises(EditError, match=r"\(ZeroPadding2D\) comes before it"):
        FoldBatchNorm()(model)


def test_layers_that_are_called_twice_fold_when_both_calls_agree() -> None:
    keras.utils.set_random_seed(0)
    a, b = keras.Input((6, 6, 3)), keras.Input((6, 6, 3))
    inner = keras.Sequential(
        [keras.Input((6, 6, 3)), L.Conv2D(4, 3, padding="same"), L.BatchNormalization()]
    )
    model = keras.Model([a, b], L.Concatenate()([inner(a), inner(b)]))
    randomise_statistics(model)
    assert_folds_all(model)


def test_layers_that_are_called_twice_stay_when_the_calls_differ() -> None:
    def body(x: Any) -> Any:
        conv = L.Conv2D(3, 3, padding="same", name="conv")
        return conv(L.ReLU()(L.BatchNormalization(name="bn")(conv(x))))

    with pytest.raises(EditError, match="'bn': 'conv' is called elsewhere too"):
        FoldBatchNorm()(functional((6, 6, 3), body))


def test_a_tensor_that_others_read_stays_as_it_is() -> None:
    def body(x: Any) -> Any:
        y = L.Conv2D(3, 3, padding="same", name="conv")(x)
        return L.Add()([L.BatchNormalization(name="bn")(y), y])

    with pytest.raises(EditError, match="'bn': what 'conv' gives is read elsewhere too"):
        FoldBatchNorm()(functional((6, 6, 3), body))


def test_an_activation_in_between_is_named_in_the_message() -> None:
    model = functional(
        (6, 6, 3),
        lambda x: L.BatchNormalization(name="bn")(L.Conv2D(3, 3, activation="relu", name="c")(x)),
    )
    with pytest.raises(EditError, match="'bn': 'c' ends in an activation"):
        FoldBatchNorm()(model)
    with pytest.raises(EditError, match="'bn' cannot be folded: 'c' ends in an activation"):
        FoldBatchNorm(layers=("bn",))(model)


def test_only_the_named_layers_are_folded_and_the_excluded_ones_stay() -> None:
    def body(x: Any) -> Any:
        for number in range(3):
            x = L.BatchNormalization(name=f"bn{number}")(L.Dense(4, name=f"dense{number}")(x))
        return x

    model = functional((5,), body)
    assert kinds(FoldBatchNorm(layers=("bn1",))(model)).count("BatchNormalization") == 2
    assert kinds(FoldBatchNorm(exclude=("bn1",))(model)).count("BatchNormalization") == 1
    # Neither layer that could take it may.
    left = FoldBatchNorm(exclude=("dense0", "dense1"))(model)
    assert [op.name for op in left.operations if op.name.startswith("bn")] == ["bn0"]
    with pytest.raises(EditError, match="names layer 'dense1', which is a Dense"):
        FoldBatchNorm(layers=("dense1",))(model)
    with pytest.raises(EditError, match="did you mean 'bn2'"):
        FoldBatchNorm(layers=("bn3",))(model)


def test_a_model_without_it_gets_a_message() -> None:
    with pytest.raises(EditError, match="it has no BatchNormalization to fold"):
        FoldBatchNorm()(functional((5,), lambda x: L.Dense(2)(x)))


def test_dtypes_policies_and_frozen_layers_stay_as_they_were() -> None:
    def body(x: Any) -> Any:
        y = L.Conv2D(3, 3, use_bias=False, dtype="mixed_float16", name="mixed")(x)
        y = L.BatchNormalization(dtype="mixed_float16")(y)
        frozen = L.Conv2D(3, 3, name="frozen", trainable=False, dtype="bfloat16")
        return L.BatchNormalization(dtype="bfloat16")(frozen(L.ReLU()(y)))

    folded = assert_folds_all(functional((8, 8, 3), body), tolerance=3e-2)
    mixed, frozen = folded.get_layer("mixed"), folded.get_layer("frozen")
    assert (mixed.compute_dtype, str(mixed.bias.dtype)) == ("float16", "float32")
    assert not frozen.trainable
    assert str(frozen.kernel.dtype) == "bfloat16"


def test_a_model_with_two_outputs_one_of_which_is_normalised_keeps_both() -> None:
    def body(x: Any) -> Any:
        y = L.BatchNormalization()(L.Dense(4)(x))
        return {"features": y, "head": L.Dense(1)(L.ReLU()(y))}

    assert_folds_all(functional((5,), body))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
def test_random_graphs_predict_the_same(seed: int) -> None:
    steps = ["conv", "normalised", "nested", "merged", "concatenated", "normalised", "dense"]
    order = np.random.default_rng(seed).permutation(steps * 2)
    model = make_model([str(step) for step in order], seed)
    randomise_statistics(model, seed)
    folded = FoldBatchNorm()(model)
    assert kinds(folded).count("BatchNormalization") < norms(model)
    assert difference(model, folded) <= 1e-5


# The rest of ResNet50V2's come before a ReLU, and behind what a shortcut reads too.
@pytest.mark.parametrize(
    ("name", "left"),
    [
        pytest.param("MobileNetV2", 0, marks=pytest.mark.long),
        pytest.param("EfficientNetB0", 0, marks=pytest.mark.slow),
        pytest.param("ResNet50V2", 17, marks=pytest.mark.slow),
    ],
)
def test_architectures_predict_the_same(name: str, left: int) -> None:
    model = double.application(name)
    folded = FoldBatchNorm()(model)
    assert kinds(folded).count("BatchNormalization") == left
    assert double.difference(model, folded) <= double.EXACT


def test_weights_that_are_no_numbers_are_named() -> None:
    model = keras.Sequential([keras.Input((3,)), L.Dense(2), L.BatchNormalization(name="norm")])
    model.layers[-1].moving_mean.assign([1.0, np.nan])
    with pytest.raises(EditError, match="FoldBatchNorm: 'moving_mean' of layer 'norm'"):
        FoldBatchNorm()(model)
