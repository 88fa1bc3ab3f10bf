"""Edited and fused models are compiled as the models were that they are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import saikei as sk
from saikei.cli import main

# Keras warns of each optimizer that has made no step.
pytestmark = pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 6)).astype("float32"), RNG.integers(0, 4, 64)
Y[::5] = 255


def net(seed: int = 0, **compiled: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = [L.Dense(8, "relu", name="hidden"), L.Dense(4, "softmax", name="out")]
    model = keras.Sequential([keras.Input((6,)), *layers], name=f"net{seed}")
    if compiled:
        model.compile(**compiled)
    return model


def ignoring() -> dict[str, Any]:
    return {
        "optimizer": keras.optimizers.AdamW(3e-4, weight_decay=0.1),
        "loss": keras.losses.SparseCategoricalCrossentropy(ignore_class=255),
        "metrics": [keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2"), "accuracy"],
    }


def evaluated(model: keras.Model) -> list[float]:
    return [float(value) for value in model.evaluate(X, Y, verbose=0)]


@pytest.mark.parametrize(
    "loaded", [pytest.param(False, marks=pytest.mark.long), True], ids=["built", "loaded"]
)
def test_an_edited_model_keeps_loss_metrics_and_optimizer(loaded: bool, tmp_path: Path) -> None:
    model = net(**ignoring())
    model.fit(X, Y, verbose=0)
    if loaded:
        model.save(tmp_path / "net.keras")
        model = keras.saving.load_model(tmp_path / "net.keras")
    expected = evaluated(model)
    edited = sk.ReplaceActivation("relu", "leaky_relu", negative_slope=1e-9)(model)
    np.testing.assert_allclose(evaluated(edited), expected, rtol=1e-5)
    assert edited.optimizer is not model.optimizer and int(edited.optimizer.iterations) == 0
    assert edited.optimizer.get_config() == model.optimizer.get_config()
    edited.save(tmp_path / "edited.keras")
    again = keras.saving.load_model(tmp_path / "edited.keras")
    np.testing.assert_allclose(evaluated(again), expected, rtol=1e-5)
    assert sk.evaluate(again, (X, Y)).value == pytest.approx(sk.evaluate(model, (X, Y)).value)
    again.fit(X, Y, verbose=0)


@pytest.mark.long
def test_fused_models_are_compiled_where_all_members_have_one_loss() -> None:
    members = [net(seed, **ignoring()) for seed in range(2)]
    fusions = [
        sk.Average(),
        sk.Average((0.3, 0.7), space="logit"),
        sk.Soup(check=False),
        sk.Stack(folds=2),
        sk.BestMember(),
        sk.Cascade(thresholds=(0.5,), costs=(1, 2)),
    ]
    for fusion in fusions:
        fused = fusion(members, (X, Y))
        assert fused.loss.get_config() == members[0].loss.get_config()
        assert evaluated(fused)
    for other in (net(1), net(1, loss="categorical_crossentropy")):
        assert not sk.Average()([members[0], other]).compiled
        assert not sk.Soup(check=False)([members[0], other]).compiled


def test_another_head_is_not_compiled() -> None:
    model = net(**ignoring())
    assert not sk.ReplaceHead("hidden", classes=7)(model).compiled
    assert not sk.ReplaceHead("hidden")(model).compiled
    assert not sk.ReplaceHead("hidden", classes=4, activation="linear")(model).compiled
    assert sk.ReplaceHead("hidden", classes=4)(model).compiled


def test_losses_and_metrics_by_the_name_of_an_output_follow_it() -> None:
    x = keras.Input((6,))
    hidden = L.Dense(8, "relu")(x)
    outputs = [L.BatchNormalization(name="b")(L.Dense(2)(hidden)), L.Dense(1, name="a")(hidden)]
    model = keras.Model(x, outputs)
    model.compile("sgd", loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"], "b": None})
    edited = sk.FoldBatchNorm()(model)
    y = [RNG.normal(size=(64, 2)), RNG.normal(size=(64, 1))]
    expected = model.evaluate(X, y, verbose=0)
    np.testing.assert_allclose(edited.evaluate(X, y, verbose=0), expected, rtol=1e-4)


class Own(keras.metrics.Mean):
    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError


def test_a_metric_that_cannot_be_made_again_leaves_the_loss() -> None:
    def loss(y: Any, outputs: Any) -> Any:
        return keras.losses.sparse_categorical_crossentropy(y, outputs)

    edited = sk.PruneChannels(0.5)(net(optimizer="adam", loss=loss, metrics=[Own()]))
    assert edited.loss is loss


def test_the_command_line_keeps_what_the_loss_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, paths = net(**ignoring()), [str(tmp_path / f"{name}.keras") for name in "abc"]
    model.save(paths[0])
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    run = sk.ReplaceActivation("relu", "elu")(model)
    step = "ReplaceActivation('relu', 'elu')"
    assert main(["edit", paths[0], "--step", step, "--out", paths[1]]) == 0
    assert main(["fuse", paths[1], paths[1], "--out", paths[2]]) == 0
    for path in paths[1:]:
        edited = keras.saving.load_model(path)
        np.testing.assert_allclose(evaluated(edited), evaluated(run), rtol=1e-5)
