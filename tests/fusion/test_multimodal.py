"""Members with different inputs as one model, also where an input is missing."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei import Average, Multimodal, Stack
from saikei.errors import DataError, FusionError
from saikei.fusion import fill_missing
from saikei.fusion.multimodal.inputs import modalities_of
from saikei.graph import copy_model

N = 240


def picture(seed: int = 0, end: str = "softmax") -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((4, 4, 1), name="image")
    hidden = L.Dense(6, activation="relu")(L.Flatten()(x))
    return keras.Model(x, L.Dense(3, activation=end)(hidden), name="pictures")


def table(seed: int = 1, end: str = "softmax") -> keras.Model:
    keras.utils.set_random_seed(seed)
    x, age = keras.Input((3,), name="row"), keras.Input((1,), name="age")
    hidden = L.Dense(5, activation="relu")(L.Concatenate()([x, age]))
    return keras.Model([x, age], L.Dense(3, activation=end)(hidden), name="tables")


def words(seed: int = 2, end: str = "softmax") -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((5,), dtype="int32", name="text")
    hidden = L.GlobalAveragePooling1D()(L.Embedding(9, 4)(x))
    return keras.Model(x, L.Dense(3, activation=end)(hidden), name="words")


def members(end: str = "softmax") -> list[keras.Model]:
    return [picture(end=end), table(end=end), words(end=end)]


def data(n: int = N, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 3, n)
    x = {
        "image": generator.normal(size=(n, 4, 4, 1)) + y[:, None, None, None],
        "row": generator.normal(size=(n, 3)) - y[:, None],
        "age": generator.normal(size=(n, 1)),
        "text": generator.integers(0, 3, (n, 5)) + 2 * y[:, None],
    }
    return {k: v.astype("int32" if k == "text" else "float32") for k, v in x.items()}, y


def predicted(model: keras.Model, x: Any) -> np.ndarray:
    return np.asarray(model.predict_on_batch(x))


def alone(made: list[keras.Model], x: dict[str, np.ndarray]) -> list[np.ndarray]:
    image, row, text = made
    return [
        predicted(image, x["image"]),
        predicted(row, [x["row"], x["age"]]),
        predicted(text, x["text"]),
    ]


@pytest.mark.parametrize(
    ("end", "fallback"),
    [
        ("softmax", "mean"),
        ("linear", "drop"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in (
                ("softmax", "drop"),
                ("sigmoid", "mean"),
                ("sigmoid", "drop"),
                ("linear", "mean"),
            )
        ),
    ],
)
def test_outputs_are_averaged_over_what_is_there(fallback: Any, end: str) -> None:
    made = members(end)
    x, y = data()
    if end != "softmax":
        y = np.eye(3)[y]
    weights = (0.5, 0.3, 0.2)
    model = Multimodal(fallback=fallback, weights=weights)(made, (x, y))
    each = alone(made, x)
    everything = sum(w * one for w, one in zip(weights, each, strict=True))
    np.testing.assert_allclose(predicted(model, fill_missing(model, x)), everything, atol=1e-5)
    # Of a table without its ages nothing is taken; what stands there does not matter.
    lost = {**x, "age": np.full((N, 1), np.nan, "float32"), "age_available": np.zeros(N)}
    if fallback == "mean":
        expected = 0.5 * each[0] + 0.3 * each[1].mean(axis=0) + 0.2 * each[2]
    else:
        expected = (0.5 * each[0] + 0.2 * each[2]) / 0.7
    np.testing.assert_allclose(predicted(model, fill_missing(model, lost)), expected, atol=1e-5)
    nothing = fill_missing(model, {"image_available": np.zeros(2)})
    prior = sum(w * one.mean(axis=0) for w, one in zip(weights, each, strict=True))
    np.testing.assert_allclose(predicted(model, nothing), [prior, prior], atol=1e-5)


def test_single_rows_may_lack_an_input() -> None:
    made = members()
    x, y = data()
    model = Multimodal(fallback="drop")(made, (x, y))
    there = np.arange(N) % 2
    mixed = predicted(model, fill_missing(model, {**x, "text_available": there}))
    each = alone(made, x)
    np.testing.assert_allclose(mixed[there == 1], np.mean(each, axis=0)[there == 1], atol=1e-5)
    np.testing.assert_allclose(mixed[there == 0], np.mean(each[:2], axis=0)[there == 0], atol=1e-5)


@pytest.mark.parametrize("fallback", ["mean", "zeros"])
def test_features_of_all_members_go_into_one_new_layer(fallback: Any) -> None:
    made = members()
    x, y = data()
    fitted = Multimodal("features", fallback).fuse(made, (x, y))
    model = fitted.model
    assert fitted.score.value > max(
        sk.evaluate(one, part).value
        for one, part in zip(
            made, ((x["image"], y), ([x["row"], x["age"]], y), (x["text"], y)), strict=True
        )
    )
    features = [
        predicted(keras.Model(one.inputs, one.layers[-1].input), part)
        for one, part in zip(made, (x["image"], [x["row"], x["age"]], x["text"]), strict=True)
    ]
    stand_in = features[1].mean(axis=0) if fallback == "mean" else np.zeros(5)
    columns = np.concatenate(
        [features[0], np.broadcast_to(stand_in, features[1].shape), features[2]], axis=1
    )
    head = next(one for one in model.layers if one.name.startswith("multimodal") and one.weights)
    kernel, bias = head.get_weights()
    scores = columns @ kernel + bias
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    lost = {name: x[name] for name in ("image", "text")}
    np.testing.assert_allclose(predicted(model, fill_missing(model, lost)), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("on", "fallback"), [("outputs", "mean"), ("outputs", "drop"), ("features", "mean")]
)
def test_the_scores_without_an_input_are_those_of_the_model(on: Any, fallback: Any) -> None:
    x, y = data()
    fitted = Multimodal(on, fallback).fuse(members(), (x, y))
    assert list(fitted.without) == ["image", "row", "age", "text"]
    for lost, score in fitted.without.items():
        left = fill_missing(fitted.model, {k: v for k, v in x.items() if k != lost})
        measured = sk.evaluate(fitted.model, (left, y))
        assert measured.value == pytest.approx(score.value)
        assert measured.loss == pytest.approx(score.loss, rel=1e-3)
    everything = sk.evaluate(fitted.model, (fill_missing(fitted.model, x), y))
    assert everything.loss == pytest.approx(fitted.score.loss, rel=1e-3)
    assert set(fitted.to_dict()["without"]) == set(fitted.without)


@pytest.mark.long
def test_the_model_is_plain_keras_and_loads_without_saikei(tmp_path: Any) -> None:
    x, y = data()
    for fusion in (Multimodal(), Multimodal(fallback="drop"), Multimodal("features", "zeros")):
        model = fusion(members(), (x, y))
        model.save(f"{tmp_path}/fused.keras")
        assert all(type(one).__module__.startswith("keras.") for one in model.layers)
        loaded = keras.saving.load_model(f"{tmp_path}/fused.keras")
        lost = fill_missing(model, {"image": x["image"]})
        np.testing.assert_array_equal(predicted(loaded, lost), predicted(model, lost))


def by_dict(model: keras.Model) -> keras.Model:
    inputs = {
        tensor.name: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    }
    values = [inputs[tensor.name] for tensor in model.inputs]
    return keras.Model(inputs, model(values if len(values) > 1 else values[0]))


@pytest.mark.long
def test_averages_and_stacks_share_inputs_of_one_name_and_take_others_besides() -> None:
    made = members()
    named = [by_dict(one) for one in made] + [by_dict(table(seed=7))]
    x, y = data()
    fused = Average()(named)
    assert sorted(fused.input) == ["age", "image", "row", "text"]
    each = [*alone(made, x), predicted(named[3], {"row": x["row"], "age": x["age"]})]
    np.testing.assert_allclose(predicted(fused, x), np.mean(each, axis=0), atol=1e-6)
    learned = Average("learn").fuse(named, (x, y)).head.fitted
    assert sum(learned.values) == pytest.approx(1)
    assert predicted(Stack()(named, (x, y)), x).shape == (N, 3)


def test_rows_that_a_member_was_trained_on_are_recognised_by_its_inputs() -> None:
    made = members()
    x, y = data()
    sk.fit(
        made[1],
        ([x["row"][:50], x["age"][:50]], y[:50]),
        epochs=1,
        learning_rate=1e-3,
        progress=False,
    )
    with pytest.raises(FusionError, match="Member 2 .'tables'. was trained on 50 of these 240"):
        Multimodal()(made, (x, y))
    Multimodal()(made, ({name: part[50:] for name, part in x.items()}, y[50:]))
    Multimodal()(made, (x, y), allow_in_sample=True)


def test_what_cannot_be_fused_is_refused_with_the_fix() -> None:
    x, y = data()
    plain = keras.Sequential([keras.Input((3,)), L.Dense(3, activation="softmax")], name="plain")
    with pytest.raises(FusionError, match="'plain'.*name it"):
        Multimodal()([picture(), plain], (x, y))
    other = keras.Input((7,), name="image")
    wide = keras.Model(other, L.Dense(3, activation="softmax")(other))
    with pytest.raises(FusionError, match="take as 'image'"):
        Multimodal()([picture(), wide], (x, y))
    with pytest.raises(FusionError, match="end in softmax and linear"):
        Multimodal()([picture(), table(end="linear")], (x, y))
    with pytest.raises(FusionError, match="held-out data"):
        Multimodal()(members())
    with pytest.raises(FusionError, match="at least two"):
        Multimodal()([picture()], (x, y))
    with pytest.raises(DataError, match="has no text"):
        Multimodal()(members(), ({name: x[name] for name in ("image", "row", "age")}, y))
    with pytest.raises(DataError, match="a dictionary of arrays"):
        Multimodal()(members(), (x["image"], y))
    with pytest.raises(DataError, match="'image' holds NaN"):
        Multimodal()(members(), ({**x, "image": np.full_like(x["image"], np.nan)}, y))
    builds = {"a": lambda: copy_model(plain), "b": lambda: copy_model(plain)}
    crossed = sk.cross_fit(builds, (x["row"], y), 2, epochs=1, learning_rate=1e-3, progress=False)
    with pytest.raises(FusionError, match="not the predictions of cross_fit"):
        Multimodal()(crossed)
    for wrong in (
        {"on": "inputs"},
        {"fallback": "hope"},
        {"fallback": "zeros"},
        {"on": "features", "fallback": "drop"},
        {"on": "features", "weights": (0.5, 0.5)},
        {"weights": (0.5, 0.6)},
    ):
        with pytest.raises(FusionError):
            Multimodal(**wrong)  # type: ignore[arg-type]
    model = Multimodal()(members(), (x, y))
    with pytest.raises(DataError, match="sound"):
        fill_missing(model, {"sound": x["age"]})
    with pytest.raises(DataError, match="none"):
        fill_missing(model, {})


def test_a_sequential_model_from_a_file_has_no_modalities(tmp_path: Any) -> None:
    keras.Sequential([keras.Input((3,)), L.Dense(2)]).save(tmp_path / "net.keras")
    assert modalities_of(keras.saving.load_model(tmp_path / "net.keras")) == ()


def tagger(seed: int, masked: bool = True, end: str = "softmax") -> keras.Model:
    keras.utils.set_random_seed(seed)
    x = keras.Input((6,), dtype="int32", name="text")
    hidden = L.LSTM(5, return_sequences=True)(L.Embedding(9, 4, mask_zero=masked)(x))
    model = keras.Model(x, L.Dense(3, activation=end)(hidden), name=f"tagger_{seed}")
    losses = {"softmax": "sparse_categorical_crossentropy", "linear": "mse"}
    model.compile(loss=losses[end])
    return model


def padded(end: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    x = generator.integers(1, 9, (40, 6)).astype("int32")
    x[np.arange(6) >= generator.integers(1, 7, (40, 1))] = 0
    y = generator.integers(0, 3, (40, 6))
    return x, y if end == "softmax" else np.eye(3, dtype="float32")[y]


@pytest.mark.long
@pytest.mark.parametrize(
    ("fusion", "end", "both"),
    [
        (Multimodal(), "softmax", True),
        (Multimodal(fallback="drop"), "softmax", False),
        pytest.param(Multimodal(fallback="drop"), "linear", True, marks=pytest.mark.long),
        pytest.param(Average(), "softmax", False, marks=pytest.mark.long),
        (Average((0.7, 0.3)), "linear", False),
        pytest.param(Average(how="median"), "softmax", False, marks=pytest.mark.long),
        pytest.param(
            sk.Boost(rounds=2, epochs=9, learning_rate=0.03), "linear", True, marks=pytest.mark.long
        ),
    ],
)
def test_padding_counts_in_no_fused_model(fusion: Any, end: str, both: bool, tmp_path: Any) -> None:
    """Also where a member has no mask, as built, as loaded and as edited."""
    x, y = padded(end)
    made = [tagger(1, True, end), tagger(2, both, end)]
    named = isinstance(fusion, Multimodal)
    model = fusion(made, ({"text": x} if named else x, y), allow_in_sample=True)
    model.save(tmp_path / "fused.keras")
    loaded = keras.saving.load_model(tmp_path / "fused.keras")
    given = fill_missing(model, {"text": x}) if named else x
    outputs, mask = predicted(model, given).astype("float64"), x > 0
    if end == "softmax":
        each = -np.log(np.take_along_axis(outputs, y[..., None], -1)[..., 0])
    else:
        each = ((outputs - y) ** 2).mean(axis=-1)
    for one in (model, loaded, copy_model(loaded)):
        if one is not model:
            one.compile(loss=model.loss)
        found = one.evaluate(given, y, batch_size=40, verbose=0)
        assert np.ravel(found)[0] == pytest.approx(each[mask].mean(), rel=1e-4)
