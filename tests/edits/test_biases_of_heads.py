"""No cut lands where Keras adds the biases of heads along the wrong axis."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from saikei import DropChannels, PruneChannels, channel_groups
from saikei.errors import EditError
from saikei.testing import assert_cuts_exactly, randomise_statistics

pytestmark = pytest.mark.backends

L = keras.layers
LENGTH = 3


def attention(
    kind: str, heads: int = 4, width: int = 4, length: int | None = LENGTH
) -> keras.Model:
    keras.utils.set_random_seed(0)
    given = keras.Input((length, 6))
    layers = {
        "multi-head": lambda: L.MultiHeadAttention(heads, width, value_dim=width, name="heads"),
        "grouped": lambda: L.GroupQueryAttention(width, heads, heads, name="heads"),
    }
    if kind == "einsum":
        y = L.EinsumDense("btc,cnh->btnh", (length, heads, width), bias_axes="nh", name="heads")(
            given
        )
        y = L.EinsumDense("btnh,nhc->btc", (length, 6), name="back")(y)
    else:
        y = layers[kind]()(given, given)
    model = keras.Model(given, L.Dense(2, name="out")(y))
    randomise_statistics(model)
    return model


def biases(model: keras.Model) -> list[tuple[int, ...]]:
    shapes = [tuple(w.shape) for w in model.weights if w.path.endswith("bias")]
    return [shape for shape in shapes if len(shape) == 2]


@pytest.mark.parametrize("kind", ["multi-head", "grouped", "einsum"])
def test_at_least_two_of_a_width_stay(kind: str) -> None:
    model = attention(kind)
    for edit in (
        PruneChannels(0.05, scope="layer"),
        PruneChannels(0.05),
        PruneChannels(1, scope="layer"),
    ):
        smaller = edit(model)
        assert biases(smaller) and all(min(shape) >= 2 for shape in biases(smaller))
    for seed in range(2):
        assert assert_cuts_exactly(model, share=0.9, seed=seed, readers=True).cut


def test_what_is_asked_for_by_name_is_refused_with_the_reason() -> None:
    with pytest.raises(EditError, match="'heads/.*one number along an axis.*keep at least two"):
        DropChannels({"heads/key": (0, 1, 2)})(attention("multi-head"))
    smaller = DropChannels({"heads/key": (0, 1)})(attention("multi-head"))
    assert smaller.get_layer("heads").key_dim == 2


def test_heads_of_width_one_keep_their_number() -> None:
    model = attention("multi-head", heads=5, width=1)
    pinned = {group.name: group.pinned for group in channel_groups(model)}
    assert "TensorFlow" in str(pinned["heads/heads"])
    with pytest.raises(EditError, match="TensorFlow"):
        DropChannels({"heads/heads": (0, 1)})(model)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a fault of Keras there")
def test_keras_still_adds_such_a_bias_along_the_wrong_axis() -> None:
    """Once this fails, Keras is right, and heads may be cut to any width."""
    x = np.zeros((1, 3, 3, 1), "float32")
    bias = np.arange(3, dtype="float32").reshape(3, 1)
    added = keras.ops.convert_to_numpy(keras.ops.add(x, bias))
    assert not np.array_equal(added, x + bias)
