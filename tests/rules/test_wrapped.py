"""What `TimeDistributed` wraps is read, counted, cut, folded and replaced like anything else."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import (
    Budget,
    DropChannels,
    Factorize,
    FoldBatchNorm,
    PruneChannels,
    RemoveLayers,
    RemoveNoOps,
    ReplaceActivation,
    ReplaceKernel,
    Soup,
    Sparsify,
    distill,
    profile,
)
from saikei.errors import EditError
from saikei.graph import build, read
from saikei.testing import random_inputs, randomise_statistics
from tests.rules.nets import checked


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


def cnn(side: int | None = 6) -> keras.Model:
    """A residual network that looks at one frame."""
    image = keras.Input((side, side, 2))
    x = L.Conv2D(6, 3, name="first")(image)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    y = L.Conv2D(6, 3, padding="same", activation="relu", name="second")(x)
    x = L.GlobalAveragePooling2D(name="pool")(L.Add(name="add")([x, L.Dropout(0.2)(y)]))
    return keras.Model(image, L.Dense(5, activation="elu", name="embed")(x), name="cnn")


def video(inner: keras.Model | None = None, steps: int | None = 3) -> keras.Model:
    shape = (steps, 6, 6, 2)
    layers = [L.TimeDistributed(inner or cnn(), name="frames"), L.GRU(4, name="gru")]
    return keras.Sequential([keras.Input(shape), *layers, L.Dense(2, name="out")])


class Scale(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")

    def call(self, x: Any) -> Any:
        return x * self.gamma

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def of_words() -> keras.Model:
    """Sentences of words, padded on both levels."""
    words = keras.Input((5,), dtype="int32")
    x = L.LSTM(4, name="words")(L.Embedding(7, 3, mask_zero=True, name="table")(words))
    text = keras.Input((3, 5), dtype="int32")
    y = L.GRU(4, name="gru")(L.TimeDistributed(keras.Model(words, x), name="sentences")(text))
    return keras.Model(text, L.Dense(2, name="out")(y))


def called_twice() -> keras.Model:
    tensor = keras.Input((3, 4))
    every = L.TimeDistributed(
        keras.Sequential([keras.Input((6,)), L.Dense(5, activation="relu", name="inner")])
    )
    ends = [every(L.Dense(6, name=name)(tensor)) for name in ("a", "b")]
    return keras.Model(tensor, L.Dense(2, name="out")(L.Flatten()(L.Concatenate()(ends))))


def in_a_wrapper(*layers: Any) -> Callable[[], keras.Model]:
    return lambda: keras.Sequential(
        [
            keras.Input((3, 4, 2)),
            L.TimeDistributed(keras.Sequential([keras.Input((4, 2)), *layers]), name="t"),
            L.Flatten(),
            L.Dense(2, name="out"),
        ]
    )


def in_a_nested_model() -> keras.Model:
    inner = in_a_wrapper(L.Dense(4, name="a"), L.Flatten())()
    tensor = keras.Input((3, 4, 2))
    return keras.Model(tensor, L.Dense(2, name="last")(inner(tensor)))


NETS: dict[str, tuple[Callable[[], keras.Model], dict[str, int]]] = {
    "a residual network": (video, {"first": 6, "embed": 5, "gru": 4, "out": 0}),
    "any number of steps": (
        lambda: video(steps=None),
        {"first": 6, "embed": 5, "gru": 4, "out": 0},
    ),
    "two levels of masks": (of_words, {"table": 3, "words": 4, "gru": 4, "out": 0}),
    "called twice": (called_twice, {"a": 6, "inner": 5, "out": 0}),
    "a wrapper in a wrapped model": (
        in_a_wrapper(L.TimeDistributed(L.Dense(5), name="inner"), L.Flatten()),
        {"inner": 5, "out": 0},
    ),
    "a wrapped wrapper": (
        lambda: keras.Sequential(
            [
                keras.Input((3, 4, 2)),
                L.Dense(6, name="a"),
                L.TimeDistributed(L.TimeDistributed(L.Dense(5, activation="relu")), name="t"),
                L.Flatten(),
                L.Dense(2, name="out"),
            ]
        ),
        {"a": 6, "t": 5, "out": 0},
    ),
    "in a nested model": (in_a_nested_model, {"a": 4, "out": 2, "last": 0}),
    "a layer of one's own": (
        in_a_wrapper(L.Dense(5, name="a"), Scale(), L.Flatten(), L.Dense(4, name="b")),
        {"a": 5, "b": 4, "out": 0},
    ),
    "two directions": (
        in_a_wrapper(L.Bidirectional(L.LSTM(3), name="both")),
        {"both": 3, "out": 0},
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", NETS)
def test_what_is_wrapped_is_cut_as_if_it_were_not(name: str) -> None:
    make, expected = NETS[name]
    assert checked(make(), readers=True) == expected


@pytest.mark.sampled
@pytest.mark.parametrize("name", NETS)
def test_a_copy_wraps_again_and_gives_the_same(name: str) -> None:
    model = NETS[name][0]()
    randomise_statistics(model)
    batch = random_inputs(model, np.random.default_rng(0))
    twin = build(read(model))
    np.testing.assert_array_equal(twin(batch), model(batch))
    ours, theirs = ([type(layer) for layer in one.layers] for one in (twin, model))
    nested = keras.Sequential in theirs or keras.Model in theirs
    assert nested or ours.count(L.TimeDistributed) == theirs.count(L.TimeDistributed)


@keras.saving.register_keras_serializable("tests.wrapped")
class EveryFrame(L.TimeDistributed):
    """A subclass that computes what its base does."""


@keras.saving.register_keras_serializable("tests.wrapped")
class Doubled(L.TimeDistributed):
    def call(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        return 2 * super().call(x, training=training, mask=mask)


@pytest.mark.parametrize("kind", [EveryFrame, Doubled])
def test_what_a_subclass_wraps_is_cut_and_counted_too(kind: Any) -> None:
    layers = [kind(L.Dense(7), name="every"), L.Dense(2, name="out")]
    model = keras.Sequential([keras.Input((3, 4)), L.Dense(6, name="a"), *layers])
    assert sorted(checked(model).values()) == [0, 6, 7]
    assert profile(model, latency=False).macs == 3 * (4 * 6 + 6 * 7 + 7 * 2)


def test_a_wrapped_network_costs_what_it_costs_for_every_step() -> None:
    found = profile(video(), latency=False)
    inner = profile(cnn(), latency=False)
    gru = 3 * (5 * 12 + 4 * 12)
    assert found.macs == 3 * inner.macs + gru + 4 * 2
    assert inner.macs == 16 * 18 * 6 + 16 * 54 * 6 + 6 * 5 and not found.uncounted
    shapes = {layer.name: layer.output_shape for layer in found.layers}
    assert shapes["first"] == (None, 3, 4, 4, 6) and "frames" not in shapes
    assert found.memory >= 3 * inner.memory


@pytest.mark.parametrize("edit", [PruneChannels(Budget(macs=0.5)), Factorize(Budget(macs=0.6))])
def test_a_budget_that_is_reached_is_that_of_the_model_that_is_built(edit: Any) -> None:
    model = video()
    smaller = edit(model)
    share = 0.5 if isinstance(edit, PruneChannels) else 0.6
    assert profile(smaller, latency=False).macs <= share * profile(model, latency=False).macs
    loop = smaller.get_layer("frames").layer
    own = profile(loop, latency=False).macs
    assert 3 * own < profile(smaller, latency=False).macs < 3 * own + 400


def test_normalisation_is_folded_in_and_what_does_nothing_is_left_out() -> None:
    model = video()
    randomise_statistics(model)
    x = random_inputs(model, np.random.default_rng(0))
    folded = RemoveNoOps()(FoldBatchNorm()(model))
    inner = folded.get_layer("frames").layer
    assert not any(isinstance(one, L.BatchNormalization | L.Dropout) for one in inner.layers)
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-5, atol=1e-6)


def test_normalisation_behind_a_wrapper_is_folded_into_what_it_wraps() -> None:
    every = L.TimeDistributed(L.Conv1D(4, 2), name="t")
    norm = L.BatchNormalization(name="norm")
    model = keras.Sequential([keras.Input((3, 6, 2)), every, norm, L.Flatten(), L.Dense(2)])
    randomise_statistics(model)
    x = random_inputs(model, np.random.default_rng(0))
    folded = FoldBatchNorm()(model)
    assert "norm" not in [layer.name for layer in folded.layers]
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (ReplaceActivation("elu", "relu"), "embed"),
        (ReplaceKernel("any", 1), "first"),
        (Sparsify(0.5), "first"),
        (Factorize(0.5), "second_basis"),
        (DropChannels({"first": (0, 2)}), "first"),
        (RemoveLayers(0.8), "first"),
    ],
)
def test_layers_in_a_wrapper_are_edited_by_their_names(edit: Any, changed: str) -> None:
    model = video()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edited = edit(model)
    inner = edited.get_layer("frames").layer
    assert changed in [layer.name for layer in inner.layers]
    x = random_inputs(model, np.random.default_rng(0))
    assert not np.allclose(edited(x), model(x))
    assert list(read(build(read(edited))).operations) == list(read(edited).operations)


@pytest.mark.parametrize(
    "edit",
    [
        PruneChannels(0.5, exclude=("frames",)),
        Sparsify(0.5, exclude=("frames",)),
        DropChannels({"frames": (0,)}),
        FoldBatchNorm(layers=("frames",)),
    ],
)
def test_the_wrappers_own_name_is_refused_with_those_of_its_layers(edit: Any) -> None:
    with pytest.raises(EditError, match="'frames', a TimeDistributed .* name 'first', 'norm'"):
        edit(video())


def test_cutting_with_data_refits_and_measures_what_is_wrapped() -> None:
    rng = np.random.default_rng(0)
    model = video()
    randomise_statistics(model)
    x = 2 + rng.normal(size=(64, 3, 6, 6, 2)).astype("float32")
    edit = DropChannels({"first": (0, 1)})
    plain, refitted = edit(model), edit(model, (x, np.zeros(64, int)))
    goal = model(x)
    loss = [float(np.square(np.asarray(one(x) - goal)).mean()) for one in (plain, refitted)]
    assert loss[1] < 0.5 * loss[0]
    # What normalisation gathers is of the frames that it reads now.
    (norm,) = [
        layer
        for layer in refitted.get_layer("frames").layer.layers
        if isinstance(layer, L.BatchNormalization)
    ]
    first = refitted.get_layer("frames").layer.get_layer("first")
    reads = np.asarray(first(x.reshape(-1, 6, 6, 2))).reshape(-1, 4)
    np.testing.assert_allclose(norm.moving_mean, reads.mean(axis=0), rtol=1e-3, atol=1e-4)


def test_merged_weights_are_normalised_by_what_they_give() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 3, 6, 6, 2)).astype("float32"), rng.integers(0, 2, 64)
    model = video()
    randomise_statistics(model)
    merged = Soup()([model, build(read(model))], (x, y))
    inner = merged.get_layer("frames").layer
    reads = np.asarray(inner.get_layer("first")(x.reshape(-1, 6, 6, 2))).reshape(-1, 6)
    np.testing.assert_allclose(
        inner.get_layer("norm").moving_mean, reads.mean(axis=0), rtol=1e-3, atol=1e-4
    )


@pytest.mark.slow
def test_a_student_is_like_its_teacher_behind_the_wrapper() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 3, 6, 6, 2)).astype("float32"), rng.integers(0, 2, 32)
    teacher = video()
    student = PruneChannels(0.5, exclude=("embed",))(teacher)
    history = distill(student, teacher, (x, y), epochs=1, features={"frames": "embed"})
    assert np.isfinite(history.history["loss"]).all()


def spectral() -> keras.Model:
    image = keras.Input((6, 6, 2))
    x = L.SpectralNormalization(L.Conv2D(6, 3, use_bias=False), name="first")(image)
    x = L.BatchNormalization(name="norm")(x)
    x = L.SpectralNormalization(L.Conv2DTranspose(5, 2, activation="relu"), 2, name="up")(x)
    x = L.SpectralNormalization(L.Dense(4, activation="tanh"), name="dense")(L.Flatten()(x))
    return keras.Model(image, L.Dense(2, name="out")(x))


def test_layers_whose_kernel_is_normalised_are_cut_and_counted_like_others() -> None:
    model = spectral()
    assert checked(model) == {"first": 6, "up": 5, "dense": 4, "out": 0}
    found = profile(model, latency=False)
    assert not found.uncounted and found.params == model.count_params()
    smaller = PruneChannels(0.5, scope="layer")(model)
    assert profile(smaller, latency=False).params == smaller.count_params()
    for name in ("first", "up", "dense"):
        layer = smaller.get_layer(name)
        assert isinstance(layer, L.SpectralNormalization)
        assert layer.vector_u.shape[-1] == layer.layer.kernel.shape[-1] < 6
    assert smaller.get_layer("up").power_iterations == 2


def test_a_normalised_kernel_is_normalised_in_training_as_before() -> None:
    model = spectral()
    twin = build(read(model))
    batch = random_inputs(model, np.random.default_rng(0))
    for _ in range(2):
        np.testing.assert_allclose(
            twin(batch, training=True), model(batch, training=True), rtol=1e-5, atol=1e-6
        )
    np.testing.assert_array_equal(
        twin.get_layer("first").vector_u, model.get_layer("first").vector_u
    )


def test_what_is_folded_into_a_normalised_layer_makes_it_a_plain_one() -> None:
    model = spectral()
    randomise_statistics(model)
    x = random_inputs(model, np.random.default_rng(0))
    folded = FoldBatchNorm()(model)
    # Training would divide by the kernel's norm what was folded into it.
    assert isinstance(folded.get_layer("first"), L.Conv2D)
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-5, atol=1e-6)
    replaced = ReplaceActivation("relu", "elu")(ReplaceKernel("any", 5, layers=("first",))(model))
    assert isinstance(replaced.get_layer("first"), L.SpectralNormalization)
    assert not np.allclose(replaced(x), model(x))
    with pytest.raises(EditError, match="normalised in training"):
        Factorize(0.5, layers=("dense",))(model)
    y = np.zeros(len(x), int)
    assert np.isfinite(PruneChannels(0.5)(model, (x, y)).predict_on_batch(x)).all()


def test_normalised_layers_are_cut_in_every_step() -> None:
    inner = keras.Sequential([keras.Input((6, 6, 2)), *spectral().layers[1:-1]])
    assert checked(video(inner)) == {"first": 6, "up": 5, "dense": 4, "gru": 4, "out": 0}
