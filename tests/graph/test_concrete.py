"""The sizes of tensors that Keras leaves open, for inputs of a full shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei.edits import FoldBatchNorm, PruneChannels, Recipe
from saikei.errors import ModelError
from saikei.graph import read, sized, with_input_shape


def output_shape(model: keras.Model, **sizes: tuple[int, ...]) -> tuple[int | None, ...]:
    graph = read(model)
    full = sized(with_input_shape(graph, sizes) if sizes else graph)
    return full.graph.spec(full.graph.output_refs()[0]).shape


HIDDEN: dict[str, Callable[[Any], Any]] = {
    "an equation": L.EinsumDense("abc,cd->abd", (None, 6)),
    "an equation that swaps axes": L.EinsumDense("abc,cd->adb", (6, None)),
    "a Lambda": lambda x: L.Lambda(lambda t: 2 * t, output_shape=(None, 4))(x),
    "a reshape behind one": lambda x: L.Reshape((-1, 2))(
        L.EinsumDense("abc,cd->abd", (None, 6))(x)
    ),
    "a recurrence behind one": lambda x: L.Bidirectional(L.GRU(3, return_sequences=True))(
        L.EinsumDense("abc,cd->abd", (None, 6))(x)
    ),
    "steps of one": L.TimeDistributed(L.EinsumDense("ab,bc->ac", (6,))),
    "a joined batch": lambda x: ops.reshape(x, (-1, 4)),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_sizes_that_follow_from_the_input_are_found(name: str) -> None:
    tensor = keras.Input((10, 4))
    model = keras.Model(tensor, HIDDEN[name](tensor))
    made = model(np.zeros((1, 10, 4), "float32")).shape
    found = output_shape(model)
    assert (found[0] or 1, *found[1:]) == tuple(made)


@pytest.mark.backends
@pytest.mark.parametrize("mode", ["int8", pytest.param("int4", marks=pytest.mark.long)])
def test_quantised_layers_of_unknown_length_have_the_sizes_of_plain_ones(mode: str) -> None:
    tensor = keras.Input((None,), dtype="int32", name="words")
    contracted = L.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")(L.Embedding(10, 4)(tensor))
    model = keras.Model(tensor, L.Dense(3)(contracted))
    model.quantize(mode, filters=lambda layer: not isinstance(layer, L.InputLayer))
    assert output_shape(model, words=(10,)) == (None, 10, 3)


def fully_convolutional() -> keras.Model:
    tensor = keras.Input((None, None, 3), name="image")
    x = L.Conv2D(8, 3, use_bias=False, strides=2, activation="linear", name="first")(tensor)
    x = L.ReLU()(L.BatchNormalization()(x))
    return keras.Model(tensor, L.Conv2DTranspose(2, 3, strides=2)(x))


def test_axes_of_unknown_size_have_the_size_that_is_asked_for() -> None:
    model = fully_convolutional()
    made = model(np.zeros((1, 17, 12, 3), "float32")).shape
    assert output_shape(model, image=(17, 12, 3))[1:] == tuple(made[1:])
    # An edit that has not been built yet is asked through layers that are made for it.
    recipe = Recipe([FoldBatchNorm(), PruneChannels(0.5)])
    graph = recipe.apply(with_input_shape(read(model), {"image": (17, 12, 3)}))
    full = sized(graph).graph
    assert full.spec(full.output_refs()[0]).shape[1:] == tuple(made[1:])
    assert not sized(graph).assumed


def test_the_first_size_that_the_model_takes_is_assumed() -> None:
    model = fully_convolutional()
    assert sized(read(model)).sizes == {"image": (128, 128, 3)}
    assert sized(read(model)).assumed == ("image",)
    tensor = keras.Input((None, 2), name="sound")
    long = keras.Model(tensor, L.Conv1D(1, 300)(tensor))
    assert sized(read(long)).sizes == {"sound": (512, 2)}
    position = keras.Model(tensor, tensor + np.zeros((1, 32, 2), "float32"))
    assert sized(read(position)).sizes == {"sound": (32, 2)}


def test_inputs_for_which_no_one_size_fits_stay_unknown() -> None:
    whole, half = keras.Input((None, 2), name="whole"), keras.Input((None, 2), name="half")
    model = keras.Model([whole, half], L.Conv1D(1, 3)(whole + L.UpSampling1D()(half)))
    assert sized(read(model)).sizes == {"whole": (None, 2), "half": (None, 2)}
    assert output_shape(model, whole=(16, 2), half=(8, 2)) == (None, 14, 1)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((8, 8, 4), "does not fit 'image'"),
        ((8, 3), "does not fit 'image'"),
        ((8, 0, 3), "whole numbers of at least 1"),
        ({"picture": (8, 8, 3)}, "no such input: name image"),
        ({}, "leaves out input 'image'"),
        ([(8, 8, 3), (8, 8, 3)], "has the inputs image"),
        ((2, 2, 3), "cannot take inputs of the given size"),
    ],
)
def test_a_shape_that_the_model_does_not_take_is_refused(shape: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        sized(with_input_shape(read(fully_convolutional()), shape))
