"""A new head: layers that are built on a tensor of a graph, and put after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras import tree

from saikei.edits.heads.places import OldHead
from saikei.errors import EditError, ModelError, in_one_line
from saikei.graph import Call, Graph, TensorRef, TensorSpec, read, redirect, unused_name
from saikei.graph.internals import forgotten_nodes

_FILTERS = {f"Conv{n}D{kind}": "filters" for n in "123" for kind in ("", "Transpose")}
_SIZES = {"Dense": "units", **_FILTERS}
POOLINGS = ("avg", "max")


@dataclass(frozen=True)
class HeadRequest:
    """The arguments of a head of `classes`; see `ReplaceHead`."""

    classes: int
    activation: str | None
    pooling: str | None


def of_classes(
    spec: TensorSpec, where: str, old: OldHead, at: bool, asked: HeadRequest
) -> list[keras.Layer]:
    """The layers of a head for a number of classes.

    Args:
        spec: The shape and dtype of the tensor that it reads.
        where: The layer that gives that tensor, for messages.
        old: The head that it replaces.
        at: Whether the model is cut elsewhere than before the old head's last layer.
        asked: The arguments of the new head.

    Raises:
        EditError: When the activation or the form of the new head is not known.
    """
    classes, pooling = asked.classes, asked.pooling
    function = old.activation if asked.activation is None else asked.activation
    if function is None:
        raise EditError(
            "The activation at the end of the old head is unknown: give "
            "activation='softmax', 'sigmoid' or 'linear'."
        )
    if classes == 1 and function == "softmax":
        raise EditError(
            "ReplaceHead(classes=1): a softmax over one number is always 1: give "
            "activation='sigmoid' or 'linear'."
        )
    settings = dict(old.layer.config or {})
    common = {key: settings[key] for key in ("dtype",) if key in settings}
    common["name"] = old.layer.name
    same = not at and old.plain and pooling is None
    if same and old.layer.kind in _SIZES:
        kept = {**settings, _SIZES[old.layer.kind]: classes, "activation": function}
        return [type(old.layer.source).from_config({**kept, **common})]
    dense = keras.layers.Dense(classes, activation=function, **common)
    rank = len(spec.shape)
    if rank == 2:
        return [dense]
    if pooling is None or rank > 5:
        raise EditError(
            f"ReplaceHead(classes={classes}) puts a Dense layer behind vectors, and {where} gives "
            f"tensors of shape {spec.shape}: add pooling='avg' or 'max', or give the new head as "
            "layers, head=[…]."
        )
    name = "Average" if pooling == "avg" else "Max"
    pool = getattr(keras.layers, f"Global{name}Pooling{rank - 2}D")
    form = {key: settings[key] for key in ("data_format",) if key in settings}
    return [pool(**form), dense]


def built_on(spec: TensorSpec, head: keras.Model | Sequence[keras.Layer], where: str) -> Graph:
    """The graph of a head, which reads one tensor.

    Args:
        spec: The shape and dtype of the tensor that it will read.
        head: A built model, whose weights are kept, or layers that are not built.
        where: The layer that gives the tensor, for messages.

    Raises:
        EditError: When the head cannot read the tensor.
    """
    try:
        tensor = keras.Input(batch_shape=spec.shape, dtype=spec.dtype)
        if isinstance(head, keras.Model):
            with forgotten_nodes(head):
                return read(keras.Model(tensor, head(tensor)))
        outputs = tensor
        for layer in head:
            outputs = layer(outputs)
        return read(keras.Model(tensor, outputs))
    except ModelError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise EditError(
            f"The new head cannot read what {where} gives, tensors of shape {spec.shape}: "
            f"{in_one_line(error)}. Give it a first layer that can."
        ) from error


def put_behind(graph: Graph, ref: TensorRef, head: Graph, number: int | None) -> Graph:
    """A graph that gives what a head gives on one of its tensors.

    Args:
        graph: The graph of the model.
        ref: The tensor that the head reads.
        head: The graph of the head.
        number: The number of the output that it replaces, from 0; `None` for all of them.

    Raises:
        EditError: When several outputs would take the place of one.
    """
    new = head.output_refs()
    if number is not None and len(new) != 1:
        raise EditError(
            f"The new head gives {len(new)} outputs in the place of one: give a head of one "
            "output, or replace all outputs at once with at=… and without output."
        )
    # Calls that no output needs go first, so that their names are free.
    outputs = [old for i, old in enumerate(graph.output_refs()) if number not in (None, i)]
    kept = redirect(replace(graph, outputs=[ref, *outputs]), {})
    ref, *others = kept.output_refs()
    names: dict[str, str] = {}
    for name in head.operations:
        names[name] = unused_name(kept, name, names.values())
    refs, calls = {head.input_refs()[0]: ref}, list(kept.calls)
    for index, call in enumerate(head.calls):
        if head.operations[call.operation].kind == "InputLayer":
            continue
        args, kwargs = tree.map_structure(
            lambda leaf: refs[leaf] if isinstance(leaf, TensorRef) else leaf,
            (call.args, dict(call.kwargs)),
        )
        calls.append(Call(names[call.operation], args, kwargs, call.outputs))
        for position in range(len(call.outputs)):
            refs[TensorRef(index, position)] = TensorRef(len(calls) - 1, position)
    operations = {
        names[name]: replace(operation, name=names[name])
        for name, operation in head.operations.items()
        if operation.kind != "InputLayer"
    }
    made: Any = tree.map_structure(refs.__getitem__, head.outputs)
    if number is not None:
        others.insert(number, tree.flatten(made)[0])
        made = tree.pack_sequence_as(graph.outputs, others)
    kept = replace(kept, operations={**kept.operations, **operations}, calls=tuple(calls))
    return redirect(_without_unread_inputs(replace(kept, outputs=made)), {})


def _without_unread_inputs(graph: Graph) -> Graph:
    """The graph without inputs that nothing reads any more."""
    read_by = {ref for call in graph.calls for ref in call.inputs()} | {*graph.output_refs()}
    if read_by.issuperset(graph.input_refs()):
        return graph
    inputs: Any = graph.inputs
    if isinstance(inputs, dict):
        inputs = {key: ref for key, ref in inputs.items() if ref in read_by}
    else:
        inputs = [ref for ref in tree.flatten(inputs) if ref in read_by]
        inputs = inputs[0] if len(inputs) == 1 else inputs
    names = {graph.calls[ref.call].operation for ref in tree.flatten(inputs)}
    sizes = {name: size for name, size in graph.sizes.items() if name in names}
    return replace(graph, inputs=inputs, sizes=sizes)
