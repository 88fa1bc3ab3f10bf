"""Subclasses that compute what a layer of Keras computes are treated like that layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import FoldBatchNorm, PruneChannels, ReplaceActivation, ReplaceKernel, Rule
from saikei.channels import channel_groups, map_channels
from saikei.graph import build, read
from saikei.rules import register_rule
from saikei.rules.base import no_macs, pinned_flow
from saikei.testing import assert_is_edit, random_inputs
from saikei.testing.oracle import run, saved_and_loaded
from tests.rules.nets import checked


class Named:
    """A mixin that adds something that is only written down."""

    def __init__(self, *args: Any, tag: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tag = tag

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tag": self.tag}  # type: ignore[misc]

    def note(self) -> str:
        return self.tag


def own(base: type) -> type:
    """A subclass that overrides nothing that is computed, registered under a name of its own."""
    register = keras.saving.register_keras_serializable("tests.subclasses")
    made: type = register(type(f"My{base.__name__}", (Named, base), {}))
    return made


NAMES = (
    "Activation BatchNormalization Bidirectional Conv2D Conv1D Dense Dropout Embedding "
    "EinsumDense Flatten GlobalMaxPooling2D GRU LSTM LSTMCell MultiHeadAttention RNN ReLU "
    "SpectralNormalization TimeDistributed"
)
Own: dict[str, Any] = {name: own(getattr(L, name)) for name in NAMES.split()}


def twice_tanh(x: Any) -> Any:
    return keras.ops.tanh(x) * 2


def image_net(of: Any) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 6, 2), name="image"),
            of["Conv2D"](6, 3, name="conv"),
            of["BatchNormalization"](name="norm"),
            of["ReLU"](name="relu"),
            of["SpectralNormalization"](
                of["Conv2D"](5, 3, activation="elu", name="inner"), name="spectral"
            ),
            of["Dropout"](0.2, name="drop"),
            of["GlobalMaxPooling2D"](name="pool"),
            of["Dense"](7, activation=twice_tanh, name="hidden"),
            of["Activation"]("relu", name="act"),
            of["Dense"](3, name="out"),
        ]
    )


def text_net(of: Any) -> keras.Model:
    words = keras.Input((None,), dtype="int32")
    x = of["Embedding"](9, 6, mask_zero=True, name="table")(words)
    x = of["Bidirectional"](of["LSTM"](5, return_sequences=True), name="both")(x)
    x = of["TimeDistributed"](of["Dense"](6, activation="relu", name="each"), name="steps")(x)
    x = of["RNN"]([of["LSTMCell"](4), L.GRUCell(5)], return_sequences=True, name="cells")(x)
    x = of["GRU"](4, name="gru")(x)
    return keras.Model(words, of["Dense"](3, name="out")(x))


def attention_net(of: Any) -> keras.Model:
    tensor = keras.Input((5, 4))
    x = of["EinsumDense"]("abc,cd->abd", (5, 8), name="einsum")(tensor)
    x = L.Add()([x, of["MultiHeadAttention"](2, 4, name="heads")(x, x)])
    x = of["Conv1D"](6, 2, activation="relu", name="conv")(x)
    return keras.Model(tensor, of["Dense"](3, name="out")(of["Flatten"]()(x)))


NETS: dict[str, Callable[[Any], keras.Model]] = {
    "image": image_net,
    "text": text_net,
    "attention": attention_net,
}
PLAIN: dict[str, Any] = {name: getattr(L, name) for name in NAMES.split()}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


@pytest.mark.parametrize("name", NETS)
def test_they_are_cut_and_counted_like_the_layer_itself(name: str) -> None:
    subclassed, plain = NETS[name](Own), NETS[name](PLAIN)
    expected = {group.name: int(group.free.sum()) for group in channel_groups(plain)}
    assert checked(subclassed) == expected
    ours, theirs = read(subclassed), read(plain)
    assert [o.kind for o in ours.operations.values()] == [
        o.kind for o in theirs.operations.values()
    ]
    again = saved_and_loaded(subclassed)
    kinds = [type(layer) for layer in build(read(again)).layers]
    assert kinds == [type(layer) for layer in build(ours).layers]
    assert any(kind in Own.values() for kind in kinds)
    batch = random_inputs(subclassed, np.random.default_rng(0))
    for a, b in zip(run(subclassed, batch), run(build(ours), batch), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "edit",
    [
        PruneChannels(keep=0.5),
        FoldBatchNorm(),
        ReplaceKernel((3, 3), (1, 1)),
        ReplaceActivation("relu", "gelu"),
    ],
    ids=lambda edit: type(edit).__name__,
)
def test_edits_treat_them_like_the_layer_itself(edit: Any) -> None:
    plain = image_net(PLAIN)
    model = image_net(Own)
    model.set_weights(plain.get_weights())
    made, expected = edit(model), edit(plain)
    assert made.count_params() == expected.count_params()
    assert [layer.name for layer in made.layers] == [layer.name for layer in expected.layers]
    assert_is_edit(edit, model, alone=False)


class Twice(L.Dense):
    def call(self, x: Any, **_: Any) -> Any:
        return super().call(x) * 2


class Grown(L.Dense):
    def build(self, shape: Any) -> None:
        super().build(shape)
        self.more = self.add_weight(shape=(self.units,), name="more")


class Forgetful(L.Dense):
    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "width": self.units}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Forgetful:
        return cls(config["width"], name=config["name"])


@register_rule(Rule(lambda call, inputs, _: pinned_flow(call, inputs, "by its own rule"), no_macs))
class Ruled(L.Dense):
    pass


@pytest.mark.parametrize(
    ("cls", "free"), [(Twice, 6), (Grown, 0), (Forgetful, 0), (Ruled, 0), (Own["Dense"], 6)]
)
def test_a_subclass_that_computes_something_else_is_what_it_computes(cls: Any, free: int) -> None:
    model = keras.Sequential([keras.Input((4,)), cls(6, name="a"), L.Dense(2, name="out")])
    # Keras saves of a `Dense` what a `Dense` holds.
    found = checked(model, loaded=cls is not Grown)
    assert max((size for name, size in found.items() if name != "out"), default=0) == free
    if cls is Ruled:
        reasons = map_channels(read(model)).unknown
        assert reasons == {"a": "'a' is not cut: by its own rule"}
