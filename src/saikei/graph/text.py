"""`TextVectorization` gives a tensor of one axis less than Keras works out for it.

Of texts of shape `(batch, 1)` it drops the second axis before it splits them, which its
`compute_output_shape` leaves in. Layers behind it that depend on the number of axes, such as
PReLU, would be built for tensors that never come.
"""

from __future__ import annotations

import keras

from saikei.errors import ModelError
from saikei.graph.flat import Call, Graph, Operation


def with_true_text_shapes(graph: Graph) -> Graph:
    """The graph with that axis dropped before the layer, so that all shapes behind it are true."""
    # It builds on `read`, which ends with this.
    from saikei.graph.rewrite import new_operation, replace_operations, unused_name

    wrong = dict.fromkeys(call.operation for call in graph.calls if _is_wrong(graph, call))
    for operation in map(graph.operations.__getitem__, wrong):
        name = unused_name(graph, f"{operation.name}_texts")
        drop = new_operation(name, keras.layers.Reshape((), dtype="string", name=name))
        try:
            graph = replace_operations(graph, {operation.name: (drop, operation)})
        except ModelError:
            # What reads it wants the axis that Keras works out, and would fail on data.
            continue
    return graph


def drops_text_axis(operation: Operation) -> bool:
    """Whether it is what `with_true_text_shapes` puts before a layer."""
    return operation.kind == "Reshape" and (operation.config or {}).get("target_shape") == ()


def _is_wrong(graph: Graph, call: Call) -> bool:
    operation = graph.operations[call.operation]
    config = operation.config or {}
    if operation.kind != "TextVectorization" or config.get("split") is None:
        return False
    (taken,) = (graph.spec(ref) for ref in call.inputs())
    return len(taken.shape) > 1 and len(call.outputs[0].shape) > len(taken.shape)
