"""What every edit and every fusion does, your own included, as assertions for tests."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.edits import Edit
from saikei.errors import SaikeiError
from saikei.fusion import Fusion
from saikei.graph import build, read
from saikei.graph.internals import flattened_layers
from saikei.testing.oracle import random_inputs, run


def assert_is_edit(
    edit: Edit,
    model: keras.Model,
    data: Any = None,
    *,
    alone: bool = True,
    tolerance: float = 1e-5,
) -> keras.Model:
    """Check what every edit has to do.

    An edit is a frozen dataclass that goes through JSON. It leaves the model and the data as they
    were, gives the same result each time, computes the same function where it is `exact`, and
    refuses a model that is not built with one line. The result saves and loads, also where Saikei
    is not installed.

    Args:
        edit: The edit to check.
        model: A built model that the edit can be applied to.
        data: Calibration data, for edits that use it.
        alone: Whether to load the result in a process without Saikei as well. This takes some
            seconds; `assert_loads_alone` checks many results in one process.
        tolerance: The largest difference of an output that counts as rounding, relative to the
            largest value of that output.

    Returns:
        The edited model.

    Raises:
        AssertionError: When the edit breaks one of these promises; the message names it.

    Example:
        >>> import keras
        >>> from saikei import PruneChannels
        >>> layers = [keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dense(3)]
        >>> edited = assert_is_edit(PruneChannels(0.5), keras.Sequential(layers), alone=False)
        >>> edited.layers[1].units
        3
    """
    before, rows = _state(model), _bytes(data)
    edited = edit(model, data)
    name = type(edit).__name__
    assert edited is not model, f"{name} gave back the model that it was given."
    assert _state(model) == before, f"{name} changed the model that it was given."
    assert _bytes(data) == rows, f"{name} changed the data that it was given."
    graph = read(model)
    edit.apply(graph, data)
    _assert_same(build(graph), model, tolerance, f"{name}.apply changed the graph it was given")
    again = _through_json(edit)
    _assert_same(again(model, data), edited, tolerance, f"{name} gave another result through JSON")
    if edit.exact:
        _assert_same(edited, model, tolerance, f"{name} is exact, but changed the function")
    _assert_refuses(lambda: edit(keras.Sequential(), data), f"{name} of a model without layers")
    _assert_saves(edited, tolerance)
    if alone:
        assert_loads_alone([edited], tolerance)
    return edited


def assert_is_fusion(
    fusion: Fusion,
    members: Sequence[keras.Model],
    data: Any = None,
    *,
    alone: bool = True,
    tolerance: float = 1e-5,
) -> keras.Model:
    """Check what every fusion has to do.

    A fusion is a frozen dataclass that goes through JSON. It leaves the members and the data as
    they were, gives the same result each time and a report of it that is JSON-ready, and refuses
    with one line to fuse no members at all, or without the data that it needs. The result saves
    and loads, also where Saikei is not installed.

    Args:
        fusion: The fusion to check.
        members: Built models that the fusion can fuse.
        data: What the fusion is fitted to or trained on, where it needs data.
        alone: Whether to load the result in a process without Saikei as well; `False` where the
            result is a model of a class of Saikei's. See `assert_is_edit`.
        tolerance: The largest difference of an output that counts as rounding, relative to the
            largest value of that output.

    Returns:
        The fused model.

    Raises:
        AssertionError: When the fusion breaks one of these promises; the message names it.

    Example:
        >>> import keras
        >>> from saikei import Average
        >>> layers = [keras.Input((8,)), keras.layers.Dense(3)]
        >>> members = [keras.Sequential(layers), keras.Sequential(layers)]
        >>> assert_is_fusion(Average(), members, alone=False).output_shape
        (None, 3)
    """
    before, rows = [_state(member) for member in members], _bytes(data)
    fitted = fusion.fuse([*members], data)
    fused, name = fitted.model, type(fusion).__name__
    assert not any(fused is one for one in members), f"{name} gave back one of its members."
    assert [_state(one) for one in members] == before, f"{name} changed a member."
    assert _bytes(data) == rows, f"{name} changed the data that it was given."
    again = _through_json(fusion)
    _assert_same(
        again([*members], data), fused, tolerance, f"{name} gave another result through JSON"
    )
    json.dumps(fitted.to_dict(), allow_nan=False)
    assert "\n" not in fitted.summary, f"{name}: the summary is longer than a line."
    _assert_refuses(lambda: fusion([], data), f"{name} of no members")
    if fusion.data != "none":
        _assert_refuses(lambda: fusion([*members]), f"{name} without data")
    _assert_saves(fused, tolerance)
    if alone:
        assert_loads_alone([fused], tolerance)
    return fused


_LOADER = """
import pickle, sys
sys.modules["saikei"] = None
import keras
with open("expected.pickle", "rb") as file:
    expected = pickle.load(file)
