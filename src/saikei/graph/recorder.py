"""Operations and calls of a graph, collected under names that are each used once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from saikei.graph.describe import described, unused
from saikei.graph.flat import Call, Operation, TensorRef
from saikei.graph.per_step import spec_of
from saikei.graph.retrace import step_key


class Recorder:
    """Collects the operations and calls of a model that is being read.

    Args:
        own: Names of the model's own layers, which keep them; those of nested models give way.
        opaque: For layers whose `call` cannot be traced, by `id`, the reason.
        layers: Every layer in the model. Operations that are none of them were made in a call.
    """

    def __init__(self, own: set[str], opaque: dict[int, str], layers: Iterable[Any]) -> None:
        self.own, self.opaque = own, opaque
        self.layers = {id(layer) for layer in layers}
        self.operations: dict[str, Operation] = {}
        self.calls: list[Call] = []
        # Names of layers that a `TimeDistributed` wraps alone, by id.
        self.wrapped_names: dict[int, str] = {}
        # What is identified by its id has to live as long as the recorder.
        self.alive: list[Any] = []
        self._names: dict[int, str] = {}
        # Blocks compute the same masks and positions each for itself; once is enough.
        self._recorded: dict[Any, list[TensorRef]] = {}

    def unused(self, name: str) -> str:
        """The name, with a number where an operation has it already."""
        return unused(name, self.own.union(self.operations))

    def record(
        self,
        operation: Any,
        prefix: str,
        args: Any,
        kwargs: Any,
        outputs: list[Any],
        fresh: bool = False,
    ) -> list[TensorRef]:
        """Record a call, and its operation unless it is recorded already.

        Args:
            operation: The layer or operation of Keras that is called.
            prefix: What its name begins with where the name itself is taken.
            args: Positional arguments, with `TensorRef` for tensors.
            kwargs: Keyword arguments, with `TensorRef` for tensors.
            outputs: The symbolic tensors that the call returns, flattened.
            fresh: Whether the call was made by a trace; of equal ones only the first is kept.

        Returns:
            The refs of the outputs.
        """
        key = step_key(operation, args, kwargs) if fresh else None
        if key is not None and key in self._recorded:
            return self._recorded[key]
        refs = self.call(self._add(operation, prefix, fresh), args, kwargs, outputs)
        if key is not None:
            self._recorded[key] = refs
        return refs

    def call(self, name: str, args: Any, kwargs: Any, outputs: list[Any]) -> list[TensorRef]:
        """Record a call of the operation of that name; see `record`."""
        call = Call(name, tuple(args), dict(kwargs), ())
        given = [self.calls[ref.call].outputs[ref.output] for ref in call.inputs()]
        kind = self.operations[name].kind
        specs = tuple(spec_of(tensor, kind, given) for tensor in outputs)
        self.calls.append(replace(call, outputs=specs))
        return [TensorRef(len(self.calls) - 1, i) for i in range(len(specs))]

    def _add(self, operation: Any, prefix: str, fresh: bool) -> str:
        if id(operation) in self._names:
            return self._names[id(operation)]
        name: str = self.wrapped_names.get(id(operation), operation.name)
        if fresh and id(operation) not in self.layers:
            # Made in the call. Keras numbers them through the process; names have to repeat.
            name = self.unused(f"{prefix}{name.rstrip('_0123456789')}")
        elif name in self.operations or (prefix and name in self.own):
            name = self.unused(f"{prefix}{name}")
        self._names[id(operation)] = name
        self.alive.append(operation)
        self.operations[name] = described(name, operation, self.opaque.get(id(operation)))
        return name
