"""Products that sum over axes: einsum, matmul, tensordot, and dense layers given by equations.

Each axis of each operand has a letter. Axes of one letter carry the same channels; a letter that
the result does not have is summed over, to which a silent channel adds nothing.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saikei.rules.activations import mixes_channels
from saikei.rules.base import CallView, Rule, Shape, no_macs, pinned_flow
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector
from saikei.rules.merging import tie_axis

UNKNOWN = "used in a way that its rule does not know"


@dataclass(frozen=True)
class Equation:
    """The letters of each operand's axes, and of the result's."""

    operands: tuple[str, ...]
    result: str

    def sizes(self, shapes: Sequence[Shape]) -> dict[str, int | None]:
        """The size of each letter; where one operand is broadcast, that of the other."""
        sizes: dict[str, int | None] = {}
        for letters, shape in zip(self.operands, shapes, strict=True):
            for letter, size in zip(letters, shape, strict=True):
                if sizes.get(letter, 1) == 1:
                    sizes[letter] = size
        return sizes

    def macs(self, shapes: Sequence[Shape], batch: str) -> int:
        """Multiply-accumulates for one sample; none where nothing is summed.

        Args:
            shapes: The shapes of the operands.
            batch: The letter of the batch axis.
        """
        letters = set("".join(self.operands))
        if len(self.operands) < 2 or letters <= set(self.result):
            return 0
        sizes = self.sizes(shapes)
        return int(np.prod([sizes[x] or 1 for x in letters if x != batch], dtype=np.int64))


def parse(subscripts: str, ranks: Sequence[int]) -> Equation | None:
    """An einsum string with its ellipses written out; `None` where it is not well-formed."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        return None
    unused = [x for x in string.ascii_letters if x not in subscripts]
    spare = [
        rank - len(term.replace("...", "")) if "..." in term else 0
        for term, rank in zip(terms, ranks, strict=True)
    ]
    if min(spare) < 0:
        return None
    fill = "".join(unused[: max(spare)])
    operands = tuple(
        term.replace("...", fill[len(fill) - extra :])
        for term, extra in zip(terms, spare, strict=True)
    )
    if any(len(term) != rank for term, rank in zip(operands, ranks, strict=True)):
        return None
    joined = "".join(operands)
    once = "".join(sorted(x for x in set(joined) - set(fill) if joined.count(x) == 1))
    return Equation(operands, right.replace("...", fill) if arrow else fill + once)


@dataclass(frozen=True)
class Operand:
    """A factor of a product: its shape and labels, and where it stands if it is constant."""

    shape: Shape
    labels: Labels
    constant: int | None = None


def operands_of(
    call: CallView, inputs: tuple[Labels, ...], source: LabelSource
) -> tuple[Operand, ...]:
    """Tensors and constant arrays among the arguments, in order; constants get new labels."""
    arrays = call.arrays()
    tensors = {at: i for i, at in enumerate(call.tensor_positions)}
    found: list[Operand] = []
    for at in sorted({*arrays, *tensors}):
        if at in tensors:
            found.append(Operand(call.inputs[tensors[at]], inputs[tensors[at]]))
            continue
        shape = tuple(np.shape(arrays[at]))
        labels = tuple(source.fresh(n, call.operation) if n > 1 else None for n in shape)
        found.append(Operand(shape, labels, at))
    return tuple(found)


def contract(equation: Equation, operands: Sequence[Operand]) -> Flow:
    """How labels pass through the product of some tensors."""
    parts: dict[str, list[tuple[int | None, Vector | None]]] = {}
    for letters, operand in zip(equation.operands, operands, strict=True):
        for letter, size, vector in zip(letters, operand.shape, operand.labels, strict=True):
            parts.setdefault(letter, []).append((size, vector))
    of: dict[str, Vector | None] = {}
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    for letter, axes in parts.items():
        of[letter], new_ties, new_pins = tie_axis(axes)
        ties, pins = ties + new_ties, pins + new_pins
    constants = {o.constant: o.labels for o in operands if o.constant is not None}
    result = tuple(of[letter] for letter in equation.result)
    return Flow(outputs=(result,), constants=constants, ties=ties, pins=pins)