for number, (inputs, outputs, tolerance) in enumerate(expected):
    model = keras.saving.load_model(f"{number}.keras", compile=False)
    found = keras.tree.flatten(model(inputs, training=False))
    for one, other in zip(found, outputs, strict=True):
        one = keras.ops.convert_to_numpy(keras.ops.cast(one, "float32"))
        difference = abs(one - other).max(initial=0.0)
        assert difference <= tolerance, f"Model {number} differs by {difference} once it is loaded."
"""


def assert_loads_alone(models: Sequence[keras.Model], tolerance: float = 1e-5) -> None:
    """Check that models load in a process without Saikei, and compute there what they do here.

    Args:
        models: Built models; they are saved to a temporary folder, and one process loads them all.
        tolerance: The largest difference of an output, relative to its largest value.

    Raises:
        AssertionError: When a model cannot be loaded without Saikei, or computes something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        expected = []
        for number, model in enumerate(models):
            model.save(Path(folder) / f"{number}.keras")
            inputs = random_inputs(model, np.random.default_rng(0))
            outputs = run(model, inputs)
            scale = max(float(np.abs(one).max(initial=1.0)) for one in outputs)
            expected.append((inputs, outputs, tolerance * scale))
        (Path(folder) / "expected.pickle").write_bytes(pickle.dumps(expected))
        done = subprocess.run(
            [sys.executable, "-c", _LOADER],
            cwd=folder,
            env={**os.environ, "KERAS_BACKEND": keras.config.backend()},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, f"Without Saikei, a model does not load:\n{done.stderr}"


def _state(model: keras.Model) -> Any:
    """Everything that an edit or a fusion might change about a model."""
    optimizer = getattr(model, "optimizer", None)
    trained = optimizer.variables if optimizer else []
    variables = [*model.variables, *trained]
    arrays = [np.asarray(keras.ops.convert_to_numpy(value)).tobytes() for value in variables]
    return model.to_json(), arrays, [layer.trainable for layer in flattened_layers(model)]


def _bytes(data: Any) -> list[bytes]:
    return [part.tobytes() for part in tree.flatten(data) if isinstance(part, np.ndarray)]


def _through_json(value: Any) -> Any:
    """The value as its JSON form gives it back, which has to be equal to it."""
    name = type(value).__name__
    parameters = getattr(type(value), "__dataclass_params__", None)
    assert getattr(parameters, "frozen", False), f"{name} is no frozen dataclass."
    record = json.loads(json.dumps(value.to_dict(), allow_nan=False))
    again = type(value).from_dict(record)
    assert again == value, f"{name} comes back from JSON as {again}, not as {value}."
    return again


def _assert_same(model: keras.Model, other: keras.Model, tolerance: float, claim: str) -> None:
    inputs = random_inputs(other, np.random.default_rng(0))
    for one, expected in zip(run(model, inputs), run(other, inputs), strict=True):
        difference = float(np.abs(one - expected).max(initial=0.0))
        allowed = tolerance * max(float(np.abs(expected).max(initial=0.0)), 1e-30)
        assert difference <= allowed, f"{claim}: an output differs by {difference:.2e}."


def _assert_saves(model: keras.Model, tolerance: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path, compile=False)
    _assert_same(loaded, model, tolerance, f"'{model.name}' computes something else once loaded")


def _assert_refuses(call: Callable[[], Any], what: str) -> None:
    message = None
    try:
        call()
    except SaikeiError as error:
        message = str(error)
    assert message is not None, f"{what} is not refused."
    assert "\n" not in message, f"{what} is refused with more than one line: {message}"
