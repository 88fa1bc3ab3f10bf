"""Products over named axes: `EinsumDense`, `einsum`, `matmul`."""

from __future__ import annotations

import string
from collections.abc import Sequence

from saikei.rules.activations import activation_pins
from saikei.rules.base import CallView, Rule, Shape, pinned_flow, product
from saikei.rules.labels import Flow, Labels, LabelSource, Pin, Tie, Vector
from saikei.rules.merging import tie_axis

_Letters = tuple[list[str], str]


def _parse(equation: str, ranks: Sequence[int]) -> _Letters | None:
    """Letters of each operand and of the result; an ellipsis becomes capital letters."""
    if equation.count("->") != 1:
        return None
    left, out = equation.replace(" ", "").split("->")
    operands = left.split(",")
    if len(operands) != len(ranks):
        return None
    spelled: list[str] = []
    longest = ""
    for operand, rank in zip(operands, ranks, strict=True):
        hidden = rank - len(operand.replace("...", ""))
        letters = string.ascii_uppercase[26 - hidden :] if hidden > 0 else ""
        if "..." in operand:
            longest = max(longest, letters, key=len)
        spelled.append(operand.replace("...", letters))
        if len(spelled[-1]) != rank or len(set(spelled[-1])) != rank:
            return None
    return spelled, out.replace("...", longest)


def _contract(
    operands: Sequence[tuple[str, Shape, Labels]],
) -> tuple[dict[str, Vector | None], tuple[Tie, ...], tuple[Pin, ...]]:
    """Labels of each letter: an axis that operands share is the same channels in both."""
    found: dict[str, Vector | None] = {}
    ties: tuple[Tie, ...] = ()
    pins: tuple[Pin, ...] = ()
    for letter in dict.fromkeys("".join(letters for letters, _, _ in operands)):
        parts = [
            (shape[letters.index(letter)], labels[letters.index(letter)])
            for letters, shape, labels in operands
            if letter in letters
        ]
        found[letter], new_ties, new_pins = tie_axis(parts)
        ties, pins = ties + new_ties, pins + new_pins
    return found, ties, pins


def _einsum_dense(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    kernel_shape = call.weights["kernel"]
    parsed = _parse(call.config["equation"], (len(inputs[0]), len(kernel_shape)))
    if parsed is None or len(parsed[1]) != len(call.outputs[0]):
        return pinned_flow(call, inputs, "its equation is of a form that its rule does not know")
    (given, kernel), out = parsed
    found: dict[str, Vector | None] = dict(zip(given, inputs[0], strict=True))
    for letter, size in zip(kernel, kernel_shape, strict=True):
        if letter not in given:
            found[letter] = source.fresh(int(size or 0), call.operation)
    pins = tuple(
        Pin(vector, f"'{call.operation}' sums over this axis alone")
        for letter, vector in found.items()
        if vector is not None and letter not in kernel and letter not in out
    )
    labels = tuple(found[letter] for letter in out)
    weights: dict[str, Labels] = {"kernel": tuple(found[letter] for letter in kernel)}
    if "bias" in call.weights:
        shape = call.weights["bias"]
        aligned = zip(shape, labels[len(labels) - len(shape) :], strict=True)
        weights["bias"] = tuple(
            vector if vector is not None and size == len(vector) else None
            for size, vector in aligned
        )
    made = [found[letter] for letter in kernel if letter not in given]
    for vector in made:
        if vector is not None:
            pins += activation_pins(call, vector)
    produced = tuple(("kernel", i) for i, letter in enumerate(kernel) if letter not in given)
    return Flow(
        outputs=(labels,),
        weights=weights,
        sizes=_output_shape(call, labels),
        pins=pins,
        produced=produced,
    )


def _output_shape(call: CallView, labels: Labels) -> dict[str, object]:
    """The config's output shape, which leaves out the batch and what an ellipsis stands for."""
    shape = call.config["output_shape"]
    given = list(shape) if isinstance(shape, (list, tuple)) else [shape]
    tail = labels[len(labels) - len(given) :]
    sizes = tuple(
        size if vector is None or size is None else vector
        for size, vector in zip(given, tail, strict=True)
    )
    return {"output_shape": sizes}


def _einsum_dense_macs(call: CallView) -> int:
    parsed = _parse(call.config["equation"], (len(call.inputs[0]), len(call.weights["kernel"])))
    if parsed is None:
        return product(call.outputs[0][1:]) * product(call.weights["kernel"])
    (given, kernel), _ = parsed
    sizes = dict(zip(kernel, call.weights["kernel"], strict=True))
    sizes |= dict(zip(given, call.inputs[0], strict=True))
    return product(tuple(size for letter, size in sizes.items() if letter != given[0]))


def _contraction(call: CallView, inputs: tuple[Labels, ...], parsed: _Letters | None) -> Flow:
    if parsed is None or len(call.inputs) != len(parsed[0]):
        return pinned_flow(call, inputs, "it is called in a way that its rule does not know")
    operands = list(zip(parsed[0], call.inputs, inputs, strict=True))
    found, ties, pins = _contract(operands)
    for letter, vector in found.items():
        alone = sum(letter in letters for letters in parsed[0]) == 1
        if vector is not None and alone and letter not in parsed[1]:
            pins += (Pin(vector, f"'{call.operation}' sums over this axis alone"),)
    return Flow((tuple(found[letter] for letter in parsed[1]),), ties=ties, pins=pins)


def _einsum_letters(call: CallView) -> _Letters | None:
    texts = [a for a in call.arguments if isinstance(a, str)]
    equation = call.config.get("subscripts") or (texts[0] if texts else "")
    return _parse(str(equation), [len(shape) for shape in call.inputs])


def _matmul_letters(call: CallView) -> _Letters | None:
    if len(call.inputs) != 2 or min(len(shape) for shape in call.inputs) < 2:
        return None
    batch = string.ascii_uppercase
    first, second = (batch[26 - (len(shape) - 2) :] for shape in call.inputs)
    first, second = (
        b if len(s) > 2 else "" for b, s in zip((first, second), call.inputs, strict=True)
    )
    return [f"{first}ij", f"{second}jk"], f"{max(first, second, key=len)}ik"


def _einsum(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    return _contraction(call, inputs, _einsum_letters(call))


def _matmul(call: CallView, inputs: tuple[Labels, ...], source: LabelSource) -> Flow:
    return _contraction(call, inputs, _matmul_letters(call))


def _contraction_macs(call: CallView, parsed: _Letters | None) -> int:
    if parsed is None or len(parsed[0]) != len(call.inputs):
        return 0
    sizes: dict[str, int | None] = {}
    for letters, shape in zip(parsed[0], call.inputs, strict=True):
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size or 1, sizes.get(letter) or 1)
    return product(tuple(sizes.values()))


def _einsum_macs(call: CallView) -> int:
    return _contraction_macs(call, _einsum_letters(call))


def _matmul_macs(call: CallView) -> int:
    return _contraction_macs(call, _matmul_letters(call))


RULES: dict[str, Rule] = {
    "EinsumDense": Rule(_einsum_dense, _einsum_dense_macs),
    "ops.Einsum": Rule(_einsum, _einsum_macs),
    "ops.Matmul": Rule(_matmul, _matmul_macs),
}
