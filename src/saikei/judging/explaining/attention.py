"""What a model looks at in a sample: gradient times input, and Grad-CAM.

- Gradient times input: Shrikumar et al., "Not Just a Black Box", 2016.
- Grad-CAM: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
  Localization", 2017.

Both need gradients by tensors, and `weight_gradients` gives those by weights. So a layer that adds
a weight of zeros is put behind each tensor: the gradient by that weight is that by the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray

from saikei.graph import (
    Call,
    Graph,
    TensorRef,
    build,
    layers_of,
    new_operation,
    new_weight,
    read,
    unused_name,
)
from saikei.importance.gradients import weight_gradients
from saikei.scoring.links import link_of_task, logits_of
from saikei.scoring.task import Task
from saikei.tensors import to_floats

# Samples whose gradients are computed at once.
BATCH = 16

Array = NDArray[Any]


class Offset(keras.layers.Layer):
    """Adds a weight of the tensor's own shape, batch axis included. It is never saved.

    Args:
        shape: The shape of the weight.
        **kwargs: Arguments of every Keras layer, such as `name`.
    """

    def __init__(self, shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = tuple(shape)
        self.offset = self.add_weight(shape=self.shape, initializer="zeros", name="offset")

    def call(self, x: Any) -> Any:
        """The tensor plus the weight."""
        return ops.add(x, ops.cast(self.offset, x.dtype))

    def compute_output_shape(self, shape: Any) -> Any:
        """The shape of the tensor."""
        return shape

    def get_config(self) -> dict[str, Any]:
        """The shape and the arguments of a layer."""
        return {**super().get_config(), "shape": list(self.shape)}


@dataclass(frozen=True, eq=False)
class Maps:
    """What a model looks at in some samples.

    Args:
        gradients: For each input of floats by its name, gradient times input, of its shape.
        cam: The Grad-CAM maps `(rows, height, width)` in the size of a layer's output; `None` for
            a model without such a layer.
    """

    gradients: dict[str, Array]
    cam: Array | None


def maps_of(model: keras.Model, tasks: Sequence[Task], inputs: Any, about: Sequence[Array]) -> Maps:
    """Compute the maps of a model.

    Args:
        model: A built model; it is not changed.
        tasks: What each output learns.
        inputs: Samples, nested as the model takes them.
        about: For each output the weights `(rows, …, classes)` by which its logits, or its
            numbers, are summed to the value that the maps explain.

    Raises:
        ModelError: When the model cannot be read.
    """
    graph = read(model)
    arrays = {
        graph.calls[ref.call].operation: (ref, np.asarray(array))
        for ref, array in zip(graph.input_refs(), tree.flatten(inputs), strict=True)
    }
    floats = {n: pair for n, pair in arrays.items() if graph.spec(pair[0]).dtype.startswith("f")}
    layer = last_image(graph)
    if not floats and layer is None:
        return Maps({}, None)
    probed, names = graph, dict[TensorRef, str]()
    # From the last call to the first, so that the calls before keep their numbers.
    at = {ref: (BATCH, *array.shape[1:]) for ref, array in floats.values()}
    at |= {} if layer is None else {layer: (BATCH, *_sizes(graph, layer, inputs))}
    for ref in sorted(at, key=lambda one: one.call, reverse=True):
        probed, names[ref] = _with_offset(probed, ref, at[ref], shown=ref == layer)
    found = _gradients(build(probed), probed, tasks, inputs, about, list(names.values()))
    of = dict(zip(names, found.gradients, strict=True))
    gradients = {name: array * of[ref] for name, (ref, array) in floats.items()}
    if layer is None:
        return Maps(gradients, None)
    axis = 1 if _channels_first(graph) else -1
    weights = of[layer].mean(axis=(2, 3) if axis == 1 else (1, 2), keepdims=True)
    return Maps(gradients, np.maximum((weights * found.values).sum(axis=axis), 0))


def last_image(graph: Graph) -> TensorRef | None:
    """The last tensor with two axes for positions: what Grad-CAM explains by.

    Outputs of the model do not count, nor tensors of a single position. A model that takes no
    images has none: the heads of its attention are no positions.
    """
    found, outputs = None, graph.output_refs()
    if all(len(graph.spec(ref).shape) < 4 for ref in graph.input_refs()):
        return None
    first = _channels_first(graph)
    for index, call in enumerate(graph.calls):
        if len(call.outputs) != 1 or call.outputs[0].steps or not call.inputs():
            continue
        shape, ref = call.outputs[0].shape, TensorRef(index, 0)
        if len(shape) != 4 or ref in outputs or not call.outputs[0].dtype.startswith(("f", "b")):
            continue
        sides = shape[2:] if first else shape[1:3]
        if sides != (1, 1):
            found = ref
    return found


def _channels_first(graph: Graph) -> bool:
    return any(
        (operation.config or {}).get("data_format") == "channels_first"
        for operation in graph.operations.values()
    )


def _sizes(graph: Graph, ref: TensorRef, inputs: Any) -> tuple[int, ...]:
    """The shape of a sample of a tensor; of unknown sizes, those that the first sample leads to."""
    shape = graph.spec(ref).shape[1:]
    if None not in shape:
        return tuple(int(size) for size in shape if size is not None)
    head = build(replace(graph, outputs=[ref]))
    one = tree.map_structure(lambda leaf: np.asarray(leaf)[:1], inputs)
    return tuple(tree.flatten(head.predict_on_batch(one))[0].shape[1:])


def _with_offset(
    graph: Graph, ref: TensorRef, shape: tuple[int, ...], shown: bool
) -> tuple[Graph, str]:
    """The graph with an `Offset` behind a tensor, and its name; `shown` makes it an output too."""
    name = unused_name(graph, "offset")
    offset = new_operation(name, Offset(shape), {"offset": new_weight(np.zeros(shape, "float32"))})

    def moved(leaf: Any) -> Any:
        later = isinstance(leaf, TensorRef) and leaf.call > ref.call
        return TensorRef(leaf.call + 1, leaf.output) if later else leaf

    def behind(leaf: Any) -> Any:
        return TensorRef(ref.call + 1, 0) if leaf == ref else moved(leaf)

    calls = list(graph.calls[: ref.call + 1])
    calls.append(Call(name, (ref,), {}, (graph.spec(ref),)))
    for call in graph.calls[ref.call + 1 :]:
        args, kwargs = tree.map_structure(behind, (call.args, dict(call.kwargs)))
        calls.append(replace(call, args=args, kwargs=kwargs))
    outputs = [behind(one) for one in graph.output_refs()]
    changed = replace(
        graph,
        operations={**graph.operations, name: offset},
        calls=tuple(calls),
        inputs=tree.map_structure(moved, graph.inputs),
        outputs=outputs + ([TensorRef(ref.call + 1, 0)] if shown else []),
    )
    return changed, name


@dataclass(frozen=True, eq=False)
class _Found:
    gradients: list[Array]
    values: Array


def _gradients(
    model: keras.Model,
    graph: Graph,
    tasks: Sequence[Task],
    inputs: Any,
    about: Sequence[Array],
    names: Sequence[str],
) -> _Found:
    """Gradients by the offsets, and the output behind those of the tasks, for all samples."""
    links = [link_of_task(task) for task in tasks]

    def value(outputs: list[Any], weights: Any) -> Any:
        parts = [
            ops.sum(ops.cast(logits_of(output, link), "float32") * ops.reshape(w, output.shape))
            for output, link, w in zip(outputs, links, weights, strict=False)
        ]
        return sum(parts[1:], start=parts[0])

    layers = layers_of(graph, model)
    offsets = [layers[name].offset for name in names]
    positions = [next(i for i, w in enumerate(model.weights) if w is one) for one in offsets]
    gradients_of = weight_gradients(model, value, offsets)
    rows = len(about[0])
    parts: list[list[Array]] = []
    for start in range(0, rows, BATCH):
        # The last batch is filled up, since an offset has a number for each of its rows.
        index = np.arange(start, start + BATCH).clip(max=rows - 1)
        x, y = tree.map_structure(
            lambda leaf, at=index: np.asarray(leaf)[at], (inputs, list(about))
        )
        gradients = gradients_of(x, y)
        outputs = tree.flatten(model.predict_on_batch(x))
        values = to_floats(outputs[len(tasks)]) if len(outputs) > len(tasks) else np.zeros(BATCH)
        keep = min(BATCH, rows - start)
        parts.append([*(gradients[at][:keep] for at in positions), values[:keep]])
    *found, values = (np.concatenate(one) for one in zip(*parts, strict=True))
    return _Found(list(found), values)
