"""The steps of a layer's own `call` on symbolic tensors.

Keras keeps a composite layer or a subclassed model as one node. Here its `call` is run on
symbolic tensors, once as in training and once as in inference, and the calls that it makes are
collected. Nodes that Keras records on the way are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.graph import internals
from saikei.graph.dimensions import holds_dimension
from saikei.graph.kinds import kind_of
from saikei.graph.symbolic_call import symbolic_body
from saikei.graph.training_only import TRAINING_ONLY
from saikei.graph.untraceable import (
    BUILT_BEFORE,
    UntraceableError,
    check_functions,
    failure,
    why_they_differ,
)
from saikei.tensors import to_numpy


@dataclass(frozen=True)
class Step:
    """One call of a layer or operation, with symbolic tensors among its arguments."""

    operation: Any
    args: Any
    kwargs: Any
    outputs: list[Any]

    def inputs(self) -> list[Any]:
        """The symbolic tensors that the call reads."""
        leaves = tree.flatten((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]


@dataclass(frozen=True)
class Trace:
    """The steps of a call of a layer.

    Args:
        outputs: The returned nested structure of symbolic tensors.
        stand_ins: For the tensors that the steps start from, by id, the tensor of the outer
            graph, the variable or the array that each stands for.
        steps: For each tensor that is made on the way, by id, the call that makes it.
        alive: Objects that are identified by their id, so that they are not deleted.
    """

    outputs: Any
    stand_ins: dict[int, Any]
    steps: dict[int, Step]
    alive: tuple[Any, ...]


def trace(layer: Any, args: Any, kwargs: Any) -> Trace:
    """Run a layer's `call` on stand-ins of symbolic arguments.

    Args:
        layer: A built layer or model. It is not changed.
        args: Positional arguments with symbolic tensors.
        kwargs: Keyword arguments with symbolic tensors.

    Where that fails, the call is run as if the backend were NumPy: code that uses functions of a
    backend, which take no symbolic tensors, then falls back on `keras.ops`. Where that fails too,
    the `call` of the layers in it is run, even where they declare the shapes that they return.

    Raises:
        UntraceableError: When it cannot be run so, or does something that calls of layers and
            operations do not show.
    """
    own = keras.config.backend()
    first: UntraceableError | None = None
    for backend_name, inside in ((own, False), ("numpy", False), (own, True), ("numpy", True)):
        try:
            return _trace(layer, args, kwargs, backend_name, inside)
        except UntraceableError as error:
            first = first or error
    assert first is not None
    raise first


def _trace(layer: Any, args: Any, kwargs: Any, backend_name: str, inside: bool) -> Trace:
    stand_ins = _StandIns(layer, backend_name, inside)
    args, kwargs = tree.map_structure(stand_ins.tensor, (args, dict(kwargs)))
    if kwargs.get("training") is None:
        kwargs.pop("training", None)
        runs = [
            _run(layer, args, {**kwargs, "training": mode}, stand_ins) for mode in (False, True)
        ]
        if _canonical(*runs[0], stand_ins) != _canonical(*runs[1], stand_ins):
            again = _run(layer, args, {**kwargs, "training": False}, stand_ins)
            raise why_they_differ(_canonical(*runs[0], stand_ins) == _canonical(*again, stand_ins))
        outputs, steps = _merged(*runs)
    else:
        outputs, ordered = _run(layer, args, kwargs, stand_ins)
        steps = ordered
    made = {id(tensor): step for step in steps for tensor in step.outputs}
    return Trace(outputs, stand_ins.originals, made, tuple(stand_ins.alive))


class _StandIns:
    """Fresh symbolic tensors for arguments and for variables, each once."""

    def __init__(self, layer: Any, backend_name: str, inside: bool) -> None:
        self.backend_name, self.inside = backend_name, inside
        self._dtype = str(layer.compute_dtype) if layer.autocast else None
        self._made: dict[int, Any] = {}
        self._constants: dict[Any, np.ndarray] = {}
        self.originals: dict[int, Any] = {}
        self.alive: list[Any] = []

    def tensor(self, leaf: Any) -> Any:
        """The stand-in of an argument, with its mask."""
        if not isinstance(leaf, keras.KerasTensor):
            return leaf
        fresh = self._fresh(leaf, str(leaf.dtype))
        mask = internals.mask_of(leaf)
        if mask is not None:
            internals.set_mask(fresh, self._fresh(mask, str(mask.dtype)))
        return fresh

    def variable(self, variable: Any) -> Any:
        """The stand-in of a variable; one that holds no real numbers is a constant."""
        if not keras.backend.is_float_dtype(variable.dtype):
            return keras.ops.convert_to_tensor(to_numpy(variable.value))
        dtype = str(variable.dtype)
        if self._dtype is not None:
            dtype = internals.autocast(variable, self._dtype)
        return self._fresh(variable, dtype)

    def constant(self, leaf: Any) -> Any:
        """The stand-in of an array that a layer with weights is called on."""
        if not keras.ops.is_tensor(leaf) and not isinstance(leaf, np.ndarray):
            return leaf
        array = to_numpy(leaf)
        key = (array.shape, str(array.dtype), array.tobytes())
        array = self._constants.setdefault(key, array)
        return self._fresh(array, keras.backend.standardize_dtype(array.dtype))

    def _fresh(self, original: Any, dtype: str) -> Any:
        if id(original) not in self._made:
            fresh = keras.KerasTensor(original.shape, dtype=dtype)
            self._made[id(original)] = fresh
            self.originals[id(fresh)] = original
            self.alive += [fresh, original]
        return self._made[id(original)]


def _run(layer: Any, args: Any, kwargs: Any, stand_ins: _StandIns) -> tuple[Any, list[Step]]:
    """The returned structure of one run of the layer's call, and its steps in order."""
    weights = len(internals.own_weights(layer))
    with (
        internals.forgotten_nodes(layer),
        symbolic_body(
            layer,
            stand_ins.variable,
            stand_ins.constant,
            stand_ins.backend_name,
            stand_ins.inside,
        ) as caught,
    ):
        try:
            layer(*args, **kwargs)
        except Exception as error:
            raise failure(error) from error
        outputs, side_effect = caught[0]
        steps = ordered_steps(
            [t for t in tree.flatten(outputs) if isinstance(t, keras.KerasTensor)],
            stand_ins.originals.keys(),
            step_of,
        )
    if any(holds_dimension(step.operation, (step.args, step.kwargs)) for step in steps):
        raise UntraceableError("it calculates with a size that is unknown until data comes")
    for step in steps:
        check_functions(step.operation, (step.args, step.kwargs))
    if side_effect is not None:
        raise UntraceableError(side_effect)
    if len(internals.own_weights(layer)) != weights:
        raise UntraceableError("its call makes weights, so it has not been built yet", BUILT_BEFORE)
    if layer.activity_regularizer is not None:
        raise UntraceableError("it has an activity regulariser")
    return outputs, steps


