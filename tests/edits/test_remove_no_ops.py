"""What does nothing at inference goes, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei.edits import FoldBatchNorm, Recipe, RemoveNoOps
from saikei.errors import EditError
from saikei.graph.training_only import AUGMENTATION
from saikei.testing import random_inputs, randomise_statistics
from tests.edits import double

NO_OPS: dict[str, Callable[[], Any]] = {
    "Dropout": lambda: L.Dropout(0.5),
    "SpatialDropout2D": lambda: L.SpatialDropout2D(0.5),
    "AlphaDropout": lambda: L.AlphaDropout(0.5),
    "GaussianDropout": lambda: L.GaussianDropout(0.5),
    "GaussianNoise": lambda: L.GaussianNoise(0.5),
    "ActivityRegularization": lambda: L.ActivityRegularization(0.1),
    "Activation": lambda: L.Activation("linear"),
    "Identity": L.Identity,
    "Rescaling": lambda: L.Rescaling(1.0),
    "ZeroPadding2D": lambda: L.ZeroPadding2D(0),
    "Cropping2D": lambda: L.Cropping2D(0),
    "UpSampling2D": lambda: L.UpSampling2D(1, interpolation="bilinear"),
    "MaxPooling2D": lambda: L.MaxPooling2D(1),
    "AveragePooling2D": lambda: L.AveragePooling2D(1, padding="same"),
    "Reshape": lambda: L.Reshape((-1, 6, 4)),
    "Permute": lambda: L.Permute((1, 2, 3)),
    "ops.reshape": lambda: lambda x: ops.reshape(x, (-1, 6, 6, 4)),
    "ops.transpose": lambda: lambda x: ops.transpose(x, (0, 1, 2, 3)),
    "ops.cast": lambda: lambda x: ops.cast(x, "float32"),
}
SOMETHING: dict[str, Callable[[], Any]] = {
    "Rescaling": lambda: L.Rescaling(1.0, offset=0.1),
    "ZeroPadding2D": lambda: L.ZeroPadding2D(((0, 0), (0, 1))),
    "Cropping2D": lambda: L.Cropping2D(((0, 1), (0, 0))),
    "UpSampling2D": lambda: L.UpSampling2D((1, 2)),
    "MaxPooling2D": lambda: L.MaxPooling2D(2, strides=1, padding="same"),
    "strided": lambda: L.MaxPooling2D(1, strides=2),
    # Both of these keep the shape.
    "Permute": lambda: L.Permute((2, 1, 3)),
    "ops.transpose": lambda: lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "Activation": lambda: L.Activation("relu"),
    "ReLU": L.ReLU,
    "UnitNormalization": L.UnitNormalization,
    "always on": lambda: lambda x: L.Dropout(0.5)(x, training=True),
    "ops.reshape": lambda: lambda x: ops.reshape(x, (-1, 6, 4, 6)),
}


def between(made: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 4))
    y = made(L.Conv2D(4, 3, padding="same", name="before")(x))
    model = keras.Model(x, L.Dense(2, name="after")(L.Flatten(name="flat")(y)))
    randomise_statistics(model)
    return model


def names(model: keras.Model) -> list[str]:
    return [operation.name for operation in model.operations[1:]]


def outputs(model: keras.Model, seed: int = 0) -> list[np.ndarray]:
    batch = random_inputs(model, np.random.default_rng(seed))
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(batch, training=False))]


def assert_same(model: keras.Model, other: keras.Model) -> None:
    for ours, theirs in zip(outputs(model), outputs(other), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(ours).max())


@pytest.mark.sampled
@pytest.mark.parametrize("name", NO_OPS)
def test_what_does_nothing_goes(name: str) -> None:
    model = between(NO_OPS[name]())
    smaller = RemoveNoOps()(model)
    assert names(smaller) == ["before", "flat", "after"]
    assert_same(model, smaller)


AUGMENTS: dict[str, dict[str, Any]] = {
    "RandomBrightness": {"factor": 0.2},
    "RandomColorDegeneration": {"factor": 0.2},
    "RandomContrast": {"factor": 0.2},
    "RandomCrop": {"height": 6, "width": 6},
    "RandomHue": {"factor": 0.2},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.2},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.2},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
}


@pytest.mark.long
# Each of those that this version of Keras has, in one model: their settings do not matter.
def test_augmentation_goes_built_and_loaded_also_from_pipelines(tmp_path: Path) -> None:
    kinds = [kind for kind in sorted(AUGMENTATION) if hasattr(L, kind)]
    layers = [getattr(L, kind)(**AUGMENTS.get(kind, {})) for kind in kinds]
    inner = keras.Sequential(layers[::2])
    source = keras.Input((6, 6, 3))
    images = L.Pipeline([*layers[1::2], L.Rescaling(0.5, name="half")])(inner(source))
    model = keras.Model(source, L.Dense(2, name="after")(L.Flatten(name="flat")(images)))
    model.save(tmp_path / "net.keras")
    x = np.random.default_rng(0).random((2, 6, 6, 3), dtype="float32")
    for given in (model, keras.saving.load_model(tmp_path / "net.keras")):
        smaller = RemoveNoOps()(given)
        assert names(smaller) == ["half", "flat", "after"]
        wanted, got = (keras.ops.convert_to_numpy(m(x, training=False)) for m in (model, smaller))
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_spectral_normalisation_goes_built_and_loaded_unless_it_runs_at_inference(
    tmp_path: Path,
) -> None:
    x = keras.Input((6, 6, 4))
    wrapped = L.SpectralNormalization(L.Conv2D(4, 3, padding="same"), name="conv")
    last = L.SpectralNormalization(L.Dense(2), name="last")
    model = keras.Model(x, last(L.Flatten(name="flat")(wrapped(x))))
    model(np.ones((2, 6, 6, 4), "float32"), training=True)
    model.save(tmp_path / "net.keras")
    for given in (model, keras.saving.load_model(tmp_path / "net.keras")):
        plain = RemoveNoOps()(given)
        assert [type(layer) for layer in plain.layers[1:]] == [L.Conv2D, L.Flatten, L.Dense]
        assert names(plain) == ["conv", "flat", "last"]
        assert_same(given, plain)
        assert type(RemoveNoOps(layers=("last",))(given).layers[1]) is L.SpectralNormalization
    always = keras.Model(x, L.Flatten()(wrapped(x, training=True)))
    with pytest.raises(EditError, match="RemoveNoOps would change nothing"):
        RemoveNoOps()(always)


@pytest.mark.parametrize("name", SOMETHING)
def test_what_does_something_stays(name: str) -> None:
    with pytest.raises(EditError, match="RemoveNoOps would change nothing"):
        RemoveNoOps()(between(SOMETHING[name]()))


@pytest.mark.parametrize(
    ("first", "second", "goes"),
    [
        (L.ReLU(), L.Activation("relu"), True),
        (L.ReLU(6.0), L.ReLU(6.0), True),
        (L.Activation("sigmoid"), L.ReLU(), True),
        (L.ReLU(6.0), L.ReLU(), True),
        (L.ReLU(), L.ReLU(6.0), False),
        (L.LeakyReLU(), L.ReLU(), False),
        (L.ReLU(negative_slope=0.1), L.ReLU(), False),
        (L.ReLU(), L.ReLU(threshold=1.0), False),
        (L.Activation("tanh"), L.Activation("tanh"), False),
    ],
)
def test_an_activation_of_what_has_gone_through_it_goes(
    first: Any, second: Any, goes: bool
) -> None:
    a, b = (type(la).from_config(la.get_config()) for la in (first, second))
    model = between(lambda x: b(L.Dropout(0.5, name="dropout")(a(x))))
    smaller = RemoveNoOps()(model)
    assert (b.name in names(smaller)) is not goes
    assert_same(model, smaller)


def test_a_chain_of_them_goes_whole_and_shared_ones_in_every_call() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    dropout = L.Dropout(0.5)
    y = L.Dense(4)(dropout(L.Identity()(dropout(x))))
    model = keras.Model(x, L.Add(name="sum")([dropout(y), y]))
    smaller = RemoveNoOps()(model)
    assert [type(op).__name__ for op in smaller.operations] == ["InputLayer", "Dense", "Add"]
    assert_same(model, smaller)


def test_a_layer_that_gives_an_output_keeps_its_name() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    y = L.Dropout(0.5, name="dropped")(L.Dense(4)(x))
    model = keras.Model(x, L.Activation("linear", name="logits")(y))
    smaller = RemoveNoOps()(model)
    assert smaller.output_names == model.output_names == ["logits"]
    assert "dropped" not in names(smaller)
    with pytest.raises(EditError, match="'logits' .* gives an output of the model"):
        RemoveNoOps(layers=("logits",))(model)


def test_what_stops_a_mask_stays_where_there_is_one() -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input((5,), dtype="int32")
    y = L.Embedding(7, 3, mask_zero=True)(x)
    y = L.Dropout(0.5, name="passes")(y)
    with stopping():
        y = L.ZeroPadding1D(0, name="stops")(y)
    model = keras.Model(x, L.GRU(3)(y))
    with stopping():
        smaller = RemoveNoOps()(model)
    assert "stops" in names(smaller) and "passes" not in names(smaller)
    ids = np.array([[1, 2, 3, 0, 0], [4, 0, 5, 6, 0]])
    with stopping():
        ours, theirs = (keras.ops.convert_to_numpy(m(ids)) for m in (smaller, model))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def stopping() -> Any:
    """Keras warns when a layer stops a mask."""
    return pytest.warns(UserWarning, match="does not support mask")


def test_only_the_named_go_and_the_excluded_stay() -> None:
    model = between(lambda x: L.Dropout(0.1, name="b")(L.Dropout(0.1, name="a")(x)))
    assert names(RemoveNoOps(layers=("a",))(model)) == ["before", "b", "flat", "after"]
    assert names(RemoveNoOps(exclude=("a",))(model)) == ["before", "a", "flat", "after"]
    with pytest.raises(EditError, match="'before' .Conv2D., which does something"):
        RemoveNoOps(layers=("before",))(model)
    with pytest.raises(EditError, match="did you mean"):
        RemoveNoOps(exclude=("c",))(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["EfficientNetB0", "ConvNeXtTiny", "MobileNetV3Small"])
def test_architectures_predict_the_same_with_all_that_is_exact_done(name: str) -> None:
    model = double.application(name)
    edits = [RemoveNoOps()] + ([] if name == "ConvNeXtTiny" else [FoldBatchNorm()])
    smaller = Recipe(edits)(model)
    gone = {"Dropout", "StochasticDepth", "BatchNormalization"}
    assert not gone & {type(op).__name__ for op in smaller.operations}
    assert double.difference(model, smaller) <= double.EXACT
