"""Averages of every kind are plain models: saved, exported, shared, fused again, distilled."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from saikei.distilling import distill
from saikei.fusion import Average, Stack
from saikei.fusion.evidence import gather
from saikei.scoring.outputs import read_outputs
from tests.fusion.average_nets import (
    AXES,
    X,
    classifier,
    labels_of,
    make_members,
    predict,
)


@pytest.mark.long
def test_it_can_be_fused_again_stacked_and_distilled():
    members = make_members()
    y = labels_of(members[1])
    fused = Average("learn", space="logit", per_class=True)(members, (X[:40], y[:40]))
    again = Average(space="logit")([fused, Average(how="median")(members)])
    assert read_outputs(again).each[0].activation == "softmax"
    stack = Stack(below=(Average(space="logit"), Average(calibrate=True)), folds=2)
    stacked = stack(members, (X, y))
    np.testing.assert_allclose(predict(stacked).sum(-1), 1, atol=1e-5)
    student = classifier(9)
    before = np.abs(predict(student) - predict(again)).mean()
    distill(student, again, (X, y), epochs=8, alpha=0.0, progress=False)
    assert np.abs(predict(student) - predict(again)).mean() < before


@pytest.mark.parametrize("name", ["logit", "table", "median", "all"])
def test_prefixes_that_members_share_are_computed_once(name):
    keras.utils.set_random_seed(0)
    trunk = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu")])
    trunk.trainable = False
    heads = []
    for _ in range(3):
        x = keras.Input((6,))
        heads.append(keras.Model(x, layers.Dense(3, activation="softmax")(trunk(x))))
    y = labels_of(heads[0])
    fused = AXES[name](heads, (X, y))
    evidence = gather(heads, (X, y))
    combiner = AXES[name].fit_head(evidence)
    assert len(combiner.used) >= 2
    assert fused.count_params() == 6 * 8 + 8 + len(combiner.used) * (8 * 3 + 3)
    np.testing.assert_allclose(predict(fused), combiner.predict(evidence.predictions)[0], atol=1e-6)


@pytest.mark.long
def test_half_precision_members_are_pooled_in_float32():
    members = make_members(dtype="mixed_float16")
    y = labels_of(members[1])
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for name in ("logit", "median", "table", "all"):
            fused = AXES[name](members, (X, y))
            evidence = gather(members, (X, y))
            assert evidence.predictions.outputs[0][0].dtype == np.float32
            (scored,) = AXES[name].fit_head(evidence).predict(evidence.predictions)
            outputs = predict(fused)
            assert outputs.dtype == np.float32
            np.testing.assert_allclose(outputs, scored, atol=1e-5)
            np.testing.assert_allclose(outputs.sum(-1), 1, atol=1e-5)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.long
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT is TensorFlow's")
@pytest.mark.parametrize("name", ["all", pytest.param("median", marks=pytest.mark.slow)])
def test_it_exports_to_litert(name, tmp_path):
    members = make_members()
    fused = AXES[name](members, (X, labels_of(members[1])))
    path = str(tmp_path / "net.tflite")
    fused.export(path, format="litert", verbose=False)
    lite = pytest.importorskip("tensorflow").lite
    with pytest.warns(UserWarning, match="LiteRT"):
        interpreter = lite.Interpreter(path)
    runner = interpreter.get_signature_runner()
    (name_in,) = runner.get_input_details()
    # The file takes one row at a time.
    outputs = [next(iter(runner(**{name_in: X[[row]]}).values()))[0] for row in range(5)]
    np.testing.assert_allclose(outputs, predict(fused)[:5], atol=1e-5)
