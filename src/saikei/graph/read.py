"""From a `keras.Model` to a flat `Graph`."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from saikei.errors import ModelError
from saikei.graph import internals
from saikei.graph.flat import Call, Graph, Operation, TensorRef, TensorSpec, Weight


def read(model: keras.Model) -> Graph:
    """Read a Functional or Sequential model; nested ones are inlined.

    Args:
        model: a built model. It is not changed.

    Returns:
        The flat graph. Its weights refer to the model's variables; nothing is copied.

    Raises:
        ModelError: when the object is no model, is not built, or has no symbolic graph.
    """
    _check_readable(model)
    inputs_struct, outputs_struct = internals.structures(model)
    reader = _Reader(own=internals.operation_names(model))
    bound = [reader.add_input(tensor) for tensor in model.inputs]
    outputs = reader.walk(list(model.inputs), list(model.outputs), bound, "", None)
    return Graph(
        name=model.name,
        operations=reader.operations,
        calls=tuple(reader.calls),
        inputs=tree.pack_sequence_as(inputs_struct, bound),
        outputs=tree.pack_sequence_as(outputs_struct, outputs),
    )


def _check_readable(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a keras.Model, got {type(model).__name__}: hand in a model.")
    if internals.is_graph_model(model):
        return
    if isinstance(model, keras.Sequential):
        raise ModelError(
            f"Model '{model.name}' is not built, so its shapes are unknown: "
            "call model.build(input_shape) or add a keras.Input first."
        )
    raise ModelError(
        f"Model '{model.name}' is a subclassed model ({type(model).__name__}) without a symbolic "
        "graph: build it with the Functional API, keras.Model(inputs, outputs)."
    )


class _Reader:
    """Collects operations and calls while walking a model and the models nested in it."""

    def __init__(self, own: set[str]) -> None:
        # The outer model's layers keep their names; nested ones give way.
        self._own = own
        self.operations: dict[str, Operation] = {}
        self.calls: list[Call] = []
        self._names: dict[int, str] = {}

    def add_input(self, tensor: Any) -> TensorRef:
        """Record a model input as a call without arguments."""
        operation, _, _ = internals.producer(tensor)
        return self._record(operation, "", (), {}, [tensor])[0]

    def walk(
        self,
        inputs: list[Any],
        outputs: list[Any],
        bound: list[TensorRef],
        prefix: str,
        training: bool | None,
    ) -> list[TensorRef]:
        """Record every call between `inputs` and `outputs`, with `inputs` bound to `bound`."""
        known = {id(tensor): ref for tensor, ref in zip(inputs, bound, strict=True)}
        for node in _ordered_nodes(inputs, outputs):
            args, kwargs = tree.map_structure(
                lambda leaf: known[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf,
                internals.node_arguments(node),
            )
            refs = self._visit(node, args, kwargs, prefix, training)
            known.update({id(t): ref for t, ref in zip(node.outputs, refs, strict=True)})
        return [known[id(tensor)] for tensor in outputs]

    def _visit(
        self, node: Any, args: Any, kwargs: Any, prefix: str, training: bool | None
    ) -> list[TensorRef]:
        operation = node.operation
        if internals.is_graph_model(operation):
            inner_training = kwargs.get("training")
            return self.walk(
                list(operation.inputs),
                list(operation.outputs),
                _bind(operation, args, kwargs),
                f"{prefix}{operation.name}_",
                training if inner_training is None else inner_training,
            )
        if training is not None and internals.takes_training(operation):
            # A nested model that is called with training=False keeps, say, its
            # BatchNormalization frozen; its layers must keep that when they are inlined.
            kwargs = {"training": training, **kwargs}
        return self._record(operation, prefix, args, kwargs, node.outputs)

    def _record(
        self, operation: Any, prefix: str, args: Any, kwargs: Any, outputs: list[Any]
    ) -> list[TensorRef]:
        name = self._add_operation(operation, prefix)
        specs = tuple(TensorSpec(tuple(t.shape), str(t.dtype)) for t in outputs)
        self.calls.append(Call(name, tuple(args), dict(kwargs), specs))
        return [TensorRef(len(self.calls) - 1, i) for i in range(len(specs))]

    def _add_operation(self, operation: Any, prefix: str) -> str:
        if id(operation) in self._names:
            return self._names[id(operation)]
        name: str = operation.name
        if name in self.operations or (prefix and name in self._own):
            name = _unused(f"{prefix}{name}", self._own.union(self.operations))
        self._names[id(operation)] = name
        self.operations[name] = Operation(
            name=name,
            kind=kind_of(operation),
            config=layer_config(operation),
            weights=_weights(operation),
            source=operation,
        )
        return name


def kind_of(operation: Any) -> str:
    """The name under which rules know the class of a layer or operation."""
    cls = type(operation)
    if not cls.__module__.startswith("keras."):
        return f"{cls.__module__}.{cls.__qualname__}"
    name: str = cls.__name__
    return name if isinstance(operation, keras.Layer) else f"ops.{name}"


def _unused(name: str, taken: set[str]) -> str:
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def layer_config(operation: Any) -> dict[str, Any] | None:
    """What the class's `from_config` takes; `None` where it has none."""
    try:
        config = dict(operation.get_config())
    except NotImplementedError:
        # keras.Operation raises this where constructor arguments cannot be serialised.
        return None
    if "data_format" in config and config["data_format"] is None:
        config["data_format"] = keras.config.image_data_format()
    return config


def _weights(operation: Any) -> dict[str, Weight]:
    weights: dict[str, Weight] = {}
    for variable in internals.own_weights(operation):
        name = _weight_name(operation.name, variable.path)
        base, number = name, 0
        while name in weights:
            number += 1
            name = f"{base}#{number}"
        weights[name] = Weight(
            id(variable), tuple(variable.shape), variable, bool(variable.trainable)
        )
    return weights


def _weight_name(layer: str, path: str) -> str:
    """`"kernel"` for `"outer/conv/kernel"` of the layer `conv`."""
    parts = path.split("/")
    inner = parts[parts.index(layer) + 1 :] if layer in parts else parts[-1:]
    return "/".join(inner) or path


def _bind(model: Any, args: Any, kwargs: Any) -> list[TensorRef]:
    """The refs handed to a nested model, in the order of its own inputs."""
    given = args[0] if args else kwargs.get("inputs")
    if isinstance(given, dict):
        struct, _ = internals.structures(model)
        if not isinstance(struct, dict):
            return [given[tensor.name] for tensor in model.inputs]
    return list(tree.flatten(given))


def _ordered_nodes(inputs: list[Any], outputs: list[Any]) -> list[Any]:
    """Nodes between inputs and outputs, each after the nodes that it reads from."""
    stop = {id(tensor) for tensor in inputs}
    ordered: list[Any] = []
    done: set[int] = set()
    for output in outputs:
        stack = [] if id(output) in stop else [(internals.node_of(output), False)]
        while stack:
            node, expanded = stack.pop()
            if id(node) in done:
                continue
            if expanded:
                done.add(id(node))
                ordered.append(node)
                continue
            stack.append((node, True))
            parents = [t for t in node.input_tensors if id(t) not in stop]
            stack.extend((internals.node_of(t), False) for t in reversed(parents))
    return ordered