def _einsum_equation(call: CallView, ranks: Sequence[int]) -> Equation | None:
    return parse(str(call.config.get("subscripts", "")), ranks)


def _matmul_equation(call: CallView, ranks: Sequence[int]) -> Equation | None:
    if len(ranks) != 2 or not all(ranks):
        return None
    first, second = ranks
    batch = string.ascii_uppercase[: max(first, second, 2) - 2]
    left = "k" if first == 1 else batch[len(batch) - (first - 2) :] + "ik"
    right = "k" if second == 1 else batch[len(batch) - (second - 2) :] + "kj"
    result = batch + ("i" if first > 1 else "") + ("j" if second > 1 else "")
    return Equation((left, right), result)


def _dot_equation(call: CallView, ranks: Sequence[int]) -> Equation | None:
    """`numpy.dot`: the last axis of the first with the last but one of the second."""
    if len(ranks) != 2 or not all(ranks):
        return None
    first, second = ranks
    return _summed(first, second, [first - 1], [max(second - 2, 0)])


def _inner_equation(call: CallView, ranks: Sequence[int]) -> Equation | None:
    if len(ranks) != 2 or not all(ranks):
        return None
    return _summed(ranks[0], ranks[1], [ranks[0] - 1], [ranks[1] - 1])


def _outer_equation(call: CallView, ranks: Sequence[int]) -> Equation | None:
    return Equation(("a", "b"), "ab") if tuple(ranks) == (1, 1) else None


def _tensordot_equation(call: CallView, ranks: Sequence[int]) -> Equation | None:
    if len(ranks) != 2:
        return None
    first, second = ranks
    axes = call.config.get("axes", 2)
    if isinstance(axes, int):
        return _summed(first, second, [*range(first - axes, first)], [*range(axes)])
    left, right = ([a] if isinstance(a, int) else list(a) for a in axes)
    return _summed(first, second, [a % first for a in left], [a % second for a in right])


def _summed(first: int, second: int, left: list[int], right: list[int]) -> Equation:
    """All axes of both in order, without those that are summed in pairs."""
    letters = [string.ascii_lowercase[a] for a in range(first)]
    others = [string.ascii_uppercase[a] for a in range(second)]
    for a, b in zip(left, right, strict=True):
        others[b] = letters[a]
    result = [x for x in letters + others if letters.count(x) + others.count(x) == 1]
    return Equation(("".join(letters), "".join(others)), "".join(result))


def _layer_equation(call: CallView, ranks: Sequence[int]) -> Equation | None:
    """`keras.layers.Dot`: products of two tensors sample by sample."""
    if len(ranks) != 2:
        return None
    first, second = ranks
    axes = call.config["axes"]
    left, right = (axes, axes) if isinstance(axes, int) else axes
    letters = [string.ascii_lowercase[a] for a in range(first)]
    others = [letters[0]] + [string.ascii_uppercase[a] for a in range(1, second)]
    others[right % second] = letters[left % first]
    summed = letters[left % first]
    result = [x for x in letters + others[1:] if x != summed]
    return Equation(("".join(letters), "".join(others)), "".join(result))


