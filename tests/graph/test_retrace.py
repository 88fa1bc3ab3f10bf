"""Subclassed models and composite layers, seen by running their call on symbolic tensors."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import saikei as sk
from saikei.channels import channel_groups
from saikei.errors import ModelError
from saikei.graph import build, copy_model, read
from saikei.rules import Rule, register_rule
from saikei.rules.activations import elementwise
from saikei.rules.base import no_macs
from saikei.testing import assert_cuts_exactly, randomise_statistics

pytestmark = pytest.mark.backends


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def assert_same(model: keras.Model, twin: keras.Model, batch: Any) -> None:
    ours = keras.tree.flatten(twin(batch, training=False))
    theirs = keras.tree.flatten(model(batch, training=False))
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        one, other = ops.convert_to_numpy(one), ops.convert_to_numpy(other)
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6 * (1e-6 + np.abs(other).max()))


def node_counts(model: keras.Model) -> list[int]:
    layers = model._flatten_layers()
    return [len(layer._inbound_nodes) + len(layer._outbound_nodes) for layer in layers]


class Residual(L.Layer):  # type: ignore[misc]
    def __init__(self, width: int, rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.first = L.Dense(width, activation="relu", name="first")
        self.norm = L.BatchNormalization(name="norm")
        self.drop = L.Dropout(rate, name="drop")

    def build(self, shape: Any) -> None:
        self.second = L.Dense(shape[-1], name="second")
        self.first.build(shape)
        self.second.build((*shape[:-1], self.width))
        self.norm.build(shape)

    def call(self, inputs: Any, training: Any = None) -> Any:
        x = self.second(self.first(self.norm(inputs, training=training)))
        return inputs + self.drop(x, training=training)


class Tower(keras.Model):  # type: ignore[misc]
    """Residual blocks of residual blocks, some of them shared."""

    def __init__(self, plan: list[int], width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stem = L.Dense(width, name="stem")
        self.pool = {i: Residual(5 + i, 0.1) for i in sorted(set(plan))}
        self.plan = plan
        self.head = keras.Sequential([L.Dense(4, activation="relu"), L.Dense(2)])

    def call(self, inputs: Any, training: Any = None) -> Any:
        x = self.stem(inputs)
        for index in self.plan:
            x = self.pool[index](x, training=training)
        return {"logits": self.head(x), "hidden": ops.tanh(x)}


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(5))
def test_a_random_subclassed_model_is_the_same_function_on_its_own_variables(seed: int) -> None:
    generator = np.random.default_rng(seed)
    plan = [int(i) for i in generator.integers(0, 3, generator.integers(1, 5))]
    model = Tower(plan, int(generator.integers(2, 7)))
    batch = noise(4, 3, seed=seed)
    model(batch)
    for weight in model.weights:
        weight.assign(generator.uniform(0.2, 1.0, weight.shape))
    before = [array.copy() for array in model.get_weights()]
    twin = copy_model(model)
    assert_same(model, twin, batch)
    assert not {id(v) for v in twin.variables} & {id(v) for v in model.variables}
    for weight in twin.weights:
        weight.assign(np.zeros(weight.shape))
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)


def test_a_shared_composite_stays_shared() -> None:
    model = Tower([0, 0, 0], 4)
    model(noise(1, 3))
    assert copy_model(model).count_params() == model.count_params()


def test_reading_leaves_nothing_on_the_model_and_can_be_repeated() -> None:
    model = Tower([0, 1], 4)
    model(noise(1, 3))
    state = [dict(layer.__dict__) for layer in model._flatten_layers()]
    nodes = node_counts(model)
    first, second = read(model), read(model)
    assert list(first.operations) == list(second.operations)
    assert nodes == node_counts(model)
    for layer, old in zip(model._flatten_layers(), state, strict=True):
        assert set(vars(layer)) == set(old)
        assert all(vars(layer)[key] is value for key, value in old.items())
    # What the traces were made of must go with the graphs.
    operations = [weakref.ref(op.source) for op in first.operations.values() if not op.weights]
    del first, second, state, layer, old
    gc.collect()
    alive = [ref() for ref in operations if ref() is not None]
    assert all(isinstance(operation, keras.Layer) for operation in alive)


def test_dropout_and_normalisation_follow_the_mode() -> None:
    class Branching(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop, self.out = L.BatchNormalization(), L.Dropout(0.5), L.Dense(8)

        def call(self, inputs: Any, training: Any = None) -> Any:
            x = self.norm(inputs, training=training)
            if training:
                x = self.drop(x, training=True)
            return self.out(x)

    model = Branching()
    batch = noise(64, 8)
    model(batch)
    twin = copy_model(model)
    assert_same(model, twin, batch)
    spread = ops.convert_to_numpy(twin(batch, training=True) - twin(batch, training=True))
    assert np.abs(spread).max() > 0.1
    assert np.abs(twin.get_layer(model.norm.name).moving_mean.numpy()).max() > 0


def test_a_call_that_does_other_things_in_training_is_refused() -> None:
    class TwoFaced(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = L.Dense(3), L.Dense(3)

        def build(self, shape: Any) -> None:
            self.a.build(shape)
            self.b.build(shape)

        def call(self, inputs: Any, training: Any = None) -> Any:
            return self.a(inputs) if training else self.b(inputs)

    model = TwoFaced()
    model(noise(1, 3))
    with pytest.raises(ModelError, match="in training it calls other layers"):
        read(model)


def test_dropout_that_is_always_on_is_refused() -> None:
    class Sampling(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.drop = L.Dropout(0.5, name="drop")

        def call(self, inputs: Any) -> Any:
            return self.drop(inputs, training=True)

    model = Sampling()
    model(noise(1, 3))
    with pytest.raises(ModelError, match="'drop' with training=True at inference too"):
        read(model)


def test_unknown_lengths_stay_unknown() -> None:
    class Positions(L.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.table = self.add_weight(
                shape=(16, shape[-1]), initializer="random_normal", name="table"
            )

        def call(self, inputs: Any) -> Any:
            batch, length, width = ops.shape(inputs)
            heads = ops.reshape(inputs, (batch, length, 2, width // 2))
            order = ops.cast(ops.arange(length), inputs.dtype) / ops.cast(length, inputs.dtype)
            seen = ops.tril(ops.ones((length, length), dtype=inputs.dtype))
            x = ops.reshape(heads, (batch, length, width)) + self.table[:length]
            x = ops.matmul(seen, x) + ops.zeros((batch, 1, width))
            start = ops.tile(self.table[None, :1], (batch, 1, 1))
            return ops.concatenate([start, x * order[None, :, None]], axis=1)

        # Not left to Keras, which tries out lengths that the table has not.
        def compute_output_spec(self, inputs: Any) -> Any:
            return keras.KerasTensor((None, None, inputs.shape[-1]), inputs.dtype)

    tensor = keras.Input((None, 4))
    model = keras.Model(tensor, L.Dense(3)(Positions()(tensor)))
    twin = copy_model(model)
    assert {type(layer).__module__.split(".")[0] for layer in twin.layers} == {"keras"}
    for samples, length in ((2, 5), (3, 9), (1, 1)):
        assert_same(model, twin, noise(samples, length, 4))


class Scaled(L.Layer):  # type: ignore[misc]
    """Uses its weights itself, in every way that comes to mind."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = L.Dense(6, name="inner")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)
        normal = "random_normal"
        self.gamma = self.add_weight(shape=(6,), initializer=normal, name="gamma")
        self.beta = self.add_weight(shape=(6,), initializer=normal, name="beta", trainable=False)
        self.mix = self.add_weight(shape=(6, 6), initializer=normal, name="mix")
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")
        self.order = self.add_weight(
            shape=(6,), dtype="int32", initializer="zeros", trainable=False, name="order"
        )
        self.extra = [self.add_weight(shape=(1, 6), initializer=normal, name="extra")]

    def call(self, inputs: Any) -> Any:
        x = self.inner(inputs) * self.gamma + self.beta
        x = ops.matmul(x, self.mix) / (1.0 + ops.square(self.temperature))
        x = self.gamma * x + ops.concatenate([self.extra[0], self.extra[0]], axis=0)[0]
        return x + ops.cast(self.order, x.dtype)


