"""Random Functional models, drawn by Hypothesis, that use everything the rules know."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers as L
from keras import ops

# They turn 0 into 0, so a channel that is made silent stays silent.
ZERO_PRESERVING = ("relu", "elu", "gelu", "silu", "tanh", "leaky_relu", "relu6", "hard_silu")
ANY = (*ZERO_PRESERVING, "sigmoid", "softplus", "hard_sigmoid", "exponential")


class Maker:
    """Grows a pool of tensors, each new one from those before."""

    def __init__(self, generator: np.random.Generator, activations: tuple[str, ...]) -> None:
        self.generator = generator
        self.activations = activations
        self.stays_silent = set(activations) <= set(ZERO_PRESERVING)
        self.inputs: list[Any] = []
        self.pool: list[Any] = []

    def integer(self, low: int, high: int) -> int:
        return int(self.generator.integers(low, high, endpoint=True))

    def pick(self, options: Any) -> Any:
        choices = list(options)
        return choices[self.integer(0, len(choices) - 1)]

    def activation(self) -> str:
        return str(self.pick((*self.activations, "linear")))

    def channels(self) -> int:
        return self.integer(2, 9)

    def tensor(self) -> Any:
        # The newest tensors are drawn more often, so that graphs get deep.
        return self.pool[-1 - min(self.integer(0, 4), len(self.pool) - 1)]

    def like(self, tensor: Any) -> Any:
        """Another tensor of the same shape, by a 1×1 convolution where there is none."""
        same = [t for t in self.pool if t.shape == tensor.shape and t is not tensor]
        if same and self.integer(0, 2):
            return self.pick(same)
        return L.Conv2D(tensor.shape[-1], 1)(self.resized(self.tensor(), tensor))

    def resized(self, tensor: Any, model: Any) -> Any:
        """The tensor brought to the height and width of another."""
        if tensor.shape[1:3] == model.shape[1:3]:
            return tensor
        pooled = L.GlobalAveragePooling2D(keepdims=True)(tensor)
        return L.UpSampling2D(tuple(model.shape[1:3]))(pooled)

    def step(self, name: str) -> None:
        self.pool.append(getattr(self, name)())

    # --- layers with weights
    def conv(self) -> Any:
        tensor = self.tensor()
        stride = self.integer(1, 2) if tensor.shape[1] > 3 else 1
        layer = L.Conv2D(
            self.channels(),
            self.pick((1, 3)),
            strides=stride,
            padding="same",
            activation=self.activation(),
            use_bias=bool(self.integer(0, 1)),
        )
        return layer(tensor)

    def grouped_conv(self) -> Any:
        groups, per_group = self.integer(2, 3), self.integer(1, 3)
        wide = L.Conv2D(groups * per_group, 1)(self.tensor())
        return L.Conv2D(groups * self.integer(1, 2), 3, padding="same", groups=groups)(wide)

    def depthwise(self) -> Any:
        multiplier = self.integer(1, 2)
        return L.DepthwiseConv2D(
            3, padding="same", depth_multiplier=multiplier, activation=self.activation()
        )(self.tensor())

    def separable(self) -> Any:
        return L.SeparableConv2D(
            self.channels(), 3, padding="same", depth_multiplier=self.integer(1, 2)
        )(self.tensor())

    def transposed(self) -> Any:
        return L.Conv2DTranspose(self.channels(), 3, padding="same")(self.tensor())

    def dense(self) -> Any:
        return L.Dense(self.channels(), activation=self.activation())(self.tensor())

    def normalised(self) -> Any:
        return L.BatchNormalization()(self.tensor())

    def layer_normalised(self) -> Any:
        axis = self.pick((-1, [1, 2, 3], [2, 3]))
        return self.pick((L.LayerNormalization(axis=axis), L.RMSNormalization()))(self.tensor())

    def group_normalised(self) -> Any:
        tensor = self.tensor()
        groups = self.pick([n for n in range(1, tensor.shape[-1] + 1) if not tensor.shape[-1] % n])
        return L.GroupNormalization(int(groups))(tensor)

    def scaled(self) -> Any:
        tensor = self.tensor()
        numbers = np.linspace(0.5, 1.5, tensor.shape[-1], dtype="float32")
        kinds = (
            L.Rescaling(numbers, offset=numbers),
            L.Normalization(mean=numbers, variance=numbers),
            L.Normalization(),
            L.UnitNormalization(),
        )
        return self.pick(kinds[: 4 if self.stays_silent else 3])(tensor)

    def prelu(self) -> Any:
        shared = self.pick((None, (1, 2)))
        return L.PReLU(alpha_initializer="uniform", shared_axes=shared)(self.tensor())

    def shared_twice(self) -> Any:
        first = self.tensor()
        second = self.like(first)
        layer = L.Conv2D(self.channels(), 3, padding="same", activation=self.activation())
        return L.Concatenate()([layer(first), layer(second)])

    def nested(self) -> Any:
        tensor = self.tensor()
        width = self.channels()
        inner = keras.Sequential(
            [
                keras.Input(tensor.shape[1:]),
                L.Conv2D(width, 3, padding="same", activation=self.activation()),
                L.BatchNormalization(),
                L.Conv2D(self.channels(), 1),
            ]
        )
        once = inner(tensor)
        return L.Add()([once, inner(self.like(tensor))]) if self.integer(0, 1) else once

    # --- sequences: positions as steps
    def flat(self, tensor: Any) -> Any:
        return L.Reshape((tensor.shape[1] * tensor.shape[2], tensor.shape[3]))(tensor)

    def grid(self, steps: Any, tensor: Any) -> Any:
        return L.Reshape((*tensor.shape[1:3], steps.shape[-1]))(steps)

    def attended(self) -> Any:
        tensor = self.tensor()
        own = self.flat(tensor)
        other = self.pick((own, self.flat(self.tensor())))
        layer = L.MultiHeadAttention(
            self.integer(1, 3),
            self.integer(2, 5),
            # Keras on JAX cannot run keys and values of unlike widths.
            value_dim=self.pick((None,) if keras.backend.backend() == "jax" else (None, 3)),
            output_shape=self.pick((None, self.channels())),
            use_bias=bool(self.integer(0, 1)),
            dropout=self.pick((0.0, 0.1)),
        )
        once = layer(own, other)
        if self.integer(0, 3) == 0:
            # Called twice, on other queries.
            once = L.Concatenate()([once, layer(L.ReLU()(own), other)])
        return self.grid(once, tensor)

    def grouped_attention(self) -> Any:
        tensor = self.tensor()
        keys, repeats = self.integer(1, 2), self.integer(1, 3)
        own = self.flat(tensor)
        return self.grid(
            L.GroupQueryAttention(self.integer(2, 4), keys * repeats, keys)(own, own), tensor
        )

    def attention_written_out(self) -> Any:
        tensor = self.tensor()
        own = self.flat(tensor)
        heads, width, length = self.integer(1, 3), 2 * self.integer(1, 2), own.shape[1]
        dense, split = bool(self.integer(0, 1)), []
        for _ in range(3):
            if dense:
                flat = L.Dense(heads * width)(own)
                split.append(ops.reshape(flat, (-1, length, heads, width)))
            else:
                split.append(L.EinsumDense("abc,cde->abde", (length, heads, width))(own))
        query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in split)
        scores = ops.softmax(ops.einsum("bhik,bhjk->bhij", query, key))
        joined = ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))
        joined = ops.reshape(joined, (-1, length, heads * width))
        return self.grid(L.Dense(self.channels())(joined), tensor)

    def recurrent(self) -> Any:
        tensor = self.tensor()
        own = self.flat(tensor)
        kind = self.pick((L.LSTM, L.GRU, L.SimpleRNN))
        layer = kind(self.integer(2, 5), return_sequences=True)
        if self.integer(0, 1):
            layer = L.Bidirectional(layer, merge_mode=self.pick(("concat", "sum", "mul", "ave")))
        return self.grid(layer(own), tensor)

    def by_rows(self) -> Any:
        inner = self.pick((L.Dense(self.channels()), L.Conv1D(self.channels(), 1)))
        return L.TimeDistributed(inner)(self.tensor())

    def by_rows_of_a_network(self) -> Any:
        """A network for each row, called once or twice."""
        tensor = self.tensor()
        inner = keras.Sequential(
            [
                keras.Input(tensor.shape[2:]),
                L.Conv1D(self.channels(), 1, activation=self.activation()),
                L.BatchNormalization(),
                L.Dense(self.channels()),
            ]
        )
        rows = L.TimeDistributed(inner)
        once = rows(tensor)
        return L.Add()([once, rows(self.like(tensor))]) if self.integer(0, 1) else once

    def recurrent_cells(self) -> Any:
        """Cells on top of each other, in one direction or both, with the last state or all."""
        tensor = self.tensor()
        kinds = (L.LSTMCell, L.GRUCell, L.SimpleRNNCell)
        cells = [self.pick(kinds)(self.integer(2, 5)) for _ in range(self.integer(1, 2))]
        layer = L.RNN(cells if len(cells) > 1 else cells[0], return_sequences=True)
        if self.integer(0, 2) == 0:
            layer = L.Bidirectional(layer)
        return self.grid(layer(self.flat(tensor)), tensor)

    def masked(self) -> Any:
        """A gate from steps that are left out where all their numbers are the mask's."""
        tensor = self.tensor()
        steps = L.Masking(0.0)(L.ReLU()(self.flat(tensor)))
        kind = self.pick((L.LSTM, L.GRU))
        steps = kind(self.integer(2, 5), return_sequences=True)(steps)
        if self.integer(0, 1):
            steps = L.Bidirectional(kind(self.integer(2, 4), return_sequences=True))(steps)
        gate = L.Dense(tensor.shape[-1])(L.GlobalAveragePooling1D()(steps))
        return tensor * L.Reshape((1, 1, tensor.shape[-1]))(gate)

    def spectral(self) -> Any:
        """A kernel divided by its spectral norm."""
        inner = self.pick((L.Conv2D(self.channels(), 1), L.Dense(self.channels())))
        return L.SpectralNormalization(inner)(self.tensor())

    def einsum_dense(self) -> Any:
        tensor = self.tensor()
        width = self.channels()
        if self.integer(0, 1):
            # On more axes Keras gets the order of those that the dots stand for wrong.
            return self.grid(
                L.EinsumDense("...c,cd->...d", width, bias_axes="d")(self.flat(tensor)), tensor
            )
        shape = (*tensor.shape[1:3], width)
        return L.EinsumDense("abcd,bde->abce", shape, bias_axes="e")(tensor)

    # --- merges
    def merged(self) -> Any:
        tensor = self.tensor()
        other = self.like(tensor)
        kind = self.pick((L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum))
        return kind()([tensor, other])

    def operator(self) -> Any:
        tensor = self.tensor()
        other = self.like(tensor)
        kind = self.pick((ops.add, ops.multiply, ops.subtract, ops.maximum))
        return kind(tensor, other)

    def concatenated(self) -> Any:
        tensor = self.tensor()
        others = [self.resized(self.tensor(), tensor) for _ in range(self.integer(1, 2))]
        if self.integer(0, 1):
            return L.Concatenate()([tensor, *others])
        return ops.concatenate([tensor, *others], axis=-1)

    def spatially_concatenated(self) -> Any:
        tensor = self.tensor()
        return L.Concatenate(axis=1)([tensor, self.like(tensor)])

    def with_constant(self) -> Any:
        tensor = self.tensor()
        constant = np.linspace(0.5, 1.5, tensor.shape[-1], dtype="float32")
        return tensor * constant if self.integer(0, 1) else tensor * 0.7

    def gated(self) -> Any:
        """Squeeze and excite."""
        tensor = self.tensor()
        gate = L.GlobalAveragePooling2D()(tensor)
        gate = L.Dense(self.channels(), activation="relu")(gate)
        gate = L.Dense(tensor.shape[-1], activation="sigmoid")(gate)
        return L.Multiply()([tensor, L.Reshape((1, 1, tensor.shape[-1]))(gate)])

    def spatial_gate(self) -> Any:
        tensor = self.tensor()
        return tensor * L.Conv2D(1, 1, activation="sigmoid")(tensor)

    # --- no weights
    def activated(self) -> Any:
        tensor = self.tensor()
        name = str(self.pick(self.activations))
        if self.integer(0, 1):
            return L.Activation(name)(tensor)
        return self.pick((ops.relu, ops.silu, ops.tanh, L.LeakyReLU(), L.ELU()))(tensor)

    def pooled(self) -> Any:
        tensor = self.tensor()
        kind = self.pick((L.MaxPooling2D, L.AveragePooling2D))
        return kind(2, padding="same")(tensor)

    def padded(self) -> Any:
        tensor = L.ZeroPadding2D(1)(self.tensor())
        return L.Cropping2D(((0, 2), (1, 1)))(tensor) if self.integer(0, 1) else tensor

    def reshaped_there_and_back(self) -> Any:
        tensor = self.tensor()
        shape = tuple(tensor.shape[1:])
        flat = L.Reshape((shape[0] * shape[1], shape[2]))(tensor)
        flat = L.Dense(self.channels())(flat) if self.integer(0, 1) else flat
        return ops.reshape(flat, (-1, shape[0], shape[1], flat.shape[-1]))

    def permuted_there_and_back(self) -> Any:
        tensor = L.Permute((3, 1, 2))(self.tensor())
        return ops.transpose(ops.relu(tensor), (0, 2, 3, 1))

    def shuffled(self) -> Any:
        """Channel shuffle, as in ShuffleNet."""
        tensor = L.Conv2D(2 * self.integer(1, 4), 1)(self.tensor())
        height, width, channels = tensor.shape[1:]
        split = L.Reshape((height, width, 2, channels // 2))(tensor)
        return L.Reshape((height, width, channels))(L.Permute((1, 2, 4, 3))(split))

    def flattened_there_and_back(self) -> Any:
        tensor = self.tensor()
        padding = "valid" if min(tensor.shape[1:3]) > 1 else "same"
        pooled = L.MaxPooling2D(2, 1, padding=padding)(tensor)
        flat = L.Dense(int(np.prod(tensor.shape[1:])))(L.Flatten()(pooled))
        return L.Reshape(tuple(tensor.shape[1:]))(flat)

    def flattened_with_channels_between(self) -> Any:
        """The channel axis is neither first nor last when it is flattened."""
        turned = L.Permute((1, 3, 2))(self.tensor())
        size = int(np.prod(turned.shape[1:]))
        flat = L.Dense(self.channels() * 4)(L.Reshape((size,))(turned))
        return L.Reshape((2, 2, flat.shape[-1] // 4))(flat)

    def parts(self) -> Any:
        tensor = self.tensor()
        channels = tensor.shape[-1]
        at = self.integer(1, max(channels - 1, 1))
        if channels == 1:
            return tensor
        first, second = self.pick(
            (
                lambda: (tensor[..., :at], tensor[..., at:]),
                lambda: ops.split(tensor, [at], axis=-1),
            )
        )()
        second = L.Conv2D(self.channels(), 1)(second)
        return L.Concatenate()([second, first])

    def repeated(self) -> Any:
        tensor = self.tensor()
        kinds = [
            lambda: ops.repeat(tensor, 2, axis=-1),
            lambda: ops.tile(tensor, (1, 1, 1, 2)),
            lambda: ops.flip(tensor, axis=-1),
        ]
        if hasattr(ops, "space_to_depth"):
            kinds.append(lambda: ops.space_to_depth(tensor[:, :2, :2], 2))
        return self.pick(kinds[: 4 if min(tensor.shape[1:3]) > 1 else 3])()

    def reduced(self) -> Any:
        tensor = self.tensor()
        # A sum adds up what is not silent in what no weight reads.
        kind = self.pick((ops.mean, ops.max, ops.sum)[: 3 if self.stays_silent else 2])
        return tensor * L.Dense(1)(kind(tensor, axis=-1, keepdims=True))

    def sliced(self) -> Any:
        tensor = self.tensor()
        if tensor.shape[1] > 2:
            return tensor[:, :-1, ...]
        return tensor[..., 1:] if tensor.shape[-1] > 1 else tensor

    def loose_ends(self) -> Any:
        """Everything that nothing reads yet, so that no step is left out of the model."""
        loose = [t for t in self.pool if not t._keras_history.operation._outbound_nodes]
        ends = [L.GlobalAveragePooling2D()(t) for t in loose or self.pool[-1:]]
        joined = L.Concatenate()(ends) if len(ends) > 1 else ends[0]
        return L.Dense(self.integer(1, 4))(joined)

    def output(self) -> Any:
        tensor = self.tensor()
        if self.integer(0, 1):
            tensor = L.Dense(self.channels(), activation="relu")(L.Flatten()(tensor))
        else:
            tensor = L.GlobalMaxPooling2D()(tensor)
        return L.Dense(self.integer(2, 4), activation=self.pick(("softmax", "linear")))(tensor)


_STEPS = (
    "conv grouped_conv depthwise separable transposed dense normalised prelu shared_twice nested "
    "layer_normalised group_normalised scaled attended grouped_attention attention_written_out "
    "recurrent recurrent_cells masked by_rows by_rows_of_a_network spectral einsum_dense "
    "parts repeated reduced "
    "merged operator concatenated spatially_concatenated with_constant gated spatial_gate "
    "activated pooled padded reshaped_there_and_back permuted_there_and_back shuffled "
    "flattened_there_and_back flattened_with_channels_between sliced"
)
STEPS = _STEPS.split()


@st.composite
def random_models(draw: Any, activations: tuple[str, ...] = ZERO_PRESERVING) -> keras.Model:
    """A Functional model with one or two inputs and outputs, and 3 to 14 random steps.

    Hypothesis draws how many steps and one seed; which steps comes from the seed, because steps
    and sizes that Hypothesis draws one by one come out few and alike.
    """
    count = draw(st.integers(3, 14))
    seed = draw(st.integers(0, 2**32 - 1))
    steps = np.random.default_rng(seed).choice(STEPS, count)
    return make_model([str(step) for step in steps], seed, activations)


def make_model(
    steps: list[str],
    seed: int,
    activations: tuple[str, ...] = ZERO_PRESERVING,
    policy: str = "float32",
) -> keras.Model:
    """The model of these steps and this seed, under a dtype policy."""
    keras.backend.clear_session(free_memory=False)
    keras.config.set_dtype_policy(policy)
    maker = Maker(np.random.default_rng(seed), activations)
    for _ in range(maker.integer(1, 2)):
        tensor = keras.Input((maker.integer(4, 6), maker.integer(4, 6), maker.integer(1, 3)))
        maker.inputs.append(tensor)
        maker.pool.append(L.Conv2D(maker.channels(), 3, padding="same")(tensor))
    for name in steps:
        maker.step(name)
    outputs = [maker.loose_ends()]
    if maker.integer(0, 1):
        outputs.append(maker.output())
    if maker.integer(0, 3) == 0:
        outputs.append(maker.pool[-1])
    inputs = maker.inputs if len(maker.inputs) > 1 else maker.inputs[0]
    return keras.Model(inputs, outputs)
