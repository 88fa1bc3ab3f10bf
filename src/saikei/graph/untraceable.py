"""Reasons why a `call` cannot be run on symbolic tensors, and fixes."""

from __future__ import annotations

import re
import traceback
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import keras
from keras import tree

from saikei.errors import in_one_line

_USUAL_FIX = "Let its call use layers and keras.ops only, or build it with the Functional API"
_AT_INFERENCE = (
    "Let its call do the same in both; for what it does at inference, give a keras.Model that "
    "holds it as self.model and whose call returns self.model(x, training=False)"
)
_SAME_EACH_TIME = "Let layers of Keras draw random numbers, such as keras.layers.GaussianNoise"
_WITHOUT_LOSS = (
    "Leave out self.add_loss: give one of its layers activity_regularizer=, or the model a "
    "compute_loss of its own"
)
BUILT_BEFORE = "Make its layers in __init__, and call it on data once"
_TAKING_FUNCTIONS = "associative_scan|cond|fori_loop|map|scan|switch|vectorized_map|while_loop"
# What can be traced instead of operations that take functions.
_WITHOUT_FUNCTIONS = {
    "cond": "compute both results and choose with keras.ops.where",
    "switch": "compute all results and choose with keras.ops.where",
}


_FUNCTIONS = (FunctionType, MethodType, partial)


class UntraceableError(Exception):
    """A layer's `call` cannot be run on symbolic tensors, for the reason in the message.

    Args:
        reason: Why it cannot be traced, as a clause.
        fix: A fix, as a sentence without its full stop.
    """

    def __init__(self, reason: str, fix: str = _USUAL_FIX) -> None:
        super().__init__(reason)
        self.fix = fix


def check_functions(operation: Any, arguments: Any) -> None:
    """Refuse operations that take functions, whose steps would not be in the graph."""
    if isinstance(operation, keras.Layer):
        return
    given = tree.flatten((arguments, list(vars(operation).values())))
    # A branch may be a layer too.
    if any(isinstance(leaf, (*_FUNCTIONS, keras.Operation)) for leaf in given):
        words = re.findall("[A-Z][a-z0-9]*", type(operation).__name__)
        raise _hands_functions("_".join(words).lower())


def _hands_functions(name: str) -> UntraceableError:
    instead = _WITHOUT_FUNCTIONS.get(name, "write out in Python what it repeats")
    return UntraceableError(
        f"it hands functions to keras.ops.{name}, and what they do is not seen",
        f"Leave out keras.ops.{name}: {instead}",
    )


def why_they_differ(repeats: bool) -> UntraceableError:
    """The reason why a run in training has other steps than one at inference.

    Args:
        repeats: Whether another run in inference does the same as the first.
    """
    if repeats:
        return UntraceableError(
            "in training it calls other layers than in inference, and not only dropout",
            _AT_INFERENCE,
        )
    return UntraceableError(
        "it does something else each time, such as drawing random numbers", _SAME_EACH_TIME
    )


def failure(error: Exception) -> UntraceableError:
    """The reason for an error in a run on symbolic tensors, with the line of the user's code."""
    found: BaseException = error
    frames = _user_frames(found)
    # Where Keras cannot add the arguments to an error of JAX, the first error is the context.
    while not frames and found.__context__ is not None:
        found = found.__context__
        frames = _user_frames(found)
    if not frames:
        return UntraceableError(in_one_line(error, limit=200))
    last = frames[-1]
    taking_functions = re.search(rf"\bops\.({_TAKING_FUNCTIONS})\(", last.line or "")
    if taking_functions is not None:
        return _hands_functions(taking_functions[1])
    line = f"line {last.lineno} of {Path(last.filename).name}, `{last.line}`"
    if "add_loss" in str(found):
        # Keras speaks of the symbolic tensor instead.
        return UntraceableError(f"{line}: it adds a loss", _WITHOUT_LOSS)
    return UntraceableError(f"{line}: {in_one_line(found, limit=200)}")


def _user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if _is_user_code(frame.filename)]


def _is_user_code(filename: str) -> bool:
    parts = Path(filename).parts
    libraries = ("keras", "saikei", "tensorflow", "jax", "torch", "optree")
    return not any(name in parts for name in libraries)