def step_of(tensor: Any) -> Step | None:
    """The call that made a symbolic tensor; `None` for one that no call made."""
    history = internals.history_of(tensor)
    if history is None or history.operation is None:
        return None
    node = internals.node_of(tensor)
    return Step(node.operation, *internals.node_arguments(node), node.outputs)


def ordered_steps(
    outputs: Iterable[Any], known: Any, producer: Callable[[Any], Step | None]
) -> list[Step]:
    """The calls behind `outputs`, each after those that it reads from.

    Raises:
        UntraceableError: When no known call made a tensor.
    """
    ordered: list[Step] = []
    done: set[int] = set()
    for output in outputs:
        stack: list[tuple[Any, bool]] = [(output, False)]
        while stack:
            tensor, expanded = stack.pop()
            if id(tensor) in known or id(tensor) in done:
                continue
            step = producer(tensor)
            if step is None:
                raise UntraceableError("it uses a symbolic tensor that is not its own")
            if expanded:
                done.update(id(made) for made in step.outputs)
                ordered.append(step)
                continue
            stack.append((tensor, True))
            stack.extend((parent, False) for parent in reversed(step.inputs()))
    return ordered


def _merged(
    inference: tuple[Any, list[Step]], training: tuple[Any, list[Step]]
) -> tuple[Any, list[Step]]:
    """One list of steps that does both, with `training` left open where it follows the mode."""
    at_inference = dict(_training_arguments(inference[1]))
    steps = []
    for step, (key, value) in zip(training[1], _training_arguments(training[1]), strict=True):
        kwargs = dict(step.kwargs)
        if value and at_inference.get(key) == value:
            raise UntraceableError(
                f"it calls '{step.operation.name}' with training=True at inference too, which "
                "Keras's functional models do not keep",
                f"Call '{step.operation.name}' without training=True",
            )
        if key not in at_inference or at_inference[key] != value:
            kwargs.pop("training", None)
        steps.append(Step(step.operation, step.args, kwargs, step.outputs))
    return training[0], steps


