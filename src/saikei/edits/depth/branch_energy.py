"""How much of a sum comes from its branch, guessed from weights alone.

The mean square of every tensor is worked out from the layers' weights, as if channels were
independent: a normalisation gives γ² + β² whatever it reads, a linear layer Σw²/outputs times
what it reads plus b², a ReLU half of it, a sum the sum. The share of the branch in the sum is
then a score. It ignores the data, and what later layers do with the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from saikei.edits.depth.dominators import NORMALISATIONS
from saikei.edits.depth.units import Unit
from saikei.edits.folding.no_ops import activation_name
from saikei.graph import Call, Graph, Operation, TensorRef, Weight

# E[f(x)²] / E[x²] for normal x; gates in [0, 1] do not depend much on what they read.
_FACTORS = {
    "relu": 0.5,
    "relu6": 0.5,
    "gelu": 0.43,
    "silu": 0.36,
    "swish": 0.36,
    "tanh": 0.4,
}
_GATES = {"sigmoid": 0.25, "hard_sigmoid": 0.25}
# Attention averages values by weights that sum to one, so that their mean square is at most kept.
_ONE = {"InputLayer", "Softmax", "ops.OnesLike", "ops.Softmax"}
_ATTENTION = {"MultiHeadAttention", "GroupedQueryAttention"}


def branch_shares(graph: Graph, units: Sequence[Unit]) -> list[float | None]:
    """For each unit, the part of its outputs' mean square that comes from branches.

    `None` for plain layers, which have no branch, and where a layer's kind is unknown.
    """
    energies: list[float | None] = []
    for call in graph.calls:
        given = [energies[ref.call] for ref in call.inputs()]
        energies.append(_energy(call, graph.operations[call.operation], given))
    return [_share(graph, unit, energies) for unit in units]


def _share(graph: Graph, unit: Unit, energies: Sequence[float | None]) -> float | None:
    total = 0.0
    for given, taken in unit.around.items():
        whole, shortcut = energies[given.call], energies[taken.call]
        if unit.kind == "plain" or whole is None or shortcut is None:
            return None
        # Where the sum of a block's shortcut comes from an earlier part of it, each part counts.
        total += max(whole - shortcut, 0.0) / whole if whole > 0 else 0.0
    return total


def _energy(call: Call, operation: Operation, given: Sequence[float | None]) -> float | None:
    """The mean square of a call's output; `None` where it is unknown."""
    kind = operation.kind
    if kind in _ONE:
        return 1.0
    if kind in NORMALISATIONS:
        return _mean_square(operation, "gamma", 1.0) + _mean_square(operation, "beta", 0.0)
    if "embeddings" in operation.weights:
        return _mean_square(operation, "embeddings", 1.0)
    if kind == "ops.ZerosLike":
        return 0.0
    if kind == "ops.Where":
        # What is chosen from, without the condition.
        given = given[1:]
    known = [energy for energy in given if energy is not None]
    if len(known) < len(given) or not known:
        return None
    if operation.weights:
        return _weighted(operation, known)
    if kind in ("ops.Reciprocal", "ops.Rsqrt"):
        # Of a mean square, as in a normalisation that is written out.
        return 1 / max(known[0], 1e-30)
    if len(known) == 1:
        name = activation_name(operation) or operation.kind.rpartition(".")[2].lower()
        return _GATES.get(name, known[0] * _FACTORS.get(name, 1.0) * _constants(call, kind))
    return _merged(operation, known)


def _weighted(operation: Operation, given: Sequence[float]) -> float | None:
    kernels = _kernels(operation)
    if kernels is None:
        return None
    energy = given[0]
    for kernel, outputs in kernels:
        energy *= float(np.square(kernel.numpy().astype(np.float64)).sum()) / outputs
    energy += _mean_square(operation, "bias", 0.0)
    name = activation_name(operation) or ""
    return _GATES.get(name, energy * _FACTORS.get(name, 1.0))


def _kernels(operation: Operation) -> list[tuple[Weight, int]] | None:
    """The kernels that the input goes through, each with its number of outputs."""
    weights = operation.weights
    kind = operation.kind.rpartition(".")[2]
    if kind == "LayerScale":
        return [(weight, weight.shape[-1]) for weight in weights.values()]
    if kind in _ATTENTION:
        value = [w for name, w in weights.items() if name.endswith("value_dense/kernel")]
        out = [w for name, w in weights.items() if name.endswith("output_dense/kernel")]
        if len(value) == len(out) == 1:
            return [(value[0], int(np.prod(value[0].shape[1:]))), (out[0], out[0].shape[-1])]
        return None
    kernels = [w for name, w in weights.items() if name.endswith("kernel")]
    if not kernels or any("/" in name for name in weights):
        return None
    return [(kernel, _outputs(operation.kind, kernel.shape, i)) for i, kernel in enumerate(kernels)]


def _outputs(kind: str, shape: tuple[int, ...], position: int) -> int:
    if kind.startswith("Depthwise") or (kind.startswith("Separable") and position == 0):
        return shape[-1] * shape[-2]
    return shape[-2] if kind.endswith("Transpose") else shape[-1]


def _merged(operation: Operation, given: Sequence[float]) -> float | None:
    kind = operation.kind.removeprefix("ops.")
    if kind in ("Add", "Subtract"):
        return sum(given)
    if kind == "CustomScaleLayer":
        scale = float((operation.config or {}).get("scale", 1.0))
        return given[0] + scale**2 * sum(given[1:])
    if kind in ("Einsum", "Matmul", "Multiply"):
        return float(np.prod(given))
    if kind == "Take":
        return given[0]
    if kind == "Where":
        return max(given)
    return sum(given) / len(given) if kind in ("Average", "Concatenate", "Stack") else None


def _constants(call: Call, kind: str) -> float:
    """What multiplying by a constant does."""
    if kind != "ops.Multiply":
        return 1.0
    constants = [leaf for leaf in call.leaves() if not isinstance(leaf, TensorRef)]
    return float(np.prod([np.square(np.asarray(c, np.float64)).mean() for c in constants]))


def _mean_square(operation: Operation, name: str, default: float) -> float:
    weights: Mapping[str, Weight] = operation.weights
    if name not in weights:
        return default
    return float(np.square(weights[name].numpy().astype(np.float64)).mean())
