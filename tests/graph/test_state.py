"""What layers keep outside of weights and config goes along with every edit, fusion and file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import Average, DropChannels, PruneChannels, ReplaceActivation, Rule, Soup
from saikei.errors import EditError, FusionError, ModelError, PinnedWarning
from saikei.graph import copy_model, fresh_model
from saikei.judging import explain
from saikei.rules import CallView, Flow, Labels, LabelSource, register_rule
from saikei.scoring import evaluate
from saikei.search.fingerprint import model_hash

TEXTS = np.array([["red fox"], ["green dog"], ["blue fox"], ["green fox"]])
WORDS = np.array([["red"], ["green"], ["blue"], ["green"]])
# U+2028 ends a line in Keras's files.
STRANGE = np.array([["red fox"], ["a\u2028b"], ["\u2028 \u0085"], ["blue fox"]])
NUMBERS = np.array([[1], [2], [3], [2]])


def adapted(layer: Any, data: np.ndarray) -> Any:
    layer.adapt(data)
    return layer


def tail(tensor: Any) -> Any:
    return L.Dense(2, name="o")(L.Dense(6, activation="relu", name="h")(tensor))


def net(layer: Any, dtype: str = "string", nested: bool = False) -> keras.Model:
    source = keras.Input((1,), dtype=dtype)
    tensor = layer(source)
    if nested:
        inner = keras.Model(source, tensor, name="inner")
        source = keras.Input((1,), dtype=dtype)
        tensor = inner(source)
    return keras.Model(source, tail(tensor))


def embedded(layer: Any) -> keras.Model:
    source = keras.Input((1,), dtype="string")
    tensor = L.GlobalMaxPooling1D()(L.Embedding(20, 5)(layer(source)))
    return keras.Model(source, tail(tensor))


MAKERS: dict[str, Callable[[], tuple[keras.Model, np.ndarray]]] = {
    "StringLookup": lambda: (net(adapted(L.StringLookup(output_mode="one_hot"), WORDS)), WORDS),
    "IntegerLookup": lambda: (
        net(adapted(L.IntegerLookup(output_mode="multi_hot"), NUMBERS), "int64", nested=True),
        NUMBERS,
    ),
    "IDF weights": lambda: (
        net(adapted(L.TextVectorization(output_mode="tf_idf"), TEXTS), nested=True),
        TEXTS,
    ),
    "words of a text": lambda: (
        embedded(adapted(L.TextVectorization(output_sequence_length=3), STRANGE)),
        STRANGE,
    ),
    "letters": lambda: (
        embedded(adapted(L.TextVectorization(split="character"), STRANGE)),
        STRANGE,
    ),
    "Discretization": lambda: (
        net(adapted(L.Discretization(num_bins=3, output_mode="one_hot"), NUMBERS), "float32"),
        NUMBERS,
    ),
    "Hashing": lambda: (net(L.Hashing(5, salt=3, output_mode="one_hot")), WORDS),
}


def predict(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(keras.ops.convert_to_tensor(x)))


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


@pytest.mark.sampled
@pytest.mark.parametrize("kind", MAKERS)
def test_edits_fusions_and_their_files_keep_vocabularies_and_tables(
    kind: str, tmp_path: Path
) -> None:
    built, x = MAKERS[kind]()
    # Keras itself cannot load words with line breaks; what an edit made of them it can.
    for model in (built, reloaded(copy_model(built), tmp_path)):
        edited = ReplaceActivation("relu", "prelu", alpha=0.0)(model)
        fused = Average()([model, edited])
        for made in (edited, fused, reloaded(fused, tmp_path)):
            np.testing.assert_allclose(predict(made, x), predict(built, x), atol=1e-6)
        # Two members would otherwise have two random networks behind the same words.
        fresh = fresh_model(model, seed=3)
        rest = fresh.get_weights()
        assert any((a != b).any() for a, b in zip(rest, built.get_weights(), strict=True))
        fresh.set_weights(built.get_weights())
        np.testing.assert_allclose(predict(fresh, x), predict(built, x), atol=1e-6)


def test_words_that_were_given_after_the_config_are_those_that_count(tmp_path: Path) -> None:
    layer = L.StringLookup(vocabulary=["a", "b"])
    layer.set_vocabulary(["fox", "dog", "red"])
    source = keras.Input((1,), dtype="string")
    model = keras.Model(source, tail(L.Flatten()(L.Embedding(6, 4)(layer(source)))))
    x = np.array([["fox"], ["red"], ["a"]])
    for made in (copy_model(model), reloaded(copy_model(model), tmp_path)):
        np.testing.assert_array_equal(predict(made, x), predict(model, x))


def test_a_fresh_network_keeps_the_statistics_of_its_normalisation() -> None:
    model = net(adapted(L.Normalization(), NUMBERS.astype("float32") + 50), "float32")
    fresh = fresh_model(model, seed=1)
    fresh.set_weights(model.get_weights()[:3] + fresh.get_weights()[3:])
    np.testing.assert_allclose(fresh.layers[1](NUMBERS), model.layers[1](NUMBERS))


def members(words: list[list[str]]) -> list[keras.Model]:
    made = []
    for own in words:
        keras.utils.set_random_seed(0)
        layer = L.TextVectorization(max_tokens=6, output_sequence_length=2, name="text")
        layer.set_vocabulary(own)
        source = keras.Input((), dtype="string", name="text_in")
        tensor = L.Flatten(name="flat")(L.Embedding(6, 3, name="words")(layer(source)))
        outputs = L.Dense(2, activation="softmax", name="classes")(tensor)
        made.append(keras.Model(source, outputs, name="texts"))
    return made


def test_members_whose_vocabularies_differ_are_not_mixed_up() -> None:
    other, again = [["a", "b", "c"], ["c", "b", "a"]], [["a", "b", "c"]] * 2
    with pytest.raises(FusionError, match=r"'text' and 'text' differ in their vocabulary"):
        Soup(check=False, align=False)(members(other))
    assert Soup(check=False, align=False)(members(again)).count_params() == 32

    ours, frozen = members(other), members(other)
    for member in frozen:
        member.trainable = False
    fused = Average()(frozen)
    x = np.array(["a b", "c", "c a"])
    mean = np.mean([predict(model, x) for model in ours], axis=0)
    np.testing.assert_allclose(predict(fused, x), mean, atol=1e-6)
    assert model_hash(ours[:1]) != model_hash(ours[1:])
    assert model_hash(members(again)[:1]) == model_hash(ours[:1])


@keras.saving.register_keras_serializable("tests.state")
class Table(L.Layer):
    """Multiplies by what it was adapted to, which stands in a file."""

    def adapt(self, table: np.ndarray) -> None:
        self.table = np.asarray(table, "float32")

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Any) -> Any:
        # A loss, so that it cannot be traced and has to be kept whole.
        self.add_loss(0.0 * keras.ops.sum(x))
        return x * self.table

    def save_assets(self, folder: str) -> None:
        np.save(Path(folder, "table.npy"), self.table)

    def load_assets(self, folder: str) -> None:
        self.table = np.load(Path(folder, "table.npy"))


@keras.saving.register_keras_serializable("tests.state")
class Shifted(L.Layer):
    """A layer with a number among its variables, of which it has as many as it was built with."""

    count = 2

    def build(self, input_shape: Any) -> None:
        self.seen = input_shape
        self.scales = [
            self.add_weight(shape=(input_shape[-1],), initializer="uniform", name=f"scale_{n}")
            for n in range(self.count)
        ]

    def get_build_config(self) -> dict[str, Any]:
        return {"shape": self.seen, "count": self.count}

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.count = config["count"]
        self.build(config["shape"])

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Any) -> Any:
        self.add_loss(0.0 * keras.ops.sum(x))
        for scale in self.scales:
            x = x * scale
        return x + self.offset

    def save_own_variables(self, store: Any) -> None:
        store["offset"] = self.offset
        for number, scale in enumerate(self.scales):
            store[str(number)] = scale

    def load_own_variables(self, store: Any) -> None:
        self.offset = np.asarray(store["offset"])
        for number, scale in enumerate(self.scales):
            scale.assign(store[str(number)])


def own(kind: str) -> Any:
    if kind == "assets":
        layer: Any = Table()
        layer.adapt(np.arange(1, 5))
    else:
        layer = Shifted()
        layer.count, layer.offset = 3, np.arange(4, dtype="float32")
    return layer


@pytest.mark.sampled
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["assets", "variables"])
def test_layers_of_the_users_own_keep_their_state(kind: str, wrapped: bool, tmp_path: Path) -> None:
    source = keras.Input((3, 4))
    layer = L.TimeDistributed(own(kind)) if wrapped else own(kind)
    built = keras.Model(source, tail(layer(source)))
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    for model in (built, reloaded(built, tmp_path)):
        edited = ReplaceActivation("relu", "prelu", alpha=0.0, shared_axes=[1])(model)
        fused = Average()([model, edited])
        for made in (edited, fused, reloaded(fused, tmp_path)):
            np.testing.assert_allclose(predict(made, x), predict(built, x), atol=1e-6)


def test_members_of_a_fusion_are_explained_with_their_state() -> None:
    def member(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        source = keras.Input((4,))
        tensor = adapted(Table(), np.arange(1, 5))(adapted(L.Normalization(), x)(source))
        return keras.Model(source, L.Dense(3, activation="softmax")(tensor))

    x = np.random.default_rng(0).normal(3, 5, size=(30, 4)).astype("float32")
    y = np.arange(30) % 3
    pair = [member(0), member(1)]
    source = keras.Input((4,))
    parts = [copy_model(one, f"member_{n}")(source) for n, one in enumerate(pair, start=1)]
    stacked = L.Dense(3, activation="softmax")(L.Concatenate()(parts))
    explained = explain(keras.Model(source, stacked), (x, y))
    for one, part in zip(pair, explained.members, strict=True):
        assert part.alone.loss == pytest.approx(evaluate(one, (x, y)).loss, abs=1e-6)


class WritesOnly(L.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(0.0 * keras.ops.sum(x))
        return x

    def save_assets(self, folder: str) -> None:
        Path(folder, "notes.txt").write_text("kept")


class Torn(WritesOnly):
    def load_assets(self, folder: str) -> None:
        raise OSError("the notes are torn")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (WritesOnly(name="w"), r"'w' \(WritesOnly\) writes assets and cannot read them: give its"),
        (Torn(name="t"), r"'t' \(Torn\) cannot read its assets again: the notes are torn\. Fix"),
    ],
)
def test_state_that_cannot_be_carried_is_refused(layer: Any, reason: str) -> None:
    source = keras.Input((4,))
    with pytest.raises(ModelError, match=reason):
        copy_model(keras.Model(source, tail(layer(source))))


class Noted(Table):
    """One that has a rule, and a table as long as its input has channels."""

    def call(self, x: Any) -> Any:
        return x * self.table


def test_no_cut_goes_through_a_layer_whose_state_would_not_follow() -> None:
    def flow(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
        return Flow(outputs=(inputs[0],))

    register_rule(Rule(flow, macs=lambda call: 0))(Noted)
    layer = Noted(name="noted")
    layer.adapt(np.arange(1, 7))
    source = keras.Input((4,))
    tensor = layer(L.Dense(6, name="first")(source))
    model = keras.Model(source, tail(tensor))
    with pytest.raises(EditError, match=r"'noted' keeps state besides its weights"):
        DropChannels({"first": (0,)})(model)
    with pytest.warns(PinnedWarning, match="noted"):
        assert PruneChannels(0.5, importance="magnitude")(model).get_layer("first").units == 6
