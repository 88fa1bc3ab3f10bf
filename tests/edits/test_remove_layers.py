"""Residual branches and layers that keep the shape are found, ranked and left out."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from saikei import Budget, RemoveLayers, profile
from saikei.edits.removing.units import find_units
from saikei.errors import BudgetError, EditError
from saikei.graph import read

layers = keras.layers


def residual_net(blocks: int = 3) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(6, 3, padding="same", activation="relu", name="stem")(x)
    for number in range(blocks):
        z = layers.Conv2D(6, 3, padding="same", use_bias=False, name=f"b{number}_first")(y)
        z = layers.ReLU(name=f"b{number}_act")(layers.BatchNormalization(name=f"b{number}_bn")(z))
        z = layers.Conv2D(6, 3, padding="same", name=f"b{number}_last")(z)
        y = layers.Add(name=f"b{number}")([y, z])
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(x, layers.Dense(4, name="head")(y))


def samples(model: keras.Model, count: int = 96) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, *model.input_shape[1:])).astype("float32")
    return x, np.zeros(count)


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def silence(model: keras.Model, name: str) -> None:
    model.get_layer(name).set_weights([0 * w for w in model.get_layer(name).get_weights()])


def test_a_silent_branch_is_ranked_first_and_leaves_without_a_trace() -> None:
    model = residual_net()
    silence(model, "b1_last")
    data = samples(model)
    plan = RemoveLayers(1).plan(model, data)
    assert [plan[0].name, plan[0].change] == ["b1", 0.0]
    assert min(unit.change for unit in plan[1:]) > 0
    small = RemoveLayers(1, compensate=False)(model, data)
    assert {layer.name for layer in model.layers} - {layer.name for layer in small.layers} == {
        "b1",
        "b1_first",
        "b1_bn",
        "b1_act",
        "b1_last",
    }
    np.testing.assert_allclose(run(small, data[0]), run(model, data[0]), atol=1e-6)


def test_everything_removable_can_go() -> None:
    model = residual_net()
    small = RemoveLayers(1.0)(model, samples(model))
    assert [layer.name for layer in small.layers][1:] == ["stem", "pool", "head"]


def test_plain_layers_that_keep_the_shape_go_with_what_stands_behind_them() -> None:
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(8, activation="relu", name="in"),
            layers.Dense(8, use_bias=False, name="same"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="act"),
            layers.Dense(8, activation="relu", name="again"),
            layers.Dense(3, name="out"),
        ]
    )
    units = find_units(read(model))
    assert [(unit.name, unit.layers) for unit in units] == [
        ("act", ("same", "bn")),
        ("again", ("again",)),
    ]
    small = RemoveLayers(2)(model, samples(model))
    assert [layer.name for layer in small.layers][1:] == ["in", "out"]


def test_the_refit_makes_up_for_a_block_that_mattered() -> None:
    model = residual_net()
    x, y = samples(model, 400)
    errors = []
    for compensate in (False, True):
        small = RemoveLayers(1, compensate=compensate)(model, (x[:300], y[:300]))
        errors.append(float(np.square(run(small, x[300:]) - run(model, x[300:])).mean()))
    assert errors[1] < 0.8 * errors[0]


def test_shared_outputs_and_output_layers_are_never_units() -> None:
    x = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    y = shared(shared(x))
    seen = layers.Dense(4, name="seen")(y)
    z = layers.Dense(4, name="tail")(layers.Add(name="sum")([y, seen]))
    assert find_units(read(keras.Model(x, [seen, z]))) == ()


@pytest.mark.parametrize(
    ("name", "count"), [("ResNet50", 12), ("MobileNetV2", 10), ("EfficientNetB0", 9)]
)
def test_the_identity_blocks_of_known_networks_are_found(name: str, count: int) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=4)
    units = find_units(read(model))
    assert len([unit for unit in units if unit.kind == "residual"]) == count


def test_both_halves_of_a_transformer_block_can_go() -> None:
    x = keras.Input((5, 8))
    y = layers.Dense(8, name="width")(x)
    z = layers.LayerNormalization()(y)
    y = layers.Add(name="attended")([y, layers.MultiHeadAttention(2, 4)(z, z)])
    z = layers.Dense(8)(layers.Dense(16, activation="gelu")(layers.LayerNormalization()(y)))
    y = layers.Add(name="fed")([y, z])
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))
    residual = [unit.name for unit in find_units(read(model)) if unit.kind == "residual"]
    assert residual == ["attended", "fed"]
    RemoveLayers(2, layers=("attended", "fed"))(model, samples(model))


def test_a_budget_takes_as_many_as_it_needs() -> None:
    model = residual_net()
    small = RemoveLayers(Budget(macs=0.7))(model, samples(model))
    before, after = (profile(m, latency=False).macs for m in (model, small))
    assert 0.35 < after / before <= 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"remove": 0}, "at least one"),
        ({"remove": 1.5}, "share"),
        ({"remove": True}, "a count or a Budget"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(EditError, match=message):
        RemoveLayers(**arguments)


def test_what_cannot_be_done_is_said() -> None:
    model = residual_net()
    data = samples(model)
    with pytest.raises(EditError, match="needs data"):
        RemoveLayers(0.5)(model)
    with pytest.raises(EditError, match="did you mean 'b1_last'"):
        RemoveLayers(1, exclude=("b1_lst",))(model, data)
    with pytest.raises(EditError, match="would change nothing"):
        RemoveLayers(1, exclude=("b0", "b1", "b2"))(model, data)
    with pytest.raises(BudgetError, match="removable parts"):
        RemoveLayers(Budget(macs=0.001))(model, data)


def test_it_goes_through_json() -> None:
    edit = RemoveLayers(Budget(params=0.5), layers=("a",), exclude=("b",), compensate=False)
    assert RemoveLayers.from_dict(edit.to_dict()) == edit
