"""The model of a cascade: members see only the rows that need them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei import Cascade
from saikei.errors import EditError, ModelError
from saikei.graph import copy_model
from saikei.modelfile import load_model
from saikei.models import CascadeModel, Exits
from tests.fusion.cascade_nets import PROJECTION, labels, member, members, predicted, rows

CONFIDENCES = ("max_probability", "margin", "entropy", "agreement")
PAIRS = tuple(zip(CONFIDENCES, ("last", "average") * 2, strict=True))


@pytest.mark.parametrize(("confidence", "combine"), PAIRS)
def test_threshold_0_gives_the_first_member_and_one_above_1_the_last(
    confidence: Any, combine: Any
) -> None:
    x, made = rows(50), members()
    first = Cascade(thresholds=(0, 0), confidence=confidence, combine=combine)(made)
    np.testing.assert_array_equal(predicted(first, x), predicted(made[0], x))
    never = Cascade(thresholds=(1.1, 1.1), confidence=confidence, combine=combine)(made)
    end = predicted(made[2], x) if combine == "last" else predicted(sk.Average()(made), x)
    np.testing.assert_allclose(predicted(never, x), end, atol=1e-6)


@pytest.mark.parametrize(("confidence", "combine"), PAIRS)
def test_each_row_gets_the_prediction_of_the_stage_at_which_it_leaves(
    confidence: Any, combine: Any
) -> None:
    x, made = rows(101), members()
    thresholds = (0.0 if confidence == "agreement" else 0.6, 0.7)
    if confidence == "agreement":
        thresholds = (0.1, 0.7)
    cascade = Cascade(thresholds=thresholds, confidence=confidence, combine=combine)(made)
    outputs, stages = cascade.predict_stages(x, 7)
    each = [predicted(one, x) for one in made]
    for row, stage in enumerate(stages):
        parts = [one[row] for one in each[: stage + 1]]
        expected = parts[-1] if combine == "last" else np.mean(parts, axis=0)
        np.testing.assert_allclose(outputs[row], expected, atol=1e-6)
    assert len(np.unique(stages)) > 1


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_confidence_follows_its_formula(confidence: Any) -> None:
    generator = np.random.default_rng(0)
    p, q = generator.dirichlet(np.ones(5), size=(2, 20)).astype("float32")
    for outputs, logits in (((q, p), False), ((np.log(q), np.log(p)), True)):
        exits = Exits((0.5, 0.5), confidence, from_logits=logits)
        ranked = np.sort(p, axis=1)
        expected = {
            "max_probability": p.max(axis=1),
            "margin": ranked[:, -1] - ranked[:, -2],
            "entropy": 1 + (p * np.log(p)).sum(axis=1) / np.log(5),
            "agreement": np.minimum(p, q).sum(axis=1),
        }[confidence]
        np.testing.assert_allclose(exits.confidences(outputs), expected, atol=1e-5)
        tensors = [keras.ops.convert_to_tensor(one) for one in outputs]
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(exits.confidences(tensors)), expected, atol=1e-5
        )


def test_a_member_sees_the_rows_that_have_not_left_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = rows(333)
    cascade = Cascade(thresholds=(0.7, 0.6))(members())
    _, stages = cascade.predict_stages(x)
    seen: dict[str, list[np.ndarray]] = {}
    for one in cascade.members:

        def watched(batch: Any, one: Any = one, run: Any = one.predict_on_batch) -> Any:
            seen.setdefault(one.name, []).append(batch)
            return run(batch)

        monkeypatch.setattr(one, "predict_on_batch", watched)
    cascade.predict(x, batch_size=32)
    for place, one in enumerate(cascade.members):
        wanted = x[stages >= place]
        got = np.unique(np.concatenate(seen[one.name]), axis=0)
        np.testing.assert_array_equal(got, np.unique(wanted, axis=0))
        # Padding only fills up the last batch to a power of two.
        assert len(np.concatenate(seen[one.name])) < len(wanted) + 32
    assert 0 < (stages == 2).sum() < (stages >= 1).sum() < 333


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64, 1000])
def test_predictions_do_not_depend_on_the_batches_or_the_order(batch_size: int) -> None:
    x = rows(45)
    cascade = Cascade(thresholds=(0.7, 0.6), combine="average")(members())
    expected, stages = cascade.predict_stages(x)
    order = np.random.default_rng(1).permutation(45)
    shuffled, moved = cascade.predict_stages(x[order], batch_size)
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-6)
    np.testing.assert_array_equal(moved, stages[order])
    np.testing.assert_allclose(predicted(cascade, x[:1]), expected[:1], atol=1e-6)


def test_as_a_function_a_batch_and_a_plain_model_it_predicts_the_same(tmp_path: Any) -> None:
    x = rows(64)
    for combine in ("last", "average"):
        cascade = Cascade(thresholds=(0.7, 0.6), combine=combine)(members())
        expected = predicted(cascade, x)
        called = keras.ops.convert_to_numpy(cascade(x))
        np.testing.assert_allclose(called, expected, atol=1e-6)
        np.testing.assert_allclose(cascade.predict_on_batch(x), expected, atol=1e-6)
        plain = copy_model(cascade)
        assert type(plain).__module__.startswith("keras.")
        np.testing.assert_allclose(predicted(plain, x), expected, atol=1e-6)


def test_a_cascade_is_saved_and_loaded(tmp_path: Any) -> None:
    x = rows(64)
    y = labels(x)
    cascade = Cascade(cost=0.5, certainty=None)(members(), (x, y))
    cascade.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    path = f"{tmp_path}/cascade.keras"
    cascade.save(path)
    for loaded in (load_model(path), keras.saving.load_model(path)):
        assert isinstance(loaded, CascadeModel)
        assert loaded.exits == cascade.exits and loaded.shares == cascade.shares
        np.testing.assert_array_equal(predicted(loaded, x), predicted(cascade, x))
        assert loaded.evaluate(x, y, verbose=0) == pytest.approx(cascade.evaluate(x, y, verbose=0))


def test_evaluate_measures_what_predict_gives() -> None:
    x = rows(90)
    y = labels(x)
    cascade = Cascade(thresholds=(0.7, 0.6))(members())
    with pytest.raises(ModelError, match="not compiled"):
        cascade.evaluate(x, y)
    cascade.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    result = cascade.evaluate(x, y, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx((predicted(cascade, x).argmax(axis=1) == y).mean())
    assert result["loss"] == pytest.approx(sk.evaluate(cascade, (x, y)).loss, rel=1e-4)
    weight = np.arange(90.0)
    plain = copy_model(cascade)
    plain.compile(loss="sparse_categorical_crossentropy")
    ours, theirs = (
        one.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)["loss"]
        for one in (cascade, plain)
    )
    assert ours == pytest.approx(theirs, rel=1e-4)


class Batches(keras.utils.PyDataset):
    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        super().__init__()
        self.x, self.y = x, y

    def __len__(self) -> int:
        return -(-len(self.x) // 16)

    def __getitem__(self, index: int) -> Any:
        rows = slice(16 * index, 16 * index + 16)
        return self.x[rows], self.y[rows]


def test_datasets_are_predicted_evaluated_and_fitted_to() -> None:
    x = rows(100)
    y = labels(x)
    made = members()
    cascade = Cascade(cost=0.5, certainty=None)(made, Batches(x, y))
    assert cascade.exits == Cascade(cost=0.5, certainty=None)(made, (x, y)).exits
    np.testing.assert_allclose(predicted(cascade, Batches(x, y)), predicted(cascade, x), atol=1e-6)
    assert len(predicted(cascade, Batches(x, y), steps=2)) == 32
    cascade.compile(loss="sparse_categorical_crossentropy")
    assert cascade.evaluate(Batches(x, y), verbose=0) == pytest.approx(
        cascade.evaluate(x, y, verbose=0), rel=1e-5
    )


def named(noise: float, seed: int) -> keras.Model:
    a, b = keras.Input((3,), name="a"), keras.Input((5,), name="b")
    inner = member(noise, seed=seed)
    return keras.Model({"a": a, "b": b}, {"class": inner(L.Concatenate()([a, b]))})


def test_inputs_and_the_output_may_be_dictionaries() -> None:
    x = rows(60)
    split = {"a": x[:, :3], "b": x[:, 3:]}
    cascade = Cascade(thresholds=(0.6,))([named(0.8, 1), named(0.05, 2)])
    plain = Cascade(thresholds=(0.6,))([member(0.8, seed=1), member(0.05, seed=2)])
    result = cascade.predict(split, verbose=0)
    assert list(result) == ["class"]
    np.testing.assert_allclose(result["class"], predicted(plain, x), atol=1e-6)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(cascade(split)["class"]), result["class"], atol=1e-6
    )


def binary(noise: float, seed: int = 0) -> keras.Model:
    model = keras.Sequential([keras.Input((8,)), L.Dense(1, activation="sigmoid")])
    kernel = PROJECTION[:, :1] + noise * np.random.default_rng(seed).normal(size=(8, 1))
    model.layers[-1].set_weights([kernel, np.zeros(1)])
    return model


def test_binary_members_and_logits_leave_by_their_probabilities() -> None:
    x = rows(80)
    made = [binary(0.8, 1), binary(0.1, 2)]
    cascade = Cascade(thresholds=(0.8,))(made)
    p = predicted(made[0], x)[:, 0]
    _, stages = cascade.predict_stages(x)
    np.testing.assert_array_equal(stages == 0, np.maximum(p, 1 - p) >= 0.8)
    logits = [member(0.8, seed=1, end="linear"), member(0.05, seed=2, end="linear")]
    _, of_logits = Cascade(thresholds=(0.8,))(logits).predict_stages(x)
    soft = [member(0.8, seed=1), member(0.05, seed=2)]
    _, of_probabilities = Cascade(thresholds=(0.8,))(soft).predict_stages(x)
    np.testing.assert_array_equal(of_logits, of_probabilities)


def test_a_row_of_nan_is_never_sure() -> None:
    x = rows(8)
    x[3] = np.nan
    cascade = Cascade(thresholds=(0.01, 0.01))(members())
    _, stages = cascade.predict_stages(x)
    assert stages[3] == 2 and (np.delete(stages, 3) == 0).all()


def test_half_precision_members_make_a_cascade() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float16")
    try:
        made = [member(0.8, seed=1), member(0.05, seed=2)]
    finally:
        keras.config.set_dtype_policy(policy)
    x = rows(32)
    cascade = Cascade(thresholds=(0.7,))(made)
    assert predicted(cascade, x).dtype == np.float16
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(cascade(x)), predicted(cascade, x), atol=2e-3
    )


def test_an_edit_that_would_lose_the_exits_is_refused() -> None:
    cascade = Cascade(thresholds=(0.7, 0.7))(members())
    with pytest.raises(EditError, match=r"is a cascade.*all members run.*edit its members"):
        sk.RemoveNoOps()(cascade)
