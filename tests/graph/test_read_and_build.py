"""Reading a model as a graph and building it again."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei.edits import RemoveNoOps
from saikei.errors import ModelError
from saikei.graph import build, copy_model, fresh_model, read

pytestmark = pytest.mark.backends


def outputs(model: keras.Model, batch: object, training: bool = False) -> list[np.ndarray]:
    flat = keras.tree.flatten(model(batch, training=training))
    return [keras.ops.convert_to_numpy(y) for y in flat]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def test_nested_models_are_inlined_with_unique_names() -> None:
    inner = keras.Sequential([keras.Input((6,)), L.Dense(5, name="same"), L.Dense(6)], name="inner")
    tensor = keras.Input((6,))
    model = keras.Model(tensor, L.Dense(2, name="same")(inner(L.Dense(6)(tensor))))
    graph = read(model)
    assert {operation.kind for operation in graph.operations.values()} == {"InputLayer", "Dense"}
    assert graph.operations["same"].config["units"] == 2
    assert graph.operations["inner_same"].config["units"] == 5
    batch = noise(3, 6)
    np.testing.assert_array_equal(outputs(build(graph), batch)[0], outputs(model, batch)[0])


def test_a_nested_model_called_with_training_false_keeps_its_normalisation_frozen() -> None:
    inner = keras.Sequential([keras.Input((4,)), L.BatchNormalization()])
    tensor = keras.Input((4,))
    model = keras.Model(tensor, inner(tensor, training=False))
    twin = copy_model(model)
    batch = noise(8, 4)
    np.testing.assert_array_equal(
        outputs(twin, batch, training=True)[0], outputs(model, batch, training=True)[0]
    )


def test_shared_layers_stay_shared() -> None:
    first, second = keras.Input((4,)), keras.Input((4,))
    layer = L.Dense(3)
    model = keras.Model([first, second], L.Add()([layer(first), layer(second)]))
    twin = copy_model(model)
    assert twin.count_params() == model.count_params() == 15
    batch = [noise(2, 4), noise(2, 4) + 1]
    np.testing.assert_array_equal(outputs(twin, batch)[0], outputs(model, batch)[0])


def test_dictionaries_of_inputs_and_outputs_keep_their_keys() -> None:
    tensors = {"image": keras.Input((4,), name="image"), "table": keras.Input((2,), name="table")}
    joined = L.Concatenate()(list(tensors.values()))
    model = keras.Model(tensors, {"a": L.Dense(2)(joined), "b": L.Dense(1)(joined)})
    twin = copy_model(model)
    batch = {"image": noise(3, 4), "table": noise(3, 2)}
    ours, theirs = twin(batch), model(batch)
    assert set(ours) == {"a", "b"}
    for key in ours:
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (ours[key], theirs[key])))


def test_an_input_that_nothing_reads_is_kept() -> None:
    used, unused = keras.Input((4,)), keras.Input((3,))
    model = keras.Model([used, unused], L.Dense(2)(used))
    assert len(copy_model(model).inputs) == 2


def test_the_same_output_twice_is_kept_twice() -> None:
    tensor = keras.Input((4,))
    hidden = L.Dense(2)(tensor)
    twin = copy_model(keras.Model(tensor, [hidden, hidden, tensor]))
    assert len(twin.outputs) == 3


def test_masking_still_masks() -> None:
    model = keras.Sequential([keras.Input((5, 3)), L.Masking(), L.LSTM(4), L.Dense(1)])
    batch = noise(2, 5, 3)
    batch[:, 3:] = 0
    np.testing.assert_array_equal(outputs(copy_model(model), batch)[0], outputs(model, batch)[0])


def nested_with_masks(kind: str) -> keras.Model:
    """A nested model that is called with `mask=`."""
    sequence, mask = keras.Input((5, 3)), keras.Input((5,), dtype="bool")
    inside, hidden = keras.Input((5, 3)), L.Dense(3)(sequence)
    if kind.startswith("two inputs"):
        other = keras.Input((5, 3))
        inner = keras.Model([inside, other], L.Add()([L.LSTM(4)(inside), L.LSTM(4)(other)]))
        # Keras leaves the mask on the tensor, for the input without a mask too.
        second = hidden if kind.endswith("of one tensor") else -hidden
        return keras.Model([sequence, mask], inner([hidden, second], mask=[mask, None]))
    if kind == "an input without steps":
        inside = keras.Input((5,))
        inner = keras.Model(inside, L.Softmax()(inside))
        return keras.Model([sequence, mask], inner(hidden[..., 0], mask=mask))
    inner = keras.Model(inside, L.Dense(2)(L.LSTM(4)(L.Dropout(0.1)(inside))))
    if kind == "in two models":
        outer = keras.Input((5, 3))
        inner = keras.Model(outer, inner(L.Dense(3)(outer)))
    if kind == "over a mask of its own":
        hidden = L.Masking()(sequence)
    outputs = [inner(hidden, mask=mask), inner(hidden)] if kind == "called twice" else None
    return keras.Model([sequence, mask], outputs or inner(hidden, mask=mask))


@pytest.mark.sampled
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "one input",
        "two inputs, one with a mask",
        "two inputs of one tensor",
        "an input without steps",
        "in two models",
        "over a mask of its own",
        "called twice",
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Layer '.*' .of type Functional. was passed an input with a mask"
)
def test_a_nested_model_keeps_the_mask_that_it_is_called_with(
    kind: str, loaded: bool, tmp_path: Path
) -> None:
    model = nested_with_masks(kind)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    batch = [noise(4, 5, 3), np.arange(5) < np.arange(1, 5)[:, None]]
    expected = outputs(model, batch)
    assert np.abs(expected[0] - outputs(model, [batch[0], batch[1] | True])[0]).max() > 1e-3
    copies = [copy_model(model)]
    if kind == "one input":
        # Without its dropout, nothing but the mask is left between the two layers.
        copies.append(RemoveNoOps()(model))
    for one in copies:
        for ours, theirs in zip(outputs(one, batch), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def masked_by_a_neighbour(kind: str) -> keras.Model:
    """A nested model that is called with `mask=`, and layers that read the same tensor."""
    sequence, mask = keras.Input((5, 3)), keras.Input((5,), dtype="bool")
    inside, hidden = keras.Input((5, 3)), L.Dense(3)(sequence)
    steps = L.LSTM(4, return_sequences=True)(inside)
    inner = keras.Model(inside, L.Dense(2)(L.LSTM(3)(steps)))
    if kind == "read before":
        other = L.Dense(2)(L.Dense(4)(L.Dense(4)(L.LSTM(4)(hidden))))
    elif kind == "read by a nested model":
        second = keras.Input((5, 3))
        other = keras.Model(second, L.Dense(2)(L.LSTM(4)(second)))(hidden)
    elif kind == "read through other layers":
        other = L.GlobalAveragePooling1D()(L.Dense(2)(L.Dropout(0.1)(hidden)))
    else:
        other = L.LSTM(2)(hidden)
    taken = L.Dropout(0.1)(hidden) if kind == "left through a dropout" else hidden
    masked = L.Dense(2)(L.Dense(3)(L.Dense(3)(inner(taken, mask=mask))))
    if kind == "read before":
        masked = inner(hidden, mask=mask)
    return keras.Model([sequence, mask], [masked, other])


@pytest.mark.sampled
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "read after",
        "read before",
        "read by a nested model",
        "read through other layers",
        "left through a dropout",
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Layer '.*' .of type Functional. was passed an input with a mask"
)
def test_a_mask_that_keras_leaves_on_a_tensor_masks_later_layers(
    kind: str, loaded: bool, tmp_path: Path
) -> None:
    model = masked_by_a_neighbour(kind)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    batch = [noise(4, 5, 3), np.arange(5) < np.arange(1, 5)[:, None]]
    expected = outputs(model, batch)
    whole = outputs(model, [batch[0], batch[1] | True])
    assert (np.abs(expected[1] - whole[1]).max() > 1e-3) == (kind != "read before")
    for one in (copy_model(model), RemoveNoOps()(model) if "dropout" in kind else model):
        for ours, theirs in zip(outputs(one, batch), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("within", [False, True])
def test_an_adapted_normalisation_keeps_its_statistics(within: bool) -> None:
    layer = L.Normalization()
    tensor = keras.Input((4, 3))
    model = keras.Model(tensor, (L.TimeDistributed(layer) if within else layer)(tensor))
    layer.adapt(3 * noise(50, *((3,) if within else (4, 3))) + 1)
    batch = noise(2, 4, 3)
    np.testing.assert_array_equal(outputs(copy_model(model), batch)[0], outputs(model, batch)[0])


def test_frozen_layers_stay_frozen() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization(), L.Dense(1)])
    model.layers[0].trainable = False
    twin = copy_model(model)
    assert len(twin.trainable_weights) == len(model.trainable_weights)


def test_fresh_weights_differ_by_seed_and_repeat_by_seed() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(8), L.Dropout(0.5), L.Dense(1)])
    first, again, other = (fresh_model(model, seed) for seed in (1, 1, 2))
    for one, same in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])
    assert not np.array_equal(first.get_weights()[0], model.get_weights()[0])


def test_a_copy_keeps_its_initialisers() -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(8, kernel_initializer="he_normal")])
    config = copy_model(model).layers[-1].get_config()
    assert config["kernel_initializer"]["class_name"] == "HeNormal"


def test_an_unbuilt_model_is_refused_with_the_fix() -> None:
    with pytest.raises(ModelError, match="not built.*keras.Input"):
        read(keras.Sequential([L.Dense(3)]))


def test_a_subclassed_model_that_is_not_built_is_refused_with_the_fix() -> None:
    class Mine(keras.Model):  # type: ignore[misc]
        def call(self, inputs: object) -> object:
            return inputs

    with pytest.raises(ModelError, match="subclassed.*call it once"):
        read(Mine())


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="got str"):
        read("model.keras")  # type: ignore[arg-type]
