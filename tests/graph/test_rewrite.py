"""Operations are put in the place of others, and tensors led around them."""

import keras
import numpy as np
import pytest

from saikei.errors import ModelError
from saikei.graph import (
    Graph,
    TensorRef,
    build,
    new_operation,
    new_weight,
    read,
    redirect,
    replace_operations,
    unused_name,
)

pytestmark = pytest.mark.backends

layers = keras.layers


def batch(model: keras.Model) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, *model.input_shape[1:])).astype("float32")


def run(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x, training=False))


def ref_of(graph: Graph, name: str) -> TensorRef:
    return TensorRef([call.operation for call in graph.calls].index(name), 0)


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(x)
    z = layers.Conv2D(4, 3, padding="same", name="second")(y)
    y = layers.Add(name="add")([y, z])
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(x, layers.Dense(2, name="head")(y))


def test_a_fused_activation_split_off_computes_the_same(model: keras.Model) -> None:
    graph = read(model)
    first = graph.operations["first"]
    linear = new_operation(
        "first_linear",
        layers.Conv2D(4, 3, padding="same"),
        {name: new_weight(weight.numpy()) for name, weight in first.weights.items()},
    )
    changed = replace_operations(graph, {"first": (linear, new_operation("first", layers.ReLU()))})
    x = batch(model)
    np.testing.assert_array_equal(run(build(changed), x), run(model, x))
    assert [call.operation for call in changed.calls][1:3] == ["first_linear", "first"]
    assert changed.spec(ref_of(changed, "first")) == graph.spec(ref_of(graph, "first"))


def test_an_empty_chain_leaves_the_operation_out() -> None:
    x = keras.Input((4,))
    y = layers.Dropout(0.5, name="drop")(layers.Dense(3, name="dense")(x))
    model = keras.Model(x, y)
    changed = replace_operations(read(model), {"drop": ()})
    assert list(changed.operations) == [model.layers[0].name, "dense"]
    np.testing.assert_array_equal(run(build(changed), batch(model)), run(model, batch(model)))


def test_a_shared_layer_is_replaced_in_every_call() -> None:
    x = keras.Input((4,))
    shared = layers.Dense(4, activation="relu", name="shared")
    model = keras.Model(x, shared(shared(x)))
    graph = read(model)
    weights = graph.operations["shared"].weights
    chain = (
        new_operation("linear", layers.Dense(4), weights),
        new_operation("shared", layers.ReLU()),
    )
    changed = build(replace_operations(graph, {"shared": chain}))
    assert len(changed.layers) == 3
    np.testing.assert_array_equal(run(changed, batch(model)), run(model, batch(model)))


def test_shapes_behind_a_replacement_follow() -> None:
    x = keras.Input((8, 8, 1))
    y = layers.MaxPooling2D(2, name="pool")(x)
    y = layers.GlobalAveragePooling2D(name="mean")(layers.Conv2D(2, 3, name="conv")(y))
    changed = replace_operations(
        read(keras.Model(x, y)), {"pool": (new_operation("pool", layers.AveragePooling2D(1)),)}
    )
    assert changed.spec(ref_of(changed, "pool")).shape == (None, 8, 8, 1)
    assert changed.spec(ref_of(changed, "conv")).shape == (None, 6, 6, 2)


def test_a_remembered_shape_is_that_of_the_same_config_and_input() -> None:
    x = keras.Input((8, 8, 1))
    y = layers.MaxPooling2D(2, name="pool")(x)
    graph = read(keras.Model(x, layers.Conv2D(2, 3, name="conv")(y)))

    def shape(size: int) -> tuple[int | None, ...]:
        pool = new_operation("pool", layers.AveragePooling2D(size))
        return replace_operations(graph, {"pool": (pool,)}).calls[-1].outputs[0].shape

    assert [shape(size)[1] for size in (1, 2, 1)] == [6, 2, 6]


def test_shapes_of_own_functions_are_not_remembered() -> None:
    def widened(factor: int) -> keras.Model:
        x = keras.Input((4,))
        own = layers.Lambda(lambda t: keras.ops.tile(t, (1, factor)), name="own")
        y = layers.Activation("relu", name="relu")(x)
        return keras.Model(x, own(y))

    for factor in (2, 3):
        graph = read(widened(factor))
        changed = replace_operations(graph, {"relu": (new_operation("relu", layers.ReLU()),)})
        assert changed.spec(changed.output_refs()[0]).shape == (None, 4 * factor)


def test_a_layer_that_cannot_take_its_new_input_is_named() -> None:
    x = keras.Input((8, 8, 1))
    y = layers.Flatten(name="flat")(layers.MaxPooling2D(2, name="pool")(x))
    graph = read(keras.Model(x, layers.Dense(2, name="head")(y)))
    with pytest.raises(ModelError, match="'head'.*weights of shapes.*64.*16"):
        replace_operations(graph, {"pool": ()})


def test_a_tensor_led_around_a_branch_drops_the_branch(model: keras.Model) -> None:
    graph = read(model)
    changed = redirect(graph, {ref_of(graph, "add"): ref_of(graph, "first")})
    assert {"second", "add"}.isdisjoint(changed.operations)
    inner = keras.Model(model.input, model.get_layer("first").output)
    pooled = run(inner, batch(model)).mean(axis=(1, 2))
    expected = run(model.get_layer("head"), pooled)
    np.testing.assert_allclose(run(build(changed), batch(model)), expected, atol=1e-6)


def test_an_output_may_be_led_around_and_inputs_stay() -> None:
    x = keras.Input((4,), name="x")
    unused = keras.Input((2,), name="unused")
    y = layers.Dense(4, name="dense")(x)
    z = layers.Add()([y, layers.Dense(4)(unused)])
    graph = read(keras.Model([x, unused], z))
    changed = redirect(graph, {graph.output_refs()[0]: ref_of(graph, "dense")})
    model = build(changed)
    assert [tensor.name for tensor in model.inputs] == ["x", "unused"]
    assert model.output_shape == (None, 4)


def test_the_old_graph_is_unchanged(model: keras.Model) -> None:
    graph = read(model)
    before = (dict(graph.operations), graph.calls)
    redirect(graph, {ref_of(graph, "add"): ref_of(graph, "first")})
    assert (dict(graph.operations), graph.calls) == before


def test_new_weights_are_tied_to_nothing() -> None:
    array = np.zeros(3, np.float32)
    assert new_weight(array).key != new_weight(array).key


def test_unused_names_are_numbered(model: keras.Model) -> None:
    graph = read(model)
    assert unused_name(graph, "new") == "new"
    assert unused_name(graph, "head", also={"head_1"}) == "head_2"
