"""What every fusion makes is one graph that other runtimes run: LiteRT's own kernels, and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from saikei import Average, BestMember, Boost, Chain, Multimodal, Soup, Stack
from saikei.fusion import fill_missing
from saikei.training import cross_fit, fit
from tests.fusion import test_multimodal as modal
from tests.fusion.average_nets import X, labels_of, make_members

BACKEND = keras.backend.backend()
ROWS = 5
QUICK = {"epochs": 40, "batch_size": 16, "learning_rate": 1e-2}


def net(*layers: Any, inputs: int = 6, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((inputs,)), *layers])


def of_classes(fusion: Any) -> tuple[keras.Model, Any]:
    members = make_members()
    return fusion(members, (X, labels_of(members[1]))), X


def of_numbers(fusion: Any) -> tuple[keras.Model, Any]:
    members = [net(L.Dense(4, "tanh"), L.Dense(2), seed=seed) for seed in range(3)]
    y = X[:, :2] * X[:, 2:4] + members[0].predict_on_batch(X)
    return fusion(members, (X, y)), X


def stacked_on_networks() -> tuple[keras.Model, Any]:
    return of_classes(Stack(below=(Stack("mlp", folds=2), Average("learn")), folds=2))


def boosted(first: keras.Model, y: Any, **how: Any) -> keras.Model:
    fit(first, (X, y), progress=False, **QUICK)
    return Boost(rounds=2, keep_first=False, **QUICK, **how)([first], (X, y))


def boosted_classes(method: str) -> tuple[keras.Model, Any]:
    first = net(L.Dense(3, activation="softmax"))
    y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)
    return boosted(first, y, method=method), X


def boosted_numbers() -> tuple[keras.Model, Any]:
    return boosted(net(L.Dense(4, "tanh"), L.Dense(1)), np.sin(X[:, :1]).astype("float32")), X


def chained() -> tuple[keras.Model, Any]:
    """Through a dense adapter, a reshape, and a resizing."""
    keras.utils.set_random_seed(0)
    picture = keras.Sequential([keras.Input((4, 4, 2)), L.Conv2D(3, 3, activation="relu")])
    wider = keras.Sequential([keras.Input((5, 5, 3)), L.Flatten(), L.Dense(3, "softmax")])
    members = [net(L.Dense(5, "relu")), picture, wider]
    return Chain(training="joint", epochs=1)(members, (X, (X[:, 0] > 0).astype(int))), X


def souped() -> tuple[keras.Model, Any]:
    members = [
        net(L.Dense(5), L.BatchNormalization(), L.ReLU(), L.Dense(3, "softmax")) for _ in range(2)
    ]
    return Soup()(members, (X, labels_of(members[0]))), X


def cross_fitted() -> tuple[keras.Model, Any]:
    y = (X[:, 0] > 0).astype(int)

    def build() -> keras.Model:
        return keras.Sequential([keras.Input((6,)), L.Dense(2, "softmax")])

    made = cross_fit({"a": build, "b": build}, (X, y), 2, epochs=1, learning_rate=1e-3, refit=False)
    return Average("learn")(made), X


def of_modalities(**how: Any) -> tuple[keras.Model, Any]:
    x, y = modal.data()
    model = Multimodal(**how)(modal.members(), (x, y))
    lost = {**x, "image_available": np.arange(len(y)) % 2}
    return model, fill_missing(model, lost)


def sharing_a_trunk() -> tuple[keras.Model, Any]:
    keras.utils.set_random_seed(0)
    trunk = net(L.Dense(8, activation="relu"))
    trunk.trainable = False
    heads = []
    for _ in range(2):
        x = keras.Input((6,))
        heads.append(keras.Model(x, L.Dense(3, activation="softmax")(trunk(x))))
    return Average((0.3, 0.7))(heads), X


def two_outputs() -> tuple[keras.Model, Any]:
    members = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        x = keras.Input((6,))
        hidden = L.Dense(4, "relu")(x)
        members.append(
            keras.Model(x, {"kind": L.Dense(3, "softmax")(hidden), "size": L.Dense(1)(hidden)})
        )
    return Average((0.4, 0.6))(members), X


MADE: dict[str, Callable[[], tuple[keras.Model, Any]]] = {
    "stack of classes": lambda: of_classes(Stack(folds=2)),
    "stack with the inputs": lambda: of_classes(Stack(passthrough=True, folds=2)),
    "stack of features": lambda: of_classes(Stack(on="features", folds=2)),
    "stack of numbers": lambda: of_numbers(Stack(folds=2)),
    "stack of a stack": stacked_on_networks,
    "boosted classes": lambda: boosted_classes("gradient"),
    "SAMME": lambda: boosted_classes("samme"),
    "boosted numbers": boosted_numbers,
    "chain": chained,
    "soup": souped,
    "best member": lambda: of_classes(BestMember()),
    "folds": cross_fitted,
    "weights for each class": lambda: of_classes(Average("learn", per_class=True)),
    "geometric mean": lambda: of_classes(Average(space="logit")),
    "calibrated": lambda: of_classes(Average(calibrate=True)),
    "modalities, mean": lambda: of_modalities(),
    "modalities, drop": lambda: of_modalities(fallback="drop"),
    "modalities, features": lambda: of_modalities(on="features", fallback="zeros"),
    "shared trunk": sharing_a_trunk,
    "two outputs": two_outputs,
}


# Layers of every kind; the rest is made of the same, and is slow.
QUICK_TO_EXPORT = ("modalities, drop", "stack with the inputs")
LONG = ("calibrated", "chain")
OTHERS = {name: pytest.mark.long if name in LONG else pytest.mark.slow for name in MADE}
EACH = [pytest.param(name, marks=() if name in QUICK_TO_EXPORT else OTHERS[name]) for name in MADE]


def named(model: keras.Model, x: Any, rows: slice) -> dict[str, np.ndarray]:
    """The inputs by their names, of the types that the model takes."""
    arrays = x if isinstance(x, dict) else {model.inputs[0].name: x}
    kinds = {tensor.name: tensor.dtype for tensor in model.inputs}
    return {name: np.asarray(array)[rows].astype(kinds[name]) for name, array in arrays.items()}


def expected(model: keras.Model, x: Any) -> list[np.ndarray]:
    some = keras.tree.map_structure(lambda array: array[:ROWS], x)
    return [np.asarray(one) for one in keras.tree.flatten(model.predict_on_batch(some))]


def assert_same(predicted: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    """Runtimes may give outputs in another order: each is known by its shape here."""
    assert sorted(one.shape for one in predicted) == sorted(one.shape for one in wanted)
    for one in wanted:
        (same,) = [other for other in predicted if other.shape == one.shape]
        np.testing.assert_allclose(same, one, atol=1e-5)


@pytest.mark.long
@pytest.mark.skipif(BACKEND != "tensorflow", reason="LiteRT: from torch with litert-torch, not JAX")
@pytest.mark.filterwarnings("ignore:[\\s\\S]*tf.lite.Interpreter")
@pytest.mark.parametrize("name", EACH)
def test_litert_runs_it_with_kernels_of_its_own(name: str, tmp_path: Any) -> None:
    lite = pytest.importorskip("tensorflow").lite
    model, x = MADE[name]()
    path = str(tmp_path / "net.tflite")
    model.export(path, format="litert", verbose=False)
    plain = lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = lite.Interpreter(path, experimental_op_resolver_type=plain)
    runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    predicted = []
    for row in range(ROWS):
        # The file takes one row at a time.
        inputs = named(model, x, slice(row, row + 1))
        predicted.append([one for _, one in sorted(runner(**_matched(inputs, details)).items())])
    assert_same(
        [np.concatenate(parts) for parts in zip(*predicted, strict=True)], expected(model, x)
    )


def _matched(inputs: dict[str, np.ndarray], details: Any) -> dict[str, np.ndarray]:
    if len(inputs) == 1:
        return dict(zip(details, inputs.values(), strict=True))
    assert set(details) == set(inputs)
    return inputs


@pytest.mark.skipif(BACKEND == "jax", reason="from JAX, Keras exports with jax2onnx")
@pytest.mark.filterwarnings("ignore:[\\s\\S]*might cause the trace to be incorrect")
@pytest.mark.parametrize("name", EACH)
def test_onnx_runs_it(name: str, tmp_path: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    model, x = MADE[name]()
    path = str(tmp_path / "net.onnx")
    wanted = expected(model, x)  # Keras exports to ONNX only what has been called.
    model.trainable = False  # From torch, weights that ask for gradients cannot become constants.
    model.export(path, format="onnx", verbose=False)
    session = runtime.InferenceSession(path)
    for rows in (slice(0, ROWS), slice(0, 1)):
        inputs = named(model, x, rows)
        if len(inputs) == 1:
            inputs = {session.get_inputs()[0].name: next(iter(inputs.values()))}
        assert_same(session.run(None, inputs), [one[rows] for one in wanted])