def test_weights_used_in_a_call_train_save_and_load(tmp_path: Path) -> None:
    tensor = keras.Input((3,))
    model = keras.Model(tensor, L.Dense(2)(Scaled()(tensor)))
    generator = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(generator.uniform(0.5, 1.0, weight.shape))
    batch = noise(5, 3)
    twin = copy_model(model)
    assert_same(model, twin, batch)
    # The integers are no weight any more.
    assert twin.count_params() == model.count_params() - 6
    assert len(twin.trainable_weights) == len(model.trainable_weights)
    assert {layer.__class__.__module__.split(".")[0] for layer in twin.layers} == {"keras"}
    twin.save(tmp_path / "twin.keras")
    assert_same(twin, keras.models.load_model(tmp_path / "twin.keras"), batch)
    before = [w.numpy().copy() for w in twin.trainable_weights]
    twin.compile("sgd", "mse")
    twin.fit(batch, noise(5, 2), verbose=0)
    assert all(
        np.abs(w.numpy() - old).max() > 0
        for w, old in zip(twin.trainable_weights, before, strict=True)
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_weights_used_in_a_call_keep_their_dtypes(policy: str) -> None:
    class Half(L.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(3,), initializer="random_normal", name="scale")
            self.shift = self.add_weight(
                shape=(3,), initializer="random_normal", name="shift", autocast=False
            )

        def call(self, inputs: Any) -> Any:
            x = ops.cast(inputs, "float32") + ops.cast(self.shift, "float32")
            return self.scale * ops.cast(x, self.compute_dtype)

    tensor = keras.Input((3,))
    model = keras.Model(tensor, Half(dtype=policy)(tensor))
    twin = copy_model(model)
    dtypes = [keras.backend.standardize_dtype(m(noise(4, 3)).dtype) for m in (twin, model)]
    assert dtypes[0] == dtypes[1] == keras.DTypePolicy(policy).compute_dtype
    kept = sorted(str(w.dtype) for w in model.weights if "int" not in str(w.dtype))
    assert sorted(str(w.dtype) for w in twin.weights) == kept
    np.testing.assert_allclose(
        ops.convert_to_numpy(ops.cast(twin(noise(4, 3)), "float32")),
        ops.convert_to_numpy(ops.cast(model(noise(4, 3)), "float32")),
        rtol=0.02,
        atol=0.02,
    )


def test_an_embedding_used_as_the_output_head_is_one_variable() -> None:
    class Tied(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = L.Embedding(11, 4)
            self.hidden = Residual(6)

        def call(self, inputs: Any) -> Any:
            x = self.hidden(self.tokens(inputs))
            return ops.matmul(x, ops.transpose(self.tokens.embeddings))

    model = Tied()
    batch = np.random.default_rng(0).integers(0, 11, (2, 5))
    model(batch)
    twin = copy_model(model)
    assert_same(model, twin, batch)
    assert twin.count_params() == model.count_params()
    assert twin.inputs[0].dtype == "int32"


def test_a_mask_reaches_layers_behind_a_composite() -> None:
    class Passing(L.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.supports_masking = True
            self.dense = L.Dense(4)

        def build(self, shape: Any) -> None:
            self.dense.build(shape)

        def call(self, inputs: Any, mask: Any = None) -> Any:
            x = self.dense(inputs) + inputs
            return x * ops.cast(ops.expand_dims(mask, -1), x.dtype)

    tensor = keras.Input((6,), dtype="int32")
    x = L.Embedding(9, 4, mask_zero=True)(tensor)
    model = keras.Model(tensor, L.LSTM(3)(Passing()(x) * 2.0 + 1.0))
    masked = keras.Model(tensor, L.LSTM(3)(Passing()(x)))
    batch = np.array([[3, 2, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0]])
    for original in (model, masked):
        assert_same(original, copy_model(original), batch)


def test_a_composite_that_cannot_be_traced_is_kept_whole_with_the_reason() -> None:
    @keras.saving.register_keras_serializable("tests")
    class Strange(L.Layer):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.dense = L.Dense(4)

        def build(self, shape: Any) -> None:
            self.dense.build(shape)

        def compute_output_shape(self, shape: Any) -> Any:
            return (*shape[:-1], 4)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs) if ops.max(inputs) > 0 else self.dense(-inputs)

    tensor = keras.Input((3,))
    hidden = L.Dense(6, name="before")(tensor)
    model = keras.Model(tensor, L.Dense(2)(Strange(name="strange")(hidden)))
    reason = channel_groups(model)[0].pinned
    assert reason is not None and "cannot be traced (line" in reason and "ops.max" in reason
    assert_same(model, copy_model(model), noise(4, 3))


def test_a_composite_that_changes_its_state_or_adds_a_loss_is_kept_whole() -> None:
    class Counting(L.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.count = self.add_weight(shape=(), name="count", trainable=False)

        def call(self, inputs: Any) -> Any:
            self.count.assign_add(1.0)
            return inputs * 2.0

    class Punished(L.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            self.add_loss(ops.sum(ops.square(inputs)))
            return inputs * 2.0

    for layer in (Counting(), Punished()):
        tensor = keras.Input((3,))
        model = keras.Model(tensor, L.Dense(2)(layer(L.Dense(4, name="before")(tensor))))
        graph = read(model)
        assert graph.operations[layer.name].untraced is not None
        assert channel_groups(model)[0].pinned is not None


def test_a_subclassed_model_that_cannot_be_traced_names_the_line() -> None:
    class Hopeless(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, inputs: Any) -> Any:
            x = self.dense(inputs)
            return x if ops.max(x) > 0 else -x

    model = Hopeless()
    model(noise(2, 3))
    with pytest.raises(ModelError, match="cannot be traced"):
        read(model)
    model.build((None, 3))
    with pytest.raises(ModelError, match=r"line \d+ of test_retrace.py, `return x if ops.max"):
        read(model)


def test_layers_made_in_a_call_are_refused() -> None:
    class Forgetful(keras.Model):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return L.Dense(3)(inputs)

    model = Forgetful()
    model(noise(2, 3))
    with pytest.raises(ModelError, match="cannot be traced"):
        read(model)


def test_a_registered_rule_keeps_the_layer_as_it_is() -> None:
    @register_rule(Rule(elementwise, no_macs))
    class Tripled(L.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs * 3.0

    class Quadrupled(L.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return inputs * 4.0

    tensor = keras.Input((3,))
    graph = read(keras.Model(tensor, Quadrupled()(Tripled()(tensor))))
    kinds = [operation.kind.split(".")[-1] for operation in graph.operations.values()]
    assert kinds == ["InputLayer", "Tripled", "Multiply"]


def test_several_inputs_keep_their_structure() -> None:
    class Two(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, inputs: Any) -> Any:
            return [self.dense(inputs["a"]), self.dense(inputs["b"])]

    model = Two()
    batch = {"a": noise(2, 4), "b": noise(2, 4, seed=1)}
    model(batch)
    assert_same(model, copy_model(model), batch)


def test_the_width_of_a_composite_can_be_cut() -> None:
    model = Tower([0, 1], 4)
    model(noise(1, 3))
    free = {group.name: int(group.free.sum()) for group in channel_groups(model)}
    assert free["residual_first" if "residual_first" in free else list(free)[1]] == 5
    assert build(read(model)).count_params() == model.count_params()


def test_a_subclassed_model_is_profiled_pruned_and_checked_by_the_oracle() -> None:
    model = Tower([0, 1, 0], 4)
    model(noise(1, 3))
    randomise_statistics(model)
    check = assert_cuts_exactly(model, share=0.5)
    assert check.cut > 0
    small = sk.PruneChannels(0.5)(model)
    assert sk.profile(small, latency=False).params < sk.profile(model, latency=False).params
    assert small.predict(noise(5, 3), verbose=0)["logits"].shape == (5, 2)


class Positions(L.Layer):  # type: ignore[misc]
    """Adds positions along an axis, after a step that leaves the axis where it is."""

    def __init__(self, move: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.move = move

    def call(self, x: Any) -> Any:
        moved = {
            "moveaxis": lambda: ops.moveaxis(x, (1, -1), (1, -1)),
            "transpose": lambda: ops.transpose(x, (0, 1, 3, 2)),
            "swapaxes": lambda: ops.swapaxes(x, -1, 2),
            "reshape": lambda: ops.reshape(x, (*ops.shape(x)[:2], 4, 8)),
            "part": lambda: x,
        }[self.move]()
        measured = x[..., :4] if self.move == "part" else moved
        positions = ops.arange(ops.shape(measured)[1], dtype="float32")
        return moved + positions[None][0, :, None, None]


@pytest.mark.parametrize("move", ["moveaxis", "transpose", "swapaxes", "reshape", "part"])
def test_positions_are_counted_on_the_input_and_not_on_channels(move: str) -> None:
    inputs = keras.Input((None, 6))
    x = L.EinsumDense("btd,dnh->btnh", (None, 4, 8))(inputs)
    x = Positions(move)(x)
    model = keras.Model(inputs, L.EinsumDense("btnh,nhd->btd", (None, 3))(x))
    groups = [group for group in channel_groups(model) if group.size in (4, 8)]
    assert len(groups) == 2
    # One channel would be pinned if its values were looked at for the length.
    assert all(group.free.all() for group in groups)
    for length in (3, 7):
        assert_same(model, copy_model(model), noise(2, length, 6))


class Window(L.Layer):  # type: ignore[misc]
    """Sums over a window of steps; on this backend by a function of its own, as KerasHub does."""

    def __init__(self, lower: int, upper: int, dtype_of_ones: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lower, self.upper, self.dtype_of_ones = lower, upper, dtype_of_ones
        self.dense = L.Dense(8, name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        if keras.config.backend() != "numpy" and isinstance(x, keras.KerasTensor):
            raise TypeError("a function of the backend takes no symbolic tensor")
        size = ops.shape(x)[1]
        ones = ops.ones((size, size), self.dtype_of_ones)
        # TensorFlow has no product of two masks.
        window = ops.triu(ones, self.lower) * ops.tril(ones, self.upper)
        return ops.einsum("ts,bsd->btd", ops.cast(window, "float32"), self.dense(x))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 8)


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", ["bool", "float32", "int32"])
@pytest.mark.parametrize(("lower", "upper"), [(-2, 0), (0, 0), (-1, 2), (1, 3)])
def test_windows_of_unknown_length_are_the_same_whatever_the_backend_offers(
    lower: int, upper: int, dtype: str
) -> None:
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, L.Dense(2)(Window(lower, upper, dtype)(inputs)))
    twin = copy_model(model)
    assert not any(isinstance(layer, Window) for layer in twin.layers)
    for length in (4, 9):
        x = noise(2, length, 3)
        dense, out = model.layers[1].dense, model.layers[2]
        steps = np.arange(length)
        beyond = steps[None, :] - steps[:, None]
        window = ((beyond >= lower) & (beyond <= upper)).astype("float32")
        hidden = x @ dense.kernel.numpy() + dense.bias.numpy()
        expected = np.einsum("ts,bsd->btd", window, hidden) @ out.kernel.numpy()
        np.testing.assert_allclose(ops.convert_to_numpy(twin(x)), expected, atol=1e-5)
    assert_cuts_exactly(model, share=0.5, readers=True)


def test_an_offset_beyond_the_matrix_cuts_nothing_of_it() -> None:
    """As of sliding windows that are longer than the sequence."""
    inputs = keras.Input((None, 3))
    twin = copy_model(keras.Model(inputs, Window(-100, 100, "bool")(inputs)))
    got = ops.convert_to_numpy(twin(noise(2, 4, 3)))
    np.testing.assert_allclose(got, np.repeat(got[:, :1], 4, axis=1), rtol=1e-6)


class Named(L.Layer):  # type: ignore[misc]
    """Holds a layer of its own name, and an identity that was made with a dtype policy."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = L.MultiHeadAttention(2, 4, name="attention")
        self.path_drop = L.Identity(dtype=self.dtype_policy, name="drop_path")

    def build(self, shape: Any) -> None:
        self.attention.build(shape, shape)

    def call(self, x: Any) -> Any:
        return x + self.path_drop(self.attention(x, x))


def test_layers_that_are_named_as_what_holds_them_and_bare_identities(tmp_path: Path) -> None:
    inputs = keras.Input((5, 6))
    x = Named(name="first")(Named(name="attention")(inputs))
    model = keras.Model(inputs, L.Dense(2)(x))
    twin = copy_model(model)
    assert_same(model, twin, noise(2, 5, 6))
    # Both inputs' widths, the heads' keys and values are made by layers that rules know.
    assert_cuts_exactly(model, share=0.5, readers=True)
    widths = [g for g in channel_groups(model) if "/" in g.name and g.free.all()]
    assert widths, channel_groups(model)
    twin.save(tmp_path / "twin.keras")
    assert_same(model, keras.models.load_model(tmp_path / "twin.keras"), noise(2, 5, 6))


class Tokens(L.Layer):  # type: ignore[misc]
    """Works on all tokens of the batch at once, as mixtures of experts do."""

    def __init__(self, back: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.back = back
        self.dense = L.Dense(6, name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build((None, shape[-1]))

    def call(self, x: Any) -> Any:
        batch, length, width = ops.shape(x)
        tokens = ops.reshape(x, (-1, width))
        mixed = self.dense(tokens - ops.mean(tokens, axis=0))
        middle = length if self.back == "sizes" else -1
        return ops.reshape(mixed, (batch, middle, width))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "back": self.back}


@pytest.mark.parametrize("back", ["sizes", "rest"])
def test_tokens_of_a_batch_that_are_joined_and_taken_apart_stay_what_they_are(back: str) -> None:
    inputs = keras.Input((None, 6))
    x = Tokens(back)(L.Dense(6)(inputs))
    model = keras.Model(inputs, x + inputs)
    assert_same(model, copy_model(model), noise(3, 5, 6))


class Pair(L.Layer):  # type: ignore[misc]
    """Gives two tensors and declares one."""

    def call(self, one: Any, other: Any) -> Any:
        return one + 1, other * 2

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Heads(L.Layer):  # type: ignore[misc]
    """Splits channels into heads and joins them again, with the sizes of what it was given."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dense = L.Dense(8, name="dense")
        self.pair = Pair(name="pair")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        batch, length = ops.shape(x)[:2]
        heads = ops.reshape(self.dense(x), (batch, length, 2, 4))
        first, second = self.pair(heads, heads)
        assert (ops.ndim(heads) or 1) == 4
        one = ops.reshape(ops.ones((1, length, 2, 4)), [1, length, -1])
        return ops.reshape(ops.tanh(first) * second, [batch, length, -1]) * one

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 8)


def test_heads_are_joined_by_the_rest_of_a_shape_and_layers_may_misstate_theirs() -> None:
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, L.Dense(3)(Heads()(inputs)))
    twin = copy_model(model)
    assert not any(isinstance(layer, (Heads, Pair)) for layer in twin.layers)
    dense, out = model.layers[1].dense, model.layers[2]
    for length in (3, 5):
        x = noise(2, length, 6)
        hidden = x @ dense.kernel.numpy() + dense.bias.numpy()
        expected = (np.tanh(hidden + 1) * hidden * 2) @ out.kernel.numpy() + out.bias.numpy()
        np.testing.assert_allclose(ops.convert_to_numpy(twin(x)), expected, atol=1e-5)
    assert any(group.size in (4, 8) and group.free.all() for group in channel_groups(model))


class Activated(L.Layer):  # type: ignore[misc]
    """Applies an activation function that it holds, and one by its name in Keras."""

    def __init__(self, activation: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name_of = activation
        self.activation = keras.activations.get(activation)
        self.dense = L.Dense(8, activation=activation, name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return self.activation(self.dense(x)) + getattr(keras.activations, self.name_of)(x)


@pytest.mark.parametrize("name", ["mish", "hard_silu", "hard_swish", "gelu", "relu6"])
def test_activation_functions_are_read_that_keras_cannot_call_on_symbolic_tensors(
    name: str,
) -> None:
    inputs = keras.Input((8,))
    model = keras.Model(inputs, L.Dense(2)(Activated(name)(inputs)))
    before = getattr(keras.activations, name)
    twin = copy_model(model)
    assert getattr(keras.activations, name) is before is model.layers[1].activation
    assert not any(isinstance(layer, Activated) for layer in twin.layers)
    assert_same(model, twin, 3 * noise(4, 8))
    assert next(layer for layer in twin.layers if layer.name == "dense").activation is before


class Prefixed(L.Layer):  # type: ignore[misc]
    """Puts a token of its own before those of an image, as vision transformers do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patches = L.Conv2D(8, 2, strides=2, name="patches")

    def build(self, shape: Any) -> None:
        self.patches.build(shape)
        self.token = self.add_weight(shape=(1, 1, 8), name="token")

    def call(self, x: Any) -> Any:
        patches = ops.reshape(self.patches(x), (-1, 9, 8))
        first = ops.tile(self.token, (ops.shape(patches)[0], 1, 1))
        return ops.concatenate([first, patches], axis=1)


def test_a_batch_is_counted_on_the_input_and_not_on_channels() -> None:
    image = keras.Input((6, 6, 3))
    model = keras.Model(image, L.Dense(2)(Prefixed()(image)))
    (group,) = [g for g in channel_groups(model) if g.name == "patches"]
    assert group.size == 8 and group.free.all()
    assert_same(model, copy_model(model), noise(3, 6, 6, 3))


class Doubled(keras.Model):  # type: ignore[misc]
    """A Functional model with a call of its own around its graph."""

    def call(self, inputs: Any, training: Any = None) -> Any:
        return {"twice": super().call(inputs) * 2, "left": inputs["left"]}


class DoubledInARow(keras.Sequential):  # type: ignore[misc]
    """A Sequential model with such a call."""

    def call(self, x: Any, training: Any = None, mask: Any = None) -> Any:
        return super().call(x) * 2


def test_a_call_around_a_models_own_graph_is_read() -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), dtype="int32", name="right")
    hidden = L.Dense(8, name="hidden")(L.Add()([left, ops.cast(right, "float32")]))
    model = Doubled(inputs={"left": left, "right": right}, outputs=L.Dense(3)(hidden))
    x = {"left": noise(5, 4), "right": np.arange(20).reshape(5, 4).astype("int32")}
    assert_same(model, copy_model(model), x)
    assert [(g.name, g.size) for g in channel_groups(model) if g.free.any()] == [("hidden", 8)]


def test_a_call_around_a_row_of_layers_is_read() -> None:
    model = DoubledInARow([keras.Input((4,)), L.Dense(8, name="hidden"), L.Dense(3)])
    assert_same(model, copy_model(model), noise(5, 4))
    assert [(g.name, g.size) for g in channel_groups(model) if g.free.any()] == [("hidden", 8)]


def test_a_row_of_layers_with_a_call_of_its_own_has_to_be_built() -> None:
    with pytest.raises(ModelError, match="is not built"):
        read(DoubledInARow([L.Dense(8)]))


@keras.saving.register_keras_serializable("tests")
class TwoLayers(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.second = L.Dense(8, activation="relu"), L.Dense(3)

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))


def test_a_subclassed_model_is_read_from_a_file_as_it_was_built(tmp_path: Path) -> None:
    model = TwoLayers()
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    expected = ops.convert_to_numpy(model(x))
    model.save(tmp_path / "model.keras")
    copied = copy_model(keras.models.load_model(tmp_path / "model.keras"))
    np.testing.assert_allclose(ops.convert_to_numpy(copied(x)), expected, rtol=1e-5, atol=1e-6)
