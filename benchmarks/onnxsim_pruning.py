"""onnxsim's pruning of channels with its recovery, for `accuracy_before_training.py`.

The network is written to ONNX layer by layer with the same weights. Each criterion and scope is
bisected for the largest network that keeps the limit, and what is left is fitted to what the
original gives on the same samples that all others may look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import onnxsim
from onnx import TensorProto, helper, numpy_helper

Arrays = tuple[np.ndarray, np.ndarray]
INPUT, OUTPUT = "x", "logits"
BATCH = 64


def onnxsim_cuts(
    model: keras.Model, samples: np.ndarray, limit: float
) -> Iterator[tuple[str, Callable[[Arrays], float], float]]:
    """What made each network, its accuracy on given data, and its share of the MACs."""
    whole = written(model)
    probe = samples[:8]
    probabilities = run(whole, probe)
    probabilities = np.exp(probabilities - probabilities.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = model.predict(probe, verbose=0)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    batches = [{INPUT: nchw(samples[n : n + BATCH])} for n in range(0, len(samples), BATCH)]
    full = macs(whole)
    for criterion in ("magnitude", "Wanda"):
        for everywhere in (True, False):
            label = f"onnxsim {criterion}, {'global' if everywhere else 'layer'}"
            small = narrowest(whole, criterion, everywhere, batches, limit * full)
            if small is None:
                print(f"  {label:38} does not reach the limit", flush=True)
                continue
            fitted = onnxsim.apply_pruning_finetune(whole, small, batches)
            share = macs(small) / full
            yield label, lambda data, small=small: accuracy(small, data), share
            yield f"{label}, recovered", lambda data, one=fitted: accuracy(one, data), share


def narrowest(
    whole: Any, criterion: str, everywhere: bool, batches: list[dict[str, Any]], limit: float
) -> Any:
    """Bisect the sparsity for the largest network that keeps the limit; `None` if none does.

    Version 0.8.1 cuts convolutions by magnitude alone: by Wanda only dense layers.
    """
    low, high = 0.0, 0.999
    best = None
    for _ in range(9):
        sparsity = (low + high) / 2
        if criterion == "Wanda":
            small = onnxsim.apply_structured_wanda_pruning(
                whole, batches, sparsity=sparsity, global_sparsity=everywhere
            )
        else:
            small = onnxsim.apply_structured_pruning(
                whole, sparsity=sparsity, global_sparsity=everywhere
            )
        if macs(small) <= limit:
            high, best = sparsity, small
        else:
            low = sparsity
    return best


def written(model: keras.Model) -> Any:
    """A sequence of convolutions, poolings and dense layers as an ONNX graph, up to the logits."""
    nodes: list[Any] = []
    constants: list[Any] = []
    tensor, shape = INPUT, (28, 28, 1)

    def add(kind: str, *weights: np.ndarray, **attributes: Any) -> None:
        nonlocal tensor
        names = [f"{kind}_{len(nodes)}_{number}" for number in range(len(weights))]
        constants.extend(map(numpy_helper.from_array, weights, names))
        made = f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, [tensor, *names], [made], made, **attributes))
        tensor = made

    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            add("Conv", np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), bias)
            add("Relu")
        elif isinstance(layer, keras.layers.MaxPooling2D):
            add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
        elif isinstance(layer, keras.layers.Flatten):
            shape = tuple(layer.input.shape[1:])
            add("Flatten")
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            if len(kernel) == int(np.prod(shape)):  # ONNX flattens channels first
                kernel = kernel.reshape(*shape, -1).transpose(2, 0, 1, 3).reshape(len(kernel), -1)
            add("Gemm", np.ascontiguousarray(kernel.T), bias, transB=1)
            add("Relu")
    nodes.pop()  # the last activation, a softmax
    nodes[-1].output[0] = OUTPUT
    given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 1, 28, 28])
    taken = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", 10])
    graph = helper.make_graph(nodes, "network", [given], [taken], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def macs(model: Any) -> int:
    """Multiplications of convolutions and dense layers for one sample."""
    inferred = onnx.shape_inference.infer_shapes(model)
    values = [*inferred.graph.value_info, *inferred.graph.output]
    sides = {
        one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim[2:]] for one in values
    }
    sizes = {one.name: int(np.prod(one.dims)) for one in model.graph.initializer}
    return sum(
        sizes[node.input[1]] * int(np.prod(sides[node.output[0]]))
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm")
    )


def run(model: Any, x: np.ndarray) -> np.ndarray:
    """Logits in ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    parts = [
        session.run(None, {INPUT: nchw(part)})[0] for part in np.array_split(x, -(-len(x) // 1000))
    ]
    return np.concatenate(parts)


def accuracy(model: Any, data: Arrays) -> float:
    """The share of right classes."""
    return float((run(model, data[0]).argmax(axis=1) == data[1]).mean())


def nchw(x: np.ndarray) -> np.ndarray:
    """Pictures as ONNX takes them."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
