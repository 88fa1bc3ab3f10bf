"""Operations that take, repeat or reduce: each passes, ties or pins what it has to."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

from saikei.channels import channel_groups, map_channels
from saikei.edits import DropChannels
from saikei.graph import read
from tests.rules.nets import checked


def after(operation: Any) -> keras.Model:
    keras.backend.clear_session(free_memory=False)
    tensor = keras.Input((4, 4, 3))
    made = keras.tree.flatten(operation(L.Conv2D(8, 1, name="a")(tensor)))
    ends = [L.Flatten()(t) for t in made]
    joined = L.Concatenate()(ends) if len(ends) > 1 else ends[0]
    return keras.Model(tensor, L.Dense(2, name="out")(joined))


FREE: dict[str, tuple[Any, int]] = {
    "slice": (lambda x: x[..., 2:6], 8),
    "slices that overlap": (lambda x: [x[..., :5], x[..., -4:]], 8),
    "reversed": (lambda x: x[..., ::-1], 8),
    "one channel": (lambda x: x[..., 3], 7),
    "split": (lambda x: ops.split(x, 2, axis=-1), 8),
    "uneven split": (lambda x: ops.split(x, [2, 5], axis=-1), 8),
    "split of rows": (lambda x: ops.split(x, 2, axis=1), 8),
    "unstack": (lambda x: ops.unstack(x, axis=1), 8),
    "repeat": (lambda x: ops.repeat(x, 3, axis=-1), 8),
    "repeat of rows": (lambda x: ops.repeat(x, 3, axis=1), 8),
    "tile": (lambda x: ops.tile(x, (1, 2, 1, 2)), 8),
    "take of rows": (lambda x: ops.take(x, np.array([1, 0]), axis=1), 8),
    "roll": (lambda x: ops.roll(x, 1, axis=1), 8),
    "cumsum": (lambda x: ops.cumsum(x, axis=2), 8),
    "gated halves": (lambda x: ops.glu(x), 4),
    "pixel shuffle": (lambda x: ops.depth_to_space(x, 2), 2),
    "pixel unshuffle": (lambda x: ops.space_to_depth(x, 2), 8),
    "sum": (lambda x: ops.sum(x, axis=-1), 8),
    "masking": (lambda x: x * L.Masking()(x), 8),
    "centre": (lambda x: L.CenterCrop(2, 2)(x), 8),
    "triangle": (lambda x: ops.tril(ops.transpose(x, (0, 3, 1, 2))), 8),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", FREE)
@pytest.mark.filterwarnings("ignore:Layer 'flatten' .* was passed an input with a mask")
def test_channels_pass(name: str) -> None:
    operation, free = FREE[name]
    assert checked(after(operation)) == {"a": free, "out": 0}


LEFT = {
    "mean": lambda x: ops.mean(x, axis=-1),
    "variance": lambda x: ops.var(x, axis=-1, keepdims=True),
    "maximum": lambda x: ops.max(x, axis=-1),
    "log-sum-exp": lambda x: ops.logsumexp(x, axis=-1),
    "moments": lambda x: ops.moments(x, axes=[-1]),
    "norm written out": lambda x: (
        x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6)
    ),
    "layer normalisation": lambda x: ops.layer_normalization(
        x, np.linspace(0.5, 1, 8, dtype="float32"), np.linspace(-1, 1, 8, dtype="float32")
    ),
    "rms normalisation": lambda x: ops.rms_normalization(
        x, np.linspace(0.5, 1, 8, dtype="float32")
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", LEFT)
def test_statistics_of_channels_are_of_those_that_are_left(name: str) -> None:
    model = after(LEFT[name])
    assert checked(model) == {"a": 8, "out": 0}
    assert any(flow.inexact for flow in map_channels(read(model)).flows)


PINNED = {
    "unstack": lambda x: ops.unstack(x, axis=-1),
    "take": lambda x: ops.take(x, np.array([1, 0]), axis=-1),
    "every second": lambda x: x[..., ::2],
    "largest": lambda x: ops.top_k(x, 2)[0],
    "which is largest": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 8),
    "softmax": lambda x: ops.softmax(x),
    "running sum": lambda x: ops.cumsum(x, axis=-1),
    "masking by another value": lambda x: L.Masking(1.0)(x),
}


@pytest.mark.parametrize("name", PINNED)
@pytest.mark.filterwarnings("ignore:Layer 'flatten' .* was passed an input with a mask")
def test_what_needs_every_channel_pins_them(name: str) -> None:
    group = channel_groups(after(PINNED[name]))[0]
    assert group.name == "a" and group.pinned


def test_a_slice_ends_where_its_channels_are_after_the_cut() -> None:
    model = after(lambda x: [x[..., 2:6], x[..., 6:]])
    small = DropChannels({"a": (0, 3, 4, 7)})(model)
    kernel, cut = model.get_layer("out").kernel.numpy(), small.get_layer("out").kernel.numpy()
    # Left of 2:6 are 2 and 5, left of 6: is 6; at each of the 16 positions.
    first = kernel[: 16 * 4].reshape(16, 4, 2)[:, [0, 3]].reshape(-1, 2)
    second = kernel[16 * 4 :].reshape(16, 2, 2)[:, [0]].reshape(-1, 2)
    np.testing.assert_array_equal(cut, np.concatenate([first, second]))


def test_a_channel_that_is_taken_by_index_is_found_again() -> None:
    model = after(lambda x: x[..., 3])
    small = DropChannels({"a": (0, 1, 5)})(model)
    batch = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(small(batch), model(batch), rtol=1e-6)


def test_a_split_network_is_cut_as_in_shufflenet() -> None:
    tensor = keras.Input((4, 4, 3))
    kept, worked = ops.split(L.Conv2D(8, 1, name="a")(tensor), 2, axis=-1)
    y = ops.concatenate([kept, L.Conv2D(4, 3, padding="same", name="b")(worked)], axis=-1)
    y = ops.transpose(ops.reshape(y, (-1, 4, 4, 2, 4)), (0, 1, 2, 4, 3))
    y = ops.reshape(y, (-1, 4, 4, 8))
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(y)))
    assert checked(model) == {"a": 8, "out": 0}


def test_the_gates_of_a_block_attention_module_are_cut() -> None:
    tensor = keras.Input((4, 4, 3))
    x = L.Conv2D(8, 1, name="a")(tensor)
    pooled = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
    gate = L.Conv2D(1, 3, padding="same", activation="sigmoid", name="gate")(
        ops.concatenate(pooled, axis=-1)
    )
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(x * gate)))
    assert checked(model) == {"a": 8, "gate": 0, "out": 0}


def test_an_operation_without_rule_on_inputs_alone_is_no_news() -> None:
    tensor = keras.Input((4, 4, 3))
    x = L.Conv2D(8, 1, name="a")(L.RandomGrayscale()(tensor))
    model = keras.Model(tensor, L.Dense(2, name="out")(L.GlobalMaxPooling2D()(x)))
    assert not map_channels(read(model)).unknown
