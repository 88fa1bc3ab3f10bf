"""Attention loses heads, key widths, value widths and the embedding width, each by itself."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei.channels import channel_groups
from saikei.costs import profile
from saikei.edits import DropChannels, PruneChannels
from tests.rules.nets import checked


def end(tensor: Any) -> Any:
    return L.Dense(3, name="out")(L.GlobalMaxPooling1D()(tensor))


def self_attention(layer: Any, residual: bool = True) -> keras.Model:
    tensor = keras.Input((5, 7))
    a = L.Dense(8, name="a")(tensor)
    y = layer(a, a)
    return keras.Model(tensor, end(a + y if residual else y))


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gated": {"use_gate": True},
    "no bias, own value width": {"use_bias": False, "value_dim": 3},
    "dropout, so that scores are computed": {"dropout": 0.1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_heads_and_widths_are_cut_apart(name: str) -> None:
    layer = L.MultiHeadAttention(4, 6, name="att", **SETTINGS[name])
    values = SETTINGS[name].get("value_dim", 6)
    expected = {"a": 8, "att/heads": 4, "att/key": 6, "att/value": values, "out": 0}
    assert checked(self_attention(layer)) == expected


def test_fewer_key_channels_keep_the_scores_as_they_were() -> None:
    layer = L.MultiHeadAttention(2, 8, name="att")
    model = self_attention(layer)
    kernel = layer.query_dense.kernel.numpy()
    small = DropChannels({"att/key": (0, 1, 2, 3, 4, 5)})(model).get_layer("att")
    np.testing.assert_allclose(
        small.query_dense.kernel.numpy(), kernel[..., 6:] * np.sqrt(2 / 8), rtol=1e-6
    )
    np.testing.assert_array_equal(
        small.key_dense.kernel.numpy(), layer.key_dense.kernel.numpy()[..., 6:]
    )
    assert (small.key_dim, small.value_dim, small.num_heads) == (2, 8, 2)


def test_cross_attention_of_different_widths() -> None:
    query, value = keras.Input((5, 8)), keras.Input((7, 6))
    a, b = L.Dense(8, name="a")(query), L.Dense(10, name="b")(value)
    c = L.Dense(9, name="c")(value)
    layer = L.MultiHeadAttention(4, 6, value_dim=5, output_shape=11, name="att")
    model = keras.Model([query, value], end(layer(a, b, key=c)))
    widths = {"a": 8, "b": 10, "c": 9, "att/heads": 4, "att/key": 6, "att/value": 5, "att": 11}
    assert checked(model) == {**widths, "out": 0}


def test_scores_that_are_returned_have_the_heads() -> None:
    tensor = keras.Input((5, 7))
    a = L.Dense(8, name="a")(tensor)
    y, scores = L.MultiHeadAttention(4, 6, name="att")(a, a, return_attention_scores=True)
    turned = ops.reshape(ops.transpose(scores, (0, 2, 3, 1)), (-1, 25, 4))
    model = keras.Model(tensor, [end(y), L.Dense(2, name="more")(L.GlobalMaxPooling1D()(turned))])
    # The scores of a silent head are even, not 0, so what reads them is silenced too.
    assert checked(model, readers=True)["att/heads"] == 4


def test_attention_that_is_shared_ties_its_calls() -> None:
    tensor = keras.Input((5, 7))
    a, b = L.Dense(8, name="a")(tensor), L.Dense(8, name="b")(tensor)
    layer = L.MultiHeadAttention(4, 6, name="att")
    model = keras.Model(tensor, end(L.Concatenate()([layer(a, a), layer(b, a)])))
    inside = {"att/heads": 4, "att/key": 6, "att/value": 6, "att": 8}
    assert checked(model) == {"a": 8, **inside, "out": 0}


@pytest.mark.parametrize(("queries", "keys", "heads"), [(6, 2, 2), (6, 1, 6), (4, 4, 4)])
def test_grouped_queries_go_with_the_key_head_that_they_share(
    queries: int, keys: int, heads: int
) -> None:
    layer = L.GroupQueryAttention(6, queries, keys, name="att", use_gate=keys == 4)
    assert checked(self_attention(layer)) == {"a": 8, "att/width": 6, "att/heads": heads, "out": 0}


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Attention(),
        lambda: L.Attention(use_scale=True, score_mode="concat"),
        lambda: L.AdditiveAttention(),
    ],
)
def test_attention_without_projections_ties_query_and_key(layer: Any) -> None:
    query, value = keras.Input((5, 8)), keras.Input((7, 6))
    a, b = L.Dense(8, name="a")(query), L.Dense(8, name="b")(value)
    c = L.Dense(9, name="c")(value)
    model = keras.Model([query, value], end(layer()([a, c, b])))
    assert checked(model) == {"a": 8, "c": 9, "out": 0}


def test_the_attention_operation_keeps_the_divisor_of_its_scores() -> None:
    tensor = keras.Input((5, 7))
    make = [L.EinsumDense("abc,cde->abde", (5, 4, 6), bias_axes="de", name=name) for name in "qkv"]
    y = ops.dot_product_attention(*(layer(tensor) for layer in make))
    y = L.EinsumDense("abde,def->abf", (None, 7), bias_axes="f", name="o")(y)
    model = keras.Model(tensor, end(y))
    assert checked(model) == {"q/d": 4, "q/e": 6, "o": 7, "out": 0}


def written_out(rotary: bool = False, key_heads: int = 4) -> keras.Model:
    """Attention of dense layers, reshapes and products."""
    heads, width = 4, 6
    tensor = keras.Input((5, 7))

    def projected(name: str, count: int) -> Any:
        return ops.reshape(L.Dense(count * width, name=name)(tensor), (-1, 5, count, width))

    def turned(x: Any) -> Any:
        first, second = ops.split(x, 2, axis=-1)
        # Angles that come from a layer: the rule cannot cut them with the heads.
        angles = L.Dense(width, name=f"angles_{x.shape[2]}_{len(seen)}", trainable=False)(tensor)
        seen.append(angles)
        return x * ops.softmax(angles)[:, :, None] + ops.concatenate([-second, first], axis=-1)

    seen: list[Any] = []
    q, k, v = projected("q", heads), projected("k", key_heads), projected("v", key_heads)
    if rotary:
        q, k = turned(q), turned(k)
    k, v = (ops.repeat(x, heads // key_heads, axis=2) for x in (k, v))
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
    scores = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / np.sqrt(width))
    y = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
    return keras.Model(tensor, end(L.Dense(7, name="o")(ops.reshape(y, (-1, 5, heads * width)))))


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_that_is_written_out_loses_key_and_value_channels(key_heads: int) -> None:
    groups = checked(written_out(key_heads=key_heads))
    assert groups == {"q": 6, "v": 6, "o": 7, "out": 0}


def test_where_key_channels_are_bound_whole_heads_go_instead() -> None:
    groups = checked(written_out(rotary=True))
    assert (groups["q"], groups["o"]) == (4, 7)
    group = next(g for g in channel_groups(written_out(rotary=True)) if g.name == "q")
    assert {"q", "k", "v", "o"} <= set(group.layers)


def decoder(tied: bool) -> keras.Model:
    tokens = keras.Input((6,), dtype="int32")
    table = L.ReversibleEmbedding(11, 8, tie_weights=tied, name="table")
    x = table(tokens)
    y = L.LayerNormalization()(x)
    x = x + L.MultiHeadAttention(2, 4, name="att")(y, y, use_causal_mask=True)
    y = L.RMSNormalization()(x)
    x = x + L.Dense(8, name="down")(L.Dense(16, activation="gelu", name="up")(y))
    return keras.Model(tokens, table(L.LayerNormalization()(x), reverse=True))


@pytest.mark.parametrize("tied", [True, False])
def test_a_transformer_loses_its_embedding_width_through_a_tied_head(tied: bool) -> None:
    model = decoder(tied)
    expected = {"table": 8, "att/heads": 2, "att/key": 4, "att/value": 4, "up": 16}
    assert checked(model) == expected
    small = PruneChannels(0.5, scope="layer")(model)
    assert small.get_layer("table").output_dim == 4
    assert small.output_shape == (None, 6, 11)


def test_an_embedding_that_a_dense_head_reads() -> None:
    tokens = keras.Input((6,), dtype="int32")
    x = L.Embedding(11, 8, name="table")(tokens)
    model = keras.Model(tokens, L.Dense(3, name="out")(L.Flatten()(x)))
    assert checked(model) == {"table": 8, "out": 0}


def test_costs_of_attention_count_projections_scores_and_values() -> None:
    query, value = keras.Input((5, 8)), keras.Input((7, 6))
    layer = L.MultiHeadAttention(4, 3, value_dim=2, output_shape=9, name="att")
    macs = profile(keras.Model([query, value], layer(query, value)), latency=False).macs
    projections = 5 * 8 * 4 * 3 + 7 * 6 * 4 * 3 + 7 * 6 * 4 * 2 + 5 * 4 * 2 * 9
    assert macs == projections + 5 * 7 * 4 * (3 + 2)


def test_costs_of_attention_written_out_are_those_of_the_layer() -> None:
    tensor = keras.Input((5, 7))
    layer = L.MultiHeadAttention(4, 6, output_shape=7, name="att")
    model = keras.Model(tensor, end(layer(tensor, tensor)))
    assert profile(model, latency=False).macs == profile(written_out(), latency=False).macs