def _training_arguments(steps: list[Step]) -> list[tuple[tuple[int, int], Any]]:
    """`((operation, how many-th call), training argument)` of each step."""
    counts: dict[int, int] = {}
    found = []
    for step in steps:
        operation = id(step.operation)
        counts[operation] = counts.get(operation, -1) + 1
        found.append(((operation, counts[operation]), step.kwargs.get("training")))
    return found


def _canonical(outputs: Any, steps: list[Step], own: _StandIns) -> list[Any]:
    """The steps as plain values that are equal when they do the same at inference."""
    number = {key: ("given", id(value)) for key, value in own.originals.items()}
    lines: list[Any] = []
    for step in steps:
        inputs = step.inputs()
        if kind_of(step.operation) in TRAINING_ONLY and len(inputs) == 1:
            number[id(step.outputs[0])] = number[id(inputs[0])]
            continue
        kwargs = {k: v for k, v in step.kwargs.items() if k != "training" and v is not None}
        lines.append(
            (_identity(step.operation), *_plain((step.args, sorted(kwargs.items())), number))
        )
        for position, tensor in enumerate(step.outputs):
            number[id(tensor)] = ("made", len(lines) * 64 + position)
    return [*lines, *_plain(outputs, number)]


def step_key(operation: Any, args: Any, kwargs: Any) -> Any:
    """A key that is equal for calls of operations with equal results; `None` for layers."""
    if isinstance(operation, keras.Layer):
        return None
    nesting = repr(tree.map_structure(lambda _: 0, (args, kwargs)))
    key = (_identity(operation), nesting, *map(repr, _plain((args, sorted(kwargs.items())), {})))
    return repr(key)


def _identity(operation: Any) -> Any:
    if isinstance(operation, keras.Layer):
        if operation.weights or internals.layer_settings(operation) is None:
            return id(operation)
        # One without weights may have been made in the call.
        return type(operation).__name__, repr(internals.layer_settings(operation))
    settings = {k: v for k, v in vars(operation).items() if not k.startswith("_") and k != "name"}
    return type(operation).__name__, *_plain(sorted(settings.items()), {})


def _plain(structure: Any, number: dict[int, Any]) -> list[Any]:
    plain: list[Any] = []
    for leaf in tree.flatten(structure):
        if isinstance(leaf, keras.KerasTensor):
            plain.append(number[id(leaf)])
        elif isinstance(leaf, keras.Variable):
            plain.append(id(leaf))
        elif isinstance(leaf, np.ndarray) or keras.ops.is_tensor(leaf):
            array = to_numpy(leaf)
            plain.append((array.shape, str(array.dtype), array.tobytes()))
        else:
            # NaN is not equal to itself.
            plain.append(repr(leaf) if isinstance(leaf, float) else leaf)
    return plain