def _rule(equation_of: Any) -> Rule:
    def flow(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
        operands = operands_of(call, inputs, source)
        equation = equation_of(call, [len(o.shape) for o in operands])
        if equation is None:
            return pinned_flow(call, inputs, UNKNOWN)
        found = contract(equation, operands)
        missing = len(call.outputs[0]) - len(found.outputs[0])
        if missing == 0:
            return found
        # `Dot` of two vectors gives them an axis of size 1.
        padded = (*found.outputs[0], *(None,) * missing)
        return Flow((padded,), constants=found.constants, ties=found.ties, pins=found.pins)

    def macs(call: CallView) -> int:
        shapes = _operand_shapes(call)
        equation: Equation | None = equation_of(call, [len(shape) for shape in shapes])
        if equation is None or not call.inputs:
            return 0
        # The first axis of the first tensor does not count: see `Rule`.
        order = sorted({*call.arrays(), *call.tensor_positions})
        letters = equation.operands[order.index(call.tensor_positions[0])]
        known = call.inputs[0][:1] != (None,)
        return equation.macs(shapes, letters[:1] if known else "")

    return Rule(flow, macs)


def _operand_shapes(call: CallView) -> list[Shape]:
    arrays = call.arrays()
    tensors = dict(zip(call.tensor_positions, call.inputs, strict=True))
    return [
        tensors[at] if at in tensors else tuple(np.shape(arrays[at]))
        for at in sorted({*arrays, *tensors})
    ]


def _dense_equation(call: CallView) -> Equation | None:
    return parse(str(call.config["equation"]), (len(call.inputs[0]), len(call.weights["kernel"])))


def _einsum_dense(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    """The letters of the result that the input does not have are new channels."""
    equation = None if "kernel" not in call.weights else _dense_equation(call)
    if equation is None:
        return pinned_flow(call, inputs, UNKNOWN)
    given, kernel = equation.operands
    of: dict[str, Vector | None] = dict(zip(given, inputs[0], strict=True))
    sizes = dict(zip(kernel, call.weights["kernel"], strict=True))
    new = [letter for letter in equation.result if letter not in of]
    for letter in new:
        part = letter if len(new) > 1 else ""
        of[letter] = source.fresh(int(sizes[letter] or 1), call.operation, part)
    weights: dict[str, Labels] = {"kernel": tuple(of[letter] for letter in kernel)}
    outputs = tuple(of[letter] for letter in equation.result)
    pairs = zip(outputs, call.outputs[0], strict=True)
    if any(vector is not None and len(vector) != size for vector, size in pairs):
        # Keras turns the order of the axes that dots stand for when it infers the shape.
        return pinned_flow(call, inputs, UNKNOWN)
    if "bias" in call.weights:
        shape = call.weights["bias"]
        weights["bias"] = tuple(
            vector if size != 1 else None
            for size, vector in zip(shape, outputs[len(outputs) - len(shape) :], strict=True)
        )
    reason = mixes_channels(call.config.get("activation"))
    pins = () if reason is None else tuple(Pin(v, reason) for v in outputs if v is not None)
    produced = tuple(axis for axis, letter in enumerate(kernel) if letter in equation.result)
    produces = {name: tuple(range(len(labels))) for name, labels in weights.items()}
    return Flow(
        outputs=(outputs,),
        weights=weights,
        sizes={"output_shape": _output_sizes(call, outputs)},
        pins=pins,
        produces={**produces, "kernel": produced},
    )


def _output_sizes(call: CallView, outputs: Labels) -> tuple[object, ...]:
    """The config's output shape, which leaves out the batch axis and what `...` stands for."""
    given = call.config["output_shape"]
    shape = (given,) if isinstance(given, int) else tuple(given)
    start = len(outputs) - len(shape) if str(call.config["equation"]).startswith("...") else 1
    return tuple(
        size if vector is None or size is None else vector
        for size, vector in zip(shape, outputs[start : start + len(shape)], strict=True)
    )


def _einsum_dense_macs(call: CallView) -> int:
    equation = None if "kernel" not in call.weights else _dense_equation(call)
    if equation is None:
        return 0
    return equation.macs((call.inputs[0], call.weights["kernel"]), equation.operands[0][:1])


RULES: dict[str, Rule] = {
    "EinsumDense": Rule(_einsum_dense, _einsum_dense_macs),
    "Dot": _rule(_layer_equation),
    "ops.Einsum": _rule(_einsum_equation),
    "ops.Matmul": _rule(_matmul_equation),
    "ops.Dot": _rule(_dot_equation),
    "ops.Inner": _rule(_inner_equation),
    "ops.Outer": Rule(_rule(_outer_equation).flow, no_macs),
    "ops.Tensordot": _rule(_tensordot_equation),
}
