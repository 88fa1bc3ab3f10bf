"""Members that take their inputs by name, and inputs of which some are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from saikei.data import gathered
from saikei.errors import DataError, FusionError
from saikei.fusion.members import Members
from saikei.graph import Graph

_SUFFIX = "_available"
# What Keras calls an input that was given no name.
_UNNAMED = re.compile(r"(input_layer|keras_tensor)(_\d+)?")


def by_name(members: Members) -> Members:
    """Members that take a dictionary of their inputs.

    Args:
        members: The members; those with dictionaries of inputs keep these names, others take
            the names of their input layers.

    Raises:
        FusionError: When an input has no name, or one that is kept for availability.
    """
    each = zip(members.models, members.graphs, strict=True)
    named = (_by_name(model.name, graph, number) for number, (model, graph) in enumerate(each, 1))
    return Members(members.models, tuple(named))


def _by_name(member: str, graph: Graph, number: int) -> Graph:
    inputs = graph.inputs
    if not isinstance(inputs, dict):
        inputs = {graph.calls[ref.call].operation: ref for ref in graph.input_refs()}
    for name in inputs:
        if _UNNAMED.fullmatch(name) or name.endswith(_SUFFIX):
            raise FusionError(
                f"Member {number} ('{member}') calls an input '{name}', which does not name "
                "what it is: name it, keras.Input(…, name='image')."
            )
    return replace(graph, inputs=inputs)


def availability(name: str) -> str:
    """The name of the input that marks in which rows another is available."""
    return f"{name}{_SUFFIX}"


def modalities_of(model: keras.Model) -> tuple[str, ...]:
    """The names of a model's inputs that can be missing."""
    # A Sequential model that was built, and never called, has inputs but no input.
    inputs = getattr(model, "input", None)
    names = inputs if isinstance(inputs, dict) else {}
    return tuple(name for name in names if availability(name) in names)


def fill_missing(model: keras.Model, x: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs for a multimodal model from those that are there.

    Args:
        model: Made by `Multimodal`.
        x: Arrays by name, one sample a row. Inputs that are left out count as missing in all
            rows; `<name>_available`, `(n,)` or `(n, 1)` with 1 where a row has the input and 0
            where it has not, may be given for single rows.

    Returns:
        All inputs of the model: zeros for those that are missing, and availabilities.

    Raises:
        DataError: When there is no array at all, or one that the model does not know.

    Example:
        >>> import keras, numpy as np
        >>> from saikei import Multimodal
        >>> def member(name):
        ...     x = keras.Input((2,), name=name)
        ...     return keras.Model(x, keras.layers.Dense(1)(x))
        >>> data = {"image": np.ones((4, 2)), "text": np.ones((4, 2))}, np.ones(4)
        >>> model = Multimodal()([member("image"), member("text")], data)
        >>> sorted(fill_missing(model, {"text": [[1.0, 2.0]]}))
        ['image', 'image_available', 'text', 'text_available']
    """
    known = model.input if isinstance(model.input, dict) else {}
    unknown = sorted(set(x) - set(known))
    if unknown or not x:
        raise DataError(
            f"Inputs {unknown or 'none'} are given, and the model takes "
            f"{', '.join(modalities_of(model))}: give arrays for some of these."
        )
    filled = {name: np.asarray(array) for name, array in x.items()}
    rows = len(next(iter(filled.values())))
    for name in modalities_of(model):
        there = filled.get(availability(name), np.full(rows, float(name in filled)))
        filled[availability(name)] = there.reshape(rows, 1).astype("float32")
        if name not in filled:
            spec = known[name]
            shape = (rows, *(size or 1 for size in spec.shape[1:]))
            filled[name] = np.zeros(shape, "int32" if "int" in spec.dtype else "float32")
    return filled


def new_availabilities(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """For each input another that marks in which rows it is available, `(batch, 1)`."""
    flat = {name: one for name, one in inputs.items() if not tree.is_nested(one)}
    return {name: keras.Input((1,), name=availability(name)) for name in flat}


def with_all_inputs(members: Members, data: Any) -> tuple[Any, ...]:
    """Data in memory that has all inputs of the members.

    Args:
        members: Members that take dictionaries.
        data: `(x, y)` or a dataset.

    Raises:
        DataError: When its inputs are not named, or one that a member reads is not among them or
            not finite.
    """
    x, *rest = gathered(data).parts
    names = sorted({name for graph in members.graphs for name in graph.inputs})
    given = sorted(x) if isinstance(x, dict) else []
    missing = [name for name in names if name not in given]
    if missing:
        raise DataError(
            f"The members read {', '.join(names)}, and the data has no {', '.join(missing)}: give "
            "a dictionary of arrays with these names, and all of them, to fit a fusion."
        )
    for name in names:
        if x[name].dtype.kind == "f" and not np.isfinite(x[name]).all():
            raise DataError(
                f"Input '{name}' holds NaN or infinite numbers: fit a fusion to rows that have "
                "all inputs."
            )
    return {name: x[name] for name in names}, *rest
