"""Code that makes a member take the inputs of another one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras

from saikei.graph import TensorSpec


def how_to_fit(ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec], alone: bool) -> str:
    """Advice that makes the second of two members take the inputs of the first.

    Returns:
        A sentence without its full stop: code where layers of Keras lead from one to the other.
    """
    otherwise = (
        "No layer of Keras makes one of the other: give members that were trained on the same "
        "inputs, or use Multimodal for members that read different things"
    )
    if len(ours) != len(theirs):
        return otherwise
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    layers = [_layers(a, b) for a, b in pairs]
    if any(layer is None for layer in layers):
        return otherwise
    if not alone:
        steps = " and ".join(str(layer).format(x="that input") for layer in layers)
        return f"Put the second behind a model of its own that gives it {steps}"
    dtype = "" if ours[0].dtype == "float32" else f", dtype='{ours[0].dtype}'"
    return (
        f"Make the second take what the first takes, x = keras.Input({ours[0].shape[1:]}{dtype}); "
        f"member = keras.Model(x, member({str(layers[0]).format(x='x')}))"
    )


def _layers(ours: TensorSpec, theirs: TensorSpec) -> str | None:
    """Code that turns the first input, `{x}`, into the second; `None` where no layer does."""
    given, taken = ours.shape[1:], theirs.shape[1:]
    if "string" in (ours.dtype, theirs.dtype) and ours.dtype != theirs.dtype:
        return None
    code, have = "{x}", ours.dtype
    if len(given) != len(taken):
        if not _is_reshaped(given, taken):
            return None
        code = f"keras.layers.Reshape({taken})({{x}})"
    elif any(b not in (None, a) for a, b in zip(given, taken, strict=True)):
        layer = _permutation(given, taken) or _resizing(given, taken)
        if layer is None:
            return None
        # A Resizing gives floats, whatever it is given.
        code, have = f"keras.layers.{layer}({{x}})", have if "Permute" in layer else "float32"
    return code if have == theirs.dtype else f"keras.ops.cast({code}, '{theirs.dtype}')"


def _is_reshaped(given: Sequence[int | None], taken: Sequence[int | None]) -> bool:
    """Whether one is the other flattened, or with axes of size 1."""
    if None in given or None in taken:
        return False
    sizes = [[size for size in shape if size not in (None, 1)] for shape in (given, taken)]
    flat = 1 in (len(given), len(taken)) and math.prod(sizes[0]) == math.prod(sizes[1])
    return flat or sizes[0] == sizes[1]


def _permutation(given: Sequence[int | None], taken: Sequence[int | None]) -> str | None:
    """Channels moved from the first axis to the last one, or back."""
    if len(given) != 3:
        return None
    moves = {"Permute((2, 3, 1))": (1, 2, 0), "Permute((3, 1, 2))": (2, 0, 1)}
    fits = (name for name, order in moves.items() if [given[i] for i in order] == list(taken))
    return next(fits, None)


def _resizing(given: Sequence[int | None], taken: Sequence[int | None]) -> str | None:
    if len(given) != 3 or keras.config.image_data_format() != "channels_last":
        return None
    if given[2] != taken[2] or None in taken:
        return None
    return f"Resizing({taken[0]}, {taken[1]})"
