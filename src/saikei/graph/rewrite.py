"""Change which operations a graph calls: replace operations, redirect tensors around them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.errors import ModelError, in_one_line
from saikei.graph import internals
from saikei.graph.describe import layer_config, unused
from saikei.graph.flat import Call, Graph, Operation, Shape, TensorRef, TensorSpec, Weight
from saikei.graph.instantiate import cheap_initialisers, instantiate, weights_as_held
from saikei.graph.kinds import kind_of
from saikei.graph.per_step import steps_of
from saikei.rules.activations import ELEMENTWISE, OWN

# Shapes and dtypes that calls of layers of Keras give; as many are remembered.
_REMEMBERED = 10_000
_specs_of: dict[Any, tuple[tuple[Shape, str], ...]] = {}
# Variables are identified by their `id`, which is never negative, so these keys are unused.
_new_keys = itertools.count(-1, -1)


def new_weight(array: np.ndarray, trainable: bool = True) -> Weight:
    """A weight that no model has yet.

    Args:
        array: The numbers of the weight.
        trainable: Whether training changes it.
    """
    return Weight(next(_new_keys), tuple(array.shape), array, trainable)


def new_operation(
    name: str, layer: keras.Operation, weights: Mapping[str, Weight] | None = None
) -> Operation:
    """An operation that no model has yet.

    Args:
        name: Name of the operation; see `unused_name`.
        layer: A Keras layer that is not built, for the class and the config.
        weights: Weights by name, in the order of the built layer.
    """
    return Operation(name, kind_of(layer), layer_config(layer), dict(weights or {}), layer)


def unused_name(graph: Graph, name: str, also: Collection[str] = ()) -> str:
    """The name, with a number where an operation of the graph or of `also` has it already."""
    return unused(name, {*graph.operations, *also})


def replace_operations(graph: Graph, chains: Mapping[str, Sequence[Operation]]) -> Graph:
    """Put a chain of operations in the place of each named one, in all of its calls.

    The last operation of a chain takes the replaced one's name by custom, so that layers can be
    followed by name through several edits. The shapes of all tensors behind are computed again.

    Args:
        graph: The graph; it is not changed.
        chains: For each operation by name, those that come in its place, each with one tensor
            in and one out. An empty chain leaves the operation out. A chain of one operation
            may have any number of inputs and outputs; it is called with the same arguments.

    Raises:
        ModelError: When a layer behind cannot take the new shapes.
    """
    operations: dict[str, Operation] = {}
    for name, operation in graph.operations.items():
        if name not in chains:
            operations[name] = operation
    for chain in chains.values():
        for operation in chain:
            if operations.setdefault(operation.name, operation) is not operation:
                raise AssertionError(f"Two operations of the graph are named '{operation.name}'.")
    writer = _Writer(operations)
    for index, call in enumerate(graph.calls):
        writer.add(graph, index, call, chains.get(call.operation))
    return _alive(writer.graph(graph))


def redirect(graph: Graph, refs: Mapping[TensorRef, TensorRef]) -> Graph:
    """Replace tensors where they are read, and drop calls that no output depends on then.

    Args:
        graph: The graph; it is not changed.
        refs: For each tensor that is replaced, an earlier one to read instead.

    Raises:
        ModelError: When a layer behind cannot take the new shapes.
    """

    def target(ref: TensorRef) -> TensorRef:
        while ref in refs:
            ref = refs[ref]
        return ref

    calls = []
    for call in graph.calls:
        args, kwargs = _mapped(call, target)
        calls.append(replace(call, args=args, kwargs=kwargs))
    outputs = tree.map_structure(target, graph.outputs)
    changed = _alive(replace(graph, calls=tuple(calls), outputs=outputs))
    return replace_operations(changed, {})


def _mapped(call: Call, target: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = tree.map_structure(
        lambda leaf: target(leaf) if isinstance(leaf, TensorRef) else leaf,
        (call.args, dict(call.kwargs)),
    )
    return args, kwargs


def _alive(graph: Graph) -> Graph:
    """The graph without calls that no output depends on, and operations without calls."""
    needed = {ref.call for ref in (*graph.output_refs(), *graph.input_refs())}
    for index in range(len(graph.calls) - 1, -1, -1):
        if index in needed:
            needed.update(ref.call for ref in graph.calls[index].inputs())
    kept = sorted(needed)
    number = {old: new for new, old in enumerate(kept)}

    def moved(ref: TensorRef) -> TensorRef:
        return TensorRef(number[ref.call], ref.output)

    calls = []
    for old in kept:
        args, kwargs = _mapped(graph.calls[old], moved)
        calls.append(replace(graph.calls[old], args=args, kwargs=kwargs))
    used = {call.operation for call in calls}
    return replace(
        graph,
        operations={name: op for name, op in graph.operations.items() if name in used},
        calls=tuple(calls),
        inputs=tree.map_structure(moved, graph.inputs),
        outputs=tree.map_structure(moved, graph.outputs),
    )


class _Writer:
    """Copies calls one by one, with new numbers and, where inputs changed, new shapes."""

    def __init__(self, operations: Mapping[str, Operation]) -> None:
        self._operations = operations
        self._calls: list[Call] = []
        self._ref_of: dict[TensorRef, TensorRef] = {}

    def add(self, graph: Graph, index: int, call: Call, chain: Sequence[Operation] | None) -> None:
        args, kwargs = _mapped(call, self._ref_of.__getitem__)
        old = [graph.spec(ref) for ref in call.inputs()]
        moved = replace(call, args=args, kwargs=kwargs)
        if chain is None:
            new = [self._spec(ref) for ref in moved.inputs()]
            refs = self._append(moved if new == old else self._specified(moved))
        elif len(chain) == 1:
            refs = self._append(self._specified(replace(moved, operation=chain[0].name)))
        else:
            refs = moved.inputs()
            if len(refs) != 1 or len(call.outputs) != 1:
                raise AssertionError(f"'{call.operation}' has not one tensor in and one out.")
            for operation in chain:
                step = Call(operation.name, (refs[0],), {}, ())
                refs = self._append(self._specified(step))
        self._ref_of.update({TensorRef(index, position): ref for position, ref in enumerate(refs)})

    def graph(self, old: Graph) -> Graph:
        return replace(
            old,
            operations=self._operations,
            calls=tuple(self._calls),
            inputs=tree.map_structure(self._ref_of.__getitem__, old.inputs),
            outputs=tree.map_structure(self._ref_of.__getitem__, old.outputs),
        )

    def _append(self, call: Call) -> list[TensorRef]:
        self._calls.append(call)
        return [TensorRef(len(self._calls) - 1, i) for i in range(len(call.outputs))]

    def _spec(self, ref: TensorRef) -> TensorSpec:
        return self._calls[ref.call].outputs[ref.output]

    def _specified(self, call: Call) -> Call:
        operation = self._operations[call.operation]
        given = [self._spec(ref) for ref in call.inputs()]
        steps = steps_of(operation.kind, given)
        made = _outputs(operation, *_mapped(call, lambda ref: _symbolic(self._spec(ref))))
        specs = tuple(TensorSpec(shape, dtype, steps) for shape, dtype in made)
        return replace(call, outputs=specs)


def _symbolic(spec: TensorSpec) -> keras.KerasTensor:
    return keras.KerasTensor(spec.shape, dtype=spec.dtype)


def _outputs(
    operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Shape, str], ...]:
    """Shape and dtype of each output of the operation for symbolic tensors."""
    key = _key(operation, args, kwargs)
    if key is not None and key in _specs_of:
        return _specs_of[key]
    found = tuple(
        (tuple(tensor.shape), str(tensor.dtype)) for tensor in _called(operation, args, kwargs)
    )
    if key is not None:
        if len(_specs_of) >= _REMEMBERED:
            _specs_of.clear()
        _specs_of[key] = found
    return found


def _key(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A key that is equal for calls with outputs of equal shapes.

    Returns:
        The key; `None` where outputs may depend on more than config, weights and arguments.
    """
    source = operation.source
    parts = internals.flattened_layers(source) or [source]
    if operation.config is None or operation.quantised or operation.spectral:
        return None
    if not all(_follows_config(part) for part in parts):
        return None
    config = {name: value for name, value in operation.config.items() if name != "name"}
    given = tree.map_structure(
        lambda leaf: {"tensor": (leaf.shape, leaf.dtype)} if _is_tensor(leaf) else leaf,
        (args, kwargs),
    )
    try:
        text = json.dumps((config, given))
    except (TypeError, ValueError):
        return None
    # Functions and classes that are not Keras's own have such names.
    if '"registered_name": "' in text or OWN in text or ELEMENTWISE in text:
        return None
    trainable = tuple(getattr(part, "trainable", None) for part in parts)
    shapes = tuple(weight.shape for weight in operation.weights.values())
    return type(source), text, shapes, trainable, keras.config.floatx()


