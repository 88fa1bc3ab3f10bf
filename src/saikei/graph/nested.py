"""What a nested model is called on: tensors and masks in the order of the model's own inputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import tree

from saikei.graph import internals
from saikei.graph.kinds import kind_of
from saikei.graph.retrace import Step, ordered_steps, step_key, step_of
from saikei.graph.training_only import TRAINING_ONLY
from saikei.graph.untraceable import UntraceableError


def bind(model: Any, args: Any, kwargs: Any) -> list[Any]:
    """The tensors, or refs, that a nested model is called on, in the order of its inputs."""
    given = args[0] if args else kwargs.get("inputs")
    if isinstance(given, dict):
        struct, _ = internals.structures(model)
        if not isinstance(struct, dict):
            return [given[tensor.name] for tensor in model.inputs]
    return list(tree.flatten(given))


def masks_given(step: Step) -> list[tuple[Any, Any]]:
    """The inputs of a nested model's call, each with the mask that the call gives it beside.

    The mask is `None` where there is none, where the tensor carries the same one already, and
    where no layer of the model reads it.

    Raises:
        UntraceableError: When a mask belongs to an input that cannot carry one into the layers.
    """
    model = step.operation
    masks = tree.flatten(internals.call_arguments(model, step.args, step.kwargs).get("mask"))
    tensors = bind(model, step.args, step.kwargs)
    masks += [None] * (len(tensors) - len(masks))
    # Keras leaves the mask on the tensor itself, which may be given to several inputs.
    left = {
        id(tensor): mask
        for tensor, mask, own in zip(tensors, masks, model.inputs, strict=False)
        if mask is not None and tensor.dtype == own.dtype
    }
    masks = [left.get(id(t), mask) for t, mask in zip(tensors, masks, strict=True)]
    found = []
    for tensor, mask, own in zip(tensors, masks, model.inputs, strict=False):
        known = mask is None or _computation(mask) == _computation(internals.mask_of(tensor))
        if known or not _is_read(model, own):
            found.append((tensor, None))
            continue
        if len(own.shape) < 3:
            raise UntraceableError(f"it is called with a mask for its input '{own.name}'")
        found.append((tensor, mask))
    return found


def masks_left(model: Any) -> dict[tuple[int, int], Any]:
    """Masks that nested models leave on the tensors that they are called on.

    Keras sets the mask of a call of a nested model on the tensor itself, so that layers that run
    later on the same tensor are masked too.

    Args:
        model: A Functional or Sequential model.

    Returns:
        For the `id` of the first output of a layer's call and the `id` of a tensor that the call
        reads, the mask that was left on the tensor; `None` where the mask was made inside of a
        nested model.
    """
    return _masks_left(model)[0]


def _masks_left(model: Any) -> tuple[dict[tuple[int, int], Any], dict[int, Any]]:
    """The masks that calls find on tensors, and those on each tensor when all calls have run."""
    found: dict[tuple[int, int], Any] = {}
    left: dict[int, Any] = {}
    # Tensors that are, at inference, the very object that a layer was called on.
    same: dict[int, int] = {}
    for node in internals.nodes_in_order(model):
        operation = node.operation
        if not isinstance(operation, keras.Layer) or node.is_input:
            continue
        step = Step(operation, *internals.node_arguments(node), node.outputs)
        for tensor in step.inputs():
            key = same.get(id(tensor), id(tensor))
            if key in left:
                found[id(step.outputs[0]), id(tensor)] = left[key]
        if kind_of(operation) in TRAINING_ONLY | {"Identity"}:
            (tensor, *_), (made, *_) = step.inputs(), step.outputs
            same[id(made)] = same.get(id(tensor), id(tensor))
        elif internals.is_graph_model(operation):
            for tensor, mask in _set_on(step):
                left[same.get(id(tensor), id(tensor))] = mask
    return found, left


def _set_on(step: Step) -> list[tuple[Any, Any]]:
    """The tensors on which a call of a nested model sets a mask, each with the mask."""
    model = step.operation
    tensors = bind(model, step.args, step.kwargs)
    masks = tree.flatten(internals.call_arguments(model, step.args, step.kwargs).get("mask"))
    inside = _masks_left(model)[1]
    found = []
    for position, (tensor, own) in enumerate(zip(tensors, model.inputs, strict=False)):
        if tensor is None or tensor.dtype != own.dtype:
            continue
        mask = masks[position] if position < len(masks) else None
        if mask is not None and _computation(mask) != _computation(internals.mask_of(tensor)):
            found.append((tensor, mask))
        if id(own) in inside:
            found.append((tensor, None))
    return found


def _computation(tensor: Any) -> Any:
    """A value that is equal for tensors that the same operations make of the same tensors.

    Keras computes the mask of a tensor anew when it loads a model.
    """
    step = step_of(tensor) if isinstance(tensor, keras.KerasTensor) else None
    if step is None or isinstance(step.operation, keras.Layer):
        return id(tensor)
    arguments = tree.map_structure(
        lambda leaf: _computation(leaf) if isinstance(leaf, keras.KerasTensor) else leaf,
        (step.args, dict(step.kwargs)),
    )
    return step_key(step.operation, *arguments)


def _is_read(model: Any, own: Any) -> bool:
    """Whether a layer of a model reads the mask of an input; an `Embedding` makes its own."""
    steps = ordered_steps(list(model.outputs), {id(tensor) for tensor in model.inputs}, step_of)
    for step in steps:
        if not any(tensor is own for tensor in step.inputs()):
            continue
        if internals.is_graph_model(step.operation):
            bound = bind(step.operation, step.args, step.kwargs)
            pairs = zip(bound, step.operation.inputs, strict=True)
            if any(_is_read(step.operation, inner) for tensor, inner in pairs if tensor is own):
                return True
        elif isinstance(step.operation, keras.Layer) and not isinstance(
            step.operation, keras.layers.Embedding
        ):
            return True
    return any(tensor is own for tensor in model.outputs)


def mask_carrier(dtype: str, name: str) -> Any:
    """A layer that gives a tensor back with the mask that it is called with.

    Among the layers of Keras that take a mask as an argument and leave it on their output, a
    `TimeDistributed` is the one that can pass its input through.

    Args:
        dtype: The dtype of the tensor.
        name: Name of the layer.
    """
    same = keras.layers.Activation("linear", dtype=dtype, name=f"{name}_same")
    return keras.layers.TimeDistributed(same, dtype=dtype, name=name)
