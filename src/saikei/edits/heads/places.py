"""Where a model is cut for a new head, and the head that is cut off."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from keras import tree

from saikei.errors import EditError
from saikei.graph import Graph, Operation, TensorRef

_ACTIVATIONS = {
    "Softmax": "softmax",
    "ops.Softmax": "softmax",
    "ops.Sigmoid": "sigmoid",
    "ops.LogSoftmax": "log_softmax",
}
_NOTHING = frozenset({"Identity", "Dropout", "Activation", "ops.Cast"})


@dataclass(frozen=True)
class OldHead:
    """The end of a model that makes an output, from its last layer with weights on.

    Args:
        layer: The last layer with weights.
        reads: The tensor that it reads.
        activation: What it ends in; `None` where that is no function of one name.
        plain: Whether nothing but activations and dropout comes after the layer.
    """

    layer: Operation
    reads: TensorRef
    activation: str | None
    plain: bool


def old_head(graph: Graph, output: TensorRef) -> OldHead:
    """The head of an output.

    Raises:
        EditError: When the output has no layer with weights that alone gives it.
    """
    ref, activations, plain = output, list[str | None](), True
    while True:
        call = graph.calls[ref.call]
        operation = graph.operations[call.operation]
        inputs = [leaf for leaf in tree.flatten(call.args) if isinstance(leaf, TensorRef)]
        if len(inputs) != 1:
            raise EditError(_no_head(graph, operation, inputs))
        activation = _activation(operation)
        if activation != "linear":
            activations.append(activation)
        if operation.weights:
            first = activations[0] if activations else "linear"
            return OldHead(operation, inputs[0], first if len(activations) < 2 else None, plain)
        plain = plain and (operation.kind in _NOTHING or operation.kind in _ACTIVATIONS)
        ref = inputs[0]


def replaced_head(graph: Graph, outputs: Sequence[TensorRef]) -> OldHead:
    """The heads of the outputs that are cut off, as far as they are known."""
    found = []
    for output in outputs:
        try:
            found.append(old_head(graph, output))
        except EditError:
            last = graph.operations[graph.calls[output.call].operation]
            found.append(OldHead(last, output, _activation(last) if last.config else None, False))
    same = len({head.activation for head in found}) == 1
    return found[0] if same else replace(found[0], activation=None)


def _activation(operation: Operation) -> str | None:
    if operation.kind in _ACTIVATIONS:
        return _ACTIVATIONS[operation.kind]
    named = (operation.config or {}).get("activation", "linear")
    return named if isinstance(named, str) else None


def _no_head(graph: Graph, operation: Operation, inputs: Sequence[TensorRef]) -> str:
    if not inputs:
        return (
            f"ReplaceHead finds no head in model '{graph.name}': no layer with weights gives its "
            "output alone. Name the layer to cut at, ReplaceHead(at=…)."
        )
    names = ", ".join(f"'{graph.calls[ref.call].operation}'" for ref in inputs)
    return (
        f"It is not clear where the head of model '{graph.name}' begins, since "
        f"'{operation.name}' ({operation.kind}) reads several tensors: name the layer to cut at, "
        f"such as ReplaceHead(at=…) with one of {names} or '{operation.name}'."
    )


def cut_at(graph: Graph, layer: str, number: int | None) -> TensorRef:
    """What a layer, or a nested model, gives.

    Args:
        graph: The graph of the model.
        layer: The name of the layer.
        number: The number of its call, from 0; may be `None` where there is one.

    Raises:
        EditError: When there is no such layer or call, or it is an input.
    """
    name = graph.ends.get(layer, layer)
    if name not in graph.operations:
        known = [
            *graph.operations,
            *(n for n, end in graph.ends.items() if end in graph.operations),
        ]
        near = difflib.get_close_matches(layer, known, n=1, cutoff=0.0)
        raise EditError(
            f"ReplaceHead names layer '{layer}', which model '{graph.name}' does not have: did "
            f"you mean '{near[0]}'?"
        )
    if graph.operations[name].kind == "InputLayer":
        raise EditError(
            f"ReplaceHead(at='{layer}') would leave nothing of model '{graph.name}': '{layer}' is "
            "an input; name a layer."
        )
    calls = [index for index, call in enumerate(graph.calls) if call.operation == name]
    if number is None and len(calls) > 1:
        raise EditError(
            f"Layer '{layer}' of model '{graph.name}' is called {len(calls)} times: name "
            f"the call to cut at, call=0 to call={len(calls) - 1}."
        )
    if number is not None and not 0 <= number < len(calls):
        raise EditError(
            f"ReplaceHead(call={number}): layer '{layer}' of model '{graph.name}' is called "
            f"{len(calls)} times, so give a number from 0 to {len(calls) - 1}."
        )
    return TensorRef(calls[number or 0], 0)


def output_number(graph: Graph, output: int | str) -> int:
    """The index of the output that a number or a name means.

    Raises:
        EditError: When the model has no such output.
    """
    refs = graph.output_refs()
    if isinstance(output, int) and 0 <= output < len(refs):
        return output
    keys = tree.flatten_with_path(graph.outputs)
    names = [{str(path[-1]) if path else "", graph.calls[ref.call].operation} for path, ref in keys]
    found = [n for n, known in enumerate(names) if isinstance(output, str) and output in known]
    if len(found) != 1:
        shown = ", ".join(f"'{graph.calls[ref.call].operation}'" for ref in refs)
        raise EditError(
            f"ReplaceHead(output={output!r}): model '{graph.name}' has the outputs {shown}; give "
            f"one of these names, or a number from 0 to {len(refs) - 1}."
        )
    return found[0]
