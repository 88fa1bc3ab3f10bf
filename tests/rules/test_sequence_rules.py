"""Attention, recurrent layers, embeddings, products and normalisation: cuts are exact."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from saikei import PruneChannels, channel_groups, profile
from saikei.channels import map_channels
from saikei.graph import read
from saikei.testing import assert_cuts_exactly, randomise_statistics

layers = keras.layers


def checked(model: keras.Model, readers: bool = False) -> None:
    """The oracle passes for several shares, and the channels of all groups can be cut."""
    randomise_statistics(model)
    for seed, share in enumerate((0.25, 0.5)):
        also = None if seed == 0 else False
        check = assert_cuts_exactly(model, share, seed, readers, loaded=also)
        assert check.cut > 0
        assert check.spread > 1e-4
    assert not map_channels(read(model)).unknown


def sequence(rank: int = 2) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    x = keras.Input((6, 5))
    return x, layers.Dense(8, name="width")(x)


def head(y: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(y))


def cross_attention() -> keras.Model:
    x, y = sequence()
    context = keras.Input((4, 3))
    memory = layers.Dense(6)(context)
    y = layers.MultiHeadAttention(4, 6, value_dim=5, output_shape=7)(y, memory)
    return keras.Model([x, context], head(y))


def keyed_attention() -> keras.Model:
    x, y = sequence()
    key, value = layers.Dense(6)(x), layers.Dense(10)(x)
    return keras.Model(x, head(layers.MultiHeadAttention(2, 4)(query=y, key=key, value=value)))


def masked_attention() -> keras.Model:
    x, y = sequence()
    mask = keras.Input((6, 6), dtype="bool")
    y = layers.MultiHeadAttention(2, 4)(y, y, attention_mask=mask, use_causal_mask=True)
    return keras.Model([x, mask], head(y))


def attention_scores() -> keras.Model:
    x, y = sequence()
    y, scores = layers.MultiHeadAttention(4, 4)(y, y, return_attention_scores=True)
    scores = layers.Permute((2, 3, 1))(scores)
    return keras.Model(x, [head(y), layers.Dense(2)(scores)])


def shared_attention() -> keras.Model:
    x, y = sequence()
    attention = layers.MultiHeadAttention(4, 4)
    y = layers.Add()([y, attention(y, y)])
    return keras.Model(x, head(layers.Add()([y, attention(y, y)])))


def transformer() -> keras.Model:
    x, y = sequence()
    z = layers.LayerNormalization()(y)
    y = layers.Add()([y, layers.MultiHeadAttention(4, 4)(z, z)])
    z = layers.RMSNormalization()(y)
    z = layers.Dense(8)(layers.Dense(16, activation="gelu")(z))
    return keras.Model(x, head(layers.LayerNormalization()(layers.Add()([y, z]))))


def grouped_attention(kv_heads: int, heads: int = 4) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        x, y = sequence()
        y = layers.Add()([y, layers.GroupQueryAttention(4, heads, kv_heads)(y, y)])
        return keras.Model(x, head(y))

    return make


def luong_attention() -> keras.Model:
    x, y = sequence()
    value = layers.Dense(5)(x)
    key = layers.Dense(8)(x)
    return keras.Model(x, head(layers.Attention(use_scale=True)([y, value, key])))


def additive_attention() -> keras.Model:
    x, y = sequence()
    value = layers.Dense(8)(x)
    return keras.Model(x, head(layers.AdditiveAttention()([y, value])))


def recurrent(kind: type[keras.Layer], **kwargs: object) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        x, y = sequence()
        y = kind(6, return_sequences=True, **kwargs)(y)
        return keras.Model(x, layers.Dense(3)(kind(7, **kwargs)(y)))

    return make


def states() -> keras.Model:
    x, y = sequence()
    _, hidden, cell = layers.LSTM(6, return_state=True, name="encoder")(y)
    z = layers.LSTM(6, return_sequences=True, name="decoder")(y, initial_state=[hidden, cell])
    return keras.Model(x, head(z))


def bidirectional(mode: str) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        x, y = sequence()
        y = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode=mode)(y)
        y = layers.Bidirectional(layers.LSTM(3), merge_mode=mode)(y)
        return keras.Model(x, layers.Dense(3)(y))

    return make


def tied_embedding() -> keras.Model:
    x = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(11, 8)
    y = layers.LayerNormalization()(table(x))
    y = layers.Add()([y, layers.Dense(8, activation="gelu")(y)])
    return keras.Model(x, table(y, reverse=True))


def token_positions() -> keras.Model:
    x = keras.Input((6,), dtype="int32")
    y = layers.Add()([layers.Embedding(8, 10)(x), layers.Embedding(8, 10)(x)])
    return keras.Model(x, head(y))


def einsum_dense() -> keras.Model:
    x, y = sequence()
    y = layers.EinsumDense("abc,cde->abde", output_shape=(None, 4, 5), bias_axes="de")(y)
    y = layers.EinsumDense("abde,def->abf", output_shape=(None, 9), bias_axes="f")(y)
    y = layers.EinsumDense("...x,xy->...y", output_shape=6, activation="relu")(y)
    return keras.Model(x, head(y))


def products() -> keras.Model:
    x, y = sequence()
    keys, values = layers.Dense(8)(x), layers.Dense(7)(x)
    scores = keras.ops.softmax(keras.ops.einsum("btd,bsd->bts", y, keys))
    return keras.Model(x, head(keras.ops.matmul(scores, values)))


def split_and_repeated() -> keras.Model:
    x, y = sequence()
    first, second = keras.ops.split(y, 2, axis=-1)
    y = keras.ops.repeat(keras.ops.multiply(first, keras.ops.silu(second)), 3, axis=-1)
    y = keras.ops.take(y, np.array([0, 2, 3]), axis=1)
    return keras.Model(x, head(keras.ops.cumsum(layers.Dense(4)(y), axis=1)))


def group_normalization(groups: int) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        x = keras.Input((6, 6, 2))
        y = layers.GroupNormalization(groups)(layers.Conv2D(8, 3)(x))
        y = layers.UnitNormalization()(layers.Conv2D(5, 1)(y))
        return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))

    return make


def adapted_input() -> keras.Model:
    x = keras.Input((5,))
    y = layers.Normalization(mean=np.arange(5.0), variance=np.full(5, 2.0))(x)
    return keras.Model(x, layers.Dense(3)(layers.Dense(6, activation="relu")(y)))


MODELS = {
    "cross attention": cross_attention,
    "keyed attention": keyed_attention,
    "masked attention": masked_attention,
    "attention scores": attention_scores,
    "shared attention": shared_attention,
    "transformer": transformer,
    "one key head": grouped_attention(1),
    "two key heads": grouped_attention(2),
    "four key heads": grouped_attention(4),
    "luong attention": luong_attention,
    "additive attention": additive_attention,
    "lstm": recurrent(layers.LSTM),
    "gru": recurrent(layers.GRU),
    "gru reset before": recurrent(layers.GRU, reset_after=False),
    "simple rnn": recurrent(layers.SimpleRNN, use_bias=False),
    "states": states,
    **{f"bidirectional {mode}": bidirectional(mode) for mode in ("concat", "sum", "ave", "mul")},
    "tied embedding": tied_embedding,
    "token positions": token_positions,
    "einsum dense": einsum_dense,
    "products": products,
    "split and repeated": split_and_repeated,
    "groups of four": group_normalization(2),
    "instance norm": group_normalization(-1),
    "adapted input": adapted_input,
}


# Two directions that are merged by numbers are cut as those that are added.
SLOW = ("bidirectional ave", "bidirectional mul", "gru reset before", "one key head")


@pytest.mark.sampled
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS],
)
def test_cutting_silent_channels_changes_nothing(name: str) -> None:
    keras.utils.set_random_seed(0)
    # The scores of a head whose values are silent are not: only their reader can be.
    checked(MODELS[name](), readers=name == "attention scores")


@pytest.mark.sampled
@pytest.mark.parametrize("name", MODELS)
def test_half_of_the_channels_goes(name: str) -> None:
    model = MODELS[name]()
    small = PruneChannels(keep=0.5, scope="layer")(model)
    assert small.count_params() < model.count_params()
    before, after = (profile(m, latency=False) for m in (model, small))
    assert after.macs < before.macs
    assert not before.uncounted


def test_heads_and_both_widths_are_groups_of_their_own() -> None:
    groups = channel_groups(cross_attention())
    sizes = sorted(g.size for g in groups if g.name.startswith("multi_head_attention"))
    assert sizes == [4, 5, 6, 7]


def test_query_heads_go_with_the_key_head_that_they_read() -> None:
    model = grouped_attention(4, heads=8)()
    small = PruneChannels(keep=0.5, scope="layer")(model)
    attention = next(layer for layer in small.layers if "attention" in layer.name)
    assert (attention.num_query_heads, attention.num_key_value_heads) == (4, 2)


def test_attention_costs_its_projections_and_its_scores() -> None:
    x = keras.Input((6, 8))
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, value_dim=3, use_bias=False)(x, x))
    projections = 6 * (8 * 2 * 4 + 8 * 2 * 4 + 8 * 2 * 3 + 2 * 3 * 8)
    assert profile(model, latency=False).macs == projections + 6 * 6 * 2 * (4 + 3)


def test_a_recurrent_layer_costs_its_kernels_at_each_step() -> None:
    x = keras.Input((6, 8))
    model = keras.Model(x, layers.LSTM(5)(x))
    assert profile(model, latency=False).macs == 6 * (8 * 20 + 5 * 20)


def test_an_embedding_read_backwards_costs_a_matrix_product() -> None:
    x = keras.Input((6,), dtype="int32")
    table = layers.ReversibleEmbedding(11, 8)
    assert profile(keras.Model(x, table(table(x), reverse=True)), latency=False).macs == 6 * 11 * 8
