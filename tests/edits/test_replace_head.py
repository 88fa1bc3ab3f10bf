"""Heads are taken off and put on, and what is left of the model gives what it gave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.cli import main
from saikei.edits import PruneChannels, Recipe, ReplaceHead
from saikei.errors import EditError

L, ops = keras.layers, keras.ops
X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")


def shifted(x: Any) -> Any:
    return ops.relu(x) - 0.1


def classifier(activation: Any = "relu") -> keras.Model:
    """A backbone as a model within the model, and a head of two dense layers."""
    keras.utils.set_random_seed(0)
    layers = [L.Conv2D(6, 3, activation="relu", name="conv"), L.BatchNormalization(name="norm")]
    backbone = keras.Sequential([keras.Input((8, 8, 3)), *layers], name="backbone")
    tensor = keras.Input((8, 8, 3), name="picture")
    x = L.GlobalAveragePooling2D(name="pool")(backbone(tensor))
    x = L.Dropout(0.5)(L.Dense(5, activation=activation, name="hidden")(x))
    return keras.Model(tensor, L.Dense(4, activation="softmax", name="out")(x), name="net")


def two_headed() -> keras.Model:
    """Two inputs into a shared layer, and two outputs."""
    keras.utils.set_random_seed(1)
    a, b = keras.Input((6,), name="a"), keras.Input((3,), name="b")
    shared = L.Dense(4, name="shared")
    x = L.Concatenate(name="joined")([shared(a), shared(L.Dense(6, name="widened")(b))])
    outputs = {"kind": L.Dense(3, "softmax", name="k")(x), "size": L.Dense(1, name="s")(x)}
    return keras.Model({"a": a, "b": b}, outputs, name="two")


def values(model: keras.Model, x: Any = X) -> Any:
    return keras.tree.map_structure(np.asarray, model.predict_on_batch(x))


def part(model: keras.Model, *names: str) -> Any:
    """What a layer gives in the original, of a model within it too."""
    inner = model
    for name in names[:-1]:
        inner = inner.get_layer(name)
    return values(keras.Model(inner.inputs[0], inner.get_layer(names[-1]).output))


@pytest.mark.sampled
@pytest.mark.parametrize("loaded", [False, True], ids=["built", "loaded"])
@pytest.mark.parametrize(
    ("at", "names"),
    [
        ("pool", ("pool",)),
        ("backbone", ("backbone",)),
        ("conv", ("backbone", "conv")),
        (None, ("hidden",)),
    ],
)
def test_up_to_the_cut_a_model_gives_what_it_gave(
    at: str | None, names: tuple[str, ...], loaded: bool, tmp_path: Path
) -> None:
    model = classifier()
    expected = part(model, *names)
    if loaded:
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
    before = model.get_weights()
    cut = ReplaceHead(at)(model)
    np.testing.assert_allclose(values(cut), expected, rtol=1e-6)
    headed = ReplaceHead(at, head=[L.Rescaling(2.0), L.Dropout(0.5)])(model)
    np.testing.assert_allclose(values(headed), 2 * expected, rtol=1e-6)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_layer_with_a_function_of_ones_own_is_cut_behind_that() -> None:
    model = classifier(activation=shifted)
    np.testing.assert_allclose(
        values(ReplaceHead("hidden")(model)), part(model, "hidden"), rtol=1e-6
    )


def test_a_head_for_other_classes_ends_as_the_old_one_and_is_drawn_by_its_seed() -> None:
    model = classifier()
    new = ReplaceHead(classes=7)(model)
    assert new.output_shape == (None, 7)
    assert new.layers[-1].name == "out"
    assert new.layers[-1].activation is keras.activations.softmax
    again, other = ReplaceHead(classes=7)(model), ReplaceHead(classes=7, seed=1)(model)
    np.testing.assert_array_equal(values(new), values(again))
    assert np.abs(values(new) - values(other)).max() > 0
    features = part(model, "hidden")
    expected = new.layers[-1](features)
    np.testing.assert_allclose(values(new), ops.convert_to_numpy(expected), rtol=1e-5)


def test_a_map_of_classes_gets_a_convolution_and_a_pooled_one_a_dense_layer() -> None:
    layers = [L.Conv2D(4, 3, padding="same", name="body"), L.Conv2D(2, 1, name="out"), L.Softmax()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    new = ReplaceHead(classes=5)(model)
    assert new.output_shape == (None, 8, 8, 5)
    np.testing.assert_allclose(values(new).sum(-1), 1.0, rtol=1e-5)
    pooled = ReplaceHead("body", classes=5, pooling="max")(model)
    assert pooled.output_shape == (None, 5)


def test_a_model_given_as_the_head_keeps_its_weights_and_is_not_changed() -> None:
    head = keras.Sequential([keras.Input((5,)), L.Dense(3, name="out"), L.Dense(2)])
    model = classifier()
    calls = len(head.layers[0]._inbound_nodes)
    new = ReplaceHead(head=head)(model)
    np.testing.assert_allclose(values(new), values(head, part(model, "hidden")), rtol=1e-5)
    assert len(head.layers[0]._inbound_nodes) == calls
    with pytest.raises(EditError, match="as JSON: give the layers of the model as a list"):
        ReplaceHead(head=head).to_dict()


def test_one_of_several_outputs_gets_a_new_head_and_the_others_stay() -> None:
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(5, 6)), "b": rng.normal(size=(5, 3))}
    model = two_headed()
    before = values(model, x)
    for output in ("size", "s", 1):
        after = values(ReplaceHead(classes=2, output=output)(model), x)
        assert after.keys() == before.keys()
        np.testing.assert_allclose(after["kind"], before["kind"], rtol=1e-6)
        assert after["size"].shape == (5, 2)
    whole = ReplaceHead("joined", head=L.Dense(2))(model)
    assert whole.output_shape == (None, 2)


def test_calls_of_a_shared_layer_are_distinguished_and_unread_inputs_go() -> None:
    model, x = two_headed(), np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    first = ReplaceHead("shared", call=0)(model)
    assert [tensor.name for tensor in first.inputs] == ["a"]
    expected = ops.convert_to_numpy(model.get_layer("shared")(x))
    np.testing.assert_allclose(values(first, {"a": x}), expected, rtol=1e-6)
    second = ReplaceHead("shared", call=1)(model)
    assert [tensor.name for tensor in second.inputs] == ["b"]


def test_masks_reach_the_new_head() -> None:
    tensor = keras.Input((7,), dtype="int32")
    x = L.LSTM(5, return_sequences=True, name="lstm")(L.Embedding(9, 4, mask_zero=True)(tensor))
    model = keras.Model(tensor, L.Dense(2)(L.GlobalAveragePooling1D()(x)))
    tokens = np.array([[1, 2, 3, 0, 0, 0, 0], [4, 5, 6, 7, 8, 1, 2]])
    mean = ReplaceHead("lstm", head=L.GlobalAveragePooling1D())(model)
    expected = keras.Model(tensor, L.GlobalAveragePooling1D()(x))
    np.testing.assert_allclose(values(mean, tokens), values(expected, tokens), rtol=1e-6)


def test_in_a_recipe_it_goes_through_json_and_the_result_is_cut_trained_and_loaded(
    tmp_path: Path,
) -> None:
    head = [L.Dense(6, "relu", kernel_regularizer="l2"), L.Dense(3, "softmax")]
    recipe = Recipe([ReplaceHead("pool", head=head), PruneChannels(0.5)])
    assert Recipe.from_json(recipe.to_json()) == recipe
    model = recipe(classifier())
    sk.fit(model, (X, np.array([0, 1, 2, 0])), epochs=1, learning_rate=1e-3, progress=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(values(loaded), values(model), rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "shape"),
    [
        ("ReplaceHead('pool')", (None, 6)),
        ("ReplaceHead(classes=3)", (None, 3)),
        ("ReplaceHead('pool', head=[{'class_name': 'Dense', 'config': {'units': 2}}])", (None, 2)),
    ],
)
def test_on_the_command_line(step: str, shape: Any, tmp_path: Path) -> None:
    classifier().save(tmp_path / "model.keras")
    out = tmp_path / "new.keras"
    assert main(["edit", str(tmp_path / "model.keras"), "--step", step, "--out", str(out)]) == 0
    assert keras.saving.load_model(out).output_shape == shape


BUILT = keras.Sequential([keras.Input((5,)), L.Dense(2)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "ReplaceHead: classes=0: give a whole number of at least 1"),
        ({"seed": 2**32}, "seed=4294967296: give a whole number from 0"),
        ({"seed": None}, "seed=None.: give a whole number"),
        ({"classes": 2, "head": L.Dense(2)}, "classes or head, not both"),
        ({"activation": "relu"}, "goes with classes"),
        ({"pooling": "avg"}, "goes with classes"),
        ({"call": 0}, "goes with at"),
        ({"at": 3}, "at=3.: give a text"),
        ({"classes": 2, "activation": "sofmax"}, "did you mean 'softmax'"),
        ({"classes": 2, "pooling": "sum"}, "use 'avg' or 'max'"),
        ({"head": []}, "leave head out for none"),
        ({"head": [3]}, "got 3: give layers of Keras"),
        ({"head": [BUILT.layers[0]]}, "has weights already: give a new layer"),
        ({"head": {"class_name": "Dens", "config": {}}}, "'Dens' cannot be made from its config"),
        ({"head": {"class_name": "Adam", "module": "keras.optimizers"}}, "'Adam' is no layer"),
        ({"head": L.Dense(2, activation=lambda x: x)}, r"holds a function \(lambda\)"),
        ({"head": BUILT.__class__([L.Dense(2, activation=lambda x: x)])}, r"\(lambda\)"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        ReplaceHead(**arguments)


@pytest.mark.parametrize(
    ("edit", "message", "fix"),
    [
        (ReplaceHead("bakbone"), "did you mean 'backbone'", ReplaceHead("backbone")),
        (ReplaceHead("out"), "would change nothing", ReplaceHead("out", head=L.Dense(2))),
        (ReplaceHead("picture"), "is an input; name a layer", ReplaceHead("conv")),
        (
            ReplaceHead(classes=1),
            "over one number is always 1",
            ReplaceHead(classes=1, activation="sigmoid"),
        ),
        (
            ReplaceHead("conv", classes=3),
            "add pooling='avg'",
            ReplaceHead("conv", classes=3, pooling="avg"),
        ),
        (
            ReplaceHead("pool", head=L.Conv2D(3, 3)),
            "cannot read what layer 'pool'.*Give it a first layer that can",
            ReplaceHead("pool", head=[L.Reshape((1, 1, 6)), L.Conv2D(3, 1)]),
        ),
        (ReplaceHead("pool", call=1), "from 0 to 0", ReplaceHead("pool", call=0)),
        (
            ReplaceHead("pool", output="picture"),
            "has the outputs 'out'",
            ReplaceHead("pool", output="out"),
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_and_the_fix_works(
    edit: ReplaceHead, message: str, fix: ReplaceHead
) -> None:
    with pytest.raises(EditError, match=message):
        edit(classifier())
    assert fix(classifier()).count_params() > 0


@pytest.mark.parametrize(
    ("edit", "message", "fix"),
    [
        (
            ReplaceHead(classes=2),
            r"has 2 outputs \('k', 's'\).*output=0",
            ReplaceHead(classes=2, output=0),
        ),
        (ReplaceHead("shared"), "is called 2 times.*call=0", ReplaceHead("shared", call=0)),
        (
            ReplaceHead("joined", classes=2),
            "give activation='softmax'",
            ReplaceHead("joined", classes=2, activation="softmax"),
        ),
        (
            ReplaceHead(output="kind", head=keras.Model(t := keras.Input((8,)), [t, t])),
            "gives 2 outputs in the place of one",
            ReplaceHead("joined", head=keras.Model(t, [t, t])),
        ),
    ],
)
def test_of_several_outputs_and_calls_too(
    edit: ReplaceHead, message: str, fix: ReplaceHead
) -> None:
    with pytest.raises(EditError, match=message):
        edit(two_headed())
    assert fix(two_headed()).count_params() > 0


def test_where_the_head_begins_has_to_be_given_behind_a_merge() -> None:
    tensor = keras.Input((6,))
    sums = L.Add(name="sum")([L.Dense(3, name="a")(tensor), L.Dense(3, name="b")(tensor)])
    model = keras.Model(tensor, sums)
    with pytest.raises(EditError, match="reads several tensors.*one of 'a', 'b' or 'sum'"):
        ReplaceHead(classes=2)(model)
    assert ReplaceHead("a", classes=2, activation="linear")(model).output_shape == (None, 2)
