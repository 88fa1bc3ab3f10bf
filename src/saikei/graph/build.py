"""From a flat `Graph` back to an ordinary `keras.Model` with its own variables."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from saikei.errors import ModelError, in_one_line
from saikei.graph.compiling import Compiled
from saikei.graph.describe import unused
from saikei.graph.flat import Call, Graph, Operation, TensorRef
from saikei.graph.instantiate import (
    cheap_initialisers,
    instantiate,
    keep_preprocessing,
    load_weights,
    preloaded,
    seeded,
)
from saikei.graph.lineage import mark
from saikei.graph.nested import mask_carrier
from saikei.graph.per_step import Region, regions_of, wrapped_calls
from saikei.graph.read import read
from saikei.rules.wrapping import JOINED


def build(graph: Graph, name: str | None = None, compiled: bool = False) -> keras.Model:
    """Build a Functional model from a graph: new layers, new variables, the graph's numbers.

    Args:
        graph: The graph to build.
        name: Name of the model; `None` takes the graph's.
        compiled: Whether to compile it as the model was that the graph was read from, if its
            outputs have the same shapes.

    Returns:
        A `keras.Model`.

    Raises:
        ModelError: When a layer cannot be made again from its config, or its weights have other
            shapes than in the graph.
    """
    with seeded(0):
        model = _Builder(graph, load=True).model(name or graph.name)
    found = [one for one in graph.marks if isinstance(one, Compiled)]
    mark(model, [one for one in graph.marks if one not in found])
    for one in found if compiled else ():
        one.compile(model)
    return model


def copy_model(model: keras.Model, name: str | None = None) -> keras.Model:
    """Copy a model as a flat Functional model with variables of its own, which is not compiled.

    Args:
        model: A built model; it is not changed.
        name: Name of the copy; `None` takes the model's.
    """
    return build(read(model), name)


def layers_of(graph: Graph, model: keras.Model) -> dict[str, Any]:
    """The layers of a built model by operation, with those that a `TimeDistributed` wraps.

    Args:
        graph: The graph that the model was built from.
        model: The model that `build` has made.
    """
    wrapped = [w.layer for w in model.layers if isinstance(w, keras.layers.TimeDistributed)]
    found = {layer.name: layer for layer in model.layers}
    while wrapped:
        layer = wrapped.pop()
        inner = layer.layers if isinstance(layer, keras.Model) else [layer]
        wrapped += [w.layer for w in inner if isinstance(w, keras.layers.TimeDistributed)]
        found.update({one.name: one for one in inner if one.name in graph.operations})
    return found


def fresh_model(model: keras.Model | Graph, seed: int, name: str | None = None) -> keras.Model:
    """Copy the architecture of a model, with newly initialised weights.

    Args:
        model: A built model, or its graph; it is not changed.
        seed: Seed of the initialisers. An initialiser with a seed in its config keeps that.
        name: Name of the new model; `None` takes the same name.
    """
    graph = model if isinstance(model, Graph) else read(model)
    with seeded(seed):
        return _Builder(graph, load=False).model(name or graph.name)


class _Builder:
    def __init__(self, graph: Graph, load: bool) -> None:
        self._graph = graph
        self._load = load
        self._made: dict[str, Any] = {}
        self._tensors: dict[TensorRef, Any] = {}
        regions = regions_of(graph.operations, graph.calls)
        # A `TimeDistributed` cannot give a tensor from between its steps as an output.
        shown = any(regions[ref.call] for ref in graph.output_refs())
        self._regions = tuple(() for _ in regions) if shown else regions
        self._wrappers: dict[str, list[tuple[Any, Any]]] = {}
        self._wrapper_names: set[str] = set()

    def model(self, name: str) -> keras.Model:
        self._run_region(())
        inputs = tree.map_structure(self._tensors.__getitem__, self._graph.inputs)
        outputs = tree.map_structure(self._tensors.__getitem__, self._graph.outputs)
        return keras.Model(inputs, outputs, name=name)

    def _run_region(self, region: tuple[int, ...]) -> None:
        """Make the calls of one region: outside of every `TimeDistributed`, or within one."""
        for index, call in enumerate(self._graph.calls):
            if self._regions[index] != region or region[-1:] == (index,):
                continue
            kind = self._graph.operations[call.operation].kind
            ends = kind == JOINED and self._regions[call.inputs()[0].call] != region
            outputs = self._run_wrapped(call) if ends else self._run(call)
            for position, tensor in enumerate(tree.flatten(outputs)):
                self._tensors[TensorRef(index, position)] = tensor

    def _run_wrapped(self, call: Call) -> Any:
        """Wrap the calls between the two ends of a `TimeDistributed` in one again, and call it."""
        result, whole = call.inputs()[:2]
        region = self._regions[result.call]
        kwargs = self._with_tensors(dict(call.kwargs))
        if result.call == region[-1]:
            # Nothing is left between the two ends but the mask.
            same, mask = self._tensors[whole], kwargs.get("mask")
            return (
                same if mask is None else mask_carrier(same.dtype, call.operation)(same, mask=mask)
            )
        into = self._graph.calls[region[-1]]
        found = wrapped_calls(self._graph, self._regions, result)
        known = self._wrappers.setdefault(call.operation, [])
        wrapper = next((layer for calls, layer in known if calls == found.calls), None)
        if wrapper is None:
            wrapper = self._wrapper(call, region, result, found.alone)
            known.append((found.calls, wrapper))
        return wrapper(self._tensors[into.inputs()[0]], **kwargs)

    def _wrapper(self, call: Call, region: Region, result: TensorRef, alone: str | None) -> Any:
        start = TensorRef(region[-1], 0)
        if start not in self._tensors:
            spec = self._graph.spec(start)
            self._tensors[start] = keras.Input(spec.shape[1:], dtype=spec.dtype)
            self._run_region(region)
        config = self._graph.operations[call.operation].config or {}
        inner = self._made[alone] if alone else None
        if inner is None:
            inner = keras.Model(self._tensors[start], self._tensors[result], name=config["inner"])
        name = config["wrapper"]["name"]
        # A layer that is wrapped alone has the wrapper's name, and may be called elsewhere too.
        beside = {
            other.operation
            for other, at in zip(self._graph.calls, self._regions, strict=True)
            if at == region[:-1] and self._graph.operations[other.operation].kind != JOINED
        }
        name = unused(name, beside | self._wrapper_names)
        self._wrapper_names.add(name)
        return keras.layers.TimeDistributed(inner, **{**config["wrapper"], "name": name})

    def _with_tensors(self, arguments: Any) -> Any:
        return tree.map_structure(
            lambda leaf: self._tensors[leaf] if isinstance(leaf, TensorRef) else leaf, arguments
        )

    def _run(self, call: Call) -> Any:
        operation = self._graph.operations[call.operation]
        first = operation.name not in self._made
        if first:
            self._made[operation.name] = instantiate(operation)
        instance = self._made[operation.name]
        if isinstance(instance, keras.layers.InputLayer):
            return instance.output
        args, kwargs = self._with_tensors((call.args, dict(call.kwargs)))
        if not first:
            return instance(*args, **kwargs)
        if not self._load:
            outputs = instance(*args, **kwargs)
            keep_preprocessing(operation, instance)
            return outputs
        with cheap_initialisers(instance), preloaded(operation, instance) as loaded:
            outputs = self._call(operation, instance, args, kwargs)
        load_weights(operation, instance, loaded)
        return outputs

    @staticmethod
    def _call(operation: Operation, instance: Any, args: Any, kwargs: Any) -> Any:
        try:
            return instance(*args, **kwargs)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"Layer '{operation.name}' ({operation.kind}) cannot be called again after the "
                f"change: {in_one_line(error)}. Exclude it, or add a rule for it."
            ) from error