def _follows_config(part: Any) -> bool:
    """Whether it is one of Keras's own, without functions or vocabularies that configs lack."""
    own = type(part).__module__.startswith("keras.")
    return own and not isinstance(part, keras.layers.Lambda) and not hasattr(part, "adapt")


def _called(operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The outputs of the operation for symbolic tensors."""
    instance = instantiate(operation)
    try:
        with cheap_initialisers(instance):
            outputs: list[Any] = tree.flatten(instance(*args, **kwargs))
    except (ValueError, TypeError, RuntimeError) as error:
        shapes = [tuple(leaf.shape) for leaf in tree.flatten((args, kwargs)) if _is_tensor(leaf)]
        raise ModelError(
            f"Layer '{operation.name}' ({operation.kind}) cannot take its new input of shape "
            f"{', '.join(map(str, shapes))}: {in_one_line(error)}."
        ) from error
    needed = [tuple(variable.shape) for variable in internals.own_weights(instance)]
    given = [weight.shape for _, weight in weights_as_held(operation, instance)]
    if needed != given:
        raise ModelError(
            f"Layer '{operation.name}' ({operation.kind}) would need weights of shapes {needed} "
            f"for its new input, and has {given}: keep the shape of what it reads."
        )
    return outputs


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, keras.KerasTensor)
