"""Other activation functions, wherever a model holds them, and nothing else changes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei import Recipe, ReplaceActivation
from saikei.edits.replacing.functions import PARAMETERS
from saikei.errors import EditError
from saikei.graph import read
from saikei.testing import assert_cuts_exactly
from saikei.testing.oracle import saved_and_loaded

NAMES = sorted(set(PARAMETERS) - {"threshold"})


def run(model: keras.Model, *x: np.ndarray) -> list[np.ndarray]:
    outputs = model(x[0] if len(x) == 1 else list(x), training=False)
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]


def batch(model: keras.Model, scale: float = 2.0) -> np.ndarray:
    shape = (3, *(size or 8 for size in model.input_shape[1:]))
    return (scale * np.random.default_rng(0).standard_normal(shape)).astype("float32")


def small(activation: Any = "relu") -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="images"),
            L.Conv2D(4, 3, activation=activation, bias_initializer="normal", name="conv"),
            L.MaxPooling2D(name="pool"),
            L.Flatten(name="flat"),
            L.Dense(5, activation="tanh", name="hidden"),
            L.Dense(2, activation="softmax", name="classes"),
        ]
    )


def apply(name: str, x: np.ndarray) -> np.ndarray:
    if name == "prelu":
        return np.where(x < 0, 0.25 * x, x)
    return ops.convert_to_numpy(keras.activations.get(name)(x))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("relu6", name) for name in NAMES[::3]),
        *(
            pytest.param("relu6", name, marks=pytest.mark.slow)
            for name in NAMES
            if name not in NAMES[::3]
        ),
        *(pytest.param("prelu", name, marks=pytest.mark.slow) for name in NAMES),
    ],
)
def test_every_function_takes_the_place_of_every_other(old: str, new: str) -> None:
    if old == new:
        return
    x = keras.Input((5,))
    hidden = L.PReLU(name="f")(x) if old == "prelu" else L.Activation(old, name="f")(x)
    model = keras.Model(x, L.Dense(2, name="out")(hidden))
    changed = ReplaceActivation(old, new)(model)
    data = batch(model)
    want = model.get_layer("out")(apply(new, data))
    np.testing.assert_allclose(run(changed, data)[0], want, rtol=1e-5, atol=1e-5)


def written_in_four_ways(name: str) -> list[keras.Model]:
    models = []
    layer = {"relu": L.ReLU, "leaky_relu": lambda: L.LeakyReLU(0.2), "elu": L.ELU}[name]
    for way in range(4):
        keras.utils.set_random_seed(0)
        x = keras.Input((6,))
        y = L.Dense(4, activation=[name, None, None, layer()][way], name="d")(x)
        if way == 1:
            y = layer()(y)
        if way == 2:
            y = getattr(ops, name)(y)
        models.append(keras.Model(x, L.Dense(2)(y)))
    return models


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("relu", "silu"),
        ("elu", "prelu"),
        pytest.param("relu", "prelu", marks=pytest.mark.slow),
        pytest.param("elu", "silu", marks=pytest.mark.slow),
    ],
)
def test_fused_layer_op_and_object_give_the_same_result(old: str, new: str) -> None:
    results = [run(ReplaceActivation(old, new)(m), batch(m))[0] for m in written_in_four_ways(old)]
    before = run(written_in_four_ways(old)[0], batch(written_in_four_ways(old)[0]))[0]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], rtol=1e-6, atol=1e-6)
    assert np.abs(results[0] - before).max() > 1e-3 or (new == "prelu" and old != "elu")


@pytest.mark.parametrize(
    ("layer", "is_found"),
    [
        (L.ReLU(max_value=6), True),
        (L.ReLU(6.0, 0.0, 0.0), True),
        (L.Activation("relu6"), True),
        (L.Activation(L.ReLU(6)), True),
        (L.ReLU(max_value=5), False),
        (L.ReLU(), False),
    ],
)
def test_relu6_is_found_in_all_its_guises(layer: Any, is_found: bool) -> None:
    model = keras.Sequential([keras.Input((4,)), L.Dense(3), layer, L.Dense(2)])
    model = keras.models.clone_model(model)
    if is_found:
        assert "hard_silu" in str(ReplaceActivation("relu6", "hard_swish")(model).get_config())
    else:
        with pytest.raises(EditError, match="no 'relu6'.*the model has.*relu"):
            ReplaceActivation("relu6", "hard_swish")(model)


@pytest.mark.parametrize(
    "shape",
    [
        (7,),
        (8, 8, 3),
        (None, None, 3),
        *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((9, 3), (4, 4, 4, 2))),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_relu_becomes_prelu_without_changing_the_function(
    shape: tuple[int | None, ...], fused: bool
) -> None:
    keras.utils.set_random_seed(0)
    x = keras.Input(shape)
    conv = [L.Dense, L.Conv1D, L.Conv2D, L.Conv3D][len(shape) - 1]
    args = (5,) if len(shape) == 1 else (5, 3)
    y = conv(*args, activation="relu" if fused else None, name="f")(x)
    y = y if fused else L.ReLU(name="f_act")(y)
    model = keras.Model(x, L.Dense(2)(y))
    changed = ReplaceActivation("relu", "prelu")(model)
    layer = changed.get_layer("f" if fused else "f_act")
    assert isinstance(layer, L.PReLU)
    assert tuple(layer.alpha.shape) == (*(1,) * (len(shape) - 1), 5)
    np.testing.assert_array_equal(run(changed, batch(model))[0], run(model, batch(model))[0])


def test_a_leaky_relu_becomes_a_prelu_of_the_same_slope() -> None:
    model = small(L.LeakyReLU(negative_slope=0.3))
    changed = ReplaceActivation("leaky_relu", "prelu")(model)
    np.testing.assert_allclose(changed.get_layer("conv").alpha, 0.3, rtol=1e-6)
    np.testing.assert_allclose(run(changed, batch(model)), run(model, batch(model)), rtol=1e-5)


def test_a_given_alpha_and_shared_axes_are_kept() -> None:
    edit = ReplaceActivation("relu", "prelu", alpha=0.1, shared_axes=(1,))
    layer = edit(small()).get_layer("conv")
    assert tuple(layer.alpha.shape) == (1, 6, 4) and layer.shared_axes == [1]
    np.testing.assert_allclose(layer.alpha, 0.1, rtol=1e-6)


PARAMETERISED = [
    ("relu", {"max_value": 2.0, "negative_slope": 0.1, "threshold": 0.5}),
    ("leaky_relu", {"negative_slope": 0.05}),
    ("elu", {"alpha": 0.3}),
    ("celu", {"alpha": 0.3}),
    ("gelu", {"approximate": True}),
    ("squareplus", {"b": 1.5}),
    ("soft_shrink", {"threshold": 0.2}),
    ("hard_shrink", {"threshold": 0.2}),
    ("threshold", {"threshold": 0.2, "default_value": -0.4}),
    ("softmax", {"axis": 1}),
    ("log_softmax", {"axis": 1}),
]


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "parameters"), PARAMETERISED)
def test_parameters_make_a_layer_of_its_own_behind(name: str, parameters: dict[str, Any]) -> None:
    model = small()
    changed = ReplaceActivation("relu", name, **parameters)(model)
    assert [layer.name for layer in changed.layers][1:4] == [
        "conv_linear",
        "conv",
        "pool",
    ]
    without = small("linear")
    without.set_weights(model.get_weights())
    linear = keras.Model(without.inputs[0], without.layers[0].output)
    inner = keras.Model(changed.input, changed.get_layer("conv").output)
    (x,) = run(linear, batch(model))
    want = getattr(keras.activations, name)(ops.convert_to_tensor(x), **parameters)
    np.testing.assert_allclose(run(inner, batch(model))[0], want, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_saved_models_name_nothing_of_saikei() -> None:
    cases = [(name, {}) for name in NAMES if name != "relu"]
    # Names differ in the function alone.
    for name, parameters in (*cases[::5], *PARAMETERISED):
        changed = ReplaceActivation("relu", name, **parameters)(small())
        assert "saikei" not in changed.to_json()
        loaded = saved_and_loaded(changed)
        np.testing.assert_array_equal(*(run(one, batch(changed))[0] for one in (changed, loaded)))


def test_functions_without_parameters_stay_fused() -> None:
    changed = ReplaceActivation("relu", "elu")(small())
    assert [layer.name for layer in changed.layers[1:]] == [layer.name for layer in small().layers]
    assert changed.get_layer("conv").get_config()["activation"] == "elu"


def test_any_spares_the_output_and_softmax() -> None:
    changed = ReplaceActivation("any", "elu")(small())
    names = {name: changed.get_layer(name).activation.__name__ for name in ("conv", "hidden")}
    assert names == {"conv": "elu", "hidden": "elu"}
    assert changed.get_layer("classes").activation.__name__ == "softmax"


def test_an_output_behind_a_reshape_and_a_cast_is_an_output() -> None:
    x = keras.Input((4,))
    y = L.Dense(4, activation="relu", name="hidden")(x)
    y = L.Dense(4, activation="sigmoid", name="last")(y)
    model = keras.Model(x, L.Activation("linear")(L.Reshape((2, 2))(L.Dropout(0.1)(y))))
    changed = ReplaceActivation("any", "elu")(model)
    assert changed.get_layer("last").activation.__name__ == "sigmoid"
    with pytest.raises(EditError, match="'last' give model outputs or gates.*named in layers"):
        ReplaceActivation("sigmoid", "elu")(model)


def test_an_output_is_replaced_when_it_is_named() -> None:
    changed = ReplaceActivation("softmax", "linear", layers=("classes",))(small())
    assert changed.get_layer("classes").activation.__name__ == "linear"
    np.testing.assert_allclose(
        ops.softmax(run(changed, batch(changed))[0]), run(small(), batch(small()))[0], atol=1e-6
    )


def test_two_outputs_are_both_spared() -> None:
    x = keras.Input((4,))
    shared = L.Dense(4, activation="relu", name="hidden")(x)
    a = L.Dense(2, activation="relu", name="a")(shared)
    b = L.Dense(1, activation="sigmoid", name="b")(shared)
    changed = ReplaceActivation("any", "elu")(keras.Model(x, {"a": a, "b": b}))
    functions = [changed.get_layer(name).activation.__name__ for name in ("hidden", "a", "b")]
    assert functions == ["elu", "relu", "sigmoid"]


def squeeze_and_excite() -> keras.Model:
    x = keras.Input((8, 8, 3))
    y = L.Conv2D(4, 3, activation="relu6", name="conv")(x)
    gate = L.GlobalAveragePooling2D(keepdims=True)(y)
    gate = L.Dense(4, activation="sigmoid", name="gate")(gate)
    y = L.Multiply()([y, L.Reshape((1, 1, 4))(gate)])
    hard = L.ReLU(6.0, name="hard")(y + 3.0) * (1.0 / 6.0)
    return keras.Model(x, L.Dense(2)(L.Multiply()([y, hard])))


def test_gates_are_spared_unless_they_are_asked_for() -> None:
    model = squeeze_and_excite()
    changed = ReplaceActivation("any", "elu")(model)
    assert changed.get_layer("conv").activation.__name__ == "elu"
    assert changed.get_layer("gate").activation.__name__ == "sigmoid"
    assert isinstance(changed.get_layer("hard"), L.ReLU)
    assert isinstance(ReplaceActivation("relu6", "elu")(model).get_layer("hard"), L.ReLU)
    by_kind = ReplaceActivation("sigmoid", "hard_sigmoid")(model)
    assert by_kind.get_layer("gate").activation.__name__ == "hard_sigmoid"
    by_name = ReplaceActivation("any", "elu", layers=("hard",))(model)
    assert by_name.get_layer("hard").activation.__name__ == "elu"


def test_a_shared_layer_is_replaced_once_for_all_its_calls() -> None:
    x = keras.Input((6, 6, 4))
    shared = L.Conv2D(4, 3, padding="same", activation="relu", name="shared")
    model = keras.Model(x, L.Dense(2)(shared(shared(x))))
    changed = ReplaceActivation("relu", "prelu")(model)
    assert len([layer for layer in changed.layers if isinstance(layer, L.PReLU)]) == 1
    np.testing.assert_array_equal(run(changed, batch(model))[0], run(model, batch(model))[0])


def test_layers_and_exclude_choose() -> None:
    x = keras.Input((4,))
    y = x
    for name in "abc":
        y = L.Dense(4, activation="relu", name=name)(y)
    model = keras.Model(x, L.Dense(1)(y))

    def functions(edit: ReplaceActivation) -> list[str]:
        return [edit(model).get_layer(name).activation.__name__ for name in "abc"]

    assert functions(ReplaceActivation("relu", "elu", layers=("b",))) == ["relu", "elu", "relu"]
    assert functions(ReplaceActivation("any", "elu", exclude=("b",))) == ["elu", "relu", "elu"]


def test_policy_and_trainable_are_kept() -> None:
    x = keras.Input((8, 8, 3), dtype="float16")
    layer = L.Conv2D(4, 3, activation="relu", dtype="mixed_float16", trainable=False, name="conv")
    y = ops.elu(layer(x), alpha=0.5)
    model = keras.Model(x, L.Dense(2, dtype="mixed_float16")(y))
    changed = Recipe([ReplaceActivation("relu", "prelu"), ReplaceActivation("elu", "prelu")])(model)
    assert changed.get_layer("conv").dtype_policy.name == "mixed_float16"
    assert changed.get_layer("conv_linear").dtype_policy.name == "mixed_float16"
    assert (
        not changed.get_layer("conv").trainable and not changed.get_layer("conv_linear").trainable
    )
    op_layer = changed.layers[3]
    assert op_layer.dtype_policy.name == "mixed_float16" and op_layer.alpha.dtype == "float32"
    assert changed.output.dtype == model.output.dtype == "float16"


def test_channels_first_has_one_slope_for_each_channel() -> None:
    x = keras.Input((3, 8, 8))
    y = L.Conv2D(4, 3, data_format="channels_first", activation="relu", name="fused")(x)
    y = L.MaxPooling2D(data_format="channels_first")(y)
    y = L.LeakyReLU(name="layer")(y)
    graph = Recipe([ReplaceActivation("relu", "prelu"), ReplaceActivation("leaky_relu", "prelu")])
    operations = graph.apply(read(keras.Model(x, L.Dense(1)(L.Flatten()(y))))).operations
    assert [operations[n].weights["alpha"].shape for n in ("fused", "layer")] == [(4, 1, 1)] * 2


def test_masks_still_pass() -> None:
    x = keras.Input((None,), dtype="int32")
    y = L.Embedding(7, 4, mask_zero=True)(x)
    y = L.Dense(4, activation="relu", name="dense")(y)
    model = keras.Model(x, L.LSTM(2)(y))
    changed = ReplaceActivation("relu", "gelu", approximate=True)(model)
    data = np.array([[1, 2, 3, 0, 0], [1, 2, 3, 4, 5]])
    cut = changed(data[:1, :3])
    np.testing.assert_allclose(run(changed, data)[0][:1], cut, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("new", ["prelu", "elu", "gelu"])
def test_channels_can_be_cut_afterwards(new: str) -> None:
    parameters = {"gelu": {"approximate": True}, "elu": {"alpha": 0.5}}.get(new, {})
    changed = ReplaceActivation("any", new, **parameters)(small())
    assert assert_cuts_exactly(changed).cut > 0


def test_functions_of_users_own_are_replaced_by_name_only() -> None:
    @keras.saving.register_keras_serializable("tests")
    def wobble(x: Any) -> Any:
        return x * ops.sin(x)

    model = small(wobble)
    assert ReplaceActivation("any", "elu")(model).get_layer("conv").activation.__name__ == "wobble"
    changed = ReplaceActivation("wobble", "elu")(model)
    assert changed.get_layer("conv").activation.__name__ == "elu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"new": "elo"}, "unknown activation 'elo', did you mean 'elu'"),
        ({"new": "glu"}, "halves the channels"),
        ({"new": "elu", "slope": 1.0}, "'elu' has no parameter 'slope'; it has alpha"),
        ({"new": "elu", "alpha": "x"}, "alpha='x' of 'elu' has to be a number"),
        ({"new": "elu", "alpha": float("nan")}, "has to be a number"),
        ({"new": "leaky_relu", "negative_slope": None}, "has to be a number"),
        ({"new": "relu", "max_value": -1.0}, "ReplaceActivation: Keras has no relu"),
        ({"new": "gelu", "approximate": 1}, "True or False"),
        ({"new": "prelu", "shared_axes": (0,)}, "axes from 1 on"),
        ({"new": "threshold"}, "needs both"),
        ({"old": 3, "new": "elu"}, "old=3.: give a text"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        ReplaceActivation(**{"old": "relu", **arguments})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (ReplaceActivation("elu", "relu"), "no 'elu' to replace: the model has .*relu \\('conv'"),
        (ReplaceActivation("relu", "relu"), "change nothing: every chosen layer has relu already"),
        (ReplaceActivation("any", "elu", ("cov",)), "did you mean 'conv'"),
        (ReplaceActivation("any", "elu", ("conv",), ("conv",)), "both names and excludes"),
        (ReplaceActivation("relu", "elu", ("hidden",)), "'hidden' has activation 'tanh'"),
        (ReplaceActivation("relu", "elu", exclude=("conv",)), "all are excluded"),
        (ReplaceActivation("softmax", "elu"), "'classes' give model outputs"),
        (ReplaceActivation("any", "elu", ("flat",)), "'flat' .Flatten.: it has no activation"),
        (ReplaceActivation("relu", "prelu", shared_axes=(4,)), "'conv'.*an axis beyond"),
    ],
)
def test_what_cannot_be_is_refused(edit: ReplaceActivation, message: str) -> None:
    with pytest.raises(EditError, match=message):
        edit(small())


def test_recurrent_layers_are_left_alone_with_a_message() -> None:
    model = keras.Sequential([keras.Input((5, 3)), L.LSTM(4, name="memory"), L.Dense(2)])
    with pytest.raises(EditError, match="'memory' .LSTM.*recurrence"):
        ReplaceActivation("tanh", "relu", layers=("memory",))(model)
    with pytest.raises(EditError, match="no 'tanh'"):
        ReplaceActivation("tanh", "relu")(model)


def test_an_activity_regularizer_is_not_moved_silently() -> None:
    x = keras.Input((4,))
    y = L.Dense(3, activation="relu", activity_regularizer="l2", name="d")(x)
    model = keras.Model(x, L.Dense(1)(y))
    with pytest.raises(EditError, match="'d' .Dense. has an activity regularizer"):
        ReplaceActivation("relu", "elu", alpha=0.5)(model)
