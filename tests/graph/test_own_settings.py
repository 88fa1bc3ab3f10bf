"""Settings that are functions or classes of the process are used without being registered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import saikei as sk
from saikei.edits import PruneChannels
from saikei.errors import ModelError
from saikei.graph import build, copy_model, read

L, ops = keras.layers, keras.ops
X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


def ones(shape: Any, dtype: Any = None) -> Any:
    return ops.ones(shape, dtype)


def squares(weight: Any) -> Any:
    return ops.sum(weight * weight)


class Squares(keras.regularizers.Regularizer):
    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def __call__(self, weight: Any) -> Any:
        return self.factor * ops.sum(weight * weight)

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}


class Halved(keras.constraints.Constraint):
    def __call__(self, weight: Any) -> Any:
        return weight / 2


class Policy(keras.dtype_policies.DTypePolicy):
    pass


class Cell(L.Layer):
    def __init__(self, units: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.units = self.state_size = units

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, x: Any, states: Any) -> Any:
        new = ops.tanh(ops.matmul(x, self.kernel) + states[0])
        return new, [new]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class Doubled(L.Layer):
    def call(self, x: Any) -> Any:
        return x * 2

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


LAYERS: dict[str, Callable[[], Any]] = {
    "initialiser": lambda: L.Dense(6, kernel_initializer=ones),
    "lambda as initialiser": lambda: L.Dense(6, kernel_initializer=lambda s, dtype=None: ones(s)),
    "regulariser": lambda: L.Dense(6, kernel_regularizer=squares),
    "lambda as regulariser": lambda: L.Dense(6, kernel_regularizer=lambda w: squares(w)),
    "class of regulariser": lambda: L.Conv1D(6, 1, kernel_regularizer=Squares(0.5)),
    "activity regulariser": lambda: L.Dense(6, activity_regularizer=Squares(0.5)),
    "constraint": lambda: L.LSTM(6, return_sequences=True, recurrent_constraint=Halved()),
    "policy": lambda: L.Dense(6, dtype=Policy("float32")),
    "cell": lambda: L.RNN(Cell(6), return_sequences=True),
    "layer in a layer": lambda: L.TimeDistributed(Doubled()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_settings_of_ones_own_are_copied_and_cut(name: str) -> None:
    layers = [L.Dense(6, name="before"), LAYERS[name](), L.Dense(3)]
    model = keras.Sequential([keras.Input((5, 4)), *layers])
    copy = copy_model(model)
    numbers = [ops.convert_to_numpy(one(X)) for one in (copy, model)]
    np.testing.assert_allclose(*numbers, rtol=1e-6)
    losses = [float(ops.convert_to_numpy(sum(one.losses))) for one in (copy, model)]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    if name not in ("cell", "layer in a layer", "activity regulariser"):
        assert PruneChannels(0.5)(model).count_params() < model.count_params()


@pytest.mark.slow
def test_a_run_keeps_them_in_its_files(tmp_path: Path) -> None:
    layers = [L.Dense(8, "relu", kernel_regularizer=Squares(1e-3), bias_initializer=ones)]
    model = keras.Sequential([keras.Input((4,)), *layers, L.Dense(2, "softmax")])
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    data = x, (x[:, 0] > 0).astype("int32")
    budget = sk.Budget(params=0.6)
    result = sk.optimize(model, data, data, budget=budget, effort=10, progress=False)
    assert result.best.count_params() <= 0.6 * model.count_params()


class Forgetful(Cell):
    """Its config leaves out what `__init__` needs, and it cannot be traced."""

    def call(self, x: Any) -> Any:
        return ops.convert_to_tensor(ops.convert_to_numpy(x)) @ self.kernel

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


class Fixed(Forgetful):
    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "units": self.units}


def test_a_config_that_does_not_do_is_refused_with_the_fix_for_own_classes_alone() -> None:
    with pytest.raises(ModelError, match=r"missing.*'units'\. Fix its get_config\(\)"):
        copy_model(keras.Sequential([keras.Input((4,)), Forgetful(3)]))
    copy_model(keras.Sequential([keras.Input((4,)), Fixed(3)]))
    graph = read(keras.Sequential([keras.Input((4,)), L.Dense(3, name="d")]))
    broken = graph.operations["d"]
    object.__setattr__(broken, "config", {**broken.config, "no_such_setting": 1})
    with pytest.raises(ModelError, match="Layer 'd'.*another layer in its place") as refused:
        build(graph)
    assert "get_config" not in str(refused.value)
