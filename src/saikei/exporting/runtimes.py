"""Exported files, run by the runtimes that they are written for."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.batches import own_inputs
from saikei.graph.internals import structures

Array = np.ndarray[Any, np.dtype[Any]]
# Inputs as the model takes them, the names of these, flattened; outputs as the model gives them,
# flattened.
Run = Callable[[Any], list[Array]]

# How runtimes name the operation that they cannot do: its name, which begins with its layer's.
_NAMED = (
    re.compile(r'In Node, \("?([^",)]+)"?, (\w+)'),
    re.compile(r"implementation for (?P<kind>\w+)\(\d+\) node with name '(?P<name>[^']+)'"),
    re.compile(r"[Nn]ode:? ?'?(?P<name>[\w/]+)'?.* [Oo]p:? ?(?P<kind>\w+)"),
)


def open_onnx(path: Path, model: Any) -> Run:
    """An ONNX file, by onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    taken = [one.name for one in session.get_inputs()]
    given = [one.name for one in session.get_outputs()]

    def run(inputs: Any) -> list[Array]:
        return _ordered(
            dict(zip(given, session.run(given, _by_name(model, inputs, taken)), strict=True)),
            model,
            given,
        )

    return run


def open_litert(path: Path, model: Any) -> Run:
    """A LiteRT file, by the interpreter of TensorFlow; sample by sample, as it is used."""
    runner = _interpreter(path).get_signature_runner()
    taken, given = list(runner.get_input_details()), sorted(runner.get_output_details())

    def run(inputs: Any) -> list[Array]:
        named = _by_name(model, inputs, taken)
        rows = len(next(iter(named.values())))
        fixed = model.inputs[0].shape[0] is not None
        parts = [slice(None)] if fixed else [slice(n, n + 1) for n in range(rows)]
        made = [
            _ordered(runner(**{name: array[part] for name, array in named.items()}), model, given)
            for part in parts
        ]
        return [np.concatenate(each) for each in zip(*made, strict=True)]

    return run


def litert_samples(path: Path, model: Any, inputs: Any) -> dict[str, list[dict[str, Array]]]:
    """Samples one by one, by the name of the file's signature and the names of its inputs."""
    ((signature, names),) = _interpreter(path).get_signature_list().items()
    named = _by_name(model, inputs, names["inputs"])
    rows = len(next(iter(named.values())))
    return {signature: [{k: v[n : n + 1] for k, v in named.items()} for n in range(rows)]}


def _interpreter(path: Path) -> Any:
    import tensorflow as tf

    with warnings.catch_warnings():
        # That the interpreter moves to a package of its own.
        warnings.simplefilter("ignore")
        return tf.lite.Interpreter(str(path))


def open_saved_model(path: Path, model: Any) -> Run:  # noqa: ARG001 - as the others
    """A SavedModel, by TensorFlow."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def run(inputs: Any) -> list[Array]:
        outputs = loaded.serve(tree.map_structure(tf.convert_to_tensor, inputs))
        return [np.asarray(one) for one in tree.flatten(outputs)]

    return run


def open_openvino(path: Path, model: Any) -> Run:
    """An OpenVINO file, by OpenVINO."""
    import openvino

    # Some processors would compute in half precision, and the file holds float32.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(str(path), "CPU", exact)
    taken = [next(iter(one.get_names()), "") for one in compiled.inputs]

    def run(inputs: Any) -> list[Array]:
        named = _by_name(model, inputs, taken)
        made = compiled([named[name] for name in taken])
        return [np.asarray(made[one]) for one in compiled.outputs]

    return run


def open_torch(path: Path, model: Any) -> Run:
    """A `torch.export` file, by PyTorch; sample by sample if it takes a batch of one."""
    import torch

    program = torch.export.load(str(path))
    module = program.module()
    taken = set(program.graph_signature.user_inputs)
    sizes = [n.meta["val"].shape[0] for n in program.graph.nodes if n.name in taken]
    alone = model.inputs[0].shape[0] is None and all(size == 1 for size in sizes)

    def run(inputs: Any) -> list[Array]:
        rows = len(tree.flatten(inputs)[0])
        parts = [slice(n, n + 1) for n in range(rows)] if alone else [slice(None)]
        made = []
        for part in parts:
            given = tree.map_structure(lambda a, at=part: torch.tensor(np.asarray(a)[at]), inputs)
            with torch.no_grad():
                made.append([one.numpy() for one in tree.flatten(module(given))])
        return [np.concatenate(each) for each in zip(*made, strict=True)]

    return run


def any_size() -> Any:
    """An axis of any size, for `torch.export`."""
    import torch

    return torch.export.Dim.AUTO


def needs_tensorflow(path: Path) -> list[str]:
    """The operations of TensorFlow in a LiteRT file, which LiteRT itself does not have.

    Args:
        path: Path of the file.
    """
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(path))
    names = {str(one["op_name"]) for one in interpreter._get_ops_details()}
    return sorted(name.removeprefix("Flex") for name in names if name.startswith("Flex"))


def operation_in(message: str) -> str | None:
    """What a runtime cannot do, as a part of a sentence, where its message names it."""
    for pattern in _NAMED:
        found = pattern.search(message)
        if found is not None:
            named = found.groupdict()
            name, kind = (named["name"], named["kind"]) if named else found.groups()
            return f"it cannot do the operation {kind} of '{name}'"
    return None


def _by_name(model: Any, inputs: Any, names: Sequence[str]) -> dict[str, Array]:
    """The inputs by the runtime's names: the model's own where it kept them, or in their order."""
    flat = [np.asarray(one) for one in tree.flatten(own_inputs(model, inputs))]
    own = [tensor.name for tensor in model.inputs]
    if set(names) <= set(own):
        return {name: flat[own.index(name)] for name in names}
    return dict(zip(names, flat, strict=False))


def _ordered(outputs: Mapping[str, Any], model: Any, names: Sequence[str]) -> list[Array]:
    """The outputs as the model gives them, flattened: by name where it gives a dictionary."""
    # A Sequential model that was loaded has no `output`.
    struct = structures(model)[1] if isinstance(model, keras.Sequential) else model.output
    if isinstance(struct, dict) and set(struct) == set(names):
        names = [str(path[-1]) for path, _ in tree.flatten_with_path(struct)]
    return [np.asarray(outputs[name]) for name in names]
