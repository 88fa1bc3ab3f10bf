"""The sizes of a graph's tensors once its inputs have full shapes.

Keras leaves sizes open: those of axes that a model takes at any size, and some that follow from
its input, as behind `EinsumDense(output_shape=(None, 8))` or a `Lambda`. Here the output shapes of
each call are computed again for inputs of a full shape. No data is computed, and the graph that an
edit changes keeps its open axes: these sizes are for counting costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from saikei.errors import ModelError, in_one_line
from saikei.graph.describe import described
from saikei.graph.flat import Call, Graph, Operation, Shape, TensorRef, TensorSpec
from saikei.graph.instantiate import cheap_initialisers, instantiate, seeded
from saikei.graph.per_step import steps_of

# Sizes that are assumed for an axis of unknown size: the first that the model can take. Powers of 2
# come first, as networks that halve their input several times take nothing else.
ASSUMED = (128, 64, 32, 16, 8, 4, 2, 1, *(2**n for n in range(8, 18)), 96, 224, 100, 1000)
# Kinds that may join the batch axis with another one, so that it holds more than one sample.
_JOINING = frozenset(
    f"ops.{name}" for name in ("Reshape", "Ravel", "Repeat", "Tile", "Concatenate", "Einsum")
) | {"Lambda"}
_CACHE = "_sized"


@dataclass(frozen=True)
class Sized:
    """A graph with the sizes of its tensors.

    Args:
        graph: The same calls with full shapes. The first axis is `None` where it is the batch;
            other axes are `None` where their size depends on the data.
        batch: Number of samples that first axes with a size stand for.
        sizes: For each input with axes of unknown size, the shape of a sample, without the batch
            axis, that was used. Layers whose output's size depends on the data have an entry too.
            An axis is `None` where no size was given and none could be assumed.
        assumed: The names in `sizes` for which no shape was given.
    """

    graph: Graph
    batch: int
    sizes: Mapping[str, Shape]
    assumed: tuple[str, ...]

    def unknown(self) -> tuple[str, ...]:
        """Operations with an output of which a size is still unknown."""
        found = [c.operation for c in self.graph.calls if any(map(_is_open, c.outputs))]
        return tuple(dict.fromkeys(found))


class _SizeError(Exception):
    """The model cannot take inputs of these sizes, for the reason in the message."""


def sized(graph: Graph) -> Sized:
    """The graph with full shapes, for the sizes in `graph.sizes` or for assumed ones.

    Raises:
        ModelError: When the model cannot take inputs of the sizes that are given.
    """
    found: Sized | None = vars(graph).get(_CACHE)
    if found is None:
        found = _sized(graph)
        # A graph is a value that never changes, and so is what follows from it.
        vars(graph)[_CACHE] = found
    return found


def open_inputs(graph: Graph) -> dict[str, Shape]:
    """The inputs with axes of unknown size: their shapes without the batch, by name."""
    found = {graph.calls[ref.call].operation: graph.spec(ref) for ref in graph.input_refs()}
    return {name: spec.shape[1:] for name, spec in found.items() if _is_open(spec)}


def _sized(graph: Graph) -> Sized:
    batches = [graph.spec(ref).shape[:1] for ref in graph.input_refs()]
    fixed = next((size for shape in batches for size in shape if size is not None), None)
    if not _has_hidden_sizes(graph):
        return Sized(graph, fixed or 1, {}, ())
    missing = tuple(name for name in open_inputs(graph) if name not in graph.sizes)
    problem: _SizeError | None = None
    for size in ASSUMED if missing else ASSUMED[:1]:
        # A batch of one may vanish where axes of size 1 are taken away.
        for batch in (1, 2) if fixed is None else (fixed,):
            try:
                calls, sizes = _Rerun(graph, batch, size).run()
            except _SizeError as error:
                problem = problem or error
            else:
                return Sized(replace(graph, calls=calls), batch, sizes, missing)
    if not missing:
        given = ", ".join(f"'{name}' {shape}" for name, shape in graph.sizes.items())
        raise ModelError(
            f"Model '{graph.name}' cannot take inputs of the given size ({given}): {problem}. "
            "Give it another size."
        )
    return Sized(graph, fixed or 1, open_inputs(graph), ())


def _has_hidden_sizes(graph: Graph) -> bool:
    for call in graph.calls:
        kind = graph.operations[call.operation].kind
        own = "." in kind and not kind.startswith("ops.")
        batch = any(spec.shape[:1] == (None,) for spec in call.outputs)
        if any(map(_is_open, call.outputs)) or (batch and (own or kind in _JOINING)):
            return True
    return False


def _is_open(spec: TensorSpec) -> bool:
    return None in spec.shape[1:]


class _Rerun:
    """Computes the output shapes of call after call."""

    def __init__(self, graph: Graph, batch: int, size: int) -> None:
        self._graph, self._batch, self._size = graph, batch, size
        self._full: dict[TensorRef, TensorSpec] = {}
        self._inputs = {ref.call for ref in graph.input_refs()}
        self._sizes: dict[str, Shape] = {}

    def run(self) -> tuple[tuple[Call, ...], Mapping[str, Shape]]:
        """The calls with full shapes, and the sizes that were taken."""
        calls = []
        with seeded(0):
            for index, call in enumerate(self._graph.calls):
                specs = self._specs(index, call)
                for position, spec in enumerate(specs):
                    self._full[TensorRef(index, position)] = spec
                calls.append(replace(call, outputs=tuple(specs)))
        return tuple(calls), self._sizes

    def _specs(self, index: int, call: Call) -> list[TensorSpec]:
        if index in self._inputs or not call.inputs():
            found: list[Shape] = [
                (self._batch, *(size or self._size for size in call.outputs[0].shape[1:]))
            ]
        else:
            found = self._returned(call)
        if [len(shape) for shape in found] != [len(spec.shape) for spec in call.outputs]:
            raise _SizeError(f"layer '{call.operation}' returns tensors of another rank")
        given = self._graph.sizes.get(call.operation)
        kind = self._graph.operations[call.operation].kind
        steps = steps_of(kind, [self._full[ref] for ref in call.inputs()])
        made = []
        for spec, shape in zip(call.outputs, found, strict=True):
            wanted = (None, *given) if given and _is_open(spec) else (None,) * len(shape)
            # Sizes in the graph come first: the source of a layer that an edit has cut is not cut.
            size = [
                next((s for s in sizes if s is not None), None)
                for sizes in zip(spec.shape, wanted, shape, strict=True)
            ]
            if _is_open(spec) and (index in self._inputs or given or self._begins(call, size)):
                self._sizes[call.operation] = tuple(size[1:])
            if spec.shape[:1] == (None,) and size[0] == self._batch:
                size[0] = None
            made.append(TensorSpec(tuple(size), spec.dtype, steps))
        return made

    def _begins(self, call: Call, shape: Sequence[int | None]) -> bool:
        """Whether a size is unknown here, and in nothing that the call reads."""
        return None in shape[1:] and all(None not in self._full[r].shape[1:] for r in call.inputs())

    def _returned(self, call: Call) -> list[Shape]:
        """The shapes that a call returns; those in the graph where they cannot be computed."""
        operation = self._graph.operations[call.operation]
        try:
            return _ask(operation, *self._arguments(call, full=True))
        except Exception as error:
            try:
                _ask(operation, *self._arguments(call, full=False))
            except Exception:  # noqa: BLE001 - any reason to refuse its arguments
                return [spec.shape for spec in call.outputs]
            reason = in_one_line(error)
            raise _SizeError(f"layer '{operation.name}' ({operation.kind}): {reason}") from error

    def _arguments(self, call: Call, full: bool) -> tuple[Any, dict[str, Any]]:
        def symbolic(leaf: Any) -> Any:
            if not isinstance(leaf, TensorRef):
                return leaf
            spec = self._graph.spec(leaf)
            shape = spec.shape
            if full and shape:
                known = self._full[leaf].shape
                first = self._batch if known[0] is None else known[0]
                shape = (first, *known[1:])
            return keras.KerasTensor(shape, dtype=spec.dtype)

        args, kwargs = tree.map_structure(symbolic, (call.args, dict(call.kwargs)))
        return args, kwargs


def _ask(operation: Operation, args: Any, kwargs: Any) -> list[Shape]:
    """The shapes that an operation returns for symbolic arguments."""
    # On torch, Keras cannot call quantised layers without data.
    operation = operation.in_floats()
    instance = operation.source
    if _is_as_built(operation):
        outputs = instance.compute_output_spec(*args, **kwargs)
    else:
        instance = instantiate(operation)
        with cheap_initialisers(instance):
            outputs = instance(*args, **kwargs)
    shapes = [tuple(tensor.shape) for tensor in tree.flatten(outputs)]
    if all(None not in shape[1:] for shape in shapes):
        return shapes
    try:
        # The class computes fewer sizes than its call shows: run the call, as Keras does for
        # classes that compute none.
        traced = keras.Operation.compute_output_spec(instance, *args, **kwargs)
    except Exception:  # noqa: BLE001 - its call may raise anything
        return shapes
    return [tuple(tensor.shape) for tensor in tree.flatten(traced)]


def _is_as_built(operation: Operation) -> bool:
    """Whether the Keras object that an operation was read from is still what it describes."""
    source = operation.source
    if operation.config is None:
        return True
    if isinstance(source, keras.Layer) and not source.built:
        return False
    now = described(operation.name, source)
    shapes = [[weight.shape for weight in o.weights.values()] for o in (now, operation)]
    return shapes[0] == shapes[1] and repr(now.config) == repr(operation.config)
